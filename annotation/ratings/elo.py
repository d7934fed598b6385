"""Elo's ratings: one vote after the other. They follow the present and depend on the order of the votes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from annotation.ratings.battles import LOST, TIED, Battles, Floats, Ints
from annotation.ratings.intervals import (
    Errors,
    cells_of,
    clusters_in,
    numbered,
    one_way_errors,
    two_way_errors,
)
from annotation.shares import FEWEST_PEOPLE

STEP = 4.0
"""How many points a vote between equals moves at most; as the public chat arenas had it."""
START, SCALE = 1000.0, 400.0
RESAMPLES = 80
REMEMBERED = 500
"""Votes of a source: after so many between equals a rating keeps 6 % of what it was before them, since each takes off
STEP · ln 10 / SCALE / 4. Resamples of longer histories are replayed from the ratings as they stand with so many."""
RESAMPLED = 8 * REMEMBERED
"""Votes of a source that resamples are drawn from; of more, a drawn part."""
MOST_REPLAYED = 100_000
"""Votes in one resample; only boards of several hundred sources come near."""


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


def resampled_errors(battles: Battles, count: int, *, ties: str, seed: int = 0) -> Errors:
    """The 95 % intervals in points, by resampled prompts and people, each time in a drawn order.

    As `intervals.bootstrap_errors`: what the prompts vary plus what the people vary less the single votes. All three
    hold what the order of the votes does as well, which the ratings themselves do not show.
    """
    if ties == "drop":
        battles = battles.where(battles.verdict != TIED)
    start = rate_in_order(battles, count)
    rng = np.random.default_rng(seed)
    battles = battles.where(rng.random(len(battles)) < _shares(battles, count, RESAMPLED))
    group, person = numbered(battles.group), numbered(battles.person)
    prompts, people = clusters_in(group), clusters_in(person)
    if prompts < 2:
        return Errors(np.full(count, np.nan), prompts, 0)
    clusters = [(group, prompts)]
    if people >= FEWEST_PEOPLE:
        clusters += [(person, people), cells_of(group, person, people)]
    kept = _shares(battles, count, REMEMBERED)
    kept *= min(1, MOST_REPLAYED / kept.sum())
    drawn = [_drawn_order(labels, many, kept, rng) for labels, many in clusters for _ in range(RESAMPLES)]
    variances = _replayed(battles, start, drawn).reshape(len(clusters), RESAMPLES, count).var(axis=1, ddof=1)
    if len(clusters) == 1:
        return one_way_errors(variances[0], prompts)
    return two_way_errors(variances[0], variances[1], variances[2], prompts, people)


def _shares(battles: Battles, count: int, most: int) -> NDArray[np.float32]:
    """With which share each vote is kept: all of a source with few, about `most` of one that has more."""
    met = np.bincount(np.concatenate([battles.one, battles.other]), minlength=count)
    fewer = np.maximum(np.minimum(met[battles.one], met[battles.other]), 1)
    return np.asarray(np.minimum(1, most / fewer), dtype=np.float32)


def _drawn_order(
    labels: Ints, clusters: int, kept: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.int32]:
    """Places of the votes of resampled clusters, in a drawn order."""
    times = np.bincount(rng.integers(0, clusters, clusters), minlength=clusters).astype(np.float32)[labels]
    copies = (times * kept + rng.random(len(kept), dtype=np.float32)).astype(np.int16)
    some = np.flatnonzero(copies)
    return rng.permutation(np.repeat(some, copies[some]).astype(np.int32))


def _replayed(battles: Battles, start: Floats, orders: list[NDArray[np.int32]]) -> Floats:
    """Ratings after each of several orders, all at once vote by vote, shape (orders, sources)."""
    places = np.zeros((max(map(len, orders)), len(orders)), dtype=np.int32)
    for number, order in enumerate(orders):
        places[: len(order), number] = order
    lengths = np.array([len(order) for order in orders])
    count = len(start)
    ratings = np.tile(start, len(orders))
    first = np.arange(len(orders)) * count
    score, step = (LOST - battles.verdict) / 2, STEP * battles.weight
    nats = math.log(10) / SCALE
    for number, row in enumerate(places):
        size = step[row] * (number < lengths)
        one, other = first + battles.one[row], first + battles.other[row]
        gain = size * (score[row] - 1 / (1 + np.exp((ratings[other] - ratings[one]) * nats)))
        ratings[one] += gain
        ratings[other] -= gain
    return np.asarray(ratings.reshape(len(orders), count))
