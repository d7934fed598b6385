"""Who is preferred: ratings of the sources of a project, and one source against another.

Everything rests on live judgments of responses of two sources; a ranking counts once for each pair in it. A tie is
half a win for each side, or is left out (`ties="drop"`), or an outcome of its own (`ties="davidson"`); "neither is
acceptable" says nothing of the order and is treated as a tie.

Judgments on prompts of one group lean the same way, and so do judgments of one person, so intervals are clustered by
both: a hundred people on one prompt are not a hundred prompts. Where something is undefined it is None and `note` says
why, never an infinity. The arithmetic is in annotation/ratings.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation.models import Project, ResponseSource
from annotation.ratings import bradley_terry, elo, gaming, history, intervals, style
from annotation.ratings.battles import TIED, Battles, load_battles
from annotation.ratings.gaming import Flag
from annotation.win_rates import measure_win_rate

POINTS_PER_NAT = 400 / math.log(10)
CONFIDENCE = intervals.CONFIDENCE


@dataclass(frozen=True)
class Standing:
    """One line of the leaderboard. `judgments` counts those that its rating rests on, or would."""

    source: str
    rating: float | None
    lower: float | None
    upper: float | None
    rank: int | None
    judgments: int
    note: str = ""
    flags: list[str] = field(default_factory=list)
    """Of ratings.gaming.Flag, where they were looked for."""


@dataclass(frozen=True)
class Choices:
    """How a leaderboard is made."""

    ties: str = "half"
    """"half", "drop" or "davidson"."""
    voters: str = "all"
    """"people", "judges" (models) or "all"."""
    category: str | None = None
    """A prompt's task."""
    lang: str | None = None
    method: str = "bradley-terry"
    """Or "elo"."""
    intervals: str = ""
    """"sandwich" or "bootstrap"; if empty the method's own, which for Elo is the only one, the bootstrap."""
    control: bool = False
    """Whether style (ratings.style) is held equal."""

    def __post_init__(self) -> None:
        if not self.intervals:
            object.__setattr__(self, "intervals", "bootstrap" if self.method == "elo" else "sandwich")
        for name, known in KNOWN_CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it is one of {', '.join(known)}")
        if self.control and self.method == "elo":
            raise ValueError("Elo's ratings cannot hold style equal; use bradley-terry")
        if self.ties == "davidson" and self.method == "elo":
            raise ValueError("for Elo's ratings a tie is no outcome of its own; use half or drop, or bradley-terry")
        if self.intervals == "sandwich" and self.method == "elo":
            raise ValueError("Elo's intervals come from resampling; use bootstrap, or bradley-terry")
        if self.control and self.intervals == "bootstrap":
            raise ValueError("with style held equal the intervals are those of the sandwich estimate")


KNOWN_CHOICES = {
    "ties": bradley_terry.TIES,
    "voters": ("all", "people", "judges"),
    "method": ("bradley-terry", "elo"),
    "intervals": ("sandwich", "bootstrap"),
}


@dataclass(frozen=True)
class StyleEffect:
    """How many points one standard deviation of a difference in style is worth to whoever has more of it."""

    feature: str
    points: float
    lower: float | None
    upper: float | None


@dataclass(frozen=True)
class Leaderboard:
    standings: list[Standing]
    """Best first; unrated sources last."""
    votes: int = 0
    prompts: int = 0
    people: int = 0
    people_counted: bool = False
    """Whether the intervals say how people differ; one person says nothing of others."""
    is_weighted: bool = False
    """Whether pairs were drawn with known and unequal probabilities, and votes weighted by their inverse."""
    style: list[StyleEffect] = field(default_factory=list)


def rank_sources(project: Project, *, ties: str = "half", humans_only: bool = False) -> list[Standing]:
    """The standings of `make_leaderboard` by Bradley–Terry with sandwich intervals."""
    return make_leaderboard(project, Choices(ties=ties, voters="people" if humans_only else "all")).standings


def make_leaderboard(project: Project, choices: Choices, *, with_flags: bool = False) -> Leaderboard:
    """Ratings of the sources that a project's votes compare.

    rating = 1000 + 400·log10(strength), strengths by maximum likelihood with a geometric mean of 1 over the rated
    sources; `lower` and `upper` are the 95 % interval by prompts and people (ratings.intervals). Sources share a rank
    where their intervals overlap, also through a chain of others between them; the next rank counts all sources above
    it (1, 2, 2, 4).

    The likelihood has no maximum where a source, or a set of sources, won or lost everything against the rest, or
    never met it. Then the largest set that has one is rated by the judgments among its members, which is the limit
    that the full likelihood tends to; the others are not rated.
    """
    battles, ids = load_battles(
        project,
        voters=choices.voters,
        category=choices.category,
        lang=choices.lang,
        with_times=choices.method == "elo",
        with_responses=choices.control,
    )
    if not ids:
        return Leaderboard([])
    names = dict(ResponseSource.objects.filter(pk__in=ids).values_list("pk", "name"))
    looks = style.looks_of_responses(project) if choices.control else None
    board = board_of(battles, [names[pk] for pk in ids], choices, looks)
    return _flagged(project, board, ids, names, choices) if with_flags else board


def board_of(
    battles: Battles,
    names: list[str],
    choices: Choices,
    looks: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
) -> Leaderboard:
    """`make_leaderboard` of votes at hand; `looks`, where style is controlled, is `style.looks_of_responses`."""
    facts = Leaderboard(
        [],
        votes=len(battles),
        prompts=len(np.unique(battles.group)),
        people=len(np.unique(battles.person)),
        is_weighted=bool(battles.weight.size) and float(np.ptp(battles.weight)) > 1e-9,
    )
    if choices.method == "elo":
        return _elo(facts, battles, names, choices.ties)
    rows = bradley_terry.rows_of_votes(battles, len(names), choices.ties)
    points = bradley_terry.points_matrix(rows)
    rated = bradley_terry.rated_together(points) if points.any() else np.zeros(0, dtype=int)
    met = _votes_by_source(battles, len(names), choices.ties)
    unrated = _unrated(points, met, names, set(rated.tolist()))
    if len(rated) < 2:
        return replace(facts, standings=unrated)
    battles = _among(battles, rated, len(names))
    differences, features = np.zeros((len(battles), 0)), list[str]()
    if looks and choices.control:
        differences, features = style.style_differences(battles, *looks)
    votes = bradley_terry.rows_of_votes(battles, len(rated), choices.ties, differences)
    fit = bradley_terry.fit_strengths(
        votes if features else bradley_terry.rows_of_votes(battles, len(rated), choices.ties), choices.ties
    )
    if choices.intervals == "bootstrap":
        errors = intervals.bootstrap_errors(fit, votes, battles, ties=choices.ties)
    else:
        errors = intervals.sandwich_errors(fit, votes, battles)
    judgments = _votes_by_source(battles, len(rated), choices.ties)
    widths = errors.half_widths
    return replace(
        facts,
        standings=_rated(
            1000 + POINTS_PER_NAT * fit.strengths,
            POINTS_PER_NAT * widths[: len(rated)],
            [names[index] for index in rated],
            judgments,
        )
        + unrated,
        people_counted=errors.people > 0,
        style=[
            StyleEffect(feature, value * POINTS_PER_NAT, *_ends(value * POINTS_PER_NAT, width * POINTS_PER_NAT))
            for feature, value, width in zip(features, fit.style.tolist(), widths[len(rated) :].tolist(), strict=False)
        ],
    )


def _votes_by_source(battles: Battles, count: int, ties: str) -> NDArray[np.int64]:
    counted = battles.verdict != TIED if ties == "drop" else slice(None)
    return sum(np.bincount(side[counted], minlength=count) for side in (battles.one, battles.other))  # type: ignore[return-value]


def _among(battles: Battles, rated: NDArray[np.int64], count: int) -> Battles:
    """The votes among some sources, numbered anew."""
    if len(rated) == count:
        return battles
    local = np.full(count, -1)
    local[rated] = np.arange(len(rated))
    kept = battles.where((local[battles.one] >= 0) & (local[battles.other] >= 0))
    return replace(kept, one=local[kept.one], other=local[kept.other])


def _ends(value: float, width: float) -> tuple[float | None, float | None]:
    return (None, None) if math.isnan(width) else (value - width, value + width)


def _rated(
    ratings: NDArray[np.float64], widths: NDArray[np.float64], names: list[str], judgments: NDArray[np.int64]
) -> list[Standing]:
    standings = []
    for index in sorted(range(len(names)), key=lambda index: (-ratings[index], names[index])):
        rating, width = float(ratings[index]), float(widths[index])
        note = "the judgments show no spread between prompts, so there is no interval" if math.isnan(width) else ""
        standings.append(Standing(names[index], rating, *_ends(rating, width), None, int(judgments[index]), note))
    return _with_ranks(standings)


def _with_ranks(standings: list[Standing]) -> list[Standing]:
    """Ranks for standings in order of rating: a chain of overlapping intervals shares its first one's rank."""
    ranked: list[Standing] = []
    rank, floor = 0, math.inf  # floor: the lowest end of an interval in the chain
    for number, standing in enumerate(standings, 1):
        if standing.lower is None or standing.upper is None:
            ranked.append(standing)
            continue
        if standing.upper < floor:
            rank, floor = number, math.inf
        floor = min(floor, standing.lower)
        ranked.append(replace(standing, rank=rank))
    return ranked


def _unrated(points: NDArray[np.float64], met: NDArray[np.int64], names: list[str], rated: set[int]) -> list[Standing]:
    standings = []
    for index, name in enumerate(names):
        if index in rated and len(rated) >= 2:
            continue
        if not points[:, index].any() and points[index].any():
            note = "it won every comparison, so no finite rating fits"
        elif not points[index].any() and points[:, index].any():
            note = "it lost every comparison, so no finite rating fits"
        elif not met[index]:
            note = "all its judgments are ties, which were left out"
        else:
            note = "wins do not lead from it to the rated sources and back, so it cannot be placed among them"
        standings.append(Standing(name, None, None, None, None, int(met[index]), note))
    return sorted(standings, key=lambda standing: standing.source)


def _elo(facts: Leaderboard, battles: Battles, names: list[str], ties: str) -> Leaderboard:
    ratings = elo.rate_in_order(battles, len(names), ties=ties)
    errors = elo.resampled_errors(battles, len(names), ties=ties)
    judgments = _votes_by_source(battles, len(names), ties)
    standings = _rated(ratings, errors.half_widths, names, judgments)
    return replace(facts, standings=standings, people_counted=errors.people > 0)


def _flagged(
    project: Project, board: Leaderboard, ids: list[int], names: dict[int, str], choices: Choices
) -> Leaderboard:
    """With a look at what wins votes by other means; style is held equal only where somebody writes long."""
    signs = {names[pk]: sign for pk, sign in gaming.signs_by_source(project).items() if pk in names}
    long = {name for name, (_, longer) in signs.items() if longer is not None and longer >= gaming.LONGER_BY}
    controlled = {}
    if long and choices.method != "elo":
        equal = (
            board
            if choices.control
            else make_leaderboard(project, replace(choices, control=True, intervals="sandwich"))
        )
        controlled = {standing.source: standing for standing in equal.standings}
    flagged = []
    for standing in board.standings:
        flags = [str(Flag.CONSTANT)] if signs.get(standing.source, (False, None))[0] else []
        equal_standing = controlled.get(standing.source)
        if (
            standing.source in long
            and not choices.control
            and equal_standing is not None
            and None not in (standing.rating, standing.lower, equal_standing.rating)
            and equal_standing.rating < standing.lower  # type: ignore[operator]
        ):
            flags.append(str(Flag.LENGTH))
        flagged.append(replace(standing, flags=flags))
    return replace(board, standings=flagged)


def follow_ratings(project: Project, choices: Choices) -> dict[str, Any]:
    """Bradley–Terry ratings as they stood at up to 24 times: `{"at": [seconds since 1970], "ratings": {source: […]}}`.

    None where a source could not be rated yet.
    """
    battles, ids = load_battles(
        project, voters=choices.voters, category=choices.category, lang=choices.lang, with_times=True
    )
    found = history.history_of(battles, len(ids), ties=choices.ties)
    names = dict(ResponseSource.objects.filter(pk__in=ids).values_list("pk", "name"))
    ratings = 1000 + POINTS_PER_NAT * found.strengths
    return {
        "at": (found.at / 1e6).tolist(),
        "ratings": {
            names[pk]: [None if math.isnan(value) else value for value in ratings[:, number].tolist()]
            for number, pk in enumerate(ids)
        },
    }


def head_to_head(
    project: Project,
    new_source: ResponseSource,
    old_source: ResponseSource,
    *,
    humans_only: bool = False,
    groups: Collection[str] | None = None,
) -> dict[str, Any]:
    """How often new is preferred to old: `{"wins", "ties", "losses", "win_rate", "lower", "upper", "judgments"}`.

    The raw part of `win_rates.measure_win_rate` in one project; no interval from a single prompt.
    """
    found = measure_win_rate(
        [project],
        new_source,
        old_source,
        voters="people" if humans_only else "all",
        groups=groups,
        hold_length_equal=False,
    )
    return {
        "wins": found.wins,
        "ties": found.ties,
        "losses": found.losses,
        "win_rate": found.rate.value if found.rate else None,
        "lower": found.rate.lower if found.rate and found.prompts > 1 else None,
        "upper": found.rate.upper if found.rate and found.prompts > 1 else None,
        "judgments": found.judgments,
    }
