"""However a run is stopped, what it leaves is whole, and the next run goes on as if nothing had happened."""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf import launcher
from rlhf.jobspec import Result, check_manifest, complete_checkpoints
from rlhf.model_directory import check_model_directory
from tests.test_launcher import wait_until
from tests.training.conftest import JobRunner, losses_of, metrics_of, toy_rows

pytestmark = [pytest.mark.training, pytest.mark.slow]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("sft", {}),
        ("reward", {}),
        ("dpo", {"use_lora": True}),
    ],
    ids=["sft", "reward", "dpo-lora"],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    jobs: JobRunner, sigterm_after_step: Callable[[int], None], method: str, options: dict[str, Any]
) -> None:
    # 10 rows in batches of 4: 3 steps an epoch, the last of them short; stopped in the middle of the second epoch
    rows = toy_rows(method, 10)
    options = {**options, "epochs": 2, "checkpoint_every_steps": 100}
    whole = jobs.run("whole", method, train_rows=rows, **options)

    stopped = jobs.prepare("stopped", method, train_rows=rows, **options)
    sigterm_after_step(4)
    assert jobs.execute(stopped) == 143
    assert Result.read(stopped) is None
    assert not (stopped / "model").exists()
    [checkpoint] = complete_checkpoints(stopped)

    jobs.run("stopped", method, train_rows=rows, resume_from=checkpoint, **options)
    assert [row["step"] for row in metrics_of(stopped) if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert losses_of(stopped) == losses_of(whole)
    weights = [(job_dir / "model" / "model.safetensors").read_bytes() for job_dir in (whole, stopped)]
    assert weights[0] == weights[1]


def test_a_run_that_goes_on_with_half_the_micro_batch_takes_the_same_steps(
    jobs: JobRunner, sigterm_after_step: Callable[[int], None]
) -> None:
    # Of very different lengths, so that rows are grouped; 7 batches an epoch, stopped in the middle of the first.
    rows = toy_rows("dpo", 28)
    options: dict[str, Any] = {"epochs": 1, "checkpoint_every_steps": 100, "batch_size": 4, "use_lora": False}
    whole = jobs.run("whole", "dpo", train_rows=rows, micro_batch_size=4, **options)

    halved = jobs.prepare("halved", "dpo", train_rows=rows, micro_batch_size=4, **options)
    for step, micro_batch_size in ((2, 2), (4, 1)):
        sigterm_after_step(step)
        assert jobs.execute(halved) == 143
        checkpoint = complete_checkpoints(halved)[-1]
        jobs.prepare(
            "halved", "dpo", train_rows=rows, resume_from=checkpoint, micro_batch_size=micro_batch_size, **options
        )
    assert jobs.execute(halved) == 0
    assert losses_of(halved) == pytest.approx(losses_of(whole), rel=1e-4)


def test_a_terminated_and_then_killed_job_goes_on_from_its_checkpoint(jobs: JobRunner) -> None:
    """The real child process: SIGTERM, resumed, kill -9, resumed."""
    options = {"max_steps": 40, "checkpoint_every_steps": 5, "use_lora": True}
    whole = losses_of(jobs.run("whole", "dpo", **options))

    job_dir = jobs.prepare("job", "dpo", **options)
    process = launcher.start(job_dir)
    wait_until(lambda: (job_dir / "metrics.jsonl").exists())
    assert launcher.terminate(process, grace_seconds=60) == 143
    assert Result.read(job_dir) is None
    stopped_at = metrics_of(job_dir)[-1]["step"]
    assert complete_checkpoints(job_dir)[-1] == f"step-{stopped_at}"

    jobs.prepare("job", "dpo", resume_from=f"step-{stopped_at}", **options)
    process = launcher.start(job_dir)
    wait_until(lambda: complete_checkpoints(job_dir)[-1] != f"step-{stopped_at}")
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert Result.read(job_dir) is None
    assert not (job_dir / "model").exists()
    with (job_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')  # as a kill in the middle of a write leaves it

    checkpoint = complete_checkpoints(job_dir)[-1]
    check_manifest(job_dir / "checkpoints" / checkpoint)
    jobs.run("job", "dpo", resume_from=checkpoint, **options)
    # The child may use another number of threads than this process, so the last digits may differ.
    assert losses_of(job_dir) == pytest.approx(whole, rel=1e-3)


def test_a_damaged_checkpoint_is_not_resumed_from(jobs: JobRunner) -> None:
    job_dir = jobs.run("job", "sft", max_steps=2, checkpoint_every_steps=1)
    with (job_dir / "checkpoints" / "step-1" / "optimizer.pt").open("r+b") as file:
        file.write(b"damaged")
    jobs.prepare("job", "sft", max_steps=2, resume_from="step-1")
    assert jobs.execute(job_dir) == 1
    result = Result.read(job_dir)
    assert result is not None
    assert "optimizer.pt is not the file that its manifest describes" in result.error


def test_cancel_and_keep_saves_what_was_learnt(jobs: JobRunner) -> None:
    job_dir = jobs.prepare("job", "dpo", epochs=2)
    launcher.request_cancel(job_dir, "keep")
    assert jobs.execute(job_dir) == 0
    result = Result.read(job_dir)
    assert result is not None
    assert result.status == "cancelled"
    assert result.metrics["steps"] == 1
    assert "eval_rewards/accuracies" in result.metrics
    assert complete_checkpoints(job_dir) == ["step-1"]
    check_model_directory(job_dir / "model")


def test_cancel_and_discard_leaves_no_model(jobs: JobRunner) -> None:
    job_dir = jobs.prepare("job", "reward", epochs=2)
    launcher.request_cancel(job_dir, "discard")
    assert jobs.execute(job_dir) == 0
    result = Result.read(job_dir)
    assert result is not None
    assert result.status == "cancelled"
    assert complete_checkpoints(job_dir) == []
    assert not (job_dir / "model").exists()


def test_a_finished_job_is_not_done_again(jobs: JobRunner) -> None:
    job_dir = jobs.prepare("job", "sft")
    Result(status="succeeded", metrics={"eval_loss": 1.0}).write(job_dir)
    assert jobs.execute(job_dir) == 0
    assert not (job_dir / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("train.jsonl", "", "train.jsonl holds no row of at most 512 tokens"),
        ("train.jsonl", "{\n", "train.jsonl line 1 is not valid JSON"),
        ("eval.jsonl", '{"prompt": "hello"}\n', "eval.jsonl line 1: 'prompt' is not a list of messages"),
        ("spec.json", '{"colour": 1}', "unknown key 'colour'"),
    ],
)
def test_files_that_cannot_be_used_are_named(jobs: JobRunner, file: str, text: str, words: str) -> None:
    job_dir = jobs.prepare("job", "sft")
    from rlhf.training import sft
    from rlhf.training.job import execute

    (job_dir / file).write_text(text)
    assert execute(job_dir, "sft", sft.train) == 1
    result = Result.read(job_dir)
    assert result is not None
    assert (result.status, result.failure_class) == ("failed", "bad_data")
    assert words in result.error


def test_a_reward_model_is_no_base_for_dpo(jobs: JobRunner) -> None:
    jobs.base = jobs.run("reward", "reward", max_steps=1) / "model"
    job_dir = jobs.prepare("job", "dpo")
    assert jobs.execute(job_dir) == 1
    result = Result.read(job_dir)
    assert result is not None
    assert "is a reward model; this method needs a language model" in result.error


def test_failures_are_told_apart(tmp_path: Path) -> None:
    import torch

    from rlhf.training.job import explain

    def failure(action: Callable[[], object]) -> tuple[str, str]:
        try:
            action()
        except Exception as error:
            return explain(error, tmp_path)
        pytest.fail("nothing failed")

    tensor = torch.zeros(1000)
    full = Path("/dev/full")  # every write to it fails for want of space
    for write in (
        lambda: full.write_text("x"),
        lambda: torch.save(tensor, full),
        lambda: torch.save(tensor, full, _use_new_zipfile_serialization=False),
    ):
        failure_class, sentence = failure(write)
        assert failure_class == "infrastructure", sentence
        assert f"The disk that holds {tmp_path} is full" in sentence
    assert failure(lambda: torch.empty(1 << 52))[0] == "out_of_memory"
    assert failure(lambda: bytearray(1 << 62))[0] == "out_of_memory"
    assert failure(lambda: [][0]) == (
        "unknown",
        "IndexError: list index out of range (the whole traceback is in the log)",
    )

    def wrapped() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("could not save") from error

    assert failure(wrapped)[0] == "infrastructure"
