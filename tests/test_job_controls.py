"""What may be asked of a job in each of its states, and what it becomes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from annotation.services import DomainError
from rlhf import jobspec
from rlhf.alarms import Alarm
from rlhf.jobspec import Result
from rlhf.models import Checkpoint, JobStatus, TrainingJob
from rlhf.services import jobs, leases, register_base_checkpoint, watching
from tests.pages.training import make_job

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]
Action = Callable[[TrainingJob], object]


@pytest.fixture
def base(tiny_model: Path) -> Checkpoint:
    return register_base_checkpoint("tiny", tiny_model)


def claim(job: TrainingJob) -> TrainingJob:
    claimed = leases.claim_job(TrainingJob, job.pk, "worker")
    assert claimed is not None
    return claimed


def complete_checkpoint(job: TrainingJob, step: int) -> None:
    directory = job.directory / "checkpoints" / f"step-{step}"
    directory.mkdir(parents=True)
    jobspec.write_manifest(directory)


def queued(base: Checkpoint) -> TrainingJob:
    return make_job(base)


def running(base: Checkpoint) -> TrainingJob:
    return claim(queued(base))


def pausing(base: Checkpoint) -> TrainingJob:
    job = running(base)
    leases.request_pause(job)
    job.refresh_from_db()
    return job


def stopping(base: Checkpoint) -> TrainingJob:
    job = running(base)
    leases.request_cancel(job, "keep")
    job.refresh_from_db()
    return job


def paused(base: Checkpoint) -> TrainingJob:
    job = pausing(base)
    assert jobs.pause_training_job(job)
    job.refresh_from_db()
    return job


def requeued(base: Checkpoint) -> TrainingJob:
    job = running(base)
    complete_checkpoint(job, 7)
    assert jobs.requeue_training_job(job)
    job.refresh_from_db()
    return job


def paused_with_a_checkpoint(base: Checkpoint) -> TrainingJob:
    job = pausing(base)
    complete_checkpoint(job, 7)
    assert jobs.pause_training_job(job)
    job.refresh_from_db()
    return job


def ended(base: Checkpoint) -> TrainingJob:
    job = running(base)
    leases.finish_job(job, JobStatus.FAILED, error="why")
    job.refresh_from_db()
    return job


def pause(job: TrainingJob) -> None:
    leases.request_pause(job)


def resume(job: TrainingJob) -> None:
    leases.resume_job(job)


def keep(job: TrainingJob) -> None:
    jobs.stop_training_job(job, "keep")


def discard(job: TrainingJob) -> None:
    jobs.stop_training_job(job, "discard")


REFUSED = None
# state: what each action makes of it, as (status, cancel_mode)
TABLE: dict[Callable[[Checkpoint], TrainingJob], dict[Action, tuple[str, str] | None]] = {
    queued: {pause: ("paused", ""), resume: REFUSED, keep: ("cancelled", "keep"), discard: ("cancelled", "discard")},
    running: {
        pause: ("running", "pause"),
        resume: REFUSED,
        keep: ("running", "keep"),
        discard: ("running", "discard"),
    },
    pausing: {pause: REFUSED, resume: REFUSED, keep: REFUSED, discard: ("running", "discard")},
    stopping: {pause: REFUSED, resume: REFUSED, keep: ("running", "keep"), discard: ("running", "discard")},
    paused: {pause: REFUSED, resume: ("queued", ""), keep: ("cancelled", "keep"), discard: ("cancelled", "discard")},
    # What a waiting job has learnt is kept by a worker that makes a model of its checkpoint.
    requeued: {pause: ("paused", ""), resume: REFUSED, keep: ("queued", "keep"), discard: ("cancelled", "discard")},
    paused_with_a_checkpoint: {
        pause: REFUSED,
        resume: ("queued", ""),
        keep: ("queued", "keep"),
        discard: ("cancelled", "discard"),
    },
    ended: {pause: REFUSED, resume: REFUSED, keep: REFUSED, discard: REFUSED},
}


@pytest.mark.parametrize("state", TABLE, ids=lambda state: state.__name__)
def test_what_may_be_asked_in_each_state(base: Checkpoint, state: Callable[[Checkpoint], TrainingJob]) -> None:
    for number, (action, becomes) in enumerate(TABLE[state].items()):
        job = state(base)
        before = (job.status, job.cancel_mode)
        if becomes is REFUSED:
            with pytest.raises(leases.IllegalTransitionError):
                action(job)
        else:
            action(job)
        job.refresh_from_db()
        assert (job.status, job.cancel_mode) == (becomes or before), f"{state.__name__} and {action.__name__}"
        assert job.status != "cancelled" or not jobspec.complete_checkpoints(job.directory)
        TrainingJob.objects.filter(pk=job.pk).update(name=f"done-{number}")


def test_a_paused_job_keeps_its_checkpoint_and_its_worker_is_free(base: Checkpoint) -> None:
    job = pausing(base)
    complete_checkpoint(job, 7)
    jobs.pause_training_job(job)
    job.refresh_from_db()
    assert (job.status, job.owner, job.lease_expires_at, job.resume_from) == ("paused", "", None, "step-7")
    assert leases.claim_job(TrainingJob, job.pk, "another") is None
    leases.resume_job(job)
    again = claim(job)
    assert (again.attempt, again.resume_from, again.cancel_requested_at) == (2, "step-7", None)


def test_a_lost_worker_that_was_asked_to_pause_leaves_a_paused_job(base: Checkpoint) -> None:
    job = pausing(base)
    complete_checkpoint(job, 3)
    TrainingJob.objects.filter(pk=job.pk).update(lease_expires_at=job.queued_at)
    jobs.reconcile()
    job.refresh_from_db()
    assert (job.status, job.resume_from, job.infrastructure_failures) == ("paused", "step-3", 0)


def test_a_job_whose_end_somebody_asked_for_ends_so_though_its_worker_is_lost(base: Checkpoint) -> None:
    for mode, has_checkpoint, becomes in (
        ("keep", True, ("queued", "keep", "step-3")),
        ("keep", False, ("cancelled", "keep", "")),
        ("discard", True, ("cancelled", "discard", "")),
    ):
        job = running(base)
        if has_checkpoint:
            complete_checkpoint(job, 3)
        leases.request_cancel(job, mode)
        TrainingJob.objects.filter(pk=job.pk).update(lease_expires_at=job.queued_at)
        jobs.reconcile()
        job.refresh_from_db()
        assert (job.status, job.cancel_mode, job.resume_from) == becomes
        assert bool(jobspec.complete_checkpoints(job.directory)) == (job.status == "queued")
        assert ("Nothing could be kept" in job.error) == (mode == "keep" and not has_checkpoint)
        TrainingJob.objects.filter(pk=job.pk).update(name=f"done-{mode}-{has_checkpoint}")


def test_only_the_worker_that_holds_a_job_adds_to_its_time_and_its_alarms(base: Checkpoint) -> None:
    job = running(base)
    assert jobs.record_progress(job, [], process_seconds=2.5)
    assert jobs.record_progress(job, [{"step": 1, "total_steps": 4, "loss": 0.7}], process_seconds=1.5)
    watching.raise_alarms(job, [Alarm("kl_high", 1, 12.0)])
    watching.raise_alarms(job, [Alarm("kl_high", 9, 30.0)])
    jobs.requeue_training_job(job)
    assert not jobs.record_progress(job, [], process_seconds=9.0)
    watching.raise_alarms(job, [Alarm("nan", 9)])
    watching.record_insights(job, [{"kind": "samples", "step": 0, "rows": []}])
    job.refresh_from_db()
    assert job.process_seconds == 4.0
    assert [(alarm.code, alarm.step, alarm.value) for alarm in job.alarms.all()] == [("kl_high", 1, 12.0)]
    assert not job.insights.exists()


def test_an_alarm_that_makes_rewards_worthless_pauses_a_job_once(base: Checkpoint) -> None:
    on_policy = {"method": "grpo", "rule": "length", "rule_argument": "20"}
    job = claim(make_job(base, **on_policy))
    watching.raise_alarms(job, [Alarm("reward_length", 4, 1.6)])
    job.refresh_from_db()
    assert (job.cancel_mode, job.paused_for) == ("", "")
    watching.raise_alarms(job, [Alarm("kl_high", 5, 12.0)])
    job.refresh_from_db()
    assert (job.cancel_mode, job.paused_for) == ("pause", "kl_high")
    complete_checkpoint(job, 5)
    assert jobs.pause_training_job(job)
    job.refresh_from_db()
    assert (job.status, job.resume_from, job.paused_for) == ("paused", "step-5", "kl_high")
    jobs.resume_training_job(job)
    again = claim(job)
    watching.raise_alarms(again, [Alarm("kl_high", 6, 13.0)])  # it was seen and resumed all the same
    again.refresh_from_db()
    assert (again.cancel_mode, again.paused_for) == ("", "")
    watching.raise_alarms(again, [Alarm("all_cut", 19, 1.0)])
    again.refresh_from_db()
    assert (again.cancel_mode, again.paused_for) == ("pause", "all_cut")
    leases.finish_job(again, JobStatus.FAILED, error="why")

    for unwanted in (claim(make_job(base, pause_on_alarm=False, **on_policy)), running(base)):
        watching.raise_alarms(unwanted, [Alarm("kl_high", 5, 12.0)])
        unwanted.refresh_from_db()
        assert unwanted.cancel_mode == ""


def test_an_alarm_does_not_change_how_somebody_asked_a_job_to_end(base: Checkpoint) -> None:
    job = claim(make_job(base, method="grpo", rule="length", rule_argument="20"))
    leases.request_cancel(job, "keep")
    watching.raise_alarms(job, [Alarm("kl_high", 5, 12.0)])
    job.refresh_from_db()
    assert (job.cancel_mode, job.paused_for) == ("keep", "")


def failed(base: Checkpoint, failure_class: str, step: int = 0, **options: int) -> TrainingJob:
    job = claim(make_job(base, **options))
    if step:
        complete_checkpoint(job, step)
    TrainingJob.objects.filter(pk=job.pk).update(infrastructure_failures=5, unknown_failures=1)
    jobs.finish_training_job(job, Result(status="failed", error="why", failure_class=failure_class))
    job.refresh_from_db()
    assert job.status == "failed"
    return job


def test_a_failed_job_goes_on_from_its_checkpoint_with_all_its_tries(base: Checkpoint) -> None:
    for number, failure_class in enumerate(("infrastructure", "unknown", "out_of_memory")):
        job = failed(base, failure_class, step=390)
        jobs.resume_training_job(job)
        again = claim(job)
        assert (again.attempt, again.resume_from, again.finished_at) == (2, "step-390", None)
        assert (again.infrastructure_failures, again.unknown_failures, again.error) == (0, 0, "")
        TrainingJob.objects.filter(pk=job.pk).update(name=f"done-{number}")
    for job in (failed(base, "unknown"), failed(base, "bad_data", step=390)):
        with pytest.raises(leases.IllegalTransitionError, match="one that failed with a checkpoint"):
            jobs.resume_training_job(job)
        TrainingJob.objects.filter(pk=job.pk).update(name=f"done-{job.pk}")


def test_after_running_out_of_memory_a_job_with_a_checkpoint_goes_on_with_half(base: Checkpoint) -> None:
    job = failed(base, "out_of_memory", step=390, batch_size=12, micro_batch_size=6)
    again = jobs.retry_with_half_micro_batch(job)
    assert (again, again.status, again.resume_from) == (job, "queued", "step-390")
    assert (again.options["batch_size"], again.options["micro_batch_size"]) == (12, 3)
    assert again.error == ""  # what is to be done about it was done
    assert jobs.retry_with_half_micro_batch(job) == job  # a second click changes nothing
    held = claim(job)
    assert jobs.retry_with_half_micro_batch(job) == job  # nor does one that a worker was faster than
    jobs.finish_training_job(held, Result(status="succeeded"))
    job.refresh_from_db()
    assert (job.options["micro_batch_size"], job.failure_class) == (3, "")
    assert not hasattr(job, "retry")


def test_after_running_out_of_memory_half_the_micro_batch_learns_the_same(base: Checkpoint) -> None:
    job = make_job(base, batch_size=12, micro_batch_size=6)
    with pytest.raises(DomainError, match="did not run out of memory"):
        jobs.retry_with_half_micro_batch(job)
    jobs.finish_training_job(claim(job), Result(status="failed", error="why", failure_class="out_of_memory"))
    job.refresh_from_db()
    retry = jobs.retry_with_half_micro_batch(job)
    assert (retry.options["batch_size"], retry.options["micro_batch_size"]) == (12, 3)
    assert (retry.status, retry.base, retry.snapshot, retry.retry_of) == ("queued", job.base, job.snapshot, job)
    assert jobs.retry_with_half_micro_batch(job) == retry  # a second click changes nothing
    jobs.finish_training_job(claim(retry), Result(status="failed", error="why", failure_class="out_of_memory"))
    retry.refresh_from_db()
    again = jobs.retry_with_half_micro_batch(retry)
    assert again.options["micro_batch_size"] == 1
    jobs.finish_training_job(claim(again), Result(status="failed", error="why", failure_class="out_of_memory"))
    again.refresh_from_db()
    with pytest.raises(DomainError, match="as small as"):
        jobs.retry_with_half_micro_batch(again)
