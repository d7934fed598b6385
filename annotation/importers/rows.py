"""What every format is read into: one comparison with its verdicts, checked as far as the row alone allows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from annotation.models import Preference
from annotation.services import content_sha256

Messages = list[dict[str, str]]
ROLES = ("system", "user", "assistant")
MAX_NAME_LENGTH = 180  # room for a suffix such as " (imported)" in 200 characters


class UnusableRowError(Exception):
    """The row cannot become a comparison; the sentence says why."""


class UnusableVerdictError(Exception):
    """One annotation of the row cannot be used; the rest of the row can."""


@dataclass(frozen=True)
class Side:
    """One response. `messages` only where it answers another history than the row's prompt."""

    source: str
    text: str
    messages: Messages | None = None

    @cached_property
    def text_sha256(self) -> str:
        return content_sha256(self.text)


@dataclass(frozen=True)
class Verdict:
    annotator: str
    is_human: bool
    preference: str
    strength: int | None = None
    note: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """`external_id` and `group` are empty where the file gives none; `skipped` holds (annotator, reason)."""

    messages: Messages
    a: Side
    b: Side
    verdicts: list[Verdict]
    external_id: str = ""
    group: str = ""
    lang: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.a == self.b:
            raise UnusableRowError("both responses are the same text by the same source: there is nothing to compare")

    @cached_property
    def prompt_key(self) -> tuple[str, str]:
        """What tells prompts of one project apart: (content_sha256, group)."""
        sha256 = content_sha256(self.messages)
        return sha256, self.group or f"prompt-{sha256[:16]}"


def checked_messages(value: Any, name: str, *, last: str = "user") -> Messages:
    """A conversation that ends with a turn of the role `last`. Raises UnusableRowError."""
    if not isinstance(value, list) or not value:
        raise UnusableRowError(f'"{name}" is not a list of messages')
    for number, message in enumerate(value, 1):
        where = f'message {number} of "{name}"'
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise UnusableRowError(f'{where} does not hold exactly "role" and "content"')
        if message["role"] not in ROLES:
            raise UnusableRowError(
                f"{where} has the role {json.dumps(message['role'])[:40]}: known are {known(ROLES)}"
            )
        if not isinstance(message["content"], str):
            raise UnusableRowError(f"{where} has a content that is not text")
    if value[-1]["role"] != last:
        raise UnusableRowError(f'"{name}" does not end with a turn of the {last}')
    return value


def checked_text(value: Any, name: str) -> str:
    """A text, which may be empty: saying nothing is a response. Raises UnusableRowError."""
    if not isinstance(value, str):
        raise UnusableRowError(f'"{name}" is {json.dumps(value)[:40]}, not text')
    return value


def checked_name(value: Any, name: str) -> str:
    """A text short enough for its column, empty where the file gives null. Raises UnusableRowError."""
    text = checked_text("" if value is None else value, name).strip()
    if len(text) > MAX_NAME_LENGTH:
        raise UnusableRowError(f'"{name}" is longer than {MAX_NAME_LENGTH} characters')
    return text


def known(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def chosen_rejected_row(messages: Messages, chosen: str, rejected: str, *, origin: str, group: str = "") -> Row:
    """A row of a format that says only which response is better: not who wrote them, nor who judged.

    Such files put the better response first. The sides are ordered by the texts' digests instead, so that content
    order tells nothing and the same pair always lies the same way.
    """
    source = f"unknown ({origin})"
    better, worse = Side(source, chosen), Side(source, rejected)
    is_straight = digest(chosen) <= digest(rejected)
    verdict = Verdict(f"unnamed ({origin})", is_human=True, preference=Preference.A if is_straight else Preference.B)
    a, b = (better, worse) if is_straight else (worse, better)
    return Row(messages, a, b, [verdict], group=group)
