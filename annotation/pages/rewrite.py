"""The page for writing a response where every response was found wanting."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from annotation import services
from annotation.access import MemberRequest, has_role, require_role
from annotation.blind import BlindRewrite, blind_rewrite
from annotation.markdown import render_markdown
from annotation.models import Annotator, Project, RewriteStatus, RewriteTask, Role
from annotation.pages.compare_form import reasons
from annotation.reasons import DropReason

CLOSED_SHOWN = 100


@require_GET
@require_role(Role.ANNOTATOR)
def rewrite(request: MemberRequest, project: Project) -> HttpResponse:
    """The prompt that this person holds, or the next; `?from=` starts from one of the responses without scripts."""
    annotator = services.annotator_for(request.user)
    after = request.GET.get("after", "")
    task = services.claim_rewrite(
        annotator=annotator, project=project, after=int(after) if after.isdigit() and len(after) < 19 else 0
    )
    return _page(
        request, project, annotator, task, start=request.GET.get("from", ""), undo=request.GET.get("undo", "")
    )


def on_task(
    view: Callable[[HttpRequest, Project, Annotator, int], HttpResponse],
) -> Callable[..., HttpResponseBase]:
    """A POST about one task; what the rules refuse is said on the page, with the text that was sent."""

    @functools.wraps(view)
    def wrapped(request: MemberRequest, project: Project, task_id: int) -> HttpResponse:
        annotator = services.annotator_for(request.user)
        try:
            return view(request, project, annotator, task_id)
        except services.DomainError as refused:
            messages.error(request, str(refused))
            task = services.claim_rewrite(annotator=annotator, project=project)
            status = 409 if isinstance(refused, services.ConflictError) else 422
            typed = request.POST.get("text", "") if task and task.pk == task_id else ""
            return _page(
                request, project, annotator, task, start=request.POST.get("start", ""), typed=typed, status=status
            )

    return require_POST(require_role(Role.ANNOTATOR)(wrapped))


@on_task
def save(request: HttpRequest, project: Project, annotator: Annotator, task_id: int) -> HttpResponse:
    start, seconds = request.POST.get("start", ""), request.POST.get("seconds", "")
    task = RewriteTask.objects.filter(pk=task_id, project=project).select_related(*_TEXTS).first()
    responses = blind_rewrite(task, annotator.pk).responses if task else []
    services.save_rewrite(
        task_id=task_id,
        project=project,
        annotator=annotator,
        # Browsers send a form's line breaks as two characters.
        text=request.POST.get("text", "").replace("\r\n", "\n"),
        original=responses[int(start)] if start.isdigit() and int(start) < len(responses) else None,
        seconds=int(seconds) if seconds.isdigit() and len(seconds) < 10 else 0,
    )
    messages.success(request, _("Your response is saved. Thank you; here is the next prompt, if there is one."))
    return redirect(reverse("rewrite", args=[project.slug]) + f"?undo={task_id}")


_TEXTS = ("prompt", "comparison__response_a", "comparison__response_b")


@on_task
def drop(request: HttpRequest, project: Project, annotator: Annotator, task_id: int) -> HttpResponse:
    services.drop_rewrite(task_id=task_id, project=project, annotator=annotator, reason=request.POST.get("reason", ""))
    messages.success(request, _("Dropped: nobody is asked for it again."))
    return redirect(reverse("rewrite", args=[project.slug]) + f"?undo={task_id}")


@on_task
def reopen(request: HttpRequest, project: Project, annotator: Annotator, task_id: int) -> HttpResponse:
    """Undo one's own drop or text; reviewers also those of others, which are open to everybody then."""
    is_reviewer = has_role(request.user, project, Role.REVIEWER)
    task, text = services.reopen_rewrite(
        task_id=task_id, project=project, annotator=annotator, is_reviewer=is_reviewer
    )
    if task.annotator_id != annotator.pk:
        messages.success(request, _("It is open again: whoever rewrites next may get it."))
        return redirect("rewrites_closed", project.slug)
    messages.success(request, _("It is yours again."))
    held = services.claim_rewrite(annotator=annotator, project=project)
    return _page(request, project, annotator, held, typed=text)


@require_GET
@require_role(Role.ANNOTATOR)
def closed(request: MemberRequest, project: Project) -> HttpResponse:
    """What was written and dropped lately: one's own, and to reviewers everybody's."""
    is_reviewer = has_role(request.user, project, Role.REVIEWER)
    tasks = services.closed_rewrites(project, by=None if is_reviewer else services.annotator_for(request.user))
    shown = tasks.order_by("-done_at", "-pk")[:CLOSED_SHOWN]
    context = {"project": project, "tasks": shown, "is_reviewer": is_reviewer, "most": CLOSED_SHOWN}
    return render(request, "rewrites_closed.html", context)


@on_task
def give_back(request: HttpRequest, project: Project, annotator: Annotator, task_id: int) -> HttpResponse:
    services.give_back_rewrite(task_id=task_id, project=project, annotator=annotator)
    return redirect(reverse("rewrite", args=[project.slug]) + f"?after={task_id}")


@require_POST
@require_role(Role.ANNOTATOR)
def renew(request: MemberRequest, project: Project, task_id: int) -> HttpResponse:
    annotator = services.annotator_for(request.user)
    is_held = services.renew_rewrite(task_id=task_id, project=project, annotator=annotator)
    return JsonResponse({"seconds": settings.ASSIGNMENT_LEASE_SECONDS if is_held else 0})


def _page(
    request: HttpRequest,
    project: Project,
    annotator: Annotator,
    task: RewriteTask | None,
    *,
    start: str = "",
    typed: str = "",
    undo: str = "",
    status: int = 200,
) -> HttpResponse:
    if undo.isdigit() and len(undo) < 19:
        closed = RewriteTask.objects.filter(pk=int(undo), project=project, annotator=annotator)
        undo = undo if closed.filter(status__in=[RewriteStatus.DONE, RewriteStatus.DROPPED]).exists() else ""
    else:
        undo = ""
    waiting = services.count_rewrites(annotator.user_id or 0, annotator, [project.pk])
    shown = blind_rewrite(task, annotator.pk) if task else None
    context: dict[str, Any] = {
        "project": project,
        "task": shown,
        "text": typed or _text_of(shown, start),
        "start": start if shown and start.isdigit() and int(start) < len(shown.sides) else "",
        "waiting": waiting.get(project.pk, 0),
        "undo": undo,
        "guidelines": render_markdown(project.guidelines),
        "drop_reasons": reasons(DropReason),
        "lease_seconds": settings.ASSIGNMENT_LEASE_SECONDS,
        "page_data": {"words": _words(), "texts": shown.texts if shown else []},
    }
    return render(request, "rewrite.html", context, status=status)


def _text_of(shown: BlindRewrite | None, start: str) -> str:
    if shown and start.isdigit() and int(start) < len(shown.texts):
        return shown.texts[int(start)]
    return ""


def _words() -> dict[str, str]:
    return {
        "unchanged": _("Nothing is changed yet."),
        "changed": _("Words out: {removed}, in: {added}, time: {time}"),
        "own": _("{words} words of your own, time: {time}"),
        "leaseOver": _("Your time on this prompt ran out; you can still save unless somebody else has it"),
        "leaseLeft": _("Kept for you for {time}"),
        "draftRestored": _("What you had typed here is back."),
        "replaced": _("Your text was replaced by response {name}."),
        "undo": _("Undo"),
    }
