"""Conversations: which models are talked to, starting and ending, and what every step of one needs.

What happens within a turn is in `services.turns`. Lock order: conversation, turn, side, then that of services.judging.
"""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotation.errors import ConflictError, DomainError
from annotation.feedback import UPTAKE_ASPECT, UPTAKE_VALUES
from annotation.models import (
    Annotator,
    Conversation,
    ConversationSource,
    EventKind,
    Membership,
    Project,
    Prompt,
    QualificationState,
    Rating,
    ResponseSource,
    SourceKind,
    Turn,
    TurnSide,
)
from annotation.protocol import Protocol
from annotation.services.journal import record_event
from annotation.services.texts import content_sha256

MAX_MESSAGE_CHARS = 20_000


# ── Sources ──────────────────────────────────────────────────────────────────────────────────────────────────────


def set_conversation_sources(project: Project, sources: Sequence[ResponseSource], *, by: User | None = None) -> None:
    """Choose the models that the project's people talk to; conversations under way keep theirs."""
    for source in sources:
        if source.kind != SourceKind.MODEL:
            raise DomainError(_("%(name)s is no model that can be asked.") % {"name": source.name})
    with transaction.atomic():
        Project.objects.select_for_update().get(pk=project.pk)
        project.conversation_sources.exclude(source__in=sources).delete()
        ConversationSource.objects.bulk_create(
            [ConversationSource(project=project, source=source) for source in sources], ignore_conflicts=True
        )
        record_event(
            EventKind.SETTINGS, project=project, user=by, conversation_sources=[source.pk for source in sources]
        )


def _draw_sources(project: Project, protocol: Protocol) -> tuple[ResponseSource, ResponseSource | None, float | None]:
    """Two different models by chance, or the only one twice; the second is None where one response is asked.

    Beside them the probability with which the two were drawn, so that votes count alike whenever models came or went.
    """
    sources = [row.source for row in project.conversation_sources.select_related("source").order_by("id")]
    if not sources:
        raise DomainError(
            _("No model is chosen for conversations in %(name)s yet; whoever runs the project can do that.")
            % {"name": project.name}
        )
    random.shuffle(sources)
    if protocol.responses_per_turn == 1:
        return sources[0], None, None
    if len(sources) == 1:
        return sources[0], sources[0], None
    return sources[0], sources[1], 1 / math.comb(len(sources), 2)


def _named_sources(names: Sequence[str], protocol: Protocol) -> tuple[ResponseSource, ResponseSource | None, None]:
    if len(names) != protocol.responses_per_turn:
        raise DomainError(
            ngettext(
                "Every turn has %(count)d response here; name %(count)d source.",
                "Every turn has %(count)d responses here; name %(count)d sources.",
                protocol.responses_per_turn,
            )
            % {"count": protocol.responses_per_turn}
        )
    sources = [
        ResponseSource.objects.get_or_create(name=name, defaults={"kind": SourceKind.IMPORTED})[0] for name in names
    ]
    for source in sources:
        if source.kind == SourceKind.PERSON:
            raise DomainError(_("%(name)s stands for what people write here; name a model.") % {"name": source.name})
    return sources[0], sources[1] if len(sources) == 2 else None, None


def question_of(project: Project, prompt_id: int) -> str:
    """A prompt of the project as the first message of a conversation. Raises DomainError where it cannot be one."""
    prompt = project.prompts.filter(pk=prompt_id).first()
    if prompt is None:
        raise DomainError(_("This question is not there any more. Choose another one."))
    if len(prompt.messages) > 1:
        raise DomainError(_("This prompt has a history of its own; a conversation starts from a single message."))
    return prompt.messages[0]["content"]


# ── Starting, ending ─────────────────────────────────────────────────────────────────────────────────────────────


def start_conversation(
    *,
    project: Project,
    annotator: Annotator,
    conversation_id: UUID,
    text: str,
    task: str = "",
    lang: str = "",
    sources: Sequence[str] = (),
) -> Conversation:
    """Open a conversation with its first user message; the same conversation_id again gives the one that stands.

    sources: the names of those who write the responses, where a program brings them; else models are drawn.
    """
    protocol = Protocol.of(project)
    if not protocol.conversations:
        raise DomainError(_("%(name)s holds no conversations.") % {"name": project.name})
    check_open(project)
    check_qualified(project, annotator)
    text = checked_message(text)
    with transaction.atomic():
        # One person's double click takes turns.
        Annotator.objects.select_for_update(no_key=True).get(pk=annotator.pk)
        known = Conversation.objects.filter(public_id=conversation_id).first()
        if known is not None:
            if known.annotator_id != annotator.pk or known.project_id != project.pk:
                raise ConflictError(_("This form is out of date. Reload the page and start again."))
            return known
        source_a, source_b, probability = (
            _named_sources(sources, protocol) if sources else _draw_sources(project, protocol)
        )
        conversation = Conversation.objects.create(
            public_id=conversation_id,
            project=project,
            annotator=annotator,
            source_a=source_a,
            source_b=source_b,
            sampling_probability=probability,
            task=task[:60],
            lang=lang[:20],
        )
        add_turn(conversation, 0, [{"role": "user", "content": text}])
        record(conversation, "started", position=0)
    return conversation


def end_conversation(conversation: Conversation, *, uptake: Mapping[str, str] | None = None) -> None:
    """Close it; ending twice changes nothing. Everything that was said stays."""
    with transaction.atomic():
        locked = lock_conversation(conversation)
        if locked.ended_at is None:
            if uptake:
                rate_uptake(locked, locked.turns.latest("position"), uptake)
            Conversation.objects.filter(pk=locked.pk).update(ended_at=timezone.now())
            record(locked, "ended")


def reopen_conversation(conversation: Conversation) -> None:
    """Undo the end."""
    with transaction.atomic():
        locked = lock_conversation(conversation)
        check_open(locked.project)
        if locked.ended_at is not None:
            Conversation.objects.filter(pk=locked.pk).update(ended_at=None)
            record(locked, "reopened")


# ── Common ───────────────────────────────────────────────────────────────────────────────────────────────────────


def add_turn(conversation: Conversation, position: int, messages: list[dict[str, str]]) -> Turn:
    """A new turn with its sides still to be written; which response is on which side is drawn here."""
    prompt = Prompt.objects.create(
        project=conversation.project,
        messages=messages,
        # A conversation never straddles training and evaluation data.
        group=f"conversation-{conversation.public_id}",
        task=conversation.task,
        lang=conversation.lang,
        content_sha256=content_sha256(messages),
    )
    turn = Turn.objects.create(
        conversation=conversation, position=position, prompt=prompt, a_shown_on_left=random.random() < 0.5
    )
    sources = [source for source in (conversation.source_a, conversation.source_b) if source]
    TurnSide.objects.bulk_create(
        [
            TurnSide(turn=turn, position=number, source=source, seed=secrets.randbits(31))
            for number, source in enumerate(sources)
        ]
    )
    return turn


def lock_conversation(conversation: Conversation) -> Conversation:
    """The conversation as it is now, locked. Call inside a transaction."""
    return (
        Conversation.objects.select_for_update(of=("self",))
        .select_related("project", "annotator", "source_a", "source_b")
        .get(pk=conversation.pk)
    )


def lock_turn(conversation: Conversation, position: int) -> Turn:
    """The last turn, locked, of a conversation that goes on. Raises ConflictError for another position."""
    locked = lock_conversation(conversation)
    check_open(locked.project)
    if locked.source_a is None:
        raise ConflictError(_("This conversation was imported: it can be rated, and does not go on."))
    if locked.ended_at:
        raise ConflictError(_("This conversation has ended. Open it again to go on."))
    turn = locked.turns.select_for_update(of=("self",)).order_by("-position").first()
    if turn is None or turn.position != position:
        raise ConflictError(_("The conversation has gone on in another window. Reload the page to see it."))
    return turn


def check_open(project: Project) -> None:
    """Raise DomainError where the project is closed."""
    if not project.is_open:
        raise DomainError(_("%(name)s is closed; what you saved is kept.") % {"name": project.name})


def check_qualified(project: Project, annotator: Annotator) -> None:
    """Raise DomainError where the person's qualification round is running or was not passed."""
    membership = Membership.objects.filter(project=project, user=annotator.user_id or 0).first()
    state = membership.qualification if membership else QualificationState.NOT_NEEDED
    if state == QualificationState.FAILED:
        raise DomainError(_("The qualification round was not passed; ask an admin of the project."))
    if state == QualificationState.RUNNING:
        raise DomainError(
            _("The qualification round comes first: finish it on the page where responses are compared.")
        )


def checked_message(text: str) -> str:
    text = text.strip().replace("\0", "")
    if not text:
        raise DomainError(_("Write a message first."))
    if len(text) > MAX_MESSAGE_CHARS:
        raise DomainError(
            _("The text has %(count)d characters; at most %(most)d are possible. Shorten it.")
            % {"count": len(text), "most": MAX_MESSAGE_CHARS}
        )
    return text


def record(conversation: Conversation, action: str, *, comparison_id: int | None = None, **data: Any) -> None:
    """Tell the journal, in the transaction that does what it tells of."""
    record_event(
        EventKind.CONVERSE,
        project=conversation.project_id,
        user=conversation.annotator.user_id if conversation.annotator else None,
        comparison_id=comparison_id,
        action=action,
        conversation=str(conversation.public_id),
        **data,
    )


def rate_uptake(conversation: Conversation, turn: Turn, uptake: Mapping[str, str]) -> None:
    """Store whether the responses took up the feedback before them: yes, partly, no, by side as shown ("A", "B")."""
    sides = list(turn.sides.all())
    if len(sides) == 2 and not turn.a_shown_on_left:
        sides.reverse()
    for name, side in zip("AB", sides, strict=False):
        value = uptake.get(name, "")
        if not value or side.response_id is None or turn.position == 0:
            continue
        if value not in UPTAKE_VALUES:
            raise DomainError(_("Whether a response took up the feedback is yes, partly or no."))
        Rating.objects.update_or_create(
            response_id=side.response_id,
            annotator=conversation.annotator,
            aspect=UPTAKE_ASPECT,
            defaults={"value": UPTAKE_VALUES[value], "low": 0, "high": 1},
        )
