"""One gradient checkpoint for each k decoder layers: only a group's input is kept, and its layers run again backward.

The first layer of a group runs all of it under a checkpoint, and the others hand on what they get. Names of weights
stay as they are, so checkpoints, adapters and saved models are the same with and without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from rlhf.options import SpecError

Forward = Callable[..., torch.Tensor]


def checkpoint_layers(model: PreTrainedModel, size: int) -> None:
    """Group the decoder layers by `size`; 0 leaves the model alone. Raises SpecError where that changes its output."""
    if not size:
        return
    layers = getattr(model.base_model, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not _agrees(model, list(layers), size):
        raise SpecError(
            f"checkpoint_layers: {type(model).__name__} cannot be grouped; choose 0, or gradient_checkpointing"
        )
    _group(list(layers), size)


def _group(layers: list[nn.Module], size: int) -> None:
    for start in range(0, len(layers), size):
        first, *rest = layers[start : start + size]
        forwards: list[Forward] = [layer.forward for layer in (first, *rest)]
        first.forward = _run_group(forwards, first)
        for layer, forward in zip(rest, forwards[1:], strict=True):
            layer.forward = _hand_on(forward, first)


def _is_grouped(first: nn.Module) -> bool:
    """Whether activations are kept at all: not while generating, scoring or evaluating."""
    return first.training and torch.is_grad_enabled()


def _run_group(forwards: list[Forward], first: nn.Module) -> Forward:
    def forward(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not _is_grouped(first):
            return forwards[0](hidden, *args, **kwargs)

        def run(hidden: torch.Tensor) -> torch.Tensor:
            for layer_forward in forwards:
                hidden = layer_forward(hidden, *args, **kwargs)
            return hidden

        return checkpoint(run, hidden, use_reentrant=False)

    return forward


def _hand_on(original: Forward, first: nn.Module) -> Forward:
    def forward(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return hidden if _is_grouped(first) else original(hidden, *args, **kwargs)

    return forward


def _agrees(model: PreTrainedModel, layers: list[nn.Module], size: int) -> bool:
    """Whether grouped and plain give the same: not where layers are called with unlike masks or give more than one
    tensor. The layers are left as they were."""
    backbone: Any = model.base_model
    ids = torch.arange(1, 40, device=next(backbone.parameters()).device)[None]
    was_training = backbone.training
    try:
        with torch.no_grad():
            plain = backbone.eval()(ids, use_cache=False).last_hidden_state
        _group(layers, size)
        dropouts = [m for m in backbone.modules() if isinstance(m, nn.Dropout)]
        rates = [m.p for m in dropouts]
        for module in dropouts:
            module.p = 0.0
        grouped = backbone.train()(ids, use_cache=False).last_hidden_state
        for module, rate in zip(dropouts, rates, strict=True):
            module.p = rate
        return torch.allclose(grouped.detach(), plain, rtol=1e-4, atol=1e-4)
    except (RuntimeError, ValueError, TypeError, AttributeError):
        return False
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)
        backbone.train(was_training)
