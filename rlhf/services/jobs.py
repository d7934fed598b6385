"""Training jobs: queueing, what their worker reports, how they end, and what becomes of lost ones."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import itertools
import logging
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import F, Window
from django.db.models.functions import RowNumber
from django.utils import timezone
from django.utils.translation import gettext

from annotation.services import DomainError
from rlhf import artifacts, jobspec, preflight
from rlhf.jobspec import Result
from rlhf.launch_commands import check_hardware
from rlhf.model_directory import check_model_directory
from rlhf.models import (
    CancelMode,
    Checkpoint,
    CheckpointKind,
    DatasetSnapshot,
    FailureClass,
    JobCheckpoint,
    JobMetric,
    JobStatus,
    Method,
    Priority,
    TrainingJob,
)
from rlhf.options import SpecError, TrainingOptions, build_options
from rlhf.services import leases
from rlhf.services.aliases import is_alias
from rlhf.services.checkpoints import find_reward_model, register_checkpoint
from rlhf.services.reward_cards import store_held_out_card
from rlhf.services.workers import most_gpus

logger = logging.getLogger(__name__)

# How many failures of a class a job survives. A lost machine says nothing about the job; bad data will stay bad.
FAILURE_BUDGETS = {
    FailureClass.INFRASTRUCTURE: 5,
    FailureClass.UNKNOWN: 1,
    FailureClass.STALLED: 1,
    FailureClass.OUT_OF_MEMORY: 0,
    FailureClass.BAD_DATA: 0,
}
# So many crashes one after another, with fewer new steps each, are a loop: the job takes its process or machine down.
CRASHES_IN_LOOP, STEPS_OUT_OF_LOOP = 2, 20
_RECONCILER_LOCK = 0x70756368  # any number of our own: one reconciler at a time


def queue_training_job(
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
    proceed: bool = False,
    found: dict[str, Any] | None = None,
) -> TrainingJob:
    """Check everything that can be checked before a GPU is taken, store the job and tell the workers.

    found: what was found of exactly this launch before (`preflight.Outcome.as_json`), not to look twice.
    proceed: start over what warns and against what blocks; who did so is stored.
    Raises DomainError with a sentence for an unknown option, a base or reward model that is missing or
    half-written or cannot be used for this, and for each check that refuses or blocks.
    """
    built = checked_options(method, base, options)
    refuse_impossible_hardware(built, label, gpus)
    reward_model = find_reward_model(built, base)
    if found is None:
        with refusing_unusable_data():
            found = preflight.run_checks(
                snapshot, method, base, built, reward_model=reward_model, label=label, gpus=gpus
            ).as_json()
    findings = [preflight.Finding.from_json(stored) for stored in found["checks"]]
    refuse_what_is_wrong(findings, proceed)
    overridden = proceed and preflight.worst(findings) > preflight.Level.PASSED
    with transaction.atomic():
        job = TrainingJob.objects.create(
            name=name,
            method=method,
            snapshot=snapshot,
            base=base,
            reward_model=reward_model,
            options=dataclasses.asdict(built),
            preflight=found,
            proceeded_at=timezone.now() if overridden else None,
            proceeded_by=created_by if overridden else None,
            code_version=code_version(),
            label=label,
            gpus=gpus,
            priority=priority,
            created_by=created_by,
        )
        transaction.on_commit(lambda: leases.dispatch_job(job))
    return job


@contextlib.contextmanager
def refusing_unusable_data() -> Iterator[None]:
    """Around the checks of a launch: what keeps them from reading the rows or the model is raised as DomainError."""
    try:
        yield
    except SpecError as error:
        raise DomainError(str(error)) from None
    except OSError as error:
        problem = gettext("The data set cannot be read (%(reason)s). Nothing was started.")
        raise DomainError(problem % {"reason": error.strerror or error}) from None


def refuse_impossible_hardware(options: TrainingOptions, label: str, gpus: int) -> None:
    """Raise DomainError for options that the GPUs asked for, or those of the workers that are running, cannot do."""
    try:
        check_hardware(options, gpus or most_gpus(label))
    except SpecError as error:
        raise DomainError(str(error)) from None


def checked_options(method: str, base: Checkpoint, options: dict[str, Any]) -> TrainingOptions:
    """The method's options, where they can be used and the base is there to be trained from. Raises DomainError."""
    if base.kind != CheckpointKind.POLICY:
        raise DomainError(
            gettext("%(name)s is a reward model; choose a checkpoint that writes responses") % {"name": base.name}
        )
    try:
        built = build_options(method, options)
        if method == Method.MERGE:
            raise SpecError(f"{method} takes no data set")
        check_model_directory(base.path)
        if artifacts.is_shared():  # it may have been brought in before there was a storage
            artifacts.store_directory(base.path)
    except (SpecError, artifacts.StorageError) as error:
        raise DomainError(str(error)) from None
    return built


def refuse_what_is_wrong(findings: list[preflight.Finding], proceed: bool) -> None:
    """Raise DomainError, with their sentences, for checks that refuse, and for those that block without `proceed`."""
    for level in (preflight.Level.REFUSED, preflight.Level.BLOCKED):
        wrong = [preflight.sentence(finding) for finding in findings if finding.level == level]
        if not wrong or (level == preflight.Level.BLOCKED and proceed):
            continue
        raise DomainError("; ".join(wrong))


def half_micro_batch(job: TrainingJob) -> int | None:
    """The next smaller micro-batch that the method understands and that divides the batch; None at the smallest."""
    given = job.options
    for rows in range(given.get("micro_batch_size", 1) // 2, 0, -1):
        try:
            build_options(job.method, {**given, "micro_batch_size": rows})
        except SpecError:
            continue
        return rows
    return None


def checkpoint_to_go_on_from(job: TrainingJob) -> str:
    """The complete checkpoint from which a failed job can be resumed; "" where nothing can go on."""
    if job.status != JobStatus.FAILED or job.failure_class == FailureClass.BAD_DATA:
        return ""  # what was refused, or diverged, would end the same way
    return last_checkpoint(job)


def resume_training_job(job: TrainingJob, **options: Any) -> None:
    """Put a paused job back into the queue, or a failed one with all its tries, to go on from its last checkpoint.

    options: those that a failed job takes another value of. Raises DomainError.
    """
    checkpoint = checkpoint_to_go_on_from(job)
    if not checkpoint:
        leases.resume_job(job)
        return
    leases.resume_job(
        job,
        JobStatus.FAILED,
        **_going_on_from(checkpoint),
        options={**job.options, **options},
        infrastructure_failures=0,
        unknown_failures=0,
        short_attempts=0,
        error="",
        cancel_requested_at=None,
        cancel_mode=CancelMode.NONE,
    )


def retry_with_half_micro_batch(job: TrainingJob, created_by: User | None = None) -> TrainingJob:
    """Have a job that ran out of memory go on with at most half as many rows at once.

    Where it left a checkpoint the same job goes on from there, else one like it is queued. Gradients are accumulated
    over more passes, so that each step learns from as many rows as before. Asking again gives the same job. Raises
    DomainError.
    """
    with transaction.atomic():
        # Two clicks make one job.
        job = TrainingJob.objects.select_for_update(of=["self"]).select_related("snapshot", "base").get(pk=job.pk)
        if job.failure_class != FailureClass.OUT_OF_MEMORY:
            raise DomainError(gettext("job %(number)s did not run out of memory") % {"number": job.pk})
        if job.status != JobStatus.FAILED:
            return job
        if existing := TrainingJob.objects.filter(retry_of=job).first():
            return existing
        rows = half_micro_batch(job)
        if rows is None or job.snapshot is None:
            raise DomainError(
                gettext(
                    "it cannot take fewer rows at once: micro_batch_size is as small as the method and the batch "
                    "allow. Lower max_tokens, or turn on gradient checkpointing or LoRA"
                )
            )
        if checkpoint_to_go_on_from(job):
            resume_training_job(job, micro_batch_size=rows)
            job.refresh_from_db()
            return job
        retry = queue_training_job(
            snapshot=job.snapshot,
            method=job.method,
            base=job.base,
            options={**job.options, "micro_batch_size": rows},
            name=job.name,
            **job.placement,
            created_by=created_by,
            proceed=job.proceeded_at is not None,
        )
        retry.retry_of = job
        retry.save(update_fields=["retry_of"])
    return retry


def code_version() -> str:
    """The version of this code, with the commit where it runs from a checkout."""
    version = importlib.metadata.version("touchstone")
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=settings.BASE_DIR, capture_output=True, text=True
    )
    return f"{version}+{described.stdout.strip()}" if described.returncode == 0 else version


def record_progress(
    job: TrainingJob, lines: Iterable[dict[str, Any]], process_seconds: float = 0.0, *, is_new: bool = True
) -> bool:
    """Store what the training process logged since last time, and how long it ran; False where the lease was lost.

    is_new: not what earlier attempts logged, some of whose steps are done again.
    """
    by_step: dict[int, dict[str, Any]] = {}
    for line in lines:
        by_step.setdefault(int(line["step"]), {}).update(line)
    if not by_step:
        return not process_seconds or _charge(job, process_seconds)
    last = max(by_step)
    total = max(int(line.get("total_steps") or 0) for line in by_step.values())
    with transaction.atomic():
        stands_at = {"step": last, "total_steps": total or job.total_steps} if is_new else {}
        if not _charge(job, process_seconds, **stands_at):
            return False
        known = JobMetric.objects.filter(job=job, step__in=by_step).values_list("step", "values")
        merged = {step: {**values, **by_step[step]} for step, values in known}
        JobMetric.objects.bulk_create(
            [JobMetric(job=job, step=step, values=merged.get(step, line)) for step, line in by_step.items()],
            update_conflicts=True,
            unique_fields=["job", "step"],
            update_fields=["values", "logged_at"],
        )
    return True


def _charge(job: TrainingJob, process_seconds: float, **fields: Any) -> bool:
    return leases.held(job).update(process_seconds=F("process_seconds") + process_seconds, **fields) == 1


def record_stored_checkpoint(job: TrainingJob, step: int, manifest_sha256: str) -> bool:
    """Note that a checkpoint is in the shared storage, and take older ones out; False where the lease was lost."""
    with transaction.atomic():
        if not leases.held(job).select_for_update().exists():
            return False
        JobCheckpoint.objects.update_or_create(
            job=job, step=step, defaults={"manifest_sha256": manifest_sha256, "stored_at": timezone.now()}
        )
    _remove_stored(job.stored_checkpoints.order_by("-step")[jobspec.CHECKPOINTS_KEPT :])
    return True


def _remove_stored(stored: Iterable[JobCheckpoint]) -> None:
    for checkpoint in stored:
        checkpoint.delete()
        with contextlib.suppress(artifacts.StorageError):  # what stays costs room and nothing else
            artifacts.remove_directory(checkpoint.manifest_sha256)


def last_checkpoint(job: TrainingJob) -> str:
    """The last complete checkpoint that whoever goes on with the job can reach; "" where there is none."""
    if artifacts.is_shared():
        stored = job.stored_checkpoints.order_by("-step").first()
        return str(stored) if stored else ""
    complete = jobspec.complete_checkpoints(job.directory)
    return complete[-1] if complete else ""


def step_of(checkpoint: str) -> int:
    """Of a checkpoint's name; 0 where there is none."""
    return int(checkpoint.removeprefix("step-") or 0)


def finish_training_job(job: TrainingJob, result: Result) -> None:
    """Store how the training process says it ended; a model it left becomes a checkpoint in the same transaction."""
    status = JobStatus(result.status)
    with transaction.atomic():
        if status == JobStatus.FAILED:
            fail_or_retry(job, result.failure_class or FailureClass.UNKNOWN, result.error)
            return
        # It says how the last try failed, and this one did not.
        if not leases.finish_job(job, status, metrics=result.metrics, failure_class=FailureClass.NONE):
            return
        model_dir = job.directory / jobspec.MODEL_DIR
        if status == JobStatus.CANCELLED and job.cancel_mode == CancelMode.DISCARD:
            shutil.rmtree(model_dir, ignore_errors=True)  # it was to be kept when its process began to save it
        if model_dir.is_dir():
            checkpoint = register_checkpoint(
                name=_checkpoint_name(job),
                kind=CheckpointKind.REWARD if job.method == Method.REWARD else CheckpointKind(job.base.kind),
                directory=model_dir,
                parent=job.base,
                job=job,
                step=int(result.metrics.get("steps", job.step)),
            )
            if checkpoint.kind == CheckpointKind.REWARD:
                store_held_out_card(checkpoint)
    _forget_checkpoints(job)


def stop_training_job(job: TrainingJob, mode: str) -> None:
    """`leases.request_cancel`, after which nothing of a job that ends by it stays on the disk."""
    leases.request_cancel(job, mode)
    job.refresh_from_db(fields=["status"])
    if job.status == JobStatus.CANCELLED:
        _forget_checkpoints(job)


def _forget_checkpoints(job: TrainingJob) -> None:
    """Optimizer states, three times the weights each, have served their end: nothing goes on from here."""
    shutil.rmtree(job.directory / jobspec.CHECKPOINTS_DIR, ignore_errors=True)
    _remove_stored(job.stored_checkpoints.all())


def _checkpoint_name(job: TrainingJob) -> str:
    name = job.name or f"{job.method}-{job.pk}"
    return f"{name}-{job.pk}" if Checkpoint.objects.filter(name=name).exists() or is_alias(name) else name


def fail_or_retry(job: TrainingJob, failure_class: str, error: str, *, crashed: bool = False) -> None:
    """End a failed attempt: back to the queue from the last complete checkpoint while the class's budget lasts.

    A job that was to stop and keep goes back with that wish: its next process makes a model of the checkpoint. Where
    there is none, nothing can be kept, and it is cancelled like one that was to be discarded.

    crashed: the process, or its worker, ended without a word; two of these in a row with few new steps end the job.
    """
    logger.warning("attempt failed: job=%s attempt=%s class=%s error=%s", job.pk, job.attempt, failure_class, error)
    job.refresh_from_db(
        fields=["infrastructure_failures", "unknown_failures", "short_attempts", "step", "cancel_mode"]
    )
    if job.cancel_mode == CancelMode.DISCARD:
        if leases.finish_job(job, JobStatus.CANCELLED):
            _forget_checkpoints(job)
        return
    if job.cancel_mode == CancelMode.KEEP and not last_checkpoint(job):
        nothing = f"{error.rstrip('.')}. Nothing could be kept: no checkpoint was complete yet."
        leases.finish_job(job, JobStatus.CANCELLED, error=nothing)
        return
    counts = {
        FailureClass.INFRASTRUCTURE: job.infrastructure_failures,
        FailureClass.UNKNOWN: job.unknown_failures,
        FailureClass.STALLED: job.unknown_failures,
    }
    fields: dict[str, Any] = {"error": error, "failure_class": failure_class}
    machine_failures = 0
    if failure_class == FailureClass.INFRASTRUCTURE:
        machine_failures = fields["infrastructure_failures"] = job.infrastructure_failures + 1
    elif failure_class in (FailureClass.UNKNOWN, FailureClass.STALLED):
        fields["unknown_failures"] = job.unknown_failures + 1
    is_loop = False
    if crashed:
        is_short = job.step - step_of(job.resume_from) < STEPS_OUT_OF_LOOP
        fields["short_attempts"] = job.short_attempts + 1 if is_short else 0
        is_loop = fields["short_attempts"] >= CRASHES_IN_LOOP
    if is_loop:
        fields["error"] = (
            f"{error}. It is not tried again by itself: {CRASHES_IN_LOOP} attempts in a row ended so, each with fewer "
            f"than {STEPS_OUT_OF_LOOP} new steps"
        )
        leases.finish_job(job, JobStatus.FAILED, **fields)
    elif counts.get(FailureClass(failure_class), 0) >= FAILURE_BUDGETS[FailureClass(failure_class)]:
        leases.finish_job(job, JobStatus.FAILED, **fields)
    else:
        requeue_training_job(job, after_failures=machine_failures, **fields)


def requeue_training_job(job: TrainingJob, *, after_failures: int = 0, **fields: Any) -> bool:
    """Give the job back to the queue, to go on from its last complete checkpoint; see `leases.requeue_job`."""
    fields = {"short_attempts": 0} | fields | _going_on_from(last_checkpoint(job))
    return leases.requeue_job(job, after_failures=after_failures, **fields)


def pause_training_job(job: TrainingJob) -> bool:
    """Put a job aside whose process has saved a checkpoint and left, to go on from there when somebody asks."""
    return leases.pause_job(job, short_attempts=0, **_going_on_from(last_checkpoint(job)))


def _going_on_from(checkpoint: str) -> dict[str, Any]:
    return {"resume_from": checkpoint, "step": step_of(checkpoint)}


def reconcile() -> dict[str, int]:
    """Mend what crashes left: return lost jobs to the queue, and tell the workers again about waiting ones.

    Safe to run from several places: an advisory lock lets one through at a time.
    """
    counts = {"lost": 0, "dispatched": 0}
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_RECONCILER_LOCK])
            if not cursor.fetchone()[0]:
                return counts
        for job in leases.expired(TrainingJob):
            counts["lost"] += 1
            if job.cancel_mode == CancelMode.PAUSE:
                pause_training_job(job)
            else:
                fail_or_retry(job, FailureClass.INFRASTRUCTURE, f"the worker {job.owner} was lost", crashed=True)
        others = [model for model in leases.JOB_MODELS if model is not TrainingJob]
        for generation in (job for model in others for job in leases.expired(model)):
            counts["lost"] += 1
            if generation.cancel_requested_at:
                leases.finish_job(generation, JobStatus.CANCELLED)
            elif generation.attempt > FAILURE_BUDGETS[FailureClass.INFRASTRUCTURE]:
                leases.finish_job(generation, JobStatus.FAILED, error=f"the worker {generation.owner} was lost")
            else:
                leases.requeue_job(generation, after_failures=generation.attempt)
    for waiting in itertools.chain.from_iterable(map(leases.waiting_unheard, leases.JOB_MODELS)):
        if not leases.dispatch_job(waiting):
            break  # nor would the others' messages go through, and each of them waits for the broker in vain
        counts["dispatched"] += 1
    # A worker that was killed right after it had ended a job has left these.
    _remove_stored(JobCheckpoint.objects.filter(job__status__in=[JobStatus.SUCCEEDED, JobStatus.CANCELLED]))
    return counts


# An estimate looks back this many logged steps.
_STEPS_LOOKED_BACK = 50


def seconds_left(job: TrainingJob) -> float | None:
    """An estimate from the steps of this attempt that were logged, or None before there is anything to go by."""
    return seconds_left_by_job([job]).get(job.pk)


def seconds_left_by_job(jobs: Iterable[TrainingJob]) -> dict[int, float]:
    """`seconds_left` of each running job that has one, and was not asked to stop, in one query."""
    going_on = (job for job in jobs if job.status == JobStatus.RUNNING and not job.cancel_mode)
    running = {job.pk: job for job in going_on if job.total_steps}
    if not running:
        return {}
    recent: dict[int, list[tuple[int, datetime]]] = {}
    rows = (
        # A resumed job has rows beyond its step, from the attempt before.
        JobMetric.objects.filter(job__in=running, step__lte=F("job__step"))
        .annotate(back=Window(RowNumber(), partition_by="job", order_by=F("step").desc()))
        .filter(back__lte=_STEPS_LOOKED_BACK)
    )
    for job_id, step, logged_at in rows.order_by("-step").values_list("job", "step", "logged_at"):
        if step > step_of(running[job_id].resume_from):
            recent.setdefault(job_id, []).append((step, logged_at))
    estimates = {}
    for job_id, steps in recent.items():
        if len(steps) > 1:
            (last_step, last_at), (first_step, first_at) = steps[0], steps[-1]
            pace = (last_at - first_at).total_seconds() / (last_step - first_step)
            since = (timezone.now() - last_at).total_seconds()
            estimates[job_id] = max(0.0, pace * (running[job_id].total_steps - last_step) - since)
    return estimates
