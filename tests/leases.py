"""Comparisons that people hold, and their votes through the service that the pages use."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from annotation import services
from annotation.answer import Answer
from annotation.models import Annotator, Assignment, Judgment, Project
from annotation.protocol import Protocol
from tests.factories import make_annotator, make_project


def project_with(protocol: Protocol, **fields: Any) -> Project:
    project = make_project()
    Project.objects.filter(pk=project.pk).update(protocol=protocol.to_json(), **fields)
    project.refresh_from_db()
    return project


def lease(project: Project, annotator: Annotator | None = None) -> Assignment:
    annotator = annotator or make_annotator(project=project)
    return services.claim_assignments(annotator=annotator, project=project)[0]


def judge(assignment: Assignment, choice: str = "-1", *, judgment_id: UUID | None = None, **more: Any) -> Judgment:
    """The answer as in content order, whatever side was drawn."""
    if not assignment.a_shown_on_left and choice.lstrip("-").isdigit():
        choice = str(-int(choice))
    return services.submit_judgment(
        assignment_id=assignment.public_id,
        annotator=assignment.annotator,
        judgment_id=judgment_id or uuid4(),
        answer=Answer(choice=choice, **more),
    )
