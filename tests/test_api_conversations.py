"""Conversations and rewriting by program, over the client that ships with the site."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client

from annotation import services
from annotation.client import RefusedError, Touchstone
from annotation.conversations.writing import wait_for_writers
from annotation.models import (
    ApiToken,
    Edit,
    Judgment,
    Membership,
    Project,
    Rating,
    ResponseSource,
    RewriteCause,
    RewriteTask,
    Role,
    Turn,
)
from tests.chat_server import ChatServer, Exchange, answer_at_once, chat_server
from tests.factories import make_comparison, make_project, make_prompt, make_user
from tests.talks import make_talk_project

FEEDBACK: dict[str, Any] = {
    "scenario": "error_correction",
    "deficiency_types": ["logical_error"],
    "feedback_types": ["pointing_out_errors"],
}


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as server:
        yield server
        assert wait_for_writers(20), "a test leaves no thread behind"


def token_of(username: str) -> str:
    return ApiToken.objects.create(make_user(username), expiry=timedelta(days=1))[1]


def joined(project: Project, username: str, role: Role = Role.ANNOTATOR) -> str:
    """A token of a new member."""
    token = token_of(username)
    Membership.objects.create(project=project, user=ApiToken.objects.get(user__username=username).user, role=role)
    return token


@pytest.mark.django_db(transaction=True)
def test_a_program_talks_to_the_models_as_blind_as_a_person(live_server, server: ChatServer) -> None:
    project = make_talk_project("talks", url=server.url)
    prompt = make_prompt(project, "Why is the sky blue?")
    with Touchstone(live_server.url, token=joined(project, "ann")) as site:
        talk = site.project("talks").start_conversation(prompt=prompt.pk, task="Reasoning", lang="en")
        assert talk.last["state"] == "writing" and talk.last["message"] == "Why is the sky blue?"
        talk.ask()
        assert talk.last["state"] == "choosing"
        left, right = talk.last["sides"]
        assert left["text"] != right["text"] and "sky blue" in left["text"]
        with pytest.raises(RefusedError, match="Choose between the responses first"):
            talk.feedback("Think again.", **FEEDBACK)
        with pytest.raises(RefusedError, match="Choose one of the answers"):
            talk.choose("9")
        talk.choose("-2", note="Shorter.")
        assert (talk.last["choice"], talk.last["kept_side"], talk.last["kept_text"]) == ("-2", "A", left["text"])
        talk.choose("0")
        assert talk.last["kept_at_random"]
        talk.choose("2")
        with pytest.raises(RefusedError, match="choose one or more") as refused:
            talk.feedback("Think again.", scenario="error_correction", deficiency_types=["logical_error"])
        assert refused.value.status == 422
        talk.feedback("Think again.", own_text="Scattering.", edit_seconds=9, **FEEDBACK)
        assert [turn["position"] for turn in talk.state["turns"]] == [0, 1]
        first = talk.state["turns"][0]
        assert (first["kept_text"], first["kept_side"], first["scenario"]) == ("Scattering.", "", "error_correction")

        talk.ask().choose("neither")
        assert talk.last["state"] == "own"
        with pytest.raises(RefusedError, match="write the response that should go on"):
            talk.feedback("And at night?")
        talk.feedback("And at night?", own_text="Because of Rayleigh.", uptake={"A": "yes", "B": "no"})
        talk.ask()
        again = site.conversation(talk.id)
        assert again.state == talk.state and not again.state["has_ended"]
        assert again.end(A="partly").state["has_ended"]
        with pytest.raises(RefusedError, match="has ended"):
            again.choose("1")
        assert not again.reopen().state["has_ended"]
        assert [line["conversation"] for line in site.project("talks").conversations()] == [talk.id]
        assert not any(name in str(again.state) for name in ResponseSource.objects.values_list("name", flat=True))

    assert [list(turn.prompt.messages[-2:]) for turn in Turn.objects.filter(position=2)] == [
        [
            {"role": "assistant", "content": "Because of Rayleigh."},
            {"role": "user", "content": "And at night?"},
        ]
    ]
    judgment = Judgment.objects.get(superseded_at=None, preference__in=["a", "b"])
    assert abs(judgment.strength or 0) == 2 and Edit.objects.get().judgment == judgment
    assert RewriteTask.objects.get().written.text == "Because of Rayleigh."  # type: ignore[union-attr]
    assert set(Rating.objects.values_list("value", flat=True)) == {0.0, 0.5, 1.0}

    with Touchstone(live_server.url, token=joined(project, "ben", Role.ADMIN)) as other:
        with pytest.raises(RefusedError) as stranger:
            other.conversation(talk.id)  # an admin's, too, is the own one only
        assert stranger.value.status == 404
    Membership.objects.filter(user__username="ann").delete()
    with Touchstone(live_server.url, token=token_of("cy")) as nobody, pytest.raises(RefusedError) as refused:
        nobody.project("talks").start_conversation("Hello?")
    assert refused.value.status == 404


@pytest.mark.django_db(transaction=True)
def test_what_breaks_off_is_asked_again_or_gone_on_without(live_server, server: ChatServer) -> None:
    project = make_talk_project("talks", url=server.url)
    first = threading.Semaphore(1)

    def reply(exchange: Exchange) -> None:
        if first.acquire(blocking=False):
            exchange.refuse(500)
        else:
            answer_at_once(exchange)

    server.reply = reply
    with Touchstone(live_server.url, token=joined(project, "ann")) as site:
        talk = site.project("talks").start_conversation("Why?").ask()
        # The other response may still be on its way when the page has heard of the broken one.
        assert wait_for_writers(20)
        assert talk.refresh().last["state"] == "broken"
        (broken,) = [side for side in talk.last["sides"] if side["status"] == "broken"]
        assert broken["trouble"] and "secret-model" not in broken["trouble"]
        with pytest.raises(RefusedError, match="broke off"):
            talk.choose("1")
        assert talk.keep().last["state"] == "kept"
        talk.feedback("Go on.")
        first.release()
        talk.ask()
        assert wait_for_writers(20)
        assert talk.refresh().last["state"] == "broken"
        assert talk.ask().last["state"] == "choosing"


@pytest.mark.django_db(transaction=True)
def test_an_admins_program_brings_the_responses_itself(live_server) -> None:
    project = make_talk_project("talks", models=0)
    with Touchstone(live_server.url, token=joined(project, "ada", Role.ADMIN)) as site:
        there = site.project("talks")
        with pytest.raises(RefusedError, match="No model is chosen"):
            there.start_conversation("Why?")
        with pytest.raises(RefusedError, match="2 responses"):
            there.start_conversation("Why?", sources=["ours"])
        with pytest.raises(RefusedError, match="history of its own"):
            there.start_conversation(prompt=_long_prompt(project), sources=["ours", "theirs"])
        talk = there.start_conversation("Why?", sources=["ours", "theirs"])
        with pytest.raises(RefusedError, match="no model is asked"):
            talk.ask()
        with pytest.raises(RefusedError, match="mine writes none"):
            talk.post_responses(("ours", "So."), ("mine", "Thus."))
        assert talk.refresh().last["sides"][0]["status"] == "open"  # all or none
        talk.post_responses(("ours", "So."))
        talk.choose("-1")  # before the other one is there
        assert talk.last["is_choice_waiting"]
        talk.post_responses(("theirs", "Thus."), ("ours", "So."))
        assert (talk.last["state"], talk.last["choice"]) == ("kept", "-1")
        with pytest.raises(RefusedError, match="Another response of ours") as refused:
            talk.post_responses(("ours", "No."))
        assert refused.value.status == 409
        assert talk.feedback("More?").last["position"] == 1
    assert Judgment.objects.get().is_partial
    sources = ResponseSource.objects.filter(responses__prompt__project=project)
    assert set(sources.values_list("name", "kind")) == {("ours", "imported"), ("theirs", "imported")}

    member = Client(headers={"Authorization": f"Token {joined(project, 'ann')}"})
    body = {"conversation": str(uuid4()), "text": "Why?", "sources": ["ours", "theirs"]}
    answer = member.post("/api/v1/projects/talks/conversations/", body, "application/json")
    assert answer.status_code == 403


def _long_prompt(project: Project) -> int:
    turns = [("user", "One?"), ("assistant", "Two."), ("user", "Three?")]
    return services.add_prompt(project, [{"role": role, "content": text} for role, text in turns]).pk


@pytest.mark.django_db(transaction=True)
def test_a_program_writes_where_no_response_would_do(live_server) -> None:
    project = make_project("wanting")
    for number in range(3):
        comparison = make_comparison(project, a_text="The first one.", b_text=f"The second one, {number}.")
        services.queue_rewrite(comparison.pk, cause=RewriteCause.NEITHER)
    with (
        Touchstone(live_server.url, token=joined(project, "ann")) as site,
        Touchstone(live_server.url, token=joined(project, "ben")) as other,
    ):
        mine, theirs = site.project("wanting"), other.project("wanting")
        task = mine.claim_rewrite()
        assert task is not None and mine.claim_rewrite().task == task.task  # type: ignore[union-attr]
        taken = theirs.claim_rewrite()
        assert taken is not None and taken.task != task.task
        start = task.responses.index("The first one.")
        for text, more, sentence in [
            ("  ", {}, "no text yet"),
            ("The first one.", {}, "nobody found good"),
            ("Better.", {"start": 2}, "no response 2"),
        ]:
            with pytest.raises(RefusedError, match=sentence):
                mine.save_rewrite(task, text, **more)
        with pytest.raises(RefusedError, match="somebody else has it") as refused:
            mine.save_rewrite(taken, "Mine now.")
        assert refused.value.status == 409
        for _again in range(2):
            mine.save_rewrite(task, "The first one, better.", start=start, seconds=12)
        done = RewriteTask.objects.get(pk=task.task)
        assert done.written is not None and done.original is not None
        assert (done.written.text, done.original.text, done.seconds_spent) == (
            "The first one, better.",
            "The first one.",
            12,
        )
        theirs.skip_rewrite(taken)
        behind = theirs.claim_rewrite(after=taken.task)
        assert behind is not None and behind.task != taken.task
        theirs.drop_rewrite(behind, "unclear")
        left = mine.claim_rewrite()
        assert left is not None and left.task == taken.task
        mine.drop_rewrite(left, "harmful")
        assert mine.claim_rewrite() is None

        # Each sees and takes up what they closed themselves; a reviewer also what others did.
        assert [row["text"] for row in mine.closed_rewrites()] == (
            [None, "The first one, better."] if left.task > task.task else ["The first one, better.", None]
        )
        assert [(row["task"], row["status"]) for row in theirs.closed_rewrites()] == [(behind.task, "dropped")]
        with pytest.raises(RefusedError, match="nothing to undo"):
            theirs.reopen_rewrite(task.task)
        assert mine.reopen_rewrite(task.task) == {"is_yours": True, "text": "The first one, better."}
        assert mine.claim_rewrite().task == task.task  # type: ignore[union-attr]
        mine.save_rewrite(task, "Better still.", start=start)
        Membership.objects.filter(project__slug="wanting", user__username="ben").update(role=Role.REVIEWER)
        assert len(list(theirs.closed_rewrites())) == 3
        assert theirs.reopen_rewrite(left.task)["is_yours"] is False
        mine.drop_rewrite(left, "harmful")
    assert sorted(RewriteTask.objects.values_list("status", flat=True)) == ["done", "dropped", "dropped"]
