"""A conversation as a program that holds it may see it: texts as written, no model's name."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from annotation.conversations.display import (
    named_sides,
    stored_uptakes,
    stored_verdicts,
    trouble_of,
    turn_state,
)
from annotation.models import Conversation, Rating, Turn, TurnSide
from annotation.protocol import Protocol
from annotation.services.rating_conversations import rating_aspects


def plain_conversation(conversation: Conversation) -> dict[str, Any]:
    """What `annotation.api.conversations.ConversationSerializer` describes, in a fixed number of queries."""
    protocol = Protocol.of(conversation.project)
    turns = list(
        conversation.turns.select_related("prompt", "kept_response", "comparison").prefetch_related("sides__response")
    )
    verdicts = stored_verdicts(conversation, turns, protocol)
    uptakes = stored_uptakes(conversation, turns)
    return {
        "conversation": conversation.public_id,
        "project": conversation.project.slug,
        "task": conversation.task,
        "lang": conversation.lang,
        "has_ended": conversation.ended_at is not None,
        "max_turns": protocol.max_turns,
        "choices": [verdict.value for verdict in protocol.verdicts],
        "turns": [
            _plain_turn(turn, choice=verdicts[turn.pk].value if turn.pk in verdicts else "", uptakes=uptakes)
            for turn in turns
        ],
    }


def _plain_turn(turn: Turn, *, choice: str, uptakes: dict[int, str]) -> dict[str, Any]:
    named = named_sides(turn)
    kept = turn.kept_response
    return {
        "position": turn.position,
        "message": turn.prompt.messages[-1]["content"],
        "state": turn_state(turn, [side for _name, side in named]),
        "sides": [_plain_side(name, side, uptakes) for name, side in named],
        "choice": turn.early_vote.get("choice", "") or choice,
        "is_choice_waiting": bool(turn.early_vote),
        "kept_side": next((name for name, side in named if kept and side.response_id == kept.pk), ""),
        "kept_text": kept.text if kept else "",
        "kept_at_random": turn.kept_at_random,
        "scenario": turn.scenario,
        "deficiency_types": turn.deficiency_types,
        "feedback_types": turn.feedback_types,
    }


def _plain_side(name: str, side: TurnSide, uptakes: dict[int, str]) -> dict[str, Any]:
    return {
        "name": name,
        "status": side.status,
        "text": side.response.text if side.response else side.text,
        "trouble": str(trouble_of(side)) if side.status == "broken" else "",
        "takes_up_feedback": uptakes.get(side.response_id or 0, ""),
    }


def plain_rated(conversation: Conversation) -> dict[str, Any]:
    """An imported conversation as whoever rates it sees it: what was said, what they gave, not who wrote it."""
    aspects = rating_aspects(conversation.project)
    turns = list(conversation.turns.select_related("prompt", "kept_response"))
    given = Rating.objects.filter(
        response__in=[turn.kept_response_id for turn in turns if turn.kept_response_id],
        annotator=conversation.annotator_id or 0,
    )
    by_response: dict[int, dict[str, Rating]] = {}
    for rating in given:
        by_response.setdefault(rating.response_id, {})[rating.aspect] = rating
    shown, seen = [], 0
    for turn in turns:
        ratings = by_response.get(turn.kept_response_id or 0, {})
        shown.append(
            {
                "position": turn.position,
                "messages": turn.prompt.messages[seen:],
                "response": turn.kept_response.text if turn.kept_response else "",
                "is_answered": turn is not turns[-1],
                "scores": {
                    aspect.name: ratings[aspect.name].value if aspect.name in ratings else None for aspect in aspects
                },
                "note": next((rating.note for rating in ratings.values() if rating.note), ""),
                "scenario": turn.scenario,
                "deficiency_types": turn.deficiency_types,
                "feedback_types": turn.feedback_types,
            }
        )
        seen = len(turn.prompt.messages) + 1  # the response itself is in the next turn's history
    return {
        "conversation": conversation.public_id,
        "project": conversation.project.slug,
        "lang": conversation.lang,
        "has_ended": conversation.ended_at is not None,
        "aspects": [asdict(aspect) for aspect in aspects],
        "turns": shown,
    }
