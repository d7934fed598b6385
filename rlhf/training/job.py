"""One run of a training method over a job directory: reading it, stopping, and saying how it ended.

Imports nothing heavy, so that `--help`, a bad spec and a kill at the start are instant.
"""

from __future__ import annotations

import argparse
import errno
import faulthandler
import json
import logging
import os
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from rlhf.jobspec import (
    CANCEL_FILE,
    CHECKPOINTS_DIR,
    HEARTBEAT_FILE,
    INSIGHTS_FILE,
    MANIFEST_FILE,
    METRICS_FILE,
    RESULT_FILE,
    STACKS_SIGNAL,
    BadDataError,
    FailureClass,
    JobSpec,
    Result,
    current_attempt,
    rows_grouped,
    sha256_of_file,
)
from rlhf.model_directory import check_model_directory
from rlhf.options import SpecError
from rlhf.tied import die_with_parent

SIGTERM_EXIT_CODE = 128 + signal.SIGTERM
SUPERSEDED_EXIT_CODE = 75

StopReason = Literal["keep", "discard", "terminated"]


def set_environment() -> None:
    """Settings that the libraries read while they are imported."""
    os.environ.update(
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_DATASETS_DISABLE_PROGRESS_BARS="1",
        TOKENIZERS_PARALLELISM="false",
        TQDM_DISABLE="1",
        TRL_EXPERIMENTAL_SILENCE="1",
    )
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # About names that TRL itself still uses; in the log they only hide what matters.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


@dataclass
class Job:
    """What a method needs of the job directory while it runs."""

    directory: Path
    spec: JobSpec
    terminated: bool = False
    in_steps: bool = False
    """Whether the training loop runs: then SIGTERM waits for the end of the step, to save a checkpoint."""
    stopped: StopReason | None = None
    started_at: float = field(default_factory=time.monotonic)

    @property
    def base(self) -> Path:
        return Path(self.spec.base_model_dir)

    @property
    def unfinished(self) -> Path:
        """Where this attempt writes a checkpoint until it is complete."""
        return self.directory / CHECKPOINTS_DIR / f".unfinished-{self.spec.attempt}"

    @cached_property
    def rows_grouped(self) -> int:
        """Kept: the checkpoint that says it is deleted when newer ones stand."""
        return rows_grouped(self.spec, self.directory)

    @property
    def is_main(self) -> bool:
        """Whether this process is rank 0, the only one that writes into the directory."""
        return int(os.environ.get("RANK", "0")) == 0

    @property
    def world_size(self) -> int:
        return int(os.environ.get("WORLD_SIZE", "1"))

    def heartbeat(self) -> None:
        if self.is_main:
            self.leave_if_superseded()
            (self.directory / HEARTBEAT_FILE).touch()

    def leave_if_superseded(self) -> None:
        """End at once where a later attempt has this directory: its machine was taken for lost and has come back."""
        if current_attempt(self.directory) != self.spec.attempt:
            print("another attempt has this job now; this process leaves", file=sys.stderr, flush=True)
            os._exit(SUPERSEDED_EXIT_CODE)

    def on_sigterm(self, _signum: int, _frame: FrameType | None) -> None:
        self.terminated = True
        if not self.in_steps:
            raise SystemExit(SIGTERM_EXIT_CODE)

    def asked_to_stop(self) -> StopReason | None:
        """Why training should stop at this step, if it should. A discard wins over everything."""
        try:
            cancel = (self.directory / CANCEL_FILE).read_text().strip()
        except FileNotFoundError:
            cancel = ""
        if cancel == "discard":
            return "discard"
        if self.terminated or cancel == "pause":
            return "terminated"
        return "keep" if cancel else None

    def write_metrics(self, row: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        self.leave_if_superseded()
        with (self.directory / METRICS_FILE).open("a") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")

    def write_insight(self, line: dict[str, Any]) -> None:
        """Append one line to insights.jsonl."""
        with (self.directory / INSIGHTS_FILE).open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def drop_torn_lines(self) -> None:
        """Cut off the half-written last lines that a killed attempt may have left."""
        for path in (self.directory / METRICS_FILE, self.directory / INSIGHTS_FILE):
            if path.exists():
                data = path.read_bytes()
                os.truncate(path, data.rfind(b"\n") + 1)


def peak_memory_gb() -> float:
    """Largest resident memory of this process so far, in GB (10^9 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main(method: str, train: Callable[[Job], dict[str, float]], description: str) -> None:
    """Entry point of `python -m rlhf.training.<method> JOB_DIR`; never returns."""
    die_with_parent()
    faulthandler.enable()  # a crash in native code says where it was
    faulthandler.register(STACKS_SIGNAL)
    parser = argparse.ArgumentParser(prog=f"python -m rlhf.training.{method}", description=description)
    parser.add_argument("job_dir", type=Path, help="directory with spec.json, train.jsonl and eval.jsonl")
    # The deepspeed launcher says it so; the environment says it, too.
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)
    job_dir = parser.parse_args().job_dir.resolve()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    set_environment()
    sys.exit(execute(job_dir, method, train))


def execute(job_dir: Path, method: str, train: Callable[[Job], dict[str, float]]) -> int:
    """Train and write result.json; gives the exit code. An interrupted run (SIGTERM, Ctrl-C) leaves no result."""
    if (job_dir / RESULT_FILE).exists():
        print(f"{job_dir / RESULT_FILE} exists: this job has ended already and nothing was done")
        return 0
    if not job_dir.is_dir():
        print(f"{job_dir} is not a directory", file=sys.stderr)
        return 2
    job: Job | None = None
    try:
        job = Job(job_dir, JobSpec.read(job_dir))
        if job.spec.method != method:
            raise SpecError(f"spec.json is for method {job.spec.method!r}, not {method!r}")
        previous = signal.signal(signal.SIGTERM, job.on_sigterm)
        try:
            if job.is_main:
                job.drop_torn_lines()
                for draft in (job_dir / CHECKPOINTS_DIR).glob(".unfinished*"):
                    shutil.rmtree(draft, ignore_errors=True)
            job.heartbeat()
            check_model_directory(job.base)
            _check_base(job)
            metrics = train(job)
            job.heartbeat()
        finally:
            signal.signal(signal.SIGTERM, previous)
    except Exception as error:
        # The traceback is the developer's, the sentence is the person's.
        traceback.print_exc()
        if job is not None:  # what fails may be what the other attempt has cleared away
            job.leave_if_superseded()
        failure_class, sentence = explain(error, job_dir)
        return _write_result(job_dir, Result(status="failed", error=sentence, failure_class=failure_class)) or 1
    if job.stopped == "terminated":
        return SIGTERM_EXIT_CODE
    if not job.is_main:
        return 0
    status: Literal["succeeded", "cancelled"] = "cancelled" if job.stopped else "succeeded"
    metrics |= {"seconds": time.monotonic() - job.started_at, "peak_memory_gb": peak_memory_gb()}
    return _write_result(job_dir, Result(status=status, metrics=metrics))


def _check_base(job: Job) -> None:
    """Raise SpecError where another model lies where the job's base should."""
    manifest = job.base / MANIFEST_FILE
    if job.spec.base_sha256 and manifest.exists() and sha256_of_file(manifest) != job.spec.base_sha256:
        raise SpecError(
            f"{job.base} holds another model than this job was prepared for: the sha256 of its {MANIFEST_FILE} differs"
        )


def _write_result(job_dir: Path, result: Result) -> int:
    if int(os.environ.get("RANK", "0")) != 0:
        # Where one rank fails the others fail after it, for want of its answers: the first knows why.
        if result.status != "failed" or (job_dir / RESULT_FILE).exists():
            return 0
    elif (job_dir / RESULT_FILE).exists():
        return 1
    try:
        result.write(job_dir)
    except OSError:
        # Without a result the supervisor takes the process for crashed and tries again when there is room.
        traceback.print_exc()
        return 1
    return 0


def explain(error: BaseException, job_dir: Path) -> tuple[FailureClass, str]:
    """By whose fault a run failed, and one sentence for the person who started it."""
    if isinstance(error, SpecError | BadDataError):
        return "bad_data", str(error)
    chain = list(_chain(error))
    texts = " ".join(f"{type(link).__name__}: {link}" for link in chain)
    if (
        any(isinstance(link, MemoryError) for link in chain)
        or "OutOfMemoryError" in texts
        or any(words in texts for words in ("can't allocate memory", "out of memory", "Cannot allocate memory"))
    ):
        return "out_of_memory", (
            "Training ran out of memory. Use a smaller micro_batch_size or max_tokens, gradient_checkpointing or LoRA."
        )
    disk_full = any(isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT) for link in chain)
    # torch and safetensors wrap the system's error in their own, with only its words left.
    if disk_full or any(
        words in texts for words in ("No space left on device", "PytorchStreamWriter failed", "inline_container.cc")
    ):
        return "infrastructure", (
            f"The disk that holds {job_dir} is full. The checkpoints written before are safe: free some space, "
            "and the job goes on from the last one."
        )
    first_line = (str(error).strip().splitlines() or ["no further text"])[0]
    return "unknown", f"{type(error).__name__}: {first_line} (the whole traceback is in the log)"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
