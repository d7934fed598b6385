"""A real Celery worker on a real broker: what happens when it is killed in the middle of training."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.utils import timezone

from rlhf.models import Checkpoint, TrainingJob
from rlhf.services import jobs, launching, leases
from tests.celery_workers import Broker, Workers, running_broker, trainers_of
from tests.test_training_jobs import losses, make_job, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.training, pytest.mark.django_db(transaction=True)]

OPTIONS = {"max_steps": 60, "checkpoint_every_steps": 10, "batch_size": 4, "micro_batch_size": 4, "use_lora": False}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with running_broker(tmp_path_factory.mktemp("broker")) as server:
        yield server


@pytest.fixture
def workers(broker: Broker, data_dir: Path) -> Iterator[Workers]:
    workers = Workers(data_dir)
    yield workers
    workers.kill_all()


def test_a_killed_workers_job_goes_on_elsewhere_and_ends_once_with_the_same_losses(
    tiny_model: Path, workers: Workers
) -> None:
    undisturbed = make_job(tiny_model, OPTIONS)
    first = workers.start()
    wait_for(undisturbed, lambda j: j.status == "succeeded")

    job = jobs.queue_training_job(
        snapshot=undisturbed.snapshot, method="dpo", base=undisturbed.base, options=OPTIONS, name="killed"
    )
    wait_for(job, lambda j: j.step >= 12)
    [trainer] = trainers_of(first)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    trainer.wait(10)  # the kernel takes the trainer down with its worker

    workers.start()
    wait_for(job, lambda j: j.lease_expires_at is not None and j.lease_expires_at < timezone.now())
    assert jobs.reconcile() == {"lost": 1, "dispatched": 1}
    leases.dispatch_job(job)  # a duplicate message must change nothing
    wait_for(job, lambda j: j.is_finished)

    assert (job.status, job.attempt, job.infrastructure_failures) == ("succeeded", 2, 1)
    assert int(job.resume_from.removeprefix("step-")) >= 10
    assert job.step == 60
    assert Checkpoint.objects.filter(job=job).count() == 1
    assert losses(job) == losses(undisturbed)


def test_a_job_stored_while_the_broker_is_away_starts_when_it_is_back(
    tiny_model: Path, workers: Workers, broker: Broker
) -> None:
    broker.hang()
    try:
        job = make_job(tiny_model, {**OPTIONS, "max_steps": 2})
        assert not leases.dispatch_job(job)
    finally:
        broker.wake()
    workers.start()
    jobs.reconcile()
    wait_for(job, lambda j: j.status == "succeeded")


def test_a_worker_measures_a_launch_and_leaves_nothing_behind(tiny_model: Path, workers: Workers) -> None:
    job = make_job(tiny_model, {**OPTIONS, "max_steps": 1})
    TrainingJob.objects.filter(pk=job.pk).delete()
    check = launching.check_launch(snapshot=job.snapshot, method="dpo", base=job.base, options=OPTIONS)
    launching.request_probe(check)
    workers.start()
    ends = time.monotonic() + 90
    while check.probe_status != "done":
        assert time.monotonic() < ends, (check.probe_status, check.probe_findings)
        time.sleep(0.1)
        check.refresh_from_db()
    found = {one["code"]: one["level"] for one in check.probe_findings}
    assert found == {"weights_finite": "passed", "padding_equal": "passed", "dry_step": "passed"}
    assert not list(settings.JOBS_DIR.glob(".probe-*"))
    started = launching.start_checked_job(check, proceed=True)
    wait_for(started, lambda j: j.status == "succeeded")
    assert {"dry_step", "padding_equal"} <= {one["code"] for one in started.preflight["checks"]}
