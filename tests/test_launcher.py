"""The seam without any training: what is written, what the child may see, how its metrics are read, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf import launcher
from rlhf.jobspec import JobSpec, Result
from rlhf.options import build_options


def spec(base: Path = Path("/nowhere")) -> JobSpec:
    return JobSpec(job_id=1, method="sft", base_model_dir=str(base), options=build_options("sft", {}))


def wait_until(condition: Callable[[], object], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not collected by its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_prepare_writes_everything_and_clears_the_end_of_an_earlier_attempt(tmp_path: Path) -> None:
    job_dir = tmp_path / "job"
    launcher.prepare(job_dir, spec(), iter([{"n": "žluť"}, {"n": 2}]), [])
    Result(status="failed", error="…").write(job_dir)
    launcher.request_cancel(job_dir, "keep")
    (job_dir / "metrics.jsonl").write_text('{"step": 1}\n')

    launcher.prepare(job_dir, spec(), [{"n": 3}], [{"n": 4}])
    assert [json.loads(line) for line in (job_dir / "train.jsonl").read_text().splitlines()] == [{"n": 3}]
    assert [json.loads(line) for line in (job_dir / "eval.jsonl").read_text().splitlines()] == [{"n": 4}]
    assert {path.name for path in job_dir.iterdir()} == {"spec.json", "train.jsonl", "eval.jsonl", "metrics.jsonl"}


def test_rows_that_fail_half_way_leave_no_job_directory_to_start(tmp_path: Path) -> None:
    def rows():  # type: ignore[no-untyped-def]
        yield {"n": 1}
        raise ValueError("the snapshot is gone")

    with pytest.raises(ValueError, match="the snapshot is gone"):
        launcher.prepare(tmp_path, spec(), rows(), [])
    assert list(tmp_path.iterdir()) == []


def test_the_command_can_be_typed_by_a_person(tmp_path: Path) -> None:
    launcher.prepare(tmp_path, spec(), [], [])
    assert launcher.launch_command(tmp_path) == [sys.executable, "-m", "rlhf.training.sft", str(tmp_path)]


def test_the_child_never_sees_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "DJANGO_SECRET_KEY", "CELERY_BROKER_URL", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    environment = launcher.child_environment()
    assert "hunter2" not in environment.values()
    assert environment["CUDA_VISIBLE_DEVICES"] == "3"
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment["PATH"].endswith(os.environ["PATH"])


def test_the_tail_gives_whole_lines_once(tmp_path: Path) -> None:
    tail = launcher.MetricsTail(tmp_path)
    assert tail.read_new() == []
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"st')
    assert tail.read_new() == [{"step": 1}, {"step": 2}]
    assert tail.read_new() == []
    with path.open("ab") as file:
        file.write(b'ep": 3}\n')
    assert tail.read_new() == [{"step": 3}]

    assert launcher.MetricsTail(tmp_path).read_new() == [{"step": 1}, {"step": 2}, {"step": 3}]
    assert launcher.MetricsTail(tmp_path, offset=tail.offset).read_new() == []


def test_the_tail_steps_over_a_torn_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n\x00\x00{"ste\n[1]\n{"step": 3}\n')
    assert launcher.MetricsTail(tmp_path).read_new() == [{"step": 1}, {"step": 3}]


def test_a_job_without_a_base_ends_with_a_sentence_and_without_torch(tmp_path: Path) -> None:
    launcher.prepare(tmp_path, spec(base=tmp_path / "missing"), [], [])
    process = launcher.start(tmp_path)
    assert process.wait(240) == 1
    result = Result.read(tmp_path)
    assert result is not None
    assert (result.status, result.failure_class) == ("failed", "bad_data")
    assert result.error == f"{tmp_path / 'missing'} is not a directory: name the directory of a model"
    assert "Traceback" in (tmp_path / "stdout.log").read_text()


def test_terminate_ends_the_whole_group(tmp_path: Path) -> None:
    # A child that ignores SIGTERM and has a child of its own, as a launcher of several ranks does.
    script = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(f'{{child.pid}}\\n'); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    pid_file = tmp_path / "pid"
    wait_until(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"))
    grandchild = int(pid_file.read_text())
    assert launcher.terminate(process, 0.2) == -signal.SIGKILL
    wait_until(lambda: not is_running(grandchild))
    assert launcher.terminate(process, 0.2) == -signal.SIGKILL  # once more does no harm


def test_a_trainer_dies_with_its_supervisor(tmp_path: Path) -> None:
    """The child waits for its base on a named pipe, so it is alive for as long as nobody kills it."""
    job_dir = tmp_path / "job"
    launcher.prepare(job_dir, spec(base=tmp_path), [], [])
    os.mkfifo(tmp_path / "config.json")
    script = (
        "import time; from pathlib import Path; from rlhf import launcher;"
        f"process = launcher.start(Path({str(job_dir)!r})); print(process.pid, flush=True); time.sleep(600)"
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=launcher.PROJECT_ROOT
    )
    assert supervisor.stdout is not None
    trainer = int(supervisor.stdout.readline())
    try:
        # Opening the pipe for writing succeeds as soon as the trainer has it open for reading: it has set itself up.
        writer = os.open(tmp_path / "config.json", os.O_WRONLY)
        assert is_running(trainer)
        supervisor.kill()
        supervisor.wait()
        wait_until(lambda: not is_running(trainer))
        os.close(writer)
    finally:
        supervisor.kill()
        supervisor.wait()
        supervisor.stdout.close()
