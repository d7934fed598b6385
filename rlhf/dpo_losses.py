"""The losses of DPO: what they are, how they mix, and which options mean nothing to them. Standard library only.

TRL takes some combinations and ignores a part of them in silence; here they are refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Loss = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip
Divergence = Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"]

_SMOOTHED = {"robust", "exo_pair", "aot", "aot_unpaired"}
# The others need β·log Z(x), which cancels in the difference of the two sides alone.
_OF_ANY_DIVERGENCE = {"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"}
_SORTED = {"aot", "aot_unpaired"}


def parse_mix(loss: str, mix: str, known: Sequence[str]) -> tuple[list[str], list[float]]:
    """The losses and their weights, the main one first with weight 1. Raises ValueError with the reason."""
    losses, weights = [loss], [1.0]
    for part in filter(None, (part.strip() for part in mix.split(","))):
        name, _, text = part.partition(":")
        name = name.strip()
        if name not in known:
            raise ValueError(f"{name!r} is not one of {', '.join(known)}")
        if name in losses:
            raise ValueError(f"{name} is there already")
        try:
            weight = float(text)
        except ValueError:
            weight = math.nan
        if not 0 < weight <= 100:
            raise ValueError(f"{part!r} is not a loss and its weight above 0, such as sft:0.2")
        losses.append(name)
        weights.append(weight)
    return losses, weights


def contradiction(
    losses: Sequence[str],
    *,
    label_smoothing: float,
    divergence: str,
    alpha: float,
    ld_alpha: float,
    wpo_weighting: bool,
    discopop_tau: float,
    micro_batch_size: int,
) -> str:
    """What makes no sense about these options, the name of one first; "" where all have an effect."""
    named = " and ".join(losses)
    if label_smoothing and not _SMOOTHED & set(losses):
        return f"label_smoothing has no effect on loss_type {named}: choose robust, exo_pair or aot, or 0"
    if "exo_pair" in losses and not label_smoothing:
        return "label_smoothing must be above 0 for loss_type exo_pair; 0.001 is usual"
    if divergence != "reverse_kl":
        if wrong := [loss for loss in losses if loss not in _OF_ANY_DIVERGENCE]:
            return f"f_divergence {divergence} is not defined for loss_type {wrong[0]}: choose reverse_kl"
        if losses == ["sft"]:
            return "f_divergence has no effect on loss_type sft alone: choose reverse_kl"
    if alpha != 0.5 and divergence != "alpha_divergence":
        return f"f_alpha has no effect on f_divergence {divergence}: choose alpha_divergence, or 0.5"
    if divergence == "alpha_divergence" and abs(alpha - 1) < 1e-6:
        return "f_alpha 1 is the limit that reverse_kl is: choose f_divergence reverse_kl"
    if ld_alpha != 1 and losses == ["sft"]:
        return "ld_alpha has no effect on loss_type sft alone: choose 1"
    if wpo_weighting and (wrong := [loss for loss in losses if loss in _SORTED | {"sft"}]):
        return f"wpo_weighting cannot be used with loss_type {wrong[0]}, which does not take rows one by one"
    if _SORTED & set(losses) and micro_batch_size < 2:
        return f"micro_batch_size must be at least 2: loss_type {named} sorts the rows of a micro-batch"
    if discopop_tau != 0.05 and "discopop" not in losses:
        return f"discopop_tau has no effect on loss_type {named}: choose discopop, or 0.05"
    return ""
