"""The contract between the web side and the GPU side: what a job directory holds.

Standard library only, so that a bare GPU node and a web process read the same definitions. A job directory:

    spec.json  train.jsonl  eval.jsonl     written before the start; an unknown key in spec.json is an error
    categories.json                        of held-out rows, by id; not there where none has one
    metrics.jsonl  heartbeat               appended / touched by rank 0
    insights.jsonl                         appended by rank 0: {"kind", "step", …}, see rlhf/training/insights.py
    cancel                                 made by the supervisor; holds "keep", "discard" or "pause"
    checkpoints/step-N/                    complete when it holds manifest.json (sha256 of each file)
    step_models/step-N/                    a whole model that can be evaluated while training goes on
    reward_card.json                       of a reward model: scores of the held-out pairs, and probes
    result.json                            written last, atomically
    stdout.log

`result.json` present means finished; absent and the process gone means crashed. Nothing is inferred from log text.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rlhf.options import CHANGEABLE_ON_RESUME, SpecError, TrainingOptions, build_options
from rlhf.score_scales import Scale, is_scales

SPEC_FILE = "spec.json"
TRAIN_FILE = "train.jsonl"
EVAL_FILE = "eval.jsonl"
CATEGORIES_FILE = "categories.json"
METRICS_FILE = "metrics.jsonl"
INSIGHTS_FILE = "insights.jsonl"
HEARTBEAT_FILE = "heartbeat"
CANCEL_FILE = "cancel"
CHECKPOINTS_DIR = "checkpoints"
MODEL_DIR = "model"
STEP_MODELS_DIR = "step_models"
MANIFEST_FILE = "manifest.json"
RESULT_FILE = "result.json"
REWARD_CARD_FILE = "reward_card.json"
LOG_FILE = "stdout.log"
STACKS_SIGNAL = signal.SIGUSR1
"""Has a training process write to its log where each of its threads stands."""

FailureClass = Literal["infrastructure", "out_of_memory", "bad_data", "unknown"]
CancelMode = Literal["keep", "discard", "pause"]


SHOWN_CHARACTERS = 4000
"""A text in insights.jsonl that is longer than this was cut for show."""

CHECKPOINT_NAME = re.compile(r"step-\d+")
CHECKPOINTS_KEPT = 2
OPTIONS_FILE = "options.json"
"""In a checkpoint: the options that it was written with, and `rows_grouped` (see `rows_grouped`)."""


class BadDataError(ValueError):
    """Rows that cannot be trained on; the sentence names the file and the line."""


_JSON_WORDS = {int: "a whole number", str: "a string", dict: "an object"}


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """Everything a training process needs to know, beside the rows."""

    job_id: int
    method: str
    base_model_dir: str
    options: TrainingOptions
    resume_from: str = ""
    """Name of a complete checkpoint directory under checkpoints/, or empty to start afresh."""
    score_scales: dict[str, Scale] = field(default_factory=dict)
    """How each aspect's scores in the rows were normalised, for the reward model to give them back."""
    snapshot_sha256: str = ""
    base_sha256: str = ""
    """Of the base's manifest. With the snapshot's, the lineage of a run that is made by hand and brought in."""
    attempt: int = 0
    """A process of another attempt than the directory's must not write into it."""
    format_version: int = 1

    def write(self, directory: Path) -> None:
        """Write spec.json atomically."""
        write_json_atomically(directory / SPEC_FILE, dataclasses.asdict(self))

    @classmethod
    def read(cls, directory: Path) -> JobSpec:
        """Read spec.json. Raises SpecError, naming the key, for anything unknown, missing or of the wrong type."""
        path = directory / SPEC_FILE
        try:
            raw = json.loads(path.read_text())
        except FileNotFoundError:
            raise SpecError(f"{path} does not exist: this is not a job directory") from None
        except ValueError as error:  # not JSON, or not even UTF-8
            raise SpecError(f"{path} is not valid JSON: {error}") from None
        if not isinstance(raw, dict):
            raise SpecError(f"{path} must hold one JSON object, not {type(raw).__name__}")
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := set(raw) - known:
            raise SpecError(f"{path}: unknown key {sorted(unknown)[0]!r}")
        if missing := {"job_id", "method", "base_model_dir", "options"} - set(raw):
            raise SpecError(f"{path}: key {sorted(missing)[0]!r} is missing")
        if raw.get("format_version", 1) != 1:
            raise SpecError(f"{path}: format_version {raw['format_version']} is newer than this code understands (1)")
        for key, kind in {"job_id": int, "method": str, "base_model_dir": str, "options": dict}.items():
            if not isinstance(raw[key], kind) or isinstance(raw[key], bool):
                raise SpecError(f"{path}: {key} must be {_JSON_WORDS[kind]}, not {raw[key]!r}")
        resume_from = raw.get("resume_from", "")
        if resume_from != "" and not (isinstance(resume_from, str) and CHECKPOINT_NAME.fullmatch(resume_from)):
            raise SpecError(f"{path}: resume_from must name a checkpoint such as step-50, not {resume_from!r}")
        if not is_scales(raw.get("score_scales", {})):
            raise SpecError(f"{path}: score_scales must name aspects with an offset and a width each")
        return cls(**{**raw, "options": build_options(raw["method"], raw["options"])})


def current_attempt(directory: Path) -> int:
    """Of which attempt the job directory is now."""
    return int(json.loads((directory / SPEC_FILE).read_text()).get("attempt", 0))


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a job ended, as its process says."""

    status: Literal["succeeded", "failed", "cancelled"]
    error: str = ""
    failure_class: str = ""
    metrics: dict[str, float] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        write_json_atomically(directory / RESULT_FILE, dataclasses.asdict(self))

    @classmethod
    def read(cls, directory: Path) -> Result | None:
        """The result, or None where the process has not finished (or died before it could say)."""
        try:
            return cls(**json.loads((directory / RESULT_FILE).read_text()))
        except FileNotFoundError:
            return None


def write_json_atomically(path: Path, value: Any) -> None:
    """Write, flush to disk, rename: a reader sees the old file or the whole new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w") as file:
            json.dump(value, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    fsync_path(path.parent)


def fsync_path(path: Path) -> None:
    """Flush a file's content, or a directory's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(directory: Path) -> str:
    """Write manifest.json (file → sha256) over a finished directory; gives the manifest's own sha256."""
    files = {
        str(path.relative_to(directory)): sha256_of_file(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST_FILE
    }
    write_json_atomically(directory / MANIFEST_FILE, files)
    return sha256_of_file(directory / MANIFEST_FILE)


def publish_directory(draft: Path, final: Path) -> str:
    """Make a finished draft directory complete under its final name, in one step that a crash cannot halve.

    Writes the manifest, flushes every file and renames. A directory that stands under the final name is replaced.
    Gives the manifest's own sha256.
    """
    manifest_sha256 = write_manifest(draft)
    for path in sorted(draft.rglob("*"), reverse=True):
        fsync_path(path)
    fsync_path(draft)
    if final.exists():
        shutil.rmtree(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    draft.replace(final)
    fsync_path(final.parent)
    return manifest_sha256


def check_manifest(directory: Path) -> None:
    """Raise SpecError, naming the file, where a directory does not hold what its manifest says."""
    try:
        files = json.loads((directory / MANIFEST_FILE).read_text())
    except FileNotFoundError:
        raise SpecError(f"{directory} has no {MANIFEST_FILE}: it was not written to the end") from None
    except ValueError:
        raise SpecError(f"{directory / MANIFEST_FILE} is not valid JSON: it was not written to the end") from None
    for name, sha256 in files.items():
        path = directory / name
        if not path.is_file():
            raise SpecError(f"{directory}: {name} is missing")
        if sha256_of_file(path) != sha256:
            raise SpecError(f"{directory}: {name} is not the file that its manifest describes")


def complete_checkpoints(directory: Path, kind: str = CHECKPOINTS_DIR) -> list[str]:
    """Names of the complete checkpoints, or step models, of a job directory, oldest first."""
    folder = directory / kind
    names = [path.parent.name for path in folder.glob(f"step-*/{MANIFEST_FILE}")]
    return sorted(
        (name for name in names if CHECKPOINT_NAME.fullmatch(name)), key=lambda name: int(name.removeprefix("step-"))
    )


def rows_grouped(spec: JobSpec, directory: Path) -> int:
    """Of how many rows a group of like length is: as many as a pass took when the job began.

    A job that goes on with another micro_batch_size meets its rows in the same order so, and none twice.
    """
    if spec.resume_from:
        with contextlib.suppress(FileNotFoundError):
            written = json.loads((directory / CHECKPOINTS_DIR / spec.resume_from / OPTIONS_FILE).read_text())
            return int(written.get("rows_grouped", written["micro_batch_size"]))
    return spec.options.micro_batch_size


def check_resumable(checkpoint: Path, options: TrainingOptions) -> None:
    """Raise SpecError, naming the option, where a job cannot go on from this checkpoint with these options."""
    try:
        written_with = json.loads((checkpoint / OPTIONS_FILE).read_text())
    except FileNotFoundError:
        return
    for name, value in dataclasses.asdict(options).items():
        if name in written_with and written_with[name] != value and name not in CHANGEABLE_ON_RESUME:
            raise SpecError(
                f"{name} is {value!r}, and {checkpoint.name} was written with {written_with[name]!r}: a job that goes "
                f"on from a checkpoint may change only {', '.join(CHANGEABLE_ON_RESUME)}. Start a new job instead"
            )
