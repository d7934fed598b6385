"""What people said of a comparison, as its reviewer sees it: no names, sides as on the reviewer's screen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from django.db.models import QuerySet
from django.utils.functional import Promise

from annotation.blind import NAMES, Filled, filled_by
from annotation.models import Adjudication, Annotator, Comparison, ErrorKind, ErrorSpan, Judgment, Preference, Response
from annotation.passages import quoted
from annotation.protocol import Protocol
from annotation.text_diff import DiffLine, diff_lines

PASSAGES_SHOWN = 100


@dataclass(frozen=True)
class ShownEdit:
    name: str
    """Of the response that was edited."""
    lines: Sequence[DiffLine]
    seconds: int


@dataclass(frozen=True)
class ShownVote:
    """Somebody's vote."""

    number: int
    verdict: str | Promise
    note: str
    chips: Sequence[str]
    is_own: bool
    axes: Sequence[tuple[str, str | Promise]]
    """Each further question with its answer."""
    scores: Sequence[tuple[str, Sequence[tuple[str, int]]]]
    """Each aspect with the scores that were given, by the names of the responses."""
    passages: Sequence[tuple[str, str, str | Promise, str]]
    """Each marked passage: the response's name, what was marked, what is wrong with it, and the note."""
    edit: ShownEdit | None


def live_votes(comparisons: list[int]) -> QuerySet[Judgment]:
    return Judgment.objects.filter(
        comparison__in=comparisons, superseded_at=None, round=0, annotator__is_human=True
    ).order_by("comparison", "strength", "preference", "pk")


def shown_votes(
    comparison: Comparison,
    reviewer: Annotator,
    protocol: Protocol,
    order: Sequence[int],
    responses: Sequence[Response],
) -> list[ShownVote]:
    """Left to right as the reviewer sees the sides; rankings by who comes first.

    order: the content positions from left to right; responses: in that order.
    """
    labels = {verdict.value: verdict.label for verdict in protocol.verdicts}

    def place(vote: Judgment) -> tuple[int, list[int]]:
        if vote.ranking:
            return 0, [vote.ranking[position] for position in order]
        value = as_shown(vote, order, labels)
        return (int(value) if value.lstrip("-").isdigit() else 9), []

    votes = live_votes([comparison.pk]).select_related("edit__edited").prefetch_related("error_spans")
    shown = []
    for number, vote in enumerate(sorted(votes, key=place), 1):
        said = filled_by(vote, order, responses)
        shown.append(
            ShownVote(
                number=number,
                verdict=in_words(vote, order, labels),
                note=vote.note,
                chips=vote.chips,
                is_own=vote.annotator_id == reviewer.pk,
                axes=_axes(said, protocol),
                scores=_scores(said, protocol),
                passages=[
                    (NAMES[span["position"]], span["quote"], ErrorKind(span["kind"]).label, span["note"])
                    for span in said.spans
                ],
                edit=_edit(vote, responses),
            )
        )
    return shown


def marked_passages(responses: Sequence[Response]) -> dict[int, list[tuple[str, str | Promise, str]]]:
    """What live votes marked as wrong, by response: the passage, what is wrong with it, and the note."""
    by_id = {response.pk: response for response in responses}
    spans = ErrorSpan.objects.filter(response__in=by_id, judgment__superseded_at=None)
    found: dict[int, list[tuple[str, str | Promise, str]]] = {}
    for span in spans.order_by("response_id", "start", "pk")[:PASSAGES_SHOWN]:
        _start, quote = quoted(by_id[span.response_id].text, span.start, span.end)
        found.setdefault(span.response_id, []).append((quote, ErrorKind(span.kind).label, span.note))
    return found


def _axes(said: Filled, protocol: Protocol) -> list[tuple[str, str | Promise]]:
    labels = {axis.name: axis.label for axis in protocol.axes}
    steps = {verdict.value: verdict.label for verdict in Protocol().verdicts}
    return [
        (labels.get(name, name), steps.get(str(said.axes[name]), str(said.axes[name])))
        for name in _as_asked(said.axes, labels)
    ]


def _scores(said: Filled, protocol: Protocol) -> list[tuple[str, list[tuple[str, int]]]]:
    labels = {aspect.name: aspect.label for aspect in protocol.aspects}
    return [
        (
            labels.get(name, name),
            [(side, score) for side, score in zip(NAMES, said.ratings[name], strict=False) if score is not None],
        )
        for name in _as_asked(said.ratings, labels)
    ]


def _as_asked(answers: Mapping[str, object], asked: Iterable[str]) -> list[str]:
    """In the protocol's order, as the database keeps none; what was asked earlier comes last."""
    return [name for name in asked if name in answers] + sorted(answers.keys() - set(asked))


def _edit(vote: Judgment, responses: Sequence[Response]) -> ShownEdit | None:
    edit = getattr(vote, "edit", None)
    if edit is None:
        return None
    for name, response in zip(NAMES, responses, strict=False):
        if response.pk == edit.original_id:
            return ShownEdit(name, diff_lines(response.text, edit.edited.text), edit.seconds_spent)
    return None


def in_words(
    said: Judgment | Adjudication, order: Sequence[int], labels: Mapping[str, str | Promise]
) -> str | Promise:
    """A verdict as a sentence has it; a ranking as "B > A = C", by the names on the reviewer's screen."""
    if said.ranking is None:
        return labels.get(as_shown(said, order, labels)) or Preference(said.preference).label
    by_rank: dict[int, list[str]] = {}
    for name, position in zip(NAMES, order, strict=False):
        by_rank.setdefault(said.ranking[position], []).append(name)
    return " > ".join(" = ".join(by_rank[rank]) for rank in sorted(by_rank))


def as_shown(said: Judgment | Adjudication, order: Sequence[int], labels: Mapping[str, str | Promise]) -> str:
    """The value of the verdict, among those of the protocol, as it looks with the sides on the reviewer's screen."""
    if said.preference not in (Preference.A, Preference.B):
        return "0" if said.preference == Preference.TIE else said.preference
    a_first = order[0] == 0
    if said.strength is not None:
        return str(said.strength if a_first else -said.strength)
    side = "left" if (said.preference == Preference.A) == a_first else "right"
    # A side without a grade on a graded scale lies in the middle of its half.
    return side if side in labels else ("-2" if side == "left" else "2")
