"""Reads what the compare page sends: one form, with and without scripts.

Fields: `judgment_id`, `choice`; `rank` once a response; `axis-NAME`; `rating-ASPECT-POSITION` and `responses`, how
many there are; `chip` once a reason; `note`; `span` once a marked passage, as JSON {position, start, quote, kind,
note}, or, from the page without scripts, `passage`, `passage_position`, `passage_kind` and `passage_note`, each once a
passage; `edited_text`, `edit_seconds`; `guideline_version`, `partial`, `decided_in_ms`, `first_key_ms`, `client_at`.
Positions count from the left, from 0.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.http import QueryDict
from django.utils.dateparse import parse_datetime
from django.utils.timezone import is_aware
from django.utils.translation import gettext as _

from annotation.answer import Answer, MarkedSpan
from annotation.blind import Filled
from annotation.content_order import MAX_SPANS
from annotation.errors import DomainError
from annotation.passages import find_passage

MAX_INTEGER = 2_147_483_647  # Postgres integer; nobody looks at one pair for 24 days


def read_answer(posted: QueryDict, shown_texts: Callable[[], Sequence[str]]) -> tuple[UUID, Answer]:
    """The vote's own id and the answer. Whether the answer fits the project's protocol is the service's to say.

    shown_texts: gives the responses as written, from left to right; asked only where passages are marked. Raises
    DomainError with a sentence about the first field that cannot be read.
    """
    choice = posted.get("choice", "")
    ranking = read_ranks(posted)
    if not choice and ranking is not None:
        choice = "ranked"
    if not choice:
        raise DomainError(_("Choose one of the steps, or “neither is good”, and save again. Nothing else was lost."))
    answer = Answer(
        choice=choice,
        ranking=ranking if choice == "ranked" else None,
        ratings=_ratings(posted),
        axes=_axes(posted),
        chips=tuple(dict.fromkeys(chip for chip in posted.getlist("chip") if chip)),
        note=posted.get("note", "").strip(),
        spans=_spans(posted, shown_texts),
        edited_text=_text(posted, "edited_text"),
        edit_seconds=_count(posted, "edit_seconds") or 0,
        is_partial=bool(posted.get("partial")),
        guideline_version=_count(posted, "guideline_version") or 0,
        decided_in_ms=_count(posted, "decided_in_ms"),
        first_key_ms=_count(posted, "first_key_ms"),
        client_at=_time(posted),
    )
    return _vote_id(posted), answer


def typed_answer(posted: QueryDict) -> Filled:
    """What stood in a form that was refused, so that it can stand there again; what cannot be read is left out."""
    choice = posted.get("choice", "")
    axes: dict[str, int] = {}
    ratings: dict[str, tuple[int | None, ...]] = {}
    with contextlib.suppress(DomainError):
        axes = _axes(posted)
        ratings = _ratings(posted)
    return Filled(
        choice=choice,
        ranks=posted.getlist("rank"),
        axes=axes,
        ratings=ratings,
        chips=posted.getlist("chip"),
        note=posted.get("note", ""),
        passages=_typed_columns(posted),
        edited_text=_text(posted, "edited_text"),
    )


def _text(posted: QueryDict, field: str) -> str:
    # Browsers send a form's line breaks as two characters.
    return posted.get(field, "").replace("\r\n", "\n")


def _vote_id(posted: QueryDict) -> UUID:
    try:
        return UUID(posted.get("judgment_id", ""))
    except ValueError:
        raise DomainError(_("The vote came without an id of its own. Reload the page and save again.")) from None


def _unreadable(field: str) -> DomainError:
    return DomainError(
        _("The field “%(field)s” cannot be read. Reload the page and save again.") % {"field": field[:60]}
    )


def _count(posted: QueryDict, field: str) -> int | None:
    text = posted.get(field, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text[:12]) <= MAX_INTEGER and len(text) <= 12):
        raise _unreadable(field)
    return int(text)


def _integer(text: str, field: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 4):
        raise _unreadable(field)
    return int(text)


def _time(posted: QueryDict) -> datetime | None:
    text = posted.get("client_at", "")
    if not text:
        return None
    try:
        time = parse_datetime(text)
    except ValueError:
        time = None
    if time is None or not is_aware(time):
        raise _unreadable("client_at")
    return time


def read_ranks(posted: QueryDict) -> tuple[int, ...] | None:
    """The ranks from left to right; None where there are none. Raises DomainError where some are missing."""
    ranks = posted.getlist("rank")
    if not any(ranks) or posted.get("choice") == "neither":
        return None
    if "" in ranks:
        raise DomainError(_("Give every response a rank, 1 for the best, and save again. Equal numbers are ties."))
    return tuple(_integer(rank, "rank") for rank in ranks)


def _axes(posted: QueryDict) -> dict[str, int]:
    prefix = "axis-"
    return {
        field.removeprefix(prefix): _integer(posted.get(field, ""), field)
        for field in posted
        if field.startswith(prefix) and posted[field]
    }


def _ratings(posted: QueryDict) -> dict[str, tuple[int | None, ...]]:
    scores: dict[str, dict[int, int]] = {}
    for field in posted:
        if not field.startswith("rating-") or not posted[field]:
            continue
        aspect, dash, position = field.removeprefix("rating-").rpartition("-")
        if not dash or position not in set("012345678"):
            raise _unreadable(field)
        scores.setdefault(aspect, {})[int(position)] = _integer(posted.get(field, ""), field)
    count = min(_count(posted, "responses") or 2, 9)
    return {aspect: tuple(map(given.get, range(max(count, 1 + max(given))))) for aspect, given in scores.items()}


def _spans(posted: QueryDict, shown_texts: Callable[[], Sequence[str]]) -> tuple[MarkedSpan, ...]:
    marked = [*_scripted_passages(posted), *_typed_passages(posted)]
    if not marked:
        return ()
    if len(marked) > MAX_SPANS:
        raise DomainError(
            _("At most %(count)d passages can be marked; delete some and save again.") % {"count": MAX_SPANS}
        )
    texts = shown_texts()
    spans = []
    for passage in marked:
        position = passage["position"]
        if not 0 <= position < len(texts):
            raise _unreadable("span")
        found = find_passage(texts[position], passage["quote"], near=passage["start"])
        if found is None:
            raise DomainError(
                _("Response %(name)s does not hold the passage “%(quote)s”. Select it again or remove it.")
                % {"name": "ABCDEFGHI"[position], "quote": passage["quote"][:80]}
            )
        spans.append(MarkedSpan(position, *found, kind=passage["kind"], note=passage["note"]))
    return tuple(dict.fromkeys(spans))


def _scripted_passages(posted: QueryDict) -> list[dict[str, Any]]:
    wanted: Mapping[str, type] = {"position": int, "start": int, "quote": str, "kind": str, "note": str}
    passages = []
    for text in posted.getlist("span"):
        try:
            passage = json.loads(text)
        except ValueError:
            raise _unreadable("span") from None
        if not isinstance(passage, dict) or any(type(passage.get(key)) is not kind for key, kind in wanted.items()):
            raise _unreadable("span")
        passages.append(passage)
    return passages


def _typed_passages(posted: QueryDict) -> list[dict[str, Any]]:
    return [
        row | {"position": _integer(row["position"], "passage_position"), "start": 0} for row in _typed_columns(posted)
    ]


def _typed_columns(posted: QueryDict) -> list[dict[str, str]]:
    columns = {name: posted.getlist(f"passage_{name}") for name in ("position", "kind", "note")}
    rows = zip(posted.getlist("passage"), *columns.values(), strict=False)
    return [dict(zip(("quote", *columns), row, strict=True)) for row in rows if row[0].strip()]
