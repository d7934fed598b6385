"""What the vote's path writes down, once each, in the order in which it happened."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import DatabaseError, transaction
from django.test import Client
from django.utils import timezone

from annotation import services
from annotation.answer import Answer
from annotation.models import Annotator, Assignment, Event, Project
from annotation.reasons import FlagReason, SkipReason
from tests.factories import make_annotator, make_comparison, make_project

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    project = make_project()
    for _ in range(3):
        make_comparison(project)
    return project


@pytest.fixture
def ann(project: Project) -> Annotator:
    return make_annotator(project=project)


def told(*assignments: Assignment) -> list[str]:
    """The kinds of events about these assignments, in order."""
    return list(
        Event.objects.filter(assignment_id__in=[held.pk for held in assignments])
        .order_by("pk")
        .values_list("kind", flat=True)
    )


def test_a_comparison_s_life_is_written_down(project: Project, ann: Annotator) -> None:
    held, _ahead = services.claim_assignments(annotator=ann, project=project)
    which = {"assignment_id": held.public_id, "annotator": ann}
    voted_at = timezone.now() - timedelta(seconds=1)
    first = services.submit_judgment(
        **which, judgment_id=uuid4(), answer=Answer(choice="-2", client_at=voted_at, decided_in_ms=5000)
    )
    services.submit_judgment(**which, judgment_id=first.public_id, answer=Answer(choice="-2"))  # sent twice
    services.undo_assignment(**which)
    services.submit_judgment(**which, judgment_id=uuid4(), answer=Answer(choice="neither"))
    services.flag_comparison(**which, reason=FlagReason.BROKEN)
    services.skip_assignment(**which, reason=SkipReason.BROKEN)
    services.skip_assignment(**which)  # twice, too
    services.undo_assignment(**which)
    services.release_assignments(annotator=ann)
    assert told(held) == ["lease", "view", "vote", "undo", "change", "flag", "skip", "undo", "expire"]
    events = {event.kind: event for event in Event.objects.filter(assignment_id=held.pk).order_by("-pk")}
    assert {(event.user_id, event.project_id, event.comparison_id) for event in events.values()} == {
        (ann.user_id, project.pk, held.comparison_id)
    }
    assert events["vote"].client_at == voted_at
    assert events["view"].client_at == voted_at - timedelta(seconds=5)
    assert events["vote"].data == {
        "judgment": str(first.public_id),
        "preference": first.preference,
        "strength": first.strength,
    }
    assert (events["skip"].data, events["flag"].data) == ({"reason": "broken"}, {"reason": "broken"})
    assert events["lease"].data == {"for": "work"}
    assert events["expire"].data == {"why": "released"}


def test_a_lease_that_runs_out_is_written_down(project: Project, ann: Annotator) -> None:
    held = services.claim_assignments(annotator=ann, project=project)
    Assignment.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    assert services.expire_assignments() == 2
    assert told(*held) == ["lease", "lease", "expire", "expire"]
    assert Event.objects.filter(kind="expire").first().data == {"why": "ran out"}


def test_a_refused_vote_leaves_no_line(project: Project, ann: Annotator) -> None:
    held, _ahead = services.claim_assignments(annotator=ann, project=project)
    with pytest.raises(services.DomainError):
        services.submit_judgment(
            assignment_id=held.public_id, annotator=ann, judgment_id=uuid4(), answer=Answer(choice="9")
        )
    assert told(held) == ["lease"]


def test_what_is_on_the_screen_is_written_down_the_first_time(
    project: Project, ann: Annotator, client: Client
) -> None:
    client.force_login(ann.user)
    for _ in range(2):
        client.get(f"/projects/{project.slug}/compare/")
    shown, ahead = Assignment.objects.order_by("pk")
    assert (told(shown), told(ahead)) == (["lease", "view"], ["lease"])
    for _ in range(2):
        answer = client.post(
            f"/projects/{project.slug}/lease",
            {"shown": str(ahead.public_id), "shown_at": "2026-11-22T10:00:00.5Z"},
            headers={"X-Requested-With": "fetch"},
        )
        assert answer.json()["seconds"] > 0
    assert told(ahead) == ["lease", "view"]
    view = Event.objects.get(kind="view", assignment_id=ahead.pk)
    assert view.client_at.isoformat() == "2026-11-22T10:00:00.500000+00:00"
    # A heartbeat that names nothing, or something of somebody else's, only renews.
    for named in ("", "nonsense", str(uuid4())):
        assert client.post(f"/projects/{project.slug}/lease", {"shown": named, "shown_at": "soon"}).status_code == 200
    services.submit_judgment(
        assignment_id=shown.public_id, annotator=ann, judgment_id=uuid4(), answer=Answer(choice="1")
    )
    assert told(shown) == ["lease", "view", "vote"]


def test_postgres_lets_nobody_change_the_journal(project: Project, ann: Annotator) -> None:
    services.claim_assignments(annotator=ann, project=project)
    for change in (Event.objects.all().delete, lambda: Event.objects.update(kind="view")):
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            change()
