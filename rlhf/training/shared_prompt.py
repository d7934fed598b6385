"""Run the prompt of a preference pair once, not once per side.

TRL stacks a batch as [chosen rows; rejected rows], and row i repeats the prompt of row i + n/2. On real multi-turn
data that is more than a third of all tokens. Here the backbone runs over one sequence per pair instead,

    ids      p p p p c c c r r r r        (common prefix, rest of the chosen, rest of the rejected)
    position 0 1 2 3 4 5 6 4 5 6 7

with an attention mask that hides the c's from the r's, and hands its hidden states back in the stacked shape. Every
token sees exactly what it saw before, so scores, log-probabilities and gradients are the same up to rounding.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

logger = logging.getLogger(__name__)

# Below this saving the larger attention mask costs more than the tokens that it spares.
_WORTHWHILE_SHARE_OF_TOKENS = 0.9


def share_prompts(model: PreTrainedModel) -> bool:
    """Make the model's backbone share prompts; False where the architecture does not allow it and nothing changed."""
    backbone: Any = model.base_model
    if model.config._attn_implementation != "sdpa":
        return False
    original_forward = backbone.forward

    def forward(
        input_ids: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> Any:
        pairs = Pairs.of(input_ids, attention_mask, kwargs)
        if pairs is None:
            return original_forward(input_ids, attention_mask=attention_mask, **kwargs)
        kwargs["position_ids"] = pairs.position_ids
        outputs = original_forward(pairs.input_ids, attention_mask=pairs.attention_mask, **kwargs)
        return BaseModelOutputWithPast(last_hidden_state=pairs.unpack(outputs.last_hidden_state))

    backbone.forward = forward
    if not _agrees(backbone, original_forward):
        backbone.forward = original_forward
        logger.info("%s cannot share prompts; each side runs on its own", type(backbone).__name__)
        return False
    return True


class Pairs:
    """A stacked batch, packed into one sequence per pair. B pairs, T tokens a row, S tokens a packed sequence."""

    def __init__(self, input_ids: torch.Tensor, mask: torch.Tensor) -> None:
        (first, second), (first_mask, second_mask) = input_ids.chunk(2), mask.bool().chunk(2)  # (B, T) each
        device = input_ids.device
        first_length, second_length = first_mask.sum(1, keepdim=True), second_mask.sum(1, keepdim=True)  # (B, 1)
        same = (first == second) & first_mask & second_mask
        prefix = same.long().cumprod(1).sum(1, keepdim=True)  # (B, 1)
        length = first_length + second_length - prefix
        step = torch.arange(int(length.max()), device=device).unsqueeze(0)  # (1, S)
        in_rest = step >= first_length  # what follows the first side whole: the second side's rest
        position = torch.where(in_rest, step - first_length + prefix, step)
        width = first.size(1)
        self.input_ids = torch.where(
            in_rest,
            second.gather(1, position.clamp(max=width - 1)),
            first.gather(1, step.expand_as(position).clamp(max=width - 1)),
        )
        self.position_ids = position.clamp(max=width - 1)
        causal = step.unsqueeze(2) >= step.unsqueeze(1)  # (1, S, S): query by key
        own_of_first = (step >= prefix) & (step < first_length)
        hidden = in_rest.unsqueeze(2) & own_of_first.unsqueeze(1)
        self.attention_mask = (causal & ~hidden).unsqueeze(1)  # (B, 1, S, S)
        # Where each token of the stacked batch stands in its packed sequence; padding may point anywhere.
        token = torch.arange(width, device=device).unsqueeze(0)  # (1, T)
        in_second = torch.where(token < prefix, token, token - prefix + first_length)
        self._places = torch.cat([token.expand_as(in_second), in_second]).clamp(max=step.size(1) - 1)  # (2B, T)

    @classmethod
    def of(
        cls, input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None, kwargs: dict[str, Any]
    ) -> Pairs | None:
        """The packed batch, or None where it is not a right-padded stack of pairs or packing would save little."""
        if input_ids is None or attention_mask is None or attention_mask.dim() != 2 or len(input_ids) % 2:
            return None
        if kwargs.get("past_key_values") is not None or kwargs.get("use_cache") or not attention_mask[:, 0].all():
            return None
        pairs = cls(input_ids, attention_mask)
        share = pairs.input_ids.numel() / input_ids.numel()
        return pairs if share <= _WORTHWHILE_SHARE_OF_TOKENS else None

    def unpack(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, S, hidden) → (2B, T, hidden)."""
        rows = torch.arange(len(hidden), device=hidden.device).repeat(2).unsqueeze(1)  # (2B, 1)
        return hidden[rows, self._places]


@torch.no_grad()
def _agrees(backbone: nn.Module, original_forward: Any) -> bool:
    """Whether packed and plain give the same hidden states: they do not with a recurrent or a windowed layer."""
    device = next(backbone.parameters()).device
    was_training = backbone.training
    backbone.eval()
    ids = torch.arange(1, 21, device=device).repeat(2, 1)
    ids[1, 12:] += 7
    mask = torch.ones_like(ids)
    mask[0, 17:] = 0
    try:
        packed = backbone(ids, attention_mask=mask, use_cache=False).last_hidden_state
        plain = original_forward(ids, attention_mask=mask, use_cache=False).last_hidden_state
        return torch.allclose(packed[mask.bool()], plain[mask.bool()], rtol=1e-3, atol=1e-3)
    except (RuntimeError, ValueError, TypeError):
        return False
    finally:
        backbone.train(was_training)
