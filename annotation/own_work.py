"""What a person sees of their own work: what waits for them, what they did, and on how many days."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

from django.contrib.auth.models import User
from django.db import connection
from django.db.models import Count, Q
from django.db.models.functions import TruncDate
from django.utils import timezone

from annotation import services
from annotation.models import Annotator, Assignment, AssignmentStatus, Membership, Project, QualificationState, Role
from annotation.quality import own_figures
from annotation.services.rating_conversations import count_to_rate
from annotation.shares import Share
from annotation.stored_figures import FiguresNotReadyError, stored_figures

DAYS_SHOWN = 30
OPEN_COUNTED = 500
"""How far into a project's queue is looked for what is open to a person: the home page costs the same at any size."""


@dataclass(frozen=True)
class ToRate:
    """How many responses wait for a person's marks; `more`: no further were counted."""

    count: int
    more: bool


@dataclass(frozen=True)
class OwnProject:
    """A project as one of its members sees it on their first page."""

    project: Project
    role: Role
    qualification: QualificationState
    done: int
    done_today: int
    held: int
    """Comparisons that they have on a screen at this moment."""
    open: int
    """Comparisons that they could judge, among the first of the queue."""
    more: bool
    """Whether the queue goes on beyond what was counted."""
    to_rate: ToRate | None = None
    """Responses that they could mark by themselves; None: there is none."""
    to_rewrite: int = 0
    """Prompts without an acceptable response that they could write one for."""
    talks_to_rate: int = 0
    """Imported conversations that they could rate."""

    @property
    def waiting(self) -> int:
        return self.open + self.held

    @property
    def has_work(self) -> bool:
        return self.project.is_open and (self.open > 0 or self.held > 0 or self.more)


# In the member's languages and skills, as work is routed (services.queue).
_OPEN = """
SELECT p.id, count(c.id), count(c.id) FILTER (
           WHERE (c.lang = '' OR coalesce(m.languages, '{}') = '{}' OR c.lang = ANY (m.languages))
             AND (c.skill = '' OR coalesce(m.skills, '{}') = '{}' OR c.skill = ANY (m.skills))
             AND NOT EXISTS (
                 SELECT 1 FROM annotation_assignment mine
                 WHERE mine.comparison_id = c.id AND mine.annotator_id = %(annotator)s AND mine.status <> 'expired'))
FROM unnest(%(projects)s::bigint[]) AS p (id)
LEFT JOIN annotation_membership m ON m.project_id = p.id AND m.user_id = %(user)s
LEFT JOIN LATERAL (
    SELECT c.id, c.lang, c.skill FROM annotation_comparison c
    WHERE c.project_id = p.id AND c.assigned_count < c.required_count AND NOT c.is_gold AND NOT c.is_withdrawn
    ORDER BY c.tier, c.queue_key, c.id LIMIT %(most)s) c ON true
GROUP BY p.id
"""


_TO_RATE = """
SELECT p.id, count(i.id) FROM annotation_project p
CROSS JOIN LATERAL (
    SELECT i.id FROM annotation_study s JOIN annotation_studyitem i ON i.study_id = s.id
    WHERE s.project_id = p.id AND s.closed_at IS NULL
      AND i.response_id IS NOT NULL AND i.assigned_count < i.required_count
      AND NOT EXISTS (SELECT 1 FROM annotation_rubricrating mine
                       WHERE mine.item_id = i.id AND mine.annotator_id = %(annotator)s AND mine.status <> 'expired')
    LIMIT %(most)s) i
WHERE p.id = ANY(%(projects)s) AND p.is_open
GROUP BY p.id
"""


def responses_to_rate(annotator: Annotator | None, projects: Iterable[int]) -> dict[int, ToRate]:
    """What each of these projects has for a person to rate, by id; those without are left out."""
    annotator_id = annotator.pk if annotator else 0
    with connection.cursor() as cursor:
        cursor.execute(_TO_RATE, {"projects": list(projects), "annotator": annotator_id, "most": OPEN_COUNTED})
        return {project: ToRate(count, count == OPEN_COUNTED) for project, count in cursor.fetchall()}


@dataclass(frozen=True)
class Today:
    """How far a person is with a project today."""

    done: int
    left: int
    """Comparisons that they hold, and that are open to them among the first of the queue."""
    more: bool
    """Whether the queue goes on beyond what was counted."""

    @property
    def total(self) -> int:
        return self.done + self.left


def todays_progress(annotator: Annotator, project: Project, *, held: int) -> Today:
    """held: how many comparisons they have on a screen at this moment."""
    seen, free = _open(annotator.user_id, annotator.pk, [project.pk] if project.is_open else []).get(
        project.pk, (0, 0)
    )
    done = Assignment.objects.filter(
        annotator=annotator, project=project, status=AssignmentStatus.SUBMITTED, submitted_at__gte=_today()
    )
    return Today(done.count(), free + held, seen == OPEN_COUNTED)


def _open(user_id: int | None, annotator_id: int, projects: list[int]) -> dict[int, tuple[int, int]]:
    """By project, how many open comparisons were looked at, and how many of them are open to the person."""
    values: dict[str, Any] = {"user": user_id, "annotator": annotator_id, "projects": projects, "most": OPEN_COUNTED}
    with connection.cursor() as cursor:
        cursor.execute(_OPEN, values)
        return {project: (seen, free) for project, seen, free in cursor.fetchall()}


def projects_of(user: User) -> list[OwnProject]:
    """The projects that the user is in, with what waits and what is done; the same number of queries for any many."""
    memberships = list(Membership.objects.filter(user=user).select_related("project").order_by("project__name"))
    ids = [membership.project_id for membership in memberships]
    annotator = Annotator.objects.filter(user=user).first()
    annotator_id = annotator.pk if annotator else 0
    mine = Assignment.objects.filter(annotator=annotator_id, project__in=ids)
    counts = {
        row["project"]: row
        for row in mine.values("project")
        .order_by()
        .annotate(
            done=Count("pk", filter=Q(status=AssignmentStatus.SUBMITTED)),
            done_today=Count("pk", filter=Q(submitted_at__gte=_today())),
            held=Count("pk", filter=Q(status=AssignmentStatus.LEASED)),
        )
    }
    queues = _open(user.pk, annotator_id, ids)
    to_rate = responses_to_rate(annotator, ids)
    to_rewrite = services.count_rewrites(user.pk, annotator, ids)
    talks_to_rate = count_to_rate(annotator, user.pk, ids)
    rows = []
    for membership in memberships:
        seen, free = queues[membership.project_id]
        count = counts.get(membership.project_id, {"done": 0, "done_today": 0, "held": 0})
        rows.append(
            OwnProject(
                project=membership.project,
                role=Role(membership.role),
                qualification=QualificationState(membership.qualification),
                done=count["done"],
                done_today=count["done_today"],
                held=count["held"],
                open=free,
                more=seen == OPEN_COUNTED,
                to_rate=to_rate.get(membership.project_id),
                to_rewrite=to_rewrite.get(membership.project_id, 0),
                talks_to_rate=talks_to_rate.get(membership.project_id, 0),
            )
        )
    return rows


@dataclass(frozen=True)
class OwnWork:
    projects: list[tuple[OwnProject, dict[str, Share | None]]]
    """With what their votes there measure: `with_others` and `gold`."""
    done: int
    done_today: int
    streak: int
    """Days in a row with work, up to today; a day that is not over yet breaks none."""
    last_day: date | None
    days: list[tuple[date, int]]
    """The last 30 days, oldest first, and how many comparisons were judged on each."""

    @property
    def sparkline(self) -> str:
        """The days as points of an SVG polyline, 0 … 290 wide and 0 … 40 high."""
        most = max((count for _day, count in self.days), default=0) or 1
        return " ".join(f"{10 * x},{40 - 40 * count / most:.1f}" for x, (_day, count) in enumerate(self.days))

    @property
    def best_day(self) -> int:
        return max((count for _day, count in self.days), default=0)


def own_work(user: User) -> OwnWork:
    projects = projects_of(user)
    annotator = services.annotator_for(user)
    done = Assignment.objects.filter(annotator=annotator, status=AssignmentStatus.SUBMITTED)
    per_day = {
        row["day"]: row["count"]
        for row in done.annotate(day=TruncDate("submitted_at"))
        .values("day")
        .order_by("-day")
        .annotate(count=Count("pk"))
    }
    today = timezone.localdate()
    days = [today - timedelta(days=ago) for ago in reversed(range(DAYS_SHOWN))]
    return OwnWork(
        projects=[(row, _measured(annotator, row.project) if row.done else {}) for row in projects],
        done=sum(per_day.values()),
        done_today=per_day.get(today, 0),
        streak=streak(sorted(per_day), today),
        last_day=max(per_day, default=None),
        days=[(day, per_day.get(day, 0)) for day in days],
    )


def measure_own_votes(project: Project, *, annotator_id: int) -> dict[str, Any]:
    figures = own_figures(Annotator.objects.get(pk=annotator_id), project)
    shares = {"with_others": figures.with_others, "gold": figures.gold}
    return {name: share and asdict(share) for name, share in shares.items()}


def _measured(annotator: Annotator, project: Project) -> dict[str, Share | None]:
    measure = partial(measure_own_votes, annotator_id=annotator.pk)
    try:
        data, _as_of = stored_figures(project, f"own:{annotator.pk}", measure)
    except FiguresNotReadyError:
        return {}
    return {name: Share(**share) if share else None for name, share in data.items()}


def streak(days: list[date], today: date) -> int:
    """How many days in a row, the last one today or yesterday; `days` in order and without repeats."""
    if not days or days[-1] < today - timedelta(days=1):
        return 0
    length = 1
    for later, earlier in pairwise(reversed(days)):
        if later - earlier != timedelta(days=1):
            break
        length += 1
    return length


def _today() -> datetime:
    return timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
