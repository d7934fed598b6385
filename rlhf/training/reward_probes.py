"""What a reward model does with the same content shown otherwise: alone, swapped, and said twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rlhf.training.scoring import Conversation, score_conversations, score_pairs, token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONSISTENCY_PAIRS = 8
PADDING_PAIRS = 32


def probe_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[Conversation, Conversation]],
    scores: Sequence[tuple[float, float]],
    *,
    bf16: bool,
    on_pass: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """`{"consistency", "padding"}` as rlhf.evaluation.reward_report reads them; `scores` are those of all `pairs`.

    consistency: the largest change of a score where its pair is scored alone and not in a padded batch, and where the
    sides are swapped. padding: how often, and by how much, a response scores higher when it is said twice.
    """
    chosen = _spread(len(pairs), CONSISTENCY_PAIRS)
    alone = swapped = 0.0
    for index in chosen:
        (again,) = score_pairs(model, tokenizer, [pairs[index]], bf16=bf16, on_pass=on_pass)
        alone = max(alone, *(abs(a - b) for a, b in zip(again, scores[index], strict=True)))
    turned = score_pairs(
        model, tokenizer, [(pairs[index][1], pairs[index][0]) for index in chosen], bf16=bf16, on_pass=on_pass
    )
    for index, (second, first) in zip(chosen, turned, strict=True):
        swapped = max(swapped, abs(first - scores[index][0]), abs(second - scores[index][1]))
    longest = model.config.max_position_embeddings
    padded: list[Conversation] = []
    before: list[float] = []
    for index in _spread(len(pairs), PADDING_PAIRS):
        for side, score in zip(pairs[index], scores[index], strict=True):
            said = side[-1]["content"]
            twice = [*side[:-1], {**side[-1], "content": f"{said}\n\n{said}"}]
            if said.strip() and len(token_ids(tokenizer, twice)) <= longest:
                padded.append(twice)
                before.append(score)
    after = score_conversations(model, tokenizer, padded, bf16=bf16) if padded else []
    shifts = [now - then for now, then in zip(after, before, strict=True)]
    return {
        "consistency": {"pairs": len(chosen), "alone": alone, "swapped": swapped},
        "padding": {
            "responses": len(shifts),
            "raised_share": sum(shift > 0 for shift in shifts) / len(shifts) if shifts else 0.0,
            "mean_shift": sum(shifts) / len(shifts) if shifts else 0.0,
        },
    }


def _spread(count: int, most: int) -> list[int]:
    """Up to `most` places spread evenly over `count`: rows are in order of length, and all lengths should occur."""
    return sorted({count * number // most for number in range(most)}) if count else []
