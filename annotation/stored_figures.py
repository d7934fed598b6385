"""Figures that take long at a million comparisons: a worker computes those, and pages show the last ones, dated."""

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

from annotation.models import Comparison, Project, StoredFigures

Compute = Callable[..., dict[str, Any]]
"""A function of a module that takes the project; or a `functools.partial` of one, which gives it keywords."""

PATIENCE_SECONDS = 0.25
"""What takes less is computed for every visit and is never old."""
AGE_PER_COST = 30
"""How many times as old as the time that they took the others may get: who watches costs 1/30 of a core."""
LONGEST_WAIT_SECONDS = 5
"""What takes longer is left to a worker even while none can be asked."""
LARGE = 50_000
"""Comparisons of a project whose figures nobody should wait for, not even the first time."""


class FiguresNotReadyError(Exception):
    """They are being counted for the first time; `access.require_role` answers with a page that says so."""


def stored_figures(project: Project, name: str, compute: Compute) -> tuple[dict[str, Any], datetime]:
    """A project's figures by their name, as JSON, and the time that they are of."""
    row = StoredFigures.objects.filter(project=project, name=name).first()
    if row and row.seconds > PATIENCE_SECONDS:
        if _is_fresh(row) or _send(project, name, compute) or row.seconds > LONGEST_WAIT_SECONDS:
            return row.data, row.computed_at
    elif row is None and _is_large(project) and _send(project, name, compute):
        raise FiguresNotReadyError
    return _compute(project, name, compute, row)


def refresh_figures(project: Project, name: str, compute: Compute) -> None:
    """Compute them, unless somebody just did or is at it. For workers."""
    with transaction.atomic():
        with connection.cursor() as cursor:  # the lock ends with the transaction
            cursor.execute("SELECT pg_try_advisory_xact_lock(hashtext(%s), %s::int)", [f"figures:{name}", project.pk])
            is_first = cursor.fetchone()[0]
        row = StoredFigures.objects.filter(project=project, name=name).first()
        if is_first and not (row and _is_fresh(row)):
            _compute(project, name, compute, row)


def _compute(
    project: Project, name: str, compute: Compute, row: StoredFigures | None
) -> tuple[dict[str, Any], datetime]:
    as_of, started = timezone.now(), time.monotonic()
    with transaction.atomic():
        data = compute(project)
    seconds = time.monotonic() - started
    # Cheap ones need not be stored for every visit: what is stored of them is that they are cheap.
    if row is None or seconds > PATIENCE_SECONDS or as_of - row.computed_at > timedelta(minutes=1):
        StoredFigures.objects.update_or_create(
            project=project, name=name, defaults={"data": data, "computed_at": as_of, "seconds": seconds}
        )
    return data, as_of


def _is_fresh(row: StoredFigures) -> bool:
    return timezone.now() - row.computed_at < timedelta(seconds=AGE_PER_COST * row.seconds)


def _is_large(project: Project) -> bool:
    return Comparison.objects.filter(project=project).order_by()[LARGE : LARGE + 1].exists()


def _send(project: Project, name: str, compute: Compute) -> bool:
    """Ask a worker; False where the broker is away. Asking twice does nothing twice."""
    function, options = (compute.func, compute.keywords) if isinstance(compute, partial) else (compute, {})
    what = [project.pk, name, f"{function.__module__}.{function.__qualname__}"]
    try:
        current_app.send_task("annotation.tasks.refresh_figures", what, options)
    except OperationalError:
        return False
    return True
