"""Two gloo processes, started by the real launchers, train as one process does."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from rlhf import launcher
from rlhf.jobspec import Result, check_manifest, complete_checkpoints
from rlhf.model_directory import check_model_directory
from rlhf.options import SpecError
from tests.training.conftest import JobRunner, losses_of, metrics_of

pytestmark = [pytest.mark.training, pytest.mark.slow]

OPTIONS: dict[str, Any] = {"max_steps": 4, "checkpoint_every_steps": 100, "use_lora": False}
ON_POLICY: dict[str, Any] = {
    "rule": "vocabulary_half",
    "rule_argument": "lower",
    "max_completion_tokens": 8,
    "batch_size": 12,
    "micro_batch_size": 3,
}


def launch(jobs: JobRunner, name: str, method: str, *, pause: bool = False, **settings: Any) -> Path:
    """Run a job by its own launch command, as a supervisor does."""
    job_dir = jobs.prepare(name, method, **settings)
    if pause:
        launcher.request_cancel(job_dir, "pause")
    process = launcher.start(job_dir)
    process.wait(300)
    result = Result.read(job_dir)
    log = (job_dir / "stdout.log").read_text()
    assert pause == (result is None), log
    assert pause or (result is not None and result.status == "succeeded"), log
    return job_dir


def weights(job_dir: Path) -> dict[str, Any]:
    return weights_in(job_dir / "model")


def weights_in(directory: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(directory / "model.safetensors")


@pytest.mark.parametrize(
    ("method", "name", "zero_stage", "options"),
    [
        ("sft", "torchrun", 0, {}),
        ("dpo", "torchrun", 2, {}),
        ("reward", "torchrun", 3, {}),
        ("dpo", "accelerate", 3, {"use_lora": True}),
        ("reward", "deepspeed", 2, {}),
        ("ppo", "torchrun", 0, ON_POLICY),
        ("ppo", "torchrun", 2, ON_POLICY),
        ("grpo_token_kl", "torchrun", 3, {**ON_POLICY, "samples_per_prompt": 3}),
        ("grpo_token_kl", "accelerate", 2, {**ON_POLICY, "samples_per_prompt": 3, "use_lora": True}),
    ],
)
def test_two_processes_train_as_one_does(
    jobs: JobRunner, method: str, name: str, zero_stage: int, options: dict[str, Any]
) -> None:
    import torch

    options = {**OPTIONS, **options}
    one = jobs.run("one", method, **options)
    two = launch(jobs, "two", method, processes=2, launcher=name, zero_stage=zero_stage, **options)

    assert losses_of(two) == pytest.approx(losses_of(one), rel=1e-4)
    check_model_directory(two / "model")
    expected, found = weights(one), weights(two)
    assert expected.keys() == found.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-3, atol=1e-4, msg=key)
    if method == "reward":
        results = [Result.read(job_dir) for job_dir in (one, two)]
        assert results[0] and results[1]
        assert results[1].metrics["eval_accuracy"] == results[0].metrics["eval_accuracy"]


@pytest.mark.parametrize("method", ["kto", "grpo", "rloo"])
def test_methods_whose_batches_depend_on_the_processes_train_on_two(jobs: JobRunner, method: str) -> None:
    """Each process draws its own completions, or its own mismatched pairs: there are no equal losses to compare."""
    options = OPTIONS if method == "kto" else {**OPTIONS, **ON_POLICY, "samples_per_prompt": 3}
    two = launch(jobs, method, method, processes=2, launcher="torchrun", **{**options, "max_steps": 2})
    steps = [row for row in metrics_of(two) if "loss" in row]
    assert [row["step"] for row in steps] == [1, 2]
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in steps), steps
    if method != "kto":
        assert all(0 < row["reward"] < 1 for row in steps)
    check_model_directory(two / "model")
    before, after = weights_in(jobs.base), weights(two)
    assert any(not before[key].equal(after[key]) for key in before)


@pytest.mark.parametrize(("method", "zero_stage"), [("dpo", 3), ("reward", 2), ("ppo", 3)])
def test_two_processes_go_on_from_a_checkpoint_as_if_never_stopped(
    jobs: JobRunner, method: str, zero_stage: int
) -> None:
    own = ON_POLICY if method == "ppo" else {}
    one = jobs.run("one", method, **OPTIONS, **own)
    options = {**OPTIONS, **own, "processes": 2, "launcher": "torchrun", "zero_stage": zero_stage}
    two = launch(jobs, "two", method, pause=True, **options)
    assert complete_checkpoints(two) == ["step-1"]
    check_manifest(two / "checkpoints" / "step-1")
    assert not (two / "model").exists()

    launch(jobs, "two", method, resume_from="step-1", **options)
    assert losses_of(two) == pytest.approx(losses_of(one), rel=1e-4)


def test_two_processes_that_share_each_row_train_as_one_does(jobs: JobRunner) -> None:
    """Ulysses over gloo: DeepSpeed's own attention and data loader, with PyTorch's attention in the middle."""
    # Without accumulation: over several passes it averages by pass, where one process averages by token.
    options = {**OPTIONS, "batch_size": 2, "micro_batch_size": 2}
    one = jobs.run("one", "sft", **options)
    two = launch(jobs, "two", "sft", processes=2, launcher="torchrun", zero_stage=2, sequence_parallel=2, **options)
    assert losses_of(two) == pytest.approx(losses_of(one), rel=1e-3)


def test_heads_that_the_processes_cannot_share_are_named() -> None:
    from transformers import LlamaConfig

    from rlhf.training.sequence_parallel import check_heads

    config = LlamaConfig(num_attention_heads=4, num_key_value_heads=2)
    check_heads(config, 2)
    with pytest.raises(SpecError, match=r"4 does not divide this model's attention heads \(4, and 2 for keys"):
        check_heads(config, 4)


def test_what_fails_in_one_process_is_said_and_ends_both(jobs: JobRunner) -> None:
    job_dir = jobs.prepare("job", "sft", processes=2, launcher="torchrun", max_steps=1)
    (job_dir / "train.jsonl").write_text("{\n")
    process = launcher.start(job_dir)
    assert process.wait(120) != 0
    result = Result.read(job_dir)
    assert result is not None
    assert (result.status, result.failure_class) == ("failed", "bad_data")
    assert "train.jsonl line 1 is not valid JSON" in result.error
