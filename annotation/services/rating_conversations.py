"""Imported conversations: who rates which, and what they say of it, turn by turn.

One person rates a conversation, so that its typed feedback has one voice; scores are rows of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation.errors import ConflictError, DomainError
from annotation.feedback import Feedback
from annotation.models import Annotator, Conversation, Membership, Project, QualificationState, Rating, Response
from annotation.protocol import DEFAULT_ASPECTS, Aspect, Protocol
from annotation.services.conversations import check_open, check_qualified, lock_conversation, record

HELD_FOR = timedelta(hours=24)
"""Without a look at its page or a saved score; then somebody else may take it."""


def conversations_to_rate(project: Project, annotator: Annotator) -> QuerySet[Conversation]:
    """Imported conversations that nobody holds, in the languages that are routed to this person."""
    nobody = Q(annotator=None) | (Q(lease_expires_at__lt=timezone.now()) & ~Q(annotator=annotator))
    free = Conversation.objects.filter(nobody, project=project, source_a=None, ended_at=None)
    membership = Membership.objects.filter(project=project, user=annotator.user_id or 0).first()
    if membership and membership.qualification in (QualificationState.RUNNING, QualificationState.FAILED):
        return free.none()
    if membership and membership.languages:
        free = free.filter(lang__in=["", *membership.languages])
    return free


def count_to_rate(annotator: Annotator | None, user_id: int, projects: Iterable[int]) -> dict[int, int]:
    """How many imported conversations a person could rate, those that they hold included, by project; up to 500."""
    values: dict[str, Any] = {
        "user": user_id,
        "annotator": annotator.pk if annotator else 0,
        "projects": list(projects),
    }
    with connection.cursor() as cursor:
        cursor.execute(_WAITING, values)
        return dict(cursor.fetchall())


_WAITING = """
SELECT p.id, count(*) FROM annotation_project p
JOIN annotation_membership m ON m.project_id = p.id AND m.user_id = %(user)s
CROSS JOIN LATERAL (
    SELECT 1 FROM annotation_conversation c
    WHERE c.project_id = p.id AND c.source_a_id IS NULL AND c.ended_at IS NULL
      AND (c.annotator_id IS NULL OR c.annotator_id = %(annotator)s OR c.lease_expires_at < now())
      AND (c.lang = '' OR m.languages = '{}' OR c.lang = ANY(m.languages))
    LIMIT 500) c
WHERE p.id = ANY(%(projects)s) AND p.is_open AND m.qualification NOT IN ('running', 'failed')
GROUP BY p.id
"""


def held_conversations(project: Project) -> QuerySet[Conversation]:
    """Those that somebody is rating, the longest held first."""
    held = Conversation.objects.filter(project=project, source_a=None, ended_at=None, annotator__isnull=False)
    held = held.annotate(has_run_out=Q(lease_expires_at__lt=timezone.now()))
    return held.select_related("annotator").order_by("lease_expires_at", "pk")


def hold_conversation(conversation: Conversation) -> None:
    """Prolong the lease of who has just looked at it."""
    held = Conversation.objects.filter(pk=conversation.pk, annotator=conversation.annotator_id, ended_at=None)
    held.update(lease_expires_at=timezone.now() + HELD_FOR)


def why_not_held(conversation_id: UUID, user: User) -> tuple[Project, str] | None:
    """The project of an imported conversation that the user does not hold, and a sentence in case that they once did.

    The caller checks that they are in the project; to others it does not exist.
    """
    found = Conversation.objects.filter(public_id=conversation_id, source_a=None).select_related("project").first()
    if found is None:
        return None
    if found.annotator_id is None:
        said = _("You do not hold this conversation; it is free, for you as for others.")
    else:
        said = _("Somebody else rates this conversation by now.")
    if Rating.objects.filter(annotator__user=user, response__prompt__turn__conversation=found).exists():
        return found.project, said + " " + _("The scores that you gave are kept.")
    return found.project, said + " " + _("You have saved no scores in it. Take the next one.")


def rating_aspects(project: Project) -> tuple[Aspect, ...]:
    """What each response of an imported conversation is scored for."""
    return Protocol.of(project).aspects or DEFAULT_ASPECTS


def take_conversation(project: Project, annotator: Annotator) -> Conversation | None:
    """The conversation that this person has begun to rate, or the next free one; None where there is none."""
    check_open(project)
    check_qualified(project, annotator)
    with transaction.atomic():
        # One person's double click takes turns.
        Annotator.objects.select_for_update(no_key=True).get(pk=annotator.pk)
        begun = Conversation.objects.filter(project=project, annotator=annotator, source_a=None, ended_at=None)
        if conversation := begun.order_by("id").first():
            hold_conversation(conversation)
            return conversation
        conversation = (
            conversations_to_rate(project, annotator)
            .select_for_update(of=("self",), skip_locked=True)
            .order_by("id")
            .first()
        )
        if conversation is not None:
            if conversation.annotator_id:
                record(conversation, "lease ran out")
            conversation.annotator, conversation.lease_expires_at = annotator, timezone.now() + HELD_FOR
            conversation.save(update_fields=["annotator", "lease_expires_at"])
            record(conversation, "taken")
        return conversation


def give_back_conversation(conversation: Conversation) -> None:
    """Let somebody else rate it; scores that were given stay."""
    with transaction.atomic():
        locked = lock_conversation(conversation)
        if locked.ended_at is None:
            record(locked, "given back")
            Conversation.objects.filter(pk=locked.pk).update(annotator=None, lease_expires_at=None)


def give_back_conversations(annotator: Annotator, project: Project | None = None) -> int:
    """Give back every conversation that somebody who leaves has begun to rate; gives how many."""
    begun = Conversation.objects.filter(annotator=annotator, source_a=None, ended_at=None)
    return (begun.filter(project=project) if project else begun).update(annotator=None, lease_expires_at=None)


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
        if locked.annotator_id != conversation.annotator_id:
            raise ConflictError(_("Somebody else rates this conversation by now. The scores that you gave are kept."))
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
        hold_conversation(locked)
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
