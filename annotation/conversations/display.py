"""What a person may see of a conversation: templates get these and nothing else, so no model's name can leak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from django.utils.functional import Promise

from annotation.chat import Trouble
from annotation.feedback import UPTAKE_ASPECT, UPTAKE_VALUES
from annotation.markdown import Rendered, render_markdown
from annotation.models import (
    Conversation,
    DeficiencyType,
    FeedbackType,
    Judgment,
    Preference,
    Rating,
    Scenario,
    SideStatus,
    Turn,
    TurnSide,
)
from annotation.protocol import Aspect, Demand, Protocol, Verdict


@dataclass(frozen=True, slots=True)
class ShownSide:
    name: str
    status: str
    text: Rendered | None
    """Of a complete response."""
    arrived: str
    """What has arrived of one that is not complete."""
    trouble: str | Promise
    was_cut: bool
    uptake: str


@dataclass(frozen=True, slots=True)
class ShownTurn:
    position: int
    question: Rendered
    sides: Sequence[ShownSide]
    state: str
    """writing, broken, choosing, own (neither was good), kept; or past."""
    verdict: Verdict | None
    is_vote_waiting: bool
    """A vote was given before all responses were there."""
    kept: Rendered | None
    kept_text: str
    kept_side: str
    """A or B, or empty where the person wrote it."""
    was_random: bool
    are_same: bool
    """Both responses read the same, so there was nothing to choose."""
    is_one_missing: bool
    """The other response never came."""
    has_a_complete_one: bool
    feedback: Sequence[str | Promise]
    """Scenario, deficiencies and kinds, in words."""
    asks_uptake: bool
    judgment_id: UUID
    """Offered for the form without JavaScript: sending it twice stores one vote."""


@dataclass(frozen=True, slots=True)
class ShownConversation:
    public_id: UUID
    turns: Sequence[ShownTurn]
    protocol: Protocol
    has_ended: bool

    @property
    def max_turns(self) -> int:
        return self.protocol.max_turns

    @property
    def verdicts(self) -> Sequence[Verdict]:
        return self.protocol.verdicts

    @property
    def axis_steps(self) -> Sequence[Verdict]:
        """The seven steps on which a further axis is answered, whatever the scale of the verdict."""
        return Protocol(allow_neither=False).verdicts

    @property
    def aspects(self) -> Sequence[tuple[Aspect, range]]:
        """What each response is scored for, with the scores there are."""
        if self.protocol.aspects_demand == Demand.OFF:
            return []
        return [(aspect, range(aspect.low, aspect.high + 1)) for aspect in self.protocol.aspects]

    @property
    def offers_more(self) -> bool:
        """Whether anything beside the choice can be said."""
        protocol = self.protocol
        has_chips = bool(protocol.chips) and protocol.chips_demand != Demand.OFF
        return bool(protocol.axes or self.aspects or has_chips) or protocol.note_demand != Demand.OFF

    @property
    def last(self) -> ShownTurn:
        return self.turns[-1]

    @property
    def may_go_on(self) -> bool:
        return not self.has_ended and len(self.turns) < self.max_turns


def show_conversation(conversation: Conversation, *, since: int = 0) -> ShownConversation:
    """The conversation's turns from a position on, in a fixed number of queries."""
    protocol = Protocol.of(conversation.project)
    turns = list(
        conversation.turns.filter(position__gte=since - 1)
        .select_related("prompt", "kept_response__source", "comparison")
        .prefetch_related("sides__response")
    )
    verdicts = stored_verdicts(conversation, turns, protocol)
    uptakes = stored_uptakes(conversation, turns)
    last = conversation.turns.count() - 1
    shown = []
    for index, turn in enumerate(turns):
        if turn.position < since:
            continue
        before = turns[index - 1] if index else None
        shown.append(
            _show_turn(
                turn,
                is_past=turn.position < last or conversation.ended_at is not None,
                verdict=verdicts.get(turn.pk),
                uptakes=uptakes,
                asks_uptake=bool(before and before.scenario),
                protocol=protocol,
            )
        )
    return ShownConversation(
        public_id=conversation.public_id,
        turns=shown,
        protocol=protocol,
        has_ended=conversation.ended_at is not None,
    )


def show_sides(turn: Turn) -> dict[int, ShownSide]:
    """The turn's sides by their position in content order, with the names that the person knows them by."""
    return {side.position: _show_side(side, name, {}) for name, side in named_sides(turn)}


def named_sides(turn: Turn) -> list[tuple[str, TurnSide]]:
    """The sides from left to right, as they were drawn."""
    sides = list(turn.sides.all())
    return list(zip("AB", sides if turn.a_shown_on_left else sides[::-1], strict=False))


def _show_turn(
    turn: Turn,
    *,
    is_past: bool,
    verdict: Verdict | None,
    uptakes: dict[int, str],
    asks_uptake: bool,
    protocol: Protocol,
) -> ShownTurn:
    named = named_sides(turn)
    sides = [side for _, side in named]
    kept = turn.kept_response
    complete = [side for side in sides if side.status == SideStatus.DONE]
    is_uncompared = bool(kept and not turn.comparison_id and len(sides) == 2)
    if turn.early_vote:
        verdict = next((known for known in protocol.verdicts if known.value == turn.early_vote["choice"]), None)
    return ShownTurn(
        position=turn.position,
        question=render_markdown(turn.prompt.messages[-1]["content"]),
        sides=[_show_side(side, name, uptakes) for name, side in named],
        state="past" if is_past else turn_state(turn, sides),
        verdict=verdict,
        is_vote_waiting=bool(turn.early_vote),
        kept=render_markdown(kept.text) if kept else None,
        kept_text=kept.text if kept else "",
        kept_side=next((name for name, side in named if kept and side.response == kept), ""),
        was_random=turn.kept_at_random,
        are_same=is_uncompared and len(complete) == 2,
        is_one_missing=is_uncompared and len(complete) < 2,
        has_a_complete_one=bool(complete),
        feedback=feedback_words(turn),
        asks_uptake=asks_uptake,
        judgment_id=uuid4(),
    )


def turn_state(turn: Turn, sides: Sequence[TurnSide]) -> str:
    """Of a last turn: writing, broken, choosing, own (neither was good) or kept."""
    if turn.kept_response_id:
        return "kept"
    if any(side.status == SideStatus.OPEN for side in sides):
        return "writing"
    if any(side.status == SideStatus.BROKEN for side in sides):
        return "broken"
    return "own" if turn.comparison_id else "choosing"


def _show_side(side: TurnSide, name: str, uptakes: dict[int, str]) -> ShownSide:
    response = side.response
    return ShownSide(
        name=name,
        status=side.status,
        text=render_markdown(response.text) if response else None,
        arrived=side.text,
        trouble=trouble_of(side),
        was_cut=bool(response and response.finish_reason == "length"),
        uptake=uptakes.get(side.response_id or 0, ""),
    )


def trouble_of(side: TurnSide) -> str | Promise:
    """Why the response broke off; names no model."""
    trouble = side.error.partition(":")[0]
    return (Trouble(trouble) if trouble in Trouble.values else Trouble.BROKEN).label


def feedback_words(turn: Turn) -> list[str | Promise]:
    """Scenario, deficiencies and kinds of a turn's feedback, in words."""
    if not turn.scenario:
        return []
    return [
        Scenario(turn.scenario).label,
        *(DeficiencyType(kind).label for kind in turn.deficiency_types),
        *(FeedbackType(kind).label for kind in turn.feedback_types),
    ]


def stored_verdicts(conversation: Conversation, turns: Sequence[Turn], protocol: Protocol) -> dict[int, Verdict]:
    """What the person said of each compared turn, by turn, as they saw the sides."""
    judgments = Judgment.objects.filter(
        comparison__in=[turn.comparison_id for turn in turns if turn.comparison_id],
        annotator=conversation.annotator_id,
        superseded_at=None,
    )
    by_comparison = {judgment.comparison_id: judgment for judgment in judgments}
    known = {verdict.value: verdict for verdict in protocol.verdicts}
    found = {}
    for turn in turns:
        judgment = by_comparison.get(turn.comparison_id or 0)
        if judgment and (verdict := known.get(_value(judgment, turn.a_shown_on_left))):
            found[turn.pk] = verdict
    return found


def _value(judgment: Judgment, is_straight: bool) -> str:
    if judgment.preference == Preference.NEITHER:
        return "neither"
    if judgment.strength is not None:
        return str(judgment.strength if is_straight else -judgment.strength)
    if judgment.preference == Preference.TIE:
        return "0"
    return "left" if (judgment.preference == Preference.A) == is_straight else "right"


def stored_uptakes(conversation: Conversation, turns: Sequence[Turn]) -> dict[int, str]:
    """Whether each response took up the feedback, by response."""
    ids = [side.response_id for turn in turns for side in turn.sides.all() if side.response_id]
    words = {value: word for word, value in UPTAKE_VALUES.items()}
    ratings = Rating.objects.filter(
        response__in=ids, annotator=conversation.annotator_id, aspect=UPTAKE_ASPECT
    ).values_list("response_id", "value")
    return {response: words.get(value, "") for response, value in ratings if value is not None}
