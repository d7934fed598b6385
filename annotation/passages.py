"""Where a passage that somebody selected on the screen stands in the text as it was written, and back.

What is on the screen is Markdown without its marks, so its characters are nearly a subsequence of the source. The two
are aligned from left to right in blocks of equal characters. Where they part, the usual reasons are tried first (a
link's address, an entity, an image), then the next word on the screen is looked for nearby. A wrong guess costs the
one word: the following one is found again.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from typing import NamedTuple

from annotation.markdown import render_markdown

_LINK_TAIL = re.compile(r"\]\((?:[^()\s]|\([^()\s]*\))*(?:\s+(?:\"[^\"]*\"|'[^']*'))?\s*\)|\]\[[^\]\n]*\]")
_ENTITY = re.compile(r"&(?:#x?[0-9a-f]{1,7}|[a-z][a-z0-9]{1,31});", re.IGNORECASE)
_IMAGE_SOURCE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
_IMAGE_SHOWN = re.compile(r"\[image: [^\n]*?\] [^\s\[]*")
_FORMULA_OPENERS = ("\\[", "\\(")
_WORD = re.compile(r"[^\w\s]?\w+")
_LONGEST_KEY = 32


class Block(NamedTuple):
    """`shown_length` characters on the screen stand for `source_length` of the source; one by one where equal."""

    shown: int
    source: int
    shown_length: int
    source_length: int


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._opens_pre = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._opens_pre = tag == "pre"

    def handle_data(self, data: str) -> None:
        # A browser drops the line break right after <pre>.
        self.parts.append(data.removeprefix("\n") if self._opens_pre else data)
        self._opens_pre = False


def shown_text(text: str) -> str:
    """What a browser gives as the textContent of the rendered text."""
    reader = _Text()
    reader.feed(render_markdown(text).html)
    reader.close()
    return "".join(reader.parts)


def find_passage(text: str, quote: str, *, near: int = 0) -> tuple[int, int] | None:
    """The half-open range of `text` in characters that is shown as `quote`.

    near: where in the shown text the quote was selected; of several places that read the same, the nearest is taken.
    A quote that was typed may differ in its white space, or be copied from the source.
    """
    quote = quote.strip()
    if not quote:
        return None
    shown = shown_text(text)
    place = _nearest(shown, quote, near)
    if place is not None and (found := source_range(shown, text, *place)):
        return found
    return _nearest(text, quote, near)


def _nearest(text: str, quote: str, near: int) -> tuple[int, int] | None:
    if text.startswith(quote, near):
        return near, near + len(quote)
    before, after = text.rfind(quote, 0, near + len(quote)), text.find(quote, near)
    places = [place for place in (before, after) if place >= 0]
    if places:
        start = min(places, key=lambda place: abs(place - near))
        return start, start + len(quote)
    words = quote.split()
    if len(words) > 1 and (match := re.search(r"\s+".join(map(re.escape, words)), text)):
        return match.span()
    return None


def source_range(shown: str, source: str, start: int, end: int) -> tuple[int, int] | None:
    """The range of the source behind [start, end) of the shown text; None where nothing of it is in the source."""
    return _project(align(shown, source), start, end)


def shown_range(shown: str, source: str, start: int, end: int) -> tuple[int, int] | None:
    """What became of [start, end) of the source on the screen; None where none of it is shown."""
    return _project(
        (Block(b.source, b.shown, b.source_length, b.shown_length) for b in align(shown, source)), start, end
    )


def quoted(source: str, start: int, end: int) -> tuple[int, str]:
    """A passage of the source as a reader sees it, and where it begins in the shown text."""
    shown = shown_text(source)
    first, last = shown_range(shown, source, start, end) or (0, 0)
    return first, shown[first:last] or source[start:end]


def _project(blocks: Iterable[Block], start: int, end: int) -> tuple[int, int] | None:
    first = last = None
    for block in blocks:
        low, high = max(start, block.shown), min(end, block.shown + block.shown_length)
        if low >= high:
            continue
        is_equal = block.shown_length == block.source_length
        if first is None:
            first = block.source + (low - block.shown if is_equal else 0)
        last = block.source + (high - block.shown if is_equal else block.source_length)
    return None if first is None or last is None else (first, last)


def align(shown: str, source: str) -> Iterator[Block]:
    """Blocks in rising order on both sides. What lies between them was dropped, or put in, by the rendering."""
    i = j = 0
    while i < len(shown) and j < len(source):
        length = _equal_length(shown, i, source, j)
        if length and source.startswith(_FORMULA_OPENERS, j + length - 1):
            # The formula's own first backslash is the equal one, not its opener's.
            if length > 1:
                yield Block(i, j, length - 1, length - 1)
            i, j = i + length - 1, j + length + 1
        elif length:
            yield Block(i, j, length, length)
            i, j = i + length, j + length
        elif image := _image(shown, i, source, j):
            yield image
            i, j = i + image.shown_length, j + image.source_length
        elif tail := _LINK_TAIL.match(source, j):
            j = tail.end()
        elif (entity := _ENTITY.match(source, j)) and shown.startswith(html.unescape(entity[0]), i):
            length = len(html.unescape(entity[0]))
            yield Block(i, j, length, len(entity[0]))
            i, j = i + length, entity.end()
        elif shown[i].isspace():
            i += 1
        else:
            found = _next_word(shown, i, source, j)
            if found is None:
                i += 1
            else:
                j = found


def _equal_length(shown: str, i: int, source: str, j: int) -> int:
    length, step = 0, 4096
    while step:
        if (
            i + length + step <= len(shown)
            and shown[i + length : i + length + step] == source[j + length : j + length + step]
        ):
            length += step
        else:
            step //= 2
    return length


def _image(shown: str, i: int, source: str, j: int) -> Block | None:
    if not shown.startswith("[image: ", i):
        return None
    in_source, on_screen = _IMAGE_SOURCE.match(source, j), _IMAGE_SHOWN.match(shown, i)
    if in_source is None or on_screen is None:
        return None
    return Block(i, j, len(on_screen[0]), len(in_source[0]))


def _next_word(shown: str, i: int, source: str, j: int) -> int | None:
    """Where the word, or else its longest beginning, that comes next on the screen stands in the source after j.

    The shorter it is, the nearer it must be: a single letter is found everywhere.
    """
    word = _WORD.match(shown, i, i + _LONGEST_KEY)
    key = word[0] if word else shown[i]
    while key:
        found = source.find(key, j, j + 16 * len(key) ** 2 + len(key))
        if found >= 0:
            return found
        key = key[: len(key) // 2]
    return None
