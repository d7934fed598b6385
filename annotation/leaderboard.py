"""Who is preferred: Bradley–Terry ratings of the sources of a project, and one source against another.

Everything rests on live judgments of responses of two sources; a ranking counts once for each pair in it. A tie is
half a win for each side, or is left out (`ties="drop"`); "neither is acceptable" says nothing of the order and is
treated as a tie.

Judgments on prompts of one group lean the same way, so intervals are clustered by `Prompt.group`: a hundred people on
one prompt are not a hundred prompts. Where something is undefined it is None and `note` says why, never an infinity.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from django.db import connection
from numpy.typing import NDArray
from scipy import sparse, special, stats
from scipy.sparse.csgraph import connected_components

from annotation.models import Project, ResponseSource

POINTS_PER_NAT = 400 / math.log(10)
CONFIDENCE = 0.95

# One row for each verdict on two responses of different sources; a ranking gives one for each pair in it. Gold items
# are there to measure people, and a repeat is the same person's word again: neither tells more about the sources.
_VOTES = """
    SELECT p."group", ra.source_id AS a, rb.source_id AS b, j.preference AS verdict
      FROM annotation_judgment j
      JOIN annotation_annotator n ON n.id = j.annotator_id
      JOIN annotation_comparison c ON c.id = j.comparison_id
      JOIN annotation_prompt p ON p.id = c.prompt_id
      JOIN annotation_response ra ON ra.id = c.response_a_id
      JOIN annotation_response rb ON rb.id = c.response_b_id
     WHERE j.preference <> 'ranked' AND {counted}
    UNION ALL
    SELECT p."group", one.source_id, other.source_id,
           CASE sign(j.ranking[one.position + 1] - j.ranking[other.position + 1])
               WHEN -1 THEN 'a' WHEN 1 THEN 'b' ELSE 'tie' END
      FROM annotation_judgment j
      JOIN annotation_annotator n ON n.id = j.annotator_id
      JOIN annotation_comparison c ON c.id = j.comparison_id
      JOIN annotation_prompt p ON p.id = c.prompt_id
     CROSS JOIN LATERAL ({responses}) one
     CROSS JOIN LATERAL ({responses}) other
     WHERE j.preference = 'ranked' AND one.position < other.position AND {counted}
""".format(
    counted="""c.project_id = %(project)s AND NOT c.is_gold AND j.superseded_at IS NULL AND j.round = 0
       AND (n.is_human OR NOT %(humans_only)s)""",
    responses="""SELECT 0 AS position, source_id FROM annotation_response WHERE id = c.response_a_id
        UNION ALL SELECT 1, source_id FROM annotation_response WHERE id = c.response_b_id
        UNION ALL SELECT further.position, r.source_id FROM annotation_furtherresponse further
                    JOIN annotation_response r ON r.id = further.response_id WHERE further.comparison_id = c.id""",
)
# One row for each group and unordered pair of sources, the source with the smaller id first.
_RESULTS = f"""
    SELECT "group", least(a, b) AS one, greatest(a, b) AS other,
           count(*) FILTER (WHERE verdict = CASE WHEN a < b THEN 'a' ELSE 'b' END) AS won,
           count(*) FILTER (WHERE verdict = CASE WHEN a < b THEN 'b' ELSE 'a' END) AS lost,
           count(*) FILTER (WHERE verdict IN ('tie', 'neither')) AS tied
      FROM ({_VOTES}) votes
     WHERE a <> b
"""
_GROUPED = " GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"


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


def rank_sources(project: Project, *, ties: str = "half", humans_only: bool = False) -> list[Standing]:
    """The leaderboard, best first; unrated sources last. ties: "half" or "drop".

    rating = 1000 + 400·log10(strength), strengths by maximum likelihood with a geometric mean of 1 over the rated
    sources; `lower` and `upper` are the 95 % interval (sandwich estimate clustered by group, Student's t with one
    degree of freedom less than there are groups). Sources share a rank where their intervals overlap, also through a
    chain of others between them; the next rank counts all sources above it (1, 2, 2, 4).

    The likelihood has no maximum where a source, or a set of sources, won or lost everything against the rest, or
    never met it. Then the largest set that has one is rated by the judgments among its members, which is the limit
    that the full likelihood tends to; the others are not rated.
    """
    if ties not in ("half", "drop"):
        raise ValueError(f"ties is {ties!r}; it is half or drop")
    with connection.cursor() as cursor:
        cursor.execute(_RESULTS + _GROUPED, {"project": project.pk, "humans_only": humans_only})
        rows = cursor.fetchall()
    ids = sorted({pk for row in rows for pk in row[1:3]})
    if not ids:
        return []
    names = dict(ResponseSource.objects.filter(pk__in=ids).values_list("pk", "name"))
    position = {pk: index for index, pk in enumerate(ids)}
    groups = {group: index for index, group in enumerate(dict.fromkeys(row[0] for row in rows))}
    results = np.array([(groups[row[0]], position[row[1]], position[row[2]], *row[3:]) for row in rows], dtype=float)
    group, one, other = results[:, :3].astype(int).T
    won, lost, tied = results[:, 3:].T
    tied = tied if ties == "half" else np.zeros_like(tied)
    score, meetings = won + tied / 2, won + lost + tied

    count = len(ids)
    points = np.zeros((count, count))  # points[i, j]: what i scored against j
    np.add.at(points, (one, other), score)
    np.add.at(points, (other, one), meetings - score)
    rated = _rated_together(points)
    inside = np.isin(one, rated) & np.isin(other, rated)
    standings = _unrated(points, [names[pk] for pk in ids], set(rated.tolist()))
    if len(rated) >= 2:
        local = {int(index): number for number, index in enumerate(rated)}
        one, other = ([local[index] for index in side[inside]] for side in (one, other))
        strengths = _fit(points[np.ix_(rated, rated)])
        error = _standard_errors(
            strengths, group[inside], np.array(one), np.array(other), score[inside], meetings[inside]
        )
        standings = (
            _rated(strengths, error, [names[ids[index]] for index in rated], points[rated][:, rated]) + standings
        )
    return standings


def _rated_together(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """The largest set of sources each of which scored, directly or through others, against each other one."""
    _, labels = connected_components(sparse.csr_array(points > 0), connection="strong")
    sets = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return max(sets, key=lambda members: (len(members), points[np.ix_(members, members)].sum(), -members[0]))


def _fit(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log strengths with mean 0 that maximise the Bradley–Terry likelihood (Newton, halved steps)."""
    meetings = points + points.T

    def log_likelihood(strengths: NDArray[np.float64]) -> float:
        return float((points * special.log_expit(np.subtract.outer(strengths, strengths))).sum())

    strengths = np.zeros(len(points))
    for _ in range(200):
        chance = special.expit(np.subtract.outer(strengths, strengths))
        gradient = (points - meetings * chance).sum(axis=1)
        step = np.linalg.pinv(_information(meetings, chance)) @ gradient
        if np.abs(step).max() < 1e-10:
            break
        before, size = log_likelihood(strengths), 1.0
        while size > 1e-6 and log_likelihood(strengths + size * step) < before:
            size /= 2
        strengths = strengths + size * step
    return strengths - strengths.mean()


def _information(meetings: NDArray[np.float64], chance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Minus the second derivative of the log likelihood, shape (sources, sources); singular along (1, 1, …)."""
    weight = meetings * chance * (1 - chance)
    return np.diag(weight.sum(axis=1)) - weight


def _standard_errors(
    strengths: NDArray[np.float64],
    group: NDArray[np.int64],
    one: NDArray[np.int64],
    other: NDArray[np.int64],
    score: NDArray[np.float64],
    meetings: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Half widths of the intervals in nats, shape (sources,); NaN where the groups tell nothing of the spread."""
    count = len(strengths)
    chance = special.expit(strengths[one] - strengths[other])
    _, group = np.unique(group, return_inverse=True)
    clusters = group.max() + 1
    if clusters < 2:
        return np.full(count, np.nan)
    residual = score - meetings * chance
    gradients = sparse.csr_array(
        (np.concatenate([residual, -residual]), (np.concatenate([group, group]), np.concatenate([one, other]))),
        shape=(clusters, count),
    )
    met = np.zeros((count, count))
    np.add.at(met, (one, other), meetings)
    inverse = np.linalg.pinv(_information(met + met.T, special.expit(np.subtract.outer(strengths, strengths))))
    variance = np.diag(inverse @ (gradients.T @ gradients).toarray() @ inverse) * clusters / (clusters - 1)
    # Nothing but ties leaves no residual at all: that is not certainty.
    variance = np.where(variance > 1e-12, variance, np.nan)
    return np.sqrt(variance) * stats.t.ppf((1 + CONFIDENCE) / 2, clusters - 1)


def _rated(
    strengths: NDArray[np.float64], half_widths: NDArray[np.float64], names: list[str], points: NDArray[np.float64]
) -> list[Standing]:
    ratings, widths = 1000 + POINTS_PER_NAT * strengths, POINTS_PER_NAT * half_widths
    judgments = (points + points.T).sum(axis=1)
    standings = []
    for index in sorted(range(len(names)), key=lambda index: (-ratings[index], names[index])):
        rating, width = float(ratings[index]), float(widths[index])
        is_open = math.isnan(width)
        standings.append(
            Standing(
                names[index],
                rating,
                None if is_open else rating - width,
                None if is_open else rating + width,
                None,
                round(float(judgments[index])),
                "the judgments show no spread between prompts, so there is no interval" if is_open else "",
            )
        )
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


def _unrated(points: NDArray[np.float64], names: list[str], rated: set[int]) -> list[Standing]:
    meetings = points + points.T
    standings = []
    for index, name in enumerate(names):
        if index in rated and len(rated) >= 2:
            continue
        if not points[:, index].any() and points[index].any():
            note = "it won every comparison, so no finite rating fits"
        elif not points[index].any() and points[:, index].any():
            note = "it lost every comparison, so no finite rating fits"
        elif not meetings[index].any():
            note = "all its judgments are ties, which were left out"
        else:
            note = "wins do not lead from it to the rated sources and back, so it cannot be placed among them"
        standings.append(Standing(name, None, None, None, None, round(float(meetings[index].sum())), note))
    return sorted(standings, key=lambda standing: standing.source)


def head_to_head(
    project: Project,
    new_source: ResponseSource,
    old_source: ResponseSource,
    *,
    humans_only: bool = False,
    groups: Collection[str] | None = None,
) -> dict[str, Any]:
    """How often new is preferred to old: `{"wins", "ties", "losses", "win_rate", "lower", "upper", "judgments"}`.

    `groups` keeps to the prompts of those groups, as to the held-out ones of a data set.

    win_rate counts a tie as half. The interval is Wilson's at 95 %, with the number of judgments replaced by that of
    independent ones that would vary as much as the groups do (at most all; as many as there are groups where they do
    not vary), and Student's t for the normal quantile. None without judgments; no interval from a single group.
    """
    pair = sorted([new_source.pk, old_source.pk])
    condition = " AND least(a, b) = %(one)s AND greatest(a, b) = %(other)s"
    params: dict[str, Any] = {"project": project.pk, "humans_only": humans_only, "one": pair[0], "other": pair[1]}
    if groups is not None:
        condition += ' AND "group" = ANY(%(groups)s)'
        params["groups"] = list(groups)
    with connection.cursor() as cursor:
        cursor.execute(_RESULTS + condition + _GROUPED, params)
        rows = cursor.fetchall()
    by_group: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(3))
    for group, _, _, won, lost, tied in rows:
        by_group[group] += (won, tied, lost) if pair[0] == new_source.pk else (lost, tied, won)
    counts = np.array(list(by_group.values())).reshape(-1, 3)
    wins, ties, losses = (int(total) for total in counts.sum(axis=0))
    judgments = wins + ties + losses
    rate = (wins + ties / 2) / judgments if judgments else None
    lower, upper = (None, None) if rate is None else _wilson(rate, counts)
    return {
        "wins": wins,
        "ties": ties,
        "losses": losses,
        "win_rate": rate,
        "lower": lower,
        "upper": upper,
        "judgments": judgments,
    }


def _wilson(rate: float, counts: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """counts: wins, ties, losses of each group, shape (groups, 3)."""
    groups, sizes = len(counts), counts.sum(axis=1)
    if groups < 2:
        return None, None
    residuals = counts[:, 0] + counts[:, 1] / 2 - rate * sizes
    variance = (residuals**2).sum() * groups / (groups - 1) / sizes.sum() ** 2
    independent = groups if variance < 1e-12 else min(sizes.sum(), rate * (1 - rate) / variance)
    z = stats.t.ppf((1 + CONFIDENCE) / 2, groups - 1)
    centre = (rate + z**2 / (2 * independent)) / (1 + z**2 / independent)
    half = z * math.sqrt(rate * (1 - rate) / independent + z**2 / (4 * independent**2)) / (1 + z**2 / independent)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))
