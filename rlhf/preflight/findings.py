"""What a check found, as it is stored with a job and said on its page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from enum import IntEnum
from typing import Any

from annotation.export import Kind


class Level(IntEnum):
    """How a check came out, the worst last."""

    PASSED = 0
    WARNED = 1
    BLOCKED = 2
    """It starts only where somebody says that it should all the same."""
    REFUSED = 3
    """It cannot start: it would fail for certain."""


@dataclass(frozen=True)
class Finding:
    """One check's outcome: a code that rlhf/preflight/sentences.py has a sentence for, and what stands in it."""

    level: Level
    code: str
    values: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"level": self.level.name.lower()}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Finding:
        return cls(Level[stored["level"].upper()], stored["code"], stored["values"])


def passed(code: str, **values: Any) -> Finding:
    return Finding(Level.PASSED, code, values)


def warned(code: str, **values: Any) -> Finding:
    return Finding(Level.WARNED, code, values)


def blocked(code: str, **values: Any) -> Finding:
    return Finding(Level.BLOCKED, code, values)


def refused(code: str, **values: Any) -> Finding:
    return Finding(Level.REFUSED, code, values)


# A share of a handful says little: below this many rows a check that would block only warns.
_ROWS_THAT_BLOCK = 5


def by_share(code: str, count: int, total: int, blocks_above: float, **values: Any) -> Finding:
    """A warning about `count` of `total` rows that blocks where their share is too large."""
    is_much = count >= _ROWS_THAT_BLOCK and count > blocks_above * total
    return Finding(Level.BLOCKED if is_much else Level.WARNED, code, {"count": count, "total": total} | values)


# What is only suspected until it was measured → the code of the finding that clears it.
_CLEARED_BY = {"padding_is_end": "padding_equal", "no_padding": "padding_equal"}


def settle(findings: list[Finding]) -> list[Finding]:
    """The findings, with suspicions taken back that a measurement cleared."""
    codes = {finding.code for finding in findings}
    return [
        replace(finding, level=Level.PASSED) if _CLEARED_BY.get(finding.code) in codes else finding
        for finding in findings
    ]


def worst(findings: Iterable[Finding]) -> Level:
    return max((finding.level for finding in findings), default=Level.PASSED)


def learns_from_pairs(method: str) -> bool:
    return method in (Kind.DPO, Kind.REWARD)
