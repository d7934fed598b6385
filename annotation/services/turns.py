"""One turn: what models write, which response the person picks, and the typed feedback that answers it.

A turn's sides are open until each response stands (or broke off and is asked again); then the person picks one, by an
ordinary judgment on an ordinary comparison; what they keep is answered with feedback, which is the next turn's user
message. Only the last turn of a conversation changes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotation.answer import Answer
from annotation.content_order import check_text
from annotation.errors import ConflictError, DomainError
from annotation.feedback import Feedback
from annotation.models import (
    Assignment,
    AssignmentStatus,
    Comparison,
    Conversation,
    Judgment,
    Preference,
    QueueTier,
    Response,
    RewriteCause,
    RewriteStatus,
    RewriteTask,
    SideStatus,
    Turn,
    TurnSide,
)
from annotation.protocol import Protocol
from annotation.services.conversations import (
    add_turn,
    checked_message,
    lock_conversation,
    lock_turn,
    rate_uptake,
    record,
)
from annotation.services.edits import EditedText, store_edit
from annotation.services.judging import submit_judgment
from annotation.services.texts import add_response, add_written_response

logger = logging.getLogger(__name__)

MAX_RESPONSE_CHARS = 200_000


# ── What models write ────────────────────────────────────────────────────────────────────────────────────────────


def save_progress(side_id: int, text: str) -> None:
    """Keep what has arrived so far, for other processes to show."""
    TurnSide.objects.filter(pk=side_id, status=SideStatus.OPEN).update(text=text)


def finish_side(side_id: int, text: str, finish_reason: str, *, sampling: dict[str, Any]) -> None:
    """Store a complete response. With the last one of its turn, a vote that was given early becomes a judgment."""
    with transaction.atomic():
        turn = Turn.objects.select_for_update(of=("self",)).get(sides=side_id)
        side = turn.sides.select_for_update(of=("self",)).select_related("source").get(pk=side_id)
        if side.status == SideStatus.DONE:
            return
        side.response = add_response(
            turn.prompt,
            side.source,
            turn.sides.filter(position__lt=side.position, source=side.source_id).count(),
            text,
            seed=side.seed,
            sampling=sampling,
            template_sha256="",
            finish_reason=finish_reason,
        )
        side.status, side.text, side.error = SideStatus.DONE, "", ""
        side.save(update_fields=["response", "status", "text", "error"])
        _settle(turn)


def post_responses(conversation: Conversation, position: int, texts: Sequence[tuple[str, str]]) -> Turn:
    """Store what a program brings as (source, text) for sides that are not complete; all or none.

    What stands already with this text is left alone. Raises DomainError for a source that does not write here,
    ConflictError where another text stands.
    """
    with transaction.atomic():
        turn = lock_turn(conversation, position)
        sides = list(turn.sides.select_related("source", "response"))
        for name, text in texts:
            side = next((side for side in sides if side.source.name == name), None)
            if side is None:
                raise DomainError(
                    _("%(name)s writes none of the responses of this turn that were not given yet.") % {"name": name}
                )
            sides.remove(side)
            check_text(name, text, MAX_RESPONSE_CHARS)
            if side.response is None:
                finish_side(side.pk, text, "stop", sampling={})
            elif side.response.text != text:
                raise ConflictError(_("Another response of %(name)s stands here already.") % {"name": name})
    return turn


def break_side(side_id: int, text: str, error: str) -> None:
    """Remember that a response broke off, with what had arrived."""
    TurnSide.objects.filter(pk=side_id, status=SideStatus.OPEN).update(
        status=SideStatus.BROKEN, text=text, error=error.replace("\0", "")[:300]
    )


def retry_broken_sides(conversation: Conversation, position: int) -> None:
    """Ask again, with the same seed, for what broke off."""
    with transaction.atomic():
        turn = lock_turn(conversation, position)
        if turn.kept_response_id:
            raise ConflictError(_("You went on with the other response. Reload the page to see it."))
        turn.sides.filter(status=SideStatus.BROKEN).update(status=SideStatus.OPEN, text="", error="")


def keep_the_complete_one(conversation: Conversation, position: int) -> Turn:
    """Go on with the only response that came to its end; without a comparison there is no verdict."""
    with transaction.atomic():
        turn = lock_turn(conversation, position)
        sides = list(turn.sides.select_related("response"))
        done = [side.response for side in sides if side.response]
        if len(done) != 1 or not any(side.status == SideStatus.BROKEN for side in sides):
            raise ConflictError(_("The responses have changed meanwhile. Reload the page to see them."))
        _keep(turn, done[0])
        record(conversation, "kept the only one", position=position)
    return turn


def _settle(turn: Turn) -> None:
    """Act on a turn whose responses may all be there now. Call with the turn locked."""
    responses = [side.response for side in turn.sides.select_related("response")]
    complete = [response for response in responses if response is not None]
    if len(complete) < len(responses):
        return
    if len(complete) == 1 or complete[0].text.strip() == complete[1].text.strip():
        # Nothing to compare.
        _keep(turn, complete[0])
    elif turn.early_vote:
        conversation = Conversation.objects.select_related("project", "annotator").get(pk=turn.conversation_id)
        vote = dict(turn.early_vote)
        try:
            with transaction.atomic():
                _judge(conversation, turn, UUID(vote.pop("judgment_id")), Answer(**vote))
        except DomainError as refused:
            # The protocol has changed since: the person is asked again.
            logger.warning("turn %s: an early vote was refused: %s", turn.pk, refused)
    if turn.early_vote:
        turn.early_vote = {}
        turn.save(update_fields=["early_vote"])


# ── Picking ──────────────────────────────────────────────────────────────────────────────────────────────────────


def pick_response(conversation: Conversation, position: int, *, judgment_id: UUID, answer: Answer) -> Turn:
    """Store the verdict on the turn's two responses and keep the better one.

    "About the same" keeps one by chance, "neither" none. Another pick replaces the first until feedback is sent. While
    a response is still being written the vote waits, and is stored as partial when all are there.
    """
    with transaction.atomic():
        turn = lock_turn(conversation, position)
        sides = list(turn.sides.all())
        if len(sides) < 2:
            raise DomainError(_("There is one response only, so there is nothing to choose."))
        if answer.choice not in [verdict.value for verdict in Protocol.of(conversation.project).verdicts]:
            raise DomainError(_("Choose one of the answers below the responses."))
        if any(side.status == SideStatus.BROKEN for side in sides):
            raise DomainError(_("A response broke off. Try it again, or go on with the other one."))
        if turn.kept_response_id and not turn.comparison_id:
            raise DomainError(_("Both responses read the same, so there is nothing to choose."))
        if any(side.status == SideStatus.OPEN for side in sides):
            early = {key: value for key, value in asdict(answer).items() if key not in ("client_at", "spans")}
            turn.early_vote = {**early, "is_partial": True, "judgment_id": str(judgment_id)}
            turn.save(update_fields=["early_vote"])
        else:
            _judge(conversation, turn, judgment_id, answer)
    return turn


def _judge(conversation: Conversation, turn: Turn, judgment_id: UUID, answer: Answer) -> Judgment:
    assert conversation.annotator is not None
    response_a, response_b = (side.response for side in turn.sides.select_related("response"))
    assert response_a is not None and response_b is not None
    if turn.comparison is None:
        # Made in the transaction that judges it, and full: the queue never sees it.
        turn.comparison = Comparison.objects.create(
            project=conversation.project,
            prompt_id=turn.prompt_id,
            response_a=response_a,
            response_b=response_b,
            external_id=f"turn-{turn.pk}",
            lang=conversation.lang,
            sampling_probability=conversation.sampling_probability,
            tier=QueueTier.PARTLY_JUDGED,
            required_count=1,
            assigned_count=1,
        )
        now = timezone.now()
        Assignment.objects.create(
            comparison=turn.comparison,
            annotator=conversation.annotator,
            project=conversation.project,
            status=AssignmentStatus.SUBMITTED,
            a_shown_on_left=turn.a_shown_on_left,
            leased_at=now,
            lease_expires_at=now,
            submitted_at=now,
        )
    assignment = turn.comparison.assignments.get(annotator=conversation.annotator)
    judgment = submit_judgment(
        assignment_id=assignment.public_id, annotator=conversation.annotator, judgment_id=judgment_id, answer=answer
    )
    chance = response_a if turn.sides.all()[0].seed % 2 else response_b
    kept = {Preference.A: response_a, Preference.B: response_b, Preference.TIE: chance}
    turn.kept_response = kept.get(Preference(judgment.preference))
    turn.kept_at_random = judgment.preference == Preference.TIE
    turn.save(update_fields=["comparison", "kept_response", "kept_at_random"])
    record(conversation, "picked", position=turn.position, comparison_id=turn.comparison.pk)
    return judgment


def _keep(turn: Turn, response: Response) -> None:
    turn.kept_response = response
    turn.kept_at_random = False
    turn.save(update_fields=["kept_response", "kept_at_random"])


# ── Feedback ─────────────────────────────────────────────────────────────────────────────────────────────────────


def send_feedback(
    conversation: Conversation,
    position: int,
    *,
    text: str,
    feedback: Feedback,
    own_text: str = "",
    edit_seconds: int = 0,
    uptake: Mapping[str, str] | None = None,
) -> Turn:
    """Answer the kept response: gives the next turn, whose responses are to be written.

    own_text: the person's version of the kept response, or their own response where neither was acceptable. `uptake`
    says, by side as shown ("A", "B"), whether the responses took up the feedback before: yes, partly, no. Sending the
    same again gives the turn that stands.
    """
    text = checked_message(text)
    feedback.check()
    with transaction.atomic():
        locked = lock_conversation(conversation)
        turn = locked.turns.filter(position=position).first()
        following = locked.turns.filter(position=position + 1).select_related("prompt").first()
        if turn and following:
            if following.prompt.messages[-1]["content"] != text:
                raise ConflictError(_("This turn was answered in another window. Reload the page to see it."))
            return following
        turn = lock_turn(locked, position)
        max_turns = Protocol.of(locked.project).max_turns
        if position + 1 >= max_turns:
            raise DomainError(
                ngettext(
                    "A conversation has at most %(count)d turn here; finish it.",
                    "A conversation has at most %(count)d turns here; finish it.",
                    max_turns,
                )
                % {"count": max_turns}
            )
        kept = _final_response(locked, turn, own_text.strip(), edit_seconds)
        rate_uptake(locked, turn, uptake or {})
        turn.scenario = feedback.scenario
        turn.deficiency_types = list(dict.fromkeys(feedback.deficiency_types))
        turn.feedback_types = list(dict.fromkeys(feedback.feedback_types))
        turn.feedback = text
        turn.feedback_at = timezone.now()
        turn.save()
        said = [{"role": "assistant", "content": kept.text}, {"role": "user", "content": text}]
        new = add_turn(locked, position + 1, [*turn.prompt.messages, *said])
        record(locked, "feedback", position=position, scenario=feedback.scenario)
    return new


def _final_response(conversation: Conversation, turn: Turn, own_text: str, edit_seconds: int) -> Response:
    """What goes on in the history: the kept response, or what the person wrote instead of it."""
    assert conversation.annotator is not None
    kept = turn.kept_response
    if kept is not None and own_text in ("", kept.text.strip()):
        return kept
    if kept is None and turn.comparison_id is None:
        raise DomainError(_("Choose between the responses first."))
    if not own_text:
        raise DomainError(_("Neither response was good, so write the response that should go on."))
    own_text = checked_message(own_text)
    written = add_written_response(turn.prompt_id, conversation.project, own_text, author=conversation.annotator)
    judgment = Judgment.objects.filter(comparison=turn.comparison_id or 0, superseded_at=None).first()
    if kept is None:
        _note_rewrite(conversation, turn, written, edit_seconds)
    elif judgment and judgment.preference != Preference.TIE:
        # Edited > chosen > rejected; of two equal ones none was chosen.
        store_edit(judgment, EditedText(kept, own_text), written, seconds=edit_seconds)
    turn.kept_response, turn.kept_at_random = written, False
    return written


def _note_rewrite(conversation: Conversation, turn: Turn, written: Response, seconds: int) -> None:
    """The person's own response counts as the rewrite of a prompt without an acceptable one."""
    done = {
        "status": RewriteStatus.DONE,
        "annotator": conversation.annotator,
        "written": written,
        "seconds_spent": seconds,
        "done_at": timezone.now(),
    }
    task, is_new = RewriteTask.objects.get_or_create(
        comparison=turn.comparison,
        defaults={**done, "project": conversation.project, "prompt": turn.prompt, "cause": RewriteCause.NEITHER},
    )
    if not is_new:
        RewriteTask.objects.filter(pk=task.pk, status=RewriteStatus.OPEN).update(**done)
