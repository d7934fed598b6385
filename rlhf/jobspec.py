"""The contract between the web side and the GPU side: what a job directory holds.

Standard library only, so that a bare GPU node and a web process read the same definitions. A job directory:

    spec.json  train.jsonl  eval.jsonl     written before the start; an unknown key in spec.json is an error
    metrics.jsonl  heartbeat               appended / touched by rank 0
    cancel                                 made by the supervisor; holds "keep" or "discard"
    checkpoints/step-N/                    complete when it holds manifest.json (sha256 of each file)
    result.json                            written last, atomically
    stdout.log

`result.json` present means finished; absent and the process gone means crashed. Nothing is inferred from log text.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import shutil
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

SPEC_FILE = "spec.json"
TRAIN_FILE = "train.jsonl"
EVAL_FILE = "eval.jsonl"
METRICS_FILE = "metrics.jsonl"
HEARTBEAT_FILE = "heartbeat"
CANCEL_FILE = "cancel"
CHECKPOINTS_DIR = "checkpoints"
MODEL_DIR = "model"
MANIFEST_FILE = "manifest.json"
RESULT_FILE = "result.json"
LOG_FILE = "stdout.log"

Method = Literal["sft", "reward", "dpo", "kto"]
FailureClass = Literal["infrastructure", "out_of_memory", "bad_data", "unknown"]
CancelMode = Literal["keep", "discard"]


CHECKPOINT_NAME = re.compile(r"step-\d+")


class BadDataError(ValueError):
    """Rows that cannot be trained on; the sentence names the file and the line."""


class SpecError(ValueError):
    """A spec or an option that cannot be used; the sentence names the key and says what to do."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What every method understands."""

    learning_rate: float = 1e-5
    """Peak, after warm-up."""
    epochs: float = 1.0
    """Passes over train.jsonl; ignored where max_steps is set."""
    max_steps: int = 0
    """Optimizer steps; 0 means as many as `epochs` asks for."""
    batch_size: int = 8
    """Rows (pairs, for reward and DPO) per optimizer step, over all processes."""
    micro_batch_size: int = 4
    """Rows per forward pass and process; batch_size must be a multiple of it."""
    max_tokens: int = 512
    """Prompt and completion together. Longer rows are left out, counted and shown: never cut in silence."""
    warmup_share: float = 0.1
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: float = 0.0
    scheduler: Literal["linear", "cosine", "constant"] = "linear"
    use_lora: bool = False
    lora_rank: int = 16
    lora_alpha: int = 32
    bf16: bool = True
    """bfloat16 autocast over float32 weights."""
    gradient_checkpointing: bool = False
    """Trades about a tenth more time for less memory."""
    checkpoint_every_steps: int = 50
    eval_every_steps: int = 0
    """0 evaluates at the end only."""
    seed: int = 17


@dataclass(frozen=True, kw_only=True)
class SFTOptions(TrainingOptions):
    """Supervised fine-tuning on the preferred responses (TRL SFTTrainer)."""

    learning_rate: float = 1e-5
    epochs: float = 2.0
    packing: bool = False


@dataclass(frozen=True, kw_only=True)
class RewardOptions(TrainingOptions):
    """A Bradley–Terry reward model (TRL RewardTrainer)."""

    learning_rate: float = 2e-5
    center_rewards_coefficient: float = 0.0
    """Pulls the mean reward to 0 (Eisenstein et al. 2023); 0.01 is usual, 0 is off."""


@dataclass(frozen=True, kw_only=True)
class DPOOptions(TrainingOptions):
    """Direct preference optimisation (Rafailov et al. 2023; TRL DPOTrainer)."""

    learning_rate: float = 1e-4
    epochs: float = 2.0
    use_lora: bool = True
    beta: float = 0.1
    """How strongly the policy is held to the reference model."""
    loss_type: Literal["sigmoid", "hinge", "ipo", "robust"] = "sigmoid"
    label_smoothing: float = 0.0
    """Assumed share of wrong votes, 0 … 0.5; for loss_type robust."""


@dataclass(frozen=True, kw_only=True)
class KTOOptions(TrainingOptions):
    """Kahneman–Tversky optimisation on single responses, desirable or not (Ethayarajh et al. 2024; TRL KTOTrainer)."""

    learning_rate: float = 1e-4
    use_lora: bool = True
    beta: float = 0.1
    """How strongly the policy is held to the reference model."""
    desirable_weight: float = 1.0
    """Weigh the two kinds so that weight times rows is 1 to 4/3 as large for the desirable (section 4.1 there)."""
    undesirable_weight: float = 1.0


OPTIONS: dict[str, type[TrainingOptions]] = {
    "sft": SFTOptions,
    "reward": RewardOptions,
    "dpo": DPOOptions,
    "kto": KTOOptions,
}


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
        return cls(**{**raw, "options": build_options(raw["method"], raw["options"])})


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


def build_options(method: str, given: dict[str, Any]) -> TrainingOptions:
    """The method's options with `given` in place of the defaults.

    Values may be strings (a form, `--set key=value`) or already typed (JSON). Raises SpecError that names the option.
    """
    if method not in OPTIONS:
        raise SpecError(f"unknown method {method!r}; known: {', '.join(OPTIONS)}")
    cls = OPTIONS[method]
    hints = typing.get_type_hints(cls)
    if unknown := set(given) - set(hints):
        raise SpecError(f"unknown option {sorted(unknown)[0]!r} for {method}; known: {', '.join(sorted(hints))}")
    options = cls(**{name: _convert(name, hints[name], value) for name, value in given.items()})
    _check(options)
    return options


def _convert(name: str, kind: Any, value: Any) -> Any:
    if typing.get_origin(kind) is Literal:
        if value not in typing.get_args(kind):
            raise SpecError(f"{name}: {value!r} is not one of {', '.join(typing.get_args(kind))}")
        return value
    if kind is bool:
        if isinstance(value, bool):
            return value
        if str(value).lower() in ("true", "yes", "on", "1"):
            return True
        if str(value).lower() in ("false", "no", "off", "0"):
            return False
        raise SpecError(f"{name}: {value!r} is not true or false")
    if isinstance(value, bool):
        raise SpecError(f"{name}: {value!r} is not a number")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise SpecError(f"{name}: {value!r} is not a number") from None
    if kind is int:
        if not math.isfinite(number) or number != int(number):
            raise SpecError(f"{name}: {value!r} is not a whole number")
        return int(number)
    return number


# option: (smallest, largest) that can be meant; outside is refused
_BOUNDS: dict[str, tuple[float, float]] = {
    "learning_rate": (1e-9, 1e-2),
    "epochs": (0.001, 100),
    "max_steps": (0, 10_000_000),
    "batch_size": (1, 65_536),
    "micro_batch_size": (1, 4_096),
    "max_tokens": (16, 1_000_000),
    "warmup_share": (0, 0.9),
    "weight_decay": (0, 1),
    "lora_rank": (1, 1024),
    "lora_alpha": (1, 4096),
    "checkpoint_every_steps": (1, 1_000_000),
    "eval_every_steps": (0, 1_000_000),
    "seed": (0, 2**31 - 1),
    "beta": (1e-4, 10),
    "label_smoothing": (0, 0.49),
    "center_rewards_coefficient": (0, 1),
    "desirable_weight": (0.01, 100),
    "undesirable_weight": (0.01, 100),
}


def _check(options: TrainingOptions) -> None:
    for name, (smallest, largest) in _BOUNDS.items():
        value = getattr(options, name, smallest)
        if not smallest <= value <= largest:
            raise SpecError(f"{name}: {value} is outside {smallest:g} … {largest:g}")
    if options.batch_size % options.micro_batch_size:
        raise SpecError(
            f"batch_size {options.batch_size} is not a multiple of micro_batch_size {options.micro_batch_size}"
        )
    # TRL ignores it in silence with the other losses.
    if isinstance(options, DPOOptions) and options.label_smoothing and options.loss_type != "robust":
        raise SpecError(f"label_smoothing has no effect on loss_type {options.loss_type}: choose robust, or 0")
    if isinstance(options, KTOOptions) and options.micro_batch_size < 2:
        raise SpecError("micro_batch_size must be at least 2: KTO compares each row with its neighbours")


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


def complete_checkpoints(directory: Path) -> list[str]:
    """Names of the complete checkpoints of a job directory, oldest first."""
    folder = directory / CHECKPOINTS_DIR
    names = [path.parent.name for path in folder.glob(f"step-*/{MANIFEST_FILE}")]
    return sorted(
        (name for name in names if CHECKPOINT_NAME.fullmatch(name)), key=lambda name: int(name.removeprefix("step-"))
    )
