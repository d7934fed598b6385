"""The pages of an annotator over HTTP: sign-in, queue, votes with and without scripts, and blindness."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from annotation import services
from annotation.models import Assignment, Comparison, Judgment, Project, ResponseSource
from tests.factories import make_annotator, make_comparison, make_project, make_prompt, make_response, make_user

pytestmark = pytest.mark.django_db
FETCH = {"X-Requested-With": "fetch"}


def assignments_in(response: HttpResponse) -> list[str]:
    return re.findall(r'data-assignment="([^"]+)"', response.content.decode())


@pytest.fixture
def project() -> Project:
    project = make_project("helpful", members=[make_user("ann")])
    for _ in range(4):
        make_comparison(project)
    return project


@pytest.fixture
def ann(project: Project, client: Client) -> Client:
    client.force_login(User.objects.get(username="ann"))
    return client


def queue(client: Client) -> list[str]:
    return assignments_in(client.get("/projects/helpful/compare/"))


def vote(client: Client, assignment: str, choice: str = "-2", **more: object) -> HttpResponse:
    headers = more.pop("headers", {})
    data = {"judgment_id": str(uuid4()), "choice": choice, **more}
    return client.post(f"/assignments/{assignment}/judgment", data, headers=headers)


# ── Sign-in and home ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stranger_is_sent_to_sign_in_and_back(project: Project, client: Client) -> None:
    response = client.get("/projects/helpful/compare/")
    assert response.status_code == 302
    signed_in = client.post(response["Location"], {"username": "ann", "password": "a-long-password"})
    assert signed_in["Location"] == "/projects/helpful/compare/"
    assert client.get(signed_in["Location"]).status_code == 200


def test_a_wrong_password_is_answered_on_the_form(project: Project, client: Client) -> None:
    response = client.post("/login/", {"username": "ann", "password": "wrong"})
    assert "correct username and password" in response.content.decode()


def test_home_counts_what_is_open_to_this_person(ann: Client, project: Project) -> None:
    make_comparison(make_project("foreign"))
    first, _ = queue(ann)
    vote(ann, first)
    page = ann.get("/").content.decode()
    assert "3 comparisons open to you · 1 done by you" in page
    assert "foreign" not in page


def test_home_of_staff_leads_to_the_other_pages(client: Client) -> None:
    client.force_login(make_user(is_staff=True))
    page = client.get("/").content.decode()
    assert all(f'href="{path}"' in page for path in ("/projects/", "/data-sets/", "/training/", "/checkpoints/"))


def test_home_of_an_annotator_shows_no_staff_pages(ann: Client) -> None:
    assert "/training/" not in ann.get("/").content.decode()


def test_signing_out_gives_the_leases_back(ann: Client, project: Project) -> None:
    queue(ann)
    assert Assignment.objects.filter(status="leased").count() == 2
    assert ann.post("/logout/")["Location"] == "/login/"
    assert not Assignment.objects.filter(status="leased").exists()
    assert ann.get("/").status_code == 302


# ── The queue without scripts ────────────────────────────────────────────────────────────────────────────────────


def test_without_scripts_a_person_works_through_the_queue(ann: Client, project: Project) -> None:
    seen = []
    while held := queue(ann):
        seen.append(held[0])
        assert vote(ann, held[0], "neither")["Location"] == "/projects/helpful/compare/"
    assert len(set(seen)) == 4
    assert Judgment.objects.filter(preference="neither", strength=None).count() == 4
    page = ann.get("/projects/helpful/compare/").content.decode()
    assert "Nothing left to compare here for now" in page


def test_the_queue_holds_one_pair_on_the_screen_and_one_ahead(ann: Client) -> None:
    page = ann.get("/projects/helpful/compare/").content.decode()
    shown, ahead = page.split('<template id="waiting">')
    assert shown.count('class="comparison"') == ahead.count('class="comparison"') == 1


@pytest.mark.parametrize("is_a_left", [True, False])
def test_a_vote_is_stored_in_content_order(ann: Client, project: Project, is_a_left: bool) -> None:
    first, _ = queue(ann)
    Assignment.objects.filter(public_id=first).update(a_shown_on_left=is_a_left)
    vote(ann, first, "-3", note="clearer", decided_in_ms="4321")
    judgment = Judgment.objects.get()
    assert (judgment.preference, judgment.strength) == (("a", -3) if is_a_left else ("b", 3))
    assert (judgment.note, judgment.decided_in_ms) == ("clearer", 4321)


@pytest.mark.parametrize("is_a_left", [True, False])
def test_the_left_panel_shows_what_was_drawn_for_the_left(ann: Client, project: Project, is_a_left: bool) -> None:
    first, _ = queue(ann)
    Assignment.objects.filter(public_id=first).update(a_shown_on_left=is_a_left)
    page = ann.get("/projects/helpful/compare/").content.decode()
    comparison = Assignment.objects.get(public_id=first).comparison
    a, b = page.find(comparison.response_a.text), page.find(comparison.response_b.text)
    assert (a < b) == is_a_left
    assert min(a, b) > 0


def test_a_vote_without_a_choice_is_refused_and_the_note_kept(ann: Client) -> None:
    first, _ = queue(ann)
    response = vote(ann, first, "", note="my long thoughts")
    page = response.content.decode()
    assert response.status_code == 422
    assert "Choose one of the steps" in page and "my long thoughts" in page
    assert assignments_in(response)[0] == first
    assert not Judgment.objects.exists()


@pytest.mark.parametrize("choice", ["4", "-4", "left", "1.5", "0; DROP TABLE"])
def test_an_unknown_choice_is_refused(ann: Client, choice: str) -> None:
    first, _ = queue(ann)
    assert vote(ann, first, choice).status_code == 422
    assert not Judgment.objects.exists()


@pytest.mark.parametrize(
    "field",
    [{"judgment_id": "not-a-uuid"}, {"decided_in_ms": "-1"}, {"decided_in_ms": "9" * 20}, {"note": "x" * 10_001}],
)
def test_a_malformed_field_is_refused(ann: Client, field: dict[str, str]) -> None:
    first, _ = queue(ann)
    assert vote(ann, first, **field).status_code == 422
    assert not Judgment.objects.exists()


def test_skip_shows_the_next_pair_and_undo_brings_it_back(ann: Client, project: Project) -> None:
    first, second = queue(ann)
    assert ann.post(f"/assignments/{first}/skip").status_code == 302
    assert queue(ann)[0] == second
    back = ann.post(f"/assignments/{first}/undo")
    assert assignments_in(ann.get(back["Location"]))[0] == first
    vote(ann, first, "1")
    assert Assignment.objects.get(public_id=first).status == "submitted"


def test_undo_shows_the_earlier_choice_and_a_new_one_replaces_it(ann: Client) -> None:
    first, second = queue(ann)
    vote(ann, first, "2", note="hasty")
    page = ann.get("/projects/helpful/compare/").content.decode()
    assert f'formaction="/assignments/{first}/undo"' in page
    again = ann.get(ann.post(f"/assignments/{first}/undo")["Location"]).content.decode()
    assert re.search(r'value="2"[^>]* checked', again) and "hasty</textarea>" in again
    vote(ann, first, "-1")
    live = Judgment.objects.get(superseded_at=None)
    assert live.supersedes is not None and Judgment.objects.count() == 2
    assert queue(ann)[0] == second


def test_undo_goes_back_over_several_pairs(ann: Client) -> None:
    voted = []
    for choice in ("-1", "0", "1"):
        voted.append(queue(ann)[0])
        vote(ann, voted[-1], choice)
    response = ann.post(f"/assignments/{voted[2]}/undo", headers=FETCH)
    for earlier in (voted[1], voted[0]):
        assert f'data-previous="{earlier}"' in response.content.decode()
        response = ann.post(f"/assignments/{earlier}/undo", headers=FETCH)
    assert "data-previous" not in response.content.decode()


# ── With scripts ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_script_gets_only_the_pair_it_does_not_hold(ann: Client) -> None:
    first, second = queue(ann)
    response = vote(ann, first, headers=FETCH, held=second)
    assert response.status_code == 200
    (third,) = assignments_in(response)
    assert third not in (first, second)
    assert b"<html" not in response.content


def test_a_script_gets_204_when_there_is_nothing_more(ann: Client) -> None:
    while len(held := queue(ann)) == 2:
        vote(ann, held[0])
    assert vote(ann, held[0], headers=FETCH).status_code == 204
    assert ann.get("/projects/helpful/compare/", headers=FETCH).status_code == 204


def test_polling_brings_a_comparison_that_arrived_later(ann: Client, project: Project) -> None:
    while held := queue(ann):
        vote(ann, held[0])
    make_comparison(project)
    assert len(assignments_in(ann.get("/projects/helpful/compare/", headers=FETCH))) == 1


def test_the_same_vote_twice_is_stored_once(ann: Client) -> None:
    first, second = queue(ann)
    judgment_id = str(uuid4())
    for _ in range(2):
        response = vote(ann, first, "3", headers=FETCH, judgment_id=judgment_id, held=second)
        assert response.status_code == 200
    assert Judgment.objects.get().public_id == UUID(judgment_id)


def test_the_same_id_with_another_verdict_is_a_conflict(ann: Client) -> None:
    first, _ = queue(ann)
    judgment_id = str(uuid4())
    vote(ann, first, "3", judgment_id=judgment_id)
    response = vote(ann, first, "-3", headers=FETCH, judgment_id=judgment_id)
    assert response.status_code == 409
    assert response["Content-Type"].startswith("text/plain") and "stored already" in response.content.decode()
    assert vote(ann, first, "-3", judgment_id=judgment_id, note="kept").status_code == 409


def test_a_vote_after_the_lease_is_stored_late(ann: Client) -> None:
    first, _ = queue(ann)
    Assignment.objects.filter(public_id=first).update(lease_expires_at=timezone.now() - timedelta(minutes=1))
    services.expire_assignments()
    assert vote(ann, first, headers=FETCH).status_code in (200, 204)
    assert Judgment.objects.get().is_late


def test_a_signed_out_script_is_told_and_nothing_is_stored(project: Project, ann: Client) -> None:
    first, _ = queue(ann)
    ann.logout()
    response = vote(ann, first, headers=FETCH)
    assert response.status_code == 401 and "Sign in again" in response.content.decode()
    assert not Judgment.objects.exists()


def test_the_lease_is_renewed_while_something_is_held(ann: Client, settings) -> None:  # type: ignore[no-untyped-def]
    first, _ = queue(ann)
    soon = timezone.now() + timedelta(seconds=5)
    Assignment.objects.update(lease_expires_at=soon)
    assert ann.post("/projects/helpful/lease").json() == {"seconds": settings.ASSIGNMENT_LEASE_SECONDS}
    assert Assignment.objects.get(public_id=first).lease_expires_at > soon
    services.release_assignments(annotator=make_annotator(Assignment.objects.first().annotator.user))
    assert ann.post("/projects/helpful/lease").json() == {"seconds": 0}


# ── What is refused ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("action", ["judgment", "skip", "undo"])
@pytest.mark.parametrize("headers", [{}, FETCH])
def test_somebody_elses_assignment_is_not_found(
    ann: Client, project: Project, action: str, headers: dict[str, str]
) -> None:
    first, _ = queue(ann)
    other = Client()
    other.force_login(stranger := make_user())
    project.members.add(stranger)
    data = {"judgment_id": str(uuid4()), "choice": "1"}
    response = other.post(f"/assignments/{first}/{action}", data, headers=headers)
    assert response.status_code == 404
    assert Assignment.objects.get(public_id=first).status == "leased"
    assert not Judgment.objects.exists()


def test_a_project_of_others_is_not_found(ann: Client) -> None:
    make_comparison(make_project("foreign"))
    assert ann.get("/projects/foreign/compare/").status_code == 404
    assert ann.post("/projects/foreign/lease").status_code == 404
    assert ann.get("/projects/helpful/compare/?item=rubbish").status_code == 404


@pytest.mark.parametrize("action", ["judgment", "skip", "undo"])
def test_reading_never_writes(ann: Client, action: str) -> None:
    first, _ = queue(ann)
    assert ann.get(f"/assignments/{first}/{action}").status_code == 405
    assert ann.get("/projects/helpful/lease").status_code == 405


def test_a_forged_post_is_refused(project: Project) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.get(username="ann"))
    first, _ = queue(client)
    assert vote(client, first).status_code == 403
    assert not Judgment.objects.exists()


def test_a_member_who_was_removed_keeps_the_vote_but_gets_no_more(ann: Client, project: Project) -> None:
    first, _ = queue(ann)
    project.members.clear()
    assert vote(ann, first, headers=FETCH).status_code == 204
    assert Judgment.objects.count() == 1


def test_a_member_who_was_removed_is_told_so_without_scripts(ann: Client, project: Project) -> None:
    first, second = queue(ann)
    project.members.clear()
    assert vote(ann, first)["Location"] == "/"
    assert Judgment.objects.count() == 1
    assert "This is saved. You are no longer in" in ann.get("/").content.decode()
    assert vote(ann, second, choice="")["Location"] == "/"
    text = ann.get("/").content.decode()
    assert "Choose one of the steps" in text and "You are no longer in this project" in text
    assert Judgment.objects.count() == 1


# ── Blindness ────────────────────────────────────────────────────────────────────────────────────────────────────


def every_byte(response: HttpResponse) -> str:
    return "\n".join([str(response.headers), str(response.cookies), response.content.decode()])


def test_nothing_that_tells_the_author_reaches_the_browser_before_the_vote(client: Client) -> None:
    user = make_user("blind")
    project = make_project("helpful", members=[user])
    secrets = ["SECRETNAME-one", "SECRETNAME-two", "/models/SECRETPATH", "SECRETSAMPLING", "SECRETEXTERNAL"]
    sources = [
        ResponseSource.objects.create(pk=70_000_001 + i, name=secrets[i], kind="model", served_model=secrets[2])
        for i in range(2)
    ]
    for number in range(5):
        prompt = make_prompt(project)
        a, b = (make_response(prompt, source) for source in sources)
        for response in (a, b):
            response.sampling = {"note": "SECRETSAMPLING"}
            response.save()
        comparison = Comparison.objects.create(
            pk=80_000_001 + number,
            project=project,
            prompt=prompt,
            response_a=a,
            response_b=b,
            external_id=f"SECRETEXTERNAL-{number}",
            meta={"a": "SECRETNAME-one"},
        )
        secrets += [a.text_sha256, b.text_sha256, prompt.content_sha256, str(comparison.pk)]
    secrets += [str(source.pk) for source in sources]
    client.force_login(user)

    page = client.get("/projects/helpful/compare/")
    first, second = assignments_in(page)
    sent = [client.get("/"), page, client.get("/projects/helpful/compare/", headers=FETCH)]
    sent.append(vote(client, first, headers=FETCH, held=second))
    sent.append(client.post(f"/assignments/{second}/skip", {"held": assignments_in(sent[-1])}, headers=FETCH))
    sent.append(client.post(f"/assignments/{second}/undo", headers=FETCH))
    sent.append(client.get(f"/projects/helpful/compare/?item={second}"))
    sent.append(client.post("/projects/helpful/lease"))
    sent.append(vote(client, second, "nonsense"))
    sent.append(client.get(f"/projects/helpful/compare/?item={uuid4()}"))
    assert sum(len(assignments_in(response)) for response in sent) >= 8
    for response in sent:
        found = [secret for secret in secrets if secret.lower() in every_byte(response).lower()]
        assert not found, found


def test_sides_do_not_follow_the_content_order(client: Client) -> None:
    user = make_user()
    project = make_project("helpful", members=[user])
    for _ in range(40):
        make_comparison(project, a_text="The first text.", b_text="The second text.")
    client.force_login(user)
    firsts = 0
    while held := queue(client):
        page = client.get("/projects/helpful/compare/").content.decode()
        firsts += page.find("The first text.") < page.find("The second text.")
        vote(client, held[0])
    # 40 fair draws leave 5 … 35 less than once in a million runs.
    assert 5 <= firsts <= 35


def test_pages_are_not_kept_by_caches(ann: Client) -> None:
    assert "no-store" in ann.get("/projects/helpful/compare/")["Cache-Control"]


# ── Cost ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("waiting", [3, 30])
def test_a_page_takes_a_fixed_number_of_queries(
    ann: Client,
    project: Project,
    waiting: int,
    django_assert_num_queries: Callable,
    django_assert_max_num_queries: Callable,
) -> None:
    for _ in range(waiting):
        make_comparison(project)
    ann.get("/")  # makes the annotator
    with django_assert_num_queries(10):
        ann.get("/")
    first, second = queue(ann)
    with django_assert_max_num_queries(14):
        page = ann.get("/projects/helpful/compare/").content.decode()
    assert f"<span data-done-today>0</span> / <span data-total>{waiting + 4}</span>" in page
    with django_assert_max_num_queries(8):  # seven, and one more where this process has not met the session yet
        vote(ann, first, headers=FETCH, held=second)


def test_the_policy_lets_only_our_own_scripts_run(ann: Client) -> None:
    response = ann.get("/projects/helpful/compare/")
    policy = response["Content-Security-Policy"]
    nonce = re.search(r"'nonce-([^']+)'", policy)
    assert nonce and "unsafe-eval" not in policy
    page = response.content.decode()
    for tag in re.findall(r"<script[^>]*>", page):
        is_data = 'type="application/json"' in tag
        assert is_data or f'nonce="{nonce[1]}"' in tag or 'src="/static/' in tag
    assert not re.search(r"\son\w+=", page)
