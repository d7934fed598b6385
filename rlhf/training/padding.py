"""Token sequences of unlike lengths as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor


def padded(
    sequences: Sequence[Sequence[int]],
    pad_id: int,
    *,
    side: Literal["left", "right"],
    width: int = 0,
    device: torch.device | None = None,
) -> tuple[Tensor, Tensor]:
    """Ids and attention (1 on tokens, 0 on padding), (rows, columns) each: `width` columns, or as the longest has."""
    columns = width or max(map(len, sequences))
    ids = torch.full((len(sequences), columns), pad_id, device=device)
    attention = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        start = columns - len(sequence) if side == "left" else 0
        ids[row, start : start + len(sequence)] = torch.tensor(sequence, device=device)
        attention[row, start : start + len(sequence)] = 1
    return ids, attention
