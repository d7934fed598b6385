"""The reward model's loss: Bradley–Terry, pulled to people's absolute scores where there are some.

Eq. 1 of the Baichuan Alignment report (arXiv 2410.14940):

    L = E[ −log σ(r_w − r_l) + α · ((r_w − r̂_w)² + (r_l − r̂_l)²) ]

with α = 0 for each response without a score. Ours beyond it: the share of votes instead of a certain verdict, a
margin, centred rewards, and heads that say what people would score each aspect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.nn import functional
from transformers import PreTrainedModel
from trl import RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference

from rlhf.options import RewardOptions


@dataclass
class RewardLoss:
    """A loss and its parts, each a scalar and a mean over pairs."""

    total: torch.Tensor
    pairwise: torch.Tensor
    score_error: torch.Tensor | None = None
    """Root of the mean squared distance to the scores that are known, over all heads; None where none is."""


def reward_loss(
    scores: torch.Tensor,
    *,
    p_chosen: torch.Tensor | None = None,
    margin: torch.Tensor | None = None,
    targets: torch.Tensor | None = None,
    score_weight: float = 0.0,
    center_coefficient: float = 0.0,
) -> RewardLoss:
    """The loss of B pairs.

    Args:
        scores: (2B, H), the chosen sides before the rejected; head 0 ranks, the others say an aspect each.
        p_chosen: (B,) share of people who preferred the chosen side; None takes every pair for certain.
        margin: (B,) how far the ranking scores should lie apart.
        targets: (2B, H) normalised absolute scores, NaN where there is none.
        score_weight: α.
        center_coefficient: of the mean of (r_w + r_l)² (Eisenstein et al. 2023).
    """
    chosen, rejected = scores[:, 0].chunk(2)  # (B,) each
    difference = chosen - rejected if margin is None else chosen - rejected - margin
    if p_chosen is None:
        pairwise = -functional.logsigmoid(difference).mean()
    else:
        pairwise = functional.binary_cross_entropy_with_logits(difference, p_chosen)
    loss = RewardLoss(total=pairwise, pairwise=pairwise.detach())
    if targets is not None and score_weight:
        known = ~targets.isnan()
        # A response without a score gives an error of 0, and a gradient of 0.
        errors = torch.where(known, scores - targets.nan_to_num(), 0.0) ** 2  # (2B, H)
        loss.total = loss.total + score_weight * errors.sum() / len(chosen)
        if known.any():
            loss.score_error = (errors.detach().sum() / known.sum()).sqrt()
    if center_coefficient:
        loss.total = loss.total + center_coefficient * ((chosen + rejected) ** 2).mean()
    return loss


@dataclass
class RewardCollator(DataCollatorForPreference):
    """TRL's, with what the loss needs beside the tokens: `p_chosen` (B,) and `targets` (2B, H)."""

    cut_at: int | None = None
    """Tokens of a side that are kept, from its start."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        sides = ("chosen_ids", "rejected_ids")
        examples = [example | {side: example[side][: self.cut_at] for side in sides} for example in examples]
        batch = super().torch_call(examples)
        if "p_chosen" in examples[0]:
            batch["p_chosen"] = torch.tensor([example["p_chosen"] for example in examples])
        if "chosen_targets" in examples[0]:
            targets = [example[f"{side}_targets"] for side in ("chosen", "rejected") for example in examples]
            batch["targets"] = torch.tensor(targets)
        return batch


class ScoredRewardTrainer(RewardTrainer):
    """TRL's RewardTrainer with the loss above; the batches, the pooling and the metrics' names are TRL's."""

    def __init__(self, *, model: PreTrainedModel, options: RewardOptions, **kwargs: Any) -> None:
        self.options = options
        # TRL refuses more outputs than one, for it takes the only one for the score.
        labels, model.config.id2label = model.config.id2label, {0: "preference"}
        super().__init__(model=model, **kwargs)
        model.config.id2label = labels

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns: Any = [
            "chosen_ids", "rejected_ids", "margin", "p_chosen", "chosen_targets", "rejected_targets",
        ]  # fmt: skip

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
        scores = outputs.logits  # (2B, H)
        loss = reward_loss(
            scores,
            p_chosen=inputs.get("p_chosen"),
            margin=inputs.get("margin"),
            targets=inputs.get("targets"),
            score_weight=self.options.score_weight,
            center_coefficient=self.options.center_rewards_coefficient,
        )
        self._note(scores.detach()[:, 0], inputs, loss)
        return (loss.total, outputs) if return_outputs else loss.total

    @torch.no_grad()
    def _note(self, ranking: torch.Tensor, inputs: dict[str, Any], loss: RewardLoss) -> None:
        mode = "train" if cast(PreTrainedModel, self.model).training else "eval"
        gather = self.accelerator.gather_for_metrics
        if mode == "train":
            self._total_train_tokens += gather(inputs["attention_mask"].sum()).sum().item()
        metrics = self._metrics[mode]
        metrics["num_tokens"] = [self._total_train_tokens]
        all_scores = self.accelerator.gather(ranking)
        metrics["min_reward"].append(all_scores.min().item())
        metrics["mean_reward"].append(all_scores.mean().item())
        metrics["max_reward"].append(all_scores.max().item())
        chosen, rejected = ranking.chunk(2)
        metrics["accuracy"].append(gather((chosen > rejected).float().mean()).mean().item())
        metrics["margin"].append(gather((chosen - rejected).mean()).mean().item())
        metrics["pairwise_loss"].append(gather(loss.pairwise).mean().item())
        if loss.score_error is not None:
            metrics["score_error"].append(loss.score_error.item())


def targets_of(normalised: dict[str, float | None] | None, aspects: Sequence[str], *, heads: bool) -> list[float]:
    """What each head should say of a response: the ranking head the mean over its aspects, the others one each."""
    given = normalised or {}
    values = [given.get(aspect) for aspect in aspects]
    known = [value for value in values if value is not None]
    mean = sum(known) / len(known) if known else float("nan")
    return [mean, *(float("nan") if value is None else value for value in values)] if heads else [mean]
