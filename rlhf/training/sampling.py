"""Completions sampled from a model in training, the same however the rows are spread over passes and processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from rlhf.training.padding import padded

# Two seeds that differ must not meet for any step or row of a run.
_SEED_STRIDE = 1_000_003


class RowNoise(LogitsProcessor):
    """Turns greedy decoding into sampling, with a random stream of its own for each row.

    argmax(logits / T + Gumbel noise) is a sample of softmax(logits / T) (Gumbel 1954). torch's own sampling draws for
    a whole batch from one stream, so that a row would depend on its neighbours and on the number of processes.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, device: torch.device) -> None:
        self.temperature = temperature
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores.float() / self.temperature  # (rows, V)
        noise = torch.empty_like(scores)
        for row, generator in zip(noise, self.generators, strict=True):
            row.exponential_(generator=generator)
        return scores - noise.log()


@dataclass
class Completions:
    """n completions; P prompt columns, padded left, and C completion columns, padded right."""

    ids: Tensor
    """(n, P + C)"""
    attention: Tensor
    """(n, P + C): 1 on tokens, 0 on padding."""
    mask: Tensor
    """(n, C): the part of `attention` for the completions, as floats."""
    truncated: Tensor
    """(n,): whether it was cut before the model ended its turn."""

    @property
    def tokens(self) -> Tensor:
        return self.ids[:, -self.mask.shape[1] :]  # (n, C)

    def token_lists(self) -> list[list[int]]:
        return [tokens[: int(count)].tolist() for tokens, count in zip(self.tokens, self.mask.sum(1), strict=True)]


@torch.no_grad()
def sample_completions(
    policy: Any,
    prompts: Sequence[Sequence[int]],
    *,
    width: int,
    max_completion_tokens: int,
    temperature: float,
    end_ids: Sequence[int],
    pad_id: int,
    seeds: Sequence[int],
) -> Completions:
    """One completion of each prompt (token ids), which are padded left to `width` columns.

    Nothing but the temperature shapes the distribution: a top-p or a repetition penalty would make the samples those
    of another model than the one whose probabilities the loss takes.
    """
    device = next(policy.parameters()).device
    ids, attention = padded(prompts, pad_id, side="left", width=width, device=device)
    generated = policy.generate(
        input_ids=ids,
        attention_mask=attention,
        generation_config=GenerationConfig(
            do_sample=False,
            max_new_tokens=max_completion_tokens,
            eos_token_id=list(end_ids),
            pad_token_id=pad_id,
            use_cache=True,
        ),
        logits_processor=LogitsProcessorList([RowNoise(seeds, temperature, device)]),
    )
    completions = torch.full((len(prompts), max_completion_tokens), pad_id, device=device)
    completions[:, : generated.shape[1] - width] = generated[:, width:]
    # Padding and end of turn may be one token: what counts goes up to the first one.
    ended = torch.isin(completions, torch.tensor(end_ids, device=device))  # (n, C)
    before_end = ended.long().cumsum(1) - ended.long() == 0
    return Completions(
        ids=torch.cat([ids, completions], 1),
        attention=torch.cat([attention, before_end.long()], 1),
        mask=before_end.float(),
        truncated=~ended.any(1),
    )


def row_seed(seed: int, stream: int, row: int) -> int:
    """The seed of one row of one step; streams below 0 are for held-out prompts."""
    return ((seed * _SEED_STRIDE + stream) * _SEED_STRIDE + row) % (1 << 63)


def end_of_turn_ids(policy: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end a turn, by the model's generation settings and by its tokenizer."""
    named = policy.generation_config.eos_token_id
    ids = named if isinstance(named, list) else [named]
    return sorted({token for token in [*ids, tokenizer.eos_token_id] if token is not None})
