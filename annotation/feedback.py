"""Typed feedback: what may be said in which scenario, and what was said, as records for files.

The types and the shape of the items are those of FB-Bench (Li et al. 2024, arXiv 2410.09412).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Q
from django.utils.translation import gettext as _

from annotation.errors import DomainError
from annotation.models import (
    FEEDBACK_ALLOWED,
    DeficiencyType,
    FeedbackType,
    Judgment,
    Project,
    Rating,
    Response,
    Scenario,
    SourceKind,
    Turn,
)

UPTAKE_ASPECT = "takes_up_feedback"
"""The aspect of the ratings that say whether a response took up the feedback before it: 1, 0.5 or 0."""
UPTAKE_VALUES = {"yes": 1.0, "partly": 0.5, "no": 0.0}
CHUNK_TURNS = 500


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a person says about a response: `scenario` is empty where they go on with a further question instead."""

    scenario: str = ""
    deficiency_types: Sequence[str] = ()
    feedback_types: Sequence[str] = ()

    def check(self) -> None:
        """Raise DomainError with a sentence where the types do not fit the scenario, or something is missing."""
        if not self.scenario:
            if self.deficiency_types or self.feedback_types:
                raise DomainError(_("Say first whether this corrects an error or challenges a right response."))
            return
        if self.scenario not in Scenario.values:
            raise DomainError(_("There is no scenario “%(name)s”.") % {"name": self.scenario})
        for kind in self.deficiency_types:
            if kind not in DeficiencyType.values:
                raise DomainError(_("There is no deficiency “%(name)s”.") % {"name": kind})
        for kind in self.feedback_types:
            if kind not in FeedbackType.values:
                raise DomainError(_("There is no kind of feedback “%(name)s”.") % {"name": kind})
            if kind not in FEEDBACK_ALLOWED[self.scenario]:
                raise DomainError(
                    _("“%(kind)s” is no feedback of %(scenario)s; choose another kind, or the other scenario.")
                    % {"kind": FeedbackType(kind).label, "scenario": Scenario(self.scenario).label}
                )
        if self.scenario == Scenario.ERROR_CORRECTION and not self.deficiency_types:
            raise DomainError(_("Say what is wrong with the response: choose one deficiency or more."))
        if self.scenario != Scenario.ERROR_CORRECTION and self.deficiency_types:
            raise DomainError(_("Deficiencies belong to error correction only; here the response was right."))
        if not self.feedback_types:
            raise DomainError(_("Say what kind of feedback this is: choose one or more."))


def feedback_records(project: Project) -> Iterator[dict[str, Any]]:
    """Every typed feedback of a project, in the order in which it was given.

    `{"id", "conversation", "group", "turn", "annotator", "task", "lang", "messages": the history that the response
    answers, "response": {"source", "text", "kept_at_random", "written_here"}, "scenario", "deficiency_types",
    "feedback_types", "feedback", "second_responses": [{"source", "text", "goes_on", "written_here",
    "takes_up_feedback"}], "preference", "strength"}`. Preference and strength judge the second responses in their
    order; null where nobody judged them.
    """
    for chunk in _chunks(project):
        following = _following(chunk)
        said = _said_of(following.values())
        for turn in chunk:
            yield _record(turn, following.get((turn.conversation_id, turn.position + 1)), said)


def fb_bench_items(project: Project) -> Iterator[dict[str, Any]]:
    """The same feedback in FB-Bench's shape, as far as that can hold it: where the response was the first one.

    `{"bench_type", "task_type", "sub_task_type", "user_query", "origin_first_response", "feedback", "error_type",
    "feedback_type", "checklist", "second_responses": [{"model", "text"}], "reference_second_response"}`; the last key
    only where a person preferred or wrote that response. Nobody writes checklists here, so they are empty.
    """
    for record in feedback_records(project):
        if len(record["messages"]) != 1:
            continue
        item = {
            "bench_type": _label(record["scenario"]),
            "task_type": record["task"],
            "sub_task_type": "",
            "user_query": record["messages"][0]["content"],
            "origin_first_response": record["response"]["text"],
            "feedback": record["feedback"],
            "error_type": [_label(kind) for kind in record["deficiency_types"]]
            if record["scenario"] == Scenario.ERROR_CORRECTION
            else None,
            "feedback_type": [_label(kind) for kind in record["feedback_types"]],
            "checklist": [],
            "second_responses": [
                {"model": second["source"], "text": second["text"]} for second in record["second_responses"]
            ],
        }
        best = [second for second in record["second_responses"] if second["goes_on"]]
        if best and (record["preference"] in ("a", "b") or best[0]["written_here"]):
            item["reference_second_response"] = best[0]["text"]
        yield item


def _label(name: str) -> str:
    """FB-Bench's English label: "not_following_instructions" is "Not Following Instructions"."""
    return name.replace("_", " ").title()


def _chunks(project: Project) -> Iterator[list[Turn]]:
    turns = (
        Turn.objects.filter(conversation__project=project, kept_response__isnull=False)
        .exclude(scenario="")
        .select_related("conversation__annotator", "prompt", "kept_response__source")
        .order_by("feedback_at", "pk")
    )
    chunk = []
    for turn in turns.iterator(chunk_size=CHUNK_TURNS):
        chunk.append(turn)
        if len(chunk) == CHUNK_TURNS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _following(chunk: Sequence[Turn]) -> dict[tuple[int, int], Turn]:
    """The turns after the given ones, by conversation and position."""
    wanted = {(turn.conversation_id, turn.position + 1) for turn in chunk}
    turns = (
        Turn.objects.filter(
            conversation__in={conversation for conversation, _ in wanted}, position__in={at for _, at in wanted}
        )
        .select_related("kept_response__source")
        .prefetch_related("sides__response__source")
    )
    found = {(turn.conversation_id, turn.position): turn for turn in turns}
    return {key: turn for key, turn in found.items() if key in wanted}


@dataclass(frozen=True, slots=True)
class _Said:
    judgments: dict[int, Judgment]
    """By comparison."""
    uptake: dict[int, float | None]
    """By response."""


def _said_of(turns: Any) -> _Said:
    turns = list(turns)
    live = Judgment.objects.filter(
        Q(comparison__in=[turn.comparison_id for turn in turns if turn.comparison_id]), superseded_at=None, round=0
    ).only("comparison_id", "preference", "strength")
    ratings = Rating.objects.filter(
        response__in=[side.response_id for turn in turns for side in turn.sides.all() if side.response_id],
        aspect=UPTAKE_ASPECT,
    )
    return _Said(
        {judgment.comparison_id: judgment for judgment in live},
        dict(ratings.values_list("response_id", "value")),
    )


def _record(turn: Turn, after: Turn | None, said: _Said) -> dict[str, Any]:
    conversation, kept = turn.conversation, turn.kept_response
    assert kept is not None
    judgment = said.judgments.get(after.comparison_id or 0) if after else None
    return {
        "id": turn.pk,
        "conversation": str(conversation.public_id),
        "group": turn.prompt.group,
        "turn": turn.position,
        "annotator": conversation.annotator.name if conversation.annotator else "",
        "task": conversation.task,
        "lang": conversation.lang,
        "messages": turn.prompt.messages,
        "response": {
            "source": kept.source.name,
            "text": kept.text,
            "kept_at_random": turn.kept_at_random,
            "written_here": kept.source.kind == SourceKind.PERSON,
        },
        "scenario": turn.scenario,
        "deficiency_types": turn.deficiency_types,
        "feedback_types": turn.feedback_types,
        "feedback": turn.feedback,
        "second_responses": _second_responses(after, said) if after else [],
        "preference": judgment.preference if judgment else None,
        "strength": judgment.strength if judgment else None,
    }


def _second_responses(turn: Turn, said: _Said) -> list[dict[str, Any]]:
    """What the next turn's models wrote, in content order, and what a person wrote instead."""
    responses: list[Response] = [side.response for side in turn.sides.all() if side.response]
    if turn.kept_response and turn.kept_response not in responses:
        responses.append(turn.kept_response)
    return [
        {
            "source": response.source.name,
            "text": response.text,
            "goes_on": response.pk == turn.kept_response_id,
            "written_here": response.source.kind == SourceKind.PERSON,
            "takes_up_feedback": said.uptake.get(response.pk),
        }
        for response in responses
    ]
