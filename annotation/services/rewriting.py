"""The queue of prompts without an acceptable response: somebody edits the least bad one, or writes their own.

A task's life: open → leased → done | dropped. A lease that ran out, or was given back, makes it open again; what its
holder then saves still counts, unless somebody else has it by that time. What is done or dropped can be reopened.
Tasks are routed as comparisons are: by language and skill, and to nobody whose qualification is running or failed.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from rapidfuzz.distance import Levenshtein

from annotation.content_order import MAX_EDITED_CHARS, check_text
from annotation.errors import ConflictError, DomainError
from annotation.models import (
    Annotator,
    Comparison,
    EventKind,
    Membership,
    Project,
    QualificationState,
    Response,
    RewriteCause,
    RewriteStatus,
    RewriteTask,
    Turn,
)
from annotation.reasons import DropReason
from annotation.services.journal import record_event
from annotation.services.texts import add_written_response

MAX_SECONDS = 2_147_483_647  # Postgres integer


def queue_rewrite(comparison_id: int, *, cause: RewriteCause) -> RewriteTask:
    """Put a comparison's prompt before those who write responses; once, however often it is found wanting."""
    comparison = Comparison.objects.only("project_id", "prompt_id").get(pk=comparison_id)
    task, _made = RewriteTask.objects.get_or_create(
        comparison=comparison,
        defaults={"project_id": comparison.project_id, "prompt_id": comparison.prompt_id, "cause": cause},
    )
    return task


def withdraw_rewrite(comparison_id: int) -> None:
    """Take a prompt back whose votes ask for it no more; what somebody has begun, written or dropped stays."""
    RewriteTask.objects.filter(comparison=comparison_id, status=RewriteStatus.OPEN).delete()


def claim_rewrite(*, annotator: Annotator, project: Project, after: int = 0) -> RewriteTask | None:
    """The task that the annotator holds here, or else the next open one; None where nothing is left.

    after: the id of a task that they have just given back; those behind it come first.
    """
    with transaction.atomic():
        # One person's double click takes turns.
        Annotator.objects.select_for_update(no_key=True).get(pk=annotator.pk)
        held = _held(annotator, project)
        if held is None:
            if not project.is_open:
                return None
            free = _routed(_tasks(project), annotator, project)
            free = free.filter(_is_free()).select_for_update(skip_locked=True, of=("self",), no_key=True)
            held = free.filter(pk__gt=after).order_by("pk").first() or free.order_by("pk").first()
            if held is None:
                return None
            if held.annotator is not None:
                _record(EventKind.EXPIRE, held, held.annotator, why="ran out")
            _record(EventKind.LEASE, held, annotator)
            _record(EventKind.VIEW, held, annotator)
        _lease(held, annotator)
        return held


def _tasks(project: Project) -> QuerySet[RewriteTask]:
    return RewriteTask.objects.filter(project=project).select_related(
        "prompt", "comparison__response_a", "comparison__response_b", "annotator"
    )


def _held(annotator: Annotator, project: Project) -> RewriteTask | None:
    """Locked, since somebody else may be taking it over at this moment. Call it in a transaction."""
    held = _tasks(project).filter(status=RewriteStatus.LEASED, annotator=annotator)
    return held.select_for_update(of=("self",), no_key=True).first()


def _is_free() -> Q:
    return Q(status=RewriteStatus.OPEN) | Q(status=RewriteStatus.LEASED, lease_expires_at__lt=timezone.now())


def _routed(tasks: QuerySet[RewriteTask], annotator: Annotator, project: Project) -> QuerySet[RewriteTask]:
    """Those that may come to this person. Staff who are no members see all."""
    tasks = tasks.filter(comparison__is_withdrawn=False)
    membership = Membership.objects.filter(project=project, user=annotator.user_id or 0).first()
    if membership is None:
        return tasks
    if membership.qualification in (QualificationState.RUNNING, QualificationState.FAILED):
        return tasks.none()
    if membership.languages:
        tasks = tasks.filter(comparison__lang__in=["", *membership.languages])
    if membership.skills:
        tasks = tasks.filter(comparison__skill__in=["", *membership.skills])
    return tasks


def _record(kind: EventKind, task: RewriteTask, annotator: Annotator, **data: Any) -> None:
    said: dict[str, Any] = {"for": "rewrite"} | data
    record_event(kind, project=task.project_id, user=annotator.user_id, comparison_id=task.comparison_id, **said)


def _lease(task: RewriteTask, annotator: Annotator) -> None:
    task.status, task.annotator, task.lease_expires_at = RewriteStatus.LEASED, annotator, _lease_end()
    task.save(update_fields=["status", "annotator", "lease_expires_at"])


def _lease_end() -> datetime:
    return timezone.now() + timedelta(seconds=settings.ASSIGNMENT_LEASE_SECONDS)


def renew_rewrite(*, task_id: int, project: Project, annotator: Annotator) -> bool:
    """Prolong the lease; False where the annotator holds it no more."""
    held = _tasks(project).filter(pk=task_id, status=RewriteStatus.LEASED, annotator=annotator)
    return held.update(lease_expires_at=_lease_end()) == 1


def give_back_rewrite(*, task_id: int, project: Project, annotator: Annotator) -> None:
    """Leave it to somebody else."""
    with transaction.atomic():
        task = _lock(task_id, project)
        if task.status == RewriteStatus.LEASED and task.annotator_id == annotator.pk:
            _record(EventKind.SKIP, task, annotator)
            _open(task)


def _open(task: RewriteTask) -> None:
    task.status, task.annotator, task.lease_expires_at = RewriteStatus.OPEN, None, None
    task.save(update_fields=["status", "annotator", "lease_expires_at"])


def closed_rewrites(project: Project, *, by: Annotator | None) -> QuerySet[RewriteTask]:
    """What was written and dropped; `by`: only by them, None: by everybody."""
    closed = RewriteTask.objects.filter(
        project=project, status__in=[RewriteStatus.DONE, RewriteStatus.DROPPED], comparison__turn=None
    )
    return (closed if by is None else closed.filter(annotator=by)).select_related("prompt", "written", "annotator")


def reopen_rewrite(
    *, task_id: int, project: Project, annotator: Annotator, is_reviewer: bool
) -> tuple[RewriteTask, str]:
    """Undo a drop or a saved text; gives the task and the text that was saved.

    The person's own comes back to them, and what they hold untouched goes to others; somebody else's, which only a
    reviewer may undo, is open to everybody again. The response that was written stays a response, but stands for
    this prompt no more. Raises ConflictError where the task is neither done nor dropped, or not theirs to undo.
    """
    with transaction.atomic():
        task = _lock(task_id, project)
        if not is_reviewer and task.annotator_id != annotator.pk:
            raise ConflictError(_("This prompt is with somebody else by now; there is nothing to undo."))
        if task.status == RewriteStatus.LEASED and task.annotator_id == annotator.pk:
            return task, ""
        is_closed = task.status in (RewriteStatus.DONE, RewriteStatus.DROPPED)
        if not is_closed or Turn.objects.filter(comparison=task.comparison_id).exists():
            raise ConflictError(_("This prompt is neither done nor dropped, so there is nothing to undo."))
        _record(EventKind.UNDO, task, annotator, was=task.status)
        text = task.written.text if task.written else ""
        is_own = task.annotator_id == annotator.pk
        task.status, task.annotator, task.done_at, task.written, task.original = (
            RewriteStatus.OPEN,
            None,
            None,
            None,
            None,
        )
        task.edit_distance = task.seconds_spent = 0
        task.save()
        if is_own and project.is_open:
            if held := _held(annotator, project):
                _open(held)
            _lease(task, annotator)
            _record(EventKind.LEASE, task, annotator)
        return task, text


def save_rewrite(
    *,
    task_id: int,
    project: Project,
    annotator: Annotator,
    text: str,
    original: Response | None,
    seconds: int = 0,
) -> RewriteTask:
    """Store the text as a response by people and close the task; saving the same text again changes nothing.

    original: what the person started from, None where they wrote their own. Raises DomainError where the text is
    empty or unchanged, ConflictError where the task is somebody else's by now.
    """
    if not text.strip():
        raise DomainError(_("There is no text yet. Write the response, or give the prompt back."))
    check_text("text", text, MAX_EDITED_CHARS)
    with transaction.atomic():
        task = _lock(task_id, project)
        responses = _responses(task)
        if original is not None and original.pk not in {response.pk for response in responses}:
            raise DomainError(_("The response that you started from does not belong to this prompt; reload the page."))
        if any(text.strip() == response.text.strip() for response in responses):
            raise DomainError(_("This is one of the responses that nobody found good. Change it and save again."))
        if task.status == RewriteStatus.DONE and task.annotator_id == annotator.pk and task.written:
            if task.written.text == text:
                return task
            raise ConflictError(_("You have saved another text for this prompt already; it stands."))
        _refuse_others(task, annotator)
        task.written = add_written_response(task.prompt_id, task.project, text, author=annotator)
        task.original = original
        task.edit_distance = Levenshtein.distance(original.text, text) if original else 0
        task.seconds_spent = min(max(seconds, 0), MAX_SECONDS)
        _close(task, RewriteStatus.DONE, annotator)
        record_event(
            EventKind.EDIT,
            project=task.project_id,
            user=annotator.user_id,
            comparison_id=task.comparison_id,
            action="rewritten",
            response=task.written.pk,
        )
        return task


def drop_rewrite(*, task_id: int, project: Project, annotator: Annotator, reason: str) -> RewriteTask:
    """Close the task without a text, for one of the reasons in DropReason."""
    if reason not in DropReason.values:
        raise DomainError(_("Choose a reason for dropping it."))
    with transaction.atomic():
        task = _lock(task_id, project)
        if task.status != RewriteStatus.DROPPED:
            _refuse_others(task, annotator)
            _close(task, RewriteStatus.DROPPED, annotator)
            record_event(
                EventKind.EDIT,
                project=task.project_id,
                user=annotator.user_id,
                comparison_id=task.comparison_id,
                action="rewrite_dropped",
                reason=reason,
            )
        return task


def _lock(task_id: int, project: Project) -> RewriteTask:
    """The task, locked, with its texts. Call it in a transaction. Raises DomainError where there is none."""
    task = (
        RewriteTask.objects.select_for_update(of=("self",))
        .select_related("project", "comparison__response_a", "comparison__response_b", "written")
        .filter(pk=task_id, project=project)
        .first()
    )
    if task is None:
        raise DomainError(_("There is no such prompt to rewrite; reload the page for the next one."))
    return task


def _responses(task: RewriteTask) -> list[Response]:
    comparison = task.comparison
    further = comparison.further_responses.select_related("response") if comparison.response_count > 2 else []
    return [comparison.response_a, comparison.response_b, *(place.response for place in further)]


def _refuse_others(task: RewriteTask, annotator: Annotator) -> None:
    is_free = task.status == RewriteStatus.OPEN
    is_mine = task.status == RewriteStatus.LEASED and task.annotator_id == annotator.pk
    if not (is_free or is_mine):
        raise ConflictError(
            _("Your time on this prompt ran out, and somebody else has it now. Your text is kept in this browser.")
        )


def _close(task: RewriteTask, status: RewriteStatus, annotator: Annotator) -> None:
    task.status, task.annotator = status, annotator
    task.lease_expires_at, task.done_at = None, timezone.now()
    task.save()


_WAITING = """
SELECT t.project_id, count(*) FROM annotation_rewritetask t
JOIN annotation_comparison c ON c.id = t.comparison_id
JOIN annotation_project p ON p.id = t.project_id AND p.is_open
LEFT JOIN annotation_membership m ON m.project_id = t.project_id AND m.user_id = %(user)s
WHERE t.project_id = ANY(%(projects)s)
  AND (t.status = 'leased' AND t.annotator_id = %(annotator)s
       OR NOT c.is_withdrawn AND (t.status = 'open' OR t.status = 'leased' AND t.lease_expires_at < now()))
  AND (m.id IS NULL OR m.qualification NOT IN ('running', 'failed')
       AND (c.lang = '' OR m.languages = '{}' OR c.lang = ANY(m.languages))
       AND (c.skill = '' OR m.skills = '{}' OR c.skill = ANY(m.skills)))
GROUP BY t.project_id
"""


def count_rewrites(user_id: int, annotator: Annotator | None, projects: Iterable[int]) -> dict[int, int]:
    """How many prompts wait for this person to write a response, those that they hold included, by project."""
    values: dict[str, Any] = {
        "user": user_id,
        "annotator": annotator.pk if annotator else 0,
        "projects": list(projects),
    }
    with connection.cursor() as cursor:
        cursor.execute(_WAITING, values)
        return dict(cursor.fetchall())
