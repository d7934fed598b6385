"""What an on-policy method takes from a snapshot: each prompt once, and the chosen responses if it wants them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from annotation.export import Kind, training_rows
from rlhf.models import DatasetSnapshot
from rlhf.options import OnPolicyOptions, PolicyGradientOptions
from rlhf.snapshots import snapshot_rows
from rlhf.token_lengths import TokenCounter


def usable_prompts(
    snapshot: DatasetSnapshot,
    split: str,
    counter: TokenCounter,
    options: OnPolicyOptions,
    report: dict[str, Any],
    observe: Callable[[dict[str, Any], dict[str, int], bool], None] = lambda _row, _lengths, _is_used: None,
) -> Iterator[dict[str, Any]]:
    """`{"id", "group", "prompt"}` of each prompt that leaves room for a completion, whatever was judged of it; then,
    for the KL on chosen responses, rows that have a `completion`, too. Fills `report` (see rows.empty_report)."""
    report |= {"repeated": 0, "chosen_used": 0}
    left_out: dict[str, list[int]] = report["left_out"]
    seen: set[bytes] = set()
    for row in snapshot_rows(snapshot, split):
        report["judged"] += 1
        digest = hashlib.sha256(json.dumps(row["prompt"]).encode()).digest()
        if digest in seen:
            report["repeated"] += 1
            continue
        seen.add(digest)
        try:
            tokens = counter.count(row["prompt"], for_completion=True) + options.max_completion_tokens
        except ValueError:  # the model's chat template refuses these roles
            report["refused"] += 1
            left_out.setdefault("refused", []).append(row["id"])
            continue
        observe(row, {"prompt": tokens}, tokens <= options.max_tokens)
        if tokens > options.max_tokens:
            report["too_long"] += 1
            left_out.setdefault("too_long", []).append(row["id"])
            continue
        report["used"] += 1
        report["longest_tokens"] = max(report["longest_tokens"], tokens)
        yield {"id": row["id"], "group": row["group"], "prompt": row["prompt"]}
    if split != "train" or not isinstance(options, PolicyGradientOptions) or not options.ptx_coefficient:
        return
    for row in training_rows(Kind.SFT, snapshot_rows(snapshot, split)):
        try:
            tokens = counter.count_row(row)
        except ValueError:
            report["refused"] += 1
            continue
        observe(row, {"completion": tokens}, tokens <= options.max_tokens)
        if tokens > options.max_tokens:
            report["too_long"] += 1
            continue
        report["chosen_used"] += 1
        yield {key: row[key] for key in ("id", "group", "prompt", "completion")}
