"""The life of a job as its row tells it: claims, leases, fencing, cancelling, failing, and being found again."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import pytest
from django.db import IntegrityError, connection, connections, transaction
from django.db.models.functions import Now
from django.test import Client
from django.utils import timezone

from annotation.services import DomainError
from rlhf import jobspec
from rlhf.jobspec import Result
from rlhf.models import Checkpoint, CheckpointKind, JobStatus, TrainingJob
from rlhf.services import create_snapshot, jobs, leases, queue_training_job, register_base_checkpoint, workers
from rlhf.supervisor import run_training_job
from tests.factories import make_judged_project, make_user

pytestmark = pytest.mark.usefixtures("data_dir")


@pytest.fixture
def base(tiny_model: Path) -> Checkpoint:
    return register_base_checkpoint("tiny", tiny_model)


def make_job(base: Checkpoint, **fields: object) -> TrainingJob:
    project = make_judged_project()
    snapshot = create_snapshot(project, project.slug, eval_share=0.25)
    job = queue_training_job(snapshot=snapshot, method="dpo", base=base, options={})
    TrainingJob.objects.filter(pk=job.pk).update(**fields)
    job.refresh_from_db()
    return job


def claim(job: TrainingJob, owner: str = "worker") -> TrainingJob:
    claimed = leases.claim_job(TrainingJob, job.pk, owner)
    assert claimed is not None
    return claimed


def complete_checkpoint(job: TrainingJob, step: int) -> None:
    directory = job.directory / "checkpoints" / f"step-{step}"
    directory.mkdir(parents=True, exist_ok=True)
    jobspec.write_manifest(directory)


def let_lease_run_out(job: TrainingJob) -> None:
    TrainingJob.objects.filter(pk=job.pk).update(lease_expires_at=timezone.now() - timedelta(seconds=1))


@pytest.mark.django_db(transaction=True)
def test_of_many_workers_with_the_same_message_one_gets_the_job(base: Checkpoint) -> None:
    job = make_job(base)
    start = Barrier(8)

    def work(number: int) -> bool:
        try:
            start.wait()
            return leases.claim_job(TrainingJob, job.pk, f"worker-{number}") is not None
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 1
    job.refresh_from_db()
    assert (job.status, job.attempt) == ("running", 1)


@pytest.mark.django_db
class TestFencing:
    def test_a_worker_that_lost_its_lease_can_change_nothing(self, base: Checkpoint) -> None:
        first = claim(make_job(base), "first")
        let_lease_run_out(first)
        jobs.reconcile()
        second = claim(first, "second")
        assert second.attempt == 2
        assert not leases.renew_lease(first)
        assert not jobs.record_progress(first, [{"step": 1, "total_steps": 5, "loss": 9.0}])
        assert not leases.finish_job(first, JobStatus.SUCCEEDED)
        assert not leases.requeue_job(first)
        jobs.finish_training_job(first, Result(status="succeeded"))
        second.refresh_from_db()
        assert (second.status, second.owner, second.step) == ("running", "second", 0)
        assert second.job_metrics.count() == 0
        assert leases.renew_lease(second)

    def test_progress_is_stored_once_a_step_however_often_it_is_sent(self, base: Checkpoint) -> None:
        job = claim(make_job(base))
        lines = [{"step": s, "total_steps": 4, "loss": float(s)} for s in (1, 2)]
        assert jobs.record_progress(job, lines)
        assert jobs.record_progress(job, [*lines, {"step": 2, "eval_loss": 0.5}])
        assert list(job.job_metrics.order_by("step").values_list("step", flat=True)) == [1, 2]
        assert job.job_metrics.get(step=2).values["eval_loss"] == 0.5
        assert job.job_metrics.get(step=2).values["loss"] == 2.0

    def test_the_time_left_follows_the_steps_of_this_attempt(self, base: Checkpoint) -> None:
        job = claim(make_job(base, resume_from="step-100", step=100, attempt=1))
        lines = [{"step": step, "total_steps": 200, "loss": 1.0} for step in range(1, 107)]
        assert jobs.record_progress(job, lines[:104], is_new=False)  # all at once, when the attempt begins
        assert jobs.seconds_left(job) is None
        for step in (101, 102, 103):
            assert jobs.record_progress(job, [lines[step - 1]])
            logged_at = timezone.now() + timedelta(seconds=60 * (step - 103))
            job.job_metrics.filter(step=step).update(logged_at=logged_at)
        job.refresh_from_db()
        assert jobs.seconds_left(job) == pytest.approx(97 * 60, rel=0.02)
        jobs.stop_training_job(job, "keep")  # it ends at its next step
        job.refresh_from_db()
        assert jobs.seconds_left(job) is None


@pytest.mark.django_db
class TestLostJobs:
    def test_a_lost_job_returns_to_the_queue_with_its_last_complete_checkpoint(self, base: Checkpoint) -> None:
        job = claim(make_job(base))
        for step, complete in [(5, True), (10, True), (15, False)]:
            directory = job.directory / "checkpoints" / f"step-{step}"
            directory.mkdir(parents=True)
            if complete:
                jobspec.write_manifest(directory)
        let_lease_run_out(job)
        assert jobs.reconcile()["lost"] == 1
        job.refresh_from_db()
        assert (job.status, job.resume_from, job.owner) == ("queued", "step-10", "")

    def test_the_budget_of_lost_workers_ends(self, base: Checkpoint) -> None:
        job = make_job(base)
        for attempt in range(1, 7):
            claimed = claim(job)
            complete_checkpoint(job, 20 * attempt)
            jobs.record_progress(claimed, [{"step": 20 * attempt + 3, "total_steps": 400}])
            let_lease_run_out(job)
            jobs.reconcile()
        job.refresh_from_db()
        assert job.status == "failed"
        assert job.infrastructure_failures == 6
        assert "lost" in job.error

    def test_a_job_that_crashes_again_and_again_without_getting_on_is_not_tried_for_ever(
        self, base: Checkpoint
    ) -> None:
        """Crash, with steps done since: 19 is short, 20 are not, then two short ones end it."""
        job = make_job(base)
        for checkpoint, last, becomes in (
            (10, 19, "queued"),
            (20, 30, "queued"),
            (30, 39, "queued"),
            (30, 49, "failed"),
        ):
            claimed = claim(job)
            complete_checkpoint(job, checkpoint)
            jobs.record_progress(claimed, [{"step": 5}], is_new=False)  # as an earlier attempt had logged it
            jobs.record_progress(claimed, [{"step": last, "total_steps": 400}])
            let_lease_run_out(job)
            jobs.reconcile()
            job.refresh_from_db()
            assert job.status == becomes
            if becomes == "queued":
                assert (job.resume_from, job.step) == (f"step-{checkpoint}", checkpoint)
        assert "2 attempts in a row ended so, each with fewer than 20 new steps" in job.error
        jobs.resume_training_job(job)
        claim(job)
        let_lease_run_out(job)
        jobs.reconcile()
        job.refresh_from_db()
        assert job.status == "queued"  # who resumes it gives it all its tries

    def test_crashes_with_an_attempt_between_them_that_got_on_are_no_loop(self, base: Checkpoint) -> None:
        job = make_job(base)
        for last, leaves in ((5, None), (300, jobs.pause_training_job), (305, None), (600, jobs.requeue_training_job)):
            claimed = claim(job)
            jobs.record_progress(claimed, [{"step": last, "total_steps": 900}])
            complete_checkpoint(job, last)
            if leaves is None:
                let_lease_run_out(job)
                jobs.reconcile()
            elif leaves(claimed) and leaves is jobs.pause_training_job:
                jobs.resume_training_job(job)
            job.refresh_from_db()
            assert job.status == "queued"
        claim(job)
        let_lease_run_out(job)
        jobs.reconcile()
        job.refresh_from_db()
        assert job.status == "queued"

    def test_a_lost_job_that_was_cancelled_ends_cancelled(self, base: Checkpoint) -> None:
        job = claim(make_job(base))
        leases.request_cancel(job, "keep")
        let_lease_run_out(job)
        jobs.reconcile()
        job.refresh_from_db()
        assert job.status == "cancelled"

    @pytest.mark.parametrize(
        "failure_class,attempts",
        [("out_of_memory", 1), ("bad_data", 1), ("unknown", 2), ("stalled", 2), ("infrastructure", 6)],
    )
    def test_failures_are_forgiven_by_whose_fault_they_are(
        self, base: Checkpoint, failure_class: str, attempts: int
    ) -> None:
        job = make_job(base)
        for number in range(1, attempts + 1):
            claimed = claim(job)
            jobs.finish_training_job(claimed, Result(status="failed", error="why", failure_class=failure_class))
            job.refresh_from_db()
            assert job.status == ("failed" if number == attempts else "queued")
        assert job.error == "why"

    def test_after_each_failure_of_its_machine_a_job_rests_longer(self, base: Checkpoint, settings) -> None:  # type: ignore[no-untyped-def]
        settings.JOB_RETRY_PAUSES = [1800.0, 3600.0]
        job, client = make_job(base), Client()
        client.force_login(make_user(is_staff=True))
        for pause in (1800, 3600, 3600):
            failed = Result(status="failed", error="the disk is full", failure_class="infrastructure")
            jobs.finish_training_job(claim(job), failed)
            job.refresh_from_db()
            latest = Now() + timedelta(seconds=pause)
            rests = TrainingJob.objects.filter(not_before__gt=latest - timedelta(minutes=10), not_before__lte=latest)
            assert list(rests) == [job]
            assert leases.claim_job(TrainingJob, job.pk, "worker") is None
            assert job not in workers.waiting_jobs([""])
            assert jobs.reconcile()["dispatched"] == 0
            text = client.get(f"/training/{job.pk}/").content.decode()
            assert "rests before the next try" in text and "the disk is full" in text
            TrainingJob.objects.filter(pk=job.pk).update(not_before=Now())
            assert job in workers.waiting_jobs([""])
        assert claim(job).not_before is None

    def test_what_says_nothing_of_the_machine_is_tried_again_at_once(self, base: Checkpoint, settings) -> None:  # type: ignore[no-untyped-def]
        settings.JOB_RETRY_PAUSES = [3600.0]
        job = make_job(base)
        jobs.finish_training_job(claim(job), Result(status="failed", error="why", failure_class="unknown"))
        jobs.fail_or_retry(claim(job), "infrastructure", "the worker was lost")
        leases.request_pause(job)
        leases.resume_job(job)  # somebody who asks need not wait
        assert claim(job).attempt == 3

    @pytest.mark.django_db(transaction=True)
    def test_two_reconcilers_do_not_run_at_once(self, base: Checkpoint) -> None:
        job = claim(make_job(base))
        let_lease_run_out(job)

        def other() -> dict[str, int]:
            try:
                return jobs.reconcile()
            finally:
                connections.close_all()

        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [jobs._RECONCILER_LOCK])
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(other).result(timeout=20)["lost"] == 0
        assert jobs.reconcile()["lost"] == 1


@pytest.mark.django_db
class TestCancel:
    def test_a_queued_job_is_cancelled_at_once_and_never_claimed(self, base: Checkpoint) -> None:
        job = make_job(base)
        leases.request_cancel(job, "discard")
        job.refresh_from_db()
        assert job.status == "cancelled"
        assert leases.claim_job(TrainingJob, job.pk, "worker") is None

    def test_a_running_job_is_asked_and_the_mode_may_change(self, base: Checkpoint) -> None:
        job = claim(make_job(base))
        leases.request_cancel(job, "keep")
        leases.request_cancel(job, "discard")
        job.refresh_from_db()
        assert (job.status, job.cancel_mode) == ("running", "discard")

    @pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
    def test_a_finished_job_cannot_be_cancelled(self, base: Checkpoint, status: str) -> None:
        job = claim(make_job(base))
        leases.finish_job(job, JobStatus(status))
        with pytest.raises(leases.IllegalTransitionError):
            leases.request_cancel(job, "keep")
        job.refresh_from_db()
        assert job.status == status


@pytest.mark.django_db
class TestQueueing:
    def test_rows_are_counted_before_the_start_and_stored_with_the_job(self, base: Checkpoint) -> None:
        job = make_job(base)
        train = job.preflight["train"]
        assert (train["judged"], train["used"], train["too_long"]) == (9, 9, 0)
        assert job.preflight["eval"]["used"] == 3
        assert job.options["beta"] == 0.1

    def test_rows_over_the_limit_are_counted_by_side(self, base: Checkpoint) -> None:
        project = make_judged_project()
        snapshot = create_snapshot(project, "long")
        with pytest.raises(DomainError, match="longer than 16 tokens"):
            queue_training_job(snapshot=snapshot, method="dpo", base=base, options={"max_tokens": 16})
        assert TrainingJob.objects.count() == 0

    @pytest.mark.parametrize(
        "options,named",
        [({"learning_rte": 1}, "learning_rte"), ({"beta": "strong"}, "beta"), ({"batch_size": 6}, "micro_batch_size")],
    )
    def test_an_option_that_cannot_be_used_is_refused_by_name(
        self, base: Checkpoint, options: dict, named: str
    ) -> None:
        snapshot = create_snapshot(make_judged_project(), "options")
        with pytest.raises(DomainError, match=named):
            queue_training_job(snapshot=snapshot, method="dpo", base=base, options=options)

    def test_a_half_written_base_is_refused(self, base: Checkpoint) -> None:
        (base.path / "model.safetensors").rename(base.path / "away")
        try:
            snapshot = create_snapshot(make_judged_project(), "half")
            with pytest.raises(DomainError, match=r"model\.safetensors is missing"):
                queue_training_job(snapshot=snapshot, method="sft", base=base, options={})
        finally:
            (base.path / "away").rename(base.path / "model.safetensors")

    def test_a_reward_model_cannot_be_trained_on(self, base: Checkpoint) -> None:
        Checkpoint.objects.filter(pk=base.pk).update(kind=CheckpointKind.REWARD)
        base.refresh_from_db()
        snapshot = create_snapshot(make_judged_project(), "reward")
        with pytest.raises(DomainError, match="reward model"):
            queue_training_job(snapshot=snapshot, method="dpo", base=base, options={})


@pytest.mark.django_db
@pytest.mark.parametrize(
    "fields",
    [
        {"status": "running"},
        {"status": "succeeded"},
        {"status": "dancing"},
        {"finished_at": timezone.now()},
        {"cancel_mode": "keep"},
        {"method": "magic"},
    ],
)
def test_postgres_refuses_a_job_row_that_contradicts_itself(base: Checkpoint, fields: dict) -> None:
    job = make_job(base)
    with pytest.raises(IntegrityError), transaction.atomic():
        TrainingJob.objects.filter(pk=job.pk).update(**fields)


@pytest.mark.django_db(transaction=True)
def test_what_the_process_logged_while_nobody_could_store_it_is_stored_when_the_job_ends(base: Checkpoint) -> None:
    """Its supervisor had lost the database, or was killed: the process itself came to its end."""
    job = make_job(base)
    job.directory.mkdir(parents=True)
    lines = [{"step": step, "total_steps": 20, "loss": 0.7 - step / 100} for step in range(1, 21)]
    (job.directory / jobspec.METRICS_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    Result(status="succeeded", metrics={"steps": 20}).write(job.directory)
    assert run_training_job(job.pk)
    job.refresh_from_db()
    assert (job.status, job.step, job.total_steps) == ("succeeded", 20, 20)
    assert [metric.values["loss"] for metric in job.job_metrics.order_by("step")] == [line["loss"] for line in lines]
