"""What is seen of a training run beside its numbers: alarms, and what the process itself shows."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable
from typing import Any

from rlhf.alarms import PAUSING, Alarm
from rlhf.models import InsightKind, JobAlarm, JobInsight, JobMetric, TrainingJob
from rlhf.services import leases

logger = logging.getLogger(__name__)


def raise_alarms(job: TrainingJob, alarms: Iterable[Alarm]) -> None:
    """Store alarms of a job that this worker holds; one that was raised before stays as it was.

    A job that asks for it is paused by the first that says that its rewards mean nothing any more. Whoever resumes it
    has seen that alarm, which does not pause it again.
    """
    found = list(alarms)
    if not found or not leases.held(job).exists():
        return
    known = set(job.alarms.values_list("code", flat=True))
    logger.warning("alarms raised: job=%s codes=%s", job.pk, ",".join(alarm.code for alarm in found))
    JobAlarm.objects.bulk_create(
        [JobAlarm(job=job, code=alarm.code, step=alarm.step, value=alarm.value) for alarm in found],
        ignore_conflicts=True,
    )
    pausing = [alarm.code for alarm in found if alarm.code in PAUSING and alarm.code not in known]
    if pausing and job.options.get("pause_on_alarm"):
        with contextlib.suppress(leases.IllegalTransitionError):  # somebody has asked it to stop already
            leases.request_pause(job, alarm=pausing[0])


def record_insights(job: TrainingJob, lines: Iterable[dict[str, Any]]) -> None:
    """Store what the process showed since last time; lines of a kind that this version does not know are left."""
    newest = {
        (line["kind"], int(line["step"])): {
            name: value for name, value in line.items() if name not in ("kind", "step")
        }
        for line in lines
        if line.get("kind") in InsightKind.values
    }
    if not newest or not leases.held(job).exists():
        return
    JobInsight.objects.bulk_create(
        [JobInsight(job=job, kind=kind, step=step, values=values) for (kind, step), values in newest.items()],
        update_conflicts=True,
        unique_fields=["job", "kind", "step"],
        update_fields=["values", "shown_at"],
    )


def losses_around(job: TrainingJob, step: int, count: int) -> dict[int, float]:
    """Step → loss of the last `count` logs up to `step`, and of the one after it where an attempt has come so far."""
    logged = JobMetric.objects.filter(job=job, step__lte=step + 1).order_by("-step")
    found = logged.values_list("step", "values")[: count + 1]
    return {at: float(values["loss"]) for at, values in found if isinstance(values.get("loss"), int | float)}
