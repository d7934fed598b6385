"""The people of a project: adding many, changing one, removing, unlocking, and links to join by."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.test import Client

from annotation import services
from annotation.models import Event, Invitation, Membership, Project, Role
from annotation.sign_in import locks
from tests.factories import make_comparison, make_project, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return make_project("p")


@pytest.fixture
def admin(project: Project) -> Client:
    """Somebody who runs this project and nothing else."""
    user = make_user("ada")
    services.add_member(project, user, role=Role.ADMIN)
    client = Client()
    client.force_login(user)
    return client


def plain(answer: object) -> str:
    text = re.sub(r"<[^>]*>", " ", answer.content.decode())  # type: ignore[attr-defined]
    return re.sub(r"\s+", " ", text)


def test_accounts_are_added_in_bulk_with_their_languages(admin: Client, project: Project) -> None:
    for name in ("ann", "ben"):
        make_user(name)
    form = {"usernames": "ann, ben\nada", "role": "annotator", "languages": "EN; zh", "skills": ""}
    answer = admin.post("/projects/p/people/", form, follow=True)
    assert "2 people added. 1 was a member already." in plain(answer)
    assert Membership.objects.get(user__username="ann").languages == ["en", "zh"]
    assert Membership.objects.get(user__username="ada").role == "admin"
    answer = admin.post("/projects/p/people/", form | {"usernames": "ann eve"})
    assert answer.status_code == 422
    assert "Nobody was added: there is no active account named eve" in plain(answer)
    assert 'value="EN; zh"' in answer.content.decode()  # what was typed is still there
    assert "Not here yet" not in answer.content.decode()  # the site's accounts are not theirs to list


def test_a_member_is_changed_and_removed_on_their_own_page(admin: Client, project: Project) -> None:
    user = make_user("ann")
    services.add_member(project, user)
    make_comparison(project)
    address = f"/projects/p/people/{user.pk}/"
    services.claim_assignments(annotator=services.annotator_for(user), project=project)
    assert "on their screen now 1" in plain(admin.get(address))
    admin.post(address, {"role": "reviewer", "languages": "en", "skills": "math, code"})
    row = Membership.objects.get(user=user)
    assert (row.role, row.languages, row.skills) == ("reviewer", ["en"], ["math", "code"])
    assert admin.post(address, {"role": "king"}).status_code == 422
    answer = admin.post(f"{address}remove/", follow=True)
    assert "ann is no longer in this project; what they judged stays. 1 comparison went back" in plain(answer)
    assert admin.get(address).status_code == 404
    actions = [event.data["action"] for event in Event.objects.filter(user__username="ada", kind="member")]
    assert sorted(actions) == ["changed", "removed"]


def test_who_gives_up_their_own_role_goes_home(admin: Client, project: Project) -> None:
    ada = User.objects.get(username="ada")
    answer = admin.post(f"/projects/p/people/{ada.pk}/", {"role": "annotator", "languages": "", "skills": ""})
    assert answer["Location"] == "/"
    assert admin.get("/projects/p/people/").status_code == 403


def test_qualification_is_overruled(admin: Client, project: Project) -> None:
    user = make_user()
    services.add_member(project, user)
    address = f"/projects/p/people/{user.pk}/"
    admin.post(f"{address}qualification/", {"state": "passed"})
    assert Membership.objects.get(user=user).qualification == "passed"
    admin.post(f"{address}qualification/", {"state": "blessed"})
    assert Membership.objects.get(user=user).qualification == "passed"


def test_an_admin_unlocks_whoever_locked_themselves_out(admin: Client, project: Project) -> None:
    user = make_user("ann")
    services.add_member(project, user)
    for _ in range(5):
        Client().post("/login/", {"username": "ann", "password": "wrong"})
    assert [lock.username for lock in locks(["ann", "ada"])] == ["ann"]
    assert "locked out" in plain(admin.get("/projects/p/people/"))
    assert "Locked out from 127.0.0.1" in plain(admin.get(f"/projects/p/people/{user.pk}/"))
    admin.post(f"/projects/p/people/{user.pk}/unlock/")
    assert locks(["ann"]) == []
    assert Client().post("/login/", {"username": "ann", "password": "a-long-password"}).status_code == 302


def test_an_invitation_is_shown_once_listed_and_withdrawn(admin: Client, project: Project) -> None:
    form = {"email": "fay@example.org", "days": 7, "role": "annotator", "languages": "", "skills": ""}
    made = admin.post("/projects/p/people/invite/", form)
    link = re.search(r'value="http://testserver(/join/[^"]+/)"', made.content.decode())
    assert link is not None
    assert "Touchstone mails nothing" in plain(made)
    listed = admin.get("/projects/p/people/")
    assert "fay@example.org" in plain(listed)
    assert link[1] not in listed.content.decode()
    assert Client().get(link[1]).status_code == 200
    invitation = Invitation.objects.get()
    answer = admin.post(f"/projects/p/people/invitations/{invitation.pk}/revoke/", follow=True)
    assert "its link leads nowhere now" in plain(answer)
    assert Client().get(link[1]).status_code == 410
    answer = admin.post("/projects/p/people/invite/", form | {"days": 0, "email": "nobody"})
    assert answer.status_code == 422
    assert set(answer.context["invite"].errors) == {"days", "email"}
    assert Invitation.objects.count() == 1
    other = make_project("q")
    services.add_member(other, User.objects.get(username="ada"), role=Role.ADMIN)
    assert admin.post(f"/projects/q/people/invitations/{invitation.pk}/revoke/").status_code == 404
