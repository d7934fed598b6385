"""Parses in a process of its own, beside the one that talks to Postgres.

A thread cannot do it: it and the thread that feeds Postgres would each wait for the interpreter at every turn.
"""

from __future__ import annotations

import marshal
import os
import signal
import struct
import traceback
from collections.abc import Iterator
from contextlib import suppress
from io import BufferedReader, BufferedWriter
from itertools import islice
from typing import Any, NoReturn

from annotation.importers.reading import Record
from annotation.importers.rows import Row, Talk

Parsed = tuple[Record, Row | Talk | None, str]
"""A record with what it was read into, or with the reason why it was not."""

BATCH_RECORDS = 4000
BATCH_BYTES = 2**25
_LENGTH = struct.Struct(">Q")


def in_batches(parsed: Iterator[Parsed]) -> Iterator[list[Parsed]]:
    """Batches small enough to hold in memory."""
    while batch := _take(parsed):
        yield batch


def in_batches_from_child(parsed: Iterator[Parsed]) -> Iterator[list[Parsed]]:
    """The same; from the second batch on, a child process parses the next while one is worked on.

    Without the records' values. `parsed` may read files and compute: a connection to the database is not the child's
    to use. Raises what reading raises; RuntimeError where the child died.
    """
    first = _take(parsed)
    yield first
    if len(first) == BATCH_RECORDS or sum(record.size for record, _, _ in first) > BATCH_BYTES:
        yield from _from_child(parsed)


def _take(parsed: Iterator[Parsed]) -> list[Parsed]:
    batch, size = [], 0
    for entry in islice(parsed, BATCH_RECORDS):
        batch.append(entry)
        size += entry[0].size
        if size > BATCH_BYTES:
            break
    return batch


def _from_child(parsed: Iterator[Parsed]) -> Iterator[list[Parsed]]:
    reading_end, writing_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading_end)
        _write_and_leave(parsed, writing_end)
    os.close(writing_end)
    try:
        with os.fdopen(reading_end, "rb") as pipe:
            while batch := _receive(pipe):
                yield batch
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(child, 0)


def _write_and_leave(parsed: Iterator[Parsed], descriptor: int) -> NoReturn:
    """The child's life. It leaves by _exit: connections and files that it inherited are not its own to close."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with os.fdopen(descriptor, "wb") as pipe:
            try:
                while batch := _take(parsed):
                    _send(pipe, "rows", [_flat(*entry) for entry in batch])
                _send(pipe, "rows", [])
            except OSError as error:
                _send(pipe, "unreadable", error.errno, error.strerror or str(error))
            except Exception:
                _send(pipe, "failed", traceback.format_exc())
    finally:
        os._exit(0)


def _send(pipe: BufferedWriter, *message: Any) -> None:
    payload = marshal.dumps(message)
    pipe.write(_LENGTH.pack(len(payload)))
    pipe.write(payload)
    pipe.flush()


def _receive(pipe: BufferedReader) -> list[Parsed]:
    """The next batch, empty at the end."""
    header = pipe.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        raise RuntimeError("The process that parses the file died. Nothing was imported: try again.")
    kind, *values = marshal.loads(pipe.read(_LENGTH.unpack(header)[0]))
    if kind == "unreadable":
        raise OSError(*values)
    if kind == "failed":
        raise RuntimeError(values[0])
    return [_revived(*entry) for entry in values[0]]


def _flat(record: Record, parsed: Row | Talk | None, reason: str) -> tuple[Any, ...]:
    where = record.line, record.item
    if isinstance(parsed, Talk):
        return (*where, reason, parsed.external_id, [turn.flat() for turn in parsed.turns], parsed.lang)
    return (*where, reason, None if parsed is None else parsed.flat())


def _revived(line: int, item: int | None, reason: str, *what: Any) -> Parsed:
    record = Record(line, None, item=item)
    if len(what) == 3:
        external_id, turns, lang = what
        return record, Talk(external_id, [Row.revived(turn) for turn in turns], lang), reason
    return record, None if what[0] is None else Row.revived(what[0]), reason
