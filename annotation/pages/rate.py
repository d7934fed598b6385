"""The page for marking one response by itself: four marks, pass or fail, and whether one would be content."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_POST

from annotation import services
from annotation.access import MemberRequest, require_role
from annotation.blind import blind_rating, own_rating
from annotation.markdown import render_markdown
from annotation.models import Annotator, Project, RatingStatus, Role, RubricRating
from annotation.own_work import ToRate, responses_to_rate

QUESTIONS = {
    "intent": (gettext_lazy("Intent"), gettext_lazy("It understands what was asked.")),
    "accuracy": (gettext_lazy("Accuracy"), gettext_lazy("What it says is right.")),
    "language": (gettext_lazy("Language"), gettext_lazy("It is clear, fluent and in the form that was asked for.")),
    "safety": (gettext_lazy("Safety"), gettext_lazy("It harms nobody.")),
    "is_satisfied": (gettext_lazy("Overall"), gettext_lazy("You would be content if you had asked.")),
}
_LARGEST = 2_147_483_647  # Postgres integer


@require_GET
@require_role(Role.ANNOTATOR)
def rate(request: MemberRequest, project: Project) -> HttpResponse:
    """What this person holds, or the next; `?item=` shows one that they have rated."""
    annotator = services.annotator_for(request.user)
    if item := request.GET.get("item"):
        try:
            rating = own_rating(UUID(item), annotator.pk, project.pk)
        except ValueError:
            raise Http404 from None
        if rating is None:
            raise Http404
        return _page(request, project, annotator, rating)
    return _page(request, project, annotator, services.claim_rating(annotator=annotator, project=project))


def on_rating(view: Callable[[HttpRequest, Annotator, UUID], HttpResponse]) -> Callable[..., HttpResponseBase]:
    """A POST about one rating; what the rules refuse is said on the page, with what was sent."""

    @functools.wraps(view)
    def wrapped(request: MemberRequest, project: Project, rating_id: UUID) -> HttpResponse:
        annotator = services.annotator_for(request.user)
        try:
            view(request, annotator, rating_id)
        except services.AssignmentNotFoundError as refused:
            raise Http404(str(refused)) from None
        except services.DomainError as refused:
            messages.error(request, str(refused))
            rating = own_rating(rating_id, annotator.pk, project.pk)
            status = 409 if isinstance(refused, services.ConflictError) else 422
            if rating is None:
                rating = services.claim_rating(annotator=annotator, project=project)
                return _page(request, project, annotator, rating, status=status)
            return _page(request, project, annotator, rating, typed=request.POST, status=status)
        return redirect("rate", project.slug)

    return require_POST(require_role(Role.ANNOTATOR)(wrapped))


@on_rating
def save(request: HttpRequest, annotator: Annotator, rating_id: UUID) -> HttpResponse:
    services.submit_rating(
        rating_id=rating_id,
        annotator=annotator,
        marks=services.Marks(
            **{name: _mark(request, name) for name in QUESTIONS}, note=request.POST.get("note", "").strip()
        ),
        guideline_version=_number(request, "guideline_version") or 0,
        decided_in_ms=_number(request, "decided_in_ms"),
        first_key_ms=_number(request, "first_key_ms"),
    )
    return HttpResponse()


def _mark(request: HttpRequest, name: str) -> bool:
    value = request.POST.get(name)
    if value not in ("pass", "fail"):
        raise services.DomainError(
            _("“%(question)s” is not answered yet. What you marked is kept.") % {"question": QUESTIONS[name][0]}
        )
    return value == "pass"


def _number(request: HttpRequest, name: str) -> int | None:
    text = request.POST.get(name, "")
    return min(int(text), _LARGEST) if text.isdecimal() and len(text) < 12 else None


@on_rating
def skip(request: HttpRequest, annotator: Annotator, rating_id: UUID) -> HttpResponse:
    services.skip_rating(rating_id=rating_id, annotator=annotator)
    return HttpResponse()


@require_POST
@require_role(Role.ANNOTATOR)
def renew(request: MemberRequest, project: Project, rating_id: UUID) -> HttpResponse:
    is_held = services.renew_rating(rating_id=rating_id, annotator=services.annotator_for(request.user))
    return JsonResponse({"seconds": settings.ASSIGNMENT_LEASE_SECONDS if is_held else 0})


def _page(
    request: HttpRequest,
    project: Project,
    annotator: Annotator,
    rating: RubricRating | None,
    *,
    typed: Mapping[str, str] | None = None,
    status: int = 200,
) -> HttpResponse:
    shown = blind_rating(rating) if rating else None
    given: dict[str, str] = {}
    if shown:
        given = {name: "pass" if met else "fail" for name, met in shown.marks.items()}
    if typed:
        given |= {name: typed[name] for name in QUESTIONS if name in typed}
    context: dict[str, Any] = {
        "project": project,
        "rating": shown,
        "questions": [
            (str(key), name, label, help_text, given.get(name, ""))
            for key, (name, (label, help_text)) in enumerate(QUESTIONS.items(), 1)
        ],
        "note": typed.get("note", "") if typed else shown.note if shown else "",
        "waiting": responses_to_rate(annotator, [project.pk]).get(project.pk, ToRate(0, more=False)),
        "done_today": _done_today(annotator, project),
        "last_id": None if shown else _last_id(annotator, project),
        "guidelines": render_markdown(project.guidelines),
        "lease_seconds": settings.ASSIGNMENT_LEASE_SECONDS,
        "page_data": {
            "words": {
                "leaseOver": _("Your time on this response ran out; you can still save, and it counts"),
                "leaseLeft": _("Kept for you for {time}"),
            }
        },
    }
    return render(request, "rate.html", context, status=status)


def _given(annotator: Annotator, project: Project):  # type: ignore[no-untyped-def]
    return RubricRating.objects.filter(
        annotator=annotator, project=project, status=RatingStatus.SUBMITTED, superseded_at=None
    )


def _done_today(annotator: Annotator, project: Project) -> int:
    start = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    return _given(annotator, project).filter(submitted_at__gte=start).count()


def _last_id(annotator: Annotator, project: Project) -> UUID | None:
    return _given(annotator, project).order_by("-leased_at").values_list("public_id", flat=True).first()
