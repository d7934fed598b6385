"""Machines that share no disk, over a real S3 server: what one has begun another finishes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from rlhf import artifacts, jobspec
from rlhf.models import Checkpoint, JobCheckpoint
from rlhf.services import create_snapshot, jobs, register_base_checkpoint
from rlhf.views.jobs import read_log
from tests.celery_workers import Workers, running_broker
from tests.factories import make_judged_project
from tests.test_faults import OPTIONS, ended, wait_for
from tests.test_training_jobs import losses

pytestmark = [pytest.mark.slow, pytest.mark.training, pytest.mark.django_db(transaction=True)]

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A bucket on a server of its own; gives the environment by which a worker finds it."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="touchstone")
    yield KEYS | {"TOUCHSTONE_S3_BUCKET": "touchstone", "TOUCHSTONE_S3_ENDPOINT": endpoint}
    server.stop()


@pytest.fixture
def shared(settings: Any, bucket: dict[str, str], data_dir: Path) -> None:
    """This process's own settings, as config/settings.py makes them from that environment."""

    def storage(name: str) -> dict[str, Any]:
        options = {"bucket_name": "touchstone", "location": f"touchstone/{name}", "file_overwrite": True}
        options |= {"endpoint_url": bucket["TOUCHSTONE_S3_ENDPOINT"], "default_acl": None}
        return {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}

    settings.STORAGES = {**settings.STORAGES, "snapshots": storage("snapshots"), "models": storage("models")}
    settings.SHARED_STORAGE = True


@pytest.mark.usefixtures("shared")
def test_a_job_goes_on_at_a_machine_that_has_nothing_of_it(
    tiny_model: Path, bucket: dict[str, str], data_dir: Path, tmp_path: Path
) -> None:
    base = register_base_checkpoint("tiny", Path(shutil.copytree(tiny_model, data_dir / "models" / "tiny")))
    snapshot = create_snapshot(make_judged_project(), "votes", eval_share=0.25)
    workers = Workers(data_dir)
    with running_broker(tmp_path):
        try:
            # The site has a data folder too (data_dir), and never sees those of its workers.
            first = workers.start(data_dir=tmp_path / "node-1", **bucket)
            undisturbed = jobs.queue_training_job(snapshot=snapshot, method="dpo", base=base, options=OPTIONS)
            wait_for(undisturbed, ended)
            assert undisturbed.status == "succeeded", undisturbed.error
            assert not undisturbed.directory.exists()

            job = jobs.queue_training_job(snapshot=snapshot, method="dpo", base=base, options=OPTIONS)
            wait_for(job, lambda j: j.step >= 20 and JobCheckpoint.objects.filter(job=j, step__gte=10).exists())
            first.kill()
            first.wait()
            (tmp_path / "node-1").rename(tmp_path / "node-1-gone")

            workers.start(data_dir=tmp_path / "node-2", **bucket)
            wait_for(job, ended)
            # Optimizer states go when the job has ended; models stay.
            wait_for(job, lambda _: not JobCheckpoint.objects.exists())
        finally:
            workers.kill_all()
    assert (job.status, job.attempt) == ("succeeded", 2), job.error
    resumed_at = int(job.resume_from.removeprefix("step-"))
    assert resumed_at >= 10
    on_second = [
        jobspec.json.loads(line)["step"]
        for line in (tmp_path / "node-2" / "jobs" / str(job.pk) / "metrics.jsonl").read_text().splitlines()
    ]
    assert on_second[0] == resumed_at + 1
    assert losses(job) == losses(undisturbed)

    # The site fetches what it shows or serves.
    made = Checkpoint.objects.get(job=job)
    assert "step 60/60" in read_log(job)
    jobspec.check_manifest(made.path)
    assert jobspec.sha256_of_file(made.path / "manifest.json") == made.manifest_sha256
    assert made.path.is_relative_to(data_dir)
    assert artifacts.has_directory(made.manifest_sha256)
