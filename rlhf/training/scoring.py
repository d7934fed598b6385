"""Scores of responses under a reward model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.training.padding import padded

# Padded tokens in one forward pass; more gains nothing on a CPU and costs memory.
_TOKENS_PER_PASS = 4096

Conversation = list[dict[str, Any]]
"""Messages, the response to be scored last."""


def score_pairs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[Conversation, Conversation]],
    *,
    bf16: bool,
    on_pass: Callable[[], None] = lambda: None,
) -> list[tuple[float, float]]:
    """The two ranking scores of each pair, in order; see `head_scores`."""
    return [(a[0], b[0]) for a, b in head_scores(model, tokenizer, pairs, bf16=bf16, on_pass=on_pass)]


def score_conversations(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation], *, bf16: bool
) -> list[float]:
    """The ranking score of each conversation, in order; see `head_scores`."""
    rows = [(conversation,) for conversation in conversations]
    return [sides[0][0] for sides in head_scores(model, tokenizer, rows, bf16=bf16)]


@torch.no_grad()
def head_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[tuple[Conversation, ...]],
    *,
    bf16: bool,
    on_pass: Callable[[], None] = lambda: None,
) -> list[list[list[float]]]:
    """What each head says of the sides of each row, in order: pairs, whose sides share the work on a common prompt, or
    single conversations.

    Passes hold pairs of like length, longest first, so that memory runs out at once or never. With `bf16` (autocast) a
    score moves by about 0.01 with what shares its pass; without, by rounding only.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    ids = [[token_ids(tokenizer, side) for side in row] for row in rows]
    lengths = [max(map(len, row)) for row in ids]
    order = sorted(range(len(ids)), key=lambda index: -lengths[index])
    scores: list[list[list[float]]] = [[] for _ in ids]
    sides = len(ids[0]) if ids else 0
    start = 0
    while start < len(order):
        longest = lengths[order[start]]
        batch = order[start : start + max(1, _TOKENS_PER_PASS // (sides * longest))]
        stacked = [ids[index][side] for side in range(sides) for index in batch]
        # Right padding: the score is read at the last token that is not padding.
        input_ids, attention_mask = padded(stacked, tokenizer.pad_token_id, side="right", device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits  # (rows, heads)
        of_sides = logits.float().view(sides, len(batch), -1).transpose(0, 1).tolist()  # (rows, sides, heads)
        for index, row_scores in zip(batch, of_sides, strict=True):
            scores[index] = row_scores
        start += len(batch)
        on_pass()
    model.train(was_training)
    return scores


def token_ids(tokenizer: PreTrainedTokenizerBase, messages: Conversation) -> list[int]:
    """What the model sees of a conversation, as in training."""
    ids: Any = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    return ids
