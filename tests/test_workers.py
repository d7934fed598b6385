"""Which worker takes which job next, with which GPUs, and what a waiting job is told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from annotation.services import DomainError
from rlhf.hardware import GPU, Hardware
from rlhf.models import (
    Checkpoint,
    DatasetSnapshot,
    GPUSlot,
    JobStatus,
    LaunchCheck,
    Priority,
    ProbeStatus,
    TrainingJob,
    Worker,
)
from rlhf.preflight import Finding
from rlhf.preflight.findings import passed
from rlhf.services import (
    create_snapshot,
    jobs,
    launching,
    leases,
    queue_training_job,
    register_base_checkpoint,
    workers,
)
from tests.factories import make_judged_project, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]


@pytest.fixture
def base(tiny_model: Path) -> Checkpoint:
    return register_base_checkpoint("tiny", tiny_model)


@pytest.fixture
def snapshot() -> DatasetSnapshot:
    return create_snapshot(make_judged_project(), "votes")


def make_worker(name: str = "train@node-1", *, gpus: int = 0, queues: tuple[str, ...] = ("train",)) -> Worker:
    host = name.partition("@")[2]
    found = tuple(GPU(index, f"GPU-{host}-{index}", "A100", 85.9) for index in range(gpus))
    return workers.announce_worker(name, host, list(queues), Hardware(8, 64.0, found), "1.0")


def queue(base: Checkpoint, snapshot: DatasetSnapshot, processes: int = 1, **fields: Any) -> TrainingJob:
    options: dict[str, Any] = {}
    if processes > 1:
        options = {"processes": processes, "launcher": "torchrun", "batch_size": 2 * processes, "micro_batch_size": 1}
    return queue_training_job(snapshot=snapshot, method="dpo", base=base, options=options, **fields)


def taken(worker: Worker) -> tuple[TrainingJob, list[int] | None] | None:
    claim = workers.claim_next_job(worker, "owner")
    return (claim.job, claim.gpus) if claim else None


def let_lease_run_out(job: TrainingJob) -> None:
    TrainingJob.objects.filter(pk=job.pk).update(lease_expires_at=timezone.now() - timedelta(seconds=1))


def test_the_more_urgent_job_is_first_and_then_the_older_one(base: Checkpoint, snapshot: DatasetSnapshot) -> None:
    low = queue(base, snapshot, priority=Priority.LOW)
    first, second = queue(base, snapshot), queue(base, snapshot)
    urgent = queue(base, snapshot, priority=Priority.HIGH)
    worker = make_worker()
    order = [taken(worker) for _ in range(5)]
    assert order == [(urgent, None), (first, None), (second, None), (low, None), None]
    urgent.refresh_from_db()
    assert (urgent.status, urgent.worker, urgent.attempt) == ("running", worker, 1)


def test_a_label_leads_to_the_workers_that_have_it(base: Checkpoint, snapshot: DatasetSnapshot) -> None:
    labelled = queue(base, snapshot, label="a100")
    plain = queue(base, snapshot)
    assert taken(make_worker("any@node-1")) == (plain, None)
    special = make_worker("big@node-2", queues=("train.a100",))
    assert special.labels == ["a100"]
    assert taken(special) == (labelled, None)
    assert taken(special) is None


class TestGPUs:
    def test_a_measurement_takes_free_ones_and_gives_them_back(
        self, base: Checkpoint, snapshot: DatasetSnapshot
    ) -> None:
        worker = make_worker(gpus=2)
        first, second = queue(base, snapshot), queue(base, snapshot)
        assert taken(worker) == (first, [0])

        def asked() -> LaunchCheck:
            check = launching.check_launch(snapshot=snapshot, method="dpo", base=base, options={})
            check.probe_status, check.probe_asked_at = ProbeStatus.WAITING, timezone.now()
            check.save()
            return check

        def measure(_check: LaunchCheck, gpus: list[int] | None) -> list[Finding]:
            assert gpus == [1]
            assert taken(worker) is None, "the second job waits for it"
            return [passed("dry_step", peak="0.1", seconds="1.0")]

        check = asked()
        assert launching.take_probe(check.pk, measure, worker)
        check.refresh_from_db()
        assert check.probe_status == "done"
        assert taken(worker) == (second, [1])

        refused = asked()
        assert not launching.take_probe(refused.pk, measure, worker)
        refused.refresh_from_db()
        assert refused.probe_status == "waiting"

        LaunchCheck.objects.filter(pk=check.pk).update(probe_status="running")  # measured anew, on another machine
        leases.finish_job(TrainingJob.objects.get(pk=second.pk), JobStatus.SUCCEEDED)
        assert GPUSlot.objects.free().count() == 1

    def test_each_process_takes_one_and_none_is_given_twice(self, base: Checkpoint, snapshot: DatasetSnapshot) -> None:
        one, two, three = queue(base, snapshot), queue(base, snapshot, processes=2), queue(base, snapshot)
        worker = make_worker(gpus=4)
        assert taken(worker) == (one, [0])
        assert taken(worker) == (two, [1, 2])
        assert taken(worker) == (three, [3])
        assert list(GPUSlot.objects.values_list("job", flat=True)) == [one.pk, two.pk, two.pk, three.pk]

    def test_they_are_free_again_when_the_lease_ends_in_whatever_way(
        self, base: Checkpoint, snapshot: DatasetSnapshot
    ) -> None:
        worker = make_worker(gpus=1)
        job = queue(base, snapshot)
        for end in (
            lambda held: leases.requeue_job(held),
            lambda held: (let_lease_run_out(held), jobs.reconcile()),
            lambda held: leases.finish_job(held, JobStatus.SUCCEEDED),
        ):
            claim = workers.claim_next_job(worker, "owner")
            assert claim is not None
            assert claim.gpus == [0]
            assert not GPUSlot.objects.free().exists()
            end(claim.job)
            assert GPUSlot.objects.free().count() == 1
        assert workers.claim_next_job(worker, "owner") is None
        assert queue(base, snapshot).pk != job.pk
        assert workers.claim_next_job(worker, "owner") is not None

    def test_a_worker_that_comes_back_with_a_stale_lease_has_no_gpu(
        self, base: Checkpoint, snapshot: DatasetSnapshot
    ) -> None:
        worker = make_worker(gpus=1)
        queue(base, snapshot)
        stale = workers.claim_next_job(worker, "first")
        assert stale is not None
        let_lease_run_out(stale.job)
        jobs.reconcile()
        again = workers.claim_next_job(worker, "second")
        assert again is not None
        assert not leases.renew_lease(stale.job)
        assert not leases.finish_job(stale.job, JobStatus.FAILED)
        slot = GPUSlot.objects.get()
        assert (slot.job, slot.attempt) == (again.job, 2)
        assert GPUSlot.objects.taken().count() == 1

    def test_a_large_job_is_not_overtaken_where_it_will_run(self, base: Checkpoint, snapshot: DatasetSnapshot) -> None:
        worker, small_machine = make_worker(gpus=2), make_worker("train@node-2", gpus=1)
        first = queue(base, snapshot)
        assert taken(worker) == (first, [0])
        large, small = queue(base, snapshot, processes=2), queue(base, snapshot)
        assert taken(worker) is None
        assert taken(small_machine) == (small, [0])
        leases.finish_job(first_claim := TrainingJob.objects.get(pk=first.pk), JobStatus.SUCCEEDED)
        assert first_claim.owner
        assert taken(worker) == (large, [0, 1])

    def test_a_job_that_asks_for_gpus_never_runs_without(self, base: Checkpoint, snapshot: DatasetSnapshot) -> None:
        job = queue(base, snapshot, gpus=1)
        assert taken(make_worker("train@cpu")) is None
        assert taken(make_worker("train@gpu", gpus=2)) == (job, [0])

    @pytest.mark.django_db(transaction=True)
    def test_workers_of_one_machine_that_claim_at_once_share_its_gpus(
        self, base: Checkpoint, snapshot: DatasetSnapshot
    ) -> None:
        for _ in range(6):
            queue(base, snapshot)
        claimers = [make_worker(f"train-{number}@node-1", gpus=3) for number in range(6)]
        start = Barrier(6)

        def work(worker: Worker) -> workers.Claim | None:
            try:
                start.wait()
                return workers.claim_next_job(worker, worker.name)
            finally:
                connections.close_all()

        with ThreadPoolExecutor(6) as pool:
            claims = [claim for claim in pool.map(work, claimers) if claim]
        assert sorted(index for claim in claims for index in claim.gpus or []) == [0, 1, 2]
        assert len({claim.job.pk for claim in claims}) == 3
        assert TrainingJob.objects.filter(status="queued").count() == 3


def test_nobody_runs_more_jobs_at_once_than_one_person_may(
    base: Checkpoint, snapshot: DatasetSnapshot, settings: Any
) -> None:
    settings.JOBS_PER_PERSON = 1
    greedy, modest = make_user("greedy"), make_user("modest")
    first, second = queue(base, snapshot, created_by=greedy), queue(base, snapshot, created_by=greedy)
    other = queue(base, snapshot, created_by=modest)
    worker = make_worker()
    assert taken(worker) == (first, None)
    assert taken(worker) == (other, None)
    assert taken(worker) is None
    assert "has 1 jobs running" in workers.Queue.now().reason(second)
    leases.finish_job(TrainingJob.objects.get(pk=first.pk), JobStatus.SUCCEEDED)
    assert taken(worker) == (second, None)


def test_a_waiting_job_says_what_it_waits_for(base: Checkpoint, snapshot: DatasetSnapshot) -> None:
    labelled, big = queue(base, snapshot, label="a100"), queue(base, snapshot, gpus=8, label="b")
    first, second = queue(base, snapshot), queue(base, snapshot)

    def reason(job: TrainingJob) -> str:
        return workers.Queue.now().reason(job)

    assert "start one for the queue train.a100" in reason(labelled)
    assert reason(first) == "No worker that trains is running."
    worker = make_worker(gpus=2, queues=("train", "train.b"))
    assert reason(big) == "It needs 8 GPUs, and no worker that is running has more than 2."
    assert reason(first) == "A worker is about to take it."
    assert reason(second) == "Others come first: 1."
    assert workers.Queue.now().jobs_before(second) == 1
    assert taken(worker) == (first, [0])
    assert reason(second) == "Every worker that can run it is busy."
    Worker.objects.update(seen_at=timezone.now() - timedelta(hours=1))
    assert reason(second) == "No worker that trains is running."


def test_what_no_worker_could_run_is_refused_before_it_is_queued(base: Checkpoint, snapshot: DatasetSnapshot) -> None:
    offloaded = {"zero_stage": 2, "launcher": "torchrun", "offload": "cpu"}

    def start(**fields: Any) -> TrainingJob:
        return queue_training_job(snapshot=snapshot, method="dpo", base=base, options=offloaded, **fields)

    with pytest.raises(DomainError, match="offload cpu moves"):
        start()
    assert start(gpus=1).gpus == 1
    make_worker(gpus=1)
    assert start().gpus == 0


def test_a_gpu_that_left_the_machine_leaves_the_table(base: Checkpoint, snapshot: DatasetSnapshot) -> None:
    make_worker(gpus=2)
    make_worker("other@node-2", gpus=1)
    make_worker(gpus=1)
    assert [str(slot) for slot in GPUSlot.objects.all()] == ["node-1:0", "node-2:0"]
