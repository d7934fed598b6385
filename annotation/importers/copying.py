"""COPY into the tables: the fastest way in that Postgres has."""

from __future__ import annotations

import gc
import os
import re
import sys
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Self

import psycopg
from django.db import connection, models

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"


def copy_in(model: type[models.Model], columns: str, rows: Iterable[tuple[Any, ...]]) -> None:
    """COPY rows into a model's table; columns that are not named get their defaults.

    columns: their names, with blanks between, in the order of the rows. Values of uuid columns come from
    `random_uuids`; jsonb is for `packing`.
    """
    fields = {field.attname: field for field in model._meta.concrete_fields}
    types = [re.sub(r"\(\d+\)", "", fields[column].db_type(connection) or "") for column in columns.split()]
    with connection.connection.cursor() as cursor, cursor.copy(_command(model._meta.db_table, columns)) as copy:
        copy.set_types(["bytea" if name == "uuid" else name for name in types])
        for row in rows:
            copy.write_row(row)


def copy_packed(table: str, columns: str, rows: Iterable[bytes], using: psycopg.Connection[Any] | None = None) -> None:
    """The same with rows that `packing` made. using: Django's connection, where this is another thread."""
    raw = using or connection.connection
    with raw.cursor() as cursor, cursor.copy(_command(table, columns)) as copy:
        copy.write(b"".join((_HEADER, *rows, _TRAILER)))


class Copying:
    """COPY of packed rows, one table after another, while the caller prepares what comes next.

    A thread waits for Postgres. From `start` to `finish` nothing else may be asked over the connection.
    """

    def __init__(self, *, vouches: bool) -> None:
        """vouches: the caller does, for the rows' foreign keys."""
        self.vouches = vouches
        self.connection: psycopg.Connection[Any] = connection.connection
        self.thread = ThreadPoolExecutor(1, "copy")
        self.started: list[Future[None]] = []
        self.switch_interval = sys.getswitchinterval()

    def __enter__(self) -> Self:
        # The thread is told a millisecond early that Postgres will want more. Python would have it wait for five.
        sys.setswitchinterval(0.0005)
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.shutdown(cancel_futures=True)
        sys.setswitchinterval(self.switch_interval)

    def start(self, table: str, columns: str, rows: Iterable[bytes]) -> None:
        self.started.append(self.thread.submit(self._copy, table, columns, rows))

    def finish(self) -> None:
        """Wait until all rows are in. Raises what Postgres says of them."""
        started, self.started = self.started, []
        for copy in started:
            copy.result()

    def _copy(self, table: str, columns: str, rows: Iterable[bytes]) -> None:
        with foreign_keys_vouched_for(self.vouches, self.connection):
            copy_packed(table, columns, rows, self.connection)


def _command(table: str, columns: str) -> str:
    names = ", ".join(f'"{column}"' for column in columns.split())
    return f"COPY {table} ({names}) FROM STDIN (FORMAT binary)"


_VERSION = bytes(byte & 0x0F | 0x40 for byte in range(256))
_VARIANT = bytes(byte & 0x3F | 0x80 for byte in range(256))


def random_uuids(count: int) -> Iterator[bytes]:
    """UUIDs of version 4, in the form that `copy_in` takes; uuid4 asks the system for each one, ten times slower."""
    drawn = bytearray(os.urandom(16 * count))
    drawn[6::16] = drawn[6::16].translate(_VERSION)
    drawn[8::16] = drawn[8::16].translate(_VARIANT)
    return (bytes(drawn[start : start + 16]) for start in range(0, len(drawn), 16))


def reserve_ids(model: type[models.Model], count: int) -> range:
    """Ids that nobody else will get, for rows that other rows must point at."""
    if count <= 0:
        return range(0)
    with connection.cursor() as cursor:
        while True:
            cursor.execute(_DRAW_IDS, [model._meta.db_table, count])
            first, last = cursor.fetchone()
            if last - first + 1 == count:
                return range(first, last + 1)
            # Somebody else drew between. These stay unused, as those of a rolled back insert do.


class IdStock:
    """Gives ids, drawn before it is known how many are needed; what is left serves the next time."""

    def __init__(self, model: type[models.Model]) -> None:
        self.model = model
        self.ids: deque[int] = deque()

    def fill(self, count: int) -> None:
        self.ids += reserve_ids(self.model, count - len(self.ids))

    def __next__(self) -> int:
        return self.ids.popleft()


# OFFSET 0 keeps the parts apart: the sequence is looked up once, and only two numbers come back.
_DRAW_IDS = """
SELECT min(id), max(id) FROM (
    SELECT nextval(sequence) AS id
    FROM (SELECT pg_get_serial_sequence(%s, 'id')::regclass AS sequence OFFSET 0) named, generate_series(1, %s)
    OFFSET 0
) drawn
"""


def may_vouch_for_foreign_keys() -> bool:
    """Whether this database user may switch off the row-by-row checks (see `foreign_keys_vouched_for`)."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT has_parameter_privilege('session_replication_role', 'SET')")
        return cursor.fetchone()[0]


@contextmanager
def foreign_keys_vouched_for(is_allowed: bool, using: psycopg.Connection[Any] | None = None) -> Iterator[None]:
    """Within, Postgres does not look up every row's foreign keys one by one: the caller vouches for them.

    That is more than half of the cost of an import. Only for rows whose every target was made in this transaction or
    found in it with FOR KEY SHARE, which is what the check itself does. Uniqueness and CHECKs hold as ever.
    using: Django's connection, where this is another thread.
    """
    if not is_allowed:
        yield
        return
    raw = using or connection.connection
    raw.execute("SET LOCAL session_replication_role = replica")
    yield
    raw.execute("SET LOCAL session_replication_role = origin")


@contextmanager
def collector_paused() -> Iterator[None]:
    """Within, cycles of garbage wait. Parsed rows hold none, and make so many objects that Python would look through
    all that are alive again and again: two fifths of an import's time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def find(sql: str, *values: Collection[Any] | int) -> list[tuple[Any, ...]]:
    """All rows of a query; its arrays may be any collections."""
    with connection.cursor() as cursor:
        cursor.execute(sql, [list(value) if isinstance(value, Collection) else value for value in values])
        return cursor.fetchall()
