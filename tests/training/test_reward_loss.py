"""The reward model's loss against numbers worked out by hand, and what it does to a tiny model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf.jobspec import Result
from rlhf.score_scales import Scale, invert, measure, normalise, scales
from tests.training.conftest import JobRunner, Row, toy_rows

NAN = float("nan")


def log_sigmoid(value: float) -> float:
    return -math.log1p(math.exp(-value))


@pytest.mark.slow
@pytest.mark.training
def test_the_loss_is_the_sum_that_one_can_do_by_hand() -> None:
    import torch

    from rlhf.training.reward_loss import reward_loss

    scores = torch.tensor([[1.0], [0.5], [-1.0], [0.25]], requires_grad=True)  # chosen 1 and 0.5, rejected −1 and 0.25
    targets = torch.tensor([[2.0], [NAN], [0.0], [NAN]])  # nobody scored the second pair: its α is 0
    loss = reward_loss(scores, targets=targets, score_weight=0.3)
    plain = -(log_sigmoid(2.0) + log_sigmoid(0.25)) / 2
    assert loss.pairwise.item() == pytest.approx(plain, rel=1e-6)
    assert loss.total.item() == pytest.approx(plain + 0.3 * ((1 - 2) ** 2 + (-1 - 0) ** 2) / 2, rel=1e-6)
    assert loss.score_error is not None and loss.score_error.item() == pytest.approx(1.0)
    loss.total.backward()
    assert scores.grad is not None
    # of the unscored pair the gradient of −log σ(0.25) / 2 alone: ∓ σ(−0.25) / 2
    assert scores.grad[1].item() == pytest.approx(-1 / (1 + math.exp(0.25)) / 2, rel=1e-6)
    assert scores.grad[3].item() == pytest.approx(1 / (1 + math.exp(0.25)) / 2, rel=1e-6)


@pytest.mark.slow
@pytest.mark.training
def test_without_weight_or_without_any_score_it_is_bradley_terry_to_the_last_digit() -> None:
    import torch

    from rlhf.training.reward_loss import reward_loss

    scores = torch.randn(64, 1, generator=torch.Generator().manual_seed(1))
    chosen, rejected = scores[:, 0].chunk(2)
    plain = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
    assert reward_loss(scores, targets=torch.rand(64, 1), score_weight=0.0).total.equal(plain)
    nobody = torch.full((64, 1), NAN)
    assert reward_loss(scores, targets=nobody, score_weight=5.0).total.equal(plain)
    assert reward_loss(scores, p_chosen=torch.ones(32)).total.item() == pytest.approx(plain.item(), rel=1e-6)


@pytest.mark.slow
@pytest.mark.training
def test_shares_margins_centring_and_heads() -> None:
    import torch

    from rlhf.training.reward_loss import reward_loss

    scores = torch.tensor([[1.0, 3.0, 0.0], [-0.5, 1.0, 4.0]])
    shared = reward_loss(scores, p_chosen=torch.tensor([0.75])).total.item()
    assert shared == pytest.approx(-(0.75 * log_sigmoid(1.5) + 0.25 * log_sigmoid(-1.5)), rel=1e-6)
    apart = reward_loss(scores, margin=torch.tensor([2 / 3])).total.item()
    assert apart == pytest.approx(-log_sigmoid(1.5 - 2 / 3), rel=1e-6)
    centred = reward_loss(scores, center_coefficient=0.01).total.item()
    assert centred == pytest.approx(-log_sigmoid(1.5) + 0.01 * 0.5**2, rel=1e-6)
    targets = torch.tensor([[0.0, 2.0, NAN], [NAN, 1.5, 3.0]])
    heads = reward_loss(scores, targets=targets, score_weight=2.0).total.item()
    assert heads == pytest.approx(-log_sigmoid(1.5) + 2.0 * (1.0 + 1.0 + 0.25 + 1.0), rel=1e-6)
    # A tie has its least loss, ln 2, where the two scores are equal.
    level = torch.tensor([[0.7], [0.7]], requires_grad=True)
    tie = reward_loss(level, p_chosen=torch.tensor([0.5]))
    tie.total.backward()
    assert tie.total.item() == pytest.approx(math.log(2)) and level.grad is not None
    assert level.grad.abs().max().item() < 1e-9


@pytest.mark.parametrize("method", ["z_score", "min_max"])
def test_normalised_scores_have_a_way_back(method: str) -> None:
    given: list[dict[str, Any]] = [{"help": 1.0, "safe": 5.0}, {"help": 4.0, "safe": None}, {"help": 4.0, "safe": 5.0}]
    found = scales(measure(given), method)  # type: ignore[arg-type]
    once = [normalise(scores["help"], found["help"]) for scores in given]
    if method == "z_score":
        assert np.mean(once) == pytest.approx(0.0) and np.std(once) == pytest.approx(1.0)
    else:
        assert (min(once), max(once)) == (0.0, 1.0)
    assert [invert(value, found["help"]) for value in once] == pytest.approx([1.0, 4.0, 4.0])
    assert normalise(5.0, found["safe"]) == 0.0  # all the same: nothing to tell apart, and no division by 0


def scored_rows(count: int, start: int = 0) -> list[Row]:
    """Toy pairs of which polite answers got 0.9 for help and 0.6 for style and rude ones 0.1 and 0.5; one in three
    has no score."""
    rows = []
    for number, row in enumerate(toy_rows("reward", count, start=start)):
        high, low = ({"help": 0.9, "style": 0.6}, {"help": 0.1, "style": 0.5}) if number % 3 else (None, None)
        rows.append(row | {"chosen_normalised": high, "rejected_normalised": low})
    return rows


@pytest.mark.slow
@pytest.mark.training
def test_scores_come_to_lie_where_people_put_them_and_can_be_given_on_their_scale(
    jobs: JobRunner, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    from rlhf.training import models
    from rlhf.training.score import score_file
    from rlhf.training.scoring import head_scores
    from rlhf.training.shared_prompt import share_prompts

    stars = {"help": Scale(offset=1.0, width=4.0), "style": Scale(offset=0.0, width=10.0)}
    anchored = jobs.run(
        "anchored", "reward", train_rows=scored_rows(24), eval_rows=scored_rows(9, start=100), score_scales=stars,
        epochs=14, score_weight=4.0, aspect_heads=True, micro_batch_size=4,
    )  # fmt: skip
    result = Result.read(anchored)
    assert result is not None
    assert result.metrics["eval_accuracy"] == 1.0
    assert result.metrics["eval_score_error"] < 0.15

    # Four of five stars and more for polite answers, as people gave: 1 + 4 · 0.9.
    held_out = toy_rows("reward", 8, start=200)
    file, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    file.write_text(
        "".join(
            json.dumps({"prompt": r["prompt"], "responses": [r[s][0]["content"] for s in ("chosen", "rejected")]})
            + "\n"
            for r in held_out
        )
    )
    score_file(anchored / "model", file, out, bf16=False)
    scored = [json.loads(line) for line in out.read_text().splitlines()]
    means = {name: np.mean([row["aspects"][name] for row in scored], axis=0) for name in ("help", "style")}
    assert means["help"] == pytest.approx([4.6, 1.4], abs=0.6)
    assert means["style"] == pytest.approx([6.0, 5.0], abs=1.0)

    # A plain classifier has the score that ranks first; ours with one head and with all say the same, packed or not.
    tokenizer = models.load_tokenizer(anchored / "model")
    plain = AutoModelForSequenceClassification.from_pretrained(anchored / "model", dtype=torch.float32).eval()
    assert plain.config.id2label == {0: "preference", 1: "help", 2: "style"}
    one = models.load_reward_model(anchored / "model", tokenizer)
    assert one.config.num_labels == 1
    full = models.load_reward_model(anchored / "model", tokenizer, with_aspects=True)
    assert share_prompts(full)
    pairs = [(row["prompt"] + row["chosen"], row["prompt"] + row["rejected"]) for row in held_out]
    for model in (plain, full):
        for (got, _), row in zip(head_scores(model, tokenizer, pairs, bf16=False), scored, strict=True):
            assert got[0] == pytest.approx(row["scores"][0], abs=1e-4)
            assert got[1] == pytest.approx((row["aspects"]["help"][0] - 1) / 4, abs=1e-4)
    assert [pair[0] for pair in (a for a, _ in head_scores(one, tokenizer, pairs, bf16=False))] == pytest.approx(
        [row["scores"][0] for row in scored], abs=1e-4
    )


@pytest.mark.slow
@pytest.mark.training
def test_a_job_takes_shares_margins_and_lora_together_with_scores(jobs: JobRunner) -> None:
    rows = [row | {"p_chosen": 1.0 if number % 4 else 0.5} for number, row in enumerate(scored_rows(16))]
    stars = {"help": Scale(offset=1.0, width=4.0), "style": Scale(offset=0.0, width=10.0)}
    soft = jobs.run(
        "soft", "reward", train_rows=rows, eval_rows=rows[:4], score_scales=stars, soft_labels=True, use_ties=True,
        score_weight=0.1, aspect_heads=True, use_lora=True, max_steps=2,
    )  # fmt: skip
    from safetensors import safe_open

    with safe_open(soft / "model" / "model.safetensors", "np") as file:
        assert file.get_slice("score.weight").get_shape() == [3, 48]


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.parametrize(
    ("change", "options", "problem"),
    [
        ({"rejected": [{"role": "assistant", "content": "Same"}]}, {}, "line 2: chosen and rejected are equal"),
        ({"p_chosen": 1.5}, {"soft_labels": True}, "line 2: p_chosen 1.5 is not between 0 and 1"),
        ({}, {"soft_labels": True}, "line 2: 'p_chosen' is missing"),
        ({"strength": "much"}, {"margin_per_strength": 0.3}, "line 2: strength 'much' is not between 0 and 10"),
        (
            {"chosen_normalised": None, "rejected_normalised": {"help": None}},
            {"score_weight": 0.1},
            "No response in train.jsonl has an absolute score",
        ),
    ],
)
def test_rows_that_cannot_be_learnt_from_are_named(jobs: JobRunner, change: Row, options: Row, problem: str) -> None:
    good = toy_rows("reward", 1)[0] | {
        "p_chosen": 1.0, "strength": 1, "chosen_normalised": {}, "rejected_normalised": {},
    }  # fmt: skip
    bad = toy_rows("reward", 1)[0] | {"chosen": [{"role": "assistant", "content": "Same"}]} | change
    job_dir = jobs.prepare("bad", "reward", train_rows=[good, bad], eval_rows=[], **options)
    assert jobs.execute(job_dir) == 1
    result = Result.read(job_dir)
    assert result is not None and result.failure_class == "bad_data"
    assert problem in result.error
