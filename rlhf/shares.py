"""Shares with the interval that their count allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlhf.evaluation.reward_card import wilson_interval


@dataclass(frozen=True)
class Share:
    """A share of `count` trials, with its 95 % interval; all three lie in 0 … 1."""

    value: float
    lower: float
    upper: float
    count: int

    @classmethod
    def of(cls, successes: float, count: int) -> Share | None:
        """None where there was no trial: the share is not defined. Half successes (ties) may be counted."""
        return cls(successes / count, *wilson_interval(successes, count), count) if count else None


def held_out_accuracy(metrics: Mapping[str, Any]) -> Share | None:
    """How often a finished job's model put the chosen response first, on pairs it had not seen; None for others."""
    for name, count_name in (("eval_accuracy", "eval_pairs"), ("eval_rewards/accuracies", "eval_rows_used")):
        if metrics.get(name) is not None and metrics.get(count_name):
            count = int(metrics[count_name])
            return Share.of(metrics[name] * count, count)
    return None
