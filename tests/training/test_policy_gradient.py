"""On-policy methods on a tiny model: they raise what they are paid for, and stop and go on like every other job."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf import launcher
from rlhf.jobspec import Result, check_manifest, complete_checkpoints
from rlhf.model_directory import model_kind
from tests.tiny_model import CHAT_TEMPLATE, build_tiny_model
from tests.training.conftest import JobRunner, losses_of, metrics_of, toy_rows

pytestmark = [pytest.mark.training, pytest.mark.slow]

OURS = ("ppo", "grpo_token_kl")
TRLS = ("grpo", "rloo")
METHODS = (*OURS, *TRLS)

# A dense reward that a trainer which works must raise within a few steps: see rlhf/rules.py.
TASK: dict[str, Any] = {
    "rule": "vocabulary_half",
    "rule_argument": "lower",
    "max_completion_tokens": 16,
    "use_lora": False,
}
SHORT: dict[str, Any] = {**TASK, "batch_size": 12, "micro_batch_size": 6, "max_completion_tokens": 8}


def rewards_of(job_dir: Path) -> list[float]:
    return [row["reward"] for row in metrics_of(job_dir) if "loss" in row]


def chosen_rows() -> list[dict[str, Any]]:
    return [{"prompt": row["prompt"], "completion": row["completion"]} for row in toy_rows("sft", 8)]


@pytest.mark.parametrize("method", [*OURS, *TRLS])
def test_each_method_raises_a_dense_reward(jobs: JobRunner, method: str) -> None:
    settings = {**TASK, "batch_size": 48, "micro_batch_size": 24, "learning_rate": 1e-2, "kl_coefficient": 0.005}
    job_dir = jobs.run("job", method, max_steps=10, scheduler="constant", **settings)
    rewards = rewards_of(job_dir)
    assert rewards[0] == pytest.approx(0.5, abs=0.08)
    assert sum(rewards[-3:]) / 3 > 0.56  # one step's mean is uncertain by 0.02 either way
    rows = [row for row in metrics_of(job_dir) if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 11))
    for row in rows:
        assert {
            "kl", "entropy", "reward_std", "rewards/rule/mean", "completions/mean_length", "completions/clipped_ratio",
            "clip_ratio/region_mean", "grad_norm", "learning_rate", "tokens_per_second", "peak_memory_gb",
        } <= set(row)  # fmt: skip
        assert row["kl"] < 10
    assert rows[0]["entropy"] == pytest.approx(6.2, abs=0.3)  # nearly uniform over 512 tokens
    result = Result.read(job_dir)
    assert result is not None
    assert result.metrics["eval_reward"] > 0.55
    assert model_kind(job_dir / "model") == "policy"


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("ppo", {"minibatches": 2, "update_epochs": 2}),
        ("grpo_token_kl", {"use_lora": True, "ptx_coefficient": 0.1, "ptx_batch_size": 6}),
        ("grpo", {}),
        ("rloo", {}),
    ],
    ids=["ppo", "grpo_token_kl-lora", "grpo", "rloo"],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    jobs: JobRunner, sigterm_after_step: Callable[[int], None], method: str, options: dict[str, Any]
) -> None:
    rows = [*toy_rows(method, 9), *(chosen_rows() if "ptx_coefficient" in options else [])]
    options = {**SHORT, **options, "max_steps": 4, "checkpoint_every_steps": 100}
    whole = jobs.run("whole", method, train_rows=rows, **options)

    stopped = jobs.prepare("stopped", method, train_rows=rows, **options)
    sigterm_after_step(2)
    assert jobs.execute(stopped) == 143
    [checkpoint] = complete_checkpoints(stopped)
    assert checkpoint in ("step-2", "step-3")
    check_manifest(stopped / "checkpoints" / checkpoint)

    jobs.run("stopped", method, train_rows=rows, resume_from=checkpoint, **options)
    assert [row["step"] for row in metrics_of(stopped) if "loss" in row] == [1, 2, 3, 4]
    assert losses_of(stopped) == losses_of(whole)
    assert rewards_of(stopped) == rewards_of(whole)
    weights = [(job_dir / "model" / "model.safetensors").read_bytes() for job_dir in (whole, stopped)]
    assert weights[0] == weights[1]


def test_an_adapters_checkpoint_holds_no_copy_of_the_base(jobs: JobRunner) -> None:
    job_dir = jobs.run("job", "grpo_token_kl", max_steps=1, **{**SHORT, "use_lora": True})
    from safetensors import safe_open

    with safe_open(job_dir / "checkpoints" / "step-1" / "model.safetensors", "np") as file:
        assert all("lora_" in name for name in file.keys())  # noqa: SIM118 - it is not a dictionary


@pytest.mark.parametrize("mode", ["keep", "discard"])
def test_cancelling_keeps_or_discards_what_was_learnt(jobs: JobRunner, mode: Any) -> None:
    job_dir = jobs.prepare("job", "ppo", max_steps=3, **SHORT)
    launcher.request_cancel(job_dir, mode)
    assert jobs.execute(job_dir) == 0
    result = Result.read(job_dir)
    assert result is not None
    assert (result.status, result.metrics["steps"]) == ("cancelled", 1)
    assert (job_dir / "model").exists() == (mode == "keep")
    assert complete_checkpoints(job_dir) == (["step-1"] if mode == "keep" else [])


def test_passes_and_minibatches_change_nothing_but_memory(jobs: JobRunner) -> None:
    """Samples, advantages and the gradient's sum do not depend on how rows are divided into passes."""
    runs = [jobs.run(f"micro-{rows}", "ppo", max_steps=2, **{**SHORT, "micro_batch_size": rows}) for rows in (12, 3)]
    losses = [losses_of(run) for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert rewards_of(runs[0]) == rewards_of(runs[1])


def test_a_larger_beta_takes_more_from_the_reward_and_keeps_nearer(jobs: JobRunner) -> None:
    settings = {**TASK, "batch_size": 48, "micro_batch_size": 24, "learning_rate": 1e-2, "max_steps": 10}
    near, far = (
        metrics_of(jobs.run(f"beta-{beta}", "ppo", kl_coefficient=beta, **settings))[-1] for beta in (0.5, 0.001)
    )
    assert near["eval_kl"] < far["eval_kl"] / 4
    assert near["eval_reward"] < far["eval_reward"]


def test_the_kl_on_chosen_responses_starts_at_zero_and_is_held_down(jobs: JobRunner) -> None:
    rows = [*toy_rows("ppo", 12), *chosen_rows()]
    settings = {
        **TASK, "batch_size": 24, "micro_batch_size": 8, "learning_rate": 1e-2, "max_steps": 6,
        "kl_coefficient": 0.0, "train_rows": rows, "eval_rows": [],
    }  # fmt: skip
    loose, tight = (
        [row["ptx_kl"] for row in metrics_of(jobs.run(f"gamma-{g}", "grpo_token_kl", ptx_coefficient=g, **settings))]
        for g in (1e-6, 10.0)
    )
    # the first optimizer step sees policy and reference equal
    assert loose[0] == tight[0] == pytest.approx(0, abs=1e-6)
    assert loose[-1] > 0.02
    assert tight[-1] < loose[-1] / 5


def test_a_reward_model_scores_what_was_sampled_and_adds_to_a_rule(jobs: JobRunner) -> None:
    reward_dir = jobs.run("reward", "reward", max_steps=3) / "model"
    options = {
        **SHORT,
        "reward_model": str(reward_dir),
        "reward_model_weight": 2.0,
        "rule_weight": 0.5,
        "max_steps": 1,
    }
    for method in ("ppo", "grpo"):
        [row] = [row for row in metrics_of(jobs.run(method, method, **options)) if "loss" in row]
        expected = 2 * row["rewards/reward_model/mean"] + 0.5 * row["rewards/rule/mean"]
        assert row["reward"] == pytest.approx(expected, abs=1e-5)


def test_a_single_conversation_scores_as_it_does_in_a_pair(jobs: JobRunner) -> None:
    from rlhf.training import models
    from rlhf.training.scoring import score_conversations, score_pairs

    directory = jobs.run("reward", "reward", max_steps=1) / "model"
    tokenizer = models.load_tokenizer(directory)
    model = models.load_reward_model(directory, tokenizer)
    pairs = [(row["prompt"] + row["chosen"], row["prompt"] + row["rejected"]) for row in toy_rows("dpo", 5)]
    singles = score_conversations(model, tokenizer, [side for pair in pairs for side in pair], bf16=False)
    in_pairs = score_pairs(model, tokenizer, pairs, bf16=False)
    assert singles == pytest.approx([score for pair in in_pairs for score in pair], abs=1e-5)


def refusal(jobs: JobRunner, **settings: Any) -> str:
    job_dir = jobs.prepare("job", **{"method": "ppo", **SHORT, "max_steps": 1, **settings})
    assert jobs.execute(job_dir) == 1
    result = Result.read(job_dir)
    assert result is not None
    assert (result.status, result.failure_class) == ("failed", "bad_data")
    return result.error


def test_what_cannot_reward_or_be_sampled_from_is_refused(jobs: JobRunner, base: Path, tmp_path: Path) -> None:
    assert "writes text and scores nothing" in refusal(jobs, reward_model=str(base))
    other = build_tiny_model(tmp_path / "other", chat_template=CHAT_TEMPLATE.replace("helpful", "terse"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForSequenceClassification"]}))
    assert "has another chat template" in refusal(jobs, reward_model=str(other))
    assert "is not a directory" in refusal(jobs, reward_model="no-such-model")
    assert "holds no prompt that leaves room for 500 tokens" in refusal(jobs, max_completion_tokens=500)
    assert "no chosen response" in refusal(jobs, ptx_coefficient=0.1, ptx_batch_size=6)
    too_few = toy_rows("grpo", 2)
    assert "samples from 3 prompts" in refusal(jobs, method="grpo", train_rows=too_few)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_reaches_nine_tenths(jobs: JobRunner, method: str) -> None:
    """benchmarks/on_policy.py shows it on three seeds."""
    settings = {**TASK, "batch_size": 48, "micro_batch_size": 24, "learning_rate": 1e-2, "kl_coefficient": 0.005}
    rewards = rewards_of(jobs.run("job", method, max_steps=40, scheduler="constant", **settings))
    assert rewards[0] == pytest.approx(0.5, abs=0.08)
    assert sum(rewards[-5:]) / 5 > 0.9
