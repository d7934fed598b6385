"""What the compare page shows around a comparison: the form of the project's protocol, reasons, and its sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.db.models import TextChoices
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.blind import NAMES, BlindComparison, Filled, Side
from annotation.content_order import is_ranked
from annotation.markdown import render_markdown
from annotation.models import ErrorKind, Project
from annotation.protocol import Demand, Protocol, Scale
from annotation.reasons import FlagReason, SkipReason

# E edits and everything else that a letter does is elsewhere, too.
CHIP_KEYS = "qwrtyuiop"


@dataclass(frozen=True, slots=True)
class Option:
    """One button of a row."""

    value: str
    key: str
    label: str | Promise
    short: str | Promise
    checked: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A question with one answer among a few."""

    field: str
    label: str | Promise
    options: Sequence[Option]
    required: bool
    name: str = ""
    """Of the response that it is about."""
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Reason:
    code: str
    key: str
    label: str | Promise


_AXIS_SHORT = {
    "-3": gettext_lazy("A much"),
    "-2": gettext_lazy("A"),
    "-1": gettext_lazy("A slightly"),
    "0": gettext_lazy("Same"),
    "1": gettext_lazy("B slightly"),
    "2": gettext_lazy("B"),
    "3": gettext_lazy("B much"),
}


def compare_context(
    project: Project, queue: Sequence[BlindComparison], *, typed: Filled | None = None
) -> dict[str, Any]:
    """The template's variables, of a page that shows the first of the queue.

    typed: what stands in the form where it was sent and refused; else what was answered earlier.
    """
    protocol = Protocol.of(project)
    comparison = queue[0] if queue else None
    filled = typed or (comparison.filled if comparison else None) or Filled()
    count = len(comparison.sides) if comparison else 2
    return {
        "project": project,
        "protocol": protocol,
        "guidelines": render_markdown(project.guidelines),
        "comparison": comparison,
        "sides": _ranked_sides(comparison, filled.ranks) if comparison else [],
        "waiting": [fragment_context(project, waiting) for waiting in queue[1:]],
        "judgment_id": uuid4(),
        "filled": filled,
        "is_ranked": is_ranked(protocol, count),
        "verdicts": _verdicts(protocol, filled),
        "none_good": _none_good(protocol, filled),
        "ranks": _rank_keys(9),
        "axes": _axes(protocol, filled),
        "aspects": _aspects(protocol, filled, count, _most_responses(protocol, queue)),
        "names": NAMES[: _most_responses(protocol, queue)],
        "response_count": count,
        "passages": _passages(filled),
        "chips": [
            Option(chip, CHIP_KEYS[i] if i < len(CHIP_KEYS) else "", chip, chip, chip in filled.chips)
            for i, chip in enumerate(protocol.chips)
        ],
        "note_required": protocol.note_demand == Demand.REQUIRED,
        "has_note": protocol.note_demand != Demand.OFF,
        "has_edit": protocol.edit_demand != Demand.OFF,
        "error_kinds": reasons(ErrorKind),
        "skip_reasons": reasons(SkipReason),
        "flag_reasons": reasons(FlagReason),
        "lease_seconds": settings.ASSIGNMENT_LEASE_SECONDS,
        "page_data": _page_data(project, protocol),
    }


def ranking_context(
    protocol: Protocol, comparison: BlindComparison, *, ranks: Sequence[int | str], is_neither: bool
) -> dict[str, Any]:
    """What a page needs to have a comparison ranked outside the queue."""
    return {
        "protocol": protocol,
        "is_ranked": is_ranked(protocol, len(comparison.sides)),
        "sides": _ranked_sides(comparison, ranks),
        "ranks": _rank_keys(len(comparison.sides)),
        "none_good": _none_good(protocol, Filled(choice="neither" if is_neither else "")),
        "page_data": {"allowTies": protocol.allow_tie, "words": {"rankTaken": _words()["rankTaken"]}},
    }


def _rank_keys(count: int) -> list[Reason]:
    return [Reason(str(rank), str(rank), _("Rank %(rank)d") % {"rank": rank}) for rank in range(1, count + 1)]


def fragment_context(project: Project, comparison: BlindComparison) -> dict[str, Any]:
    """What one comparison needs, without the page around it."""
    ranked = is_ranked(Protocol.of(project), len(comparison.sides))
    ranks = comparison.filled.ranks if comparison.filled else ()
    return {"comparison": comparison, "is_ranked": ranked, "sides": _ranked_sides(comparison, ranks)}


def _ranked_sides(comparison: BlindComparison, ranks: Sequence[int | str]) -> list[tuple[Side, int | str]]:
    return [(side, ranks[i] if i < len(ranks) else "") for i, side in enumerate(comparison.sides)]


def reasons(choices: type[TextChoices]) -> list[Reason]:
    return [Reason(choice.value, str(key), choice.label) for key, choice in enumerate(choices, start=1)]


def _passages(filled: Filled) -> list[dict[str, Any]]:
    """The lines for passages on the page without scripts: what is there, and some empty ones."""
    given = [*filled.passages, *filled.spans]
    lines = [
        {**passage, "position": int(passage["position"])} for passage in given if str(passage["position"]).isdigit()
    ]
    return [*lines, *({} for _line in range(max(1, 3 - len(lines))))]


def _most_responses(protocol: Protocol, queue: Sequence[BlindComparison]) -> int:
    """How many columns the form has; a project of pairs can hold a few longer comparisons, too."""
    is_for_pairs = protocol.scale != Scale.RANKING and all(len(comparison.sides) == 2 for comparison in queue)
    return 2 if is_for_pairs else 9


def _verdicts(protocol: Protocol, filled: Filled) -> list[Option]:
    if protocol.scale == Scale.RANKING:
        return []
    return [
        Option(verdict.value, verdict.key, verdict.label, verdict.short, verdict.value == filled.choice)
        for verdict in protocol.verdicts
    ]


def _none_good(protocol: Protocol, filled: Filled) -> Option | None:
    if not protocol.allow_neither:
        return None
    label = _("None of them is good")
    return Option("neither", "0", label, label, filled.choice == "neither")


def _axes(protocol: Protocol, filled: Filled) -> list[Row]:
    return [
        Row(
            f"axis-{axis.name}",
            axis.label,
            [
                Option(value, str(key), short, short, str(filled.axes.get(axis.name, "")) == value)
                for key, (value, short) in enumerate(_AXIS_SHORT.items(), start=1)
            ],
            required=True,
        )
        for axis in protocol.axes
    ]


def _aspects(protocol: Protocol, filled: Filled, count: int, most: int) -> list[dict[str, Any]]:
    """A line for each aspect, with a row of scores for each response that a comparison here can have."""
    lines = []
    for aspect in protocol.aspects:
        given = filled.ratings.get(aspect.name, ())
        rows = []
        for position in range(most):
            score = given[position] if position < len(given) else None
            options = [
                Option(str(value), str(value % 10), str(value), str(value), value == score)
                for value in range(aspect.low, aspect.high + 1)
            ]
            label = _("%(aspect)s of %(name)s") % {"aspect": aspect.label, "name": NAMES[position]}
            required = protocol.aspects_demand == Demand.REQUIRED
            rows.append(
                Row(f"rating-{aspect.name}-{position}", label, options, required, NAMES[position], position >= count)
            )
        lines.append({"label": aspect.label, "low": aspect.low, "high": aspect.high, "rows": rows})
    return lines


def _page_data(project: Project, protocol: Protocol) -> dict[str, Any]:
    """For the scripts: what must be answered, and every sentence that they say."""
    return {
        "needsMore": protocol.needs_more_than_a_key,
        "chipsRequired": bool(protocol.chips) and protocol.chips_demand == Demand.REQUIRED,
        "noteRequired": protocol.note_demand == Demand.REQUIRED,
        "editRequired": protocol.edit_demand == Demand.REQUIRED,
        "allowTies": protocol.allow_tie,
        "guidelineVersion": project.guideline_version,
        "words": _words(),
    }


def _words() -> dict[str, str]:
    return {
        "chooseFirst": _("Choose first."),
        "rankFirst": _("Give every response a rank first. Missing: {names}."),
        "rowFirst": _("One answer is missing: {label}."),
        "chipsFirst": _("Pick at least one reason first."),
        "noteFirst": _("Write a few words about why first; this project asks for them."),
        "editFirst": _("Edit the better response first; this project asks for it."),
        "voted": _("{choice}."),
        "ranked": _("Ranked {ranks}."),
        "skipped": _("Skipped; somebody else gets it."),
        "undo": _("Undo"),
        "backAt": _("Back at “{choice}”. It stands until you choose again; Enter keeps it."),
        "backAtSkipped": _("Back at the one you skipped."),
        "undoOffline": _("There is no connection, so the one before cannot be fetched. Nothing is lost."),
        "undoFailed": _("The server cannot bring it back just now. Nothing is lost."),
        "judgedElsewhere": _("You judged that one in another tab. Here is the next."),
        "saving": _("Saving your votes"),
        "savingText": _(
            "{trouble} What you voted is kept in this browser and sent again by itself; the next pair comes with it."
        ),
        "oneMoment": _("One moment."),
        "waiting": _("Votes waiting to be saved: {count}"),
        "noConnection": _("No connection to the server."),
        "signedOut": _("You are signed out. Your votes wait in this browser until you are back."),
        "signIn": _("Sign in again"),
        "serverBusy": _("The server cannot save just now."),
        "notSaved": _("Not saved: {reason}"),
        "yourNote": _("Your note: {note}"),
        "yourEdit": _("Your edit: {text}"),
        "dismiss": _("Dismiss"),
        "leaseOver": _("Your time on this one ran out; a vote still counts"),
        "leaseLeft": _("Kept for you for {time}"),
        "flagged": _("Flagged. Whoever runs the project looks at it; you can go on judging it."),
        "flagFailed": _("The flag could not be sent. Try again when the connection is back."),
        "copied": _("{name} is copied as it was written."),
        "copyFailed": _("The browser did not allow copying."),
        "textFailed": _("The text could not be fetched. Try again when the connection is back."),
        "copy": _("copy"),
        "copyLabel": _("Copy response {name}"),
        "diff": _("diff"),
        "diffLabel": _("Mark the words that differ between A and B"),
        "diffOn": _("Words that differ are marked. D turns it off."),
        "diffOff": _("Differences are no longer marked."),
        "diffUnlike": _("The two have too few words in common to mark those that differ."),
        "diffNone": _("The two read the same, word for word."),
        "linkOn": _("Both texts scroll together."),
        "linkOff": _("Each text scrolls on its own."),
        "responseTab": _("Response {name}"),
        "guidelinesChanged": _("The guidelines changed. What you saved was given under the ones you had."),
        "readGuidelines": _("Read them"),
        "draftRestored": _("What you had typed here is back."),
        "editBetter": _("Edit"),
        "editSide": _("Edit {name}"),
        "editChoose": _("Choose the better one: the next digit only marks, and the editor opens."),
        "editNoSide": _("Only a response that is better can be edited. Choose a side first."),
        "editUnchanged": _("Nothing is changed yet."),
        "editChanged": _("Words out: {removed}, in: {added}, time: {time}"),
        "editLeft": _("Your edit belongs to {name} and is not sent, because you now find the other one better."),
        "editing": _("{name}, edited"),
        "markSelect": _("Select a passage in a response first, or write it into the field."),
        "markWhere": _("Select inside one response."),
        "markMissing": _("Response {name} does not hold this passage. Copy it exactly as it stands there."),
        "marked": _("Marked in {name}: {kind}."),
        "markRemove": _("Remove the mark"),
        "markNote": _("Note on this passage"),
        "rankTaken": _("There are no ties here: {name} had that rank and has none now."),
        "rankOfMany": _("{name}: rank {rank}"),
    }
