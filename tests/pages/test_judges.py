"""The pages of judges: what they are asked, runs, verdicts, cards, and their votes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from django.test import Client
from django.urls import reverse

from annotation.models import Annotator, Judgment
from rlhf.models import JudgePrompt, JudgeRun
from rlhf.services.judging import store_verdict
from tests.chat_server import ChatServer, chat_server
from tests.factories import make_project, make_user
from tests.judging import asked, finish, make_judge, make_run, make_votes, prefer_kind, say

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]


@pytest.fixture
def staff(client: Client) -> Client:
    client.force_login(make_user("boss", is_staff=True))
    return client


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as server:
        server.reply = prefer_kind
        yield server


def shown(staff: Client, name: str, *args: int, **query: str) -> str:
    answer = staff.get(reverse(name, args=args), query)
    assert answer.status_code == 200
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.content.decode()))


def test_a_prompt_is_edited_and_its_versions_stay(staff: Client) -> None:
    assert "any other task" in shown(staff, "judge_prompts")
    address = reverse("judge_prompt") + "?kind=pair&task=Coding&language=en"
    page = staff.get(address).content.decode()
    assert "This task has no words of its own yet" in page
    text = "Look at the code. {conversation} {response_a} {response_b} {form}"
    answer = staff.post(address, {"text": text.replace("{form}", "Say who wins."), "based_on": 0})
    assert (answer.status_code, "The text lacks {form}" in answer.content.decode()) == (422, True)
    assert "Say who wins." in answer.content.decode()  # nothing typed is lost
    assert staff.post(address, {"text": text, "based_on": 0, "asks_sameness": "on"}).status_code == 302
    assert staff.post(address, {"text": f"Now! {text}", "based_on": 1}).status_code == 302
    answer = staff.post(address, {"text": "Late. " + text, "based_on": 1})
    assert "Somebody saved version 2 meanwhile" in answer.content.decode()
    kept = JudgePrompt.objects.filter(task="Coding").values_list("version", "asks_sameness", "created_by__username")
    assert list(kept) == [(1, True, "boss"), (2, False, "boss")]
    older = staff.get(address + "&version=1").content.decode()
    assert "This is version 1." in older and "same reasoning" in older
    assert staff.get(reverse("judge_prompt") + "?kind=none").status_code == 404


def test_a_run_from_its_form_to_its_card(staff: Client, server: ChatServer) -> None:
    project = make_project("helpful")
    make_votes(project)
    judge = make_judge(server)
    assert "No judge has been asked yet" in shown(staff, "judge_home")
    posted = {"project": project.pk, "judge": judge.pk, "kind": "pair", "scope": "voted", "language": "en",
              "limit": "3", "max_tokens": 100, "attempts": 2, "parallel": 2}  # fmt: skip
    answer = staff.post(reverse("judge_run_new"), posted | {"scope": "unvoted"})
    assert (answer.status_code, "has no such comparisons" in answer.content.decode()) == (422, True)
    answer = staff.post(reverse("judge_run_new"), posted)
    run = JudgeRun.objects.get()
    assert answer["Location"] == reverse("judge_run", args=[run.pk])
    assert "0 of 6" in shown(staff, "judge_run", run.pk)

    server.reply = lambda exchange: (
        say(exchange, "I like them both.") if "Question 0?" in asked(exchange) else prefer_kind(exchange)
    )
    finish(run)
    text = shown(staff, "judge_run", run.pk)
    assert "It may not stand in for people:" in text and "prose instead of JSON" in text
    assert "I like them both." in shown(staff, "judge_run", run.pk, outcome="prose")
    assert "Because it is kind." in shown(staff, "judge_run", run.pk, outcome="usable")
    assert "Because it is kind." not in shown(staff, "judge_run", run.pk, outcome="prose")
    lines = staff.get(reverse("judge_run_export", args=[run.pk])).getvalue().decode().splitlines()
    assert [json.loads(line)["outcome"] for line in lines].count("prose") == 2
    text = shown(staff, "judge_run_card", run.pk)
    assert "too few comparisons have both its verdict and a person’s" in text
    assert "two people agree in 100.0 %" in text
    assert "no comparison has both" in shown(staff, "judge_run_card", run.pk, people="nobody")
    assert "not yet" in shown(staff, "judge_home")

    refused = staff.post(reverse("judge_run_act", args=[run.pk]), {"action": "votes"}, follow=True).content.decode()
    assert "Judge may not stand in for people: too few comparisons" in refused
    assert not Judgment.objects.filter(annotator__is_human=False).exists()
    staff.post(reverse("judge_run_act", args=[run.pk]), {"action": "retry"})
    server.reply = prefer_kind
    assert finish(run).report["failed"] == 0


def test_a_judge_that_may_votes_under_its_own_name(staff: Client, server: ChatServer) -> None:
    project = make_project()
    make_votes(project, 120)
    run = make_run(server, project)
    for verdict in run.verdicts.select_related("comparison__response_a"):  # so many questions would take seconds
        assert verdict.comparison
        is_a = "kind" in verdict.comparison.response_a.text
        assert store_verdict(verdict, outcome="usable", preference="a" if is_a else "b", reason="It is kind.")
    finish(run)
    assert run.report["card"]["may_stand_in"]
    answer = staff.post(reverse("judge_run_act", args=[run.pk]), {"action": "votes"}, follow=True)
    assert "120 votes are kept under the name judge (pair" in answer.content.decode()
    model = Annotator.objects.get(is_human=False)
    assert model.name in shown(staff, "judge_home")
    assert "It may stand in for people." in shown(staff, "judge_model_card", model.pk)
