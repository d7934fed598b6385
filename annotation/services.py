"""Every write of the annotation side. Each function owns its transaction; nothing else changes these tables.

An assignment's life: leased → submitted | skipped | expired; skipped and expired ones can be leased again by the same
person, and a submitted one takes corrections. `Comparison.assigned_count` always equals the number of its assignments
that hold a place.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from annotation.models import (
    Annotator,
    Assignment,
    AssignmentStatus,
    Comparison,
    Judgment,
    Preference,
    Project,
    Prompt,
    Response,
    ResponseSource,
)

LEASE_SLOTS = 2  # the comparison on the screen and the one prefetched behind it


class DomainError(Exception):
    """Something that a person asked for and cannot have; the sentence says why and what to do."""


class AssignmentNotFoundError(DomainError):
    """There is no such assignment for this person."""


class ConflictError(DomainError):
    """The request contradicts what is stored already."""


# ── People and projects ──────────────────────────────────────────────────────────────────────────────────────────


def annotator_for(user: User) -> Annotator:
    """The annotator that stands for a signed-in user, made on first need."""
    annotator, _ = Annotator.objects.get_or_create(user=user, defaults={"name": user.get_username()})
    return annotator


def projects_for(user: User) -> QuerySet[Project]:
    """Projects whose comparisons the user may judge."""
    return Project.objects.filter(members=user.pk, is_open=True).order_by("name")


def create_project(*, slug: str, name: str, guidelines: str = "", judgments_per_comparison: int = 1) -> Project:
    """Make a project, or give the one that has this slug."""
    project, _ = Project.objects.get_or_create(
        slug=slug,
        defaults={
            "name": name,
            "guidelines": guidelines,
            "judgments_per_comparison": judgments_per_comparison,
        },
    )
    return project


def add_member(project: Project, user: User) -> None:
    """Let a user judge the project's comparisons."""
    project.members.add(user.pk)


def remove_member(project: Project, user: User) -> int:
    """Take a user off the project and give back what they hold there; gives how many. Their judgments stay."""
    with transaction.atomic():
        project.members.remove(user.pk)
        annotator = Annotator.objects.filter(user=user.pk).first()
        return release_assignments(annotator=annotator, project=project) if annotator else 0


def progress(annotator: Annotator, project: Project) -> dict[str, int]:
    """How many comparisons the annotator has judged here, today and in all."""
    judged = Assignment.objects.filter(annotator=annotator, project=project, status=AssignmentStatus.SUBMITTED)
    today = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    return {"done": judged.count(), "done_today": judged.filter(submitted_at__gte=today).count()}


# ── Prompts, responses, comparisons ──────────────────────────────────────────────────────────────────────────────


def content_sha256(value: Any) -> str:
    """The sha256 of a text, or of messages in their canonical JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def add_prompt(project: Project, messages: list[dict[str, str]], *, task: str = "", lang: str = "en") -> Prompt:
    """Add a prompt, or give the one with the same messages."""
    sha256 = content_sha256(messages)
    prompt, _ = Prompt.objects.get_or_create(
        project=project,
        content_sha256=sha256,
        group=f"prompt-{sha256[:16]}",
        defaults={"messages": messages, "task": task, "lang": lang},
    )
    return prompt


def add_prompts(project: Project, prompts: Iterable[dict[str, Any]]) -> int:
    """Add many prompts at once, all or none; gives how many are new. Each: messages, and task and lang if known."""
    rows = []
    for prompt in prompts:
        sha256 = content_sha256(prompt["messages"])
        rows.append(
            Prompt(
                project=project,
                messages=prompt["messages"],
                group=f"prompt-{sha256[:16]}",
                task=prompt.get("task", ""),
                lang=prompt.get("lang", ""),
                content_sha256=sha256,
            )
        )
    with transaction.atomic():
        before = project.prompts.count()
        Prompt.objects.bulk_create(rows, ignore_conflicts=True, batch_size=1000)
        return project.prompts.count() - before


def add_response(
    prompt: Prompt,
    source: ResponseSource,
    sample_index: int,
    text: str,
    *,
    seed: int | None,
    sampling: dict[str, Any],
    template_sha256: str,
    finish_reason: str,
) -> Response:
    """Store a sampled response; the one already stored under this sample index stays."""
    response, _ = Response.objects.get_or_create(
        prompt=prompt,
        source=source,
        sample_index=sample_index,
        defaults={
            "text": text,
            "text_sha256": content_sha256(text),
            "seed": seed,
            "sampling": sampling,
            "template_sha256": template_sha256,
            "finish_reason": finish_reason,
        },
    )
    return response


def create_comparisons(project: Project, pairs: Iterable[tuple[Response, Response]]) -> int:
    """Put pairs of responses before the annotators; gives how many are new.

    Pairs that read the same (equal texts) are left out: there is nothing to judge. Raises DomainError where the two
    answer different prompts, because such a judgment would mean nothing.
    """
    rows = []
    for a, b in pairs:
        if a.prompt_id != b.prompt_id:
            raise DomainError(f"responses {a.pk} and {b.pk} answer different prompts and cannot be compared")
        if a.text.strip() == b.text.strip():
            continue
        rows.append(
            Comparison(
                project=project,
                prompt_id=a.prompt_id,
                response_a=a,
                response_b=b,
                required_count=project.judgments_per_comparison,
                queue_key=random.random(),
            )
        )
    with transaction.atomic():
        before = Comparison.objects.filter(project=project).count()
        Comparison.objects.bulk_create(rows, ignore_conflicts=True, batch_size=1000)
        return Comparison.objects.filter(project=project).count() - before


# ── Leases ───────────────────────────────────────────────────────────────────────────────────────────────────────

_CLAIM = """
WITH free AS (
    SELECT c.id FROM annotation_comparison c
    WHERE c.project_id = %(project)s AND c.assigned_count < c.required_count
      AND NOT EXISTS (
        SELECT 1 FROM annotation_assignment mine
        WHERE mine.comparison_id = c.id AND mine.annotator_id = %(annotator)s AND mine.status <> 'expired'
        OFFSET 0)  -- one index look-up a candidate; as a join it reads all that the person ever judged
    ORDER BY c.queue_key, c.id
    LIMIT 1
    FOR UPDATE OF c {skip_locked}
), taken AS (
    UPDATE annotation_comparison c SET assigned_count = c.assigned_count + 1 FROM free WHERE c.id = free.id
    RETURNING c.id
)
INSERT INTO annotation_assignment (public_id, comparison_id, annotator_id, project_id, status, a_shown_on_left, slot,
                                   holds_place, skip_reason, leased_at, lease_expires_at)
SELECT gen_random_uuid(), taken.id, %(annotator)s, %(project)s, 'leased', random() < 0.5, %(slot)s,
       true, '', clock_timestamp(), %(expires)s
FROM taken
ON CONFLICT (comparison_id, annotator_id) DO UPDATE
   SET status = 'leased', slot = excluded.slot, holds_place = true, leased_at = excluded.leased_at,
       lease_expires_at = excluded.lease_expires_at
RETURNING id
"""


def claim_assignments(*, annotator: Annotator, project: Project) -> list[Assignment]:
    """The annotator's leased comparisons, oldest first, topped up to two where the project has free ones.

    The leases that are held already are renewed. Two people never get the same place: the free comparison is found,
    locked and counted in one statement, which passes over rows that somebody else is claiming at this moment. The
    sides are drawn by Postgres in the same statement and stored.
    """
    with transaction.atomic():
        # One person's tabs take turns; other people are not held up.
        Annotator.objects.select_for_update(no_key=True).get(pk=annotator.pk)
        leased = Assignment.objects.filter(annotator=annotator, project=project, status=AssignmentStatus.LEASED)
        leased.update(lease_expires_at=_lease_end())
        slots = set(leased.values_list("slot", flat=True))
        if project.is_open:
            for slot in range(LEASE_SLOTS):
                if slot not in slots and not _claim_one(annotator, project, slot):
                    break
    return list(
        leased.select_related("comparison__prompt", "comparison__response_a", "comparison__response_b").order_by(
            "leased_at", "id"
        )
    )


def _claim_one(annotator: Annotator, project: Project, slot: int) -> bool:
    values: dict[str, Any] = {"project": project.pk, "annotator": annotator.pk, "slot": slot, "expires": _lease_end()}
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM.format(skip_locked="SKIP LOCKED"), values)
        if cursor.fetchone():
            return True
        # What was passed over may have a second place free: wait for it rather than tell somebody to go home. Where
        # nothing is free this finds no row and waits for nobody.
        cursor.execute(_CLAIM.format(skip_locked=""), values)
        return cursor.fetchone() is not None


def _lease_end() -> datetime:
    return timezone.now() + timedelta(seconds=settings.ASSIGNMENT_LEASE_SECONDS)


def renew_leases(*, annotator: Annotator, project: Project) -> datetime | None:
    """Prolong what the annotator holds; gives the new end, or None where nothing is held any more."""
    ends = _lease_end()
    held = Assignment.objects.filter(annotator=annotator, project=project, status=AssignmentStatus.LEASED)
    return ends if held.update(lease_expires_at=ends) else None


_GIVE_BACK = """
WITH gone AS (
    SELECT id FROM annotation_assignment WHERE status = 'leased' AND {which} FOR UPDATE SKIP LOCKED
), ended AS (
    UPDATE annotation_assignment a SET status = 'expired', holds_place = false FROM gone WHERE a.id = gone.id
    RETURNING a.comparison_id
), counts AS (
    SELECT comparison_id, count(*) AS places FROM ended GROUP BY comparison_id
), returned AS (
    UPDATE annotation_comparison c SET assigned_count = c.assigned_count - counts.places
    FROM counts WHERE c.id = counts.comparison_id
)
SELECT count(*) FROM ended
"""


def expire_assignments() -> int:
    """Give back every place whose lease has run out; gives how many."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_GIVE_BACK.format(which="lease_expires_at < now()"))
        return cursor.fetchone()[0]


def release_assignments(*, annotator: Annotator, project: Project | None = None) -> int:
    """Give back what an annotator holds, everywhere or in one project, as when they leave; gives how many."""
    which, values = "annotator_id = %s", [annotator.pk]
    if project is not None:
        which, values = f"{which} AND project_id = %s", [annotator.pk, project.pk]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_GIVE_BACK.format(which=which), values)
        return cursor.fetchone()[0]


# ── Verdicts ─────────────────────────────────────────────────────────────────────────────────────────────────────


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
            assignment.lease_expires_at = _lease_end()
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
