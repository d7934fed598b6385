"""What on-policy methods are rewarded for: a reward model, a rule, or both with weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.model_directory import check_model_directory, model_kind
from rlhf.options import OnPolicyOptions, SpecError
from rlhf.rules import Rule, build_rule
from rlhf.token_lengths import check_same_template
from rlhf.training import models
from rlhf.training.job import Job
from rlhf.training.scoring import score_conversations

Messages = list[dict[str, str]]


@dataclass
class ModelReward:
    """Scores by a reward model that this job does not train."""

    weight: float
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    bf16: bool
    __name__ = "reward_model"  # by which TRL, too, names its metrics

    def to(self, device: torch.device) -> None:
        self.model.to(device)  # type: ignore[arg-type]

    def __call__(self, prompts: list[Messages], completions: list[Messages], **_: Any) -> list[float]:
        conversations = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
        return score_conversations(self.model, self.tokenizer, conversations, bf16=self.bf16)


@dataclass
class RuleReward:
    """Scores by a rule (rlhf/rules.py)."""

    weight: float
    rule: Rule
    special_ids: frozenset[int]
    __name__ = "rule"

    def to(self, device: torch.device) -> None:
        """A rule has no weights to move."""

    def __call__(self, completions: list[Messages], completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        return [
            self.rule(completion[-1]["content"], [token for token in ids if token not in self.special_ids])
            for completion, ids in zip(completions, completion_ids, strict=True)
        ]


Reward = ModelReward | RuleReward
"""Called as TRL calls its reward functions, so that every method takes the same ones."""


def load_rewards(job: Job, options: OnPolicyOptions, policy_tokenizer: PreTrainedTokenizerBase) -> list[Reward]:
    """What the options ask for, at least one. Raises SpecError for a reward model that cannot score this policy."""
    rewards: list[Reward] = []
    if options.reward_model:
        directory = Path(options.reward_model)
        check_model_directory(directory)
        if model_kind(directory) != "reward":
            raise SpecError(f"reward_model: {directory} writes text and scores nothing; name a trained reward model")
        check_same_template(job.base, directory)
        tokenizer = models.load_tokenizer(directory)
        model = models.load_reward_model(directory, tokenizer).eval().requires_grad_(False)
        rewards.append(ModelReward(options.reward_model_weight, model, tokenizer, options.bf16))
    if options.rule != "none":
        rule = build_rule(options.rule, options.rule_argument, len(policy_tokenizer))
        rewards.append(RuleReward(options.rule_weight, rule, frozenset(policy_tokenizer.all_special_ids)))
    return rewards
