"""How people judge, what waits for a reviewer, and gold, by program: as on the pages, by the same services."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from annotation.models import Assignment, Flag, Project, Role
from tests.calling import Program
from tests.factories import make_annotator, make_comparison, make_judgment, make_project

pytestmark = pytest.mark.django_db


def disagree(project: Project, count: int = 1) -> None:
    for _ in range(count):
        comparison = make_comparison(project)
        make_judgment(comparison, "a", -2)
        make_judgment(comparison, "b", 2)


def test_progress_tells_the_pace_the_rest_and_who_is_stuck() -> None:
    project = make_project()
    for _ in range(4):
        make_comparison(project)
    ann = Program(project, Role.ANNOTATOR)
    item = ann.post("claim/")[1][0]
    assert (
        ann.post(f"/api/v1/assignments/{item['assignment']}/judgment/", judgment=str(uuid4()), choice="-2")[0] == 200
    )
    ann.post("claim/")
    reviewer = Program(project, Role.REVIEWER)
    status, progress = reviewer.get("progress/")
    assert (status, progress["today"], progress["estimate"]["left"], progress["stuck"]) == (200, 1, 3, [])
    assert [(row["username"], row["done"]) for row in progress["people"]] == [(ann.user.username, 1)]
    assert [one["held"] for one in progress["holding"]] == [2]
    assert progress["strengths"][0]["counts"] == {"2": 1}
    long_ago = timezone.now() - timedelta(hours=1)
    Assignment.objects.update(leased_at=long_ago)
    Assignment.objects.filter(status="submitted").update(submitted_at=long_ago)
    assert [one["username"] for one in reviewer.get("progress/")[1]["stuck"]] == [ann.user.username]
    assert ann.get("progress/")[0] == 403
    status, own = ann.get("/api/v1/me/")
    assert (status, own["done"], own["projects"][0]["project"], own["projects"][0]["held"]) == (
        200,
        1,
        project.slug,
        2,
    )


def test_drift_and_the_weighed_estimate() -> None:
    project, ann, bob = make_project(), make_annotator(), make_annotator()
    for number in range(6):
        comparison = make_comparison(project)
        make_judgment(comparison, "a", -1, annotator=ann)
        make_judgment(comparison, "a" if number else "b", None, annotator=bob)
    reviewer = Program(project, Role.REVIEWER)
    status, listed = reviewer.get("annotators/")
    assert {row["annotator"]: row["id"] for row in listed["annotators"]} == {ann.name: ann.pk, bob.name: bob.pk}
    status, figures = reviewer.get(f"annotators/{ann.pk}/", by="hundred")
    assert (status, figures["votes"], [stretch["votes"] for stretch in figures["drift"]]) == (200, 6, [6])
    assert figures["drift"][0]["agreement_with_others"]["share"] == pytest.approx(5 / 6)
    assert reviewer.get(f"annotators/{ann.pk}/", by="year")[0] == 422
    assert reviewer.get(f"annotators/{make_annotator().pk}/")[0] == 404
    status, weighed = reviewer.get("aggregation/")
    assert (status, weighed["items"], weighed["same"]) == (200, 6, 5)
    assert [(row["majority"], sum(row["votes"].values())) for row in weighed["differences"]] == [(None, 2)]
    assert {row["annotator"] for row in weighed["people"]} == {ann.name, bob.name}
    assert all(0 < row["reliability"] <= 1 for row in weighed["people"])


def test_what_waits_is_listed_and_dealt_with() -> None:
    project = make_project()
    disagree(project, 3)
    agreed = make_comparison(project)
    reviewer = Program(project, Role.REVIEWER)
    first, second, third = project.comparisons.exclude(pk=agreed.pk).order_by("pk")
    flag = Flag.objects.create(comparison=second, annotator=make_annotator(), reason="broken", note="cut off")
    assert reviewer.post("waiting/look/") == (200, {"changed": 3})
    page = reviewer.get("waiting/")[1]
    assert [row["comparison"] for row in page["results"]] == [first.pk, second.pk, third.pk]
    assert [vote["strength"] for vote in page["results"][0]["votes"]] == [-2, 2]
    assert page["results"][1]["flags"] == [{"id": flag.pk, "reason": "broken", "note": "cut off"}]
    assert [row["id"] for row in reviewer.get("flags/", open="true")[1]["results"]] == [flag.pk]
    assert reviewer.post("adjudications/", comparison=first.pk, preference="a", strength=-1)[0] == 201
    assert reviewer.post(f"comparisons/{second.pk}/leave/") == (204, None)
    assert reviewer.post(f"comparisons/{third.pk}/withdraw/") == (204, None)
    assert reviewer.get("waiting/")[1]["results"] == []
    assert reviewer.get("flags/", open="true")[1]["results"] == []
    assert reviewer.get(f"comparisons/{third.pk}/")[1]["is_withdrawn"]
    assert reviewer.post(f"comparisons/{third.pk}/restore/") == (204, None)
    assert not reviewer.get(f"comparisons/{third.pk}/")[1]["is_withdrawn"]
    assert Program(project, Role.ANNOTATOR).post(f"comparisons/{third.pk}/withdraw/")[0] == 403
    assert Program(make_project(), Role.REVIEWER).post(f"comparisons/{third.pk}/withdraw/")[0] == 404


def test_gold_is_promoted_moved_and_retired() -> None:
    project = make_project()
    for number in range(2):
        comparison = make_comparison(project)
        for _ in range(3 + number):
            make_judgment(comparison, "a", -2)
    admin = Program(project, Role.ADMIN)
    assert admin.post("gold/promote/", at_least=4) == (200, {"made": 1})
    assert admin.post("gold/promote/") == (200, {"made": 1})
    assert admin.post("gold/promote/", least=4)[0] == 422
    [surest, other] = [row["comparison"] for row in admin.get("gold/")[1]["results"]]
    assert surest == comparison.pk
    status, row = admin.patch(f"gold/{other}/", is_for_qualification=True)
    assert (status, row["is_for_qualification"], row["preference"]) == (200, True, "a")
    assert admin.patch(f"gold/{other}/", strength=3)[0] == 422
    assert Program(project, Role.REVIEWER).post("gold/promote/")[0] == 403
