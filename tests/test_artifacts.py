"""Directories in a storage that machines share: what comes back is what went in, or it is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rlhf import artifacts, jobspec
from rlhf.models import Checkpoint, JobCheckpoint
from rlhf.services import jobs, leases, register_base_checkpoint
from tests.test_jobs import claim, let_lease_run_out, make_job

Settings = Any


@pytest.fixture(autouse=True)
def storage(settings: Settings, data_dir: Path) -> Path:
    """A folder behind Django's storage interface stands in for the bucket; tests/test_shared_storage.py has one."""
    folder = data_dir / "bucket"
    backend = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": folder}}
    settings.STORAGES = {**settings.STORAGES, "models": backend}
    settings.SHARED_STORAGE = True
    return folder


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    (directory / "deep").mkdir(parents=True)
    (directory / "weights").write_bytes(b"w" * 3_000_000)
    (directory / "deep" / "config").write_text("{}")
    jobspec.write_manifest(directory)
    return directory


def test_a_directory_comes_back_as_it_was(directory: Path, storage: Path, tmp_path: Path) -> None:
    sha256 = artifacts.store_directory(directory)
    assert sha256 == jobspec.sha256_of_file(directory / "manifest.json")
    assert artifacts.store_directory(directory) == sha256  # once more does nothing
    shutil.rmtree(directory)
    artifacts.fetch_directory(sha256, tmp_path / "elsewhere")
    jobspec.check_manifest(tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "weights").read_bytes() == b"w" * 3_000_000
    artifacts.remove_directory(sha256)
    assert not [path for path in storage.rglob("*") if path.is_file()]


def test_what_was_changed_in_the_storage_is_refused_and_leaves_nothing(
    directory: Path, storage: Path, tmp_path: Path
) -> None:
    sha256 = artifacts.store_directory(directory)
    (storage / sha256 / "weights").write_bytes(b"v" * 3_000_000)
    with pytest.raises(artifacts.StorageError, match="weights in the storage is not the file that was stored"):
        artifacts.fetch_directory(sha256, tmp_path / "elsewhere")
    manifest = storage / sha256 / "manifest.json"
    manifest.write_text(json.dumps({"../../outside": "0" * 64}))
    with pytest.raises(artifacts.StorageError, match=r"manifest\.json in the storage is not the file"):
        artifacts.fetch_directory(sha256, tmp_path / "elsewhere")
    assert not list(tmp_path.glob("*elsewhere*"))


def test_an_upload_that_was_cut_short_does_not_count(directory: Path, storage: Path, tmp_path: Path) -> None:
    sha256 = artifacts.store_directory(directory)
    (storage / sha256 / "manifest.json").unlink()
    (storage / sha256 / "weights").write_bytes(b"w")
    with pytest.raises(artifacts.StorageError, match="the storage has no"):
        artifacts.fetch_directory(sha256, tmp_path / "elsewhere")
    artifacts.store_directory(directory)
    artifacts.fetch_directory(sha256, tmp_path / "elsewhere")
    jobspec.check_manifest(tmp_path / "elsewhere")


@pytest.mark.django_db
def test_a_checkpoint_is_fetched_where_it_is_needed(tiny_model: Path, settings: Settings, tmp_path: Path) -> None:
    settings.DATA_DIR, settings.MODELS_DIR = tmp_path / "other", tmp_path / "other" / "models"
    shutil.copytree(tiny_model, settings.MODELS_DIR / "tiny")
    base = register_base_checkpoint("tiny", settings.MODELS_DIR / "tiny")
    assert base.directory == "models/tiny"
    shutil.rmtree(settings.MODELS_DIR)
    found = Checkpoint.objects.get(name="tiny")
    jobspec.check_manifest(found.path)
    assert found.path == settings.MODELS_DIR / "tiny"


@pytest.mark.django_db
def test_a_lost_job_goes_on_from_the_last_checkpoint_in_the_storage(tiny_model: Path, storage: Path) -> None:
    job = claim(make_job(register_base_checkpoint("tiny", tiny_model)))
    for step in (5, 10, 15, 20):
        directory = job.directory / "checkpoints" / f"step-{step}"
        directory.mkdir(parents=True)
        (directory / "state").write_text(str(step))
        jobspec.write_manifest(directory)
        if step < 20:  # the machine is lost before it could store the last
            sha256 = artifacts.store_directory(directory)
            assert jobs.record_stored_checkpoint(job, step, sha256)
    # As many are kept as on the machine itself.
    assert list(JobCheckpoint.objects.order_by("step").values_list("step", flat=True)) == [10, 15]
    let_lease_run_out(job)
    jobs.reconcile()
    job.refresh_from_db()
    assert job.resume_from == "step-15"
    assert not jobs.record_stored_checkpoint(job, 20, "0" * 64), "it has no lease"
    assert not leases.renew_lease(job)

    # Whoever ends it, optimizer states go, even those that a killed worker had no time to take out.
    leases.request_cancel(job)
    jobs.reconcile()
    assert not JobCheckpoint.objects.exists()
    assert not list(storage.glob("*/state"))
