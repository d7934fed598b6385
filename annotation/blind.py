"""The only road from a comparison to a browser or a program that judges.

A template gets a `BlindComparison` and nothing else, so what is not copied here cannot leak: no source, no row id, no
sampling, and the texts only in the order that was drawn for this person.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID

from django.utils.translation import gettext as _

from annotation.content_order import shown_order
from annotation.errors import AssignmentNotFoundError
from annotation.markdown import Rendered, render_markdown
from annotation.models import (
    Assignment,
    AssignmentStatus,
    Judgment,
    RatingStatus,
    Response,
    RewriteTask,
    RubricRating,
)
from annotation.models.studies import ANSWERS
from annotation.passages import quoted

NAMES = "ABCDEFGHI"


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
class Filled:
    """What stands in the form of a comparison that was answered before, or sent and refused; as in `Answer`."""

    choice: str = ""
    ranks: Sequence[int | str] = ()
    axes: Mapping[str, int] = field(default_factory=dict)
    ratings: Mapping[str, Sequence[int | None]] = field(default_factory=dict)
    chips: Sequence[str] = ()
    note: str = ""
    spans: Sequence[Mapping[str, Any]] = ()
    """Marked passages: position, start and quote on the screen, kind, note."""
    passages: Sequence[Mapping[str, str]] = ()
    """Passages as somebody without scripts typed them: position, quote, kind, note."""
    edited_text: str = ""
    edit_seconds: int = 0

    def to_json(self) -> str:
        """For the scripts, which mark passages in their own way."""
        return json.dumps(
            {name: value for name, value in asdict(self).items() if name != "passages"}, ensure_ascii=False
        )


@dataclass(frozen=True, slots=True)
class BlindComparison:
    """What an annotator may know of a comparison before the vote."""

    assignment_id: UUID
    earlier_turns: Sequence[Turn]
    question: Turn
    task: str
    lang: str
    sides: Sequence[Side]
    filled: Filled | None
    """The answer given earlier."""
    previous_id: UUID | None
    """The assignment that Undo goes back to."""


def blind_comparison(
    assignment: Assignment, *, earlier: Judgment | None = None, previous_id: UUID | None = None
) -> BlindComparison:
    """Strip an assignment, loaded with its comparison, prompt and responses, to what its annotator may see."""
    comparison = assignment.comparison
    messages = comparison.prompt.messages
    turns = [Turn(message["role"], render_markdown(message["content"])) for message in messages]
    responses = shown_responses(assignment)
    filled = filled_by(earlier, shown_order(assignment), responses) if earlier else None
    sides = [_side(name, response, messages) for name, response in zip(NAMES, responses, strict=False)]
    return BlindComparison(
        assignment_id=assignment.public_id,
        earlier_turns=turns[:-1],
        question=turns[-1],
        task=comparison.prompt.task,
        lang=comparison.prompt.lang,
        sides=sides,
        filled=filled,
        previous_id=previous_id,
    )


def shown_responses(assignment: Assignment) -> list[Response]:
    """The responses from left to right; those beyond the second are looked up where nobody prefetched them."""
    comparison = assignment.comparison
    responses = [comparison.response_a, comparison.response_b]
    if comparison.response_count > 2:
        responses += [further.response for further in comparison.further_responses.all()]
    return [responses[position] for position in shown_order(assignment)]


def _side(name: str, response: Response, messages: list[dict[str, str]]) -> Side:
    own = response.messages or []
    common = 0
    while common < min(len(own), len(messages)) and own[common] == messages[common]:
        common += 1
    turns = [Turn(message["role"], render_markdown(message["content"])) for message in own[common:]]
    return Side(name, render_markdown(response.text), turns)


def filled_by(judgment: Judgment, order: Sequence[int], responses: Sequence[Response]) -> Filled:
    """A stored answer, turned from content order into that of somebody's screen.

    order: the content positions from left to right; responses: in that order.
    """
    sign = 1 if order[0] == 0 else -1
    edit = getattr(judgment, "edit", None)
    return Filled(
        choice=_choice(judgment, sign),
        ranks=[judgment.ranking[position] for position in order] if judgment.ranking else (),
        axes={name: sign * strength for name, strength in judgment.axes.items()},
        ratings={aspect: [scores[position] for position in order] for aspect, scores in judgment.ratings.items()},
        chips=judgment.chips,
        note=judgment.note,
        spans=_shown_spans(judgment, responses),
        edited_text=edit.edited.text if edit else "",
        edit_seconds=edit.seconds_spent if edit else 0,
    )


def _choice(judgment: Judgment, sign: int) -> str:
    if judgment.preference in ("neither", "ranked"):
        return judgment.preference
    if judgment.strength is not None:
        return str(sign * judgment.strength)
    if judgment.preference == "tie":
        return "0"
    return "left" if (judgment.preference == "a") == (sign == 1) else "right"


def _shown_spans(judgment: Judgment, responses: Sequence[Response]) -> list[dict[str, Any]]:
    positions = {response.pk: position for position, response in enumerate(responses)}
    spans = []
    for span in sorted(judgment.error_spans.all(), key=lambda span: (span.response_id, span.start)):
        position = positions.get(span.response_id)
        if position is None:
            continue
        start, quote = quoted(responses[position].text, span.start, span.end)
        spans.append({"position": position, "start": start, "quote": quote, "kind": span.kind, "note": span.note})
    return spans


@dataclass(frozen=True, slots=True)
class BlindRewrite:
    """A prompt without an acceptable response, with those that it has in an order drawn for this person."""

    task_id: int
    earlier_turns: Sequence[Turn]
    question: Turn
    lang: str
    sides: Sequence[Side]
    responses: Sequence[Response]
    """For the server; templates get the texts."""

    @property
    def texts(self) -> list[str]:
        """As they were written, to start from."""
        return [response.text for response in self.responses]


def blind_rewrite(task: RewriteTask, annotator_id: int) -> BlindRewrite:
    """Strip a task, loaded with its prompt and comparison, to what whoever rewrites it may see."""
    responses = rewrite_responses(task, annotator_id)
    messages = task.prompt.messages
    turns = [Turn(message["role"], render_markdown(message["content"])) for message in messages]
    sides = [_side(name, response, messages) for name, response in zip(NAMES, responses, strict=False)]
    return BlindRewrite(task.pk, turns[:-1], turns[-1], task.prompt.lang, sides, responses)


def rewrite_responses(task: RewriteTask, annotator_id: int) -> list[Response]:
    """The responses that nobody found good, in an order drawn for this person."""
    comparison = task.comparison
    responses = [comparison.response_a, comparison.response_b]
    if comparison.response_count > 2:
        responses += [further.response for further in comparison.further_responses.select_related("response")]
    random.Random(f"{task.pk} {annotator_id}").shuffle(responses)
    return responses


@dataclass(frozen=True, slots=True)
class BlindRating:
    """A single response, to be marked by itself."""

    rating_id: UUID
    earlier_turns: Sequence[Turn]
    question: Turn
    task: str
    lang: str
    side: Side
    marks: Mapping[str, bool]
    """The answers given earlier, by name."""
    note: str
    is_given: bool
    previous_id: UUID | None
    """The rating that Undo goes back to."""


def blind_rating(rating: RubricRating) -> BlindRating:
    """Strip a rating, loaded with its response and prompt, to what its annotator may see."""
    response = rating.item.response
    assert response is not None
    prompt = response.prompt
    turns = [Turn(message["role"], render_markdown(message["content"])) for message in prompt.messages]
    before = RubricRating.objects.filter(
        annotator=rating.annotator_id,
        project=rating.project_id,
        status=RatingStatus.SUBMITTED,
        superseded_at=None,
        leased_at__lt=rating.leased_at,
    )
    return BlindRating(
        rating.public_id,
        turns[:-1],
        turns[-1],
        prompt.task,
        prompt.lang,
        _side("", response, prompt.messages),
        {name: getattr(rating, name) for name in ANSWERS if getattr(rating, name) is not None},
        rating.note,
        rating.status == RatingStatus.SUBMITTED,
        before.order_by("-leased_at").values_list("public_id", flat=True).first(),
    )


def own_rating(rating_id: UUID, annotator_id: int, project_id: int) -> RubricRating | None:
    """An annotator's own rating with its prompt and response, unless they gave it back; None if it is not theirs."""
    return (
        RubricRating.objects.filter(public_id=rating_id, annotator=annotator_id, project=project_id)
        .exclude(status=RatingStatus.SKIPPED)
        .select_related("item__response__prompt")
        .first()
    )


def for_display(assignment_id: UUID, annotator_id: int) -> BlindComparison | None:
    """An annotator's own assignment by its public id, in any state, with the verdict that stands."""
    assignment = own_assignment(assignment_id, annotator_id)
    if assignment is None:
        return None
    return blind_comparison(
        assignment,
        earlier=assignment.judgments.filter(superseded_at=None).select_related("edit__edited").first(),
        previous_id=previous_assignment_id(
            annotator_id=annotator_id, project_id=assignment.project_id, before=assignment
        ),
    )


def own_assignment(assignment_id: UUID, annotator_id: int) -> Assignment | None:
    """An annotator's own assignment with its prompt and responses; None where it is somebody else's."""
    return (
        Assignment.objects.filter(public_id=assignment_id, annotator=annotator_id)
        .select_related("comparison__prompt", "comparison__response_a", "comparison__response_b")
        .prefetch_related("comparison__further_responses__response")
        .first()
    )


def shown_texts(assignment_id: UUID, annotator_id: int) -> list[str]:
    """The responses of a person's own assignment as written, from left to right; raises AssignmentNotFoundError."""
    assignment = own_assignment(assignment_id, annotator_id)
    if assignment is None:
        raise AssignmentNotFoundError(_("This comparison is not assigned to you; reload the page for the next one."))
    return [response.text for response in shown_responses(assignment)]


def previous_assignment_id(*, annotator_id: int, project_id: int, before: Assignment | None = None) -> UUID | None:
    """The comparison that the annotator finished last, or last before the given one."""
    finished = Assignment.objects.filter(
        annotator=annotator_id,
        project=project_id,
        status__in=[AssignmentStatus.SUBMITTED, AssignmentStatus.SKIPPED],
        comparison__turn=None,  # the pick of a conversation is changed in the conversation
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
    prompt = assignment.comparison.prompt
    texts = [response.text for response in shown_responses(assignment)]
    return BlindTexts(prompt.messages, texts, prompt.task, prompt.lang)


def blind_single(rating: RubricRating) -> BlindTexts:
    """The same of a rating, loaded with its response and prompt: one response, after the messages that it answers."""
    response = rating.item.response
    assert response is not None
    prompt = response.prompt
    return BlindTexts(response.messages or prompt.messages, [response.text], prompt.task, prompt.lang)
