"""Verdicts: giving one, correcting it, skipping, going back."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from annotation.errors import AssignmentNotFoundError, ConflictError, DomainError
from annotation.models import Annotator, Assignment, AssignmentStatus, Comparison, Judgment, Preference
from annotation.services.queue import lease_end


def submit_judgment(
    *,
    assignment_id: UUID,
    annotator: Annotator,
    judgment_id: UUID,
    strength_shown: int | None,
    neither: bool = False,
    note: str = "",
    decided_in_ms: int | None = None,
) -> Judgment:
    """Store a verdict; the same judgment_id again changes nothing, a new one on the same assignment corrects.

    strength_shown: −3 (the left one is much better) … +3 (the right one), as the person saw them; None with `neither`.
    A vote whose lease has run out is stored and marked late: no work is lost. Raises AssignmentNotFoundError for
    somebody else's assignment and ConflictError where judgment_id stands with another verdict.
    """
    if neither == (strength_shown is not None):
        raise DomainError("a verdict is either one of the seven steps or “neither is good”")
    if strength_shown is not None and not -3 <= strength_shown <= 3:
        raise DomainError(f"strength {strength_shown} is outside −3 … 3")
    with transaction.atomic():
        assignment = _lock_assignment(assignment_id, annotator)
        strength = strength_shown
        if strength is not None and not assignment.a_shown_on_left:
            strength = -strength
        preference = _preference(strength)
        stored = Judgment.objects.filter(public_id=judgment_id).first()
        if stored:
            if (stored.assignment_id, stored.preference, stored.strength) != (assignment.pk, preference, strength):
                raise ConflictError("this vote is stored already with another verdict; reload the page to see it")
            return stored
        now = timezone.now()
        is_late = assignment.status == AssignmentStatus.EXPIRED
        previous = None
        if assignment.status == AssignmentStatus.SUBMITTED:
            previous = assignment.judgments.filter(superseded_at=None).first()
        if previous:
            Judgment.objects.filter(pk=previous.pk).update(superseded_at=now)
        if assignment.status in (AssignmentStatus.EXPIRED, AssignmentStatus.SKIPPED):
            assignment.holds_place = _take_place(assignment.comparison_id)
        if assignment.status != AssignmentStatus.SUBMITTED:
            assignment.status = AssignmentStatus.SUBMITTED
            assignment.submitted_at = now
            assignment.skip_reason = ""
            assignment.save(update_fields=["status", "submitted_at", "holds_place", "skip_reason"])
        return Judgment.objects.create(
            public_id=judgment_id,
            comparison_id=assignment.comparison_id,
            annotator=annotator,
            assignment=assignment,
            preference=preference,
            strength=strength,
            note=note,
            is_late=is_late,
            decided_in_ms=decided_in_ms,
            supersedes=previous,
        )


def _preference(strength: int | None) -> Preference:
    if strength is None:
        return Preference.NEITHER
    if strength == 0:
        return Preference.TIE
    return Preference.A if strength < 0 else Preference.B


def skip_assignment(*, assignment_id: UUID, annotator: Annotator, reason: str = "") -> Assignment:
    """Give the comparison back; this person will not see it again unless they undo. A verdict on it is withdrawn."""
    with transaction.atomic():
        assignment = _lock_assignment(assignment_id, annotator)
        if assignment.status == AssignmentStatus.SKIPPED:
            return assignment
        assignment.judgments.filter(superseded_at=None).update(superseded_at=timezone.now())
        if assignment.holds_place:
            Comparison.objects.filter(pk=assignment.comparison_id).update(assigned_count=F("assigned_count") - 1)
        assignment.status = AssignmentStatus.SKIPPED
        assignment.holds_place = False
        assignment.submitted_at = None
        assignment.skip_reason = reason[:40]
        assignment.save(update_fields=["status", "holds_place", "submitted_at", "skip_reason"])
        return assignment


def undo_assignment(*, assignment_id: UUID, annotator: Annotator) -> Assignment:
    """Call an earlier comparison back to the screen.

    A judged one comes back as it is: its verdict stands until a correction supersedes it. A skipped or expired one is
    leased again; raises ConflictError where somebody else has taken its place meanwhile.
    """
    with transaction.atomic():
        assignment = _lock_assignment(assignment_id, annotator)
        if assignment.status in (AssignmentStatus.SKIPPED, AssignmentStatus.EXPIRED):
            held = set(
                Assignment.objects.filter(
                    annotator=annotator, project=assignment.project_id, status=AssignmentStatus.LEASED
                ).values_list("slot", flat=True)
            )
            free_slots = {0, 1, 2} - held
            if not free_slots or not _take_place(assignment.comparison_id):
                raise ConflictError("somebody else has this comparison now; go on with the next one")
            assignment.status = AssignmentStatus.LEASED
            assignment.slot = min(free_slots)
            assignment.holds_place = True
            assignment.skip_reason = ""
            assignment.leased_at = timezone.now()
            assignment.lease_expires_at = lease_end()
            assignment.save(
                update_fields=["status", "slot", "holds_place", "skip_reason", "leased_at", "lease_expires_at"]
            )
        return assignment


def _lock_assignment(assignment_id: UUID, annotator: Annotator) -> Assignment:
    """The assignment, locked. Call inside a transaction. Locking it also makes repeats of one vote take turns."""
    assignment = (
        Assignment.objects.select_for_update(of=("self",)).filter(public_id=assignment_id, annotator=annotator).first()
    )
    if assignment is None:
        raise AssignmentNotFoundError("this comparison is not assigned to you; reload the page for the next one")
    return assignment


def _take_place(comparison_id: int) -> bool:
    free = Comparison.objects.filter(pk=comparison_id, assigned_count__lt=F("required_count"))
    return free.update(assigned_count=F("assigned_count") + 1) == 1
