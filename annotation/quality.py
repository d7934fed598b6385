"""What the votes say of each person: whom they agree with, what sways them, how fast and how steady they are.

One query for each kind of figure, for all annotators of a project or for one, whole or in bins of time: so the figures
of a page are the sums of its chart. Nothing here blocks anybody or drops a vote; a concern is a reason to look.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any

import numpy as np
from django.db import connection
from django.db.models import TextChoices
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from annotation.agreement.votes import Votes, load_votes
from annotation.models import Annotator, Project
from annotation.shares import Share

IDLE_SECONDS = 60
FASTEST_SECONDS = 3
FASTEST_WORDS_PER_MINUTE = 1000
# Fewer scored gold items would tell a person which ones they were.
GOLD_SHOWN_FROM = 10
GOLD_LINE = 0.7
GOLD_VOTES_FOR_CONCERN = 20
FAST_SHARE_FOR_CONCERN = 0.1
CONSISTENCY_LINE = 0.7


class Concern(TextChoices):
    """A reason to look at somebody's votes; none is proof."""

    GOLD = "gold", _("misses gold")
    SURPRISE = "surprise", _("votes against clear preferences")
    LEFT = "left", _("favours the left side")
    RIGHT = "right", _("favours the right side")
    INCONSISTENT = "inconsistent", _("contradicts their own votes")
    FAST = "fast", _("votes faster than one can read")


class Bins(StrEnum):
    ALL = "all"
    WEEKS = "week"
    HUNDREDS = "hundred"
    """A hundred votes each, in order of time."""


def is_right(gold_preference: str, gold_strength: int | None, preference: str, strength: int | None) -> bool:
    """Whether a vote meets gold: the same verdict, and strengths, where both have one, at most one step apart."""
    if preference != gold_preference:
        return False
    return gold_strength is None or strength is None or abs(strength - gold_strength) <= 1


# The same in SQL, of a judgment j and a gold row g.
_IS_RIGHT = "(j.preference = g.preference AND coalesce(abs(j.strength - g.strength) <= 1, true))"

_BINS = {
    Bins.ALL: "0",
    Bins.WEEKS: "date_trunc('week', j.created_at)",
    Bins.HUNDREDS: "(row_number() OVER (PARTITION BY j.annotator_id ORDER BY j.created_at, j.id) - 1) / 100",
}
# Lengths in bytes: Postgres knows them without reading the texts. Words are counted only where they could be too many:
# six characters make one, or two in languages that put no spaces between them.
_COUNTS = f"""
    WITH votes AS MATERIALIZED (
        SELECT j.annotator_id, j.created_at, j.preference, j.round, {{bins}} AS bin,
               CASE WHEN j.decided_in_ms < {IDLE_SECONDS * 1000} THEN j.decided_in_ms
                    WHEN j.decided_in_ms IS NOT NULL THEN {IDLE_SECONDS * 1000} END AS active_ms,
               j.preference IN ('a', 'b') AS is_side, (j.preference = 'a') = s.a_shown_on_left AS is_left,
               sign(octet_length(ra.text) - octet_length(rb.text)) AS longer,
               s.kind IN ('gold', 'qualification') AND g.id IS NOT NULL AS is_gold, {_IS_RIGHT} AS is_right,
               CASE WHEN j.decided_in_ms < {FASTEST_SECONDS * 1000} THEN true
                    WHEN 10000 * (octet_length(ra.text) + octet_length(rb.text))
                         <= {FASTEST_WORDS_PER_MINUTE} * j.decided_in_ms::int8 THEN false
                    ELSE (char_length(ra.text) + char_length(rb.text)) * 60000.0
                         / (CASE WHEN c.lang ~ '^(zh|ja|th|lo|km|my)' THEN 2 ELSE 6 END)
                         > {FASTEST_WORDS_PER_MINUTE} * j.decided_in_ms::int8 END AS is_fast
          FROM annotation_judgment j
          JOIN annotation_comparison c ON c.id = j.comparison_id
          JOIN annotation_annotator n ON n.id = j.annotator_id
          JOIN annotation_response ra ON ra.id = c.response_a_id
          JOIN annotation_response rb ON rb.id = c.response_b_id
          LEFT JOIN annotation_assignment s ON s.id = j.assignment_id
          LEFT JOIN annotation_gold g ON g.comparison_id = c.id
         WHERE c.project_id = %(project)s AND j.superseded_at IS NULL AND {{who}})
    SELECT annotator_id, bin, min(created_at), max(created_at),
           count(*) FILTER (WHERE round = 0), count(*) FILTER (WHERE preference IN ('tie', 'neither') AND round = 0),
           count(*) FILTER (WHERE is_side AND is_left IS NOT NULL), count(*) FILTER (WHERE is_side AND is_left),
           count(*) FILTER (WHERE is_side AND longer <> 0),
           count(*) FILTER (WHERE is_side AND longer = CASE preference WHEN 'a' THEN 1 ELSE -1 END),
           count(*) FILTER (WHERE is_gold), count(*) FILTER (WHERE is_gold AND is_right),
           count(active_ms), percentile_cont(0.5) WITHIN GROUP (ORDER BY active_ms) / 1000,
           coalesce(sum(active_ms), 0)::float8 / 1000,
           count(*) FILTER (WHERE is_fast)
      FROM votes GROUP BY annotator_id, bin ORDER BY annotator_id, bin
"""
# Of rankings, how many of the pairs of responses stand in the same order; of other verdicts, whether they are equal.
_REPEATS = """
    SELECT again.annotator_id, array_agg(steady.same), array_agg(steady.met),
           count(*) FILTER (WHERE turned.chosen), count(*) FILTER (WHERE turned.chosen AND turned.same_side)
      FROM annotation_judgment again
      JOIN annotation_judgment first ON first.comparison_id = again.comparison_id
           AND first.annotator_id = again.annotator_id AND first.round = 0 AND first.superseded_at IS NULL
      JOIN annotation_comparison c ON c.id = again.comparison_id
      JOIN annotation_annotator n ON n.id = again.annotator_id
      LEFT JOIN annotation_assignment was ON was.id = first.assignment_id
      LEFT JOIN annotation_assignment is_now ON is_now.id = again.assignment_id
     CROSS JOIN LATERAL (
        SELECT was.a_shown_on_left <> is_now.a_shown_on_left AND again.preference IN ('a', 'b')
               AND first.preference IN ('a', 'b') AS chosen, again.preference <> first.preference AS same_side) turned
     CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE sign(first.ranking[i] - first.ranking[j])
                                    = sign(again.ranking[i] - again.ranking[j]))::int AS same, count(*)::int AS met
          FROM generate_subscripts(first.ranking, 1) i JOIN generate_subscripts(again.ranking, 1) j ON i < j
         WHERE first.ranking IS NOT NULL AND again.ranking IS NOT NULL
        HAVING count(*) > 0
         UNION ALL
        SELECT (again.preference = first.preference)::int, 1
         WHERE first.ranking IS NULL OR again.ranking IS NULL) steady
     WHERE c.project_id = %(project)s AND again.round > 0 AND again.superseded_at IS NULL AND {who}
     GROUP BY again.annotator_id
"""
# Chatbot Arena's sequential test (Chiang et al. 2024, section 5.2; FastChat's outlier_detect). The p-value of a vote
# for a side is the share of other people's such votes on the same two sources that went the same way, where that is
# the rarer one and nobody else voted so on the same comparison, else 1. The product of 1 / (2p) has an expectation
# below 1 for somebody who votes like the others, so it passes 20 with a chance below 5 %, however often one looks
# (Ville's inequality).
SURPRISE_LIMIT = 20.0
SURPRISE_VOTES = 5
_OTHERS_NEEDED = 10
_SURPRISES = f"""
    WITH votes AS (
        SELECT j.id, j.annotator_id, j.created_at,
               least(ra.source_id, rb.source_id) AS one, greatest(ra.source_id, rb.source_id) AS other,
               (j.preference = 'a') = (ra.source_id < rb.source_id) AS won,
               count(*) OVER (PARTITION BY j.comparison_id, j.preference) > 1 AS is_shared
          FROM annotation_judgment j
          JOIN annotation_comparison c ON c.id = j.comparison_id
          JOIN annotation_annotator n ON n.id = j.annotator_id
          JOIN annotation_response ra ON ra.id = c.response_a_id
          JOIN annotation_response rb ON rb.id = c.response_b_id
         WHERE c.project_id = %(project)s AND j.superseded_at IS NULL AND j.round = 0 AND n.is_human
           AND j.preference IN ('a', 'b') AND ra.source_id <> rb.source_id),
    totals AS (SELECT one, other, count(*) AS n, count(*) FILTER (WHERE won) AS won_n FROM votes GROUP BY one, other),
    own AS (
        SELECT annotator_id, one, other, count(*) AS n, count(*) FILTER (WHERE won) AS won_n
          FROM votes GROUP BY annotator_id, one, other),
    met AS (
        SELECT v.annotator_id, v.created_at, v.id, v.is_shared, t.n - o.n AS n,
               CASE WHEN v.won THEN t.won_n - o.won_n ELSE t.n - o.n - (t.won_n - o.won_n) END AS same
          FROM votes v JOIN totals t USING (one, other) JOIN own o USING (annotator_id, one, other)),
    factors AS (
        SELECT annotator_id, created_at, id,
               -ln(2 * CASE WHEN 2 * same < n AND NOT is_shared THEN (same + 1.0) / (n + 1) ELSE 1.0 END) AS factor
          FROM met WHERE n >= {_OTHERS_NEEDED} AND {{who}}),
    products AS (
        SELECT annotator_id, row_number() OVER person AS place, sum(factor) OVER person AS product
          FROM factors WINDOW person AS (PARTITION BY annotator_id ORDER BY created_at, id))
    SELECT annotator_id, max(place), max(product) FILTER (WHERE place >= {SURPRISE_VOTES})
      FROM products GROUP BY annotator_id
"""


@dataclass(frozen=True)
class Counts:
    """Counts of somebody's votes in one bin; times in seconds, each vote's cut off at IDLE_SECONDS."""

    first: datetime
    last: datetime
    votes: int
    undecided: int
    """Ties and "neither"."""
    shown: int
    """Votes for a side whose place on the screen is known; of these `left` went to the left one."""
    left: int
    unequal: int
    """Votes for a side between texts of different lengths; of these `longer` went to the longer one."""
    longer: int
    gold: int
    gold_right: int
    timed: int
    median_seconds: float | None
    active_seconds: float
    fast: int
    """Timed votes after less than FASTEST_SECONDS, or faster than FASTEST_WORDS_PER_MINUTE through both responses."""


@dataclass(frozen=True)
class Surprise:
    """How far somebody's votes against a clear preference of the others are beyond chance."""

    votes: int
    factor: float | None
    """The largest product so far; None under SURPRISE_VOTES votes."""

    @property
    def is_flagged(self) -> bool:
        return self.factor is not None and self.factor > SURPRISE_LIMIT


@dataclass(frozen=True)
class Repeats:
    """Comparisons judged twice by the same person."""

    consistent: Share
    """The same verdict again; of rankings, two responses in the same order again."""
    screen_side: Share | None
    """Of those shown with the sides swapped and decided both times: the same side of the screen, so the other text."""


@dataclass(frozen=True)
class Figures:
    annotator: Annotator
    counts: Counts
    with_others: Share | None
    """Equal verdicts, of the meetings of their votes with other people's on one item."""
    repeats: Repeats | None
    surprise: Surprise | None

    @property
    def gold(self) -> Share | None:
        return Share.of(self.counts.gold_right, self.counts.gold)

    @property
    def left(self) -> Share | None:
        return Share.of(self.counts.left, self.counts.shown)

    @property
    def longer(self) -> Share | None:
        return Share.of(self.counts.longer, self.counts.unequal)

    @property
    def fast(self) -> Share | None:
        return Share.of(self.counts.fast, self.counts.timed)

    @property
    def undecided(self) -> Share | None:
        return Share.of(self.counts.undecided, self.counts.votes)

    @property
    def votes_per_hour(self) -> float | None:
        return 3600 * self.counts.timed / self.counts.active_seconds if self.counts.active_seconds else None

    @property
    def concerns(self) -> list[Concern]:
        """Reasons to look at this person's votes."""
        found = []
        if self.gold and self.gold.count >= GOLD_VOTES_FOR_CONCERN and self.gold.value < GOLD_LINE:
            found.append(Concern.GOLD)
        if self.surprise and self.surprise.is_flagged:
            found.append(Concern.SURPRISE)
        if self.left and self.left.lower > 0.5:
            found.append(Concern.LEFT)
        if self.left and self.left.upper < 0.5:
            found.append(Concern.RIGHT)
        if self.repeats and self.repeats.consistent.upper < CONSISTENCY_LINE:
            found.append(Concern.INCONSISTENT)
        if self.fast and self.fast.lower > FAST_SHARE_FOR_CONCERN:
            found.append(Concern.FAST)
        return found


@dataclass(frozen=True)
class Bin:
    """A stretch of somebody's votes."""

    counts: Counts
    with_others: Share | None
    votes_so_far: int

    @property
    def gold(self) -> Share | None:
        return Share.of(self.counts.gold_right, self.counts.gold)


def measure_annotators(project: Project, votes: Votes) -> list[Figures]:
    """The figures of everybody who judged in the project, most votes first; `votes`: people's, as loaded."""
    counts = {pk: bins[0][1] for pk, bins in _counts(project, Bins.ALL, None).items()}
    people = Annotator.objects.in_bulk(list(counts))
    repeats, surprises = _repeats(project, None), _surprises(project, None)
    met = _with_others(votes)
    found = [
        Figures(annotator, counts[pk], met.get(pk), repeats.get(pk), surprises.get(pk))
        for pk, annotator in people.items()
    ]
    return sorted(found, key=lambda figures: (-figures.counts.votes, figures.annotator.name))


def measure_annotator(
    project: Project, annotator: Annotator, bins: Bins = Bins.WEEKS
) -> tuple[Figures, list[Bin]] | None:
    """One person's figures, and the same in bins of time; None where they never judged here."""
    whole = _counts(project, Bins.ALL, annotator).get(annotator.pk)
    if whole is None:
        return None
    votes = load_votes(project, met_by=annotator)
    met = _with_others(votes).get(annotator.pk)
    figures = Figures(
        annotator,
        whole[0][1],
        met,
        _repeats(project, annotator).get(annotator.pk),
        _surprises(project, annotator).get(annotator.pk),
    )
    stretches = [counts for _bin, counts in _counts(project, bins, annotator)[annotator.pk]]
    by_bin = _with_others(votes, mine=annotator.pk, since=[counts.first for counts in stretches])
    so_far = np.cumsum([counts.votes for counts in stretches])
    return figures, [Bin(counts, by_bin.get(place), int(so_far[place])) for place, counts in enumerate(stretches)]


def _counts(project: Project, bins: Bins, annotator: Annotator | None) -> dict[int, list[tuple[Any, Counts]]]:
    """By annotator: their bins in order."""
    found: dict[int, list[tuple[Any, Counts]]] = defaultdict(list)
    for pk, place, *values in _rows(_COUNTS, project, annotator, bins=_BINS[bins]):
        found[pk].append((place, Counts(*values)))
    return found


def _repeats(project: Project, annotator: Annotator | None) -> dict[int, Repeats]:
    found = {}
    for pk, same, met, turned, same_side in _rows(_REPEATS, project, annotator):
        # Pairs of one ranking hang together; where each repeat is one answer there is nothing to cluster.
        consistent = Share.clustered(same, met) if max(met) > 1 else Share.of(sum(same), len(same))
        assert consistent is not None
        found[pk] = Repeats(consistent, Share.of(same_side, turned))
    return found


def _surprises(project: Project, annotator: Annotator | None) -> dict[int, Surprise]:
    return {
        pk: Surprise(votes, None if product is None else math.exp(min(float(product), 50)))
        for pk, votes, product in _rows(_SURPRISES, project, annotator, who_is="annotator_id")
    }


def _rows(
    query: str, project: Project, annotator: Annotator | None, *, who_is: str = "n.id", **parts: str
) -> list[tuple[Any, ...]]:
    who = f"{who_is} = %(annotator)s" if annotator else ("true" if who_is != "n.id" else "n.is_human")
    with connection.cursor() as cursor:
        cursor.execute(
            query.format(who=who, **parts), {"project": project.pk, "annotator": annotator.pk if annotator else None}
        )
        return cursor.fetchall()


def _with_others(
    votes: Votes, *, mine: int | None = None, since: Sequence[datetime] | None = None
) -> dict[int, Share | None]:
    """Equal verdicts of the meetings of each annotator's votes with the others', clustered by comparison.

    By annotator, or, for one of them (`mine`), by the place in `since` of the stretch that the vote falls in.
    """
    if not len(votes):
        return {}
    verdict = votes.verdict
    counts = np.zeros((int(votes.item[-1]) + 1, 4), dtype=np.int64)
    np.add.at(counts, (votes.item, verdict), 1)
    equal, met = counts[votes.item, verdict] - 1, counts.sum(axis=1)[votes.item] - 1
    group, comparison = votes.annotator, votes.comparison
    if mine is not None and since is not None:
        own = votes.annotator == mine
        starts = np.array([_microseconds(moment) for moment in since])
        group = np.searchsorted(starts, votes.at[own], side="right") - 1
        equal, met, comparison = equal[own], met[own], comparison[own]
    order = np.lexsort((comparison, group))
    group, comparison, equal, met = group[order], comparison[order], equal[order], met[order]
    is_new = (np.diff(group, prepend=group[:1] - 1) != 0) | (np.diff(comparison, prepend=-1) != 0)
    start = np.flatnonzero(is_new)
    equal, met, group = np.add.reduceat(equal, start), np.add.reduceat(met, start), group[start]
    edges = np.flatnonzero(np.diff(group, prepend=group[:1] - 1))
    return {
        int(group[begin]): Share.clustered(equal[begin:end], met[begin:end])
        for begin, end in zip(edges, np.append(edges[1:], len(group)), strict=True)
    }


def _microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


_GOLD_SCORES = f"""
    SELECT g.id, count(*) FILTER (WHERE {_IS_RIGHT}), count(*)
      FROM annotation_gold g
      JOIN annotation_judgment j ON j.comparison_id = g.comparison_id AND j.superseded_at IS NULL
      JOIN annotation_assignment s ON s.id = j.assignment_id AND s.kind IN ('gold', 'qualification')
     WHERE g.id = ANY(%s) GROUP BY g.id
"""


def gold_scores(items: Collection[int]) -> dict[int, Share]:
    """How often the people who met these gold items were right, by the item's id; what nobody met is left out."""
    with connection.cursor() as cursor:
        cursor.execute(_GOLD_SCORES, [list(items)])
        shares = {pk: Share.of(right, votes) for pk, right, votes in cursor.fetchall()}
    return {pk: share for pk, share in shares.items() if share}


# ── What a person sees of themselves ─────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class OwnFigures:
    """What somebody may know of their own votes in a project."""

    votes: int
    votes_today: int
    streak_days: int
    """Days in a row with a vote, up to today, or to yesterday while today has none."""
    with_others: Share | None
    gold: Share | None
    """None while so few gold items are scored that a person could tell which they were."""
    median_seconds: float | None


_DAYS = """
    SELECT (j.created_at AT TIME ZONE %(zone)s)::date AS day, count(*)
      FROM annotation_judgment j JOIN annotation_comparison c ON c.id = j.comparison_id
     WHERE c.project_id = %(project)s AND j.annotator_id = %(annotator)s AND j.superseded_at IS NULL
     GROUP BY day ORDER BY day DESC LIMIT 1000
"""


def own_figures(annotator: Annotator, project: Project) -> OwnFigures:
    """What the person sees of themselves: three queries over their own comparisons."""
    whole = _counts(project, Bins.ALL, annotator).get(annotator.pk)
    if whole is None:
        return OwnFigures(0, 0, 0, None, None, None)
    counts = whole[0][1]
    with connection.cursor() as cursor:
        zone = str(timezone.get_current_timezone())
        cursor.execute(_DAYS, {"project": project.pk, "annotator": annotator.pk, "zone": zone})
        days = dict(cursor.fetchall())
    today = timezone.localdate()
    return OwnFigures(
        votes=counts.votes,
        votes_today=days.get(today, 0),
        streak_days=_streak(set(days), today),
        with_others=_with_others(load_votes(project, met_by=annotator)).get(annotator.pk),
        gold=Share.of(counts.gold_right, counts.gold) if counts.gold >= GOLD_SHOWN_FROM else None,
        median_seconds=counts.median_seconds,
    )


def _streak(days: set[date], today: date) -> int:
    last = today if today in days else today - timedelta(days=1)
    length = 0
    while last - timedelta(days=length) in days:
        length += 1
    return length
