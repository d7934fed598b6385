"""Figures that take long at a million comparisons: kept for as long as suits what they cost, and dated on the page."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from celery import current_app
from django.db import connection, transaction
from django.utils import timezone
from kombu.exceptions import OperationalError

from annotation.models import Project, StoredFigures

Compute = Callable[..., dict[str, Any]]
"""A function of a module that takes the project; or a `functools.partial` of one, which gives it what comes then."""

AGE_PER_COST = 30
"""How many times as old as the time that they took figures may get: somebody who watches costs 1/30 of a core."""
LEAST_AGE_SECONDS = 5
"""Younger ones are not computed again, however cheap they are: pages are opened one after the other."""
PATIENCE_SECONDS = 0.25
"""What takes longer is computed by a worker, and the visitor sees the figures that there are."""
OLDEST = timedelta(minutes=30)
"""Older ones are not shown: whoever comes first after a pause waits."""


def stored_figures(project: Project, name: str, compute: Compute) -> tuple[dict[str, Any], datetime]:
    """A project's figures by their name, as JSON, and the time that they are of."""
    row = StoredFigures.objects.filter(project=project, name=name).first()
    if row is None:
        return refresh_figures(project, name, compute)
    age = timezone.now() - row.computed_at
    if age < _good_for(row):
        return row.data, row.computed_at
    if row.seconds > PATIENCE_SECONDS and age < OLDEST and _send(project, name, compute):
        return row.data, row.computed_at
    return refresh_figures(project, name, compute)


def refresh_figures(project: Project, name: str, compute: Compute) -> tuple[dict[str, Any], datetime]:
    """Compute and store them, unless somebody else just did or is at it and there are older ones to show."""
    with transaction.atomic():
        is_free = _lock(project, name)
        row = StoredFigures.objects.filter(project=project, name=name).first()
        if row and (not is_free or timezone.now() - row.computed_at < _good_for(row)):
            return row.data, row.computed_at
        as_of, started = timezone.now(), time.monotonic()
        data = compute(project)
        StoredFigures.objects.update_or_create(
            project=project,
            name=name,
            defaults={"data": data, "computed_at": as_of, "seconds": time.monotonic() - started},
        )
    return data, as_of


def _good_for(row: StoredFigures) -> timedelta:
    return timedelta(seconds=max(LEAST_AGE_SECONDS, AGE_PER_COST * row.seconds))


def _lock(project: Project, name: str) -> bool:
    """Whether nobody else is computing these at this moment. The lock ends with the transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(hashtext(%s), %s::int)", [f"figures:{name}", project.pk])
        return cursor.fetchone()[0]


def _send(project: Project, name: str, compute: Compute) -> bool:
    """Ask a worker; False where the broker is away."""
    function, options = (compute.func, compute.keywords) if isinstance(compute, partial) else (compute, {})
    what = [project.pk, name, f"{function.__module__}.{function.__qualname__}"]
    try:
        current_app.send_task("annotation.tasks.refresh_figures", what, options)
    except OperationalError:
        return False
    return True
