"""One source against another: how often people prefer the new one, and how often where both wrote as much.

A tie is half a win for each side, and so is "neither is acceptable"; a ranking counts once for the two. Repeats and
gold items do not count.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from django.db.models.functions import Length
from numpy.typing import NDArray

from annotation.models import Project, Response, ResponseSource
from annotation.ratings import bradley_terry, intervals
from annotation.ratings.battles import LOST, TIED, WON, Battles, load_battles
from annotation.shares import FEWEST_PEOPLE, Share

Floats = NDArray[np.float64]

_NOTHING = 1e-9


@dataclass(frozen=True)
class WinRate:
    """What the votes say of the new source against the old one."""

    wins: int
    ties: int
    losses: int
    prompts: int
    people: int
    rate: Share | None
    """Ties count half; its 95 % interval is by prompts and people (Share.two_way). None without votes."""
    at_equal_length: Share | None
    """What a logistic fit gives where both responses are equally long. None where it was not asked for, and where
    the votes do not tell (all one way, or one way by length alone)."""

    @property
    def judgments(self) -> int:
        return self.wins + self.ties + self.losses

    @property
    def net(self) -> float | None:
        """(G − B) / (G + S + B), from −1 to 1."""
        return (self.wins - self.losses) / self.judgments if self.judgments else None

    @property
    def people_counted(self) -> bool:
        """Whether the interval says how people differ; one person says nothing of others."""
        return self.people >= FEWEST_PEOPLE

    @property
    def is_decided(self) -> bool:
        """Whether the interval lies on one side of one half."""
        return self.rate is not None and (self.rate.lower > 0.5 or self.rate.upper < 0.5)

    @property
    def votes_needed(self) -> int | None:
        """How many more would decide it if the rate stayed as it is; None where it is decided, or exactly even."""
        if self.rate is None or self.is_decided or abs(self.rate.value - 0.5) < 1e-3:
            return None
        away = 0.5 - self.rate.lower if self.rate.value > 0.5 else self.rate.upper - 0.5
        half = abs(self.rate.value - 0.5)
        # The interval narrows with the root of the number of votes.
        return max(1, int(np.ceil(self.judgments * (((half + away) / half) ** 2 - 1))))


def measure_win_rate(
    projects: Collection[Project],
    new: ResponseSource,
    old: ResponseSource,
    *,
    voters: str = "people",
    groups: Collection[str] | None = None,
    hold_length_equal: bool = True,
) -> WinRate:
    """By the live votes between two sources in these projects; voters are "people", "judges" (models) or "all"."""
    battles, ids = load_battles(
        projects, voters=voters, groups=groups, pair=(new.pk, old.pk), with_responses=hold_length_equal
    )
    is_new_first = new_comes_first(battles, ids, new)
    differences = length_differences(battles, is_new_first) if hold_length_equal else None
    return win_rate_of(battles, is_new_first, differences)


def new_comes_first(battles: Battles, ids: list[int], new: ResponseSource) -> NDArray[np.bool_]:
    """Of each vote: whether `one` is the new source; ids as `load_battles` gives them."""
    return np.asarray(np.array(ids, dtype=np.int64)[battles.one] == new.pk, dtype=bool)


def win_rate_of(battles: Battles, is_new_first: NDArray[np.bool_], differences: Floats | None = None) -> WinRate:
    """Of votes at hand between two sources; `differences` are those of `length_differences`, shape (votes,)."""
    verdict = np.where(is_new_first, battles.verdict, LOST - battles.verdict)
    wins, ties, losses = (int((verdict == outcome).sum()) for outcome in (WON, TIED, LOST))
    return WinRate(
        wins,
        ties,
        losses,
        len(np.unique(battles.group)),
        len(np.unique(battles.person)),
        Share.two_way((LOST - verdict) / 2, battles.group, battles.person),
        None if differences is None else _at_equal_length(battles, verdict, differences),
    )


def length_differences(battles: Battles, is_new_first: NDArray[np.bool_]) -> Floats:
    """(new − old) / (new + old) of each vote's responses, in characters; the battles must be loaded with responses."""
    if battles.one_response is None or battles.other_response is None:
        raise ValueError("load the battles with their responses")
    ids = np.unique(np.concatenate([battles.one_response, battles.other_response]))
    shown = Response.objects.filter(pk__in=ids.tolist()).annotate(characters=Length("text"))
    lengths = dict(shown.values_list("pk", "characters"))
    counted = np.array([lengths[pk] for pk in ids.tolist()], dtype=float)
    one, other = (counted[np.searchsorted(ids, side)] for side in (battles.one_response, battles.other_response))
    total = one + other
    difference = np.divide(one - other, total, out=np.zeros_like(total), where=total > 0)
    return np.where(is_new_first, difference, -difference)


def _at_equal_length(battles: Battles, verdict: NDArray[np.int64], difference: Floats) -> Share | None:
    """P(new is preferred) = 1 / (1 + e^−(θ + β·x)) at a difference x of 0, with a sandwich interval.

    The length control of the public arenas (annotation/ratings/style.py) for a single pair. None where the likelihood
    has no maximum, and where one source is always longer by the same share: then nothing tells the two apart.
    """
    count = len(verdict)
    if not count or _is_told_by_length(verdict, difference):
        return None
    spread = difference.std()
    if spread <= _NOTHING < np.abs(difference).max():
        return None
    style = (difference / spread)[:, None] if spread > _NOTHING else np.zeros((count, 0))
    sides = np.zeros(count, dtype=np.int64), np.ones(count, dtype=np.int64)
    pair = Battles(*sides, verdict, battles.person, battles.group, np.ones(count))
    rows = bradley_terry.rows_of_votes(pair, 2, "half", style)
    fit = bradley_terry.fit_strengths(rows, "half")
    width = 2 * float(intervals.sandwich_errors(fit, rows, pair).half_widths[0])
    if np.isnan(width):
        return None
    odds = float(fit.strengths[0] - fit.strengths[1])
    value, lower, upper = (float(1 / (1 + np.exp(-at))) for at in (odds, odds - width, odds + width))
    return Share(value, lower, upper, count)


def _is_told_by_length(verdict: NDArray[np.int64], difference: Floats) -> bool:
    """Whether one difference in length parts all that was won from all that was lost, a tie being some of either."""
    won, lost = difference[verdict != LOST], difference[verdict != WON]
    if not len(won) or not len(lost):
        return True
    level = won.min() == won.max() == lost.min() == lost.max()
    return not level and bool(won.min() >= lost.max() or lost.min() >= won.max())
