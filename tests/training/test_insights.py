"""What a run shows of itself: the first batch, the same prompts at every evaluation, the best and the worst rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf.jobspec import complete_checkpoints
from tests.training.conftest import JobRunner, losses_of, metrics_of, toy_rows

pytestmark = [pytest.mark.training, pytest.mark.slow]


def shown(job_dir: Path, kind: str) -> dict[int, dict[str, Any]]:
    lines = [json.loads(line) for line in (job_dir / "insights.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines if line["kind"] == kind}


def test_a_policy_answers_the_same_prompts_and_learns_nothing_from_it(jobs: JobRunner) -> None:
    settings = {"max_steps": 12, "eval_every_steps": 6, "beta": 0.2}
    plain = jobs.run("plain", "dpo", **settings)
    job_dir = jobs.run("shown", "dpo", **settings, sample_prompts=3, sample_tokens=12)
    assert losses_of(job_dir) == losses_of(plain)

    samples = shown(job_dir, "samples")
    assert list(samples) == [0, 6, 12]
    prompts = [[row["prompt"] for row in samples[step]["rows"]] for step in samples]
    assert prompts[0] == prompts[1] == prompts[2] == [row["prompt"] for row in toy_rows("dpo", 3, start=100)]
    assert samples[0]["rows"] != samples[12]["rows"]
    assert all(row["tokens"] <= 12 for step in samples for row in samples[step]["rows"])

    extremes = shown(job_dir, "extremes")
    assert list(extremes) == [0, 12]
    assert (extremes[12]["measure"], extremes[12]["counted"]) == ("margin", 7)
    best, worst = ([row["value"] for row in extremes[12][end]] for end in ("best", "worst"))
    assert (len(best), len(worst)) == (3, 4)
    assert best == sorted(best, reverse=True) and worst == sorted(worst) and worst[-1] <= best[-1]
    # Six of the seven rows at least, of which the trainer's own evaluation is the mean.
    measured = [row["eval_rewards/margins"] for row in metrics_of(job_dir) if "eval_rewards/margins" in row][-1]
    assert sum(best + worst) / 7 == pytest.approx(measured, rel=1e-3)


def test_the_first_batch_is_what_the_model_saw(jobs: JobRunner) -> None:
    job_dir = jobs.run("batch", "dpo", max_steps=1, batch_size=4, micro_batch_size=2)
    (batch,) = shown(job_dir, "first_batch").values()
    assert [row["side"] for row in batch["rows"]] == ["chosen", "chosen", "rejected", "rejected"]
    for row in batch["rows"]:
        text = "".join(text for text, _, _ in row["parts"])
        learnt = "".join(text for text, in_loss, _ in row["parts"] if in_loss)
        assert "<|im_start|>user\nWhat is the answer to question" in text
        assert ("Thank you" in learnt) == (row["side"] == "chosen")
        assert ("go away" in learnt) == (row["side"] == "rejected")
        assert "What is the answer" not in learnt
        assert 0 < row["in_loss"] < row["tokens"]
    assert max(row["tokens"] + row["padding"] for row in batch["rows"]) == min(
        row["tokens"] + row["padding"] for row in batch["rows"]
    )
    assert shown(job_dir, "hardware")[0]["processes"] == 1


def test_a_reward_model_scores_the_same_pairs(jobs: JobRunner) -> None:
    job_dir = jobs.run("reward", "reward", epochs=2, sample_prompts=3)
    samples = shown(job_dir, "samples")
    assert list(samples) == [0, 12]
    margins = {step: [a - b for a, b in (row["scores"] for row in samples[step]["rows"])] for step in samples}
    assert sum(margins[12]) > sum(margins[0])
    assert shown(job_dir, "extremes")[12]["measure"] == "margin"
    (batch,) = shown(job_dir, "first_batch").values()
    assert {row["in_loss"] for row in batch["rows"]} == {1}  # the score is read at the last token


def test_a_resumed_run_compares_with_the_model_that_it_began_from(jobs: JobRunner, sigterm_after_step: Any) -> None:
    settings: dict[str, Any] = {"max_steps": 8, "sample_prompts": 2, "sample_tokens": 8, "checkpoint_every_steps": 100}
    whole = jobs.run("whole", "kto", **settings)
    sigterm_after_step(5)
    job_dir = jobs.prepare("cut", "kto", **settings)
    assert jobs.execute(job_dir) == 143
    jobs.run("cut", "kto", **settings, resume_from=complete_checkpoints(job_dir)[-1])
    again, before = shown(job_dir, "extremes")[8], shown(whole, "extremes")[8]
    assert again["measure"] == "reward"
    assert [row["value"] for row in again["worst"]] == pytest.approx(
        [row["value"] for row in before["worst"]], abs=1e-4
    )
