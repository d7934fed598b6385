"""The rows of an on-policy job: prompts to sample from, and chosen responses for the KL on these.

`{"prompt": messages}` is a prompt; `{"prompt": messages, "completion": [assistant message]}` is a chosen response,
whose prompt is not sampled from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from rlhf.jobspec import EVAL_FILE, TRAIN_FILE, BadDataError
from rlhf.options import OnPolicyOptions
from rlhf.token_lengths import TokenCounter, UncountableRowError
from rlhf.training.job import Job
from rlhf.training.rows import RowSet, is_conversation, parsed_lines


@dataclass
class OnPolicyRows:
    """One file's rows, by what they are for."""

    prompts: RowSet = field(default_factory=RowSet)
    chosen: RowSet = field(default_factory=RowSet)


def read_prompts(job: Job, options: OnPolicyOptions) -> tuple[OnPolicyRows, OnPolicyRows]:
    """The job's training and held-out rows that fit into max_tokens. Raises BadDataError."""
    counter = TokenCounter(job.base)
    train, held_out = (_read_file(job.directory / name, counter, options) for name in (TRAIN_FILE, EVAL_FILE))
    if not train.prompts.rows:
        raise BadDataError(
            f"{TRAIN_FILE} holds no prompt that leaves room for {options.max_completion_tokens} tokens within "
            f"{options.max_tokens} ({train.prompts.too_long} longer ones were left out): raise max_tokens or lower "
            "max_completion_tokens"
        )
    job.heartbeat()
    return train, held_out


def _read_file(path: Path, counter: TokenCounter, options: OnPolicyOptions) -> OnPolicyRows:
    found = OnPolicyRows()
    for line_number, row in parsed_lines(path):
        is_chosen = "completion" in row
        for key in ("prompt", "completion") if is_chosen else ("prompt",):
            if not is_conversation(row.get(key)):
                raise BadDataError(
                    f"{path.name} line {line_number}: {key!r} is not a list of messages (role, content)"
                )
        try:
            if is_chosen:
                tokens = counter.count_row(row)
            else:
                tokens = counter.count(row["prompt"], for_completion=True) + options.max_completion_tokens
        except UncountableRowError as error:
            raise BadDataError(f"{path.name} line {line_number}: {error}") from None
        rows = found.chosen if is_chosen else found.prompts
        if tokens > options.max_tokens:
            rows.too_long += 1
        else:
            rows.rows.append({key: row[key] for key in ("prompt", "completion") if key in row})
            rows.tokens.append(tokens)
    return found


def endless_order(rows: int, start: int, count: int, seed: int) -> list[int]:
    """Entries start … start + count of an endless walk over all rows, newly shuffled each time around.

    It depends on nothing but its arguments, so that a resumed run goes on where the first one stopped.
    """
    order: list[int] = []
    while len(order) < count:
        around, position = divmod(start + len(order), rows)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + around)
        permutation = torch.randperm(rows, generator=generator).tolist()
        order += permutation[position : position + count - len(order)]
    return order
