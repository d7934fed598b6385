"""What changed between two texts: whole lines, and inside a changed line the words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

CONTEXT_LINES = 3
_WORDS = re.compile(r"\w+|\s+|[^\w\s]")


@dataclass(frozen=True)
class DiffLine:
    kind: str
    """"same", "removed", "added", or "gap": lines that are the same are left out here."""
    parts: list[tuple[bool, str]] = field(default_factory=list)
    """Pieces of the line, and whether each is what changed."""


def diff_lines(old: str, new: str) -> list[DiffLine]:
    """The changed lines with a few around them; empty where nothing changed."""
    before, after = old.splitlines(), new.splitlines()
    lines: list[DiffLine] = []
    end = 0
    for group in difflib.SequenceMatcher(None, before, after, autojunk=False).get_grouped_opcodes(CONTEXT_LINES):
        if group[0][1] > end:
            lines.append(DiffLine("gap"))
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                lines.extend(DiffLine("same", [(False, line)]) for line in before[i1:i2])
            else:
                lines.extend(_changed(before[i1:i2], after[j1:j2]))
        end = group[-1][2]
    if lines and end < len(before):
        lines.append(DiffLine("gap"))
    return lines


def _changed(removed: list[str], added: list[str]) -> Iterator[DiffLine]:
    """Lines that stand for each other are compared word by word; all removed ones come before all added ones."""
    pairs = [_diff_words(old, new) for old, new in zip(removed, added, strict=False)]
    for number, line in enumerate(removed):
        yield DiffLine("removed", pairs[number][0] if number < len(pairs) else [(True, line)])
    for number, line in enumerate(added):
        yield DiffLine("added", pairs[number][1] if number < len(pairs) else [(True, line)])


def _diff_words(old: str, new: str) -> tuple[list[tuple[bool, str]], list[tuple[bool, str]]]:
    before, after = _WORDS.findall(old), _WORDS.findall(new)
    removed, added = [], []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if i2 > i1:
            removed.append((tag != "equal", "".join(before[i1:i2])))
        if j2 > j1:
            added.append((tag != "equal", "".join(after[j1:j2])))
    return removed, added
