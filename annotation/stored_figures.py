"""Figures that take long at a million comparisons: computed again when they have grown old for what they cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from annotation.models import Project, StoredFigures

AGE_PER_COST = 30
"""How many times as old as the time that they took figures may get: somebody who watches costs 1/30 of a core."""
LEAST_AGE_SECONDS = 5
"""Younger ones are not computed again, however cheap they are: pages are opened one after the other."""


def stored_figures(
    project: Project, name: str, compute: Callable[[Project], dict[str, Any]]
) -> tuple[dict[str, Any], datetime]:
    """A project's figures by their name, as JSON, and the time that they are of."""
    row = StoredFigures.objects.filter(project=project, name=name).first()
    if row and timezone.now() - row.computed_at < timedelta(
        seconds=max(LEAST_AGE_SECONDS, AGE_PER_COST * row.seconds)
    ):
        return row.data, row.computed_at
    with transaction.atomic():
        if not _is_first(project, name) and row:
            return row.data, row.computed_at  # somebody is at it: theirs come with the next visit
        as_of, started = timezone.now(), time.monotonic()
        data = compute(project)
        StoredFigures.objects.update_or_create(
            project=project,
            name=name,
            defaults={"data": data, "computed_at": as_of, "seconds": time.monotonic() - started},
        )
    return data, as_of


def _is_first(project: Project, name: str) -> bool:
    """Whether nobody else is computing these at this moment. The lock ends with the transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(hashtext(%s), %s::int)", [f"figures:{name}", project.pk])
        return cursor.fetchone()[0]
