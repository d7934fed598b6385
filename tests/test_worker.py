"""A real Celery worker on a real broker: what happens when it is killed in the middle of training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from config.embedded import valkey
from rlhf.models import Checkpoint, TrainingJob
from rlhf.services import jobs, launching, leases
from tests.test_training_jobs import losses, make_job, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.training, pytest.mark.django_db(transaction=True)]

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = {"max_steps": 60, "checkpoint_every_steps": 10, "batch_size": 4, "micro_batch_size": 4, "use_lora": False}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[bytes]]:
    """The broker that settings.CELERY_BROKER_URL names; this process publishes to it."""
    folder = tmp_path_factory.mktemp("broker")
    server = valkey.start(folder, settings.SOCKET_DIR, folder / "valkey.log")
    yield server
    valkey.stop(server)


@pytest.fixture
def start_worker(broker: subprocess.Popen[bytes], data_dir: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts workers for a queue on the test's database and broker; kills what is left at the end."""
    database = settings.DATABASES["default"]
    name = connection.settings_dict["NAME"]
    environment = {
        **os.environ,
        "DATABASE_URL": f"postgres://{database['USER']}@/{name}?host={database['HOST']}",
        "CELERY_BROKER_URL": settings.CELERY_BROKER_URL,
        "TOUCHSTONE_DATA": str(data_dir),
        "TOUCHSTONE_JOB_LEASE_SECONDS": "3",
        "TOUCHSTONE_JOB_HEARTBEAT_SECONDS": "1",
    }
    workers: list[subprocess.Popen[bytes]] = []

    def start(queue: str = "train") -> subprocess.Popen[bytes]:
        with (data_dir / "worker.log").open("ab") as log:
            worker = subprocess.Popen(
                [
                    *(sys.executable, "-m", "celery", "-A", "config.celery", "worker", "-Q", queue),
                    *("--pool", "threads", "-c", "1", "-n", f"worker{len(workers)}@test"),
                ],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        if worker.poll() is None:
            worker.kill()
            worker.wait()


def children_of(pid: int) -> list[psutil.Process]:
    return [p for p in psutil.Process(pid).children(recursive=True) if "rlhf.training" in " ".join(p.cmdline())]


def test_a_killed_workers_job_goes_on_elsewhere_and_ends_once_with_the_same_losses(
    tiny_model: Path, start_worker: Callable[[], subprocess.Popen[bytes]]
) -> None:
    undisturbed = make_job(tiny_model, OPTIONS)
    first = start_worker()
    wait_for(undisturbed, lambda j: j.status == "succeeded")

    job = jobs.queue_training_job(
        snapshot=undisturbed.snapshot, method="dpo", base=undisturbed.base, options=OPTIONS, name="killed"
    )
    wait_for(job, lambda j: j.step >= 12)
    [trainer] = children_of(first.pid)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    trainer.wait(10)  # the kernel takes the trainer down with its worker

    start_worker()
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
    tiny_model: Path, start_worker: Callable[[], subprocess.Popen[bytes]], broker: subprocess.Popen[bytes]
) -> None:
    broker.send_signal(signal.SIGSTOP)
    try:
        job = make_job(tiny_model, {**OPTIONS, "max_steps": 2})
        assert not leases.dispatch_job(job)
    finally:
        broker.send_signal(signal.SIGCONT)
    TrainingJob.objects.filter(pk=job.pk).update(dispatched_at=None)
    start_worker()
    jobs.reconcile()
    wait_for(job, lambda j: j.status == "succeeded")


def test_a_worker_measures_a_launch_and_leaves_nothing_behind(
    tiny_model: Path, start_worker: Callable[[], subprocess.Popen[bytes]]
) -> None:
    job = make_job(tiny_model, {**OPTIONS, "max_steps": 1})
    TrainingJob.objects.filter(pk=job.pk).delete()
    check = launching.check_launch(snapshot=job.snapshot, method="dpo", base=job.base, options=OPTIONS)
    launching.request_probe(check)
    start_worker()
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
