"""Writing the journal."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib.auth.models import User

from annotation.models import Event, EventKind, Project


def record_event(
    kind: EventKind,
    *,
    project: Project | int | None = None,
    user: User | int | None = None,
    comparison_id: int | None = None,
    assignment_id: int | None = None,
    client_at: datetime | None = None,
    **data: Any,
) -> None:
    """Append one event, in the transaction that does what it tells of, so that neither stands without the other."""
    Event.objects.create(
        kind=kind,
        project_id=project.pk if isinstance(project, Project) else project,
        user_id=user.pk if isinstance(user, User) else user,
        comparison_id=comparison_id,
        assignment_id=assignment_id,
        client_at=client_at,
        data=data,
    )
