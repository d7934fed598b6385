"""Elo's ratings: one vote after the other. They follow the present and depend on the order of the votes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from annotation.ratings.battles import LOST, TIED, Battles, Floats

STEP = 4.0
"""How many points a vote between equals moves at most; as the public chat arenas had it."""
START, SCALE = 1000.0, 400.0
RESAMPLES = 100
MOST_RESAMPLED = 50_000
"""Votes, beyond which trying other orders takes too long for a page."""


def rate_in_order(battles: Battles, count: int, *, ties: str = "half", step: float = STEP) -> Floats:
    """Ratings after the last vote, in order of time where that is known, else of the arrays; shape (sources,).

    A tie is half a win, or is passed over (`ties="drop"`). The mean stays START.
    """
    order = np.argsort(battles.at, kind="stable") if battles.at is not None else np.arange(len(battles))
    if ties == "drop":
        order = order[battles.verdict[order] != TIED]
    ratings = [START] * count
    scores = ((LOST - battles.verdict[order]) / 2).tolist()
    steps = (step * battles.weight[order]).tolist()
    nats = math.log(10) / SCALE
    exp = math.exp
    for one, other, score, size in zip(
        battles.one[order].tolist(), battles.other[order].tolist(), scores, steps, strict=True
    ):
        gain = size * (score - 1 / (1 + exp((ratings[other] - ratings[one]) * nats)))
        ratings[one] += gain
        ratings[other] -= gain
    return np.array(ratings)


def half_widths(battles: Battles, count: int, *, ties: str, seed: int = 0) -> Floats | None:
    """95 % by resampled prompts in a drawn order, shape (sources,); None where there are too many votes for that.

    It holds what the order of the votes does as well, which the ratings themselves do not show.
    """
    groups, group = np.unique(battles.group, return_inverse=True)
    if len(groups) < 2 or len(battles) > MOST_RESAMPLED:
        return None if len(groups) >= 2 else np.full(count, np.nan)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(RESAMPLES):
        times = np.bincount(rng.integers(0, len(groups), len(groups)), minlength=len(groups))[group]
        drawn = rng.permutation(np.repeat(np.arange(len(battles)), times))
        found.append(rate_in_order(replace(battles, at=None).where(drawn), count, ties=ties))
    return np.asarray(1.96 * np.std(found, axis=0))
