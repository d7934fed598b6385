"""One step's completions, scored, with what the policy and its reference said of them.

Shapes: N completions over all processes, B in one pass, P prompt and C completion columns, V tokens in the vocabulary.
Each process samples and looks at its share; then every process holds the whole Rollout, so that whatever is computed
from it is the same everywhere and does not depend on how many processes there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from trl.models.utils import unwrap_model_for_generation

from rlhf.options import PolicyGradientOptions
from rlhf.training.advantages import masked_mean
from rlhf.training.divergence import entropy, sampled_kl, token_log_probs, top_k_kl
from rlhf.training.job import Job
from rlhf.training.rewards import Messages, Reward
from rlhf.training.sampling import Completions, row_seed, sample_completions


class ActorCritic(nn.Module):
    """A language model and, for PPO, a value head on its last states: one module, so that one engine wraps it."""

    is_gradient_checkpointing = False  # TRL asks before it samples; checkpointing is off outside of training anyway

    def __init__(self, policy: Any, *, with_value_head: bool) -> None:
        super().__init__()
        self.policy = policy
        self.config = policy.config
        self.value_head = nn.Linear(policy.config.hidden_size, 1) if with_value_head else None
        if self.value_head is not None:
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)

    @property
    def generation_config(self) -> Any:
        return self.policy.generation_config

    def generate(self, **given: Any) -> Any:
        return self.policy.generate(**given)

    def forward(self, ids: Tensor, attention: Tensor, kept: int) -> tuple[Tensor, Tensor | None]:
        """Logits (B, kept, V) of the last `kept` tokens, and values (B, kept) of the states before each of them."""
        output = self.policy(
            input_ids=ids,
            attention_mask=attention,
            position_ids=(attention.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
            logits_to_keep=kept + 1,
            output_hidden_states=self.value_head is not None,
        )
        logits = output.logits[:, :-1]
        if self.value_head is None:
            return logits, None
        states = output.hidden_states[-1][:, -kept - 1 : -1]  # (B, kept, hidden)
        with torch.autocast(states.device.type, enabled=False):  # two values 1 % apart are one in bfloat16
            return logits, self.value_head(states.float()).squeeze(-1)


@dataclass
class Prompt:
    messages: Messages
    ids: list[int]
    """With what opens the model's turn."""


@dataclass
class Rollout(Completions):
    """What one step sampled and what was said of it then; every tensor is on every process."""

    scores: Tensor
    """(N, rewards), before weights."""
    log_probs: Tensor
    """(N, C), as are those below."""
    ref_log_probs: Tensor
    kl: Tensor
    entropy: Tensor
    values: Tensor
    """0 without a critic."""

    def as_batch(self) -> dict[str, Tensor]:
        """Under the names of TRL's rollouts."""
        prompt_columns = self.ids.shape[1] - self.mask.shape[1]
        return {
            "prompt_ids": self.ids[:, :prompt_columns],
            "prompt_mask": self.attention[:, :prompt_columns],
            "completion_ids": self.tokens,
            "completion_mask": self.mask.long(),
        }


@dataclass
class Roller:
    """Makes rollouts with a policy that is being trained."""

    job: Job
    options: PolicyGradientOptions
    accelerator: Accelerator
    model: Any
    """The prepared ActorCritic."""
    reference: Any
    """Another one; None where the reference is the policy with its adapter switched off."""
    tokenizer: PreTrainedTokenizerBase
    end_ids: list[int]
    rewards: list[Reward]

    @torch.no_grad()
    def roll(self, prompts: list[Prompt], stream: int) -> Rollout:
        """One completion of each prompt. What is drawn depends on the seed, the stream and the row alone."""
        options = self.options
        share = math.ceil(len(prompts) / self.job.world_size)
        start = self.accelerator.process_index * share
        rows = [min(start + position, len(prompts) - 1) for position in range(share)]  # the last one fills up
        mine = [prompts[row] for row in rows]
        self.model.eval()
        with unwrap_model_for_generation(self.model, self.accelerator) as unwrapped, self.accelerator.autocast():
            sampled = sample_completions(
                unwrapped,
                [prompt.ids for prompt in mine],
                width=max(len(prompt.ids) for prompt in prompts),
                max_completion_tokens=options.max_completion_tokens,
                temperature=options.temperature,
                end_ids=self.end_ids,
                pad_id=self.tokenizer.pad_token_id,
                seeds=[row_seed(options.seed, stream, row) for row in rows],
            )
        self.job.heartbeat()
        local = {**vars(sampled), "scores": self._scores(mine, sampled), **self._look_at_all(sampled)}
        return Rollout(**{name: self.accelerator.gather(value)[: len(prompts)] for name, value in local.items()})

    def _scores(self, prompts: list[Prompt], sampled: Completions) -> Tensor:
        """(n, rewards)"""
        ids = sampled.token_lists()
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        by_reward = [
            reward(
                prompts=[prompt.messages for prompt in prompts],
                completions=[[{"role": "assistant", "content": text}] for text in texts],
                completion_ids=ids,
            )
            for reward in self.rewards
        ]
        self.job.heartbeat()
        return torch.tensor(by_reward, device=sampled.ids.device).T

    def _look_at_all(self, sampled: Completions) -> dict[str, Tensor]:
        looks = [self._look(sampled, part) for part in parts(range(len(sampled.ids)), self.options.micro_batch_size)]
        return {name: torch.cat([look[name] for look in looks]) for name in looks[0]}

    def _look(self, sampled: Completions, rows: list[int]) -> dict[str, Tensor]:
        """What policy and reference say of these rows, (B, C) each."""
        ids, attention, tokens, mask = trimmed(sampled, rows)
        kept = tokens.shape[1]
        logits, values = self.model(ids, attention, kept)
        logits, ref_logits = (
            value / self.options.temperature for value in (logits, self.reference_logits(ids, attention, kept))
        )
        log_probs, ref_log_probs = token_log_probs(logits, tokens), token_log_probs(ref_logits, tokens)
        if self.options.kl_estimator == "top_k":
            kl = top_k_kl(logits, ref_logits, self.options.kl_top_k)
        else:
            kl = sampled_kl(log_probs, ref_log_probs, self.options.kl_estimator)
        looked = {
            "log_probs": log_probs,
            "ref_log_probs": ref_log_probs,
            "kl": kl,
            "entropy": entropy(logits),
            "values": torch.zeros_like(log_probs) if values is None else values,
        }
        self.job.heartbeat()
        cut_off = sampled.mask.shape[1] - kept
        return {name: nn.functional.pad(value * mask, (0, cut_off)) for name, value in looked.items()}

    @torch.no_grad()
    def reference_logits(self, ids: Tensor, attention: Tensor, kept: int) -> Tensor:
        """(B, kept, V)"""
        with self.accelerator.autocast():
            if self.reference is not None:
                return self.reference(ids, attention, kept)[0].float()
            with self.accelerator.unwrap_model(self.model).policy.disable_adapter():
                return self.model(ids, attention, kept)[0].float()

    def total(self, rollout: Rollout) -> Tensor:
        """The weighted sum of the rewards, (N,)."""
        return rollout.scores @ torch.tensor([reward.weight for reward in self.rewards], device=rollout.scores.device)

    def judged(self, prompts: Sequence[Prompt], rollout: Rollout) -> list[tuple[Messages, str, int, float]]:
        """Prompt, text, tokens and total reward of each completion."""
        ids, totals = rollout.token_lists(), self.total(rollout).tolist()
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [
            (prompt.messages, text, len(tokens), total)
            for prompt, text, tokens, total in zip(prompts, texts, ids, totals, strict=True)
        ]

    def describe(self, rollout: Rollout) -> dict[str, float]:
        """Metrics, under TRL's names where it has one so that methods can be compared.

        `kl` is a mean over tokens by k3, whatever the estimator of the penalty is; kl_penalty and objective are means
        over completions.
        """
        total, lengths = self.total(rollout), rollout.mask.sum(1)
        penalty = self.options.kl_coefficient * (rollout.kl * rollout.mask).sum(1)
        k3 = sampled_kl(rollout.log_probs, rollout.ref_log_probs, "k3")
        described = {
            "reward": total.mean(),
            "reward_std": total.std(correction=0),
            "kl": masked_mean(k3, rollout.mask),
            "kl_penalty": penalty.mean(),
            "objective": (total - penalty).mean(),
            "entropy": masked_mean(rollout.entropy, rollout.mask),
            "completions/mean_length": lengths.mean(),
            "completions/max_length": lengths.max(),
            "completions/clipped_ratio": rollout.truncated.float().mean(),
        }
        for reward, scores in zip(self.rewards, rollout.scores.T, strict=True):
            described[f"rewards/{reward.__name__}/mean"] = scores.mean()
        return {name: value.item() for name, value in described.items()}


def trimmed(sampled: Completions, rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """These rows' ids, attention, completion tokens and mask, without the columns in which all of them are padded."""
    attention, mask = sampled.attention[rows], sampled.mask[rows]
    prompt_columns = attention.shape[1] - mask.shape[1]
    kept = int(mask.sum(1).max())
    first = int(attention[:, :prompt_columns].any(0).int().argmax())
    columns = slice(first, prompt_columns + kept)
    return sampled.ids[rows][:, columns], attention[:, columns], sampled.tokens[rows][:, :kept], mask[:, :kept]


def parts(items: Sequence[Any], size: int) -> list[list[Any]]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]
