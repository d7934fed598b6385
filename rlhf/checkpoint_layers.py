"""How many decoder layers one gradient checkpoint should span. Standard library only.

With one checkpoint for each k of L layers, a backward pass holds the input of each group, L/k hidden states, and the
activations of one group while it is computed again, k·n hidden states, where a layer keeps n. The sum k·n + L/k is
least at k = √(L/n) (Baichuan Alignment report, arXiv 2410.14940, section 2.2).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def activations_per_layer(config: Mapping[str, Any]) -> float:
    """n: what autograd keeps of one Llama-shaped layer, in hidden states.

    Counted from the graph: inputs and outputs of two norms (4), queries before and after their rotation (2), keys and
    values likewise (3 of their own width), the attention's output and its sum of weights (1), and four tensors of the
    feed-forward's width.
    """
    heads = config["num_attention_heads"]
    shared = (config.get("num_key_value_heads") or heads) / heads
    return 4 + 2 + 3 * shared + 1 + 4 * config["intermediate_size"] / config["hidden_size"]


@dataclass(frozen=True)
class Advice:
    layers: int
    """L"""
    kept: float
    """n"""
    best: float
    """√(L/n)"""
    size: int
    """The whole number of layers that costs least."""


def advice_for(directory: Path) -> Advice | None:
    """What to choose for the model in a directory; None where its config does not say enough."""
    try:
        config = json.loads((directory / "config.json").read_bytes())
        layers, kept = int(config["num_hidden_layers"]), activations_per_layer(config)
        return Advice(layers, kept, math.sqrt(layers / kept), advised_layers(config))
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return None


def advised_layers(config: Mapping[str, Any]) -> int:
    """√(L/n), as a whole number of layers that costs least; 1 for models of which the config does not say enough."""
    try:
        layers, kept = int(config["num_hidden_layers"]), activations_per_layer(config)
    except (KeyError, TypeError, ZeroDivisionError):
        return 1
    best = math.sqrt(layers / kept)
    return min((max(1, math.floor(best)), math.ceil(best)), key=lambda k: k * kept + layers / k)
