"""How the work of a project goes: judgments an hour and a day, by whom, how clear, how long still, who is stuck.

Everything is counted in SQL over indexes and kept for a while (stored_figures); who holds what is looked up afresh.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from django.db import connection
from django.utils import timezone

from annotation.models import Batch, Preference, Project
from annotation.stored_figures import stored_figures

HOURS_SHOWN = 48
DAYS_SHOWN = 30
PACE_DAYS = 7
"""The days that the estimate of the remaining time rests on."""
STUCK_MINUTES = 20
MANY_SKIPS = 5
"""Fewer skips in a day are nothing to look at, whatever their share is."""


_HOURS = """
SELECT date_trunc('hour', submitted_at, %(zone)s) AS hour, count(*)
FROM annotation_assignment
WHERE project_id = %(project)s AND status = 'submitted' AND submitted_at >= %(since)s
GROUP BY hour ORDER BY hour
"""
_PEOPLE = """
SELECT a.user_id, work.*
FROM (
    SELECT annotator_id, count(*) AS done,
           count(*) FILTER (WHERE submitted_at >= %(today)s) AS today,
           count(*) FILTER (WHERE submitted_at >= %(week)s) AS week,
           max(submitted_at) AS last
    FROM annotation_assignment
    WHERE project_id = %(project)s AND status = 'submitted'
    GROUP BY annotator_id) work
JOIN annotation_annotator a ON a.id = work.annotator_id
WHERE a.user_id IS NOT NULL
"""
_SKIPS = """
SELECT a.user_id, count(*)
FROM annotation_assignment s JOIN annotation_annotator a ON a.id = s.annotator_id
WHERE s.project_id = %(project)s AND s.status = 'skipped' AND s.leased_at >= %(day)s AND a.user_id IS NOT NULL
GROUP BY a.user_id
"""
_DAY = """
SELECT a.user_id, count(*)
FROM annotation_assignment s JOIN annotation_annotator a ON a.id = s.annotator_id
WHERE s.project_id = %(project)s AND s.status = 'submitted' AND s.submitted_at >= %(day)s AND a.user_id IS NOT NULL
GROUP BY a.user_id
"""
_LEFT = """
SELECT coalesce(sum(required_count - assigned_count), 0), (
    SELECT count(*) FROM annotation_assignment
    WHERE status = 'leased' AND holds_place AND project_id = %(project)s)
FROM annotation_comparison
WHERE project_id = %(project)s AND assigned_count < required_count AND NOT is_gold AND NOT is_withdrawn
"""
_STRENGTHS = """
SELECT c.batch_id, CASE WHEN c.batch_id IS NULL THEN date_trunc('week', c.created_at, %(zone)s) END AS week,
       j.preference, j.strength, count(*), min(c.created_at)
FROM annotation_comparison c
JOIN annotation_judgment j ON j.comparison_id = c.id AND j.superseded_at IS NULL AND j.round = 0
WHERE c.project_id = %(project)s AND NOT c.is_gold
  AND j.annotator_id IN (SELECT id FROM annotation_annotator WHERE is_human)
GROUP BY 1, 2, 3, 4
"""
_WORK_MEM = "SET LOCAL work_mem = '128MB'"  # a million comparisons in one hash table; kept for this transaction


def _rows(sql: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchall()


def count_strengths(project: Project) -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute(_WORK_MEM)
    values = {"project": project.pk, "zone": timezone.get_current_timezone_name()}
    return {
        "strengths": [
            (batch, week and week.date().isoformat(), _strength(preference, strength), count, first.isoformat())
            for batch, week, preference, strength, count, first in _rows(_STRENGTHS, values)
        ]
    }


def _strength(preference: str, strength: int | None) -> str:
    """How clear a verdict is: the steps from the middle, or the name of what has no steps."""
    if preference in (Preference.NEITHER, Preference.RANKED):
        return preference
    if preference == Preference.TIE:
        return "0"
    return "side" if strength is None else str(abs(strength))


def count_work(project: Project) -> dict[str, Any]:
    now = timezone.now()
    today = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    values: dict[str, Any] = {
        "project": project.pk,
        "zone": timezone.get_current_timezone_name(),
        "since": today - timedelta(days=DAYS_SHOWN - 1),
        "today": today,
        "week": now - timedelta(days=PACE_DAYS),
        "day": now - timedelta(days=1),
    }
    skips, day = dict(_rows(_SKIPS, values)), dict(_rows(_DAY, values))
    people = {
        str(user): {"done": done, "today": done_today, "week": week, "last": last.isoformat()}
        for user, _annotator, done, done_today, week, last in _rows(_PEOPLE, values)
    }
    for user, count in skips.items():
        person = people.setdefault(str(user), {"done": 0, "today": 0, "week": 0, "last": None})
        person |= {"skips": count, "day": day.get(user, 0)}
    open_places, leased = _rows(_LEFT, values)[0]
    return {
        "hours": [(hour.isoformat(), count) for hour, count in _rows(_HOURS, values)],
        "people": people,
        "left": int(open_places) + leased,
    }


@dataclass(frozen=True)
class PersonWork:
    """What one person did in a project, as of the time of the figures."""

    done: int = 0
    today: int = 0
    week: int = 0
    last: datetime | None = None
    skips: int = 0
    """In the last 24 hours."""
    day: int = 0
    """Judged in the last 24 hours; known where there are skips to set beside it."""

    @property
    def skips_a_lot(self) -> bool:
        return self.skips >= MANY_SKIPS and self.skips > 0.25 * (self.skips + self.day)


def work_by_person(project: Project) -> tuple[dict[int, PersonWork], datetime]:
    """Each user's work in the project, by user id, and the time that it is of."""
    data, as_of = stored_figures(project, "work", count_work)
    return _people(data), as_of


def _people(data: dict[str, Any]) -> dict[int, PersonWork]:
    return {
        int(user): PersonWork(**{**row, "last": datetime.fromisoformat(row["last"]) if row["last"] else None})
        for user, row in data["people"].items()
    }


@dataclass(frozen=True)
class Estimate:
    """How long the open comparisons will take at the pace of the last days; None where that is not defined."""

    left: int
    per_day: float
    days: float | None
    soonest: float | None
    latest: float | None
    """Days at the pace two standard errors above and below the mean; None where fewer than three days were worked."""

    @property
    def whole_days(self) -> int | None:
        """Rounded up; a time that lies beyond ten years is none."""
        return _whole(self.days)

    @property
    def whole_bounds(self) -> tuple[int | None, int | None]:
        return _whole(self.soonest), _whole(self.latest)


def _whole(days: float | None) -> int | None:
    return None if days is None or days > 3650 else max(1, math.ceil(days))


def estimate(left: int, counts: list[int], days: float) -> Estimate:
    """From the judgments of the last whole days and the time that they span, in days (at most seven)."""
    total = sum(counts)
    per_day = total / days if days else 0.0
    if not left or not total:
        return Estimate(left, per_day, 0.0 if not left else None, None, None)
    soonest = latest = None
    if len(counts) >= 3:
        mean = total / len(counts)
        variance = sum((count - mean) ** 2 for count in counts) / (len(counts) - 1)
        error = 2 * math.sqrt(variance / len(counts))
        soonest = left / (per_day + error)
        latest = left / (per_day - error) if per_day > error else math.inf
    return Estimate(left, per_day, left / per_day, soonest, latest)


@dataclass(frozen=True)
class StrengthMix:
    """How clear the preferences of one batch are: `shares` by strength, weakest first, then "neither" and rankings."""

    name: str
    first: date
    total: int
    counts: dict[str, int]


STRENGTHS = ("0", "1", "2", "3", "4", "side", "neither", "ranked")


@dataclass(frozen=True)
class Pace:
    as_of: datetime
    hours: list[tuple[datetime, int]]
    """The last 48 hours, oldest first; the last one is not over."""
    days: list[tuple[date, int]]
    """The last 30 days, oldest first; the last one is not over."""
    people: dict[int, PersonWork]
    estimate: Estimate

    @property
    def today(self) -> int:
        return self.days[-1][1]

    @property
    def last_hours(self) -> int:
        return sum(count for _hour, count in self.hours[-24:])


def project_pace(project: Project) -> Pace:
    data, as_of = stored_figures(project, "work", count_work)
    counted = {datetime.fromisoformat(hour): count for hour, count in data["hours"]}
    this_hour = as_of.replace(minute=0, second=0, microsecond=0)
    hours = [this_hour - timedelta(hours=ago) for ago in reversed(range(HOURS_SHOWN))]
    per_day: dict[date, int] = {}
    for hour, count in counted.items():
        day = timezone.localtime(hour).date()
        per_day[day] = per_day.get(day, 0) + count
    today = timezone.localtime(as_of).date()
    days = [today - timedelta(days=ago) for ago in reversed(range(DAYS_SHOWN))]
    return Pace(
        as_of=as_of,
        hours=[(timezone.localtime(hour), counted.get(hour, 0)) for hour in hours],
        days=[(day, per_day.get(day, 0)) for day in days],
        people=_people(data),
        estimate=_estimate(data["left"], counted, as_of),
    )


def _estimate(left: int, hours: dict[datetime, int], as_of: datetime) -> Estimate:
    """Over the last seven times 24 hours, or over the time since the first judgment where that is shorter."""
    recent = {hour: count for hour, count in hours.items() if hour >= as_of - timedelta(days=PACE_DAYS)}
    if not recent:
        return estimate(left, [], 0.0)
    span = max((as_of - min(hours)) / timedelta(days=1), 1 / 24)
    days = min(span, float(PACE_DAYS))
    counts = [0] * max(1, math.floor(days))
    for hour, count in recent.items():
        ago = math.floor((as_of - hour) / timedelta(days=1))
        counts[min(ago, len(counts) - 1)] += count
    return estimate(left, counts, days)


def strength_mixes(project: Project) -> tuple[list[StrengthMix], datetime]:
    """The mix of each batch, the newest last, and the time that it is of."""
    data, as_of = stored_figures(project, "strengths", count_strengths)
    return _mixes(project, data["strengths"]), as_of


def _mixes(project: Project, rows: list[Any]) -> list[StrengthMix]:
    names = dict(Batch.objects.filter(project=project).values_list("pk", "name"))
    groups: dict[tuple[int | None, str | None], dict[str, int]] = {}
    firsts: dict[tuple[int | None, str | None], datetime] = {}
    for batch, week, strength, count, first in rows:
        key = (batch, week)
        counts = groups.setdefault(key, {})
        counts[strength] = counts.get(strength, 0) + count
        started = datetime.fromisoformat(first)
        firsts[key] = min(firsts.get(key, started), started)
    mixes = [
        StrengthMix(
            name=names.get(batch, "") if batch else "",
            first=date.fromisoformat(week) if week else timezone.localtime(firsts[batch, week]).date(),
            total=sum(counts.values()),
            counts={name: counts[name] for name in STRENGTHS if name in counts},
        )
        for (batch, week), counts in groups.items()
    ]
    return sorted(mixes, key=lambda mix: mix.first)


@dataclass(frozen=True)
class Holding:
    """Somebody who has comparisons on their screen at this moment."""

    username: str
    user_id: int
    held: int
    since: datetime
    """When the oldest of them was handed out."""
    last: datetime | None
    """Their last judgment in this project."""

    @property
    def idle_since(self) -> datetime:
        return max(self.since, self.last) if self.last else self.since


_HOLDING = """
SELECT u.username, u.id, held.count, held.since, (
    SELECT max(s.submitted_at) FROM annotation_assignment s
    WHERE s.annotator_id = a.id AND s.status = 'submitted' AND s.project_id = %(project)s
      AND s.submitted_at >= held.since - interval '1 day')
FROM (
    SELECT annotator_id, count(*) AS count, min(leased_at) AS since
    FROM annotation_assignment WHERE status = 'leased' AND project_id = %(project)s
    GROUP BY annotator_id) held
JOIN annotation_annotator a ON a.id = held.annotator_id
JOIN auth_user u ON u.id = a.user_id
ORDER BY held.since
"""


def holding(project: Project) -> list[Holding]:
    """Who holds comparisons now, whoever holds them longest first."""
    with connection.cursor() as cursor:
        cursor.execute(_HOLDING, {"project": project.pk})
        return [Holding(*row) for row in cursor.fetchall()]


def stuck(holders: list[Holding], now: datetime) -> list[Holding]:
    """Those who hold something and have given no judgment for a while."""
    return [one for one in holders if now - one.idle_since >= timedelta(minutes=STUCK_MINUTES)]
