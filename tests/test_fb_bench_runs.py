"""FB-Bench runs against a real HTTP endpoint that behaves as a test tells it to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from annotation.models import ResponseSource
from rlhf import asking, benchmarking
from rlhf.benchmark_figures import agreements, answer_rows, judgment_rows, leaderboard, progress_of, report_of
from rlhf.evaluation.fb_bench import REPETITIVE_JUDGEMENT, parse_dataset, read_dataset
from rlhf.models import BenchmarkAnswer, BenchmarkRun
from rlhf.services import leases
from rlhf.services.benchmarks import (
    import_benchmark_run,
    import_benchmark_set,
    queue_benchmark_run,
    reopen_benchmark_run,
    revise_checklist,
    store_ticks,
)
from tests.chat_server import ChatServer, Exchange, chat_server
from tests.factories import make_annotator, make_user
from tests.fb_bench_items import correction, maintenance, tick, write_rows

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


def test_the_time_left_follows_the_pace_whatever_broke_in_or_was_changed(server: ChatServer, tmp_path: Path) -> None:
    run = make_run(server, tmp_path, [correction(f"question {number}") for number in range(30)], parallel=4)
    began = timezone.now()
    for number, item in enumerate(run.data_set.items.all()[:16]):
        # Four at a time for 40 s each, and an hour's break after the eighth.
        ended = began + timedelta(seconds=40 * (number // 4 + 1), hours=number // 8)
        BenchmarkAnswer.objects.create(run=run, item=item, text="So.", seconds=40, created_at=ended)
    expected = pytest.approx((14 + 30) * 10, rel=0.2)
    assert progress_of(run).seconds_left == expected
    run.parallel = 8  # nothing has ended at this new pace yet
    assert progress_of(run).seconds_left == expected


def test_a_judge_may_be_busy_break_off_or_speak_in_fences(server: ChatServer, tmp_path: Path) -> None:
    """Retry-After is waited for, a broken stream is asked for again, a fence and thoughts are taken off."""
    refused: list[float] = []

    def judge(exchange: Exchange) -> None:
        if len(refused) == 0:
            refused.append(0)
            exchange.send_response(429)
            exchange.send_header("Retry-After", "0.1")
            exchange.send_header("Content-Length", "0")
            exchange.end_headers()
        elif len(refused) == 1:
            refused.append(0)
            exchange.start()
            exchange.say('{"half":')
            exchange.drop()
        elif len(refused) == 2:
            refused.append(0)
            exchange.start()
            exchange.send(b"data: <html>garbage\n\n")
            exchange.complete()
        else:
            form = json.dumps(filled(exchange), ensure_ascii=False, indent=2)
            say(exchange, f"<think>Hm {{}}.</think>\n```json\n{form}\n```")

    server.reply = behave(judge)
    run = finish(make_run(server, tmp_path, parallel=1))
    assert (run.status, run.report["scored"], run.report["retried"]) == ("succeeded", 3, 0)


def say_prose(exchange: Exchange) -> None:
    say(exchange, "The second answer is quite good, I would say.")


def say_half(exchange: Exchange) -> None:
    say(exchange, json.dumps(filled(exchange), ensure_ascii=False)[:-25])


def say_in_french(exchange: Exchange) -> None:
    say(exchange, json.dumps(filled(exchange, "oui")))


def give_partial_credit(exchange: Exchange) -> None:
    say(exchange, json.dumps(filled(exchange, "partly")))


def invent(exchange: Exchange) -> None:
    reason = {"评判理由": "x", "评判结果": "是", "weight": 1}
    say(exchange, json.dumps({**filled(exchange), "Is it written politely?": reason}))


def forget(exchange: Exchange) -> None:
    say(exchange, json.dumps(dict(list(filled(exchange).items())[:1])))


def say_twice(exchange: Exchange) -> None:
    text = json.dumps(filled(exchange))
    say(exchange, text[:-1] + "," + text[1:])


def refuse_repetitions(exchange: Exchange) -> None:
    exchange.refuse(400, "Sorry! We've encountered an issue with repetitive patterns in your prompt.")


@pytest.mark.parametrize(
    ("judge", "failure"),
    [
        (say_prose, "prose"),
        (say_half, "half_json"),
        (say_in_french, "other_word"),
        (give_partial_credit, "partial_credit"),
        (invent, "invented_criterion"),
        (forget, "missing_criterion"),
        (say_twice, "wrong_shape"),
        (lambda exchange: say(exchange, ""), "nothing"),
        (lambda exchange: say(exchange, "[1, 2]"), "prose"),
        (lambda exchange: exchange.refuse(400, "too long"), "refused"),
        (refuse_repetitions, ""),
    ],
)
def test_a_judgment_that_cannot_be_used_is_kept_and_counted(
    judge: Callable[[Exchange], None], failure: str, server: ChatServer, tmp_path: Path
) -> None:
    first = "What is one?"

    def mostly(exchange: Exchange) -> None:
        (judge if first in exchange.body["messages"][0]["content"] else judged)(exchange)

    server.reply = behave(mostly)
    run = finish(make_run(server, tmp_path, [correction(first), correction("two"), maintenance("three")]))
    assert run.status == "succeeded"
    judgment = run.judgments.get(item__query=first)
    assert (judgment.failure, judgment.is_repetitive) == (failure, not failure)
    if failure:
        assert (run.report["scored"], run.report["failures"]) == (2, {failure: 1})
        assert judgment.attempts == (1 if failure == "refused" else 3)
        assert (run.report["error_correction"], run.report["at_worst"]["error_correction"]) == (30.0, 15.0)
    else:
        assert (run.report["scored"], run.report["repetitive"], run.report["error_correction"]) == (3, 1, 15.0)
    # our files: what failed keeps its row, and a second reading gives the same figures
    rows = list(judgment_rows(run))
    assert len(rows) == 3
    again = import_benchmark_run(run.data_set, "\n".join(json.dumps(row) for row in rows).encode(), "ours.jsonl").runs[
        0
    ]
    ours, theirs = report_of(again), run.report
    assert {key: ours[key] for key in ours if key not in ("retried",)} == {
        key: theirs[key] for key in ours if key not in ("retried",)
    }
    assert [row["second_response"] for row in answer_rows(run)] == [row["second_response"] for row in rows]


def test_an_item_that_cannot_be_answered_is_counted_not_dropped(server: ChatServer, tmp_path: Path) -> None:
    def reply(exchange: Exchange) -> None:
        if exchange.body["messages"][0]["content"] == "one":
            exchange.refuse(400, "the messages are too long")
        else:
            behave(judged)(exchange)

    server.reply = reply
    run = finish(make_run(server, tmp_path))
    assert run.status == "succeeded"
    assert [run.report[key] for key in ("items", "answers", "failed_answers", "judgments", "scored")] == [
        3,
        2,
        1,
        3,
        2,
    ]
    assert run.report["failures"] == {"no_answer": 1}
    # Our own file brings it back as what it is: no answer.
    content = "\n".join(json.dumps(row) for row in judgment_rows(run)).encode()
    [again] = import_benchmark_run(run.data_set, content, "ours.jsonl").runs
    assert again.report == run.report
    assert "too long" in again.answers.get(item__query="one").error
    server.reply = behave(judged)
    assert reopen_benchmark_run(run, retry_failures=True)
    assert finish(run).report["scored"] == 3


def test_another_judge_ticks_the_same_answers(server: ChatServer, tmp_path: Path, client: Client) -> None:
    run = finish(make_run(server, tmp_path))
    other = ResponseSource.objects.create(name="other judge", kind="model", served_model="k", base_url=server.url)
    server.requests.clear()
    again = finish(queue_benchmark_run(data_set=run.data_set, source=run.source, judge=other, answers_from=run))
    assert (again.status, again.report["scored"], len(server.requests)) == ("succeeded", 3, 3)
    assert {body["model"] for body in server.requests} == {"k"}
    assert again.max_tokens == run.max_tokens == 256
    client.force_login(make_user(is_staff=True))
    page = client.get(reverse("benchmark_run", args=[again.pk])).content.decode()
    assert "answers of at most 256 tokens" in page
    imported = import_benchmark_run(run.data_set, json.dumps(next(iter(answer_rows(run)))).encode(), "a.jsonl").runs[0]
    later = queue_benchmark_run(data_set=run.data_set, source=imported.source, judge=other, answers_from=imported)
    page = client.get(reverse("benchmark_run", args=[later.pk])).content.decode()
    assert "imported answers" in page and "answers of at most" not in page


def test_agreement_with_people_is_the_mean_over_models(server: ChatServer, tmp_path: Path) -> None:
    run = finish(make_run(server, tmp_path, [correction("one"), correction("two")]))
    other = ResponseSource.objects.create(name="other model", kind="model", served_model="o", base_url=server.url)
    assert run.judge is not None
    second = finish(queue_benchmark_run(data_set=run.data_set, source=other, judge=run.judge))
    person = make_annotator()
    # The judge says yes, no. For the first model: 4 of 4 the same; for the other: 1 of 2.
    for answer in run.answers.all():
        store_ticks(answer, answer.item.checklists.get(), person, [True, False])
    answer = second.answers.order_by("pk")[0]
    store_ticks(answer, answer.item.checklists.get(), person, [False, True])
    store_ticks(answer, answer.item.checklists.get(), person, [True, True])  # corrected
    [found] = agreements(run.data_set)
    assert (found.judge, found.share, found.compared, found.left_out) == ("judge", 0.75, 3, {})
    assert found.by_model == {"model": (1.0, 4), "other model": (0.5, 2)}
    # Each pair that cannot be compared is counted by its reason.
    items = [correction(f"item {number}") for number in range(5)]
    data_set, _ = import_benchmark_set(parse_dataset(json.dumps(items).encode(), "five"), name="five")
    rows = [tick(item, [True, False], judge_model="strict") for item in items[:4]]
    rows[1] |= {"judgement": None, "failure": "prose"}
    rows[2] |= {"judgement": REPETITIVE_JUDGEMENT}
    [judged] = import_benchmark_run(data_set, json.dumps(rows).encode(), "rows").runs
    answers = {answer.item.position: answer for answer in judged.answers.select_related("item")}
    revise_checklist(answers[4].item, [("Gives 5", 1.0)], based_on=1, by=make_user("boss"))
    for position, answer in answers.items():
        checklist = answer.item.checklists.last()
        assert checklist is not None
        store_ticks(answer, checklist, person, [True] if position == 4 else [True, True])
    [found] = agreements(data_set)
    assert (found.share, found.compared, found.pairs) == (0.5, 1, 4)
    assert found.left_out == {"failed": 1, "repetitive": 1, "other_checklist": 1}
    other_judge = BenchmarkRun.objects.create(
        data_set=data_set, source=judged.source, judge=run.judge, answers_from=judged, status="cancelled",
        finished_at=judged.finished_at,
    )  # fmt: skip
    assert {one.judge: (one.share, one.left_out) for one in agreements(data_set)} == {
        "judge": (None, {"not_judged": 4}), "strict": (0.5, found.left_out),
    }  # fmt: skip
    assert other_judge.judgments.count() == 0


@pytest.mark.django_db(transaction=True)
def test_answers_come_without_a_judge_who_is_asked_later(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "dispatch_job", lambda run: benchmarking.run_benchmark(run.pk))
    items = [correction("one"), maintenance("two")]
    import_benchmark_set(parse_dataset(json.dumps(items).encode(), "d.json"), name="kept here")
    for name in ("model", "judge"):
        ResponseSource.objects.create(name=name, kind="model", served_model=name, base_url=server.url)
    out = tmp_path / "out"
    command = ["fb_bench", "run", "--source", "model", "--dataset", "kept here", "--out", str(out), "--json"]
    call_command(*command)
    said = json.loads(capsys.readouterr().out)
    assert (said["answers"], said["judgments"], said["overall"]) == (2, 0, None)
    assert {body["model"] for body in server.requests} == {"model"}
    run = BenchmarkRun.objects.get()
    progress = progress_of(run)
    assert (progress.done, progress.total, run.judge) == (2, 2, None)
    assert not (out / "judgments.jsonl").exists() and len((out / "answers.jsonl").read_text().splitlines()) == 2
    server.requests.clear()
    for _again in range(2):  # the second time there is nothing left to do
        call_command(*command, "--judge", "judge")
        said = json.loads(capsys.readouterr().out)
        assert (said["answers"], said["judgments"], said["scored"]) == (2, 2, 2)
    assert [body["model"] for body in server.requests] == ["judge", "judge"]
    assert BenchmarkRun.objects.latest("pk").answers_from == run
    call_command("fb_bench", "score", str(out / "judgments.jsonl"), "--dataset", "kept here", "--json")
    assert json.loads(capsys.readouterr().out)["overall"] == said["overall"]
    with pytest.raises(CommandError, match="neither a file nor the name of a data set here; known: kept here"):
        call_command(*[word.replace("kept here", "nowhere") for word in command])


@pytest.mark.slow
def test_published_judgments_load_as_a_run_and_give_the_published_figures(shared_data: Path) -> None:
    folder = shared_data / "fb_bench"
    data_set, _ = import_benchmark_set(read_dataset(folder / "dataset_v3.json"), name="v3")
    assert import_benchmark_set(read_dataset(folder / "dataset_v3.json"), name="again") == (data_set, False)
    for name in ("DeepSeek-V3", "Phi-3-medium-4k-instruct"):
        content = (folder / f"{name}.judgments.jsonl").read_bytes()
        import_benchmark_run(data_set, content, name)
    best, second = leaderboard(data_set)
    assert (best.run.source.name, best.figures["overall"], best.gap) == ("DeepSeek-V3", 74.86, -1.24)
    assert (second.figures["overall"], second.gap) == (51.58, -27.92)
    answers = import_benchmark_run(data_set, (folder / "DeepSeek-V3.answers.jsonl").read_bytes(), "answers")
    assert (len(answers.runs), answers.runs[0].judge, answers.runs[0].answers.count()) == (1, None, 591)


def test_the_command_runs_writes_files_and_does_nothing_twice(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "dispatch_job", lambda run: False)
    run = make_run(server, tmp_path)
    finish(run)
    server.requests.clear()
    out = tmp_path / "out"
    arguments = ["fb_bench", "run", "--source", "model", "--judge", "judge", "--dataset", str(tmp_path / "d.json")]
    call_command(*arguments, "--out", str(out), "--max-tokens", "256", "--json")
    said = json.loads(capsys.readouterr().out)
    assert (said["run"], said["answers"], said["judgments"], said["failed"]) == (run.pk, 3, 3, 0)
    assert server.requests == []
    call_command("fb_bench", "score", str(out / "judgments.jsonl"), "--dataset", str(tmp_path / "d.json"), "--json")
    scored = json.loads(capsys.readouterr().out)
    assert scored["overall"] == said["overall"]
    with pytest.raises(CommandError, match="max_tokens"):
        call_command(*arguments, "--out", str(out), "--max-tokens", "0", "--new")


@pytest.mark.slow
@pytest.mark.training
def test_a_run_killed_twice_has_every_item_once(server: ChatServer, tmp_path: Path, tiny_model: Path) -> None:
    items = [correction(f"question {number}") for number in range(20)]
    dataset, out = write_rows(tmp_path / "d.json", items), tmp_path / "out"
    command = [sys.executable, "manage.py", "fb_bench", "run", "--source", str(tiny_model), "--judge", str(tiny_model)]
    command += ["--dataset", str(dataset), "--out", str(out), "--parallel", "2", "--json"]
    environment = {
        **os.environ,
        "TOUCHSTONE_DATA": str(tmp_path / "data"),
        "TOUCHSTONE_MODEL_SERVER_URL": server.url,
        "TOUCHSTONE_JOB_LEASE_SECONDS": "3",
        "TOUCHSTONE_JOB_HEARTBEAT_SECONDS": "1",
    }
    environment.pop("DATABASE_URL", None)
    for allowed in (8, 30):  # once among the answers, once among the judgments
        is_dead, is_waiting = threading.Event(), threading.Event()

        server.reply = hold_up_after(allowed, is_waiting, is_dead)
        process = subprocess.Popen(command, cwd=Path(__file__).parents[1], env=environment, stdout=subprocess.DEVNULL)
        assert is_waiting.wait(120)
        process.kill()
        process.wait()
        is_dead.set()
    server.reply = behave(judged)
    done = subprocess.run(command, cwd=Path(__file__).parents[1], env=environment, capture_output=True, check=True)
    figures = json.loads(done.stdout)
    assert [figures[key] for key in ("items", "answers", "judgments", "scored", "failed")] == [20, 20, 20, 20, 0]
    for name in ("answers.jsonl", "judgments.jsonl"):
        queries = [json.loads(line)["user_query"] for line in (out / name).read_text().splitlines()]
        assert sorted(queries) == sorted(item["user_query"] for item in items)
    assert len(server.requests) <= 40 + 2 * 2  # what was under way when it was killed is asked for once more


def hold_up_after(count: int, is_waiting: threading.Event, is_dead: threading.Event) -> Callable[[Exchange], None]:
    """Answer so many requests, then say that somebody waits, and wait for their end."""

    def reply(exchange: Exchange) -> None:
        if len(exchange.server.requests) > count:
            is_waiting.set()
            is_dead.wait(60)
        behave(judged)(exchange)

    return reply
