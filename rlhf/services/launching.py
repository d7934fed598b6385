"""The checks of a launch, what a worker measures for them, and the start."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from celery import current_app
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext
from kombu.exceptions import OperationalError as BrokerError

from annotation.services import DomainError
from rlhf import preflight
from rlhf.launch_config import LaunchConfig
from rlhf.models import (
    Checkpoint,
    DatasetSnapshot,
    LaunchCheck,
    Priority,
    ProbeStatus,
    TrainingJob,
    Worker,
    queue_of,
)
from rlhf.models.workers import MEASURING_LIFE
from rlhf.services.checkpoints import find_reward_model
from rlhf.services.jobs import (
    checked_options,
    queue_training_job,
    refuse_impossible_hardware,
    refusing_unusable_data,
)
from rlhf.services.workers import NoFreeGPUError, take_gpus_to_measure

logger = logging.getLogger(__name__)

# A worker that has not begun by then is busy with something else.
WAITING_LIFE = timedelta(minutes=2)
# Checks that never became a job are of no use after this.
_KEPT = timedelta(days=14)
# What neither a dry step's time nor its memory depends on. All other options must be the same, new ones included.
_NOT_MEASURED = frozenset(
    {
        "learning_rate", "value_learning_rate", "epochs", "max_steps", "warmup_share", "weight_decay", "scheduler",
        "seed", "checkpoint_every_steps", "eval_every_steps", "model_every_steps", "sample_prompts", "sample_tokens",
        "lora_alpha", "beta", "label_smoothing", "desirable_weight", "undesirable_weight", "reward_model_weight",
        "rule_weight", "clip_range", "discount", "gae_lambda", "value_coefficient", "value_clip_range",
        "pause_on_alarm",
    }
)  # fmt: skip


def check_launch(
    *,
    snapshot: DatasetSnapshot,
    method: str,
    base: Checkpoint,
    options: dict[str, Any],
    name: str = "",
    label: str = "",
    gpus: int = 0,
    priority: int = Priority.NORMAL,
    created_by: User | None = None,
) -> LaunchCheck:
    """Look at everything that needs no model in memory; what a worker measured of the same launch before comes along.

    Raises DomainError.
    """
    built = checked_options(method, base, options)
    refuse_impossible_hardware(built, label, gpus)
    reward_model = find_reward_model(built, base)
    with refusing_unusable_data():
        outcome = preflight.run_checks(
            snapshot, method, base, built, reward_model=reward_model, label=label, gpus=gpus
        )
    LaunchCheck.objects.filter(job=None, created_at__lt=timezone.now() - _KEPT).delete()
    check = LaunchCheck(
        snapshot=snapshot,
        base=base,
        method=method,
        name=name,
        label=label,
        gpus=gpus,
        priority=priority,
        options=dataclasses.asdict(built),
        outcome=outcome.as_json(),
        created_by=created_by,
    )
    earlier = _measured_alike(check)
    if earlier is not None:
        check.probe_status, check.probe_asked_at = ProbeStatus.DONE, earlier.probe_asked_at
        check.probe_findings = earlier.probe_findings
    check.save()
    return check


def launch_config(source: TrainingJob | LaunchCheck) -> LaunchConfig:
    """The launch as the file that the form, `train --config` and the API read."""
    return LaunchConfig(
        method=source.method,
        snapshot=source.snapshot.name if source.snapshot else "",
        base=source.base.name,
        name=source.name,
        label=source.label,
        gpus=source.gpus,
        priority=Priority(source.priority).name.lower(),
        options=source.options,
    )


def _measured_alike(check: LaunchCheck) -> LaunchCheck | None:
    """A check whose worker ran the same model on the same rows in the same way, in the same place."""
    same = {f"options__{name}": value for name, value in check.options.items() if name not in _NOT_MEASURED}
    return (
        LaunchCheck.objects.filter(
            snapshot=check.snapshot,
            base=check.base,
            method=check.method,
            label=check.label,
            gpus=check.gpus,
            probe_status=ProbeStatus.DONE,
            **same,
        )
        .exclude(probe_findings__contains=[{"code": "probe_failed"}])
        .order_by("-pk")
        .first()
    )


def request_probe(check: LaunchCheck) -> None:
    """Ask a worker to load the model and take one step. Raises DomainError where the message cannot be sent."""
    with transaction.atomic():
        asked = (
            LaunchCheck.objects.filter(pk=check.pk, job=None)
            .exclude(pk__in=_under_way())
            .update(probe_status=ProbeStatus.WAITING, probe_asked_at=timezone.now(), probe_findings=[])
        )
    if not asked:
        return
    try:
        current_app.send_task(
            "rlhf.tasks.run_probe", args=[check.pk], queue=queue_of(check.label), expires=WAITING_LIFE.total_seconds()
        )
    except (BrokerError, ConnectionError, OSError) as error:
        logger.warning("broker away, probe not sent: check=%s error=%s", check.pk, error)
        LaunchCheck.objects.filter(pk=check.pk).update(probe_status=ProbeStatus.NONE, probe_asked_at=None)
        raise DomainError(
            gettext("the message broker is away, so no worker can be asked; the job can be started all the same")
        ) from None


def _under_way() -> Any:
    now = timezone.now()
    return LaunchCheck.objects.filter(
        Q(probe_status=ProbeStatus.WAITING, probe_asked_at__gt=now - WAITING_LIFE)
        | Q(probe_status=ProbeStatus.RUNNING, probe_asked_at__gt=now - MEASURING_LIFE)
    ).values("pk")


def is_being_measured(check: LaunchCheck) -> bool:
    """Whether an answer may still come."""
    return LaunchCheck.objects.filter(pk=check.pk, pk__in=_under_way()).exists()


Measure = Callable[[LaunchCheck, list[int] | None], list[preflight.Finding]]
"""Of a launch, and the GPUs that it may use; None leaves these to the environment."""


def take_probe(check_id: int, measure: Measure, worker: Worker | None = None) -> bool:
    """What a worker does with a request: measure and store; False where there is nothing to do (any more).

    Like a job it takes its GPUs from those that are free. Where they are not, the request stays as it is, and its page
    says after a while that no worker was free.
    """
    try:
        with transaction.atomic():
            taken = LaunchCheck.objects.filter(pk=check_id, probe_status=ProbeStatus.WAITING, job=None).update(
                probe_status=ProbeStatus.RUNNING, probe_asked_at=timezone.now()
            )
            if not taken:
                return False
            check = LaunchCheck.objects.select_related("snapshot", "base").get(pk=check_id)
            gpus = take_gpus_to_measure(worker, check) if worker else None
    except NoFreeGPUError:
        logger.info("no GPU free, nothing measured: check=%s", check_id)
        return False
    measure_launch(check, measure, gpus)
    return True


def measure_launch(check: LaunchCheck, measure: Measure, gpus: list[int] | None = None) -> None:
    """Measure on this machine and store what was found."""
    check.probe_findings = [finding.as_json() for finding in measure(check, gpus)]
    check.probe_status, check.probe_asked_at = ProbeStatus.DONE, timezone.now()
    check.save(update_fields=["probe_status", "probe_asked_at", "probe_findings"])


def findings_of(check: LaunchCheck) -> list[preflight.Finding]:
    """What was found at once and what a worker found, which settles some of the former."""
    stored = [*check.outcome["checks"], *check.probe_findings]
    return preflight.settle([preflight.Finding.from_json(one) for one in stored])


def start_checked_job(check: LaunchCheck, *, proceed: bool, created_by: User | None = None) -> TrainingJob:
    """Start the job that was checked; asking again gives the same job. Raises DomainError."""
    with transaction.atomic():
        check = LaunchCheck.objects.select_for_update(of=["self"]).get(pk=check.pk)
        if check.job is not None:
            return check.job
        job = queue_training_job(
            snapshot=check.snapshot,
            method=check.method,
            base=check.base,
            options=check.options,
            name=check.name,
            **check.placement,
            created_by=created_by,
            proceed=proceed,
            found=check.outcome | {"checks": [finding.as_json() for finding in findings_of(check)]},
        )
        check.job = job
        check.save(update_fields=["job"])
    return job
