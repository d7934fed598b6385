"""Look at a model before it is trained: `python -m rlhf.training.probe KIND MODEL_DIR CONVERSATIONS.json OUT.json`.

KIND is `policy` or `reward`. OUT: `{"weights": how many, "broken": name of a tensor with values that are not numbers,
or "", "difference": the largest difference between a conversation's score alone, padded and in reversed order}`.
A score is a reward model's own, or a language model's mean log-probability of a token; both in float32.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.jobspec import write_json_atomically
from rlhf.model_directory import check_model_directory, weight_files
from rlhf.options import SpecError
from rlhf.training.job import die_with_parent, set_environment

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Score = Callable[[list[list[int]]], list[float]]
"""Token ids of some conversations → a score each, run as one right-padded batch."""


def scan_weights(directory: Path) -> tuple[int, str]:
    """How many weights there are, and the name of the first tensor that holds NaN or infinity, or ""."""
    import torch
    from safetensors import safe_open

    count = 0
    for path in weight_files(directory):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                tensor = file.get_tensor(name)
                count += tensor.numel()
                if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                    return count, name
    return count, ""


def largest_difference(score: Score, conversations: Sequence[list[int]]) -> float:
    """How far scores move with what shares their batch: alone, all together, and all together the other way round."""
    alone = [score([ids])[0] for ids in conversations]
    together = score(list(conversations))
    reversed_order = score(list(reversed(conversations)))[::-1]
    return max(
        abs(one - other) for batch in (together, reversed_order) for one, other in zip(alone, batch, strict=True)
    )


def scorer(model: PreTrainedModel, pad_token_id: int) -> Score:
    """Scores as the trainers batch: padded on the right, padding masked."""
    import torch

    from rlhf.training.padding import padded

    @torch.no_grad()
    def score(batch: list[list[int]]) -> list[float]:
        input_ids, mask = padded(batch, pad_token_id, side="right")
        logits = model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits.float()
        if logits.dim() == 2:  # (rows, 1): a reward model
            return logits[:, 0].tolist()
        logps = logits[:, :-1].log_softmax(-1).gather(2, input_ids[:, 1:, None]).squeeze(2) * mask[:, 1:]
        return (logps.sum(1) / mask[:, 1:].sum(1)).tolist()

    return score


def probe(kind: str, directory: Path, conversations: list[list[dict[str, Any]]]) -> dict[str, Any]:
    check_model_directory(directory)
    weights, broken = scan_weights(directory)
    if broken:
        return {"weights": weights, "broken": broken, "difference": None}
    from transformers import set_seed

    from rlhf.training import models
    from rlhf.training.scoring import token_ids

    set_seed(0)  # a reward model's head may be drawn here
    tokenizer = models.load_tokenizer(directory)
    model = models.load_reward_model(directory, tokenizer) if kind == "reward" else models.load_policy(directory)
    model.eval()
    ids = [token_ids(tokenizer, conversation) for conversation in conversations]
    difference = largest_difference(scorer(model, tokenizer.pad_token_id), ids)
    return {"weights": weights, "broken": "", "difference": difference}


def main() -> int:
    die_with_parent()
    parser = argparse.ArgumentParser(prog="python -m rlhf.training.probe", description=__doc__)
    parser.add_argument("kind", choices=("policy", "reward"))
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("conversations", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    set_environment()
    try:
        found = probe(arguments.kind, arguments.model_dir, json.loads(arguments.conversations.read_text()))
    except SpecError as error:
        print(error, file=sys.stderr)
        return 1
    write_json_atomically(arguments.out, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
