"""What somebody typed into the search box, as a tsquery and as patterns that find the hits again in the text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from django.db import connection

MAX_TERMS = 20
EXCERPT_CHARS = 240
_TOKEN = re.compile(r'(-?)"([^"]*)"?|(\S+)')
_LEXEME = re.compile(r"'((?:[^']|'')*)'")


@dataclass(frozen=True, slots=True)
class Term:
    """A word or a quoted phrase."""

    text: str
    is_excluded: bool = False


def parse_terms(typed: str) -> list[list[Term]]:
    """Alternatives of terms that must all be met: `red "old car" -rusty OR bicycle` as search engines read it."""
    alternatives: list[list[Term]] = [[]]
    for minus, phrase, word in _TOKEN.findall(typed.replace("\0", " "))[:MAX_TERMS]:
        if word.upper() == "OR":
            alternatives.append([])
        elif word:
            text = word.lstrip("-")
            if text:
                alternatives[-1].append(Term(text, word.startswith("-")))
        elif phrase.strip():
            alternatives[-1].append(Term(phrase.strip(), bool(minus)))
    return [terms for terms in alternatives if terms]


@dataclass(frozen=True, slots=True)
class Search:
    """`words` is a tsquery, empty where nothing that can be looked for was typed."""

    words: str
    patterns: tuple[re.Pattern[str], ...] = ()
    """What a hit looks like, the surest first."""


def compile_search(typed: str) -> Search:
    """The search for what was typed; one query. Words too common to be in the index are passed over."""
    alternatives = parse_terms(typed)
    texts = list(dict.fromkeys(term.text for terms in alternatives for term in terms))
    if not texts:
        return Search("")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT annotation_search_term(text)::text FROM unnest(%s::text[]) WITH ORDINALITY AS given(text, place)"
            " ORDER BY place",
            [texts],
        )
        found = dict(zip(texts, (words for (words,) in cursor.fetchall()), strict=True))
    groups, sought = [], []
    for terms in alternatives:
        known = [term for term in terms if found[term.text]]
        if known:
            groups.append(" & ".join(f"{'!' if term.is_excluded else ''}({found[term.text]})" for term in known))
            sought += [term.text for term in known if not term.is_excluded]
    words = " | ".join(f"({group})" for group in groups)
    return Search(words, _patterns(sought, [found[text] for text in sought]))


def _patterns(texts: Iterable[str], queries: Iterable[str]) -> tuple[re.Pattern[str], ...]:
    """The words as they were typed; failing that, whatever begins with their stems."""
    typed = ["".join((r"\b" if text[0].isascii() and text[0].isalnum() else "", _spaced(text))) for text in texts]
    stems = {lexeme.replace("''", "'") for query in queries for lexeme in _LEXEME.findall(query)}
    # An English stem in i stands for y, too: happi, happy. Pairs of Han letters are met in what was typed.
    begun = [
        r"\b" + re.escape(stem[:-1]) + r"[iy]\w*" if stem.endswith("i") else r"\b" + re.escape(stem) + r"\w*"
        for stem in sorted(stems, key=len, reverse=True)
        if stem.isascii()
    ]
    return tuple(re.compile("|".join(parts), re.IGNORECASE) for parts in (typed, begun) if parts)


def _spaced(text: str) -> str:
    return r"\W+".join(re.escape(word) for word in text.split())


def excerpt(texts: Iterable[str], patterns: Iterable[re.Pattern[str]]) -> list[tuple[str, bool]]:
    """A passage of about EXCERPT_CHARS with a hit in it, as (text, is a hit); the first text's start without one."""
    texts = list(texts)
    for pattern in patterns:
        for text in texts:
            if hit := pattern.search(text):
                return _marked(text, hit.start(), pattern)
    return [(_shortened(texts[0] if texts else "", 0), False)]


def _shortened(text: str, start: int) -> str:
    end = start + EXCERPT_CHARS
    passage = " ".join(text[start:end].split())
    return ("… " if start else "") + passage + (" …" if end < len(text) else "")


def _marked(text: str, at: int, pattern: re.Pattern[str]) -> list[tuple[str, bool]]:
    start = max(0, at - EXCERPT_CHARS // 3)
    if start:  # begin with a whole word, where there is one nearby
        blank = text.find(" ", start, at)
        start = start if blank < 0 else blank + 1
    passage = _shortened(text, start)
    parts: list[tuple[str, bool]] = []
    end = 0
    for hit in pattern.finditer(passage):
        parts += [(passage[end : hit.start()], False), (hit.group(), True)]
        end = hit.end()
    parts.append((passage[end:], False))
    return [part for part in parts if part[0]]
