"""Reading the journal: newest first by keyset, and as a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import connection
from django.db.models import QuerySet

from annotation.models import Event, Project

PAGE = 50


def events_of(project: Project | None, *, kind: str = "", user_id: int | None = None) -> QuerySet[Event]:
    """What happened in a project, or (None) on the site as a whole, newest first."""
    events = Event.objects.filter(project=project).select_related("user").order_by("-pk")
    if kind:
        events = events.filter(kind=kind)
    if user_id is not None:
        events = events.filter(user=user_id)
    return events


_ROWS = """
SELECT e.id, e.at, e.client_at, e.kind, u.username AS person, e.comparison_id, e.assignment_id, e.data
FROM annotation_event e LEFT JOIN auth_user u ON u.id = e.user_id
WHERE e.project_id IS NOT DISTINCT FROM %s AND (%s = '' OR e.kind = %s) AND (%s::int IS NULL OR e.user_id = %s)
ORDER BY e.id
"""
# No byte of JSON that Postgres writes is one of these two: each row stands on its line unquoted.
_FORMATS = {"csv": "FORMAT csv, HEADER", "jsonl": "FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02'"}


def copy_events(
    project: Project | None, suffix: str, *, kind: str = "", user_id: int | None = None
) -> Iterator[bytes]:
    """Every event as CSV or JSON Lines, oldest first, straight from COPY: memory does not grow with the journal."""
    rows = _ROWS if suffix == "csv" else f"SELECT row_to_json(event) FROM ({_ROWS}) event"
    values: list[Any] = [project.pk if project else None, kind, kind, user_id, user_id]
    statement = f"COPY ({rows}) TO STDOUT WITH ({_FORMATS[suffix]})"
    with connection.cursor() as cursor, cursor.cursor.copy(statement, values) as copy:
        for block in copy:
            yield bytes(block)
