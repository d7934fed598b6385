"""Score responses with a reward model: `python -m rlhf.training.score MODEL_DIR ROWS.jsonl OUT.jsonl`.

Rows: `{"prompt": messages, "responses": [text, …]}`; further keys pass through. OUT holds the same rows in the same
order with `"scores": [float, …]`, or `"scores": null` and `"error"` where a row is longer than the model reads. A
model with heads for aspects adds `"aspects": {name: [float, …]}`, on the scale that people scored by. OUT appears when
it is whole.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from rlhf.jobspec import BadDataError, write_json_atomically
from rlhf.model_directory import check_model_directory, model_kind
from rlhf.options import SpecError
from rlhf.score_scales import invert
from rlhf.training.job import die_with_parent, set_environment
from rlhf.training.rows import is_conversation, parsed_lines


def score_file(model_dir: Path, rows_file: Path, out: Path, *, bf16: bool, probes: Path | None = None) -> int:
    """Score a file; gives the number of rows. Raises SpecError or BadDataError, and then leaves no OUT."""
    check_model_directory(model_dir)
    if model_kind(model_dir) != "reward":
        raise SpecError(f"{model_dir} is a language model; scores need a reward model")
    rows = []
    for line_number, row in parsed_lines(rows_file):
        responses = row.get("responses")
        if not is_conversation(row.get("prompt")) or not isinstance(responses, list) or not responses:
            raise BadDataError(f"{rows_file.name} line {line_number}: needs prompt (messages) and responses (texts)")
        if not all(isinstance(text, str) for text in responses):
            raise BadDataError(f"{rows_file.name} line {line_number}: a response is not a text")
        rows.append(row)
    found = _add_scores(model_dir, rows, bf16, with_probes=probes is not None)
    if probes is not None:
        write_json_atomically(probes, found)
    draft = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)
    return len(rows)


def _add_scores(model_dir: Path, rows: list[dict[str, Any]], bf16: bool, *, with_probes: bool) -> dict[str, Any]:
    """Gives what the probes find of the model, where they are asked for."""
    from rlhf.token_lengths import TokenCounter
    from rlhf.training import models
    from rlhf.training.reward_probes import probe_model
    from rlhf.training.scoring import Conversation, head_scores
    from rlhf.training.shared_prompt import share_prompts

    tokenizer = models.load_tokenizer(model_dir)
    model = models.load_reward_model(model_dir, tokenizer, with_aspects=True)
    scales = models.aspect_scales(model)
    share_prompts(model)
    counter = TokenCounter(model_dir)
    longest = model.config.max_position_embeddings
    pairs: list[tuple[Conversation, Conversation]] = []
    places: list[tuple[dict[str, Any], int]] = []
    for row in rows:
        sides = [[*row["prompt"], {"role": "assistant", "content": text}] for text in row["responses"]]
        tokens = max(map(counter.count, sides))
        if tokens > longest:
            row |= {"scores": None, "error": f"{tokens} tokens; the model reads at most {longest}"}
            continue
        row["scores"] = [0.0] * len(sides)
        # In twos; a response left over goes with itself, which costs nothing, because all of it is shared.
        for first in range(0, len(sides), 2):
            pairs.append((sides[first], sides[min(first + 1, len(sides) - 1)]))
            places.append((row, first))
    heads = head_scores(model, tokenizer, pairs, bf16=bf16)
    for (row, first), pair in zip(places, heads, strict=True):
        for place, values in enumerate(pair[: len(row["scores"]) - first], start=first):
            row["scores"][place] = values[0]
            for (aspect, scale), value in zip(scales.items(), values[1:], strict=False):
                row.setdefault("aspects", {}).setdefault(aspect, []).append(invert(value, scale))
    if not with_probes:
        return {}
    return probe_model(model, tokenizer, pairs, [(a[0], b[0]) for a, b in heads], bf16=bf16)


def main() -> int:
    die_with_parent()
    parser = argparse.ArgumentParser(prog="python -m rlhf.training.score", description=__doc__)
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--float32", action="store_true", help="slower; scores then repeat to six digits")
    parser.add_argument("--probes", type=Path, help="where to write what the model does with the same content twice")
    arguments = parser.parse_args()
    set_environment()
    try:
        count = score_file(
            arguments.model_dir,
            arguments.rows,
            arguments.out,
            bf16=not arguments.float32,
            probes=arguments.probes,
        )
    except (SpecError, BadDataError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{count} rows scored", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
