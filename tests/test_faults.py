"""What goes wrong around a training job, with real workers: it is trained once, and as if nothing had happened.

Leases last 3 seconds here instead of 90, and outages are as much shorter, but for one of a whole minute; the code is
the same. The reconciler, which the beat calls every 20 seconds, is called by the test while it waits.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from celery import current_app
from django.conf import settings
from django.utils import timezone

from rlhf import jobspec
from rlhf.models import Checkpoint, DatasetSnapshot, JobMetric, TrainingJob
from rlhf.services import create_snapshot, jobs, leases, register_base_checkpoint
from tests.celery_workers import Broker, Workers, running_broker, trainers_in, trainers_of
from tests.database_proxy import DatabaseProxy
from tests.factories import make_judged_project
from tests.test_training_jobs import losses

pytestmark = [pytest.mark.slow, pytest.mark.training, pytest.mark.django_db(transaction=True)]

OPTIONS = {"max_steps": 60, "checkpoint_every_steps": 5, "batch_size": 4, "micro_batch_size": 4, "use_lora": False}


@pytest.fixture(scope="module")
def broker_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("broker")


@pytest.fixture(scope="module")
def broker(broker_folder: Path) -> Iterator[Broker]:
    with running_broker(broker_folder) as server:
        yield server


@pytest.fixture
def workers(broker: Broker, data_dir: Path) -> Iterator[Workers]:
    workers = Workers(data_dir)
    yield workers
    workers.kill_all()


@pytest.fixture
def base(tiny_model: Path, data_dir: Path) -> Checkpoint:
    return register_base_checkpoint("tiny", tiny_model)


@pytest.fixture
def snapshot(base: Checkpoint) -> DatasetSnapshot:
    return create_snapshot(make_judged_project(), "votes", eval_share=0.25)


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, list[float]]:
    """Losses of a run that nothing happened to, by its options: measured once."""
    return {}


def queue(base: Checkpoint, snapshot: DatasetSnapshot, **options: object) -> TrainingJob:
    return jobs.queue_training_job(snapshot=snapshot, method="dpo", base=base, options={**OPTIONS, **options})


def wait_for(job: TrainingJob, condition: Callable[[TrainingJob], object], seconds: float = 120) -> None:
    """Wait as the site does: the reconciler looks again and again. What must never be is looked for meanwhile."""
    ends = time.monotonic() + seconds
    while True:
        jobs.reconcile()
        job.refresh_from_db()
        living = [p for p in trainers_in(job.directory) if p.status() != psutil.STATUS_STOPPED]
        assert len(living) <= 1, [process.cmdline() for process in living]
        silent = timezone.now() - timedelta(seconds=10)
        assert not TrainingJob.objects.filter(status="running", lease_expires_at__lt=silent).exists()
        if condition(job):
            return
        if time.monotonic() > ends:
            log = job.directory / "stdout.log"
            pytest.fail(
                f"job stayed {job.status} at step {job.step}, attempt {job.attempt}: {job.error}\n"
                f"{log.read_text()[-3000:] if log.exists() else ''}"
            )
        time.sleep(0.3)


def ended(job: TrainingJob) -> bool:
    return job.is_finished


def assert_trained_once(job: TrainingJob, expected: list[float]) -> None:
    """The job succeeded with the losses of an uninterrupted run, and left one model."""
    job.refresh_from_db()
    assert (job.status, job.step) == ("succeeded", OPTIONS["max_steps"]), job.error
    assert losses(job) == expected
    assert Checkpoint.objects.filter(job=job).count() == 1
    jobspec.check_manifest(Checkpoint.objects.get(job=job).path)
    assert not trainers_in(job.directory)


@pytest.fixture
def expected(
    base: Checkpoint, snapshot: DatasetSnapshot, workers: Workers, undisturbed: dict[str, list[float]]
) -> list[float]:
    """The first test that asks trains it on its own worker, which goes on to the job of the test."""
    if not undisturbed:
        workers.start()
        job = queue(base, snapshot)
        wait_for(job, ended)
        undisturbed["losses"] = losses(job)
        assert len(undisturbed["losses"]) == OPTIONS["max_steps"]
        workers.kill_all()
    return undisturbed["losses"]


class TestProcessesThatDie:
    def test_a_killed_trainer_goes_on_from_its_checkpoint(
        self, base: Checkpoint, snapshot: DatasetSnapshot, workers: Workers, expected: list[float]
    ) -> None:
        worker, job = workers.start(), queue(base, snapshot)
        wait_for(job, lambda j: j.step >= 12)
        trainers_of(worker)[0].kill()
        wait_for(job, ended)
        assert (job.attempt, job.unknown_failures, job.infrastructure_failures) == (2, 1, 0)
        assert int(job.resume_from.removeprefix("step-")) >= 10
        assert_trained_once(job, expected)

    def test_a_killed_worker_and_supervisor_take_their_trainer_along(
        self, base: Checkpoint, snapshot: DatasetSnapshot, workers: Workers, expected: list[float]
    ) -> None:
        """The supervisor is a thread of the Celery worker's process: kill -9 of one is kill -9 of the other."""
        worker, job = workers.start(), queue(base, snapshot)
        wait_for(job, lambda j: j.step >= 12)
        [trainer] = trainers_of(worker)
        worker.kill()
        worker.wait()
        psutil.wait_procs([trainer], timeout=10)
        assert not trainers_in(job.directory)
        workers.start()
        wait_for(job, ended)
        assert (job.attempt, job.infrastructure_failures) == (2, 1)
        assert_trained_once(job, expected)

    def test_a_worker_that_is_told_to_stop_during_a_save_gives_the_job_back_whole(
        self, base: Checkpoint, snapshot: DatasetSnapshot, workers: Workers, expected: list[float]
    ) -> None:
        worker, job = workers.start(), queue(base, snapshot, checkpoint_every_steps=1)
        checkpoints = job.directory / "checkpoints"
        wait_for(job, lambda j: j.step >= 5)
        while not list(checkpoints.glob(".unfinished*")):  # the next save begins at once
            pass
        worker.terminate()
        wait_for(job, lambda j: j.status == "queued")
        worker.wait(60)
        assert (job.infrastructure_failures, job.unknown_failures) == (0, 0)
        for name in jobspec.complete_checkpoints(job.directory):
            jobspec.check_manifest(job.directory / "checkpoints" / name)
        assert not list(checkpoints.glob(".unfinished*"))
        stopped_at = int(job.resume_from.removeprefix("step-"))
        assert stopped_at >= 5

        workers.start()
        wait_for(job, ended)
        first_line = jobspec.json.loads((job.directory / "metrics.jsonl").read_text().splitlines()[stopped_at])
        assert first_line["step"] == stopped_at + 1
        assert_trained_once(job, expected)


class TestServersThatGoAway:
    def test_the_broker_may_hang_die_and_come_back(
        self,
        base: Checkpoint,
        snapshot: DatasetSnapshot,
        workers: Workers,
        broker: Broker,
        broker_folder: Path,
        expected: list[float],
    ) -> None:
        workers.start()
        job = queue(base, snapshot)
        wait_for(job, lambda j: j.step >= 5)
        broker.hang()
        wait_for(job, ended)
        assert job.attempt == 1
        assert_trained_once(job, expected)

        waiting = queue(base, snapshot, max_steps=2)  # its message goes nowhere
        broker.wake()
        wait_for(waiting, ended)
        assert waiting.status == "succeeded"

    def test_a_killed_broker_costs_a_running_job_nothing_and_a_waiting_one_time(
        self,
        base: Checkpoint,
        snapshot: DatasetSnapshot,
        workers: Workers,
        broker: Broker,
        expected: list[float],
    ) -> None:
        workers.start()
        job = queue(base, snapshot)
        wait_for(job, lambda j: j.step >= 5)
        broker.kill()
        wait_for(job, ended)
        assert job.attempt == 1
        assert_trained_once(job, expected)
        # A worker that has ended a job looks for the next one by itself; it must have found none.
        wait_for(job, lambda j: "succeeded in" in workers.log().partition(f"job claimed: job={j.pk} ")[2])

        waiting = queue(base, snapshot, max_steps=2)  # its message cannot even be sent
        waiting.refresh_from_db()
        assert (waiting.status, waiting.dispatched_at) == ("queued", None)
        broker.start()
        wait_for(waiting, ended)
        assert (waiting.status, waiting.attempt, waiting.infrastructure_failures) == ("succeeded", 1, 0)

    def test_a_database_that_is_away_for_less_than_a_lease_costs_nothing(
        self, base: Checkpoint, snapshot: DatasetSnapshot, workers: Workers, expected: list[float]
    ) -> None:
        proxy = DatabaseProxy(str(settings.DATABASES["default"]["HOST"]))
        try:
            workers.start(database_host=str(proxy.folder), TOUCHSTONE_JOB_LEASE_SECONDS="9")
            job = queue(base, snapshot)
            wait_for(job, lambda j: j.step >= 5)
            proxy.go_away()
            stood_at = job.step
            metrics = job.directory / "metrics.jsonl"
            lines = len(metrics.read_text().splitlines())
            wait_for(job, lambda _: len(metrics.read_text().splitlines()) > lines + 5)
            assert job.step <= stood_at + 1  # the row hears nothing, and training goes on
            proxy.come_back()
            wait_for(job, ended)
            assert (job.attempt, job.infrastructure_failures) == (1, 0)
            assert_trained_once(job, expected)
        finally:
            proxy.close()

    def test_a_minute_without_database_and_broker_costs_nothing(
        self, base: Checkpoint, snapshot: DatasetSnapshot, workers: Workers, broker: Broker
    ) -> None:
        """With the lease and the heartbeat of an installation, not those that make the other tests quick."""
        proxy = DatabaseProxy(str(settings.DATABASES["default"]["HOST"]))
        usual = {"TOUCHSTONE_JOB_LEASE_SECONDS": "90", "TOUCHSTONE_JOB_HEARTBEAT_SECONDS": "15"}
        try:
            workers.start(database_host=str(proxy.folder), **usual)
            job = queue(base, snapshot, max_steps=1_000_000, checkpoint_every_steps=1_000_000)
            wait_for(job, lambda j: j.step >= 5)
            proxy.go_away()
            broker.hang()
            back_at = time.monotonic() + 60
            wait_for(job, lambda _: time.monotonic() > back_at)
            [trainer] = trainers_in(job.directory)
            stood_at = len((job.directory / "metrics.jsonl").read_text().splitlines())
            assert stood_at > job.step + 5  # the row hears nothing, and training goes on
            broker.wake()
            proxy.come_back()
            wait_for(job, lambda j: j.step > stood_at)
            assert trainers_in(job.directory) == [trainer]
            leases.request_cancel(job, "keep")
            wait_for(job, ended)
            assert (job.status, job.attempt, job.infrastructure_failures) == ("cancelled", 1, 0)
            logged = JobMetric.objects.filter(job=job, values__has_key="loss").order_by("step")
            assert list(logged.values_list("step", flat=True)) == list(range(1, job.step + 1))  # nothing is lost
            waiting = queue(base, snapshot, max_steps=2)
            wait_for(waiting, ended)
            assert waiting.status == "succeeded"
        finally:
            broker.wake()
            proxy.close()

    def test_a_machine_without_a_database_lets_go_before_another_begins(
        self, base: Checkpoint, snapshot: DatasetSnapshot, workers: Workers, expected: list[float]
    ) -> None:
        """Away for longer than a lease: the trainer is killed before the lease ends, and another machine goes on."""
        proxy = DatabaseProxy(str(settings.DATABASES["default"]["HOST"]))
        try:
            workers.start(database_host=str(proxy.folder))
            job = queue(base, snapshot)
            wait_for(job, lambda j: j.step >= 12)
            proxy.go_away()
            wait_for(job, lambda _: not trainers_in(job.directory))
            job.refresh_from_db()
            assert job.lease_expires_at is None or job.lease_expires_at > timezone.now()
            workers.start()
            wait_for(job, ended)
            proxy.come_back()
            assert (job.attempt, job.infrastructure_failures) == (2, 1)
            assert_trained_once(job, expected)
        finally:
            proxy.close()


def test_a_paused_job_goes_on_as_if_nothing_had_happened(
    base: Checkpoint, snapshot: DatasetSnapshot, workers: Workers, expected: list[float]
) -> None:
    workers.start()
    job = queue(base, snapshot)
    wait_for(job, lambda j: j.step >= 5)
    leases.request_pause(job)
    wait_for(job, lambda j: j.status == "paused")
    assert not trainers_in(job.directory)
    paused_at = int(job.resume_from.removeprefix("step-"))
    assert 5 <= paused_at == job.step < OPTIONS["max_steps"]
    jobspec.check_manifest(job.directory / "checkpoints" / job.resume_from)
    assert not (job.directory / "result.json").exists()

    # Its worker is free, and nobody takes it for stuck, however long it waits.
    other = queue(base, snapshot, max_steps=2)
    wait_for(other, ended)
    assert other.status == "succeeded"
    assert jobs.reconcile() == {"lost": 0, "dispatched": 0}
    job.refresh_from_db()
    assert (job.status, job.attempt) == ("paused", 1)

    leases.resume_job(job)
    wait_for(job, ended)
    assert not job.alarms.exists()
    assert (job.attempt, job.infrastructure_failures, job.unknown_failures) == (2, 0, 0)
    lines = (job.directory / "metrics.jsonl").read_text().splitlines()
    steps = [row["step"] for row in map(jobspec.json.loads, lines) if "loss" in row]
    assert steps == list(range(1, OPTIONS["max_steps"] + 1))  # no step was lost or done twice
    assert_trained_once(job, expected)


class TestMachinesThatComeBack:
    def test_a_machine_that_slept_beyond_its_lease_changes_nothing(
        self, base: Checkpoint, snapshot: DatasetSnapshot, workers: Workers, expected: list[float]
    ) -> None:
        first, job = workers.start(), queue(base, snapshot)
        wait_for(job, lambda j: j.step >= 12)
        [stale] = trainers_of(first)
        for pid in (first.pid, stale.pid):
            os.kill(pid, signal.SIGSTOP)
        workers.start()
        wait_for(job, lambda j: j.attempt == 2 and j.step >= 20)
        # Awake again, it may try what it likes: its trainer sees at the end of its step that it was replaced.
        os.kill(stale.pid, signal.SIGCONT)
        psutil.wait_procs([stale], timeout=20)
        os.kill(first.pid, signal.SIGCONT)
        wait_for(job, ended)
        assert (job.attempt, job.infrastructure_failures) == (2, 1)
        assert_trained_once(job, expected)
        assert "another attempt has this job now" in (job.directory / "stdout.log").read_text()


class TestTooManyTakers:
    def test_two_workers_and_ten_messages_train_it_once(
        self, base: Checkpoint, snapshot: DatasetSnapshot, workers: Workers, expected: list[float]
    ) -> None:
        racers = [workers.start(), workers.start()]
        job = queue(base, snapshot)
        for _ in range(10):
            current_app.send_task("rlhf.tasks.run_training_job", args=[job.pk], queue="train")
        wait_for(job, lambda j: j.step >= 5)
        for _ in range(10):
            current_app.send_task("rlhf.tasks.run_training_job", args=[job.pk], queue="train")
        assert sum(len(trainers_of(racer)) for racer in racers) == 1
        wait_for(job, ended)
        assert job.attempt == 1
        assert_trained_once(job, expected)
        assert workers.log().count(f"job claimed: job={job.pk} ") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_fills_during_a_save_costs_one_try(
    base: Checkpoint, snapshot: DatasetSnapshot, workers: Workers, expected: list[float]
) -> None:
    job = TrainingJob.objects.create(
        method="dpo", snapshot=snapshot, base=base, options=queue(base, snapshot).options, preflight={}
    )
    TrainingJob.objects.exclude(pk=job.pk).update(status="cancelled", finished_at=timezone.now())
    job.directory.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(job.directory)])
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    filler = job.directory / "filler"
    try:
        workers.start()
        leases.dispatch_job(job)
        wait_for(job, lambda j: j.step >= 12)
        room = os.statvfs(job.directory)
        filler.write_bytes(b"\0" * (room.f_bavail * room.f_frsize - 200_000))
        wait_for(job, lambda j: j.infrastructure_failures >= 1)
        filler.unlink()
        assert f"class=infrastructure error=The disk that holds {job.directory} is full" in workers.log()
        wait_for(job, ended)
        assert_trained_once(job, expected)
    finally:
        workers.kill_all()
        subprocess.run(["umount", "--lazy", str(job.directory)], check=True)


class TestCancelling:
    """Queued, paused and running; asked for twice, and while it is saving. Finished: tests/test_jobs.py."""

    def test_in_each_state_it_ends_and_nothing_trains_on(
        self, base: Checkpoint, snapshot: DatasetSnapshot, workers: Workers
    ) -> None:
        waiting = queue(base, snapshot)
        leases.request_cancel(waiting, "discard")
        workers.start()

        loading = queue(base, snapshot)
        wait_for(loading, lambda j: j.status == "running")
        leases.request_cancel(loading, "discard")  # before its first step
        wait_for(loading, ended)

        training = queue(base, snapshot, checkpoint_every_steps=1)
        wait_for(training, lambda j: j.step >= 5)
        leases.request_cancel(training, "keep")  # and it is saving at nearly every moment
        wait_for(training, ended)

        paused = queue(base, snapshot)
        wait_for(paused, lambda j: j.step >= 5)
        leases.request_pause(paused)
        wait_for(paused, lambda j: j.status == "paused")
        leases.request_cancel(paused, "discard")

        lost = queue(base, snapshot)
        wait_for(lost, lambda j: j.step >= 5)
        leases.request_cancel(lost, "keep")
        leases.request_cancel(lost, "discard")
        workers.kill_all()
        wait_for(lost, ended)

        for job in (waiting, loading, training, paused, lost):
            job.refresh_from_db()
            assert job.status == "cancelled", job.pk
            assert Checkpoint.objects.filter(job=job).exists() == (job == training)
            assert not trainers_in(job.directory)
