"""Whose request it is: what is read of sessions and accounts, and that nothing remembered outlives its row."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client, RequestFactory

from annotation import accounts, services
from annotation.accounts import AuthenticationMiddleware, SessionStore
from tests.factories import make_comparison, make_project, make_user

pytestmark = pytest.mark.django_db


def who(client: Client) -> User | None:
    """The user whom a request with this client's cookie belongs to."""
    request: Any = RequestFactory().get("/")
    request.session = SessionStore(client.cookies["sessionid"].value)
    AuthenticationMiddleware(lambda request: None).process_request(request)  # type: ignore[arg-type]
    return User.objects.get(pk=request.user.pk) if request.user.is_authenticated else None


@pytest.fixture
def ann() -> User:
    return make_user("ann")


@pytest.fixture
def client(ann: User) -> Client:
    client = Client()
    client.force_login(ann)
    assert who(client) == ann  # so that the process remembers the session
    return client


def test_a_session_and_its_account_are_read_by_one_statement(
    client: Client, ann: User, django_assert_num_queries: Any
) -> None:
    annotator = services.annotator_for(ann)
    request: Any = RequestFactory().get("/")
    request.session = SessionStore(client.cookies["sessionid"].value)
    AuthenticationMiddleware(lambda request: None).process_request(request)  # type: ignore[arg-type]
    with django_assert_num_queries(1):
        assert request.user == ann
        assert services.annotator_for(request.user) == annotator


def test_a_deleted_session_is_over_at_once(client: Client) -> None:
    Session.objects.all().delete()
    assert who(client) is None


def test_a_switched_off_account_is_out_at_once(client: Client, ann: User) -> None:
    User.objects.filter(pk=ann.pk).update(is_active=False)
    assert who(client) is None


def test_a_changed_password_ends_the_session(client: Client, ann: User) -> None:
    ann.set_password("another-long-password")
    ann.save()
    assert who(client) is None
    assert not Session.objects.exists()


def test_what_a_session_holds_is_read_anew_when_it_changes(client: Client) -> None:
    key = client.cookies["sessionid"].value
    for number in (1, 2):
        session = SessionStore(key)
        session["kept"] = {"number": number}
        session.save()
        read = SessionStore(key)
        assert read["kept"] == {"number": number}
        read["kept"]["number"] = 99  # never saved
        assert SessionStore(key)["kept"] == {"number": number}


def test_somebody_else_at_the_same_browser_is_somebody_else(client: Client) -> None:
    bob = make_user("bob")
    client.force_login(bob)
    assert who(client) == bob


def test_only_so_many_sessions_are_remembered(ann: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "REMEMBERED_SESSIONS", 2)
    monkeypatch.setattr(accounts, "_remembered", {})
    for _ in range(5):
        browser = Client()
        browser.force_login(ann)
        assert who(browser) == ann
        assert len(accounts._remembered) <= 2


def test_an_account_that_has_worked_here_is_switched_off_and_not_deleted(ann: User) -> None:
    boss, idle = make_user("boss", is_staff=True), make_user("typo")
    services.add_member(make_project(), ann)
    admin = Client()
    admin.force_login(boss)
    address = f"/django-admin/auth/user/{ann.pk}/"
    for refused in (admin.get(f"{address}delete/", follow=True), admin.post(f"{address}delete/", {"post": "yes"})):
        assert refused.status_code in (200, 302)
    assert "Switch it off instead" in admin.get(f"{address}delete/", follow=True).content.decode()
    assert User.objects.filter(pk=ann.pk).exists()
    assert "delete_selected" not in admin.get("/django-admin/auth/user/").content.decode()
    admin.post(f"/django-admin/auth/user/{idle.pk}/delete/", {"post": "yes"})
    assert not User.objects.filter(pk=idle.pk).exists()


def test_a_demoted_reviewer_is_told_what_the_page_needs(ann: User) -> None:
    comparison = make_comparison()
    services.add_member(comparison.project, ann, role="reviewer")
    client = Client()
    client.force_login(ann)
    address = f"/projects/{comparison.project.slug}/adjudicate/{comparison.pk}/"
    assert client.get(address).status_code == 200
    services.change_member(comparison.project, ann, role="annotator")
    answer = client.post(address, {"choice": "1"})
    assert answer.status_code == 403
    assert "needs the role of reviewer in this project; yours is annotator" in answer.content.decode()
    assert not comparison.adjudications.exists()
