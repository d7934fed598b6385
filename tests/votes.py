"""Stored votes as the pages leave them, with every argument optional, and what waits for a reviewer by them."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone

from annotation.models import Annotator, Assignment, AssignmentKind, AssignmentStatus, Comparison, Judgment, Project
from annotation.services.quality import mark_for_review
from tests.factories import make_annotator, make_comparison


def make_vote(
    comparison: Comparison,
    annotator: Annotator,
    strength: int | None,
    *,
    kind: AssignmentKind = AssignmentKind.WORK,
    a_left: bool = True,
    milliseconds: int | None = None,
    at: datetime | None = None,
) -> Judgment:
    """A stored vote with its assignment; strength None is "neither"."""
    again = int(kind == AssignmentKind.REPEAT)
    assignment = Assignment.objects.create(
        comparison=comparison,
        annotator=annotator,
        project=comparison.project,
        kind=kind,
        round=again,
        status=AssignmentStatus.SUBMITTED,
        holds_place=False,
        a_shown_on_left=a_left,
        submitted_at=at or timezone.now(),
        lease_expires_at=timezone.now(),
    )
    return Judgment.objects.create(
        comparison=comparison,
        annotator=annotator,
        assignment=assignment,
        round=again,
        preference="neither" if strength is None else "tie" if strength == 0 else "a" if strength < 0 else "b",
        strength=strength,
        decided_in_ms=milliseconds,
        created_at=at or timezone.now(),
    )


def waits(comparison: Comparison) -> bool:
    mark_for_review([comparison.pk])
    comparison.refresh_from_db()
    return comparison.review_since is not None


def disputed(project: Project | None = None) -> Comparison:
    comparison = make_comparison(project)
    make_vote(comparison, make_annotator(), -2)
    make_vote(comparison, make_annotator(), 2)
    mark_for_review([comparison.pk])
    return comparison
