"""JSON lines straight out of Postgres."""

from __future__ import annotations

from collections.abc import Generator

from django.db import connection


def copy_lines(query: str) -> Generator[bytes]:
    """The query's rows as JSON lines, built by Postgres.

    COPY's text format doubles backslashes; csv leaves the line alone if JSON cannot hold its quote and delimiter.
    """
    copy = f"COPY (SELECT row_to_json(r) FROM ({query}) r) TO STDOUT (FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02')"
    connection.ensure_connection()
    with connection.connection.cursor() as cursor, cursor.copy(copy) as rows:
        for row in rows:
            yield bytes(row)
