"""The only road from a comparison to a browser.

A template gets a `BlindComparison` and nothing else, so what is not copied here cannot leak: no source, no row id, no
sampling, and the two texts only in the order that was drawn for this person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from annotation.markdown import Rendered, render_markdown
from annotation.models import Assignment, AssignmentStatus, Judgment, Response


@dataclass(frozen=True, slots=True)
class Verdict:
    """One of the eight answers; `value` is the strength as shown, −3 (left much better) … +3, or "neither"."""

    value: str
    key: str
    label: str
    short: str


VERDICTS = (
    Verdict("-3", "1", "A much better", "A much better"),
    Verdict("-2", "2", "A better", "A better"),
    Verdict("-1", "3", "A slightly better", "A slightly"),
    Verdict("0", "4", "About the same", "Same"),
    Verdict("1", "5", "B slightly better", "B slightly"),
    Verdict("2", "6", "B better", "B better"),
    Verdict("3", "7", "B much better", "B much better"),
    Verdict("neither", "0", "Neither is good", "Neither is good"),
)


@dataclass(frozen=True, slots=True)
class Turn:
    role: str
    text: Rendered


@dataclass(frozen=True, slots=True)
class Side:
    name: str
    text: Rendered
    turns: Sequence[Turn]
    """What this response answers beyond the shared prompt; usually nothing."""


@dataclass(frozen=True, slots=True)
class BlindComparison:
    """What an annotator may know of a comparison before the vote."""

    assignment_id: UUID
    judgment_id: UUID
    """Offered for the form without JavaScript: sending the form twice stores one vote."""
    earlier_turns: Sequence[Turn]
    question: Turn
    task: str
    lang: str
    sides: Sequence[Side]
    has_math: bool
    chosen: str
    """The value of the verdict given earlier, or the empty string."""
    note: str
    previous_id: UUID | None
    """The assignment that Undo goes back to."""


def blind_comparison(
    assignment: Assignment, *, earlier: Judgment | None = None, previous_id: UUID | None = None
) -> BlindComparison:
    """Strip an assignment, loaded with its comparison, prompt and responses, to what its annotator may see."""
    comparison = assignment.comparison
    messages = comparison.prompt.messages
    texts = [comparison.response_a, comparison.response_b]
    if not assignment.a_shown_on_left:
        texts.reverse()
    turns = [Turn(message["role"], render_markdown(message["content"])) for message in messages]
    sides = [_side(name, response, messages) for name, response in zip("AB", texts, strict=True)]
    shown = [*turns, *(turn for side in sides for turn in side.turns)]
    return BlindComparison(
        assignment_id=assignment.public_id,
        judgment_id=uuid4(),
        earlier_turns=turns[:-1],
        question=turns[-1],
        task=comparison.prompt.task,
        lang=comparison.prompt.lang,
        sides=sides,
        has_math=any(turn.text.has_math for turn in shown) or any(side.text.has_math for side in sides),
        chosen=_chosen(earlier, assignment) if earlier else "",
        note=earlier.note if earlier else "",
        previous_id=previous_id,
    )


def _side(name: str, response: Response, messages: list[dict[str, str]]) -> Side:
    own = response.messages or []
    common = 0
    while common < min(len(own), len(messages)) and own[common] == messages[common]:
        common += 1
    turns = [Turn(message["role"], render_markdown(message["content"])) for message in own[common:]]
    return Side(name, render_markdown(response.text), turns)


def _chosen(judgment: Judgment, assignment: Assignment) -> str:
    if judgment.preference == "neither":
        return "neither"
    if judgment.strength is None:
        return ""
    return str(judgment.strength if assignment.a_shown_on_left else -judgment.strength)


def for_display(assignment_id: UUID, annotator_id: int) -> BlindComparison | None:
    """An annotator's own assignment by its public id, in any state, with the verdict that stands."""
    assignment = (
        Assignment.objects.filter(public_id=assignment_id, annotator=annotator_id)
        .select_related("comparison__prompt", "comparison__response_a", "comparison__response_b")
        .first()
    )
    if assignment is None:
        return None
    return blind_comparison(
        assignment,
        earlier=assignment.judgments.filter(superseded_at=None).first(),
        previous_id=previous_assignment_id(
            annotator_id=annotator_id, project_id=assignment.project_id, before=assignment
        ),
    )


def previous_assignment_id(*, annotator_id: int, project_id: int, before: Assignment | None = None) -> UUID | None:
    """The comparison that the annotator finished last, or last before the given one."""
    finished = Assignment.objects.filter(
        annotator=annotator_id,
        project=project_id,
        status__in=[AssignmentStatus.SUBMITTED, AssignmentStatus.SKIPPED],
    )
    if before is not None:
        finished = finished.filter(leased_at__lt=before.leased_at)
    return finished.order_by("-leased_at", "-id").values_list("public_id", flat=True).first()


@dataclass(frozen=True, slots=True)
class BlindTexts:
    """The texts of a comparison as written, from left to right as its annotator sees them."""

    messages: list[dict[str, str]]
    responses: list[str]
    task: str
    lang: str


def blind_texts(assignment: Assignment) -> BlindTexts:
    """What a program that judges may know: the same as a person, unrendered."""
    comparison = assignment.comparison
    texts = [comparison.response_a.text, comparison.response_b.text]
    texts += [further.response.text for further in comparison.further_responses.select_related("response")]
    if assignment.display_order is not None:
        texts = [texts[position] for position in assignment.display_order]
    elif not assignment.a_shown_on_left:
        texts.reverse()
    return BlindTexts(comparison.prompt.messages, texts, comparison.prompt.task, comparison.prompt.lang)
