"""The queue of prompts without an acceptable response: somebody edits the least bad one, or writes their own.

A task's life: open → leased → done | dropped. A lease that ran out, or was given back, makes it open again; what its
holder then saves still counts, unless somebody else has it by that time.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _
from rapidfuzz.distance import Levenshtein

from annotation.content_order import MAX_EDITED_CHARS, check_text
from annotation.errors import ConflictError, DomainError
from annotation.models import (
    Annotator,
    Comparison,
    EventKind,
    Project,
    Response,
    RewriteCause,
    RewriteStatus,
    RewriteTask,
)
from annotation.reasons import DropReason
from annotation.services.journal import record_event
from annotation.services.texts import add_written_response

MAX_SECONDS = 2_147_483_647  # Postgres integer


def queue_rewrite(comparison_id: int, *, cause: RewriteCause) -> RewriteTask:
    """Put a comparison's prompt before those who write responses; once, whatever is said of it later."""
    comparison = Comparison.objects.only("project_id", "prompt_id").get(pk=comparison_id)
    task, _made = RewriteTask.objects.get_or_create(
        comparison=comparison,
        defaults={"project_id": comparison.project_id, "prompt_id": comparison.prompt_id, "cause": cause},
    )
    return task


def claim_rewrite(*, annotator: Annotator, project: Project, after: int = 0) -> RewriteTask | None:
    """The task that the annotator holds here, or else the next open one; None where nothing is left.

    after: the id of a task that they have just given back; those behind it come first.
    """
    with transaction.atomic():
        held = _tasks(project).filter(status=RewriteStatus.LEASED, annotator=annotator).first()
        if held is None:
            if not project.is_open:
                return None
            is_free = Q(status=RewriteStatus.OPEN) | Q(
                status=RewriteStatus.LEASED, lease_expires_at__lt=timezone.now()
            )
            free = _tasks(project).filter(is_free).select_for_update(skip_locked=True, of=("self",), no_key=True)
            held = free.filter(pk__gt=after).order_by("pk").first() or free.order_by("pk").first()
            if held is None:
                return None
        _lease(held, annotator)
        return held


def _tasks(project: Project):  # type: ignore[no-untyped-def]
    return RewriteTask.objects.filter(project=project).select_related(
        "prompt", "comparison__response_a", "comparison__response_b"
    )


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
            task.status, task.annotator, task.lease_expires_at = RewriteStatus.OPEN, None, None
            task.save(update_fields=["status", "annotator", "lease_expires_at"])


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


def count_rewrites(project: Project) -> int:
    """How many prompts wait for a response by people, those that somebody has now included."""
    waiting = RewriteTask.objects.filter(project=project, status__in=[RewriteStatus.OPEN, RewriteStatus.LEASED])
    return waiting.count()
