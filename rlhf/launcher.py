"""The seam between the web side and the GPU side: a job directory in, a child process out.

Standard library only. A supervisor prepares the directory, starts the process, tails its metrics and reads
`Result.read(job_dir)` once the process is gone; a person can run `launch_command` by hand on the same directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rlhf.jobspec import (
    CANCEL_FILE,
    EVAL_FILE,
    HEARTBEAT_FILE,
    LOG_FILE,
    METRICS_FILE,
    RESULT_FILE,
    TRAIN_FILE,
    CancelMode,
    JobSpec,
)

PROJECT_ROOT = Path(__file__).resolve().parents[1]

# The child gets these and nothing else: a training log or a model library must never see the database's password.
_INHERITED = {
    "PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH", "LD_PRELOAD",
    "SSL_CERT_FILE", "XDG_CACHE_HOME", "HF_HOME",
}  # fmt: skip
_INHERITED_PREFIXES = (
    "LC_",
    "CUDA_",
    "NVIDIA_",
    "NCCL_",
    "GLOO_",
    "OMP_",
    "MKL_",
    "KMP_",
    "TORCH_",
    "PYTORCH_",
    "DS_",
)
PARENT_PID = "TOUCHSTONE_PARENT_PID"


def prepare(
    job_dir: Path, spec: JobSpec, train_rows: Iterable[dict[str, Any]], eval_rows: Iterable[dict[str, Any]]
) -> None:
    """Write what the process reads, and clear away how an earlier attempt ended.

    Checkpoints and metrics of earlier attempts stay: `spec.resume_from` names one of the former, and a step that is
    done again is logged again. spec.json comes last, so a directory with a spec is a directory with its rows.
    """
    job_dir.mkdir(parents=True, exist_ok=True)
    for name in (RESULT_FILE, CANCEL_FILE, HEARTBEAT_FILE):
        (job_dir / name).unlink(missing_ok=True)
    _write_rows(job_dir / TRAIN_FILE, train_rows)
    _write_rows(job_dir / EVAL_FILE, eval_rows)
    spec.write(job_dir)


def _write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def launch_command(job_dir: Path) -> list[str]:
    """The command that runs this job; the same for a supervisor and for a person at a terminal."""
    return [sys.executable, "-m", f"rlhf.training.{JobSpec.read(job_dir).method}", str(Path(job_dir).resolve())]


def start(job_dir: Path) -> subprocess.Popen[bytes]:
    """Start the job in a session of its own, with its output appended to stdout.log.

    The process is killed by the kernel when the thread that called this ends (PR_SET_PDEATHSIG), so that a supervisor
    that dies, in whatever way, leaves no trainer behind: call it from the thread that supervises.
    """
    command = launch_command(job_dir)
    with (job_dir / LOG_FILE).open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=PROJECT_ROOT,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def run_to_end(module: str, *arguments: str) -> str:
    """Run another module of the training side as a child process; gives what it wrote on stderr."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=PROJECT_ROOT, env=child_environment(), stderr=subprocess.PIPE, text=True)
    return done.stderr


def child_environment() -> dict[str, str]:
    """What a training process may know of this one's environment, and the settings it needs."""
    environment = {
        name: value for name, value in os.environ.items() if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }
    environment.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    # Spinning threads made a shared machine four times slower; sleeping ones cost nothing measurable when alone.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return environment | {PARENT_PID: str(os.getpid()), "PYTHONUNBUFFERED": "1"}


class MetricsTail:
    """Reads metrics.jsonl, or another file of lines, as it grows."""

    def __init__(self, job_dir: Path, offset: int = 0, name: str = METRICS_FILE) -> None:
        self.path = Path(job_dir) / name
        self.offset = offset
        """Bytes already read; always the start of a line. Another tail may go on from it, or again from 0."""

    def read_new(self) -> list[dict[str, Any]]:
        """The complete lines written since the last call; a half-written last line is left for the next one."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read()
        except FileNotFoundError:
            return []
        complete = data[: data.rfind(b"\n") + 1]
        self.offset += len(complete)
        rows = []
        for line in complete.splitlines():
            # A machine that lost power can leave a torn line in the middle of the file: the others still count.
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                if isinstance(row, dict):
                    rows.append(row)
        return rows


def request_cancel(job_dir: Path, mode: CancelMode) -> None:
    """Ask the process to stop at the next step, keeping what was learnt or discarding it."""
    draft = Path(job_dir) / f".{CANCEL_FILE}.{os.getpid()}.tmp"
    draft.write_text(mode)
    draft.replace(Path(job_dir) / CANCEL_FILE)


def terminate(process: subprocess.Popen[bytes], grace_seconds: float) -> int:
    """Stop the process and everything in its group; gives its exit code.

    SIGTERM lets it save a checkpoint at the next step and leave without a result (exit code 143), so that the job can
    go on elsewhere. What still lives after `grace_seconds` is killed.
    """
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_seconds)
    # Other ranks may outlive the first process; the group's id stays taken as long as any of them lives.
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            break
        if process.poll() is None:
            process.wait()
        else:
            time.sleep(0.02)
    return process.wait()
