"""FB-Bench runs against a real HTTP endpoint that behaves as a test tells it to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from annotation.models import ResponseSource
from rlhf import asking, benchmarking
from rlhf.benchmark_figures import progress_of
from rlhf.evaluation.fb_bench import read_dataset
from rlhf.models import BenchmarkRun
from rlhf.services.benchmarks import import_benchmark_set, queue_benchmark_run, reopen_benchmark_run
from tests.chat_server import ChatServer, Exchange, chat_server
from tests.fb_bench_items import correction, maintenance, write_rows

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as server:
        server.reply = behave(judged)
        yield server


def is_judging(exchange: Exchange) -> bool:
    return len(exchange.body["messages"]) == 1


def say(exchange: Exchange, text: str) -> None:
    exchange.start()
    exchange.say(text)
    exchange.complete()


def behave(judge: Callable[[Exchange], None]) -> Callable[[Exchange], None]:
    """Answer with the feedback said back; judge as told."""

    def reply(exchange: Exchange) -> None:
        if is_judging(exchange):
            judge(exchange)
        else:
            say(exchange, f"Second thoughts about: {exchange.body['messages'][0]['content']}")

    return reply


def skeleton_of(exchange: Exchange) -> dict[str, Any]:
    text = exchange.body["messages"][0]["content"]
    return json.loads(text[text.rindex("\n{\n") :])


def filled(exchange: Exchange, result: str = "") -> dict[str, Any]:
    """The judge's form with reasons and results; the first criterion is met and no other, unless told."""
    value = skeleton_of(exchange)
    for number, fields in enumerate(value.values()):
        reason, verdict, _weight = fields
        chinese = verdict == "评判结果"
        fields[reason] = "Because."
        fields[verdict] = result or (("是" if chinese else "yes") if not number else ("否" if chinese else "no"))
    return value


def judged(exchange: Exchange) -> None:
    say(exchange, json.dumps(filled(exchange), ensure_ascii=False))


def make_run(
    server: ChatServer, tmp_path: Path, items: list[dict[str, Any]] | None = None, **limits: Any
) -> BenchmarkRun:
    items = items or [correction("one"), maintenance("two"), correction("three", task_type="Text Creation")]
    data_set, _ = import_benchmark_set(read_dataset(write_rows(tmp_path / "d.json", items)), name="own")
    model = ResponseSource.objects.create(name="model", kind="model", served_model="m", base_url=server.url)
    judge = ResponseSource.objects.create(name="judge", kind="model", served_model="j", base_url=server.url)
    return queue_benchmark_run(data_set=data_set, source=model, judge=judge, **{"max_tokens": 256, **limits})


def finish(run: BenchmarkRun) -> BenchmarkRun:
    benchmarking.run_benchmark(run.pk)
    run.refresh_from_db()
    return run


@pytest.mark.parametrize("language", ["zh", "en"])
def test_every_item_is_answered_and_judged(language: str, server: ChatServer, tmp_path: Path) -> None:
    run = finish(make_run(server, tmp_path, prompt_language=language))
    assert (run.status, run.error) == ("succeeded", "")
    answering = [body for body in server.requests if len(body["messages"]) == 3]
    assert [message["role"] for message in answering[0]["messages"]] == ["user", "assistant", "user"]
    temperatures = {body["messages"][0]["content"]: body["temperature"] for body in answering}
    assert temperatures == {"one": 0.0, "two": 0.0, "three": 0.7}
    assert {body["max_tokens"] for body in answering} == {256}
    asked = [body for body in server.requests if len(body["messages"]) == 1]
    assert {body["temperature"] for body in asked} == {0.0}
    assert all(("第二轮回答" in body["messages"][0]["content"]) == (language == "zh") for body in asked)
    report = run.report
    assert [report[key] for key in ("items", "answers", "judgments", "scored", "failed")] == [3, 3, 3, 3, 0]
    assert (report["error_correction"], report["response_maintenance"]) == (30.0, 100.0)


def test_a_server_that_stays_away_ends_the_run_and_nothing_is_asked_twice(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PATIENCE_SECONDS", 0.0)
    run = make_run(server, tmp_path, [correction(f"question {number}") for number in range(12)], parallel=1)
    server.requests.clear()
    asked: list[str] = []

    def work_for(count: int) -> Callable[[Exchange], None]:
        def reply(exchange: Exchange) -> None:
            if len(asked) >= count:
                exchange.refuse(503)
            else:
                asked.append(exchange.body["model"] + exchange.body["messages"][0]["content"])
                behave(judged)(exchange)

        return reply

    for count, status in ((5, "failed"), (15, "failed"), (99, "succeeded")):
        server.reply = work_for(count)
        finish(run)
        assert run.status == status
        assert progress_of(run).done == len(asked)
        if status == "failed":
            assert "model has given nothing for 0 minutes" in run.error or "judge has given" in run.error
            assert "what was stored is kept: start its server and go on" in run.error
            assert reopen_benchmark_run(run)
    assert len(asked) == len(set(asked)) == 24
    assert run.report["scored"] == 12
