"""How long the rows are, side by side, and three of them token by token."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from annotation.export import Kind, training_rows
from rlhf.models import DatasetSnapshot
from rlhf.preflight.findings import Finding, by_share, learns_from_pairs, passed
from rlhf.preflight.rows import Lengths, Row
from rlhf.snapshots import snapshot_rows
from rlhf.token_lengths import Token, TokenCounter, Trained

BINS = 32
_BOUNDARIES_CHECKED = 200
_BOUNDARIES_BLOCK_ABOVE = 0.05
# A long row in the middle of its page hides what the page is for.
_TOKENS_SHOWN = 400


class LengthCounts:
    """Tokens of each side over the rows of both splits, too long ones included."""

    def __init__(self, counter: TokenCounter, max_tokens: int) -> None:
        self._counter = counter
        self._max_tokens = max_tokens
        self._counts: dict[str, Counter[int]] = {}
        self._used: list[tuple[int, int]] = []
        """(tokens of the longest side, comparison) of the rows that are trained on."""
        self._boundaries = 0
        self._moved_boundaries: list[int] = []

    def add(self, split: str, row: Row, lengths: Lengths, *, is_used: bool) -> None:
        for side, tokens in lengths.items():
            self._counts.setdefault(side, Counter())[tokens] += 1
        if split != "train" or not is_used:
            return
        self._used.append((min(max(lengths.values()), self._max_tokens), row["id"]))
        if self._boundaries < _BOUNDARIES_CHECKED and "prompt" not in lengths:
            self._boundaries += 1
            side = "completion" if "completion" in row else "chosen"
            if not self._counter.learnt_from(row["prompt"], row[side]).prompt_is_prefix:
                self._moved_boundaries.append(row["id"])

    def histogram(self) -> dict[str, Any]:
        """`{"width": tokens a bar, "window": max_tokens, "sides": {side: {"bars": […], "median": …, …}}}`."""
        longest = max((max(counts) for counts in self._counts.values()), default=1)
        width = max(1, math.ceil((max(longest, self._max_tokens) + 1) / BINS))
        return {
            "width": width,
            "window": self._max_tokens,
            "sides": {side: _summary(counts, width) for side, counts in self._counts.items()},
        }

    def sample_ids(self) -> list[int]:
        """The comparisons of a short, a middling and the longest row that is trained on."""
        ordered = sorted(self._used)
        places = sorted({0, len(ordered) // 2, len(ordered) - 1}) if ordered else []
        return list(dict.fromkeys(ordered[place][1] for place in places))

    def check(self, method: str) -> Iterator[Finding]:
        if method == "reward" or not self._boundaries:
            return
        if moved := self._moved_boundaries:
            yield by_share("boundary_moves", len(moved), self._boundaries, _BOUNDARIES_BLOCK_ABOVE, examples=moved[:3])
        else:
            yield passed("boundary", count=self._boundaries)


def _summary(counts: Counter[int], width: int) -> dict[str, Any]:
    bars = [0] * BINS
    for tokens, count in counts.items():
        bars[min(BINS - 1, tokens // width)] += count
    lengths = sorted(counts)
    below, running = [], 0
    for tokens in lengths:
        running += counts[tokens]
        below.append(running)
    return {
        "bars": bars,
        "median": lengths[bisect_left(below, running / 2)],
        "p95": lengths[bisect_left(below, running * 0.95)],
        "longest": lengths[-1],
    }


@dataclass(frozen=True)
class SampleSide:
    """One conversation of a sample: what the loss is taken on stands apart from what is only read."""

    side: str
    read: list[Token]
    learnt: list[Token]
    left_out: int
    """Tokens of the middle of the prompt that are not shown."""


@dataclass(frozen=True)
class Sample:
    comparison: int
    sides: list[SampleSide]


def samples(
    snapshot: DatasetSnapshot,
    method: str,
    counter: TokenCounter,
    comparisons: Iterable[int],
    *,
    cut_at: int | None = None,
) -> Iterator[Sample]:
    """The first training row of each comparison, as the model sees it; without what lies beyond `cut_at` tokens."""
    wanted = list(comparisons)
    judged = [row for row in snapshot_rows(snapshot, "train") if row["id"] in wanted]
    if method not in list(Kind):  # it samples from the prompts
        for comparison in wanted:
            row = next(row for row in judged if row["id"] == comparison)
            read, left_out = _shortened(counter.prompt_tokens(row["prompt"]))
            yield Sample(comparison, [SampleSide("prompt", read, [], left_out)])
        return
    sides = ("chosen", "rejected") if learns_from_pairs(method) else ("completion",)
    first: dict[int, Row] = {}
    for row in training_rows(method, judged):
        first.setdefault(row["id"], row)
    for comparison in wanted:
        if (found := first.get(comparison)) is None:
            continue
        shown = []
        for side in sides:
            trained = counter.learnt_from(found["prompt"], found[side])
            trained = replace(trained, tokens=trained.tokens[:cut_at])
            shown.append(_scored(side, trained) if method == "reward" else _learnt(side, trained))
        yield Sample(comparison, shown)


def _learnt(side: str, trained: Trained) -> SampleSide:
    read, left_out = _shortened(trained.tokens[: trained.start])
    return SampleSide(side, read, trained.tokens[trained.start :][:_TOKENS_SHOWN], left_out)


def _scored(side: str, trained: Trained) -> SampleSide:
    """A reward model reads everything and answers once, at the last token."""
    read, left_out = _shortened(trained.tokens[:-1])
    return SampleSide(side, read, trained.tokens[-1:], left_out)


def _shortened(tokens: list[Token]) -> tuple[list[Token], int]:
    over = len(tokens) - _TOKENS_SHOWN
    if over <= 0:
        return tokens, 0
    half = _TOKENS_SHOWN // 2
    return [*islice(tokens, half), Token("…", False), *tokens[-half:]], over
