"""What an annotator sends about one comparison, as they saw it: sides and orders are those on their screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class MarkedSpan:
    """A passage marked as wrong, in characters of the response's text as it was written."""

    position: int
    """0 is the leftmost response on the screen."""
    start: int
    end: int
    kind: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """One verdict and what came with it. `services.submit_judgment` turns it into content order and stores it."""

    choice: str
    """A value of `Protocol.verdicts`: a strength (negative: left is better), "left", "right", "neither"; "ranked"."""
    ranking: Sequence[int] | None = None
    """Ranks from left to right, 1 the best; equal numbers are ties."""
    ratings: Mapping[str, Sequence[int | None]] = field(default_factory=dict)
    """Scores of each aspect from left to right; None where a response was not scored."""
    axes: Mapping[str, int] = field(default_factory=dict)
    """Strengths on further axes, −3 … 3, negative: left."""
    chips: Sequence[str] = ()
    note: str = ""
    spans: Sequence[MarkedSpan] = ()
    edited_text: str = ""
    """The better response as the person improved it; empty: not edited."""
    edit_seconds: int = 0
    is_partial: bool = False
    guideline_version: int = 0
    decided_in_ms: int | None = None
    first_key_ms: int | None = None
    client_at: datetime | None = None
