"""Leases on jobs: the only writers of `status`, `owner`, `attempt` and `lease_expires_at`.

    queued ──claim──▶ running ──finish──▶ succeeded | failed | cancelled
      ▲  │               │
      │  └──pause───▶ paused ◀──pause (its worker has saved a checkpoint)
      │                  │
      ├──────resume──────┘     (a paused or queued job is cancelled at once; one with a checkpoint
      │                         that is to be kept is queued, to make a model of it)
      ├──────resume────── failed (with a checkpoint)
      ├─────requeue────── running
      └─────reopen─────── succeeded | failed | cancelled

Each transition is one conditional UPDATE. What a worker writes is fenced by (owner, attempt): a worker that lost its
lease changes no row, sees that, and leaves.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TypeVar

from celery import current_app
from django.conf import settings
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Coalesce, Now
from django.utils import timezone
from django.utils.translation import gettext
from kombu.exceptions import OperationalError as BrokerError

from annotation.services import DomainError
from rlhf.models import (
    FINAL_STATUSES,
    BenchmarkRun,
    CancelMode,
    GenerationJob,
    JobStatus,
    JudgeRun,
    LeasedJob,
    TrainingJob,
    queue_of,
)

logger = logging.getLogger(__name__)

Job = TypeVar("Job", bound=LeasedJob)

# A message that no worker has taken by then is thrown away, and the reconciler sends another.
MESSAGE_LIFE_SECONDS = 60


class IllegalTransitionError(DomainError):
    """The job is not in a state that allows this."""


IS_READY = Q(not_before=None) | Q(not_before__lte=Now())


def dispatch_job(job: LeasedJob) -> bool:
    """Tell the workers that the job waits. False where the broker is away: the reconciler will tell them later."""
    task = _TASKS[type(job)]
    queue = queue_of(job.label) if isinstance(job, TrainingJob) else "generate"
    type(job).objects.filter(pk=job.pk).update(dispatched_at=timezone.now())  # type: ignore[attr-defined]
    try:
        current_app.send_task(task, args=[job.pk], queue=queue, expires=MESSAGE_LIFE_SECONDS)
    except (BrokerError, ConnectionError, OSError) as error:
        logger.warning("broker away, job waits for the reconciler: job=%s error=%s", job.pk, error)
        type(job).objects.filter(pk=job.pk).update(dispatched_at=None)  # type: ignore[attr-defined]
        return False
    return True


def broker_is_up() -> bool:
    """Whether messages to the workers go through now; asks for two seconds at most."""
    try:
        with current_app.connection_for_write(connect_timeout=2) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=2)
    except (BrokerError, ConnectionError, OSError):
        return False
    return True


def claim_job(model: type[Job], job_id: int, owner: str) -> Job | None:
    """Take a queued job, or None where there is nothing to take (a duplicate message, a cancelled job)."""
    claimed = model.objects.filter(IS_READY, pk=job_id, status=JobStatus.QUEUED).update(  # type: ignore[attr-defined]
        status=JobStatus.RUNNING,
        owner=owner,
        attempt=F("attempt") + 1,
        lease_expires_at=Now() + timedelta(seconds=settings.JOB_LEASE_SECONDS),
        started_at=Coalesce("started_at", Now()),
        not_before=None,
        error="",
    )
    return model.objects.get(pk=job_id) if claimed else None  # type: ignore[attr-defined]


def held(job: Job) -> QuerySet[Job]:
    """The job's row, if this worker still holds it."""
    return type(job).objects.filter(  # type: ignore[attr-defined]
        pk=job.pk, status=JobStatus.RUNNING, owner=job.owner, attempt=job.attempt
    )


def renew_lease(job: LeasedJob) -> bool:
    """Prolong the lease; False means that it is lost and the work must stop."""
    return held(job).update(lease_expires_at=Now() + timedelta(seconds=settings.JOB_LEASE_SECONDS)) == 1


def finish_job(job: LeasedJob, status: JobStatus, **fields: object) -> bool:
    """End a job that this worker holds; False where the lease was lost and nothing was written."""
    assert status in FINAL_STATUSES
    return held(job).update(status=status, owner="", lease_expires_at=None, finished_at=Now(), **fields) == 1


def requeue_job(job: LeasedJob, *, after_failures: int = 0, **fields: object) -> bool:
    """Give a running job back to the queue; the reconciler tells the workers. False where the lease was lost.

    after_failures: how often its machine has failed; each time it waits longer, because what ended one attempt (a
    full disk, a storage that is away) would end the next at once.
    """
    if after_failures:
        pauses = settings.JOB_RETRY_PAUSES
        fields["not_before"] = Now() + timedelta(seconds=pauses[min(after_failures, len(pauses)) - 1])
    requeued = held(job).update(
        status=JobStatus.QUEUED, owner="", lease_expires_at=None, queued_at=Now(), dispatched_at=None, **fields
    )
    return requeued == 1


def request_cancel(job: LeasedJob, mode: str = "discard") -> None:
    """Cancel a queued job at once, or ask the worker of a running one to stop; asking again may change the mode.

    To keep what a waiting training job has in its checkpoint, a worker must make a model of it: it stays in the queue
    or returns to it. Raises IllegalTransitionError where the job has ended.
    """
    asked: dict[str, object] = {"cancel_requested_at": Now()}
    rows = type(job).objects.filter(pk=job.pk)  # type: ignore[attr-defined]
    running = rows.filter(status=JobStatus.RUNNING)
    if isinstance(job, TrainingJob):
        asked["cancel_mode"] = mode
        if mode == CancelMode.KEEP:  # a child that was asked to pause leaves no model to keep
            running = running.exclude(cancel_mode=CancelMode.PAUSE)
    waiting = rows.filter(status__in=[JobStatus.QUEUED, JobStatus.PAUSED])
    if mode == CancelMode.KEEP and isinstance(job, TrainingJob):
        learnt = waiting.exclude(resume_from="")
        if learnt.update(status=JobStatus.QUEUED, queued_at=Now(), dispatched_at=None, not_before=None, **asked):
            dispatch_job(job)
            return
    ended = waiting.update(status=JobStatus.CANCELLED, finished_at=Now(), **asked)
    if ended or running.update(**asked):
        return
    job.refresh_from_db()
    if job.status == JobStatus.RUNNING:
        raise IllegalTransitionError(
            gettext("job %(number)s is being paused; wait until it is, then resume it to stop and keep")
            % {"number": job.pk}
        )
    raise IllegalTransitionError(
        gettext("job %(number)s has %(status)s already; there is nothing to cancel")
        % {"number": job.pk, "status": gettext(job.status)}
    )


def request_pause(job: TrainingJob, *, alarm: str = "") -> None:
    """Take a queued job out of the queue, or ask the worker of a running one to save a checkpoint and let go.

    alarm: that for which its worker asks, where no person does.
    Raises IllegalTransitionError where the job has ended, is paused already or was asked to stop.
    """
    rows = TrainingJob.objects.filter(pk=job.pk)
    not_asked = {"cancel_requested_at": None, "cancel_mode": CancelMode.NONE}
    if rows.filter(status=JobStatus.QUEUED).update(status=JobStatus.PAUSED, dispatched_at=None, **not_asked):
        return
    asked = {"cancel_requested_at": Now(), "cancel_mode": CancelMode.PAUSE, "paused_for": alarm}
    if rows.filter(status=JobStatus.RUNNING, cancel_mode="").update(**asked):
        return
    job.refresh_from_db()
    raise IllegalTransitionError(
        gettext("job %(number)s is %(status)s; only a job that waits or runs can be paused")
        % {"number": job.pk, "status": gettext("stopping" if job.cancel_mode else job.status)}
    )


def pause_job(job: TrainingJob, **fields: object) -> bool:
    """Put a running job aside for which a pause was asked; False where the lease was lost."""
    fields |= {"cancel_requested_at": None, "cancel_mode": CancelMode.NONE}
    paused = held(job).update(
        status=JobStatus.PAUSED, owner="", lease_expires_at=None, dispatched_at=None, error="", **fields
    )
    return paused == 1


def resume_job(job: TrainingJob, status: JobStatus = JobStatus.PAUSED, **fields: object) -> None:
    """Put a job of this status back into the queue and tell the workers. Raises IllegalTransitionError."""
    fields |= {"queued_at": Now(), "dispatched_at": None, "not_before": None, "finished_at": None, "paused_for": ""}
    if not TrainingJob.objects.filter(pk=job.pk, status=status).update(status=JobStatus.QUEUED, **fields):
        job.refresh_from_db()
        raise IllegalTransitionError(
            gettext(
                "job %(number)s is %(status)s; only a paused job, or one that failed with a checkpoint, can be resumed"
            )
            % {"number": job.pk, "status": gettext(job.status)}
        )
    dispatch_job(job)


def reopen_job(job: LeasedJob, *, even_succeeded: bool = False) -> bool:
    """Put an ended job back into the queue with all its tries; False where it is waiting or under way.

    Who calls it tells the workers, when what belongs to the reopening is stored too.
    """
    states = [JobStatus.FAILED, JobStatus.CANCELLED] + ([JobStatus.SUCCEEDED] if even_succeeded else [])
    ended = type(job).objects.filter(pk=job.pk, status__in=states)  # type: ignore[attr-defined]
    reopened = ended.update(
        status=JobStatus.QUEUED,
        attempt=0,
        finished_at=None,
        cancel_requested_at=None,
        dispatched_at=None,
        not_before=None,
        queued_at=Now(),
        error="",
    )
    return bool(reopened)


def expired(model: type[Job]) -> QuerySet[Job]:
    """Running jobs whose worker has not been heard of for a whole lease."""
    return model.objects.filter(status=JobStatus.RUNNING, lease_expires_at__lt=Now())  # type: ignore[attr-defined]


def waiting_unheard(model: type[Job]) -> QuerySet[Job]:
    """Queued jobs for which no live message is under way."""
    stale = timezone.now() - timedelta(seconds=MESSAGE_LIFE_SECONDS)
    queued = model.objects.filter(IS_READY, status=JobStatus.QUEUED)  # type: ignore[attr-defined]
    return queued.filter(dispatched_at=None) | queued.filter(dispatched_at__lt=stale)


_TASKS: dict[type[LeasedJob], str] = {
    TrainingJob: "rlhf.tasks.run_training_job",
    GenerationJob: "rlhf.tasks.run_generation_job",
    BenchmarkRun: "rlhf.tasks.run_benchmark",
    JudgeRun: "rlhf.tasks.run_judge",
}
JOB_MODELS = tuple(_TASKS)
