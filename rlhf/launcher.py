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
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rlhf.hardware import hardware
from rlhf.jobspec import (
    CANCEL_FILE,
    EVAL_FILE,
    HEARTBEAT_FILE,
    LOG_FILE,
    METRICS_FILE,
    RESULT_FILE,
    STACKS_SIGNAL,
    TRAIN_FILE,
    CancelMode,
    JobSpec,
)
from rlhf.launch_commands import check_hardware, commands, write_launch_files
from rlhf.options import TrainingOptions, host_list
from rlhf.tied import PARENT_PID

_STACKS_SECONDS = 2
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
    write_launch_files(job_dir.resolve(), spec.options)
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


def launch_command(job_dir: Path, gpus: Sequence[int] | None = None) -> list[str]:
    """The command that runs this job; the same for a supervisor and for a person at a terminal."""
    return host_commands(job_dir, gpus)[0][1]


def host_commands(job_dir: Path, gpus: Sequence[int] | None = None) -> list[tuple[str, list[str]]]:
    """(host, command) of each machine that takes part in this job; this machine's is the first."""
    spec = JobSpec.read(job_dir)
    return commands(Path(job_dir).resolve(), spec.method, spec.options, gpus)


def start(job_dir: Path, gpus: Sequence[int] | None = None) -> subprocess.Popen[bytes]:
    """Start the job in a session of its own, with its output appended to stdout.log.

    `gpus` are the indices of the GPUs that it may see; None leaves that to the environment. Raises SpecError for
    options that this machine cannot run.

    The process is killed by the kernel when the thread that called this ends (PR_SET_PDEATHSIG), so that a supervisor
    that dies, in whatever way, leaves no trainer behind: call it from the thread that supervises.
    """
    options = JobSpec.read(job_dir).options
    check_hardware(options, len(hardware().gpus) if gpus is None else len(gpus))
    command = launch_command(job_dir, gpus)
    if options.launcher != "python":
        command = [sys.executable, "-m", "rlhf.tied", *command]
    with (job_dir / LOG_FILE).open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=PROJECT_ROOT,
            env=child_environment(options, gpus),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def run_to_end(module: str, *arguments: str, gpus: Sequence[int] | None = None) -> str:
    """Run another module of the training side as a child process; gives what it wrote on stderr."""
    command = [sys.executable, "-m", module, *arguments]
    environment = child_environment(gpus=gpus)
    done = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    return done.stderr


def child_environment(options: TrainingOptions | None = None, gpus: Sequence[int] | None = None) -> dict[str, str]:
    """What a training process may know of this one's environment, and the settings it needs."""
    environment = {
        name: value for name, value in os.environ.items() if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }
    processes = options.processes if options else 1
    environment.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // processes)))
    # Spinning threads made a shared machine four times slower; sleeping ones cost nothing measurable when alone.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if processes > 1 and options and not host_list(options):
        environment |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    if gpus is not None:
        visible = ",".join(str(index) for index in gpus)
        environment |= {"CUDA_VISIBLE_DEVICES": visible, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    # Programs of this environment, such as the ninja that DeepSpeed calls, wherever it was not activated.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    return environment | {PARENT_PID: str(os.getpid()), "PYTHONUNBUFFERED": "1"}


def write_stacks(process: subprocess.Popen[bytes]) -> None:
    """Have the job's training processes write to the log where they stand; whatever else it runs ends by this."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, STACKS_SIGNAL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STACKS_SECONDS)


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


def last_heartbeat(job_dir: Path) -> float:
    """When the process last gave a sign of life, by the file system's clock; 0 before the first."""
    try:
        return (job_dir / HEARTBEAT_FILE).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def request_cancel(job_dir: Path, mode: CancelMode) -> None:
    """Ask the process to stop at the next step: keeping what was learnt, discarding it, or to go on later."""
    draft = Path(job_dir) / f".{CANCEL_FILE}.{os.getpid()}.tmp"
    draft.write_text(mode)
    draft.replace(Path(job_dir) / CANCEL_FILE)


def interrupt(job_dir: Path, process: subprocess.Popen[bytes], grace_seconds: float) -> int:
    """Have a running job save a checkpoint and leave without a result; gives its exit code.

    Several processes are asked by the file: their launcher would answer a signal by killing them after 30 seconds.
    """
    if process.poll() is None and JobSpec.read(job_dir).options.launcher != "python":
        if not (job_dir / CANCEL_FILE).exists():
            request_cancel(job_dir, "pause")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_seconds)
    return terminate(process, grace_seconds)


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
