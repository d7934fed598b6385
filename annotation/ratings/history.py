"""Ratings as they stood at earlier times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from annotation.ratings.battles import Battles, Floats, Ints
from annotation.ratings.bradley_terry import fit_strengths, points_matrix, rated_together, rows_of_votes

MOST_POINTS = 24


@dataclass(frozen=True)
class History:
    """Log strengths at some times, each from all votes until then, NaN where a source could not be rated yet."""

    at: Ints
    """Microseconds since 1970, shape (times,)."""
    strengths: Floats
    """(times, sources), each row's mean over the sources that it rates is 0."""


def history_of(battles: Battles, count: int, *, ties: str, points: int = MOST_POINTS) -> History:
    """At up to `points` times with equally many votes between them, the last one at the last vote."""
    if battles.at is None:
        raise ValueError("load the battles with their times")
    if not len(battles):
        return History(np.zeros(0, dtype=np.int64), np.zeros((0, count)))
    ends = np.unique(np.quantile(battles.at, np.linspace(0, 1, points + 1)[1:], method="higher"))
    strengths = np.full((len(ends), count), np.nan)
    for number, end in enumerate(ends):
        rows = rows_of_votes(battles.where(battles.at <= end), count, ties)
        matrix = points_matrix(rows)
        rated = rated_together(matrix) if matrix.any() else np.zeros(0, dtype=int)
        if len(rated) < 2:
            continue
        inside = np.isin(rows.one, rated) & np.isin(rows.other, rated)
        local = np.full(count, -1)
        local[rated] = np.arange(len(rated))
        kept = type(rows)(
            len(rated),
            local[rows.one[inside]],
            local[rows.other[inside]],
            rows.won[inside],
            rows.tied[inside],
            rows.lost[inside],
            rows.style[inside],
        )
        strengths[number, rated] = fit_strengths(kept, ties).strengths
    return History(ends.astype(np.int64), strengths)
