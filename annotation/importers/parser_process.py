"""Parses and packs in a process of its own, beside the one that talks to Postgres.

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
from itertools import chain, islice
from typing import Any, NoReturn

from annotation.importers.packing import PackedRow, PackedTalk, pack_row, pack_talk
from annotation.importers.reading import Record
from annotation.importers.rows import Row, Talk

Parsed = tuple[Record, Row | Talk | None, str]
"""A record with what it was read into, or with the reason why it was not."""

Packed = tuple[Record, PackedRow | PackedTalk | None, str]
"""The same, ready for the tables; without the record's value."""

_Sent = tuple[int, int | None, str, bool, tuple[Any, ...] | None]
"""(line, item, reason, whether it is a conversation, what is packed): built-in values, which marshal carries."""

BATCH_RECORDS = 4000
RECORDS_WITHOUT_CHILD = 200
BATCH_BYTES = 2**25
_LENGTH = struct.Struct(">Q")


def in_batches(parsed: Iterator[Parsed], format_name: str) -> Iterator[list[Packed]]:
    """Batches small enough to hold in memory."""
    while batch := _take(parsed, format_name, BATCH_RECORDS):
        yield [_received(*entry) for entry in batch]


def in_batches_from_child(parsed: Iterator[Parsed], format_name: str) -> Iterator[list[Packed]]:
    """The same; where a first small one is not all, a child process parses the next while one is worked on.

    `parsed` may read files and compute: a connection to the database is not the child's to use. Raises what reading
    raises; RuntimeError where the child died.
    """
    first = [_received(*entry) for entry in _take(parsed, format_name, RECORDS_WITHOUT_CHILD)]
    if following := next(parsed, None):
        yield from _from_child(first, chain([following], parsed), format_name)
    else:
        yield first


def _take(parsed: Iterator[Parsed], format_name: str, most: int) -> list[_Sent]:
    batch: list[_Sent] = []
    size = 0
    for record, row, reason in islice(parsed, most):
        is_talk, packed = isinstance(row, Talk), None
        if isinstance(row, Talk):
            packed = pack_talk(row, format_name)
        elif row is not None:
            packed = pack_row(row, format_name)
        batch.append((record.line, record.item, reason, is_talk, packed))
        size += record.size
        if size > BATCH_BYTES:
            break
    return batch


def _from_child(first: list[Packed], parsed: Iterator[Parsed], format_name: str) -> Iterator[list[Packed]]:
    """The first batch, when the child is at work already: who places rows starts a thread, and no fork comes after."""
    reading_end, writing_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading_end)
        _write_and_leave(parsed, format_name, writing_end)
    os.close(writing_end)
    try:
        with os.fdopen(reading_end, "rb") as pipe:
            yield first
            while batch := _receive(pipe):
                yield batch
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(child, 0)


def _write_and_leave(parsed: Iterator[Parsed], format_name: str, descriptor: int) -> NoReturn:
    """The child's life. It leaves by _exit: connections and files that it inherited are not its own to close."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with os.fdopen(descriptor, "wb") as pipe:
            try:
                # Small ones first: until there is one, the others have nothing to do.
                most = RECORDS_WITHOUT_CHILD
                while batch := _take(parsed, format_name, most):
                    _send(pipe, "rows", batch)
                    most = min(2 * most, BATCH_RECORDS)
                _send(pipe, "rows", [])
            except OSError as error:
                _send(pipe, "unreadable", error.errno, error.strerror or str(error))
            except Exception:
                _send(pipe, "failed", traceback.format_exc())
    finally:
        os._exit(0)


def _send(pipe: BufferedWriter, *message: Any) -> None:
    payload = marshal.dumps(message, 2)  # the newer versions look for values that occur twice, which takes time
    pipe.write(_LENGTH.pack(len(payload)))
    pipe.write(payload)
    pipe.flush()


def _receive(pipe: BufferedReader) -> list[Packed]:
    """The next batch, empty at the end."""
    header = pipe.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        raise RuntimeError("The process that parses the file died. Nothing was imported: try again.")
    kind, *values = marshal.loads(pipe.read(_LENGTH.unpack(header)[0]))
    if kind == "unreadable":
        raise OSError(*values)
    if kind == "failed":
        raise RuntimeError(values[0])
    return [_received(*entry) for entry in values[0]]


def _received(line: int, item: int | None, reason: str, is_talk: bool, packed: tuple[Any, ...] | None) -> Packed:
    record = Record(line, None, item=item)
    if packed is None:
        return record, None, reason
    return record, PackedTalk._make(packed) if is_talk else PackedRow._make(packed), reason
