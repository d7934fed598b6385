"""The pages of conversations and their live responses, against a real server that speaks the protocol."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from annotation.conversations import writing
from annotation.conversations.writing import wait_for_writers
from annotation.models import Annotator, Conversation, Event, Judgment, Rating, Response, SideStatus, Turn, TurnSide
from annotation.services.projects import edit_guidelines
from tests.chat_server import ChatServer, Exchange, answer_at_once, chat_server
from tests.factories import make_annotator, make_project, make_prompt, make_user
from tests.importing import import_lines
from tests.talks import last_turn, make_talk, make_talk_project, pick, write

pytestmark = pytest.mark.django_db
threaded = pytest.mark.django_db(transaction=True)
"""Writers have database connections of their own."""


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as server:
        yield server
        assert wait_for_writers(20), "a test leaves no thread behind"


@pytest.fixture
def talk(server: ChatServer) -> Conversation:
    project = make_talk_project("talks", url=server.url, person="ann")
    return make_talk(project, annotator=make_annotator(project.members.get()))


@pytest.fixture
def browser(talk: Conversation) -> Client:
    client = Client()
    client.force_login(talk.annotator.user)  # type: ignore[union-attr, arg-type]
    return client


def url(talk: Conversation, end: str = "") -> str:
    return f"/conversations/{talk.public_id}/{end}"


def fetch(browser: Client, path: str, data: dict[str, Any] | None = None) -> Any:
    headers = {"X-Requested-With": "fetch"}
    return browser.get(path, headers=headers) if data is None else browser.post(path, data, headers=headers)


def lines(answer: Any) -> Iterator[dict[str, str]]:
    for part in answer.streaming_content:
        yield from (json.loads(line) for line in part.decode().splitlines() if line)


def first_words(events: Iterator[dict[str, str]]) -> dict[str, str]:
    """Read until both sides have said something; gives what."""
    said: dict[str, str] = {"A": "", "B": ""}
    while not all(said.values()):
        event = next(events)
        said[event["side"]] = event["text"] if "text" in event else said[event["side"]] + event["more"]
    return said


def say_half_and_wait(server: ChatServer) -> threading.Event:
    """Both responses come half, and whole when the event is set."""
    go_on = threading.Event()

    def reply(exchange: Exchange) -> None:
        exchange.start()
        exchange.say("Half of the ")
        assert go_on.wait(20)
        exchange.say("answer.")
        exchange.complete()

    server.reply = reply
    return go_on


def feedback(position: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "position": position,
        "scenario": "error_correction",
        "deficiency_types": ["logical_error"],
        "feedback_types": ["pointing_out_errors"],
        "text": "Think again.",
        **more,
    }


# ── Live responses ───────────────────────────────────────────────────────────────────────────────────────────────


@threaded
def test_a_stream_shows_the_first_words_at_once_and_ends_with_rendered_panels(
    talk: Conversation, browser: Client, server: ChatServer
) -> None:
    go_on = say_half_and_wait(server)
    events = lines(fetch(browser, url(talk, "stream")))
    assert first_words(events) == {"A": "Half of the ", "B": "Half of the "}
    assert not Response.objects.exists(), "nothing is stored before it is complete"
    go_on.set()
    rest = list(events)
    panels = {event["side"]: event["html"] for event in rest if "html" in event}
    assert panels.keys() == {"A", "B"}
    assert ">Half of the answer.</p>" in panels["A"] and "4 words" in panels["A"]
    assert Response.objects.count() == 2
    assert {request["seed"] for request in server.requests} == {side.seed for side in TurnSide.objects.all()}
    assert server.requests[0]["messages"] == [{"role": "user", "content": "Why?"}]


@threaded
def test_a_response_is_stored_though_the_browser_leaves(
    talk: Conversation, browser: Client, server: ChatServer
) -> None:
    go_on = say_half_and_wait(server)
    answer = fetch(browser, url(talk, "stream"))
    first_words(lines(answer))
    answer.close()
    again = fetch(browser, url(talk, "stream"))  # a reload
    assert first_words(lines(again))["A"] == "Half of the ", "nothing was lost"
    again.close()
    go_on.set()
    assert wait_for_writers(20)
    assert [response.text for response in Response.objects.all()] == ["Half of the answer."] * 2
    assert len(server.requests) == 2, "the models were asked once"


@threaded
def test_what_another_process_writes_is_shown_and_taken_over_when_it_dies(
    talk: Conversation, browser: Client, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "PROBE_SECONDS", 0.05)
    parameters = connection.get_connection_params()
    parameters.pop("cursor_factory", None)
    parameters.pop("context", None)
    sides = list(last_turn(talk).sides.all())
    with psycopg.connect(**parameters, autocommit=True) as other:
        for side in sides:
            other.execute("SELECT pg_advisory_lock(%s, %s)", [writing._LOCK_SPACE, side.pk])
            other.execute("UPDATE annotation_turnside SET text = 'From elsewhere' WHERE id = %s", [side.pk])
        events = lines(fetch(browser, url(talk, "stream")))
        assert first_words(events) == {"A": "From elsewhere", "B": "From elsewhere"}
        assert not server.requests
    # Its connection is gone, and with it the locks.
    assert sum("html" in event for event in events) == 2
    assert Response.objects.filter(text__startswith="Answer").count() == 2


@threaded
def test_streams_are_capped_and_places_come_back(
    talk: Conversation, browser: Client, server: ChatServer, settings: Any
) -> None:
    settings.OPEN_STREAMS = 1
    go_on = say_half_and_wait(server)
    first = fetch(browser, url(talk, "stream"))
    refused = fetch(browser, url(talk, "stream"))
    assert (refused.status_code, refused["Retry-After"]) == (503, "3")
    assert "busy" in refused.content.decode()
    first.close()  # before the first line was read
    other = make_talk(talk.project, annotator=talk.annotator)
    assert fetch(browser, url(other, "stream")).status_code == 503, "two responses are being written still"
    again = fetch(browser, url(talk, "stream"))
    assert again.status_code == 200
    go_on.set()
    assert sum("html" in event for event in lines(again)) == 2
    assert wait_for_writers(20)
    assert sum("html" in event for event in lines(fetch(browser, url(other, "stream")))) == 2


@threaded
def test_a_broken_stream_says_so_and_the_same_seed_is_asked_again(
    talk: Conversation, browser: Client, server: ChatServer
) -> None:
    broken_seed = last_turn(talk).sides.get(position=1).seed

    def reply(exchange: Exchange) -> None:
        if exchange.body["seed"] != broken_seed:
            answer_at_once(exchange)
            return
        exchange.start()
        exchange.say("Half of ")
        exchange.drop()

    server.reply = reply
    events = [event for event in lines(fetch(browser, url(talk, "stream"))) if "html" in event]
    [broken] = [event["html"] for event in events if "broke off" in event["html"]]
    assert "Half of " in broken
    page = browser.get(url(talk)).content.decode()
    assert "Nothing that you did is lost" in page and "Half of" in page
    assert "secret-model" in TurnSide.objects.get(position=1).error or "127.0.0.1" in (
        TurnSide.objects.get(position=1).error
    ), "staff can see what it was"
    assert "secret-model" not in page and "127.0.0.1" not in page
    server.reply = answer_at_once
    answer = fetch(browser, url(talk, "retry"), {"position": 0})
    assert answer.status_code == 200 and "being written" in answer.content.decode()
    list(lines(fetch(browser, url(talk, "stream"))))
    assert server.requests[-1]["seed"] == broken_seed
    assert Response.objects.count() == 2


@threaded
def test_an_early_vote_on_what_turns_out_equal_is_no_judgment(
    talk: Conversation, browser: Client, server: ChatServer
) -> None:
    go_on = say_half_and_wait(server)
    events = lines(fetch(browser, url(talk, "stream")))
    next(events)
    early = fetch(browser, url(talk, "pick"), {"position": 0, "judgment_id": uuid4(), "choice": "-2"})
    assert "counts as given early" in early.content.decode()
    go_on.set()
    list(events)
    turn = last_turn(talk)
    # Both wrote the same here, so there was nothing to choose after all.
    assert (turn.kept_response.text, Judgment.objects.count()) == ("Half of the answer.", 0)


# ── Pages ────────────────────────────────────────────────────────────────────────────────────────────────────────


@threaded
def test_a_whole_conversation_without_scripts(browser: Client, talk: Conversation, server: ChatServer) -> None:
    talk.delete()
    start = "/projects/talks/converse/"
    make_prompt(talk.project, "A question of the project?")
    page = browser.get(start).content.decode()
    assert "A question of the project?" in page
    conversation_id = uuid4()
    sent = {"conversation_id": conversation_id, "text": "Why?", "lang": "en"}
    answer = browser.post(start, sent)
    assert answer.status_code == 302
    assert browser.post(start, sent)["Location"] == answer["Location"], "a double click"
    talk = Conversation.objects.get()
    page = browser.get(url(talk)).content.decode()
    assert '<noscript><meta http-equiv="refresh" content="3;url=?whole"></noscript>' in page
    browser.get(url(talk) + "?whole")
    assert wait_for_writers(20)
    page = browser.get(url(talk)).content.decode()
    assert "http-equiv" not in page and page.count("to “Why?”.") == 2
    refused = browser.post(url(talk, "feedback"), feedback(text="Do not lose this."))
    assert refused.status_code == 422
    assert "Choose between the responses first." in refused.content.decode()
    assert "Do not lose this." in refused.content.decode()
    browser.post(url(talk, "pick"), {"position": 0, "judgment_id": uuid4(), "choice": "-2"})
    assert Judgment.objects.get().strength in (-2, 2)
    assert "goes on" in browser.get(url(talk)).content.decode()
    answer = browser.post(url(talk, "feedback"), feedback())
    assert answer["Location"].endswith("?whole")
    assert browser.post(url(talk, "feedback"), feedback()).status_code == 302, "sent twice, stored once"
    browser.get(url(talk) + "?whole")
    assert wait_for_writers(20)
    page = browser.get(url(talk)).content.decode()
    assert "Think again." in page and "you said: A better" in page and "Did it take up your feedback?" in page
    stale = browser.post(url(talk, "pick"), {"position": 0, "judgment_id": uuid4(), "choice": "1"})
    assert stale.status_code == 409 and "another window" in stale.content.decode()
    browser.post(url(talk, "end"), {"position": 1, "uptake_a": "yes", "uptake_b": "partly"})
    assert sorted(Rating.objects.values_list("value", flat=True)) == [0.5, 1.0]
    assert "This conversation has ended" in browser.get(url(talk)).content.decode()
    browser.post(url(talk, "reopen"))
    assert "Under way" in browser.get(start).content.decode()
    for side in TurnSide.objects.select_related("source"):
        assert side.source.name not in page and side.source.served_model not in page


def test_only_its_own_person_sees_a_conversation(talk: Conversation, browser: Client) -> None:
    other = Client()
    assert other.get(url(talk)).status_code == 302
    assert fetch(other, url(talk, "stream")).status_code == 401
    stranger = make_user()
    other.force_login(stranger)
    assert other.get(url(talk)).status_code == 404
    assert other.get("/projects/talks/converse/").status_code == 404
    talk.project.memberships.all().delete()
    for answer in (fetch(browser, url(talk, "stream")), fetch(browser, url(talk, "pick"), {"position": 0})):
        assert answer.status_code == 403
        assert answer["Content-Type"].startswith("text/plain")
        assert "no longer in this project" in answer.content.decode()
    page = browser.post(url(talk, "feedback"), {"position": 0, "text": "Lost?"}, follow=True)
    assert "no longer in this project, so this was not saved" in page.content.decode()
    looked = browser.get(url(talk), follow=True).content.decode()
    assert "You are no longer in this project." in looked and "not saved" not in looked


@pytest.mark.parametrize(
    ("end", "data", "sentence"),
    [
        ("pick", {"position": 0, "judgment_id": "x", "choice": "1"}, "id of its own"),
        ("pick", {"position": 0, "judgment_id": str(uuid4())}, "Choose one"),
        ("pick", {"position": "x", "choice": "1"}, "out of date"),
        ("retry", {"position": ""}, "out of date"),
        ("feedback", feedback(scenario=""), "Say what your message is"),
        ("feedback", feedback(text=" "), "Write a message first"),
        ("feedback", feedback(feedback_types=["misinformation"]), "“misinformation” is no feedback of"),
    ],
)
def test_bad_forms_are_answered_with_a_sentence(
    talk: Conversation, browser: Client, end: str, data: dict[str, Any], sentence: str
) -> None:
    write(talk, "a", "b")
    if end == "feedback":
        pick(talk, "1")
    answer = fetch(browser, url(talk, end), data)
    assert answer.status_code == 422
    assert answer["Content-Type"].startswith("text/plain")
    assert sentence in answer.content.decode()
    assert sentence.replace("“", "“") in browser.post(url(talk, end), data).content.decode()


def test_an_admin_chooses_the_models(talk: Conversation, browser: Client) -> None:
    models = "/projects/talks/converse/models/"
    assert browser.get(models).status_code == 403
    admin = Client()
    admin.force_login(make_user(is_staff=True))
    page = admin.get(models).content.decode()
    assert page.count("checked") == 2 and "secret-model-0-of-talks" in page
    admin.post(models, {"sources": []})
    assert "Nobody to talk to yet" in browser.get("/projects/talks/converse/").content.decode()
    assert browser.post("/projects/talks/converse/", {"conversation_id": uuid4(), "text": "x"}).status_code == 422
    assert admin.post(models, {"sources": [987654]}).status_code == 422


def test_an_imported_conversation_is_rated_on_its_page(talk: Conversation, browser: Client, tmp_path: Path) -> None:
    said = [("user", "One?"), ("assistant", "It is *1*."), ("user", "No, two."), ("assistant", "Two.")]
    messages = [{"role": role, "content": content} for role, content in said]
    import_lines(tmp_path, [{"messages": messages, "model": "secret-author"}], project="talks")
    assert "1 waits to be rated" in browser.get("/projects/talks/converse/").content.decode()
    rate = browser.post("/projects/talks/converse/rate")["Location"]
    imported = Conversation.objects.get(source_a=None)
    assert browser.get(url(imported))["Location"] == rate
    page = browser.get(rate).content.decode()
    assert "<em>1</em>" in page and "secret-author" not in page
    scores = {"score_helpfulness": 1, "score_fluency": 4, "score_safety": 5}
    refused = browser.post(rate, {**feedback(), **scores, "score_safety": ""})
    assert refused.status_code == 422 and "Give a score for Safety" in refused.content.decode()
    answer = browser.post(rate, {**feedback(), **scores, "note": "Short."})
    assert answer["Location"].endswith("#turn-1")
    page = browser.get(rate).content.decode()
    assert "Helpfulness 1" in page and "logical error" in page and "1 to rate" in page
    browser.post(rate, {"position": 1, **scores, "finish": "1"})
    imported.refresh_from_db()
    assert imported.ended_at is not None
    assert Rating.objects.count() == 6
    assert Turn.objects.get(conversation=imported, position=0).feedback == "No, two."
    assert browser.post("/projects/talks/converse/rate")["Location"] == "/projects/talks/converse/"


def test_imported_conversations_are_found_in_a_project_without_live_ones(browser: Client, tmp_path: Path) -> None:
    ann, boss = User.objects.get(username="ann"), make_user("boss", is_staff=True)
    plain = make_project("plain", members=[ann, boss])
    assert browser.get("/projects/plain/converse/").status_code == 404, "nothing to converse about"
    messages = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "It is 1."}]
    import_lines(tmp_path, [{"messages": messages}], project="plain")
    home = browser.get("/").content.decode()
    assert "1 conversation to rate" in home and 'href="/projects/plain/converse/"' in home
    page = browser.get("/projects/plain/converse/").content.decode()
    assert "Rate the next one" in page and "Start with a message" not in page
    rate = browser.post("/projects/plain/converse/rate")["Location"]
    assert "It is 1." in browser.get(rate).content.decode()
    admin = Client()
    admin.force_login(boss)
    assert "1 imported conversation is still to be rated" in admin.get("/projects/plain/").content.decode()
    assert "holds one, until" in admin.get("/projects/plain/progress/").content.decode()

    scores = {"position": 0, "score_helpfulness": 1, "score_fluency": 4, "score_safety": 5}
    holder = Annotator.objects.get(user=ann)
    Conversation.objects.filter(project=plain).update(annotator=make_annotator())
    early = browser.get(rate, follow=True).content.decode()
    assert "Somebody else rates this conversation by now. You have saved no scores in it." in early
    Conversation.objects.filter(project=plain).update(annotator=None)
    assert "it is free, for you as for others" in browser.get(rate, follow=True).content.decode()
    stranger = Client()
    stranger.force_login(make_user())
    assert stranger.get(rate).status_code == 404, "who is not in the project learns nothing"
    Conversation.objects.filter(project=plain).update(annotator=holder)
    browser.post(rate, scores)
    Conversation.objects.filter(project=plain).update(annotator=make_annotator())
    lost = browser.post(rate, scores, follow=True).content.decode()
    assert "Somebody else rates this conversation by now. The scores that you gave are kept." in lost
    assert "What you sent just now was not saved" in lost
    opened = Event.objects.filter(project=plain, data__action="opened")
    assert opened.count() == 1


def test_what_is_said_carries_the_guidelines_that_were_shown(
    talk: Conversation, browser: Client, tmp_path: Path
) -> None:
    edit_guidelines(talk.project, "Be kind.", None)
    write(talk, "One.", "Two.")
    assert 'name="guideline_version" value="1"' in browser.get(url(talk)).content.decode()
    edit_guidelines(talk.project, "Be strict.", None)
    said = {"position": 0, "judgment_id": uuid4(), "choice": "-2", "guideline_version": 1}
    answer = fetch(browser, url(talk, "pick"), said)
    assert answer.headers["X-Guideline-Version"] == "2"
    assert Judgment.objects.get().guideline_version == 1
    page = browser.post(url(talk, "pick"), {**said, "judgment_id": uuid4(), "choice": "2"}, follow=True)
    assert "The guidelines changed. What you saved was given under the ones you had." in page.content.decode()

    messages = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "It is 1."}]
    import_lines(tmp_path, [{"messages": messages}], project="talks")
    rate = browser.post("/projects/talks/converse/rate")["Location"]
    assert 'name="guideline_version" value="2"' in browser.get(rate).content.decode()
    scores = {"position": 0, "score_helpfulness": 1, "score_fluency": 4, "score_safety": 5}
    assert browser.post(rate, {**scores, "guideline_version": 3}).status_code == 422
    page = browser.post(rate, {**scores, "guideline_version": 1}, follow=True)
    assert "The guidelines changed." in page.content.decode()
    assert set(Rating.objects.values_list("guideline_version", flat=True)) == {1}


def test_a_page_costs_the_same_queries_however_long_the_conversation(
    talk: Conversation, browser: Client, django_assert_max_num_queries: Any
) -> None:
    for _ in range(4):
        write(talk, f"a {uuid4()}", f"b {uuid4()}")
        pick(talk, "1")
        browser.post(url(talk, "feedback"), feedback(last_turn(talk).position))
    assert talk.turns.count() == 5
    assert SideStatus.OPEN in last_turn(talk).sides.values_list("status", flat=True)
    with django_assert_max_num_queries(16):
        browser.get(url(talk))
