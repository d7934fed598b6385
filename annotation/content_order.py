"""Turns an answer from the order of the screen into that of the content, and holds it against the protocol.

Pure: it reads no table. What only the texts can tell (where passages end, what was edited) the service checks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from annotation.answer import Answer
from annotation.errors import DomainError
from annotation.models import Assignment, ErrorKind, Preference
from annotation.protocol import Aspect, Demand, Protocol, Scale

MAX_NOTE_CHARS = 10_000
MAX_SPAN_NOTE_CHARS = 2_000
MAX_SPANS = 200
MAX_EDITED_CHARS = 400_000  # the edit distance of longer texts would hold a web process for seconds
_MAX_INTEGER = 2_147_483_647  # Postgres integer
_NOT_ASKED = _("this project does not ask for it; remove it, or reload the page.")


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer as a judgment stores it: content order, strengths negative where a is better."""

    preference: Preference
    strength: int | None
    ranking: list[int] | None
    ratings: dict[str, list[int | None]]
    axes: dict[str, int]


def read_verdict(answer: Answer, protocol: Protocol, order: Sequence[int]) -> Verdict:
    """Raises DomainError with a sentence that names the field which does not fit.

    order: the content position of each response from left to right: [0, 1], [1, 0], or any of 0 … n−1.
    """
    _check_plain_fields(answer, protocol, len(order))
    preference, strength, ranking = _read_choice(answer, protocol, order)
    _check_edit(answer, protocol, preference)
    return Verdict(
        preference=preference,
        strength=strength,
        ranking=ranking,
        ratings=_read_ratings(answer.ratings, protocol, order),
        axes=_read_axes(answer.axes, protocol, order),
    )


def shown_order(assignment: Assignment) -> list[int]:
    """The content positions of an assignment's responses from left to right, as they were drawn."""
    return assignment.display_order or ([0, 1] if assignment.a_shown_on_left else [1, 0])


def is_ranked(protocol: Protocol, response_count: int) -> bool:
    """Whether people order the responses: more than two can be compared in no other way."""
    return protocol.scale == Scale.RANKING or response_count > 2


def in_content_order(shown: Sequence[Any], order: Sequence[int]) -> list[Any]:
    """Values from left to right, put in content order."""
    content: list[Any] = [None] * len(order)
    for position, value in zip(order, shown, strict=True):
        content[position] = value
    return content


def check_text(field: str, text: str, most: int) -> None:
    """Raise DomainError where a text is too long or cannot be stored."""
    if len(text) > most:
        raise DomainError(
            _("%(field)s: the text has %(count)s characters and may have %(most)s; shorten it and save again.")
            % {"field": field, "count": f"{len(text):,}", "most": f"{most:,}"}
        )
    try:
        is_storable = "\0" not in text and text.encode() is not None
    except UnicodeEncodeError:
        is_storable = False
    if not is_storable:
        raise DomainError(
            _("%(field)s: the text holds a character that cannot be stored; delete it and save again.")
            % {"field": field}
        )


# ── The verdict itself ───────────────────────────────────────────────────────────────────────────────────────────


def _read_choice(
    answer: Answer, protocol: Protocol, order: Sequence[int]
) -> tuple[Preference, int | None, list[int] | None]:
    if answer.choice == "neither" and protocol.allow_neither:
        _refuse(answer.ranking is not None, "ranking", _("“neither” comes without ranks."))
        return Preference.NEITHER, None, None
    if is_ranked(protocol, len(order)):
        _refuse(answer.choice != "ranked", "choice", _("this project asks for an order of all responses."))
        return Preference.RANKED, None, read_ranking(answer.ranking, protocol, order)
    _refuse(answer.ranking is not None, "ranking", _("this project asks for no ranks; reload the page."))
    known = [verdict.value for verdict in protocol.verdicts]
    if answer.choice not in known:
        raise DomainError(
            _("choice: “%(choice)s” is not one of the answers of this project (%(known)s); reload the page.")
            % {"choice": answer.choice[:40], "known": ", ".join(known)}
        )
    left_is_a = order[0] == 0
    if answer.choice in ("left", "right"):
        return (Preference.A if (answer.choice == "left") == left_is_a else Preference.B), None, None
    shown = int(answer.choice)
    strength = shown if left_is_a else -shown
    if strength == 0:
        return Preference.TIE, None if protocol.scale == Scale.BINARY else 0, None
    return (Preference.A if strength < 0 else Preference.B), strength, None


def read_ranking(ranking: Sequence[int] | None, protocol: Protocol, order: Sequence[int]) -> list[int]:
    """Ranks from left to right as they are stored; raises DomainError where they are no order of all responses."""
    count = len(order)
    if ranking is None or len(ranking) != count:
        raise DomainError(_("ranking: give every one of the %(count)s responses a rank.") % {"count": count})
    for rank in ranking:
        if not 1 <= rank <= count:
            raise DomainError(
                _("ranking: %(rank)s is no rank; use 1 for the best up to %(count)s.") % {"rank": rank, "count": count}
            )
    distinct = sorted(set(ranking))
    _refuse(
        len(distinct) < count and not protocol.allow_tie,
        "ranking",
        _("two responses have the same rank, which this project does not allow."),
    )
    # 1, 3, 3 says the same as 1, 2, 2: stored without gaps, so that equal orders are equal.
    return in_content_order([distinct.index(rank) + 1 for rank in ranking], order)


# ── What comes with it ───────────────────────────────────────────────────────────────────────────────────────────


def _check_plain_fields(answer: Answer, protocol: Protocol, response_count: int) -> None:
    """The fields whose order does not matter."""
    check_text("note", answer.note, MAX_NOTE_CHARS)
    _check_demand("note", protocol.note_demand, bool(answer.note.strip()))
    _check_demand("chips", protocol.chips_demand if protocol.chips else Demand.OFF, bool(answer.chips))
    for chip in answer.chips:
        if chip not in protocol.chips:
            raise DomainError(
                _("chips: “%(chip)s” is not one of the reasons of this project; reload the page.")
                % {"chip": chip[:60]}
            )
    _refuse(bool(answer.spans) and not protocol.spans, "spans", _NOT_ASKED)
    _refuse(len(answer.spans) > MAX_SPANS, "spans", _("too many passages are marked; delete some and save again."))
    for span in answer.spans:
        _refuse(not 0 <= span.position < response_count, "spans", _("a passage belongs to no response."))
        _refuse(not 0 <= span.start < span.end, "spans", _("a passage is empty; mark it again."))
        _refuse(span.kind not in ErrorKind.values, "spans", _("a passage has an unknown kind of error."))
        check_text("spans", span.note, MAX_SPAN_NOTE_CHARS)
    for field in ("guideline_version", "edit_seconds", "decided_in_ms", "first_key_ms"):
        value = getattr(answer, field)
        _refuse(value is not None and not 0 <= value <= _MAX_INTEGER, field, _("the number is out of range."))


def _check_edit(answer: Answer, protocol: Protocol, preference: Preference) -> None:
    has_better = preference in (Preference.A, Preference.B)
    check_text("edited_text", answer.edited_text, MAX_EDITED_CHARS)
    is_edited = bool(answer.edited_text.strip())
    _refuse(is_edited and protocol.edit_demand == Demand.OFF, "edited_text", _NOT_ASKED)
    _refuse(is_edited and not has_better, "edited_text", _("only the better of two responses can be edited."))
    _refuse(
        not is_edited and has_better and protocol.edit_demand == Demand.REQUIRED,
        "edited_text",
        _("this project asks you to improve the better response; edit it and save again."),
    )


def _read_ratings(
    ratings: Mapping[str, Sequence[int | None]], protocol: Protocol, order: Sequence[int]
) -> dict[str, list[int | None]]:
    is_asked = protocol.aspects_demand != Demand.OFF
    known = {aspect.name: aspect for aspect in protocol.aspects} if is_asked else {}
    if unknown := next((name for name in ratings if name not in known), None):
        raise DomainError(
            _("ratings: “%(aspect)s” is not an aspect of this project; reload the page.") % {"aspect": unknown[:40]}
        )
    read = {}
    for aspect in known.values():
        shown = list(ratings.get(aspect.name, ()))
        _refuse(len(shown) > len(order), aspect.name, _("there are more scores than responses."))
        shown += [None] * (len(order) - len(shown))
        for score in shown:
            _check_score(aspect, score, is_required=protocol.aspects_demand == Demand.REQUIRED)
        if any(score is not None for score in shown):
            read[aspect.name] = in_content_order(shown, order)
    return read


def _check_score(aspect: Aspect, score: int | None, *, is_required: bool) -> None:
    if score is None:
        _refuse(is_required, aspect.name, _("score every response before you save."))
    elif not aspect.low <= score <= aspect.high:
        raise DomainError(
            _("%(aspect)s: %(score)s is outside the scale from %(low)s to %(high)s.")
            % {"aspect": aspect.name, "score": score, "low": aspect.low, "high": aspect.high}
        )


def _read_axes(axes: Mapping[str, int], protocol: Protocol, order: Sequence[int]) -> dict[str, int]:
    # A comparison of more than two has no left and right.
    known = [axis.name for axis in protocol.axes] if len(order) == 2 else []
    if unknown := next((name for name in axes if name not in known), None):
        raise DomainError(
            _("axes: “%(axis)s” is not asked in this project; reload the page.") % {"axis": unknown[:40]}
        )
    for name in known:
        _refuse(name not in axes, name, _("answer this question, too, before you save."))
        _refuse(not -3 <= axes[name] <= 3, name, _("the answer is outside −3 … 3."))
    return {name: strength if order[0] == 0 else -strength for name, strength in axes.items()}


# ── Sentences ────────────────────────────────────────────────────────────────────────────────────────────────────


def _check_demand(field: str, demand: Demand, is_given: bool) -> None:
    _refuse(is_given and demand == Demand.OFF, field, _NOT_ASKED)
    _refuse(not is_given and demand == Demand.REQUIRED, field, _("this project asks for it; add it and save again."))


def _refuse(condition: bool, field: str, sentence: str | Promise) -> None:
    if condition:
        raise DomainError(f"{field}: {sentence}")
