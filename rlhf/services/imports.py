"""Runs made by hand on another machine: what is prepared for them, and how they come in."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from annotation.services import DomainError
from rlhf import jobspec
from rlhf.job_directory import rows_of, write_job_directory
from rlhf.jobspec import EVAL_FILE, METRICS_FILE, MODEL_DIR, RESULT_FILE, TRAIN_FILE, BadDataError, JobSpec, Result
from rlhf.launcher import MetricsTail
from rlhf.model_directory import check_model_directory, model_kind
from rlhf.models import Checkpoint, CheckpointKind, DatasetSnapshot, JobMetric, JobStatus, LaunchCheck, TrainingJob
from rlhf.options import SpecError
from rlhf.services.checkpoints import find_reward_model, register_checkpoint
from rlhf.services.jobs import checked_options, refuse_what_is_wrong
from rlhf.services.launching import findings_of


def prepare_job_directory(check: LaunchCheck, directory: Path, *, proceed: bool = False) -> None:
    """Write the directory of a checked launch for a run by hand. Raises DomainError, also where a check refuses or,
    without `proceed`, blocks.

    Nothing is stored: the run becomes a job when it is brought back.
    """
    if directory.exists() and any(directory.iterdir()):
        raise DomainError(f"{directory} is not empty; name a directory that is")
    refuse_what_is_wrong(findings_of(check), proceed)
    options = checked_options(check.method, check.base, check.options)
    job = TrainingJob(
        method=check.method,
        snapshot=check.snapshot,
        base=check.base,
        options=check.options,
        reward_model=find_reward_model(options, check.base),
    )
    try:
        write_job_directory(job, directory)
    except (SpecError, OSError) as error:
        raise DomainError(str(error)) from None


def import_job(directory: Path, name: str = "", created_by: User | None = None) -> TrainingJob:
    """Bring in a finished run, with its figures and its model, as if a worker of this site had made it.

    Its data set and its base are found by their sha256, its rows are made anew and compared, its model is checked
    against its manifest. Raises DomainError that names what does not match; then nothing is stored.
    """
    try:
        spec = JobSpec.read(directory)
        result = Result.read(directory)
        if result is None:
            raise DomainError(f"{directory} has no {RESULT_FILE}: the run has not ended yet")
        if result.status == "failed":
            raise DomainError(f"the run failed ({result.error}); there is nothing to bring in")
        jobspec.check_manifest(directory / MODEL_DIR)
        check_model_directory(directory / MODEL_DIR)
        kind = CheckpointKind(model_kind(directory / MODEL_DIR))
        snapshot, base = _lineage(directory, spec)
        _check_model(directory / MODEL_DIR, spec, kind, base)
        _check_rows(directory, spec, snapshot, base)
        steps = _metrics(directory)
    except (SpecError, BadDataError, OSError, TypeError) as error:
        raise DomainError(str(error)) from None
    return _store(directory, spec, result, steps, snapshot, base, kind, name, created_by)


def _lineage(directory: Path, spec: JobSpec) -> tuple[DatasetSnapshot, Checkpoint]:
    if not spec.snapshot_sha256 or not spec.base_sha256:
        raise DomainError(
            f"{directory}: spec.json names neither data set nor base; prepare the directory with train --prepare"
        )
    snapshot = DatasetSnapshot.objects.filter(sha256=spec.snapshot_sha256).order_by("pk").first()
    if snapshot is None:
        raise DomainError(f"no data set here has the sha256 {spec.snapshot_sha256} that the run was prepared for")
    base = Checkpoint.objects.filter(manifest_sha256=spec.base_sha256).order_by("pk").first()
    if base is None:
        raise DomainError(f"no checkpoint here has the sha256 {spec.base_sha256} that the run started from")
    return snapshot, base


def _check_model(model: Path, spec: JobSpec, kind: CheckpointKind, base: Checkpoint) -> None:
    sha256 = jobspec.sha256_of_file(model / jobspec.MANIFEST_FILE)
    known = Checkpoint.objects.filter(manifest_sha256=sha256).first()
    if known is not None:
        raise DomainError(f"this model is here already: it is the checkpoint {known.name}")
    wanted = CheckpointKind.REWARD if spec.method == "reward" else CheckpointKind.POLICY
    if kind != wanted:
        raise DomainError(f"{model} is a {kind} model, and {spec.method} makes a {wanted} model")
    tokenizer = "tokenizer.json"
    if jobspec.sha256_of_file(model / tokenizer) != jobspec.sha256_of_file(base.path / tokenizer):
        raise DomainError(f"{model / tokenizer} is not that of {base.name}, from which the run started")


def _check_rows(directory: Path, spec: JobSpec, snapshot: DatasetSnapshot, base: Checkpoint) -> None:
    for file, split in ((TRAIN_FILE, "train"), (EVAL_FILE, "eval")):
        rows = rows_of(snapshot, split, spec.method, base, spec.options)
        if jobspec.sha256_of_file(directory / file) != _sha256_of_rows(rows):
            raise DomainError(f"{file} does not hold the rows that the data set {snapshot.name} gives for this run")


def _sha256_of_rows(rows: Iterable[dict[str, Any]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def _metrics(directory: Path) -> dict[int, dict[str, Any]]:
    """What was logged, by step; of a step that was done twice, the later."""
    steps: dict[int, dict[str, Any]] = {}
    for line in MetricsTail(directory).read_new():
        step = line.get("step")
        if not isinstance(step, int) or not 0 <= step < 2**31:
            raise DomainError(f"{METRICS_FILE}: {str(step)[:40]!r} is not a step")
        steps.setdefault(step, {}).update(line)
    if not steps:
        raise DomainError(f"{directory} has no {METRICS_FILE} with a line in it")
    return steps


def _store(
    directory: Path,
    spec: JobSpec,
    result: Result,
    steps: dict[int, dict[str, Any]],
    snapshot: DatasetSnapshot,
    base: Checkpoint,
    kind: CheckpointKind,
    name: str,
    created_by: User | None,
) -> TrainingJob:
    times = [float(line["time"]) for line in steps.values() if isinstance(line.get("time"), int | float)]
    began = datetime.fromtimestamp(min(times), UTC) if times else timezone.now()
    ended = datetime.fromtimestamp(max(times), UTC) if times else timezone.now()
    target: Path | None = None
    try:
        with transaction.atomic():
            job = TrainingJob.objects.create(
                name=name,
                method=spec.method,
                snapshot=snapshot,
                base=base,
                options=dataclasses.asdict(spec.options),
                status=JobStatus(result.status),
                attempt=1,
                step=max(steps),
                total_steps=int(steps[max(steps)].get("total_steps") or 0),
                metrics=result.metrics,
                process_seconds=float(result.metrics.get("seconds", 0.0)),
                cancel_mode="keep" if result.status == "cancelled" else "",
                cancel_requested_at=ended if result.status == "cancelled" else None,
                code_version="made by hand",
                created_by=created_by,
                queued_at=began,
                started_at=began,
                finished_at=ended,
            )
            JobMetric.objects.bulk_create(
                [JobMetric(job=job, step=step, values=line, logged_at=ended) for step, line in sorted(steps.items())]
            )
            target = settings.JOBS_DIR / str(job.pk)
            shutil.copytree(directory / MODEL_DIR, target / f".{MODEL_DIR}.draft")
            jobspec.publish_directory(target / f".{MODEL_DIR}.draft", target / MODEL_DIR)
            for file in (jobspec.SPEC_FILE, RESULT_FILE, METRICS_FILE, jobspec.LOG_FILE):
                if (directory / file).exists():
                    shutil.copyfile(directory / file, target / file)
            register_checkpoint(
                name=_free_name(name or directory.resolve().name, job),
                kind=kind,
                directory=target / MODEL_DIR,
                parent=base,
                job=job,
                step=job.step,
            )
    except BaseException:
        if target is not None:
            shutil.rmtree(target, ignore_errors=True)
        raise
    return job


def _free_name(name: str, job: TrainingJob) -> str:
    name = name[:90]
    return f"{name}-{job.pk}" if Checkpoint.objects.filter(name=name).exists() else name
