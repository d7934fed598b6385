"""Shares with the interval that their count allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from annotation.shares import Share

__all__ = ["Share", "held_out_accuracy"]


def held_out_accuracy(metrics: Mapping[str, Any]) -> Share | None:
    """How often a finished job's model put the chosen response first, on pairs it had not seen; None for others."""
    for name, count_name in (("eval_accuracy", "eval_pairs"), ("eval_rewards/accuracies", "eval_rows_used")):
        if metrics.get(name) is not None and metrics.get(count_name):
            count = int(metrics[count_name])
            return Share.of(metrics[name] * count, count)
    return None
