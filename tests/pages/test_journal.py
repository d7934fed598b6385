"""Reading the journal: newest first, page by page, by kind and person, and as a file."""

from __future__ import annotations

import csv
import json
import re

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from annotation import services
from annotation.journal import PAGE, events_of
from annotation.models import Event, EventKind, Project
from annotation.services import record_event
from tests.factories import make_project, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return make_project("p")


def shown(client: Client, address: str) -> list[str]:
    """The numbers that the events on a page carry."""
    text = client.get(address).content.decode()
    return re.findall(r'<span class="muted">number</span> (\d+)', text)


def test_the_newest_come_first_and_older_ones_by_key(page: Client, project: Project) -> None:
    other = make_project()
    for number in range(PAGE + 10):
        record_event(EventKind.VOTE, project=project, number=number)
        record_event(EventKind.VOTE, project=other, number=9999)
    first = page.get("/projects/p/journal/")
    assert shown(page, "/projects/p/journal/") == [str(PAGE + 9 - place) for place in range(PAGE)]
    older = re.search(r'rel="next" href="(\?before=\d+)"', first.content.decode())
    assert older is not None
    record_event(EventKind.VOTE, project=project, number=1000)  # what comes meanwhile moves nothing
    assert shown(page, f"/projects/p/journal/{older[1]}") == [str(number) for number in reversed(range(10))]
    assert page.get("/projects/p/journal/?before=x").status_code == 200
    assert page.get(f"/projects/p/journal/?before={'9' * 30}").status_code == 200


def test_it_is_narrowed_by_kind_and_by_person(page: Client, project: Project) -> None:
    ann, ben = make_user("ann"), make_user("ben")
    for number, (kind, user) in enumerate([("vote", ann), ("vote", ben), ("skip", ann), ("member", ben)]):
        record_event(EventKind(kind), project=project, user=user, number=number)
    assert shown(page, "/projects/p/journal/?kind=vote") == ["1", "0"]
    assert shown(page, "/projects/p/journal/?person=ann") == ["2", "0"]
    assert shown(page, "/projects/p/journal/?kind=vote&person=ann") == ["0"]
    assert "Nothing like this" in page.get("/projects/p/journal/?person=nobody").content.decode()
    assert len(shown(page, "/projects/p/journal/?kind=nonsense")) == 4


def test_texts_in_an_event_are_shown_as_text(page: Client, project: Project) -> None:
    record_event(EventKind.SETTINGS, project=project, name="<script>alert(1)</script>", deep={"a": [1, "<b>"]})
    text = page.get("/projects/p/journal/").content.decode()
    assert "<script>alert" not in text
    assert "&lt;b&gt;" in text


def test_both_files_hold_everything_oldest_first_and_are_journalled(page: Client, project: Project) -> None:
    ann = make_user("ann")
    record_event(EventKind.VOTE, project=project, user=ann, comparison_id=7, number=1, odd='a "b", c\n\\d é')
    record_event(EventKind.SKIP, project=project, user=ann, number=2)
    answer = page.get("/projects/p/journal/events.jsonl?person=ann")
    assert answer["Content-Disposition"] == 'attachment; filename="p-journal.jsonl"'
    rows = [json.loads(line) for line in b"".join(answer.streaming_content).splitlines()]  # type: ignore[attr-defined]
    assert [(row["kind"], row["person"], row["data"]["number"]) for row in rows] == [
        ("vote", "ann", 1),
        ("skip", "ann", 2),
    ]
    assert (rows[0]["comparison_id"], rows[0]["data"]["odd"]) == (7, 'a "b", c\n\\d é')
    table = b"".join(page.get("/projects/p/journal/events.csv").streaming_content).decode()  # type: ignore[attr-defined]
    lines = list(csv.DictReader(table.splitlines(keepends=True)))
    assert [line["kind"] for line in lines] == ["settings", "vote", "skip", "export", "export"]
    assert json.loads(lines[1]["data"])["odd"] == 'a "b", c\n\\d é'
    exports = Event.objects.filter(kind="export", project=project).order_by("pk")
    assert [(event.user, event.data) for event in exports] == [
        (User.objects.get(username="boss"), {"what": "journal", "format": suffix}) for suffix in ("jsonl", "csv")
    ]
    assert page.get("/projects/p/journal/events.xml").status_code == 404


def test_the_sites_journal_holds_what_concerns_no_project(page: Client, project: Project) -> None:
    record_event(EventKind.VOTE, project=project, number=1)
    services.record_event(EventKind.SIGN_IN, user=make_user("ann"), action="signed_in", number=2)
    assert shown(page, "/journal/") == ["2"]
    assert b"".join(page.get("/journal/events.csv").streaming_content).count(b"\n") == 3  # type: ignore[attr-defined]


def test_every_filter_is_answered_by_an_index(project: Project) -> None:
    """On a journal in which nearly everything is votes of others."""
    user, rare = make_user(), make_user()
    record_event(EventKind.SETTINGS, project=project, user=rare)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO annotation_event (kind, project_id, user_id, data) SELECT 'vote', %s,"
            " CASE WHEN n %% 1000 = 0 THEN %s ELSE %s END, '{}' FROM generate_series(1, 20000) n",
            [project.pk, rare.pk, user.pk],
        )
        cursor.execute("ANALYZE annotation_event")
    for filters in ({}, {"kind": "vote"}, {"kind": "settings"}, {"user_id": rare.pk}):
        plan = events_of(project, **filters)[:PAGE].explain(analyze=True, buffers=True)  # type: ignore[arg-type]
        assert "Seq Scan on annotation_event" not in plan, plan
        removed = [int(count) for count in re.findall(r"Rows Removed by Filter: (\d+)", plan)]
        assert sum(removed) < 1000, plan
