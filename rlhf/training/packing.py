"""Packing: several short rows in one sequence, each of which sees itself alone.

TRL packs with positions that begin anew at each row, and no mask. FlashAttention cuts the sequence there; without it,
transformers builds the block-diagonal mask from the same positions, but only where no mask and no cache is passed.
So it depends on versions, on the architecture and on the kind of attention: `rows_are_isolated` looks.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel


@torch.no_grad()
def rows_are_isolated(model: PreTrainedModel) -> bool:
    """Whether two rows packed together give what each gives alone, as the trainer passes them."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    rows = [torch.arange(1, 13, device=device), torch.arange(5, 22, device=device)]
    try:
        alone = torch.cat([model(row[None], use_cache=False).logits[0] for row in rows])
        positions = torch.cat([torch.arange(len(row), device=device) for row in rows])[None]
        packed = model(torch.cat(rows)[None], position_ids=positions, use_cache=False).logits[0]
        return torch.allclose(packed, alone, rtol=1e-3, atol=1e-3)
    except (RuntimeError, ValueError, TypeError):
        return False
    finally:
        model.train(was_training)


class TokenUse:
    """How many of the tokens that the model computed were tokens of rows, and not padding."""

    def __init__(self) -> None:
        self.used = 0
        self.computed = 0

    def see(self, inputs: dict[str, Any]) -> None:
        """Count one batch; packed ones have no mask, for they have no padding."""
        mask = inputs.get("attention_mask")
        self.computed += inputs["input_ids"].numel()
        self.used += inputs["input_ids"].numel() if mask is None else int(mask.sum())

    @property
    def share(self) -> float:
        return self.used / self.computed if self.computed else 0.0


def unpacked_share(tokens: Sequence[int], batch_size: int, seed: int) -> float:
    """What `TokenUse.share` would be for these rows in batches of random order, each padded to its longest row."""
    order = list(tokens)
    random.Random(seed).shuffle(order)
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    computed = sum(len(batch) * max(batch) for batch in batches)
    return sum(order) / computed if computed else 0.0
