"""Rows in the form in which COPY reads them: fields of bytes, each after its length (Postgres manual, COPY, "Binary").

Most of a row is what the file says. That is packed where the file is parsed, in a process of its own. What only the
tables know, ids above all, is put before it when the row is placed: so the process that Postgres waits for joins
bytes and looks at no text again. For each table, the order of its columns stands here, beside the two functions that
follow it.
"""

from __future__ import annotations

import json
from dataclasses import astuple
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from struct import Struct
from typing import Any, NamedTuple

from annotation.importers.rows import Row, Side, Talk, Verdict, digest, messages_json

Fields = bytes
"""Columns that follow one another in their table's order, each after its length."""

# ── Values ───────────────────────────────────────────────────────────────────────────────────────────────────────────

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_SMALLINT, _VARCHAR = 21, 1043  # what Postgres calls the types of arrays' elements
_NULL = b"\xff\xff\xff\xff"  # a length of −1
_FALSE = b"\0\0\0\x01\0"
_length = Struct(">i").pack
_smallint = Struct(">ih").pack
_double = Struct(">id").pack
_empty_array = Struct(">4i").pack
_array = Struct(">6i").pack
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def timestamp(value: datetime) -> int:
    """Microseconds since 2000."""
    gone = value - _EPOCH
    return (gone.days * 86_400 + gone.seconds) * 1_000_000 + gone.microseconds


def _pack_text(value: str) -> Fields:
    data = value.encode()
    return _length(len(data)) + data


_pack_name = lru_cache(_pack_text)  # of a few that occur again and again


def _pack_json(value: dict[str, Any]) -> Fields:
    return _as_json(_encode(value).encode()) if value else _EMPTY_OBJECT


def _as_json(data: bytes) -> Fields:
    return _length(len(data) + 1) + b"\x01" + data  # the format's version


def _pack_array(element_type: int, elements: list[Fields]) -> Fields:
    """An array of one dimension that holds no nulls."""
    if not elements:
        return _empty_array(12, 0, 0, element_type)
    data = b"".join(elements)
    return _array(20 + len(data), 1, 0, element_type, len(elements), 1) + data


def _pack_texts(values: list[str]) -> Fields:
    return _pack_array(_VARCHAR, [_pack_text(value) for value in values]) if values else _NO_TEXTS


_EMPTY_OBJECT = b"\0\0\0\x03\x01{}"  # most objects are
_SHA256 = _length(64)
_NO_TEXT = _pack_text("")
_NO_TEXTS = _pack_array(_VARCHAR, [])

# ── Tables: their columns, first those that are known when a row is placed, then those that the file gives ───────────

PROMPT = "messages group lang tags content_sha256"


@lru_cache(1)  # comparisons of one prompt follow one another
def _pack_prompt(messages: bytes, group: str, lang: str, tags: Fields) -> tuple[tuple[str, str], bytes]:
    """(what tells prompts of one project apart: content_sha256 and group; all of the row: placing adds nothing)"""
    content_sha256 = sha256(messages).hexdigest()
    group = group or f"prompt-{content_sha256[:16]}"
    fields = _as_json(messages), _pack_text(group), _pack_name(lang), tags, _SHA256, content_sha256.encode()
    return (content_sha256, group), b"".join((b"\0\x05", *fields))


RESPONSE = "id prompt_id source_id sample_index created_at text text_sha256 messages template_sha256 finish_reason"
_response = Struct(">h iq iq iq ii iq").pack


def _pack_response(side: Side) -> PackedSide:
    text = side.text.encode()
    text_sha256, own_sha256, own = sha256(text).hexdigest(), "", _NULL
    if side.messages is not None:
        messages = messages_json(side.messages)
        own_sha256, own = sha256(messages).hexdigest(), _as_json(messages)
    fields = _length(len(text)), text, _SHA256, text_sha256.encode(), own, _NO_TEXT, _NO_TEXT
    return side.source, text_sha256, own_sha256, b"".join(fields)


def response(pk: int, prompt: int, source: int, sample_index: int, now: int, fields: Fields) -> bytes:
    return _response(10, 8, pk, 8, prompt, 8, source, 4, sample_index, 8, now) + fields


COMPARISON = (
    "id project_id prompt_id response_a_id response_b_id batch_id required_count assigned_count queue_key created_at"
    " external_id meta response_count lang sampling_probability"
)
_comparison = Struct(">h iq iq iq iq iq iq ih ih id iq").pack


def _pack_comparison(row: Row, external_id: str) -> Fields:
    count, probability = _smallint(2, len(row.sides)), row.sampling_probability
    chance = _NULL if probability is None else _double(8, probability)
    return b"".join((_pack_text(external_id), _pack_json(row.meta), count, _pack_name(row.lang), chance))


def comparison(
    pk: int,
    project: int,
    prompt: int,
    responses: list[int],
    batch: int,
    required_count: int,
    queue_key: float,
    now: int,
    fields: Fields,
) -> bytes:
    ids = 8, pk, 8, project, 8, prompt, 8, responses[0], 8, responses[1], 8, batch
    return _comparison(15, *ids, 2, required_count, 2, 0, 8, queue_key, 8, now) + fields


JUDGMENT = (
    "public_id comparison_id annotator_id created_at preference ranking strength note meta ratings axes chips is_late"
)
_judgment = Struct(">h i16s iq iq iq").pack


def _pack_judgment(verdict: Verdict) -> PackedVerdict:
    ranking, strength = verdict.ranking, verdict.strength
    fields = (
        _pack_name(verdict.preference),
        _NULL if ranking is None else _pack_array(_SMALLINT, [_smallint(2, rank) for rank in ranking]),
        _NULL if strength is None else _smallint(2, strength),
        _pack_text(verdict.note) if verdict.note else _NO_TEXT,
        _pack_json(verdict.meta) if verdict.meta else _EMPTY_OBJECT,
        _pack_json(verdict.ratings) if verdict.ratings else _EMPTY_OBJECT,
        _pack_json(verdict.axes) if verdict.axes else _EMPTY_OBJECT,
        _pack_texts(verdict.chips),
        _FALSE,
    )
    return verdict.annotator, verdict.is_human, verdict.preference, ranking, b"".join(fields)


def judgment(public_id: bytes, comparison: int, annotator: int, now: int, fields: Fields) -> bytes:
    return _judgment(13, 16, public_id, 8, comparison, 8, annotator, 8, now) + fields


# ── What travels from where the file is parsed, in built-in values ───────────────────────────────────────────────────

PackedSide = tuple[str, str, str, Fields]
"""(source, sha256 of the text, sha256 of its own messages, what the file gives of RESPONSE)"""

PackedVerdict = tuple[str, bool, str, list[int] | None, Fields]
"""(annotator, is human, preference, ranking, what the file gives of JUDGMENT)"""


class PackedRow(NamedTuple):
    """A row: what placing looks at, and bytes that it passes on."""

    prompt_key: tuple[str, str]
    prompt: bytes
    sides: list[PackedSide]
    external_id: str
    """The file's, or one derived from what is compared; empty where nothing is."""
    comparison: Fields
    is_settled: bool
    """Whether nobody has to be asked: it is judged, or nothing differs."""
    verdicts: list[PackedVerdict]
    scores: list[tuple[Any, ...]]
    """The values of each Score."""
    skipped: list[tuple[str, str]]


class PackedTalk(NamedTuple):
    """A conversation; `turns` holds the values of a PackedRow each."""

    external_id: str
    lang: str
    turns: list[tuple[Any, ...]]


def pack_row(row: Row, format_name: str) -> tuple[Any, ...]:
    """The values of a PackedRow."""
    external_id, comparison = row.external_id, b""
    if len(row.sides) > 1:
        if not external_id:
            sides = [(side.source, side.text, side.messages) for side in row.sides]
            external_id = f"{format_name}-{digest([row.messages, row.group, sides])[:32]}"
        comparison = _pack_comparison(row, external_id)
    return (
        *_pack_prompt(messages_json(row.messages), row.group, row.lang, _pack_texts(row.tags)),
        [_pack_response(side) for side in row.sides],
        external_id,
        comparison,
        bool(row.verdicts) or row.has_equal_texts,
        [_pack_judgment(verdict) for verdict in row.verdicts],
        [astuple(score) for score in row.scores],
        row.skipped,
    )


def pack_talk(talk: Talk, format_name: str) -> tuple[Any, ...]:
    """The values of a PackedTalk."""
    return talk.external_id, talk.lang, [pack_row(turn, format_name) for turn in talk.turns]
