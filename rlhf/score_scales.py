"""People's absolute scores on one scale, and the way back. Standard library only.

A frozen data set keeps what it takes (`Measure` for each aspect); a job chooses how (z-score or min-max); the reward
model's config.json keeps the result, so that what it says of an aspect can be given on the people's own scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypedDict

Scores = Mapping[str, float | None]
"""Aspect → score; None where nobody gave one."""


class Measure(TypedDict):
    """What a data set's scores in one aspect are like."""

    count: int
    low: float
    high: float
    mean: float
    deviation: float


class Scale(TypedDict):
    """normalised = (score − offset) / width"""

    offset: float
    width: float


def measure(all_scores: Iterable[Scores]) -> dict[str, Measure]:
    """Each aspect's count, range, mean and (population) standard deviation; aspects in alphabetical order."""
    values: dict[str, list[float]] = {}
    for scores in all_scores:
        for aspect, score in scores.items():
            if score is not None:
                values.setdefault(aspect, []).append(score)
    measures = {}
    for aspect, given in sorted(values.items()):
        mean = math.fsum(given) / len(given)
        variance = math.fsum((value - mean) ** 2 for value in given) / len(given)
        measures[aspect] = Measure(
            count=len(given), low=min(given), high=max(given), mean=mean, deviation=math.sqrt(variance)
        )
    return measures


def scales(measures: Mapping[str, Measure], method: Literal["z_score", "min_max"]) -> dict[str, Scale]:
    """How to normalise each aspect; scores that are all the same stay so, at 0."""
    if method == "min_max":
        return {a: Scale(offset=m["low"], width=m["high"] - m["low"] or 1.0) for a, m in measures.items()}
    return {a: Scale(offset=m["mean"], width=m["deviation"] or 1.0) for a, m in measures.items()}


def is_scales(value: Any) -> bool:
    """Whether this, read from a file, is aspects with a scale each."""
    return isinstance(value, dict) and all(
        isinstance(scale, dict)
        and set(scale) == {"offset", "width"}
        and all(isinstance(number, int | float) and math.isfinite(number) for number in scale.values())
        and scale["width"] > 0
        for scale in value.values()
    )


def normalise(score: float, scale: Scale) -> float:
    return (score - scale["offset"]) / scale["width"]


def invert(normalised: float, scale: Scale) -> float:
    return normalised * scale["width"] + scale["offset"]


def normalise_row(row: dict[str, Any], known: Mapping[str, Scale]) -> dict[str, Any]:
    """A pair with `chosen_normalised` and `rejected_normalised` beside the scores that people gave."""
    copies = {
        f"{side}_normalised": {
            aspect: None if (score := row[f"{side}_scores"].get(aspect)) is None else normalise(score, scale)
            for aspect, scale in known.items()
        }
        for side in ("chosen", "rejected")
        if f"{side}_scores" in row
    }
    return row | copies


def has_score(row: dict[str, Any]) -> bool:
    """Whether somebody scored a side of a normalised pair."""
    return any(
        score is not None
        for side in ("chosen", "rejected")
        for score in (row.get(f"{side}_normalised") or {}).values()
    )
