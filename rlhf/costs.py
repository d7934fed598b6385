"""What a training job took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from rlhf.models import InsightKind, TrainingJob


@dataclass(frozen=True)
class Cost:
    """How long a job's processes ran, altogether."""

    hours: float
    label: str | Promise
    device: str


def cost_of(job: TrainingJob, hardware: dict[str, Any] | None) -> Cost:
    """Hours of graphics cards where it ran on any, else of processes."""
    hardware = hardware or {}
    device = str(hardware.get("device", ""))
    hours = job.process_seconds * int(hardware.get("processes", 1)) / 3600
    return Cost(hours, _("process-hours") if device in ("", "CPU") else _("GPU-hours"), device)


def hardware_of(jobs: Sequence[TrainingJob]) -> dict[int, dict[str, Any]]:
    """What each of these jobs said that it runs on, in one query."""
    rows = TrainingJob.objects.filter(pk__in=[job.pk for job in jobs], insights__kind=InsightKind.HARDWARE)
    return dict(rows.values_list("pk", "insights__values"))
