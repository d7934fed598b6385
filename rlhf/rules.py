"""Rewards that need no model: a small set of rules, each a score between 0 and 1 for one completion.

Standard library only: the web side checks a rule's argument before a job is queued.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Rule = Callable[[str, list[int]], float]
"""(text, token ids without special tokens) → score"""

RULE_ARGUMENTS: dict[str, str] = {
    "length": "the wanted number of tokens, such as 60",
    "contains": "the text to look for",
    "regex": "a regular expression of Python",
    "vocabulary_half": "lower or upper",
}
"""rule → what its argument is"""


def build_rule(name: str, argument: str, vocabulary_size: int) -> Rule:
    """The rule as a function. Raises ValueError, with what is wrong, for an argument that it cannot take.

    length: 1 at the wanted number of tokens, falling evenly to 0 at none and at twice as many.
    contains, regex: 1 where the text holds it (contains: whatever the case), else 0.
    vocabulary_half: the share of tokens whose id is in the lower or upper half of the vocabulary; it says nothing of
    language, but every token counts, so that a trainer that works must raise it within a few steps.
    """
    if name == "length":
        wanted = int(argument) if argument.isdecimal() else 0
        if wanted < 1:
            raise ValueError(f"{argument!r} is not a number of tokens above 0")
        return lambda text, ids: max(0.0, 1 - abs(len(ids) - wanted) / wanted)
    if name == "contains":
        if not argument:
            raise ValueError("the text to look for is empty")
        return lambda text, ids: float(argument.casefold() in text.casefold())
    if name == "regex":
        try:
            pattern = re.compile(argument)
        except re.error as error:
            raise ValueError(f"{argument!r} is not a regular expression: {error}") from None
        if not argument:
            raise ValueError("the pattern is empty")
        return lambda text, ids: float(pattern.search(text) is not None)
    if name == "vocabulary_half":
        if argument not in ("lower", "upper"):
            raise ValueError(f"{argument!r} is neither lower nor upper")
        middle = vocabulary_size // 2
        return lambda text, ids: sum((i < middle) == (argument == "lower") for i in ids) / max(1, len(ids))
    raise ValueError(f"unknown rule {name!r}; known: {', '.join(RULE_ARGUMENTS)}")
