"""Ulysses sequence parallelism (Jacobs et al. 2023), as DeepSpeed and accelerate bring it: what a trainer must add.

Each rank holds a stretch of every row; before attention an all-to-all gives it whole rows for a share of the heads,
and after it another gives the stretches back. So the ranks must divide the heads, and the length of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from accelerate.parallelism_config import ParallelismConfig
from accelerate.utils import DeepSpeedSequenceParallelConfig
from transformers import PretrainedConfig

from rlhf.options import SpecError

Batch = dict[str, Any]


def sequence_parallel_arguments(size: int, *, max_tokens: int, has_gpu: bool) -> dict[str, Any]:
    """TrainingArguments by which `size` ranks share each row."""
    longest = -(-max_tokens // size) * size
    handler = DeepSpeedSequenceParallelConfig(
        sp_seq_length_is_variable=True, sp_attn_implementation="flash_attention_2" if has_gpu else "sdpa"
    )
    config = ParallelismConfig(sp_backend="deepspeed", sp_size=size, sp_handler=handler)
    # DeepSpeed's loader gathers the batches of all ranks, and gloo gathers tensors of one size only.
    return {"parallelism_config": config, "pad_to_multiple_of": size if has_gpu else longest}


def check_heads(config: PretrainedConfig, size: int) -> None:
    """Raise SpecError where the ranks cannot share the model's attention heads equally."""
    heads = {config.num_attention_heads, getattr(config, "num_key_value_heads", None) or config.num_attention_heads}
    if any(count % size for count in heads):
        raise SpecError(
            f"sequence_parallel {size} does not divide this model's attention heads "
            f"({config.num_attention_heads}, and {min(heads)} for keys and values)"
        )


class WithPositions:
    """Around a collator: says of each token where it stands in its row, which a stretch alone would not tell."""

    def __init__(self, collate: Callable[[list[Any]], Batch]) -> None:
        self.collate = collate

    def __call__(self, rows: list[Any]) -> Batch:
        batch = dict(self.collate(rows))
        ids = batch["input_ids"]  # (rows, tokens)
        batch["position_ids"] = torch.arange(ids.size(1)).expand_as(ids).contiguous()
        return batch
