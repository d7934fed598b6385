"""Members, invitations and locked accounts, by program."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.test import Client

from annotation.models import Event, EventKind, Membership, Project, Role
from annotation.sign_in import locks
from tests.calling import Program
from tests.factories import make_project, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return make_project("p")


def test_adding_somebody_again_changes_only_what_is_given(project: Project) -> None:
    admin, ann = Program(project, Role.ADMIN), make_user("ann")
    status, row = admin.post("members/", username="ann", languages=["zh"], skills=["law", "law"])
    assert (status, row["role"], row["languages"], row["skills"]) == (201, "annotator", ["zh"], ["law"])
    status, row = admin.post("members/", username="ann")
    assert (status, row["role"], row["languages"], row["skills"]) == (200, "annotator", ["zh"], ["law"])
    status, row = admin.post("members/", username="ann", role="reviewer")
    assert (status, row["role"], row["languages"]) == (200, "reviewer", ["zh"])
    assert admin.post("members/", username="ann", skills=[])[1]["skills"] == []
    assert Membership.objects.get(project=project, user=ann).role == Role.REVIEWER
    status, refusal = admin.post("members/", username="ann", language=["en"])
    assert status == 422
    assert "'language'" in refusal["detail"]


def test_a_members_place_is_changed_and_the_qualification_overruled(project: Project) -> None:
    admin = Program(project, Role.ADMIN)
    make_user("ann")
    admin.post("members/", username="ann", languages=["zh"])
    status, row = admin.patch("members/ann/", skills=["law"], qualification="failed")
    assert (status, row["languages"], row["skills"], row["qualification"]) == (200, ["zh"], ["law"], "failed")
    assert admin.patch("members/ann/", languages="zh")[0] == 400
    assert admin.patch("members/ann/", tries=3)[0] == 422
    assert admin.patch("members/bob/", skills=[])[0] == 404
    assert Program(project, Role.REVIEWER).patch("members/ann/", skills=[])[0] == 403
    status, refusal = admin.patch("members/ann/", role="admin", qualification="maybe")
    assert (status, list(refusal)) == (400, ["qualification"])
    assert Membership.objects.get(project=project, user__username="ann").role == Role.ANNOTATOR


def test_a_locked_account_is_opened(project: Project) -> None:
    admin = Program(project, Role.ADMIN)
    Membership.objects.create(project=project, user=make_user("ann"))
    for _ in range(settings.AXES_FAILURE_LIMIT):
        Client().post("/login/", {"username": "ann", "password": "wrong"})
    assert locks(["ann"])
    assert admin.post("members/ann/unlock/") == (200, {"unlocked": 1})
    assert not locks(["ann"])


def test_invitations_are_listed_and_withdrawn(project: Project) -> None:
    admin = Program(project, Role.ADMIN)
    status, made = admin.post("invitations/", languages=["zh"], email="ann@example.org")
    assert status == 201
    status, listed = admin.get("invitations/")
    assert [(row["id"], row["email"], row["languages"]) for row in listed["results"]] == [
        (made["id"], "ann@example.org", ["zh"])
    ]
    assert "link" not in listed["results"][0]
    assert admin.delete(f"invitations/{made['id']}/") == (204, None)
    assert "withdrawn" in Client().get(made["link"]).content.decode()
    status, refusal = admin.delete(f"invitations/{made['id']}/")
    assert (status, "withdrawn before" in refusal["detail"]) == (422, True)
    assert Program(make_project("other"), Role.ADMIN).delete(f"invitations/{made['id']}/")[0] == 404
    assert Event.objects.filter(kind=EventKind.MEMBER, data__action="revoked").count() == 1
