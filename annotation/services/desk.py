"""Who is at work, and what lies on their desk: the first statements of whatever a person does in a project.

Locks are taken in the order membership, assignment, prompt, comparison. Whoever holds a comparison waits for no other
one, so that nobody waits in a circle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import prefetch_related_objects
from django.utils.translation import gettext as _

from annotation.errors import AssignmentNotFoundError
from annotation.models import (
    Annotator,
    Assignment,
    AssignmentStatus,
    Comparison,
    Membership,
    Project,
    Prompt,
    Response,
)
from annotation.services.statements import Columns, Statement, run, split

LEASE_SLOTS = 2  # the comparison on the screen and the one prefetched behind it

# ── Who asks ─────────────────────────────────────────────────────────────────────────────────────────────────────

_MEMBERSHIP = Columns(
    Membership, "m", "id", "project_id", "role", "languages", "skills", "qualification", "served_count"
)
_PROJECT = Columns(
    Project,
    "p",
    *("id", "slug", "protocol", "is_open", "guideline_version", "escalate_to", "judgments_per_comparison"),
    *("gold_every", "gold_every_at_first", "repeat_share", "qualification_count"),
)
_SEAT = f"""
SELECT {_MEMBERSHIP.sql}, {_PROJECT.sql}
FROM annotation_membership m JOIN annotation_project p ON p.id = m.project_id
WHERE m.user_id = %(user)s AND m.project_id = {{project}}
FOR NO KEY UPDATE OF m
"""
_SEAT_IN_PROJECT = Statement(_SEAT.format(project="%(project)s"))
_SEAT_OF_ASSIGNMENT = Statement(
    _SEAT.format(project="(SELECT project_id FROM annotation_assignment WHERE public_id = %(assignment)s)")
)


@dataclass(frozen=True, slots=True)
class Seat:
    """A person at work in a project. Their membership is locked: their tabs take turns, others are not held up."""

    annotator: Annotator
    membership: Membership
    project: Project


def take_seat(
    annotator: Annotator, *, project_id: int | None = None, assignment_id: UUID | None = None
) -> Seat | None:
    """Lock the person's membership in a project, or in that of an assignment; None where they have none.

    Call it first in a transaction. Who is being removed at this moment waits here and finds no membership.
    """
    values = {"user": annotator.user_id, "project": project_id, "assignment": assignment_id}
    rows = run(_SEAT_IN_PROJECT if assignment_id is None else _SEAT_OF_ASSIGNMENT, values)
    if not rows:
        return None
    membership, project = split(rows[0], _MEMBERSHIP, _PROJECT)
    return Seat(annotator, membership, project)


# ── What somebody holds ──────────────────────────────────────────────────────────────────────────────────────────

_ASSIGNMENT = Columns(
    Assignment,
    "a",
    *("id", "public_id", "comparison_id", "annotator_id", "project_id", "status", "kind", "round", "slot"),
    *("a_shown_on_left", "display_order", "holds_place", "leased_at", "lease_expires_at", "viewed_at", "submitted_at"),
)
_COMPARISON = Columns(
    Comparison,
    "c",
    *("id", "project_id", "prompt_id", "response_a_id", "response_b_id", "response_count", "required_count", "tier"),
    "review_since",
)
_PROMPT = Columns(Prompt, "q", "id", "messages", "task", "lang")
_RESPONSES = [Columns(Response, alias, "id", "text", "messages") for alias in ("ra", "rb")]

# What a person holds in the project and, for a vote, the assignment that it is about.
_ON_DESK = Statement(f"""
SELECT {_ASSIGNMENT.sql}, {_COMPARISON.sql}
FROM annotation_assignment a JOIN annotation_comparison c ON c.id = a.comparison_id
WHERE a.annotator_id = %(annotator)s
  AND (a.public_id = %(assignment)s OR a.project_id = %(project)s AND a.status = 'leased')
ORDER BY a.leased_at, a.id
FOR NO KEY UPDATE OF a
""")
WITH_TEXTS = f"{_ASSIGNMENT.sql}, {_COMPARISON.sql}, {_PROMPT.sql}, {_RESPONSES[0].sql}, {_RESPONSES[1].sql}"
JOIN_TEXTS = """
JOIN annotation_comparison c ON c.id = {comparison}
JOIN annotation_prompt q ON q.id = c.prompt_id
JOIN annotation_response ra ON ra.id = c.response_a_id
JOIN annotation_response rb ON rb.id = c.response_b_id
"""
_TEXTS = Statement(
    f"SELECT {WITH_TEXTS} FROM annotation_assignment a "
    + JOIN_TEXTS.format(comparison="a.comparison_id")
    + "WHERE a.id = ANY(%(ids)s)"
)


def assignments_on_desk(
    annotator: Annotator, *, project_id: int | None, assignment_id: UUID | None = None
) -> list[Assignment]:
    """What the person holds in the project and the assignment named, oldest first, locked, with their comparisons."""
    values = {"annotator": annotator.pk, "project": project_id, "assignment": assignment_id}
    desk = []
    for row in run(_ON_DESK, values):
        assignment, assignment.comparison = split(row, _ASSIGNMENT, _COMPARISON)
        assignment.annotator = annotator
        desk.append(assignment)
    return desk


def read_texts(seat: Seat, assignment_ids: Sequence[int]) -> list[Assignment]:
    """These assignments with all that is needed to show them, oldest first."""
    if not assignment_ids:
        return []
    found = [with_texts(row, seat) for row in run(_TEXTS, {"ids": list(assignment_ids)})]
    return sorted(found, key=lambda assignment: (assignment.leased_at, assignment.pk))


def with_texts(row: Sequence[Any], seat: Seat) -> Assignment:
    """The assignment of a row of WITH_TEXTS."""
    parts = split(row, _ASSIGNMENT, _COMPARISON, _PROMPT, *_RESPONSES)
    assignment, comparison, comparison.prompt, comparison.response_a, comparison.response_b = parts
    if comparison.response_count > 2:
        prefetch_related_objects([comparison], "further_responses__response")
    assignment.comparison = comparison
    assignment.annotator = seat.annotator
    assignment.project = seat.project
    return assignment


class Desk:
    """A person, what they hold, and the assignment they act on; all of it locked. Make it first in a transaction.

    Raises AssignmentNotFoundError.
    """

    def __init__(self, annotator: Annotator, assignment_id: UUID) -> None:
        self.annotator = annotator
        self.seat: Seat | None = take_seat(annotator, assignment_id=assignment_id)
        project_id = self.seat.project.pk if self.seat else None
        self.assignments = assignments_on_desk(annotator, project_id=project_id, assignment_id=assignment_id)
        found = [assignment for assignment in self.assignments if assignment.public_id == assignment_id]
        if not found:
            raise AssignmentNotFoundError(
                _("This comparison is not assigned to you; reload the page for the next one.")
            )
        self.assignment = found[0]
        self.project = self.seat.project if self.seat else Project.objects.get(pk=self.assignment.project_id)
        self.assignment.project = self.project

    def free_slot(self) -> int | None:
        """A place for one that is called back, beside what is held."""
        held = {assignment.slot for assignment in self.assignments if assignment.status == AssignmentStatus.LEASED}
        return min({*range(LEASE_SLOTS + 1)} - held, default=None)
