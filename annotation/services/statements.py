"""Statements of the vote's path, written out: Postgres keeps their plans, and the ORM need not compose them each time.

Planning them takes longer than running them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections, models

_VALUE = re.compile(r"%\((\w+)\)s")
M = TypeVar("M", bound=models.Model)


class Columns(Generic[M]):
    """Some columns of a table in a SELECT, and instances of its model made of them.

    What is not named is loaded when it is first asked for.
    """

    def __init__(self, model: type[M], alias: str, *attnames: str) -> None:
        fields = [field for field in model._meta.concrete_fields if not attnames or field.attname in attnames]
        self._model = model
        self._attnames = [field.attname for field in fields]
        # Django has psycopg hand over JSON as text.
        self._json_at = [at for at, field in enumerate(fields) if isinstance(field, models.JSONField)]
        self.sql = ", ".join(f"{alias}.{field.column}" for field in fields)

    def __len__(self) -> int:
        return len(self._attnames)

    def instance(self, values: Sequence[Any]) -> M:
        row = list(values)
        for at in self._json_at:
            if row[at] is not None:
                row[at] = json.loads(row[at])
        return self._model.from_db(DEFAULT_DB_ALIAS, self._attnames, row)


def split(row: Sequence[Any], *parts: Columns[Any]) -> list[Any]:
    """A row of several tables' columns as one instance of each; None where the table's first column is NULL."""
    instances = []
    start = 0
    for part in parts:
        values = row[start : start + len(part)]
        instances.append(None if values[0] is None else part.instance(values))
        start += len(part)
    return instances


class Statement:
    """SQL with %(name)s for values, read once: psycopg would read texts as long as some of these every time."""

    def __init__(self, sql: str) -> None:
        self.names = list(dict.fromkeys(_VALUE.findall(sql)))
        self.sql = _VALUE.sub(lambda found: f"${self.names.index(found[1]) + 1}", sql)


def run(statement: Statement, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Execute a prepared statement; gives its rows."""
    database = connections[DEFAULT_DB_ALIAS]
    database.ensure_connection()
    cursor: Any = psycopg.RawCursor(database.connection)
    with database.make_debug_cursor(cursor) if database.queries_logged else database.make_cursor(cursor) as wrapped:
        wrapped.execute(statement.sql, [values[name] for name in statement.names])
        return cursor.fetchall() if cursor.pgresult.nfields else []
