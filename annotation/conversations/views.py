"""Pages on which a person talks to a project's models.

A script asks with `X-Requested-With: fetch` and gets turns; others get whole pages.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Iterator
from uuid import UUID, uuid4

from django.contrib import messages
from django.contrib.auth.models import User
from django.contrib.auth.views import redirect_to_login
from django.db.models import Count, Max
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
    StreamingHttpResponse,
)
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation.access import MemberRequest, has_role, require_role, role_in
from annotation.conversations.display import show_conversation, show_sides
from annotation.conversations.forms import (
    TASKS,
    FeedbackForm,
    SourcesForm,
    StartForm,
    feedback_choices,
    sentence_of,
)
from annotation.conversations.writing import BusyError, SideView, Watch, start_writing
from annotation.errors import ConflictError, DomainError
from annotation.markdown import render_markdown
from annotation.models import (
    Conversation,
    Project,
    Prompt,
    Role,
    SideStatus,
    Turn,
)
from annotation.pages.answers import read_answer
from annotation.protocol import Protocol
from annotation.services import conversations as services
from annotation.services import rating_conversations, turns
from annotation.services.people import annotator_for

RETRY_SECONDS = 3
SUGGESTIONS = 4
SHOWN_CONVERSATIONS = 20


# ── The list, and starting ───────────────────────────────────────────────────────────────────────────────────────


@require_role(Role.ANNOTATOR)
@require_http_methods(["GET", "POST"])
def converse(request: MemberRequest, project: Project) -> HttpResponse:
    annotator = annotator_for(request.user)
    holds_talks = Protocol.of(project).conversations
    imported = Conversation.objects.filter(project=project, source_a=None)
    if not holds_talks and (request.method == "POST" or not imported.exists()):
        raise Http404
    form = StartForm(request.POST if request.method == "POST" else None)
    status = 200
    if request.method == "POST":
        status = 422
        if not form.is_valid():
            messages.error(request, sentence_of(form))
        else:
            data = form.cleaned_data
            try:
                conversation = services.start_conversation(
                    project=project,
                    annotator=annotator,
                    conversation_id=data["conversation_id"],
                    text=services.question_of(project, data["suggested"]) if data["suggested"] else data["text"],
                    task=data["task"],
                    lang=data["lang"],
                )
            except DomainError as refused:
                messages.error(request, str(refused))
                status = 409 if isinstance(refused, ConflictError) else 422
            else:
                return redirect("conversation", conversation.public_id)
    mine = (
        Conversation.objects.filter(project=project, annotator=annotator)
        .annotate(turn_count=Count("turns"), last_at=Max("turns__created_at"))
        .order_by("-last_at")
    )
    context = {
        "project": project,
        "form": form,
        "conversation_id": uuid4(),
        "holds_talks": holds_talks,
        "has_sources": project.conversation_sources.exists(),
        "is_admin": has_role(request.user, project, Role.ADMIN),
        "open_ones": _with_first_message(mine.filter(ended_at=None, source_a__isnull=False)),
        "rate_count": rating_conversations.conversations_to_rate(project, annotator).count(),
        "rating_ones": _with_first_message(mine.filter(ended_at=None, source_a=None)),
        "ended_count": mine.filter(source_a__isnull=False).exclude(ended_at=None).count(),
        "suggestions": _suggestions(project) if holds_talks else [],
        "tasks": TASKS,
    }
    return render(request, "conversation_start.html", context, status=status)


def _with_first_message(conversations: object) -> list[tuple[Conversation, str]]:
    shown = list(conversations[:SHOWN_CONVERSATIONS])  # type: ignore[index]
    first = {
        turn.conversation_id: turn.prompt.messages[-1]["content"]
        for turn in Turn.objects.filter(conversation__in=shown, position=0).select_related("prompt")
    }
    return [(conversation, first.get(conversation.pk, "")) for conversation in shown]


def _suggestions(project: Project) -> list[Prompt]:
    """A few of the project's own questions, from a place in the table drawn by chance."""
    asked = project.prompts.filter(turn=None, archived_at=None, messages__1__isnull=True).order_by("pk")
    start = random.randint(0, project.prompts.aggregate(last=Max("pk"))["last"] or 0)
    found = list(asked.filter(pk__gte=start)[:SUGGESTIONS])
    return found + list(asked.filter(pk__lt=start)[: SUGGESTIONS - len(found)])


@require_role(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def sources(request: MemberRequest, project: Project) -> HttpResponse:
    chosen = list(project.conversation_sources.values_list("source_id", flat=True))
    form = SourcesForm(request.POST if request.method == "POST" else None, initial={"sources": chosen})
    if request.method == "POST" and form.is_valid():
        services.set_conversation_sources(project, form.chosen(), by=request.user)
        messages.success(request, _("Saved. New conversations are held with these models."))
        return redirect("conversation_sources", project.slug)
    context = {"project": project, "form": form, "protocol": Protocol.of(project)}
    return render(request, "conversation_sources.html", context, status=422 if form.errors else 200)


# ── One conversation ─────────────────────────────────────────────────────────────────────────────────────────────


def _wants_fragment(request: HttpRequest) -> bool:
    return request.headers.get("X-Requested-With") == "fetch"


def _sentence(text: str, status: int) -> HttpResponse:
    return HttpResponse(text, status=status, content_type="text/plain; charset=utf-8")


View = Callable[[HttpRequest, Conversation], HttpResponseBase]


def own_conversation(view: View) -> Callable[[HttpRequest, UUID], HttpResponseBase]:
    """A view of a person's own conversation; what the rules refuse is answered with its sentence."""

    @functools.wraps(view)
    def wrapped(request: HttpRequest, conversation_id: UUID) -> HttpResponseBase:
        if not isinstance(request.user, User):
            if _wants_fragment(request):
                return _sentence(_("You are signed out. Sign in again; what you typed is kept in this browser."), 401)
            return redirect_to_login(request.path)
        conversation = (
            Conversation.objects.filter(public_id=conversation_id, annotator__user=request.user)
            .select_related("project", "annotator")
            .first()
        )
        if conversation is None:
            lost = rating_conversations.why_not_held(conversation_id, request.user)
            if lost is None or role_in(request.user, lost[0]) is None:
                raise Http404
            project, sentence = lost
            if request.method == "POST":
                sentence += " " + _("What you sent just now was not saved; it is kept in this browser.")
            messages.warning(request, sentence)
            return redirect("converse", project.slug)
        if role_in(request.user, conversation.project) is None:
            removed = _("You are no longer in this project. What you saved is kept.")
            if request.method == "POST":
                removed = _(
                    "You are no longer in this project, so this was not saved. Everything from before is kept. "
                    "Ask one of the project’s admins."
                )
            if _wants_fragment(request):
                return _sentence(removed, 403)
            messages.error(request, removed)
            return redirect("home")
        try:
            return view(request, conversation)
        except DomainError as refused:
            status = 409 if isinstance(refused, ConflictError) else 422
            if _wants_fragment(request):
                return _sentence(str(refused), status)
            messages.error(request, str(refused))
            return _page(request, conversation, status=status)

    return never_cache(wrapped)


@require_GET
@own_conversation
def conversation(request: HttpRequest, talk: Conversation) -> HttpResponseBase:
    if talk.source_a_id is None:
        return redirect("conversation_rate", talk.public_id)
    if _wants_fragment(request):
        since = request.GET.get("since", "")
        return _turns(request, talk, since=int(since) if since.isdecimal() and len(since) < 4 else 0)
    if "whole" in request.GET:  # without scripts nobody opens the stream
        try:
            start_writing(_last(talk))
        except BusyError:
            messages.warning(request, _("The models are busy with others. This page tries again by itself."))
    else:
        services.record(talk, "opened")
    return _page(request, talk)


@require_GET
@own_conversation
def stream(request: HttpRequest, talk: Conversation) -> HttpResponseBase:
    """The last turn's responses as they are written: lines of JSON.

    `{"side": "A", "text": …}` is all that has arrived, `{"side": "A", "more": …}` what comes after it, `{"side": "A",
    "html": …}` the panel of a response that has ended. An empty line means that nothing is new.
    """
    turn = _last(talk)
    try:
        watch = Watch(turn)
    except BusyError:
        response = _sentence(_("The models are busy with others. This page tries again by itself."), 503)
        response["Retry-After"] = str(RETRY_SECONDS)
        response._has_been_logged = True  # type: ignore[attr-defined]  # expected, and asked again every few seconds
        return response
    answer = StreamingHttpResponse(_Lines(request, talk, turn, watch), content_type="application/x-ndjson")
    answer["X-Accel-Buffering"] = "no"  # nginx would hold the words back
    return answer


class _Lines:
    """The body of a stream; gives its place back when the browser leaves, also before the first line."""

    def __init__(self, request: HttpRequest, talk: Conversation, turn: Turn, watch: Watch) -> None:
        self.request, self.talk, self.turn, self.watch = request, talk, turn, watch
        self.names = {position: side.name for position, side in show_sides(turn).items()}
        self.sent: dict[str, str] = {}

    def close(self) -> None:
        self.watch.close()

    def __iter__(self) -> Iterator[bytes]:
        try:
            for views in self.watch:
                lines = [json.dumps(self._event(view)) for view in views]
                yield ("\n".join(lines) + "\n").encode()
        finally:
            self.close()

    def _event(self, view: SideView) -> dict[str, str]:
        name = self.names[view.position]
        if view.status != SideStatus.OPEN:
            turn = Turn.objects.prefetch_related("sides__response").get(pk=self.turn.pk)
            side = show_sides(turn)[view.position]
            context = {"side": side, "lang": self.talk.lang, "is_live": True}
            return {"side": name, "html": render_to_string("_conversation_side.html", context, self.request)}
        before = self.sent.get(name)
        self.sent[name] = view.text
        if before is not None and view.text.startswith(before):
            return {"side": name, "more": view.text[len(before) :]}
        return {"side": name, "text": view.text}


@require_POST
@own_conversation
def pick(request: HttpRequest, talk: Conversation) -> HttpResponseBase:
    position = _position(request)
    judgment_id, answer = read_answer(request.POST, list)  # passages are not marked here
    turns.pick_response(talk, position, judgment_id=judgment_id, answer=answer)
    if not _wants_fragment(request):
        warn_of_guidelines(request, talk.project, answer.guideline_version)
    return _changed(request, talk, position)


def warn_of_guidelines(request: HttpRequest, project: Project, version: int) -> None:
    """Say on the next page that what was just saved was given under older guidelines, where it was."""
    if version < project.guideline_version:
        changed = _("The guidelines changed. What you saved was given under the ones you had.")
        link = reverse("project_guidelines", args=[project.slug])
        messages.warning(request, format_html('{} <a href="{}">{}</a>', changed, link, _("Read them")))


@require_POST
@own_conversation
def retry(request: HttpRequest, talk: Conversation) -> HttpResponseBase:
    position = _position(request)
    turns.retry_broken_sides(talk, position)
    return _changed(request, talk, position)


@require_POST
@own_conversation
def keep(request: HttpRequest, talk: Conversation) -> HttpResponseBase:
    position = _position(request)
    turns.keep_the_complete_one(talk, position)
    return _changed(request, talk, position)


@require_POST
@own_conversation
def feedback(request: HttpRequest, talk: Conversation) -> HttpResponseBase:
    form = FeedbackForm(request.POST)
    if not form.is_valid():
        raise DomainError(sentence_of(form))
    data = form.cleaned_data
    said = form.feedback()
    if said is None:
        raise DomainError(
            _("Say what your message is: the correction of an error, a challenge, or a further question.")
        )
    turns.send_feedback(
        talk,
        data["position"],
        text=data["text"],
        feedback=said,
        own_text=data["own_text"],
        edit_seconds=data["edit_seconds"] or 0,
        uptake=form.uptake(),
    )
    return _changed(request, talk, data["position"])


@require_POST
@own_conversation
def end(request: HttpRequest, talk: Conversation) -> HttpResponseBase:
    form = FeedbackForm(request.POST)
    services.end_conversation(talk, uptake=form.uptake() if form.is_valid() else None)
    return redirect("conversation", talk.public_id)


@require_POST
@own_conversation
def reopen(request: HttpRequest, talk: Conversation) -> HttpResponseBase:
    services.reopen_conversation(talk)
    return redirect("conversation", talk.public_id)


def _position(request: HttpRequest) -> int:
    value = request.POST.get("position", "")
    if not value.isdecimal() or len(value) > 3:
        raise DomainError(_("This form is out of date. Reload the page."))
    return int(value)


def _last(talk: Conversation) -> Turn:
    return talk.turns.prefetch_related("sides__response").latest("position")


def _changed(request: HttpRequest, talk: Conversation, position: int) -> HttpResponse:
    """The turns that a script has to draw anew, or the way back to the page."""
    if _wants_fragment(request):
        return _turns(request, talk, since=position)
    answer: HttpResponseRedirect = redirect("conversation", talk.public_id)
    if Turn.objects.filter(conversation=talk, sides__status=SideStatus.OPEN).exists():
        answer["Location"] += "?whole"
    return answer


def _turns(request: HttpRequest, talk: Conversation, *, since: int) -> HttpResponse:
    shown = show_conversation(talk, since=since)
    html = [
        render_to_string(
            "_conversation_turn.html",
            {"turn": turn, "talk": shown, "lang": talk.lang, "guideline_version": talk.project.guideline_version},
            request,
        )
        for turn in shown.turns
    ]
    return HttpResponse("".join(html), headers={"X-Guideline-Version": str(talk.project.guideline_version)})


def _page(request: HttpRequest, talk: Conversation, *, status: int = 200) -> HttpResponse:
    shown = show_conversation(talk)
    context = {
        "project": talk.project,
        "talk": shown,
        "lang": talk.lang,
        "task": talk.task,
        "guidelines": render_markdown(talk.project.guidelines) if talk.project.guidelines else None,
        "guideline_version": talk.project.guideline_version,
        "page_data": {
            "guidelineVersion": talk.project.guideline_version,
            "words": {
                "guidelinesChanged": _("The guidelines changed. What you saved was given under the ones you had."),
                "readGuidelines": _("Read them"),
                "textFailed": _("The text could not be fetched. Try again when the connection is back."),
            },
        },
        **feedback_choices(),
        "typed": request.POST if request.method == "POST" else {},
        "typed_lists": {
            name: request.POST.getlist(name) for name in ("deficiency_types", "feedback_types", "scenario")
        },
        "is_waiting": shown.last.state == "writing" and not shown.has_ended,
    }
    return render(request, "conversation.html", context, status=status)
