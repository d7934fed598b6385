"""Imported conversations: who rates which, and what they say of it, turn by turn.

One person rates a conversation, so that its typed feedback has one voice; scores are rows of their own.
"""

from __future__ import annotations

from collections.abc import Mapping

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation.errors import ConflictError, DomainError
from annotation.feedback import Feedback
from annotation.models import Annotator, Conversation, Membership, Project, Rating, Response
from annotation.protocol import DEFAULT_ASPECTS, Aspect, Protocol
from annotation.services.conversations import check_open, lock_conversation, record


def conversations_to_rate(project: Project, annotator: Annotator) -> QuerySet[Conversation]:
    """Imported conversations that nobody has taken, in the languages that are routed to this person."""
    free = Conversation.objects.filter(project=project, annotator=None, source_a=None, ended_at=None)
    membership = Membership.objects.filter(project=project, user=annotator.user_id or 0).first()
    if membership and membership.languages:
        free = free.filter(lang__in=["", *membership.languages])
    return free


def rating_aspects(project: Project) -> tuple[Aspect, ...]:
    """What each response of an imported conversation is scored for."""
    return Protocol.of(project).aspects or DEFAULT_ASPECTS


def take_conversation(project: Project, annotator: Annotator) -> Conversation | None:
    """The conversation that this person has begun to rate, or the next free one; None where there is none."""
    check_open(project)
    with transaction.atomic():
        begun = Conversation.objects.filter(project=project, annotator=annotator, source_a=None, ended_at=None)
        if conversation := begun.order_by("id").first():
            return conversation
        conversation = (
            conversations_to_rate(project, annotator)
            .select_for_update(of=("self",), skip_locked=True)
            .order_by("id")
            .first()
        )
        if conversation is not None:
            conversation.annotator = annotator
            conversation.save(update_fields=["annotator"])
            record(conversation, "taken")
        return conversation


def give_back_conversation(conversation: Conversation) -> None:
    """Let somebody else rate it; scores that were given stay."""
    with transaction.atomic():
        locked = lock_conversation(conversation)
        if locked.ended_at is None:
            record(locked, "given back")
            Conversation.objects.filter(pk=locked.pk).update(annotator=None)


def give_back_conversations(annotator: Annotator, project: Project | None = None) -> int:
    """Give back every conversation that somebody who leaves has begun to rate; gives how many."""
    begun = Conversation.objects.filter(annotator=annotator, source_a=None, ended_at=None)
    return (begun.filter(project=project) if project else begun).update(annotator=None)


def rate_turn(
    conversation: Conversation,
    position: int,
    *,
    ratings: Mapping[str, int | None],
    feedback: Feedback | None = None,
    note: str = "",
    guideline_version: int = 0,
) -> None:
    """Store what the person says of one response; a later word replaces an earlier one.

    ratings: a score for each aspect of the project. feedback: what kind the user's next message is; None where there
    is no such message.
    """
    with transaction.atomic():
        locked = lock_conversation(conversation)
        check_open(locked.project)
        if locked.ended_at:
            raise ConflictError(_("This conversation has ended. Open it again to go on."))
        if guideline_version > locked.project.guideline_version:
            raise DomainError(_("guideline_version: there is no such version; reload the page and save again."))
        turn = locked.turns.filter(position=position).select_related("kept_response").first()
        if turn is None or turn.kept_response is None or locked.source_a_id:
            raise ConflictError(_("There is no response to rate here. Reload the page."))
        for number, aspect in enumerate(rating_aspects(locked.project)):
            # The note is about the response; it stands once, beside the first score.
            said = "" if number else note
            _rate(turn.kept_response, locked, aspect, ratings.get(aspect.name), said, guideline_version)
        if feedback is not None:
            answered = locked.turns.filter(position=position + 1).select_related("prompt").first()
            if answered is None:
                raise DomainError(_("Nobody answered this response, so there is no feedback to describe."))
            feedback.check()
            turn.feedback = answered.prompt.messages[-1]["content"]
            turn.feedback_at = timezone.now()
            turn.scenario = feedback.scenario
            turn.deficiency_types = list(dict.fromkeys(feedback.deficiency_types))
            turn.feedback_types = list(dict.fromkeys(feedback.feedback_types))
            turn.save(update_fields=["scenario", "deficiency_types", "feedback_types", "feedback", "feedback_at"])
        record(locked, "rated", position=position)


def _rate(
    response: Response,
    conversation: Conversation,
    aspect: Aspect,
    value: int | None,
    note: str,
    guideline_version: int,
) -> None:
    if value is None:
        raise DomainError(_("Give a score for %(aspect)s.") % {"aspect": aspect.label})
    if not aspect.low <= value <= aspect.high:
        raise DomainError(
            _("%(aspect)s is scored from %(low)d to %(high)d.")
            % {"aspect": aspect.label, "low": aspect.low, "high": aspect.high}
        )
    Rating.objects.update_or_create(
        response=response,
        annotator=conversation.annotator,
        aspect=aspect.name,
        defaults={
            "value": value,
            "low": aspect.low,
            "high": aspect.high,
            "note": note[:10_000],
            "guideline_version": guideline_version,
        },
    )
