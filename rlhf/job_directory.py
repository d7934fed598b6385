"""Writing the directory that a training process reads: the spec and the rows of its data set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from annotation.models import Comparison
from rlhf import launcher, preflight
from rlhf.jobspec import CATEGORIES_FILE, JobSpec, write_json_atomically
from rlhf.models import Checkpoint, DatasetSnapshot, TrainingJob
from rlhf.options import TrainingOptions, build_options
from rlhf.services import merging
from rlhf.snapshots import check_snapshot, snapshot_rows
from rlhf.token_lengths import TokenCounter


def write_job_directory(job: TrainingJob, directory: Path) -> None:
    """Write what the job's process reads. Raises SpecError, DomainError, OSError."""
    if job.snapshot is None:
        merge_options = merging.options_with_paths(job)
        spec = JobSpec(
            job_id=job.pk,
            method=job.method,
            base_model_dir=str(job.base.path),
            options=merge_options,
            base_sha256=job.base.manifest_sha256,
            attempt=job.attempt,
        )
        launcher.prepare(directory, spec, [], [])
        return
    check_snapshot(job.snapshot)
    given = job.options
    if job.reward_model is not None:
        given = given | {"reward_model": str(job.reward_model.path)}
    options = build_options(job.method, given)
    spec = JobSpec(
        job_id=job.pk or 0,
        method=job.method,
        base_model_dir=str(job.base.path),
        options=options,
        resume_from=job.resume_from,
        snapshot_sha256=job.snapshot.sha256,
        base_sha256=job.base.manifest_sha256,
        attempt=job.attempt,
        score_scales=preflight.score_scales(job.snapshot, options),
    )
    _write_categories(job.snapshot, directory)
    train, held_out = (rows_of(job.snapshot, split, job.method, job.base, options) for split in ("train", "eval"))
    launcher.prepare(directory, spec, train, held_out)


def _write_categories(snapshot: DatasetSnapshot, directory: Path) -> None:
    """The tasks of the held-out prompts, beside the rows: a row stays what was frozen though somebody relabels it."""
    ids = {row["id"] for row in snapshot_rows(snapshot, "eval")}
    labelled = Comparison.objects.filter(project=snapshot.project_id).exclude(prompt__task="")
    categories = {str(pk): task for pk, task in labelled.values_list("pk", "prompt__task").iterator() if pk in ids}
    directory.mkdir(parents=True, exist_ok=True)
    if categories:
        write_json_atomically(directory / CATEGORIES_FILE, categories)
    else:
        (directory / CATEGORIES_FILE).unlink(missing_ok=True)


def rows_of(
    snapshot: DatasetSnapshot, split: str, method: str, base: Checkpoint, options: TrainingOptions
) -> Iterator[dict[str, Any]]:
    """The rows of train.jsonl or eval.jsonl: the same for the same arguments, at any time."""
    return preflight.usable_rows(snapshot, split, method, TokenCounter(base.path), options)
