"""A person's own pages: signing in, the lock, passwords, tokens, invitations, their projects and their work."""

from __future__ import annotations

import re
from datetime import date, timedelta

import pytest
from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from annotation import services
from annotation.models import ApiToken, Comparison, Event, Membership, Project, Role
from annotation.own_work import OPEN_COUNTED, projects_of, streak
from annotation.sign_in import client_address
from tests.factories import make_annotator, make_comparison, make_judgment, make_project, make_user

pytestmark = pytest.mark.django_db
PASSWORD = "a-long-password"


@pytest.fixture
def project() -> Project:
    return make_project("helpful")


@pytest.fixture
def ann(project: Project) -> User:
    user = make_user("ann")
    services.add_member(project, user)
    return user


@pytest.fixture
def page(ann: User) -> Client:
    client = Client()
    client.force_login(ann)
    return client


def sign_in(password: str = PASSWORD, username: str = "ann", address: str = "203.0.113.7") -> tuple[int, str]:
    answer = Client(REMOTE_ADDR=address).post("/login/", {"username": username, "password": password})
    return answer.status_code, answer.content.decode()


def actions() -> list[str]:
    return [event.data["action"] for event in Event.objects.filter(kind="sign_in").order_by("pk")]


# ── The door ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_five_wrong_passwords_lock_an_account_from_that_address_only(ann: User) -> None:
    for _ in range(settings.AXES_FAILURE_LIMIT - 1):
        assert sign_in("wrong")[0] == 200
    status, text = sign_in("wrong")
    assert status == 429
    assert "locked from here for 15 more minutes" in text
    assert 'name="password"' not in text
    for _ in range(2):
        assert sign_in()[0] == 429  # the right one too, and trying does not prolong the lock
    assert sign_in(address="203.0.113.8")[0] == 302
    assert sign_in(username="nobody")[0] == 200
    assert actions() == ["locked_out", "signed_in"]
    assert not [event for event in Event.objects.all() if "wrong" in str(event.data)]


def test_the_lock_opens_by_time_and_tells_the_minutes_that_are_left(ann: User) -> None:
    for _ in range(settings.AXES_FAILURE_LIMIT):
        sign_in("wrong")
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=12, seconds=30))
    status, text = sign_in()
    assert (status, "for 3 more minutes" in text) == (429, True)
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=16))
    assert sign_in()[0] == 302


def test_a_success_forgets_the_failures_before_it(ann: User) -> None:
    for _ in range(2):
        for _ in range(settings.AXES_FAILURE_LIMIT - 1):
            sign_in("wrong")
        assert sign_in()[0] == 302


def test_the_address_is_the_one_that_the_proxy_saw(rf, settings) -> None:  # type: ignore[no-untyped-def]
    forged = rf.get("/", headers={"X-Forwarded-For": "198.51.100.1, 192.0.2.5"}, REMOTE_ADDR="10.0.0.1")
    settings.HTTPS = False
    assert client_address(forged) == "10.0.0.1"
    settings.HTTPS = True
    assert client_address(forged) == "192.0.2.5"
    assert client_address(rf.get("/", headers={"X-Forwarded-For": "junk"}, REMOTE_ADDR="")) is None


def test_a_session_gets_a_new_key_at_the_door_and_ends_with_the_account(ann: User) -> None:
    client = Client()
    client.get("/login/")
    client.session["kept"] = 1
    before = client.session.session_key
    client.post("/login/", {"username": "ann", "password": PASSWORD})
    assert client.session.session_key != before
    assert client.get("/").status_code == 200
    services.deactivate_user(ann)
    answer = client.get("/")
    assert (answer.status_code, answer["Location"]) == (302, "/login/?next=/")
    assert sign_in()[0] == 200  # and does not come in again


def test_djangos_admin_has_the_same_door(page: Client, ann: User) -> None:
    answer = Client().get("/django-admin/login/", {"next": "/django-admin/auth/user/"})
    assert answer["Location"] == "/login/?next=/django-admin/auth/user/"
    assert page.get("/django-admin/", follow=True).status_code == 403


def test_an_account_that_is_switched_off_in_the_admin_gives_back_what_it_holds(ann: User, project: Project) -> None:
    make_comparison(project)
    services.claim_assignments(annotator=services.annotator_for(ann), project=project)
    boss = Client()
    boss.force_login(make_user("boss", is_staff=True))
    address = f"/django-admin/auth/user/{ann.pk}/change/"
    form = {"username": "ann", "date_joined_0": "2026-01-01", "date_joined_1": "12:00:00"}
    assert boss.post(address, form | {"is_active": "on", "first_name": "Ann"}).status_code == 302
    assert ann.annotator.assignments.filter(status="leased").exists()
    assert boss.post(address, form).status_code == 302
    assert not ann.annotator.assignments.filter(status="leased").exists()
    deactivated = Event.objects.get(data__action="deactivated")
    assert (deactivated.user.username, deactivated.data["member"]) == ("boss", "ann")  # type: ignore[union-attr]


def test_signing_out_gives_back_what_was_held(page: Client, ann: User, project: Project) -> None:
    make_comparison(project)
    services.claim_assignments(annotator=services.annotator_for(ann), project=project)
    page.post("/logout/")
    assert not ann.annotator.assignments.filter(status="leased").exists()
    assert actions() == ["signed_out"]


def test_a_new_password_ends_every_other_session(page: Client, ann: User) -> None:
    other = Client()
    other.force_login(ann)
    form = {"old_password": PASSWORD, "new_password1": "another-long-one", "new_password2": "another-long-one"}
    short = page.post("/me/password/", form | {"new_password1": "short", "new_password2": "short"})
    assert "too short" in short.content.decode()
    assert page.post("/me/password/", form)["Location"] == "/me/"
    assert "signed out everywhere else" in page.get("/me/").content.decode()
    assert other.get("/").status_code == 302
    assert sign_in()[0] == 200
    assert sign_in("another-long-one")[0] == 302
    assert actions() == ["password_changed", "signed_in"]


# ── Tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_is_shown_once_works_and_is_withdrawn_by_its_owner_alone(page: Client) -> None:
    made = page.post("/me/tokens/", {"name": "import", "days": 30})
    secret = re.search(r'id="secret" value="([^"]+)"', made.content.decode())
    assert secret is not None
    assert "no-store" in made["Cache-Control"]
    again = page.get("/me/tokens/").content.decode()
    assert secret[1] not in again
    assert secret[1][:15] in again
    caller = Client(headers={"Authorization": f"Token {secret[1]}"})
    assert caller.get("/api/v1/projects/").status_code == 200
    assert page.post("/me/tokens/", {"name": "x", "days": 366}).status_code == 422
    address = f"/me/tokens/{ApiToken.objects.get().token_key}/withdraw/"
    stranger = Client()
    stranger.force_login(make_user())
    assert stranger.post(address).status_code == 404
    assert "import is withdrawn" in page.post(address, follow=True).content.decode()
    assert caller.get("/api/v1/projects/").status_code == 401


def test_an_expired_token_is_refused_and_said_to_be_expired(page: Client, ann: User) -> None:
    _token, secret = ApiToken.objects.create(ann, expiry=timedelta(seconds=-1), name="old")
    assert ">expired<" in page.get("/me/tokens/").content.decode()
    caller = Client(headers={"Authorization": f"Token {secret}"})
    assert caller.get("/api/v1/projects/").status_code == 401


# ── Invitations ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stranger_makes_an_account_by_an_invitation(project: Project) -> None:
    _invitation, secret = services.create_invitation(project, by=make_user("boss"), role=Role.REVIEWER)
    client = Client()
    text = client.get(f"/join/{secret}/").content.decode()
    assert "Join helpful" in text
    assert "boss invites you to work here as reviewer" in text
    assert f"/login/?next=/join/{secret}/" in text
    make_user("Ann")
    for form, sentence in (
        ({"username": "ann", "password": "a-long-password"}, "Somebody has this name already"),
        ({"username": "a b", "password": "a-long-password"}, "valid username"),
        ({"username": "fay", "password": "password123"}, "too common"),
        ({"username": "fay", "password": "short"}, "at least 10 characters"),
    ):
        answer = client.post(f"/join/{secret}/", form)
        assert (answer.status_code, sentence in answer.content.decode()) == (422, True), sentence
    answer = client.post(f"/join/{secret}/", {"username": "fay", "password": "a-long-password"}, follow=True)
    assert "You are in helpful now." in answer.content.decode()
    assert Membership.objects.get(user__username="fay").role == "reviewer"
    spent = Client().get(f"/join/{secret}/")
    assert (spent.status_code, "This invitation has been used" in spent.content.decode()) == (410, True)


def test_somebody_with_an_account_joins_by_one_press_after_signing_in(project: Project) -> None:
    make_user("fay")
    _invitation, secret = services.create_invitation(project, by=make_user("boss"))
    client = Client()
    back = client.post("/login/", {"username": "fay", "password": PASSWORD, "next": f"/join/{secret}/"})["Location"]
    assert "Join as fay" in client.get(back).content.decode()
    assert not Membership.objects.exists()  # looking is not joining
    assert client.post(back)["Location"] == "/"
    assert Membership.objects.get().user.username == "fay"


# ── Home, and one's own work ─────────────────────────────────────────────────────────────────────────────────────


def test_the_first_page_says_what_waits_in_each_project(page: Client, ann: User, project: Project) -> None:
    annotator = make_annotator(ann)
    for _ in range(4):
        make_comparison(project)
    services.claim_assignments(annotator=annotator, project=project)
    closed = make_project("closed")
    services.add_member(closed, ann, role=Role.ADMIN)
    make_comparison(closed)
    services.update_settings(closed, None, is_open=False)
    by_slug = {row.project.slug: row for row in projects_of(ann)}
    assert (by_slug["helpful"].held, by_slug["helpful"].waiting, by_slug["helpful"].more) == (2, 4, False)
    assert not by_slug["closed"].has_work
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.get("/").content.decode()))
    assert "4 comparisons open to you" in text
    assert "Nothing is handed out while it is closed" in text
    assert "People" in text  # of the project that they run


def test_a_long_queue_is_counted_to_a_bound(page: Client, ann: User, project: Project, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("annotation.own_work.OPEN_COUNTED", 3)
    assert OPEN_COUNTED > 100
    for _ in range(6):
        make_comparison(project)
    assert "3 or more comparisons open to you" in page.get("/").content.decode()
    compare = page.get("/projects/helpful/compare/").content.decode()
    assert re.search(r"<span data-left>5</span> or more left", compare) and "data-total" not in compare


def test_what_is_routed_to_others_is_not_open_to_a_person(ann: User, project: Project) -> None:
    Membership.objects.filter(project=project, user=ann).update(languages=["fr"], skills=["law"])
    routes = [("fr", ""), ("zh", ""), ("", "law"), ("fr", "medicine")]
    for lang, skill in routes:
        Comparison.objects.filter(pk=make_comparison(project).pk).update(lang=lang, skill=skill)
    [row] = projects_of(ann)
    assert (row.waiting, row.more) == (2, False)


@pytest.mark.parametrize(
    ("ago", "length"),
    [([], 0), ([0], 1), ([1], 1), ([2], 0), ([0, 1, 2], 3), ([1, 2, 4], 2), ([0, 2, 3], 1)],
)
def test_a_streak_is_of_days_in_a_row_and_today_may_still_come(ago: list[int], length: int) -> None:
    today = date(2026, 3, 1)
    assert streak(sorted(today - timedelta(days=days) for days in ago), today) == length


def test_ones_own_page_shows_work_and_agreement(page: Client, ann: User, project: Project) -> None:
    annotator, other = make_annotator(ann), make_annotator()
    for number in range(3):
        make_comparison(project)
        assignment = services.claim_assignments(annotator=annotator, project=project)[0]
        assignment.judgments.create(comparison=assignment.comparison, annotator=annotator, preference="a", strength=-1)
        done = timezone.now() - timedelta(days=number)
        type(assignment).objects.filter(pk=assignment.pk).update(status="submitted", submitted_at=done)
        make_judgment(assignment.comparison, "a" if number else "b", annotator=other)
    answer = page.get("/me/")
    work = answer.context["work"]
    assert (work.done, work.done_today, work.streak) == (3, 1, 3)
    assert [count for _day, count in work.days][-4:] == [0, 1, 1, 1]
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", answer.content.decode()))
    assert re.search(r"helpful guidelines 1 3 67 % \(\d+–\d+\) of 3", text)
