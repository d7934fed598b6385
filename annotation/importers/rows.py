"""What every format is read into: a prompt, the responses to it and what was said of them.

Everything is checked as far as the row alone allows, beside the parsing, so that writing does not wait for it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from json.encoder import encode_basestring
from typing import Any

from annotation.models import Preference

Messages = list[dict[str, str]]
ROLES = ("system", "user", "assistant")
MAX_NAME_LENGTH = 180  # room for a suffix such as " (imported)" in 200 characters
MAX_RESPONSES = 9
MAX_TAGS = 100
# A long conversation repeats its history in every turn's prompt; a hostile one would fill the disk.
MAX_REPEATED_CHARACTERS = 2**26
_canonical = json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode


class UnusableRowError(Exception):
    """The row cannot be stored; the sentence says why."""


class UnusableVerdictError(Exception):
    """One annotation of the row cannot be used; the rest of the row can."""


def digest(value: Any) -> str:
    """The sha256 of a value's canonical JSON."""
    return hashlib.sha256(_canonical(value).encode()).hexdigest()


def messages_json(messages: Messages) -> bytes:
    """What `services.content_sha256` hashes, at a quarter of its time: every row needs it."""
    parts = [f'{{"content": {encode_basestring(turn["content"])}, "role": "{turn["role"]}"}}' for turn in messages]
    return f"[{', '.join(parts)}]".encode()


@dataclass(slots=True)
class Side:
    """One response. `messages` only where it answers another history than the row's prompt."""

    source: str
    text: str
    messages: Messages | None = None


@dataclass(slots=True)
class Verdict:
    """`ranking` holds ranks in content order, 1 the best, where there are three responses or more."""

    annotator: str
    is_human: bool
    preference: str
    strength: int | None = None
    ranking: list[int] | None = None
    note: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    ratings: dict[str, list[float | None]] = field(default_factory=dict)
    axes: dict[str, int] = field(default_factory=dict)
    chips: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if type(self.preference) is not str:
            self.preference = str(self.preference)  # a choice's value: it travels between processes


@dataclass(slots=True)
class Score:
    """What somebody said of one response on its own: a number, or else a label."""

    annotator: str
    is_human: bool
    value: float | None = None
    label: str = ""
    aspect: str = "overall"
    low: float | None = None
    high: float | None = None
    note: str = ""
    position: int = 0
    """Which of the row's responses."""


@dataclass(slots=True)
class Row:
    """One response to be scored, two to be compared, or three to nine to be ranked.

    `external_id` and `group` are empty where the file gives none; `skipped` holds (annotator, reason).
    """

    messages: Messages
    sides: list[Side]
    verdicts: list[Verdict] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    external_id: str = ""
    group: str = ""
    lang: str = ""
    tags: list[str] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    sampling_probability: float | None = None
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for number, side in enumerate(self.sides):
            if side in self.sides[:number]:
                which = "both responses are" if len(self.sides) == 2 else "two of the responses are"
                raise UnusableRowError(f"{which} the same text by the same source: there is nothing to compare")

    @property
    def has_equal_texts(self) -> bool:
        """Whether every response reads the same, so that there is nothing to judge."""
        first = self.sides[0].text
        return all(side.text == first for side in self.sides)


@dataclass(slots=True)
class Talk:
    """A whole conversation: one row, with one response, for each of its turns, in order."""

    external_id: str
    turns: list[Row]
    lang: str = ""


def checked_messages(value: Any, name: str, *, last: str = "user") -> Messages:
    """A conversation that ends with a turn of the role `last`. Raises UnusableRowError."""
    if not isinstance(value, list) or not value:
        raise UnusableRowError(f'"{name}" is not a list of messages')
    for number, message in enumerate(value, 1):
        if not isinstance(message, dict) or message.keys() != {"role", "content"}:
            raise UnusableRowError(f'message {number} of "{name}" does not hold exactly "role" and "content"')
        if message["role"] not in ROLES:
            raise UnusableRowError(
                f'message {number} of "{name}" has the role {json.dumps(message["role"])[:40]}: '
                f"known are {', '.join(ROLES)}"
            )
        if not isinstance(message["content"], str):
            raise UnusableRowError(f'message {number} of "{name}" has a content that is not text')
    if value[-1]["role"] != last:
        raise UnusableRowError(f'"{name}" does not end with a turn of the {last}')
    return value


def checked_text(value: Any, name: str) -> str:
    """A text, which may be empty: saying nothing is a response. Raises UnusableRowError."""
    if not isinstance(value, str):
        raise UnusableRowError(f'"{name}" is {json.dumps(value)[:40]}, not text')
    return value


def checked_name(value: Any, name: str, *, longest: int = MAX_NAME_LENGTH) -> str:
    """A text short enough for its column, empty where the file gives null. Raises UnusableRowError."""
    if type(value) is str and len(value) <= longest:
        return value.strip()
    if value is None:
        return ""
    text = checked_text(value, name).strip()
    if len(text) > longest:
        raise UnusableRowError(f'"{name}" is longer than {longest} characters')
    return text


def checked_tags(value: Any, name: str) -> list[str]:
    """Tags in order, each once: of a list, or of a text with commas or semicolons between. Raises UnusableRowError."""
    if value is None or value == "":
        return []
    given = value if isinstance(value, list) else re.split(r"[,;，；]", checked_text(value, name))
    tags = sorted({tag for tag in (checked_name(tag, name, longest=60) for tag in given) if tag})
    if len(tags) > MAX_TAGS:
        raise UnusableRowError(f'"{name}" holds {len(tags)} tags: a prompt can have {MAX_TAGS}')
    return tags


def checked_number(value: Any, name: str) -> float:
    """A number. Raises UnusableRowError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e15:
        raise UnusableRowError(f'"{name}" is {json.dumps(value)[:40]}, not a number')
    return float(value)


def length(messages: Messages) -> int:
    """Characters."""
    return sum(len(message["content"]) for message in messages)


def check_repeated(characters: int) -> None:
    """Raise UnusableRowError where the prompts of one record's turns are too much together."""
    if characters > MAX_REPEATED_CHARACTERS:
        raise UnusableRowError(
            f"the histories of its turns come to over {MAX_REPEATED_CHARACTERS // 2**20} million characters together"
        )


def said_by_user(text: str) -> Messages:
    """The prompt that is one message."""
    return [{"role": "user", "content": text}]


def verdict_of_ranks(ranks: list[int]) -> tuple[Preference, list[int] | None]:
    """The preference that ranks in content order amount to, 1 the best, and the ranking where there are over two."""
    if len(ranks) > 2:
        # Gaps say nothing: 1, 1, 3 and 1, 1, 2 are the same order.
        places = {rank: place for place, rank in enumerate(sorted(set(ranks)), 1)}
        return Preference.RANKED, [places[rank] for rank in ranks]
    if ranks[0] == ranks[1]:
        return Preference.TIE, None
    return (Preference.A if ranks[0] < ranks[1] else Preference.B), None


def chosen_rejected_row(messages: Messages, chosen: str, rejected: str, *, origin: str, group: str = "") -> Row:
    """A row of a format that says only which response is better: not who wrote them, nor who judged.

    Such files put the better response first. The sides are ordered by the texts' digests instead, so that content
    order tells nothing and the same pair always lies the same way.
    """
    source = f"unknown ({origin})"
    sides = [Side(source, chosen), Side(source, rejected)]
    is_straight = digest(chosen) <= digest(rejected)
    verdict = Verdict(f"unnamed ({origin})", is_human=True, preference=Preference.A if is_straight else Preference.B)
    return Row(messages, sides if is_straight else sides[::-1], [verdict], group=group)
