"""Writing the journal.

Votes, leases and what runs out write their lines in the statements that do these things (services.judging and
services.queue); everything else comes here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User

from annotation.models import Annotator, Event, EventKind, Project
from annotation.services.statements import Statement, run


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


_VIEW = Statement("""
WITH seen AS (
    UPDATE annotation_assignment SET viewed_at = clock_timestamp()
    WHERE public_id = %(assignment)s AND annotator_id = %(annotator)s AND viewed_at IS NULL
    RETURNING id, project_id, comparison_id
)
INSERT INTO annotation_event (kind, project_id, user_id, comparison_id, assignment_id, client_at, data)
SELECT 'view', project_id, %(user)s, comparison_id, id, %(client_at)s, '{}' FROM seen
""")


def record_view(*, assignment_id: UUID, annotator: Annotator, client_at: datetime | None = None) -> None:
    """Append that a comparison is on its annotator's screen, the first time only.

    A vote says so by itself; this is for what is looked at for a while, or never judged.
    """
    values = {
        "assignment": assignment_id,
        "annotator": annotator.pk,
        "user": annotator.user_id,
        "client_at": client_at,
    }
    run(_VIEW, values)
