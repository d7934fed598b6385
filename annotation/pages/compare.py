"""Pages for people who judge. A script asks for fragments with `X-Requested-With: fetch`; others get pages."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Concatenate, ParamSpec
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html
from django.utils.timezone import is_aware
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from annotation import services
from annotation.blind import (
    BlindComparison,
    Filled,
    blind_comparison,
    for_display,
    previous_assignment_id,
    shown_texts,
)
from annotation.models import Annotator, Assignment, Project
from annotation.own_work import responses_to_rate, todays_progress
from annotation.pages.answers import read_answer, typed_answer
from annotation.pages.compare_form import compare_context, fragment_context
from annotation.protocol import Protocol

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponse]


def _wants_fragment(request: HttpRequest) -> bool:
    return request.headers.get("X-Requested-With") == "fetch"


def _person(request: HttpRequest) -> User:
    assert not isinstance(request.user, AnonymousUser)
    return request.user


def signed_in(view: View[P]) -> View[P]:
    """Send strangers to the sign-in page; tell a script in one sentence, so that it keeps the vote."""

    @functools.wraps(view)
    def wrapped(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        if request.user.is_authenticated:
            return view(request, *args, **kwargs)
        if _wants_fragment(request):
            return _sentence("You are signed out. Sign in again; your votes wait in this browser.", 401)
        back = request.get_full_path() if request.method == "GET" else reverse("home")
        return redirect_to_login(back)

    return never_cache(wrapped)


def _sentence(text: str, status: int) -> HttpResponse:
    return HttpResponse(text, status=status, content_type="text/plain; charset=utf-8")


def _status_of(error: services.DomainError) -> int:
    if isinstance(error, services.AssignmentNotFoundError):
        return 404
    return 409 if isinstance(error, services.ConflictError) else 422


# ── Comparing ────────────────────────────────────────────────────────────────────────────────────────────────────


@require_GET
@signed_in
def compare(request: HttpRequest, slug: str) -> HttpResponse:
    if _wants_fragment(request) and not Project.objects.filter(slug=slug, members=_person(request)).exists():
        return _sentence(_("You are no longer in this project. What you saved is kept."), 403)
    project = _project_of(request, slug=slug)
    annotator = services.annotator_for(_person(request))
    if _wants_fragment(request):
        leased = services.claim_assignments(annotator=annotator, project=project, known=_known(request))
        return _fragments(request, project, leased)
    shown = None
    if item := request.GET.get("item"):
        try:
            shown = for_display(UUID(item), annotator.pk)
        except ValueError:
            raise Http404 from None
    return _page(request, annotator, project, shown=shown)


def on_assignment(view: Callable[[HttpRequest, Annotator, UUID], HttpResponse]) -> Callable[..., HttpResponse]:
    """A POST about one assignment; what the rules refuse is answered with its sentence."""

    @require_POST
    @signed_in
    @functools.wraps(view)
    def wrapped(request: HttpRequest, assignment_id: UUID) -> HttpResponse:
        annotator = services.annotator_for(_person(request))
        try:
            return view(request, annotator, assignment_id)
        except services.DomainError as refused:
            return _refusal(request, annotator, assignment_id, str(refused), _status_of(refused))

    return wrapped


@on_assignment
def judge(request: HttpRequest, annotator: Annotator, assignment_id: UUID) -> HttpResponse:
    judgment_id, answer = read_answer(request.POST, lambda: shown_texts(assignment_id, annotator.pk))
    if _wants_fragment(request):
        stored, shown = services.judge_and_claim(
            assignment_id=assignment_id,
            annotator=annotator,
            judgment_id=judgment_id,
            answer=answer,
            known=_known(request),
        )
        assert stored.assignment is not None
        return _fragments(request, stored.assignment.project, shown)
    judgment = services.submit_judgment(
        assignment_id=assignment_id, annotator=annotator, judgment_id=judgment_id, answer=answer
    )
    assert judgment.assignment is not None
    project = judgment.assignment.project
    if answer.guideline_version < project.guideline_version:
        changed = _("The guidelines changed. What you saved was given under the ones you had.")
        link = reverse("project_guidelines", args=[project.slug])
        messages.warning(request, format_html('{} <a href="{}">{}</a>', changed, link, _("Read them")))
    return back_to_work(request, project)


@on_assignment
def skip(request: HttpRequest, annotator: Annotator, assignment_id: UUID) -> HttpResponse:
    reason = request.POST.get("reason", "")
    skipped = services.skip_assignment(assignment_id=assignment_id, annotator=annotator, reason=reason)
    if not _wants_fragment(request):
        return back_to_work(request, skipped.project)
    shown = services.claim_assignments(annotator=annotator, project=skipped.project, known=_known(request))
    return _fragments(request, skipped.project, shown)


@on_assignment
def undo(request: HttpRequest, annotator: Annotator, assignment_id: UUID) -> HttpResponse:
    assignment = services.undo_assignment(assignment_id=assignment_id, annotator=annotator)
    if not _wants_fragment(request):
        return redirect(reverse("compare", args=[assignment.project.slug]) + f"?item={assignment_id}")
    shown = for_display(assignment_id, annotator.pk)
    return HttpResponse(_fragment(request, assignment.project, shown)) if shown else HttpResponse(status=204)


@require_POST
@signed_in
def renew_lease(request: HttpRequest, slug: str) -> HttpResponse:
    project = _project_of(request, slug=slug)
    annotator = services.annotator_for(_person(request))
    ends = services.renew_leases(annotator=annotator, project=project)
    with contextlib.suppress(ValueError):  # a page without scripts, or an old one, does not say what it shows
        services.record_view(
            assignment_id=UUID(request.POST.get("shown", "")),
            annotator=annotator,
            client_at=_browser_time(request.POST.get("shown_at", "")),
        )
    return JsonResponse({"seconds": settings.ASSIGNMENT_LEASE_SECONDS if ends else 0})


def back_to_work(request: HttpRequest, project: Project) -> HttpResponse:
    """To the page for comparing; home, with a word about it, where somebody was taken off the project meanwhile."""
    if _is_member(request, project):
        return redirect("compare", project.slug)
    messages.info(request, _("This is saved. You are no longer in %(name)s.") % {"name": project.name})
    return redirect("home")


def _is_member(request: HttpRequest, project: Project) -> bool:
    return Project.objects.filter(pk=project.pk, members=_person(request)).exists()


def _browser_time(text: str) -> datetime | None:
    try:
        time = parse_datetime(text)
    except ValueError:
        return None
    return time if time and is_aware(time) else None


def _project_of(request: HttpRequest, **which: object) -> Project:
    return get_object_or_404(Project, members=_person(request), **which)


def _known(request: HttpRequest) -> set[UUID]:
    """The assignments that the browser has already."""
    sent = request.GET if request.method == "GET" else request.POST
    known = set()
    for text in sent.getlist("held"):
        with contextlib.suppress(ValueError):
            known.add(UUID(text))
    return known


def _fragments(request: HttpRequest, project: Project, shown: Iterable[Assignment]) -> HttpResponse:
    fragments = [_fragment(request, project, blind_comparison(assignment)) for assignment in shown]
    response = HttpResponse("".join(fragments)) if fragments else HttpResponse(status=204)
    response["X-Guideline-Version"] = str(project.guideline_version)
    return response


def _fragment(request: HttpRequest, project: Project, comparison: BlindComparison) -> str:
    return render_to_string("_comparison.html", fragment_context(project, comparison))


def _refusal(
    request: HttpRequest, annotator: Annotator, assignment_id: UUID, sentence: str, status: int
) -> HttpResponse:
    """Say why, and keep what was typed."""
    if _wants_fragment(request):
        return _sentence(sentence, status)
    assignment = (
        Assignment.objects.filter(public_id=assignment_id, annotator=annotator).select_related("project").first()
    )
    if assignment is None:
        raise Http404(sentence)
    messages.error(request, sentence)
    project = assignment.project
    if not _is_member(request, project):
        messages.info(request, _("You are no longer in this project. What you saved is kept."))
        return redirect("home")
    shown = for_display(assignment_id, annotator.pk)
    return _page(request, annotator, project, shown=shown, typed=typed_answer(request.POST), status=status)


def _page(
    request: HttpRequest,
    annotator: Annotator,
    project: Project,
    *,
    shown: BlindComparison | None = None,
    typed: Filled | None = None,
    status: int = 200,
) -> HttpResponse:
    leased = services.claim_assignments(annotator=annotator, project=project)
    last = previous_assignment_id(annotator_id=annotator.pk, project_id=project.pk)
    queue = [blind_comparison(assignment, previous_id=last) for assignment in leased]
    if shown is not None:
        queue = [shown, *(item for item in queue if item.assignment_id != shown.assignment_id)]
    if queue:
        services.record_view(assignment_id=queue[0].assignment_id, annotator=annotator)
    context = compare_context(project, queue, typed=typed)
    context |= {"last_id": last, "today": todays_progress(annotator, project, held=len(leased))}
    if Protocol.of(project).asks_for_rewrites:
        waiting = services.count_rewrites(annotator.user_id or 0, annotator, [project.pk])
        context |= {"rewrite_count": waiting.get(project.pk, 0), "asks_for_rewrites": True}
    context["to_rate"] = responses_to_rate(annotator, [project.pk]).get(project.pk)
    return render(request, "compare.html", context, status=status)
