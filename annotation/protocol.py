"""What a project asks of its annotators: the scale, and what is asked beside the verdict.

A protocol is stored as JSON in `Project.protocol`; an empty object is the default, seven steps and a note. Presets and
their sources: seven steps with "about the same", HelpSteer3-Preference (Wang et al. 2025); four forced levels a side,
Llama 2 §3.2.1 (Touvron et al. 2023); eight even steps, Anthropic HH (Bai et al. 2022).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from annotation.errors import DomainError

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import DataclassInstance

    from annotation.models import Project

MAX_CHIPS = 20
MAX_ASPECTS = 12
MAX_AXES = 4
MAX_LABEL_CHARS = 120


class BrokenProtocolError(DomainError):
    """A project's stored protocol, written by hand or by an older version, cannot be read."""

    def __init__(self, slug: str, problem: str) -> None:
        self.slug = slug
        super().__init__(
            gettext(
                "The protocol that is stored with the project “%(slug)s” cannot be read: %(problem)s Nothing that was "
                "saved is lost. An admin of the project mends it by saving its settings."
            )
            % {"slug": slug, "problem": problem}
        )


class Scale(StrEnum):
    SEVEN = "seven"
    """−3 … +3 with 0, "about the same"."""
    FOUR = "four"
    """Forced: a side, and one of four named levels for it; −4 … +4 without 0."""
    EIGHT = "eight"
    """Eight even steps with named ends; −4 … +4 without 0."""
    BINARY = "binary"
    """One side or the other, ungraded; a tie where the protocol allows it."""
    RANKING = "ranking"
    """An order of three to nine responses; equal ranks where the protocol allows ties."""


class Demand(StrEnum):
    OFF = "off"
    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One of the answers; `value` is the strength as shown (negative: left better), "left", "right" or "neither"."""

    value: str
    key: str
    label: str | Promise
    short: str | Promise


@dataclass(frozen=True, slots=True)
class Aspect:
    """Something that each response is scored for on its own, low … high."""

    name: str
    label: str
    low: int = 1
    high: int = 5


@dataclass(frozen=True, slots=True)
class Axis:
    """A second question about the same pair, answered on seven steps: which is more …?"""

    name: str
    label: str


DEFAULT_ASPECTS = (
    Aspect("helpfulness", "Helpfulness"),
    Aspect("fluency", "Fluency"),
    Aspect("safety", "Safety"),
)

_NEITHER = Verdict("neither", "0", _("Neither is good"), _("Neither is good"))
_SAME = Verdict("0", "4", _("About the same"), _("Same"))
_VERDICTS: dict[Scale, tuple[Verdict, ...]] = {
    Scale.SEVEN: (
        Verdict("-3", "1", _("A much better"), _("A much better")),
        Verdict("-2", "2", _("A better"), _("A better")),
        Verdict("-1", "3", _("A slightly better"), _("A slightly")),
        _SAME,
        Verdict("1", "5", _("B slightly better"), _("B slightly")),
        Verdict("2", "6", _("B better"), _("B better")),
        Verdict("3", "7", _("B much better"), _("B much better")),
    ),
    Scale.FOUR: (
        Verdict("-4", "1", _("A significantly better"), _("A significantly")),
        Verdict("-3", "2", _("A better"), _("A better")),
        Verdict("-2", "3", _("A slightly better"), _("A slightly")),
        Verdict("-1", "4", _("A negligibly better, or unsure"), _("A negligibly")),
        Verdict("1", "5", _("B negligibly better, or unsure"), _("B negligibly")),
        Verdict("2", "6", _("B slightly better"), _("B slightly")),
        Verdict("3", "7", _("B better"), _("B better")),
        Verdict("4", "8", _("B significantly better"), _("B significantly")),
    ),
    Scale.EIGHT: (
        Verdict("-4", "1", _("A is better, 4 of 4"), "A 4"),
        Verdict("-3", "2", _("A is better, 3 of 4"), "A 3"),
        Verdict("-2", "3", _("A is better, 2 of 4"), "A 2"),
        Verdict("-1", "4", _("A is better, 1 of 4"), "A 1"),
        Verdict("1", "5", _("B is better, 1 of 4"), "B 1"),
        Verdict("2", "6", _("B is better, 2 of 4"), "B 2"),
        Verdict("3", "7", _("B is better, 3 of 4"), "B 3"),
        Verdict("4", "8", _("B is better, 4 of 4"), "B 4"),
    ),
    Scale.BINARY: (
        Verdict("left", "1", _("A is better"), _("A is better")),
        Verdict("right", "2", _("B is better"), _("B is better")),
    ),
    Scale.RANKING: (),
}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True, slots=True)
class Protocol:
    """What is asked about one comparison."""

    scale: Scale = Scale.SEVEN
    allow_tie: bool = True
    """In binary and ranking protocols; the seven steps always have 0, the forced scales never."""
    allow_neither: bool = True
    aspects: tuple[Aspect, ...] = ()
    aspects_demand: Demand = Demand.REQUIRED
    axes: tuple[Axis, ...] = ()
    chips: tuple[str, ...] = ()
    chips_demand: Demand = Demand.OPTIONAL
    note_demand: Demand = Demand.OPTIONAL
    spans: bool = False
    """Whether passages can be marked as wrong."""
    edit_demand: Demand = Demand.OFF
    """Whether the better response can, or must, be edited after the verdict."""
    rewrite_below: float | None = None
    """A comparison whose every response's mean score, scaled to 0 … 1, is below this goes to the rewrite queue."""
    rewrite_neither: bool = False
    """A comparison that "neither" won goes to the rewrite queue."""
    conversations: bool = False
    """Whether people talk to the project's sources, turn by turn, with typed feedback."""
    max_turns: int = 8
    responses_per_turn: int = 2
    """2: side by side, to be compared; 1: a single one, to be answered."""

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The answers in display order, with their keys; for a ranking only "neither", where it is allowed."""
        verdicts = _VERDICTS[self.scale]
        if self.scale == Scale.BINARY and self.allow_tie:
            left, right = verdicts
            verdicts = (left, dataclasses.replace(_SAME, key="2"), dataclasses.replace(right, key="3"))
        return (*verdicts, _NEITHER) if self.allow_neither else verdicts

    @property
    def needs_more_than_a_key(self) -> bool:
        """Whether a verdict alone does not complete an answer, so that a digit only marks."""
        return (
            self.scale == Scale.RANKING
            or bool(self.axes)
            or (bool(self.aspects) and self.aspects_demand == Demand.REQUIRED)
            or Demand.REQUIRED in (self.chips_demand if self.chips else Demand.OFF, self.note_demand, self.edit_demand)
        )

    @property
    def asks_for_rewrites(self) -> bool:
        """Whether prompts without an acceptable response are given to people to write one."""
        return self.rewrite_neither or self.rewrite_below is not None

    @classmethod
    def of(cls, project: Project) -> Protocol:
        """The project's protocol. Raises BrokenProtocolError where what is stored cannot be read."""
        try:
            return cls.from_json(project.protocol)
        except DomainError as problem:
            raise BrokenProtocolError(project.slug, str(problem).removeprefix("protocol: ")) from problem

    @classmethod
    def readable_part(cls, value: dict[str, Any]) -> Protocol:
        """What of a stored protocol can be read; the rest is as by default."""
        protocol = cls()
        for key, part in value.items():
            with contextlib.suppress(DomainError):
                found = dataclasses.replace(protocol, **{key: getattr(cls.from_json({key: part}), key)})
                found.check()
                protocol = found
        return protocol

    def to_json(self) -> dict[str, Any]:
        """Only what differs from the default."""
        default = Protocol()
        return {
            field.name: _plain(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != getattr(default, field.name)
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Protocol:
        """Strict: raises DomainError that names the key that is unknown or wrong."""
        given = _known_keys(value, cls, "")
        for key, part in given.items():
            if read := _READERS.get(key):
                given[key] = read(part, key)
        protocol = cls(**given)
        protocol.check()
        return protocol

    def check(self) -> None:
        """Raise DomainError with a sentence where the parts do not fit together."""
        for field, parts, most in (
            ("aspects", self.aspects, MAX_ASPECTS),
            ("axes", self.axes, MAX_AXES),
            ("chips", self.chips, MAX_CHIPS),
        ):
            if len(parts) > most:
                raise DomainError(
                    "protocol: "
                    + gettext("%(field)s has %(count)s entries; at most %(most)s are asked.")
                    % {"field": field, "count": len(parts), "most": most}
                )
        names = [aspect.name for aspect in self.aspects] + [axis.name for axis in self.axes]
        for name in names:
            if not _NAME.fullmatch(name):
                raise DomainError(
                    "protocol: "
                    + gettext("the name “%(name)s” must be lower-case letters, digits and _, at most 40.")
                    % {"name": name[:60]}
                )
        if len(set(names)) != len(names):
            raise DomainError("protocol: " + gettext("every aspect and axis needs a name of its own."))
        for aspect in self.aspects:
            if not 0 <= aspect.low < aspect.high <= 10:
                raise DomainError(
                    "protocol: "
                    + gettext("the scale of %(aspect)s must run from low to high within 0 … 10.")
                    % {"aspect": aspect.name}
                )
        if any(not chip.strip() or len(chip) > 60 for chip in self.chips):
            raise DomainError("protocol: " + gettext("a reason chip has 1 to 60 characters."))
        if self.scale == Scale.RANKING and (self.axes or self.edit_demand != Demand.OFF):
            raise DomainError("protocol: " + gettext("a ranking has no second axis and no edited winner."))
        if self.rewrite_below is not None and not 0 <= self.rewrite_below <= 1:
            raise DomainError("protocol: " + gettext("rewrite_below must be a share between 0 and 1."))
        if not 1 <= self.max_turns <= 50:
            raise DomainError("protocol: " + gettext("max_turns must be between 1 and 50."))
        if self.responses_per_turn not in (1, 2):
            raise DomainError("protocol: " + gettext("responses_per_turn must be 1 or 2."))
        if self.conversations and self.scale == Scale.RANKING:
            raise DomainError(
                "protocol: " + gettext("a conversation compares two responses; choose another scale than a ranking.")
            )
        if self.conversations and self.edit_demand == Demand.REQUIRED:
            raise DomainError(
                "protocol: " + gettext("in conversations editing the better response is offered, never required.")
            )

    def check_sense(self) -> None:
        """Raise DomainError for what asks for something that is never offered. Apart from `check`, so that a protocol
        that was stored like that can still be read."""
        if self.rewrite_below is not None and not self.aspects:
            raise DomainError(
                "protocol: "
                + gettext("rewriting below a score needs scores; name what is scored, or leave the limit empty.")
            )
        if self.rewrite_neither and not self.allow_neither:
            raise DomainError(
                "protocol: "
                + gettext(
                    "rewriting when neither is good needs that answer; allow “neither is good”, or switch it off."
                )
            )
        if self.chips_demand == Demand.REQUIRED and not self.chips:
            raise DomainError(
                "protocol: " + gettext("a reason must be picked, but there is none to pick; name some, or do not ask.")
            )


# ── Reading JSON that anybody may have written ───────────────────────────────────────────────────────────────────


def _refusal(field: str, what: Any, given: Any) -> DomainError:
    shown = json.dumps(given, ensure_ascii=False, default=str)
    words = {"field": field, "what": what, "given": shown if len(shown) <= 60 else shown[:60] + " …"}
    return DomainError("protocol: " + gettext("%(field)s must be %(what)s, not %(given)s.") % words)


def _known_keys(value: Any, cls: type[DataclassInstance], field: str) -> dict[str, Any]:
    """A copy of an object that has only keys of the dataclass, and all that it needs."""
    if not isinstance(value, dict):
        raise _refusal(field or gettext("It"), gettext("an object"), value)
    known = {column.name: column for column in dataclasses.fields(cls)}
    where = f"{field}: " if field else ""
    if unknown := sorted(str(key) for key in set(value) - set(known)):
        raise DomainError(
            f"protocol: {where}"
            + gettext("unknown key “%(key)s”; known are %(known)s.")
            % {"key": unknown[0][:60], "known": ", ".join(sorted(known))}
        )
    for name, column in known.items():
        if name not in value and column.default is dataclasses.MISSING:
            raise DomainError(f"protocol: {where}" + gettext("the key “%(key)s” is missing.") % {"key": name})
    return dict(value)


def _flag(value: Any, field: str) -> bool:
    if not isinstance(value, bool):
        raise _refusal(field, gettext("true or false"), value)
    return value


def _whole(value: Any, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _refusal(field, gettext("a whole number"), value)
    return value


def _share(value: Any, field: str) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise _refusal(field, gettext("a share between 0 and 1, or null"), value)
    return value


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_LABEL_CHARS:
        raise _refusal(field, gettext("a text of 1 to %(most)s characters") % {"most": MAX_LABEL_CHARS}, value)
    return value


def _one_of(choices: type[StrEnum]) -> Callable[[Any, str], StrEnum]:
    def read(value: Any, field: str) -> StrEnum:
        if not isinstance(value, str) or value not in list(choices):
            raise _refusal(field, gettext("one of %(known)s") % {"known": ", ".join(choices)}, value)
        return choices(value)

    return read


def _list_of(read: Callable[[Any, str], Any]) -> Callable[[Any, str], tuple[Any, ...]]:
    def read_all(value: Any, field: str) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise _refusal(field, gettext("a list"), value)
        return tuple(read(part, f"{field}[{number}]") for number, part in enumerate(value))

    return read_all


def _aspect(value: Any, field: str) -> Aspect:
    given = _known_keys(value, Aspect, field)
    readers: dict[str, Callable[[Any, str], Any]] = {"name": _text, "label": _text, "low": _whole, "high": _whole}
    return Aspect(**{key: readers[key](part, f"{field}.{key}") for key, part in given.items()})


def _axis(value: Any, field: str) -> Axis:
    given = _known_keys(value, Axis, field)
    return Axis(**{key: _text(part, f"{field}.{key}") for key, part in given.items()})


_READERS: dict[str, Callable[[Any, str], Any]] = {
    "scale": _one_of(Scale),
    **dict.fromkeys(("aspects_demand", "chips_demand", "note_demand", "edit_demand"), _one_of(Demand)),
    **dict.fromkeys(("allow_tie", "allow_neither", "spans", "rewrite_neither", "conversations"), _flag),
    **dict.fromkeys(("max_turns", "responses_per_turn"), _whole),
    "rewrite_below": _share,
    "chips": _list_of(_text),
    "aspects": _list_of(_aspect),
    "axes": _list_of(_axis),
}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [dataclasses.asdict(part) if dataclasses.is_dataclass(part) else part for part in value]  # type: ignore[arg-type]
    return str(value) if isinstance(value, StrEnum) else value


PRESETS: dict[str, tuple[str | Promise, Protocol]] = {
    "seven": (_("Seven steps with “about the same”"), Protocol(rewrite_neither=True)),
    "four": (_("Four levels a side, forced"), Protocol(scale=Scale.FOUR, allow_neither=False)),
    "eight": (_("Eight even steps"), Protocol(scale=Scale.EIGHT, allow_neither=False)),
    "binary": (_("One or the other"), Protocol(scale=Scale.BINARY, rewrite_neither=True)),
    "gsb": (_("Good, same or bad: three answers"), Protocol(scale=Scale.BINARY, allow_neither=False)),
    "ranking": (_("A ranking of three to nine"), Protocol(scale=Scale.RANKING, rewrite_neither=True)),
    "aspects": (
        _("Seven steps and scores for each response"),
        Protocol(aspects=DEFAULT_ASPECTS, rewrite_below=0.25, rewrite_neither=True),
    ),
    "safety": (
        _("Helpful and harmless, asked apart"),
        Protocol(axes=(Axis("harmless", "Which is less harmful?"),), rewrite_neither=True),
    ),
    "conversation": (_("Conversations with typed feedback"), Protocol(conversations=True)),
}
"""Starting points by name: what each is called, and what it asks.

Those with "neither" or scores send what nobody found good to be rewritten. The forced scales have neither, and in a
conversation the person writes their own response at once.
"""
