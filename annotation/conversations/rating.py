"""The page on which an imported conversation is rated, response by response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from annotation.access import MemberRequest, require_role
from annotation.conversations.display import feedback_words
from annotation.conversations.forms import RatingForm, feedback_choices, sentence_of
from annotation.conversations.views import own_conversation, warn_of_guidelines
from annotation.errors import ConflictError, DomainError
from annotation.markdown import Rendered, render_markdown
from annotation.models import Conversation, Project, Rating, Role, Turn
from annotation.protocol import Aspect
from annotation.services import conversations as services
from annotation.services import rating_conversations
from annotation.services.people import annotator_for


@dataclass(frozen=True, slots=True)
class ShownScore:
    aspect: Aspect
    value: int | None

    @property
    def steps(self) -> range:
        return range(self.aspect.low, self.aspect.high + 1)


@dataclass(frozen=True, slots=True)
class ShownTurn:
    position: int
    messages: Sequence[tuple[str, Rendered]]
    """What was said since the response before: (role, text)."""
    response: Rendered
    has_feedback: bool
    """Whether the user answered this response."""
    scores: Sequence[ShownScore]
    note: str
    scenario: str
    deficiency_types: Sequence[str]
    feedback_types: Sequence[str]
    words: Sequence[str | Promise]
    is_rated: bool


@require_role(Role.ANNOTATOR)
@require_POST
def take(request: MemberRequest, project: Project) -> HttpResponse:
    try:
        conversation = rating_conversations.take_conversation(project, annotator_for(request.user))
    except DomainError as refused:
        messages.error(request, str(refused))
        return redirect("converse", project.slug)
    if conversation is None:
        messages.info(request, _("No conversation waits to be rated; somebody else may have taken the last one."))
        return redirect("converse", project.slug)
    return redirect("conversation_rate", conversation.public_id)


@require_http_methods(["GET", "POST"])
@own_conversation
def rate(request: HttpRequest, talk: Conversation) -> HttpResponseBase:
    if talk.source_a_id is not None:
        raise Http404
    if request.method == "GET":
        services.record(talk, "opened")
        rating_conversations.hold_conversation(talk)
        return _page(request, talk)
    form = RatingForm(request.POST, aspects=rating_conversations.rating_aspects(talk.project))
    try:
        if not form.is_valid():
            raise DomainError(sentence_of(form))
        position = form.cleaned_data["position"]
        version = form.cleaned_data["guideline_version"] or 0
        rating_conversations.rate_turn(
            talk,
            position,
            ratings=form.ratings(),
            feedback=form.feedback(),
            note=form.cleaned_data["note"],
            guideline_version=version,
        )
    except DomainError as refused:
        messages.error(request, str(refused))
        return _page(request, talk, form=form, status=409 if isinstance(refused, ConflictError) else 422)
    warn_of_guidelines(request, talk.project, version)
    if "finish" in request.POST:
        services.end_conversation(talk)
        messages.success(request, _("Rated. Everything is saved."))
        return redirect("converse", talk.project.slug)
    return redirect(reverse("conversation_rate", args=[talk.public_id]) + f"#turn-{position + 1}")


@require_POST
@own_conversation
def give_back(request: HttpRequest, talk: Conversation) -> HttpResponseBase:
    rating_conversations.give_back_conversation(talk)
    messages.success(request, _("Somebody else can rate it now. The scores that you gave are kept."))
    return redirect("converse", talk.project.slug)


def _page(
    request: HttpRequest, talk: Conversation, *, form: RatingForm | None = None, status: int = 200
) -> HttpResponse:
    turns = _shown_turns(talk)
    context = {
        "project": talk.project,
        "talk": talk,
        "turns": turns,
        "unrated": sum(not turn.is_rated for turn in turns),
        "open_position": _open_position(turns, form),
        "typed": form,
        "guidelines": render_markdown(talk.project.guidelines) if talk.project.guidelines else None,
        "page_data": {"words": {"draftRestored": _("What you had typed here is back.")}},
        **feedback_choices(),
    }
    return render(request, "conversation_rate.html", context, status=status)


def _open_position(turns: Sequence[ShownTurn], form: RatingForm | None) -> int:
    """The turn whose form is unfolded: the refused one, else the first that is not rated, else none."""
    if form is not None and (position := form.data.get("position", "")).isdecimal():
        return int(position)
    return next((turn.position for turn in turns if not turn.is_rated), -1)


def _shown_turns(talk: Conversation) -> list[ShownTurn]:
    turns = list(talk.turns.select_related("prompt", "kept_response"))
    aspects = rating_conversations.rating_aspects(talk.project)
    given: dict[tuple[int, str], Rating] = {
        (rating.response_id, rating.aspect): rating
        for rating in Rating.objects.filter(
            response__in=[turn.kept_response_id for turn in turns if turn.kept_response_id],
            annotator=talk.annotator_id or 0,
        )
    }
    shown, seen = [], 0
    for turn in turns:
        shown.append(_show(turn, aspects, given, seen, is_answered=turn is not turns[-1]))
        seen = len(turn.prompt.messages) + 1  # the response itself is in the next turn's history
    return shown


def _show(
    turn: Turn, aspects: Sequence[Aspect], given: dict[tuple[int, str], Rating], seen: int, *, is_answered: bool
) -> ShownTurn:
    assert turn.kept_response is not None
    ratings = [given.get((turn.kept_response.pk, aspect.name)) for aspect in aspects]
    return ShownTurn(
        position=turn.position,
        messages=[(message["role"], render_markdown(message["content"])) for message in turn.prompt.messages[seen:]],
        response=render_markdown(turn.kept_response.text),
        has_feedback=is_answered,
        scores=[
            ShownScore(aspect, int(rating.value) if rating and rating.value is not None else None)
            for aspect, rating in zip(aspects, ratings, strict=True)
        ],
        note=next((rating.note for rating in ratings if rating and rating.note), ""),
        scenario=turn.scenario,
        deficiency_types=turn.deficiency_types,
        feedback_types=turn.feedback_types,
        words=feedback_words(turn),
        is_rated=all(ratings),
    )
