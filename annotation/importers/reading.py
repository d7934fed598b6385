"""Reads JSON Lines, or one JSON array, record by record: a broken line costs itself only, memory stays constant."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from typing import Any

import orjson

MAX_RECORD_BYTES = 16 * 2**20


@dataclass(slots=True)
class Record:
    """`value` is set, or `error` says why it is not. `item` counts the elements of an array, from 1."""

    line: int
    value: dict[str, Any] | None
    error: str = ""
    item: int | None = None
    size: int = 0
    """Bytes."""


def read_records(file: BufferedReader) -> Iterator[Record]:
    """Every record of a file opened in binary mode; blank lines are none."""
    start = file.peek(64).removeprefix(codecs.BOM_UTF8).lstrip()
    return _read_array(file) if start.startswith(b"[") else _read_lines(file)


def _read_lines(file: BufferedReader) -> Iterator[Record]:
    number = 0
    while line := file.readline(MAX_RECORD_BYTES + 1):
        number += 1
        if len(line) > MAX_RECORD_BYTES:
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_RECORD_BYTES)
            yield Record(number, None, f"it is longer than {MAX_RECORD_BYTES // 2**20} MiB")
        elif (value := _read_quickly(line)) is not None:
            yield Record(number, value, size=len(line))
        elif line.strip():
            try:
                text = line.rstrip().decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                yield Record(number, None, f"it is not UTF-8 (byte {error.start + 1} of the line)")
            else:
                yield _read_carefully(text, number, is_last=not line.endswith(b"\n"))


class _Array:
    """The text of an array through a window that grows to the longest element and moves on."""

    def __init__(self, file: BufferedReader) -> None:
        self.file = file
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.text = ""
        self.position = 0
        self.line = 1
        self.is_ended = False

    def read_more(self) -> None:
        """Doubles what is left, so that finding the end of a long element costs linear time."""
        self.text = self.text[self.position :]
        self.position = 0
        chunk = self.file.read(max(2**16, len(self.text)))
        self.is_ended = not chunk
        self.text += self.decoder.decode(chunk, final=self.is_ended)

    def skip_space(self) -> str:
        """The next character that is not white space, empty at the end of the file."""
        while True:
            while self.position < len(self.text) and self.text[self.position] in " \t\r\n":
                self.line += self.text[self.position] == "\n"
                self.position += 1
            if self.position < len(self.text) or self.is_ended:
                return self.text[self.position : self.position + 1]
            self.read_more()

    def take_element(self) -> str:
        while True:
            try:
                _, end = json.JSONDecoder().raw_decode(self.text, self.position)
                break
            except json.JSONDecodeError:
                if self.is_ended or len(self.text) - self.position > MAX_RECORD_BYTES:
                    raise
                self.read_more()
        element = self.text[self.position : end]
        self.position = end
        self.line += element.count("\n")
        return element


def _read_array(file: BufferedReader) -> Iterator[Record]:
    """Elements of an array. After a syntax error nothing can be told apart, so that is the last record."""
    array = _Array(file)
    item = 0
    try:
        array.skip_space()
        array.position += 1  # the opening bracket
        while (character := array.skip_space()) != "]":
            item += 1
            if item > 1:
                if character != ",":
                    raise ValueError(
                        "a comma or the closing bracket is missing" if character else "the file ends here"
                    )
                array.position += 1
                array.skip_space()
            line = array.line
            yield _read_carefully(array.take_element(), line, item=item)
    except (ValueError, RecursionError) as error:
        # A column would count from the window's start, which nobody sees.
        detail = f"it is not JSON: {error.msg}" if isinstance(error, json.JSONDecodeError) else _sentence(error)
        yield Record(array.line, None, f"nothing can be read from here on: {detail}", item=item)


# Characters that change the number of quotation marks, or that Postgres cannot store, written as escapes.
_ODD_ESCAPE = re.compile(rb"\\u00(?:22|00)")
_DIGITS_AS_ZEROS = bytes(ord("0") if byte in b"0123456789" else ord("x") for byte in range(256))


def _read_quickly(line: bytes) -> dict[str, Any] | None:
    """The object that a line holds, or None where anything about it asks for `_read_carefully`.

    orjson takes a fifth of the time. Where a key occurs twice it drops one, and large integers become floats: what it
    writes then has fewer quotation marks than the line, and the line has long numbers.
    """
    # A number of 19 digits or more, which need not fit into 64 bits, fills three in a row of every sixth byte.
    if _ODD_ESCAPE.search(line) or b"000" in line[::6].translate(_DIGITS_AS_ZEROS):
        return None
    try:
        value = orjson.loads(line)
        is_whole = isinstance(value, dict) and orjson.dumps(value).count(b'"') == line.count(b'"')
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    return value if is_whole else None


def _read_carefully(text: str, line: int, *, item: int | None = None, is_last: bool = False) -> Record:
    """What the text holds, or a sentence that says what is wrong with it."""
    try:
        value = _DECODER.decode(text)
        if not isinstance(value, dict):
            return Record(line, None, "it is not a JSON object", item)
        # Only an escape can bring in what JSON allows and Postgres does not.
        if "\\u" in text and (problem := _unstorable(value)):
            return Record(line, None, problem, item)
        return Record(line, value, "", item, len(text))
    except (ValueError, RecursionError) as error:
        ending = "; the file ends in the middle of it" if is_last else ""
        return Record(line, None, f"{_sentence(error)}{ending}", item)


def _sentence(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"it is not JSON: {error.msg} at column {error.colno}"
    return str(error)


def _unstorable(value: Any) -> str:
    if isinstance(value, str):
        if "\0" in value:
            return "it holds the character U+0000, which the database cannot store"
        try:
            value.encode()
        except UnicodeEncodeError:
            return "it holds half of a surrogate pair, which is not a character"
    elif isinstance(value, dict):
        return next(filter(None, (_unstorable(part) for pair in value.items() for part in pair)), "")
    elif isinstance(value, list):
        return next(filter(None, map(_unstorable, value)), "")
    return ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {json.dumps(twice)[:60]} occurs twice in one object")
    return value


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def _constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_constant=_constant)
