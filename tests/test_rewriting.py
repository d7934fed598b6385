"""Prompts without an acceptable response: who writes one, on which lease, and what is kept of it."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections, transaction
from django.test import Client
from django.utils import timezone

from annotation import services
from annotation.models import (
    Assignment,
    Comparison,
    Conversation,
    Event,
    Membership,
    Project,
    QualificationState,
    Response,
    RewriteCause,
    RewriteTask,
    Role,
)
from annotation.protocol import Protocol
from annotation.services.prompts import PromptEdit, start_edit
from annotation.services.quality import withdraw_comparison
from annotation.services.rating_conversations import take_conversation
from tests.factories import make_annotator, make_comparison, make_project, make_user
from tests.importing import import_lines

pytestmark = pytest.mark.django_db
PAGE = "/projects/wanting/rewrite/"
FIRST = "The *first* response."


@pytest.fixture
def project() -> Project:
    project = make_project("wanting", members=[make_user("ann"), make_user("ben")])
    for number in range(3):
        comparison = make_comparison(project, a_text=FIRST, b_text=f"The second response, {number}.")
        services.queue_rewrite(comparison.pk, cause=RewriteCause.NEITHER)
    return project


def sign_in(name: str) -> Client:
    client = Client()
    client.force_login(User.objects.get(username=name))
    return client


def task_in(page: str) -> int:
    found = re.search(r'data-task="(\d+)"', page)
    assert found
    return int(found[1])


def shown(client: Client, query: str = "") -> str:
    return client.get(PAGE + query).content.decode()


def post(client: Client, task: int, action: str = "save", **fields: Any) -> Any:
    return client.post(f"{PAGE}{task}/{action}", fields)


def start_of(page: str, text: str) -> str:
    """The number of the response that reads so: their order is drawn for each person."""
    sources = re.findall(r'data-source="(\d)">(.*?)</article>', page, re.S)
    return next(number for number, html in sources if text in html)


def test_a_prompt_is_queued_once_however_often_it_is_found_wanting(project: Project) -> None:
    comparison = project.comparisons.first()
    assert comparison
    services.queue_rewrite(comparison.pk, cause=RewriteCause.ALL_LOW)
    assert RewriteTask.objects.filter(comparison=comparison).get().cause == "neither"


def test_two_people_never_write_for_the_same_prompt(project: Project) -> None:
    ann, ben = sign_in("ann"), sign_in("ben")
    first, second = task_in(shown(ann)), task_in(shown(ben))
    assert first != second
    assert task_in(shown(ann)) == first  # it stays theirs over a reload


def test_the_page_shows_the_responses_blind_and_starts_from_one_without_scripts(project: Project) -> None:
    ann = sign_in("ann")
    page = shown(ann)
    assert "<em>first</em>" in page and "source-" not in page
    started = shown(ann, f"?from={start_of(page, '<em>first</em>')}")
    assert f"{FIRST}</textarea>" in started
    unknown = shown(ann, "?from=9")
    assert "Start from a response" in unknown and 'name="start" value="9"' not in unknown


def test_what_is_saved_is_a_response_by_people_with_its_distance_and_time(project: Project) -> None:
    ann = sign_in("ann")
    page = shown(ann)
    task = task_in(page)
    text = "The *best* response.\r\nWith two lines."
    response = post(ann, task, text=text, start=start_of(page, "<em>first</em>"), seconds="75")
    assert response["Location"] == f"{PAGE}?undo={task}"
    done = RewriteTask.objects.get(pk=task)
    assert done.written and done.original and done.written.source.kind == "person"
    assert (done.status, done.written.text) == ("done", "The *best* response.\nWith two lines.")
    assert (done.original.text, done.seconds_spent) == (FIRST, 75)
    # first → best: two letters replaced and one dropped; and the line that was added
    assert done.edit_distance == 3 + len("\nWith two lines.")
    assert Event.objects.filter(kind="edit", data__action="rewritten").count() == 1
    assert task_in(shown(ann)) != task


def test_ones_own_text_has_no_original(project: Project) -> None:
    ann = sign_in("ann")
    task = task_in(shown(ann))
    post(ann, task, text="All my own words.")
    done = RewriteTask.objects.get(pk=task)
    assert done.original is None and done.edit_distance == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("  \n", "There is no text yet"),
        (f"{FIRST} ", "one of the responses that nobody found good"),
        ("x" * 400_001, "shorten it and save again"),
        ("nul \0 byte", "cannot be stored"),
    ],
)
def test_a_text_that_cannot_be_taken_is_refused_and_stays_on_the_page(
    project: Project, text: str, sentence: str
) -> None:
    ann = sign_in("ann")
    task = task_in(shown(ann))
    response = post(ann, task, text=text)
    page = response.content.decode()
    assert response.status_code == 422 and sentence in page
    assert task_in(page) == task and text.strip()[:50] in page
    assert not Response.objects.filter(source__kind="person").exists()


def test_saving_twice_stores_one_response(project: Project) -> None:
    ann = sign_in("ann")
    task = task_in(shown(ann))
    for _press in range(2):
        assert post(ann, task, text="Once.").status_code == 302
    assert Response.objects.filter(text="Once.").count() == 1
    assert post(ann, task, text="Something else.").status_code == 409


def test_a_lease_that_ran_out_goes_to_somebody_else_and_comes_back_if_nobody_took_it(project: Project) -> None:
    RewriteTask.objects.exclude(pk=RewriteTask.objects.earliest("pk").pk).update(status="dropped")
    ann, ben = sign_in("ann"), sign_in("ben")
    task = task_in(shown(ann))
    assert "Nothing to rewrite for now" in shown(ben)
    assert ann.post(f"{PAGE}{task}/lease").json()["seconds"] > 0
    RewriteTask.objects.filter(pk=task).update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    assert task_in(shown(ben)) == task
    assert ann.post(f"{PAGE}{task}/lease").json() == {"seconds": 0}
    late = post(ann, task, text="Too late, but not lost.")
    assert late.status_code == 409 and "somebody else has it now" in late.content.decode()
    post(ben, task, "give-back")
    assert post(ann, task, text="Late, and nobody has it.").status_code == 302
    assert RewriteTask.objects.get(pk=task).status == "done"


def test_prompts_that_were_archived_and_pairs_that_were_withdrawn_wait_for_nobody(project: Project) -> None:
    first, second, third = Comparison.objects.order_by("pk")
    edit = PromptEdit(archive=True)
    start_edit(project, edit, ids=[first.prompt_id], user=User.objects.get(username="ann"))
    withdraw_comparison(second, reviewer=make_annotator())
    ann = sign_in("ann")
    assert "1 prompt needs a good response" in ann.get("/").content.decode()
    assert task_in(shown(ann)) == RewriteTask.objects.get(comparison=third).pk


@pytest.mark.django_db(transaction=True)
def test_what_goes_to_somebody_else_at_this_moment_is_not_taken_back(project: Project) -> None:
    ann, ben = (services.annotator_for(User.objects.get(username=name)) for name in ("ann", "ben"))
    held = services.claim_rewrite(annotator=ann, project=project)
    assert held
    RewriteTask.objects.filter(pk=held.pk).update(lease_expires_at=timezone.now() - timedelta(seconds=1))

    def reload() -> RewriteTask | None:
        try:
            return services.claim_rewrite(annotator=ann, project=project)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            assert services.claim_rewrite(annotator=ben, project=project) == held
            again = pool.submit(reload)
            wait_for_a_lock()
        assert again.result() != held
    held.refresh_from_db()
    assert held.annotator == ben


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("what", ["a prompt to rewrite", "a conversation to rate"])
def test_a_double_click_gives_one_person_one_piece_of_work(project: Project, tmp_path: Path, what: str) -> None:
    ann = services.annotator_for(User.objects.get(username="ann"))
    said = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    import_lines(tmp_path, [{"messages": said, "model": name} for name in ("one", "two")], project="wanting")

    def take() -> RewriteTask | Conversation | None:
        try:
            if what == "a conversation to rate":
                return take_conversation(project, ann)
            return services.claim_rewrite(annotator=ann, project=project)
        finally:
            if not connection.in_atomic_block:
                connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            first = take()
            second = pool.submit(take)
            wait_for_a_lock()
        assert first is not None and second.result() == first


def wait_for_a_lock() -> None:
    """Until another connection waits for a row that this one holds."""
    end = time.monotonic() + 60
    with connection.cursor() as cursor:
        while time.monotonic() < end:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
    raise AssertionError("nobody waits")


def test_giving_back_leads_to_the_next_and_leaves_it_to_others(project: Project) -> None:
    ann, ben = sign_in("ann"), sign_in("ben")
    task = task_in(shown(ann))
    after = post(ann, task, "give-back")["Location"]
    assert task_in(ann.get(after).content.decode()) != task
    assert task_in(shown(ben)) == task


def test_dropping_needs_a_reason_and_is_journalled(project: Project) -> None:
    ann = sign_in("ann")
    task = task_in(shown(ann))
    assert post(ann, task, "drop", reason="boring").status_code == 422
    assert post(ann, task, "drop", reason="unclear").status_code == 302
    assert RewriteTask.objects.get(pk=task).status == "dropped"
    assert Event.objects.get(data__action="rewrite_dropped").data["reason"] == "unclear"


def test_a_drop_and_a_saved_text_are_undone_at_once(project: Project) -> None:
    ann, ben = sign_in("ann"), sign_in("ben")
    task = task_in(shown(ann))
    page = ann.get(post(ann, task, "drop", reason="unclear")["Location"]).content.decode()
    assert f'action="{PAGE}{task}/reopen"' in page and task_in(page) != task
    assert task_in(post(ann, task, "reopen").content.decode()) == task
    assert RewriteTask.objects.filter(status="leased").count() == 1, "what was begun meanwhile is open again"
    post(ann, task, text="A text of mine.")
    assert f"{task}/reopen" not in shown(ben, f"?undo={task}"), "it is not theirs"
    assert post(ben, task, "reopen").status_code == 409
    page = post(ann, task, "reopen").content.decode()
    assert task_in(page) == task and "A text of mine.</textarea>" in page
    reopened = RewriteTask.objects.get(pk=task)
    assert (reopened.status, reopened.written, reopened.done_at) == ("leased", None, None)
    post(ann, task, text="A text of mine, but better.")
    assert RewriteTask.objects.get(pk=task).written.text.endswith("better.")  # type: ignore[union-attr]


def test_what_is_done_and_dropped_is_listed_and_a_reviewer_opens_it_again(project: Project) -> None:
    ann = sign_in("ann")
    services.add_member(project, make_user("rita"), role=Role.REVIEWER)
    rita, ben = sign_in("rita"), sign_in("ben")
    task = task_in(shown(ann))
    post(ann, task, "drop", reason="unclear")
    closed = f"{PAGE}closed/"
    assert f"{task}/reopen" in ann.get(closed).content.decode()
    assert "Nothing was rewritten or dropped yet." in ben.get(closed).content.decode()
    assert f"{task}/reopen" in rita.get(closed).content.decode()
    assert post(rita, task, "reopen")["Location"] == closed
    assert RewriteTask.objects.get(pk=task).status == "open"
    assert post(rita, task, "reopen").status_code == 409
    assert list(Event.objects.filter(kind="undo").values_list("data__was", flat=True)) == ["dropped"]


def test_tasks_are_routed_as_comparisons_are(project: Project) -> None:
    Comparison.objects.update(lang="zh", skill="law")
    ann = User.objects.get(username="ann")
    home = "prompts need a good response"
    assert home in sign_in("ann").get("/").content.decode()
    for place in (
        {"languages": ["en"]},
        {"skills": ["math"]},
        {"qualification": QualificationState.FAILED},
        {"qualification": QualificationState.RUNNING},
    ):
        Membership.objects.filter(user=ann).update(
            **{"languages": [], "skills": [], "qualification": QualificationState.NOT_NEEDED} | place
        )
        assert "Nothing to rewrite for now" in shown(sign_in("ann")), place
        assert home not in sign_in("ann").get("/").content.decode(), place
    Membership.objects.filter(user=ann).update(
        languages=["zh"], skills=["law"], qualification=QualificationState.PASSED
    )
    assert task_in(shown(sign_in("ann")))


def test_whoever_has_compared_everything_finds_the_way_to_what_they_found_wanting(project: Project) -> None:
    def end_of_queue() -> str:
        return sign_in("ann").get("/projects/wanting/compare/").content.decode().partition('id="queue-end"')[2]

    RewriteTask.objects.all().delete()
    assert PAGE not in end_of_queue()
    Project.objects.update(protocol=Protocol(rewrite_neither=True).to_json())
    assert PAGE in end_of_queue(), "the script that shows it asks for no new page"
    Comparison.objects.update(is_withdrawn=True)
    Assignment.objects.all().delete()
    assert PAGE not in end_of_queue(), "there is nothing to compare, nor to rewrite"


def test_every_step_is_in_the_journal(project: Project) -> None:
    ann, ben = sign_in("ann"), sign_in("ben")
    RewriteTask.objects.exclude(pk=RewriteTask.objects.earliest("pk").pk).update(status="dropped")
    task = task_in(shown(ann))
    shown(ann)  # a reload hands out nothing new
    post(ann, task, "give-back")
    task_in(shown(ann))
    RewriteTask.objects.filter(pk=task).update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    assert task_in(shown(ben)) == task
    said = Event.objects.filter(data__for="rewrite").order_by("pk").values_list("kind", "user__username")
    assert list(said) == [
        ("lease", "ann"),
        ("view", "ann"),
        ("skip", "ann"),
        ("lease", "ann"),
        ("view", "ann"),
        ("expire", "ann"),
        ("lease", "ben"),
        ("view", "ben"),
    ]


def test_strangers_see_nothing_of_it(project: Project) -> None:
    task = RewriteTask.objects.earliest("pk").pk
    make_user("eve")
    eve = sign_in("eve")
    assert eve.get(PAGE).status_code == 404
    assert post(eve, task, text="Mine.").status_code == 404
    assert RewriteTask.objects.get(pk=task).status == "open"


def test_a_closed_project_hands_out_nothing(project: Project) -> None:
    Project.objects.update(is_open=False)
    assert "This project is closed" in shown(sign_in("ann"))


def test_a_task_of_another_project_is_not_touched(project: Project) -> None:
    other = make_comparison(make_project())
    foreign = services.queue_rewrite(other.pk, cause=RewriteCause.NEITHER)
    ann = sign_in("ann")
    for action in ("save", "drop", "give-back"):
        post(ann, foreign.pk, action, text="Foreign.", reason="other")
    assert RewriteTask.objects.get(pk=foreign.pk).status == "open"
    assert not services.renew_rewrite(task_id=foreign.pk, project=project, annotator=make_annotator())
