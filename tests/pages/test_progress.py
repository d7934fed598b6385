"""How the work of a project goes: the counts, the estimate and its doubt, the mix by batch, and who is stuck."""

from __future__ import annotations

import json
import math
import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from celery import current_app
from django.test import Client
from django.utils import timezone

from annotation import services, stored_figures, tasks
from annotation.models import Annotator, Assignment, Batch, Comparison, Judgment, Project, StoredFigures
from annotation.pace import estimate, holding, project_pace, strength_mixes, stuck, work_by_person
from tests.factories import make_annotator, make_comparison, make_judgment, make_project, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return make_project("p")


def judged(project: Project, annotator: Annotator, at: datetime, strength: int | None = -2, **fields: Any) -> Judgment:
    """A comparison that somebody judged on this site at a time."""
    comparison = make_comparison(project)
    Comparison.objects.filter(pk=comparison.pk).update(assigned_count=1, **fields)
    assignment = Assignment.objects.create(
        comparison=comparison, annotator=annotator, project=project, status="submitted", a_shown_on_left=True,
        leased_at=at, lease_expires_at=at, submitted_at=at,
    )  # fmt: skip
    preference = "neither" if strength is None else "tie" if strength == 0 else "a" if strength < 0 else "b"
    return Judgment.objects.create(
        comparison=comparison, annotator=annotator, assignment=assignment, preference=preference, strength=strength
    )


def skipped(project: Project, annotator: Annotator, at: datetime) -> None:
    Assignment.objects.create(
        comparison=make_comparison(project), annotator=annotator, project=project, status="skipped",
        a_shown_on_left=True, holds_place=False, leased_at=at, lease_expires_at=at,
    )  # fmt: skip


def plain(answer: Any) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", answer.content.decode()))


def test_judgments_are_counted_by_hour_day_and_person(project: Project, page: Client) -> None:
    ann, ben, now = make_annotator(make_user("ann")), make_annotator(make_user("ben")), timezone.now()
    for hours in (0, 0, 3, 30, 24 * 5, 24 * 40):
        judged(project, ann, now - timedelta(hours=hours))
    judged(project, ben, now - timedelta(hours=1))
    imported = make_comparison(project)
    make_judgment(imported)  # not judged here
    pace = project_pace(project)
    assert sum(count for _hour, count in pace.hours) == 5
    assert sum(count for _day, count in pace.days) == 6
    assert (pace.hours[-1][1], pace.last_hours) == (2, 4)
    work, as_of = work_by_person(project)
    assert (work[ann.user_id].done, work[ann.user_id].week, work[ben.user_id].done) == (6, 5, 1)
    assert abs(as_of - now) < timedelta(minutes=5)
    answer = page.get("/projects/p/progress/")
    chart = json.loads(re.search(r'<script id="pace"[^>]*>(.*?)</script>', answer.content.decode())[1])  # type: ignore[index]
    assert (len(chart["hours"]), len(chart["days"])) == (48, 30)
    assert chart["hours"][-1][1] == 2
    assert "Figures as of" in plain(answer)
    assert "that nothing is added" in plain(answer)  # the assumption stands beside the estimate


def test_what_is_left_counts_places_that_are_held(project: Project) -> None:
    services.update_settings(project, None, judgments_per_comparison=2)
    ann = make_annotator(make_user())
    services.add_member(project, ann.user)  # type: ignore[arg-type]
    for _ in range(3):
        make_comparison(project)
    withdrawn = make_comparison(project)
    Comparison.objects.filter(pk=withdrawn.pk).update(is_withdrawn=True)
    assert services.claim_assignments(annotator=ann, project=project)
    assert project_pace(project).estimate.left == 6


@pytest.mark.parametrize(
    ("left", "counts", "days", "expected"),
    [
        (0, [5], 1.0, (0.0, None, None)),
        (10, [], 0.0, (None, None, None)),
        (10, [0, 0, 0], 3.0, (None, None, None)),
        (100, [10, 10], 2.0, (10.0, None, None)),
        (100, [10, 10, 10], 3.0, (10.0, 10.0, 10.0)),
        (100, [0, 0, 30], 3.0, (10.0, 100 / 30, math.inf)),
    ],
)
def test_the_estimate_is_the_rest_at_the_mean_pace_and_says_its_doubt(
    left: int, counts: list[int], days: float, expected: tuple[float | None, ...]
) -> None:
    found = estimate(left, counts, days)
    assert (found.days, found.soonest, found.latest) == pytest.approx(expected)


def test_an_estimate_is_not_defined_without_work(project: Project, page: Client) -> None:
    make_comparison(project)
    text = plain(page.get("/projects/p/progress/"))
    assert "done in about not defined" in text
    assert "nobody judged in the last 7 days" in text
    assert "Nothing is judged yet" in text


def test_the_mix_is_by_batch_or_by_week_and_leaves_out_what_measures_people(project: Project, page: Client) -> None:
    ann, now = make_annotator(make_user()), timezone.now()
    batch = Batch.objects.create(project=project, name="round 1")
    for strength in (0, 0, -1, 3):
        judged(project, ann, now, strength, batch=batch)
    judged(project, ann, now, None)
    judged(project, ann, now, -3, is_gold=True)
    replaced = judged(project, ann, now, 2, batch=batch)
    Judgment.objects.filter(pk=replaced.pk).update(superseded_at=now)
    mixes = {mix.name: mix for mix in strength_mixes(project)[0]}
    assert mixes["round 1"].counts == {"0": 2, "1": 1, "3": 1}
    assert mixes[""].counts == {"neither": 1}
    text = plain(page.get("/projects/p/progress/"))
    assert "about the same 50 % (2)" in text
    assert "much better 25 % (1)" in text
    assert "week of" in text


def test_who_holds_work_without_judging_is_stuck(project: Project, page: Client) -> None:
    now = timezone.now()
    for name, leased_minutes, voted_minutes in (
        ("new", 5, None),
        ("busy", 90, 2),
        ("idle", 90, 60),
        ("gone", 40, None),
    ):
        annotator = make_annotator(make_user(name))
        services.add_member(project, annotator.user)  # type: ignore[arg-type]
        if voted_minutes is not None:
            judged(project, annotator, now - timedelta(minutes=voted_minutes))
        make_comparison(project)
        services.claim_assignments(annotator=annotator, project=project)
        Assignment.objects.filter(annotator=annotator, status="leased").update(
            leased_at=now - timedelta(minutes=leased_minutes)
        )
    assert {one.username for one in stuck(holding(project), now)} == {"idle", "gone"}
    text = plain(page.get("/projects/p/progress/"))
    assert re.search(r"idle holds \d comparisons? and has judged nothing for 1 hour", text)
    assert "may be stuck: idle, gone" in plain(page.get("/projects/p/"))
    assert holding(make_project()) == []


def test_who_skips_a_lot_is_named(project: Project, page: Client) -> None:
    ann, ben, now = make_annotator(make_user("ann")), make_annotator(make_user("ben")), timezone.now()
    for _ in range(5):
        skipped(project, ann, now)
        skipped(project, ben, now - timedelta(days=2))
    judged(project, ann, now)
    text = plain(page.get("/projects/p/progress/"))
    assert "ann skipped 5 and judged 1 in the last 24 hours" in text
    assert "ben skipped" not in text


def test_cheap_figures_are_never_old_and_dear_ones_are_kept_for_as_long_as_they_cost(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = make_annotator(make_user())

    def counted() -> int:
        judged(project, ann, timezone.now())
        return project_pace(project).people[ann.user_id].done  # type: ignore[index]

    monkeypatch.setattr(stored_figures, "PATIENCE_SECONDS", 60)
    assert [counted(), counted()] == [1, 2]
    monkeypatch.setattr(stored_figures, "PATIENCE_SECONDS", 0)
    StoredFigures.objects.update(computed_at=timezone.now() - timedelta(seconds=40), seconds=2.0)
    assert counted() == 1  # they took two seconds, so they stand for a minute
    StoredFigures.objects.update(computed_at=timezone.now() - timedelta(seconds=61))
    assert counted() == 4  # no worker can be asked, and two seconds can be waited for
    StoredFigures.objects.update(computed_at=timezone.now() - timedelta(days=1), seconds=20.0)
    assert counted() == 4  # twenty cannot


def test_a_worker_computes_what_takes_long(project: Project) -> None:
    """What the broker would carry, given to the task as it stands."""
    ann = make_annotator(make_user())
    judged(project, ann, timezone.now())
    for name, function, options in (
        ("work", "annotation.pace.count_work", {}),
        ("strengths", "annotation.pace.count_strengths", {}),
        (f"own:{ann.pk}", "annotation.own_work.measure_own_votes", {"annotator_id": ann.pk}),
    ):
        tasks.refresh_figures(project.pk, name, function, **options)
        assert StoredFigures.objects.get(name=name).data
    first = StoredFigures.objects.get(name="work")
    tasks.refresh_figures(project.pk, "work", "annotation.pace.count_work")  # sent twice: nothing is done twice
    assert StoredFigures.objects.get(name="work").computed_at == first.computed_at


def test_a_worker_is_asked_for_slow_figures_and_for_the_first_ones_of_a_large_project(
    project: Project, page: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, sent = make_annotator(make_user()), []
    monkeypatch.setattr(current_app, "send_task", lambda *call: sent.append(call))
    monkeypatch.setattr(stored_figures, "LARGE", 2)
    for _ in range(3):
        judged(project, ann, timezone.now())
    answer = page.get("/projects/p/progress/")
    assert "being counted for the first time" in plain(answer)
    assert answer["Refresh"] == "5"
    assert sent == [("annotation.tasks.refresh_figures", [project.pk, "work", "annotation.pace.count_work"], {})]
    assert page.get("/projects/p/strip/", headers={"HX-Request": "true"}).status_code == 204
    for _name, (project_id, name, function), options in sent:
        tasks.refresh_figures(project_id, name, function, **options)
    StoredFigures.objects.filter(name="work").update(computed_at=timezone.now() - timedelta(days=1), seconds=1.0)
    judged(project, ann, timezone.now())
    sent.clear()
    assert project_pace(project).people[ann.user_id].done == 3  # type: ignore[index]
    assert [call[1][1] for call in sent] == ["work"]
