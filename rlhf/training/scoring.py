"""Scores of conversations under a reward model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Padded tokens in one forward pass; more gains nothing on a CPU and costs memory.
_TOKENS_PER_PASS = 4096


@torch.no_grad()
def score_conversations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: list[list[dict[str, Any]]],
    *,
    bf16: bool,
    on_pass: Callable[[], None] = lambda: None,
) -> list[float]:
    """One score per conversation (messages ending with the response), in order.

    Passes hold conversations of like length, longest first, so that memory runs out at once or never. With `bf16`
    (autocast) a score moves by about 0.01 with what shares its pass; without, by rounding only.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    ids = [_token_ids(tokenizer, messages) for messages in conversations]
    order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
    scores = [0.0] * len(ids)
    start = 0
    while start < len(order):
        longest = len(ids[order[start]])
        batch = order[start : start + max(1, _TOKENS_PER_PASS // longest)]
        # Right padding: the score is read at the last token that is not padding.
        input_ids = torch.full((len(batch), longest), tokenizer.pad_token_id, device=device)
        attention_mask = torch.zeros_like(input_ids)
        for row, index in enumerate(batch):
            input_ids[row, : len(ids[index])] = torch.tensor(ids[index], device=device)
            attention_mask[row, : len(ids[index])] = 1
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits  # (rows, 1)
        for index, score in zip(batch, logits.float().squeeze(-1).tolist(), strict=True):
            scores[index] = score
        start += len(batch)
        on_pass()
    model.train(was_training)
    return scores


def _token_ids(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]]) -> list[int]:
    ids: Any = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    return ids
