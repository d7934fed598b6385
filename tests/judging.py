"""A judge that takes the side which says “kind”, and people to hold it against."""

from __future__ import annotations

import json
import re
from typing import Any

from annotation.models import Comparison, Project, ResponseSource
from rlhf.judges.work import run_judge
from rlhf.models import JudgeRun
from rlhf.services.judging import queue_judge_run
from tests.chat_server import ChatServer, Exchange
from tests.factories import make_annotator, make_judgment, make_project, make_prompt, make_response, make_source


def say(exchange: Exchange, text: str) -> None:
    exchange.start()
    exchange.say(text)
    exchange.complete()


def asked(exchange: Exchange) -> str:
    return exchange.body["messages"][0]["content"]


def sides_of(exchange: Exchange) -> tuple[str, str]:
    found = re.search(r"A ===\n(.*?)\n=== \w+ B ===\n(.*?)\n===", asked(exchange), re.S)
    assert found
    return found[1], found[2]


def prefer_kind(exchange: Exchange) -> None:
    """Take the side that says “kind”; about the same where both or neither do."""
    first, second = ("kind" in side for side in sides_of(exchange))
    word = "tie" if first == second else "A" if first else "B"
    say(exchange, json.dumps({"reason": "Because it is kind.", "verdict": word}))


def make_judge(server: ChatServer, name: str = "judge") -> ResponseSource:
    defaults = {"kind": "model", "served_model": name, "base_url": server.url}
    return ResponseSource.objects.get_or_create(name=name, defaults=defaults)[0]


def make_votes(project: Project, count: int = 3, people: int = 2) -> list[Comparison]:
    """Comparisons of a kind and a rude response, of which each person prefers the kind one."""
    annotators = [make_annotator() for _ in range(people)]
    sources = make_source("alpha-1"), make_source("beta-1")
    comparisons = []
    for number in range(count):
        prompt = make_prompt(project, f"Question {number}?")
        texts = (f"A kind answer {number}", f"A rude one {number}")
        responses = [make_response(prompt, source, text) for source, text in zip(sources, texts, strict=True)]
        if number % 2:
            responses.reverse()
        a, b = responses
        comparison = Comparison.objects.create(project=project, prompt=prompt, response_a=a, response_b=b)
        for annotator in annotators:
            make_judgment(comparison, "b" if number % 2 else "a", annotator=annotator)
        comparisons.append(comparison)
    return comparisons


def make_run(server: ChatServer, project: Project | None = None, **more: Any) -> JudgeRun:
    if project is None:
        project = make_project()
        make_votes(project)
    return queue_judge_run(project=project, judge=make_judge(server), **{"language": "en", **more})


def finish(run: JudgeRun) -> JudgeRun:
    run_judge(run.pk)
    run.refresh_from_db()
    return run
