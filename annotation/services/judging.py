"""Verdicts: giving one, correcting it, skipping, going back, and flagging what is wrong with a comparison.

Locks are taken in the order that services.desk gives.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation.answer import Answer
from annotation.content_order import Verdict, check_text, read_verdict, shown_order
from annotation.errors import ConflictError, DomainError
from annotation.models import (
    Annotator,
    Assignment,
    AssignmentKind,
    AssignmentStatus,
    Comparison,
    EventKind,
    Flag,
    Judgment,
    Project,
)
from annotation.protocol import Protocol
from annotation.reasons import FlagReason, SkipReason
from annotation.services.consequences import follow_up_skip, follow_up_unskip, follow_up_vote
from annotation.services.desk import Desk
from annotation.services.edits import read_edit, read_passages, store_edit, store_passages, write_response
from annotation.services.journal import record_event
from annotation.services.quality import mark_for_review, score_qualification
from annotation.services.queue import claim_assignments, hand_out, lease_end
from annotation.services.statements import Statement, run

MAX_FLAG_NOTE_CHARS = 2_000


def submit_judgment(*, assignment_id: UUID, annotator: Annotator, judgment_id: UUID, answer: Answer) -> Judgment:
    """Store a verdict; the same judgment_id again changes nothing, a new one on the same assignment corrects.

    A vote whose lease has run out is stored and marked late: no work is lost. Raises AssignmentNotFoundError for
    somebody else's assignment, DomainError with a sentence that names the field where the answer does not fit the
    project's protocol, and ConflictError where judgment_id stands with another verdict.
    """
    with transaction.atomic():
        return _submit(Desk(annotator, assignment_id), judgment_id, answer)


def judge_and_claim(
    *, assignment_id: UUID, annotator: Annotator, judgment_id: UUID, answer: Answer, known: Collection[UUID] = ()
) -> tuple[Judgment, list[Assignment]]:
    """`submit_judgment` and `claim_assignments` in one transaction: what happens with every key press."""
    with transaction.atomic():
        desk = Desk(annotator, assignment_id)
        judgment = _submit(desk, judgment_id, answer)
        if desk.seat is None:  # taken off the project meanwhile: the vote is stored, and there is no more
            return judgment, []
        held = [assignment for assignment in desk.assignments if assignment.status == AssignmentStatus.LEASED]
        shown = hand_out(desk.seat, held, known)
    if not shown and not held:
        shown = claim_assignments(annotator=annotator, project=desk.seat.project, known=known)
    return judgment, shown


# ── Giving a verdict ─────────────────────────────────────────────────────────────────────────────────────────────

# The vote, what becomes of its lease, and the journal's lines, in one statement. Where the browser sent the vote
# before (ON CONFLICT), nothing of this happens again.
_STORE = Statement("""
WITH stored AS (
    INSERT INTO annotation_judgment (
        public_id, comparison_id, annotator_id, assignment_id, preference, strength, round, ranking, ratings, axes,
        chips, note, guideline_version, is_partial, is_late, decided_in_ms, first_key_ms, meta, supersedes_id,
        created_at)
    VALUES (
        %(public_id)s, %(comparison_id)s, %(annotator_id)s, %(assignment_id)s, %(preference)s, %(strength)s,
        %(round)s, %(ranking)s, %(ratings)s, %(axes)s, %(chips)s, %(note)s, %(guideline_version)s, %(is_partial)s,
        %(is_late)s, %(decided_in_ms)s, %(first_key_ms)s, '{}', %(supersedes_id)s, %(created_at)s)
    ON CONFLICT (public_id) DO NOTHING
    RETURNING id
), given AS (
    UPDATE annotation_assignment a
    SET status = 'submitted', submitted_at = coalesce(a.submitted_at, %(created_at)s), holds_place = %(holds_place)s,
        skip_reason = '', viewed_at = coalesce(a.viewed_at, %(created_at)s)
    FROM stored WHERE a.id = %(assignment_id)s AND NOT %(is_correction)s
), noted AS (
    INSERT INTO annotation_event (kind, project_id, user_id, comparison_id, assignment_id, client_at, data)
    SELECT said.kind, %(project)s, %(user)s, %(comparison_id)s, %(assignment_id)s, said.client_at, said.data
    FROM stored CROSS JOIN (VALUES
        ('view', %(seen_at)s::timestamptz, '{}'::jsonb),
        (%(event)s, %(client_at)s::timestamptz, %(event_data)s::jsonb)) said (kind, client_at, data)
    WHERE said.kind <> 'view' OR %(is_first_view)s
)
SELECT id FROM stored
""")


def _submit(desk: Desk, judgment_id: UUID, answer: Answer) -> Judgment:
    assignment = desk.assignment
    if assignment.status != AssignmentStatus.LEASED:
        stored = Judgment.objects.filter(public_id=judgment_id).first()
        if stored:
            return _as_stored(stored, assignment, desk.project, answer)
    protocol = Protocol.of(desk.project)
    order = shown_order(assignment)
    verdict = read_verdict(answer, protocol, order)
    if answer.guideline_version > desk.project.guideline_version:
        raise DomainError(_("guideline_version: there is no such version; reload the page and save again."))
    passages = read_passages(answer, assignment.comparison, order) if answer.spans else []
    edit = read_edit(answer, protocol, assignment.comparison, verdict) if answer.edited_text else None
    edited = write_response(edit, assignment.comparison, desk.project, desk.annotator) if edit else None
    judgment = _store(desk, _judgment(desk, judgment_id, answer, verdict), answer.client_at)
    if judgment is None:
        # The id is taken: by this very vote, sent twice before a lease was called back, or by another.
        return _as_stored(Judgment.objects.get(public_id=judgment_id), assignment, desk.project, answer)
    store_passages(judgment, passages)
    if edit and edited:
        store_edit(judgment, edit, edited, seconds=answer.edit_seconds)
    if assignment.kind == AssignmentKind.WORK:
        follow_up_vote(assignment.comparison, protocol, desk.project, judgment)
    elif assignment.kind == AssignmentKind.QUALIFICATION:
        state = score_qualification(assignment)
        if desk.seat and state:
            desk.seat.membership.qualification = state
    return judgment


def _as_stored(stored: Judgment, assignment: Assignment, project: Project, answer: Answer) -> Judgment:
    """The judgment that has the id already. Raises ConflictError where it is not the same verdict."""
    is_same = stored.assignment_id == assignment.pk
    # What does not fit the protocol any more fitted it when it was stored.
    with contextlib.suppress(DomainError):
        verdict = read_verdict(answer, Protocol.of(project), shown_order(assignment))
        given = verdict.preference, verdict.strength, verdict.ranking
        is_same = is_same and given == (stored.preference, stored.strength, stored.ranking)
    if not is_same:
        raise ConflictError(_("This vote is stored already with another verdict; reload the page to see it."))
    stored.assignment = assignment
    return stored


def _judgment(desk: Desk, judgment_id: UUID, answer: Answer, verdict: Verdict) -> Judgment:
    """The row to be; what it replaces is superseded, and the assignment knows whether it holds a place."""
    assignment = desk.assignment
    now = timezone.now()
    previous = None
    if assignment.status == AssignmentStatus.SUBMITTED:
        previous = assignment.judgments.filter(superseded_at=None).first()
        if previous:
            Judgment.objects.filter(pk=previous.pk).update(superseded_at=now)
    is_late = assignment.status == AssignmentStatus.EXPIRED
    if assignment.kind == AssignmentKind.WORK and (is_late or assignment.status == AssignmentStatus.SKIPPED):
        assignment.holds_place = take_place(assignment.comparison_id)
    return Judgment(
        public_id=judgment_id,
        comparison=assignment.comparison,
        annotator=desk.annotator,
        assignment=assignment,
        preference=verdict.preference,
        strength=verdict.strength,
        round=assignment.round,
        ranking=verdict.ranking,
        ratings=verdict.ratings,
        axes=verdict.axes,
        chips=list(answer.chips),
        note=answer.note,
        guideline_version=answer.guideline_version,
        is_partial=answer.is_partial,
        is_late=is_late,
        decided_in_ms=answer.decided_in_ms,
        first_key_ms=answer.first_key_ms,
        supersedes=previous,
        created_at=now,
    )


def _store(desk: Desk, judgment: Judgment, client_at: datetime | None) -> Judgment | None:
    """Insert the judgment; None where its id is taken, and nothing has changed then."""
    assignment = desk.assignment
    is_correction = judgment.supersedes_id is not None
    seen_at = client_at and client_at - timedelta(milliseconds=judgment.decided_in_ms or 0)
    said = {
        "judgment": str(judgment.public_id),
        "preference": judgment.preference,
        "strength": judgment.strength,
    }
    stored_columns = {field.attname: getattr(judgment, field.attname) for field in Judgment._meta.concrete_fields}
    rows = run(
        _STORE,
        stored_columns
        | {
            "preference": str(judgment.preference),
            "ratings": json.dumps(judgment.ratings),
            "axes": json.dumps(judgment.axes),
            "holds_place": assignment.holds_place,
            "is_correction": is_correction,
            "project": desk.project.pk,
            "user": desk.annotator.user_id,
            "event": (EventKind.CHANGE if is_correction else EventKind.VOTE).value,
            "event_data": json.dumps(said),
            "is_first_view": assignment.viewed_at is None,
            "seen_at": seen_at,
            "client_at": client_at,
        },
    )
    if not rows:
        return None
    judgment.pk = rows[0][0]
    judgment._state.adding = False
    if not is_correction:
        assignment.status = AssignmentStatus.SUBMITTED
        assignment.submitted_at = assignment.submitted_at or judgment.created_at
        assignment.skip_reason = ""
    return judgment


# ── Skipping, going back, flagging ───────────────────────────────────────────────────────────────────────────────


def skip_assignment(*, assignment_id: UUID, annotator: Annotator, reason: str = "") -> Assignment:
    """Give the comparison back; this person will not see it again unless they undo. A verdict on it is withdrawn.

    reason: one of `SkipReason`, or nothing. What several people skip is handed out no more (services.consequences).
    """
    if reason and reason not in SkipReason.values:
        raise DomainError(
            _("reason: “%(reason)s” is not one of %(known)s.")
            % {"reason": reason[:40], "known": ", ".join(SkipReason.values)}
        )
    with transaction.atomic():
        desk = Desk(annotator, assignment_id)
        assignment = desk.assignment
        if assignment.status == AssignmentStatus.SKIPPED:
            return assignment
        withdrawn = assignment.judgments.filter(superseded_at=None).update(superseded_at=timezone.now())
        if assignment.holds_place:
            Comparison.objects.filter(pk=assignment.comparison_id).update(assigned_count=F("assigned_count") - 1)
        assignment.status = AssignmentStatus.SKIPPED
        assignment.holds_place = False
        assignment.submitted_at = None
        assignment.skip_reason = reason
        assignment.save(update_fields=["status", "holds_place", "submitted_at", "skip_reason"])
        _record(EventKind.SKIP, desk, **({"reason": reason} if reason else {}))
        if assignment.kind == AssignmentKind.WORK:
            follow_up_skip(assignment.comparison, is_verdict_withdrawn=bool(withdrawn))
        return assignment


def undo_assignment(*, assignment_id: UUID, annotator: Annotator) -> Assignment:
    """Call an earlier comparison back to the screen.

    A judged one comes back as it is: its verdict stands until a correction supersedes it. A skipped or expired one is
    leased again; raises ConflictError where somebody else has taken its place meanwhile.
    """
    with transaction.atomic():
        desk = Desk(annotator, assignment_id)
        assignment = desk.assignment
        if assignment.status in (AssignmentStatus.SKIPPED, AssignmentStatus.EXPIRED):
            was_skipped = assignment.status == AssignmentStatus.SKIPPED
            _lease_again(desk)
            if was_skipped and assignment.kind == AssignmentKind.WORK:
                follow_up_unskip(assignment.comparison)
        _record(EventKind.UNDO, desk)
        return assignment


def _lease_again(desk: Desk) -> None:
    assignment = desk.assignment
    is_work = assignment.kind == AssignmentKind.WORK
    free_slot = desk.free_slot()
    if desk.seat is None or free_slot is None or (is_work and not take_place(assignment.comparison_id)):
        raise ConflictError(_("Somebody else has this comparison now; go on with the next one."))
    assignment.status = AssignmentStatus.LEASED
    assignment.slot = free_slot
    assignment.holds_place = is_work
    assignment.skip_reason = ""
    assignment.leased_at = timezone.now()
    assignment.lease_expires_at = lease_end()
    assignment.save(update_fields=["status", "slot", "holds_place", "skip_reason", "leased_at", "lease_expires_at"])


def flag_comparison(*, assignment_id: UUID, annotator: Annotator, reason: str, note: str = "") -> Flag:
    """Tell the reviewers that something is wrong with a comparison itself; it stays on the annotator's screen.

    reason: one of `FlagReason`. Flagging again changes what was said.
    """
    if reason not in FlagReason.values:
        raise DomainError(
            _("reason: “%(reason)s” is not one of %(known)s.")
            % {"reason": reason[:40], "known": ", ".join(FlagReason.values)}
        )
    check_text("note", note, MAX_FLAG_NOTE_CHARS)
    with transaction.atomic():
        desk = Desk(annotator, assignment_id)
        flag, _made = Flag.objects.update_or_create(
            comparison_id=desk.assignment.comparison_id,
            annotator=annotator,
            resolved_at=None,
            defaults={"reason": reason, "note": note},
        )
        _record(EventKind.FLAG, desk, reason=reason)
        mark_for_review([desk.assignment.comparison_id])
        return flag


def _record(kind: EventKind, desk: Desk, **data: Any) -> None:
    record_event(
        kind,
        project=desk.project,
        user=desk.annotator.user_id,
        comparison_id=desk.assignment.comparison_id,
        assignment_id=desk.assignment.pk,
        **data,
    )


def take_place(comparison_id: int) -> bool:
    """Count one more of a comparison's places as taken; False where none is free."""
    free = Comparison.objects.filter(pk=comparison_id, assigned_count__lt=F("required_count"))
    return free.update(assigned_count=F("assigned_count") + 1) == 1
