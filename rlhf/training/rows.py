"""The rows of a job directory, as a training process uses them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.jobspec import CATEGORIES_FILE, EVAL_FILE, TRAIN_FILE, BadDataError
from rlhf.token_lengths import TokenCounter, UncountableRowError

if TYPE_CHECKING:
    from rlhf.training.job import Job

# What a row says of how people judged it: (smallest, largest).
_NUMBERS = {"p_chosen": (0.0, 1.0), "strength": (0.0, 10.0)}


@dataclass
class RowSet:
    """Rows of one file that fit, and how many do not."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    """Of the longest conversation in each row."""
    categories: list[str] = field(default_factory=list)
    """Of each row's prompt; "" where it has none."""
    too_long: int = 0
    cut: int = 0
    """Of the rows, those that lose their end."""

    def sort_by_length(self) -> None:
        """Neighbours of like length waste no padding where rows are read in order; the sampler shuffles on its own."""
        order = sorted(range(len(self.rows)), key=lambda index: self.tokens[index])
        self.rows = [self.rows[index] for index in order]
        self.tokens = [self.tokens[index] for index in order]
        self.categories = [self.categories[index] for index in order]


def read_data(job: Job, *sides: str, keep: tuple[str, ...] = (), known: tuple[str, ...] = ()) -> tuple[RowSet, RowSet]:
    """The job's training and held-out rows. Raises BadDataError."""
    counter = TokenCounter(job.base)
    categories = read_categories(job.directory)
    max_tokens = job.spec.options.max_tokens
    chosen = getattr(job.spec.options, "long_rows", "drop")
    # What is measured is measured whole.
    train, held_out = (
        read_rows(job.directory / name, sides, counter, max_tokens, keep, known, categories, long_rows)
        for name, long_rows in ((TRAIN_FILE, chosen), (EVAL_FILE, "drop" if chosen == "truncate" else chosen))
    )
    if not train.rows:
        raise BadDataError(
            f"{TRAIN_FILE} holds no row of at most {max_tokens} tokens ({train.too_long} longer ones were left out): "
            "raise max_tokens or choose other data"
        )
    job.heartbeat()
    return train, held_out


def read_rows(
    path: Path,
    sides: tuple[str, ...],
    counter: TokenCounter,
    max_tokens: int,
    keep: tuple[str, ...] = (),
    known: tuple[str, ...] = (),
    categories: Mapping[str, str] | None = None,
    long_rows: str = "drop",
) -> RowSet:
    """The rows of a JSONL file that fit into `max_tokens`, reduced to `prompt`, `sides` and `keep`, shortest first.

    What is `known` is kept where a row has it. `long_rows` is the option: those to be cut come whole, and whoever
    makes tokens of them cuts them; one whose prompt alone fills `max_tokens` is left out all the same.

    Further keys of a row ("id", "group" …) are kept away from the trainer. Raises BadDataError, naming the line.
    """
    kept = RowSet()
    for line_number, row in parsed_lines(path):
        for key in ("prompt", *sides):
            if not is_conversation(row.get(key)):
                raise BadDataError(
                    f"{path.name} line {line_number}: {key!r} is not a list of messages (role, content)"
                )
        if "chosen" in row and row["chosen"] == row["rejected"]:
            raise BadDataError(f"{path.name} line {line_number}: chosen and rejected are equal, which teaches nothing")
        for key in keep:
            if key not in row:
                raise BadDataError(f"{path.name} line {line_number}: {key!r} is missing")
            if key in _NUMBERS and not _is_between(row[key], *_NUMBERS[key]):
                smallest, largest = _NUMBERS[key]
                raise BadDataError(
                    f"{path.name} line {line_number}: {key} {row[key]!r} is not between {smallest:g} and {largest:g}"
                )
        category = (categories or {}).get(str(row.get("id")), "")
        found = [key for key in known if key in row and key not in keep]
        row = {key: row[key] for key in ("prompt", *sides, *keep, *found)}
        try:
            tokens = counter.count_row(row)
        except UncountableRowError as error:
            raise BadDataError(f"{path.name} line {line_number}: {error}") from None
        if tokens > max_tokens:
            if long_rows == "raise":
                raise BadDataError(
                    f"{path.name} line {line_number} has {tokens} tokens, and long_rows is raise: set max_tokens to as"
                    " much, or long_rows to drop or truncate"
                )
            if long_rows == "drop" or counter.count(row["prompt"], for_completion=True) >= max_tokens:
                kept.too_long += 1
                continue
            kept.cut += 1
        kept.rows.append(row)
        kept.tokens.append(min(tokens, max_tokens))
        kept.categories.append(category)
    kept.sort_by_length()
    return kept


def read_categories(directory: Path) -> dict[str, str]:
    """The category of each held-out row's prompt by the row's id. Raises BadDataError."""
    try:
        found = json.loads((directory / CATEGORIES_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BadDataError(f"{CATEGORIES_FILE} is not valid JSON: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(category, str) for category in found.values()):
        raise BadDataError(f"{CATEGORIES_FILE} does not hold one object that names a category by row")
    return found


def _is_between(value: Any, smallest: float, largest: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and smallest <= value <= largest


def parsed_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each line of a JSONL file. Raises BadDataError."""
    try:
        file = path.open(encoding="utf-8")
    except FileNotFoundError:
        raise BadDataError(f"{path} does not exist") from None
    with file:
        for line_number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise BadDataError(f"{path.name} line {line_number} is not valid JSON: {error}") from None
            if not isinstance(row, dict):
                raise BadDataError(f"{path.name} line {line_number} is not a JSON object")
            yield line_number, row


def is_conversation(value: Any) -> bool:
    """Whether this is a list of messages, each with a role and a content that are texts."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(message, dict)
            and isinstance(message.get("role"), str)
            and isinstance(message.get("content"), str)
            for message in value
        )
    )
