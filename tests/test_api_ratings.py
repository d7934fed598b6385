"""Marking single responses by program, over the client that ships with the site and by hand."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.test import Client

from annotation import services
from annotation.client import RefusedError, Touchstone
from annotation.models import ApiToken, Membership, Project, Role, RubricRating, StudyKind
from tests.factories import make_project, make_prompt, make_response, make_source, make_user

PASSED = {"intent": True, "accuracy": True, "language": True, "safety": True, "is_satisfied": True}


def make_marked_project(count: int) -> Project:
    """With an evaluation of one model's responses, and ann who marks."""
    project = make_project("marked", members=[make_user("ann")])
    source = make_source("SECRETMODEL")
    for number in range(count):
        make_response(make_prompt(project, f"Question {number}?"), source, f"Answer {number}.")
    services.create_study(
        project=project,
        name="SECRETSTUDY",
        kind=StudyKind.RUBRIC,
        source=source,
        against=None,
        prompts=project.prompts.all(),
    )
    return project


def token_of(user: User) -> str:
    return ApiToken.objects.create(user, expiry=timedelta(days=1))[1]


def caller(user: User) -> Client:
    return Client(headers={"Authorization": f"Token {token_of(user)}"})


def post(here: Client, path: str, body: dict[str, Any] | None = None) -> Any:
    return here.post(f"/api/v1/{path}", body or {}, content_type="application/json")


@pytest.mark.django_db(transaction=True)
def test_a_program_marks_corrects_gives_back_and_a_reviewer_reads_it(live_server) -> None:
    project = make_marked_project(3)
    with Touchstone(live_server.url, token_of(User.objects.get(username="ann"))) as site:
        here = site.project(project.slug)
        first, again = here.claim_rating(), here.claim_rating()
        assert first is not None and again is not None and first.rating == again.rating
        assert first.response.startswith("Answer ") and first.messages[0]["content"].startswith("Question ")
        for _ in range(2):
            assert site.rate(first, **PASSED) == {"rating": first.rating, "is_late": False}
        site.rate(first, **PASSED | {"accuracy": False}, note="Wrong year.")
        second = here.claim_rating()
        assert second is not None and second.rating != first.rating
        site.skip_rating(second)
        third = here.claim_rating()
        assert third is not None
        site.rate(third, **PASSED)
        assert here.claim_rating() is None
        with pytest.raises(RefusedError, match="You gave this response back") as refused:
            site.rate(second, **PASSED)
        assert refused.value.status == 409
    reviewer = make_user()
    Membership.objects.create(project=project, user=reviewer, role=Role.REVIEWER)
    with Touchstone(live_server.url, token_of(reviewer)) as site:
        rows = list(site.project("marked").ratings(study="SECRETSTUDY"))
        assert [(row["accuracy"], row["superseded_at"] is None) for row in rows] == [
            (True, False),
            (False, True),
            (True, True),
        ]
        standing = list(site.project("marked").ratings(live=True, response=rows[0]["response"]))
        assert [(row["rating"], row["note"], row["annotator"]) for row in standing] == [
            (first.rating, "Wrong year.", "ann")
        ]
        assert list(site.project("marked").ratings(study="another")) == []


@pytest.mark.django_db
def test_no_byte_of_an_answer_tells_who_wrote_the_response() -> None:
    project = make_marked_project(1)
    here = caller(User.objects.get(username="ann"))
    claimed = post(here, f"projects/{project.slug}/ratings/claim/")
    rating = claimed.json()["rating"]
    answers = [
        claimed,
        post(here, f"ratings/{rating}/renew/"),
        post(here, f"ratings/{rating}/marks/", {**PASSED, "safety": "maybe"}),
        post(here, f"ratings/{rating}/marks/", PASSED),
        post(here, f"ratings/{rating}/skip/"),
        here.get(f"/api/v1/projects/{project.slug}/ratings/"),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 400, 200, 409, 403]
    said = "\n".join(f"{answer.headers} {answer.content.decode()}" for answer in answers)
    assert "Answer 0." in said and "SECRET" not in said


@pytest.mark.django_db
def test_what_is_not_whole_or_not_ones_own_is_refused_and_nothing_is_stored() -> None:
    project = make_marked_project(1)
    ann, stranger = caller(User.objects.get(username="ann")), caller(make_user())
    assert post(stranger, "projects/marked/ratings/claim/").status_code == 404
    staff = caller(make_user(is_staff=True))
    assert post(staff, "projects/marked/ratings/claim/").status_code == 204, "staff mark where they were added"
    rating = post(ann, f"projects/{project.slug}/ratings/claim/").json()["rating"]
    half = {name: met for name, met in PASSED.items() if name != "safety"}
    for refused in (post(ann, f"ratings/{rating}/marks/", half), ann.post(f"/api/v1/ratings/{rating}/marks/", half)):
        assert (refused.status_code, list(refused.json())) == (400, ["safety"]), "in JSON and as a form"
    refused = post(ann, f"ratings/{rating}/marks/", {**PASSED, "guideline_version": 9})
    assert (refused.status_code, refused.json()["detail"].split(":")[0]) == (422, "guideline_version")
    for address in (rating, uuid4()):
        for action, body in (("marks", PASSED), ("skip", {})):
            assert post(stranger, f"ratings/{address}/{action}/", body).status_code == 404
        assert post(stranger, f"ratings/{address}/renew/").json() == {"lease_expires_at": None}
    assert RubricRating.objects.get().submitted_at is None
    assert post(ann, f"ratings/{rating}/renew/").json()["lease_expires_at"]
