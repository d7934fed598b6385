"""CFBench and SysBench runs against a real HTTP endpoint that behaves as a test tells it to."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from annotation.models import ResponseSource
from rlhf import asking, benchmarking
from rlhf.benchmark_figures import answer_rows, figures_of, judgment_rows, progress_of, report_of
from rlhf.evaluation import cfbench, sysbench
from rlhf.evaluation.constraint_sets import parse_cfbench, parse_sysbench
from rlhf.evaluation.fb_bench import UnusableFileError
from rlhf.models import Benchmark, BenchmarkRun
from rlhf.services import leases
from rlhf.services.benchmarks import queue_benchmark_run, reopen_benchmark_run
from rlhf.services.constraint_sets import import_constraint_run, import_constraint_set
from tests.chat_server import ChatServer, Exchange, chat_server
from tests.constraint_items import instruction, session
from tests.fb_bench_items import write_rows

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]
Reply = Callable[[Exchange], None]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as server:
        server.reply = behave(judged)
        yield server


def say(exchange: Exchange, text: str) -> None:
    exchange.start()
    exchange.say(text)
    exchange.complete()


def behave(judge: Reply) -> Reply:
    """Answer with the last question said back; judge as told."""

    def reply(exchange: Exchange) -> None:
        if exchange.body["model"] == "j":
            judge(exchange)
        else:
            say(exchange, f"Aye: {exchange.body['messages'][-1]['content']}")

    return reply


def form_of(exchange: Exchange) -> dict[str, dict[str, str]]:
    text = exchange.body["messages"][0]["content"]
    return json.loads(text[text.rindex("\n{\n") :])


def filled(exchange: Exchange, *results: bool) -> dict[str, Any]:
    """The judge's form; a constraint without a result here is met."""
    value = form_of(exchange)
    for index, fields in enumerate(value.values()):
        reason, result = fields
        is_met = results[index] if index < len(results) else True
        chinese = result == "评判结果"
        fields |= {reason: "Because.", result: ("是" if is_met else "否") if chinese else ("yes" if is_met else "no")}
    return value


def judged(exchange: Exchange) -> None:
    say(exchange, json.dumps(filled(exchange), ensure_ascii=False))


def make_run(server: ChatServer, kind: Benchmark, rows: list[dict[str, Any]], **limits: Any) -> BenchmarkRun:
    parse = parse_cfbench if kind == Benchmark.CFBENCH else parse_sysbench
    found = parse(json.dumps(rows).encode(), "own.json")
    assert not found.refusals
    data_set, _ = import_constraint_set(found, kind, name="own")
    model = ResponseSource.objects.create(name="model", kind="model", served_model="m", base_url=server.url)
    judge = ResponseSource.objects.create(name="judge", kind="model", served_model="j", base_url=server.url)
    return queue_benchmark_run(data_set=data_set, source=model, judge=judge, **limits)


def finish(run: BenchmarkRun) -> BenchmarkRun:
    benchmarking.run_benchmark(run.pk)
    run.refresh_from_db()
    return run


def scored(run: BenchmarkRun, tmp_path: Path) -> dict[str, Any]:
    """Our file of judgments, through the scorer of the authors' files."""
    score = cfbench.score_file if run.data_set.kind == Benchmark.CFBENCH else sysbench.score_file
    return score(write_rows(tmp_path / "ours.json", judgment_rows(run), as_array=True))


@pytest.mark.parametrize("language", ["zh", "en"])
def test_an_instruction_is_answered_and_each_constraint_judged(
    language: str, server: ChatServer, tmp_path: Path
) -> None:
    def judge(exchange: Exchange) -> None:
        first = "2 lines" not in exchange.body["messages"][0]["content"]
        say(exchange, json.dumps(filled(exchange, True, first), ensure_ascii=False))

    server.reply = behave(judge)
    rows = [instruction(1), instruction(2, kinds="PSS", split="hard", gold="A model answer."), instruction(3)]
    run = finish(make_run(server, Benchmark.CFBENCH, rows, prompt_language=language))
    assert (run.status, run.error) == ("succeeded", "")
    report = figures_of(run)
    assert [report[name] for name in ("csr", "isr", "psr", "overall")] == [0.89, 0.67, 0.67, 67.0]
    assert report["by_split"]["hard"] == {"csr": 0.67, "isr": 0.0, "psr": 0.0}
    assert report["by_priority"] == {
        "primary": {"share": 1.0, "count": 3}, "secondary": {"share": 0.75, "count": 4},
    }  # fmt: skip
    assert list(report["by_type"]) == ["格式约束", "内容约束"]
    asked = [body["messages"][0]["content"] for body in server.requests if body["model"] == "j"]
    assert all(("参考答案" in text or "评判对象" in text) == (language == "zh") for text in asked)
    assert sum("A model answer." in text for text in asked) == 1
    again = scored(run, tmp_path)
    assert {name: again[name] for name in ("csr", "isr", "psr", "by_split")} == {
        name: report[name] for name in ("csr", "isr", "psr", "by_split")
    }
    assert (again["items"], again["other_metric"], again["refused"]) == (3, 0, 0)
    assert next(row["response"] for row in answer_rows(run)) == "Aye: Write 1 lines about the sea"


def test_each_turn_of_a_session_becomes_history_for_the_next(server: ChatServer, tmp_path: Path) -> None:
    def judge(exchange: Exchange) -> None:
        text = exchange.body["messages"][0]["content"]
        is_miss = "[用户的指令]\nquestion 2 of session 1" in text
        say(exchange, json.dumps(filled(exchange, not is_miss), ensure_ascii=False))

    server.reply = behave(judge)
    rows = [session(1), session(2, related=False)]
    run = finish(make_run(server, Benchmark.SYSBENCH, rows, parallel=4))
    asked = [body["messages"] for body in server.requests if body["model"] == "m"]
    last = max((body for body in asked if "session 1" in body[1]["content"]), key=len)
    assert [message["role"] for message in last] == ["system", *["user", "assistant"] * 2, "user"]
    assert last[2]["content"] == "Aye: question 1 of session 1"
    judged_last = next(
        body["messages"][0]["content"]
        for body in server.requests
        if body["model"] == "j" and "[用户的指令]\nquestion 3 of session 1" in body["messages"][0]["content"]
    )
    assert "Aye: question 2 of session 1" in judged_last and "You are pilot 1." in judged_last
    assert "ideal:" not in judged_last
    report = run.report
    assert (report["ssr"], report["isr"], report["csr"]) == (0.6667, 0.8333, 0.9167)
    assert report["rounds"] == [1.0, 0.5, 0.5]
    assert report["csr_by_type"] == {"role": 0.8333, "format": 1.0}
    assert report["isr_by_alignment"] == {"align": 1.0, "misalign": 0.5}
    assert report["by_sessions"]["parallel"]["ssr"] == 1.0
    assert (report["items"], report["all_sessions"], report["unusable_sessions"]) == (6, 2, 0)
    again = scored(run, tmp_path)
    assert all(again[name] == report[name] for name in ("csr", "isr", "ssr", "rounds", "csr_by_type", "by_sessions"))
    said = next(iter(answer_rows(run)))["infer_results"]
    assert [message["role"] for message in said] == ["system", *["user", "assistant"] * 3]


def say_text(text: str) -> Reply:
    return lambda exchange: say(exchange, text)


def say_changed(change: Callable[[dict[str, Any]], Any]) -> Reply:
    def reply(exchange: Exchange) -> None:
        value = filled(exchange)
        say(exchange, json.dumps(change(value) or value, ensure_ascii=False))

    return reply


BAD_JUDGES: list[tuple[Reply, str]] = [
    (say_text("It keeps to everything, I would say."), "prose"),
    (say_text(""), "nothing"),
    (lambda exchange: say(exchange, json.dumps(filled(exchange))[:-12]), "half_json"),
    (say_changed(lambda value: value.update({"9": {"评判理由": "x", "评判结果": "是"}})), "invented_criterion"),
    (say_changed(lambda value: value.popitem()[1] and None), "missing_criterion"),
    (say_changed(lambda value: value["1"].update({"评判结果": "部分"})), "partial_credit"),
    (say_changed(lambda value: value["1"].update({"评判结果": "oui"})), "other_word"),
    (say_changed(lambda value: value["1"].update({"评判理由": " "})), "no_reason"),
    (say_changed(lambda value: {"1": "是", "2": "是"}), "wrong_shape"),
    (say_changed(lambda value: {"1.": value["1"], "第1条": value["1"]}), "wrong_shape"),
    (lambda exchange: exchange.refuse(400, "no"), "refused"),
]
BAD = dict(sorted(Counter(failure for _judge, failure in BAD_JUDGES).items()))


def one_bad_judge_each(exchange: Exchange) -> None:
    """The n-th instruction, or second turn of the n-th session, meets the n-th bad judge; the others a good one."""
    text = exchange.body["messages"][0]["content"]
    hit = re.search(r"Write (\d+) lines|\[用户的指令\]\nquestion 2 of session (\d+)", text)
    number = int(hit[1] or hit[2]) if hit else 0
    (BAD_JUDGES[number - 1][0] if 1 <= number <= len(BAD_JUDGES) else judged)(exchange)


def read_again(run: BenchmarkRun) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a run reports, and what its file does when it is imported; an imported row does not know its tries."""
    content = json.dumps(list(judgment_rows(run))).encode()
    again = report_of(import_constraint_run(run.data_set, content, "ours.json").runs[0])
    return {**run.report, "retried": 0}, again


def test_bad_judgments_of_instructions_are_counted_and_worth_nothing(server: ChatServer, tmp_path: Path) -> None:
    server.reply = behave(one_bad_judge_each)
    rows = [instruction(number) for number in range(1, len(BAD_JUDGES) + 2)]
    run = finish(make_run(server, Benchmark.CFBENCH, rows))
    report = run.report
    assert (run.status, dict(sorted(report["failures"].items())), report["scored"]) == ("succeeded", BAD, 1)
    assert {one.failure: one.attempts for one in run.judgments.all()} == {**dict.fromkeys(BAD, 3), "": 1, "refused": 1}
    assert (report["csr"], report["psr"], report["at_best"]["csr"]) == (0.08, 0.08, 1.0)
    assert report["by_priority"]["primary"] == {"share": 0.0833, "count": 12}
    again = scored(run, tmp_path)
    assert (again["csr"], again["items"], again["unreadable_judgments"]) == (0.08, 12, 11)
    ours, theirs = read_again(run)
    assert ours == theirs


def test_a_bad_judgment_of_a_turn_leaves_out_its_session_and_says_so(server: ChatServer, tmp_path: Path) -> None:
    server.reply = behave(one_bad_judge_each)
    rows = [session(number, turns=2) for number in (1, 2, 3, len(BAD_JUDGES) + 1)]
    run = finish(make_run(server, Benchmark.SYSBENCH, rows, judge_attempts=1))
    report = run.report
    assert (dict(sorted(report["failures"].items())), report["scored"], report["sessions"]) == (
        {"half_json": 1, "nothing": 1, "prose": 1}, 5, 1,
    )  # fmt: skip
    assert (report["unusable_sessions"], report["all_sessions"], report["ssr"]) == (3, 4, 1.0)
    assert (report["at_worst"]["ssr"], report["at_best"]["ssr"]) == (0.625, 1.0)
    again = scored(run, tmp_path)
    assert (again["sessions"], again["refused"], again["ssr"]) == (1, 3, 1.0)
    ours, theirs = read_again(run)
    assert ours == theirs


def test_what_follows_a_turn_without_an_answer_is_counted_and_asked_again(server: ChatServer) -> None:
    def reply(exchange: Exchange) -> None:
        if exchange.body["model"] == "m" and exchange.body["messages"][-1]["content"] == "question 2 of session 1":
            exchange.refuse(400, "too long")
        else:
            behave(judged)(exchange)

    server.reply = reply
    run = finish(make_run(server, Benchmark.SYSBENCH, [session(1), session(2)]))
    assert (run.report["answers"], run.report["failed_answers"], run.report["failures"]) == (4, 2, {"no_answer": 2})
    assert run.answers.get(item__session=1, item__turn=3).error == "an earlier turn of this session has no answer"
    server.reply = behave(judged)
    server.requests.clear()
    assert reopen_benchmark_run(run, retry_failures=True)
    assert finish(run).report["scored"] == 6
    assert len(server.requests) == 4  # two answers and two judgments


def test_a_run_goes_on_in_the_middle_of_a_session(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PATIENCE_SECONDS", 0.0)
    asked: list[str] = []

    def work_for(count: int) -> Reply:
        def reply(exchange: Exchange) -> None:
            if len(asked) >= count:
                exchange.refuse(503)
            else:
                asked.append(json.dumps([exchange.body["model"], exchange.body["messages"]]))
                behave(judged)(exchange)

        return reply

    run = make_run(server, Benchmark.SYSBENCH, [session(1), session(2)], parallel=1)
    for count, status in ((2, "failed"), (8, "failed"), (99, "succeeded")):
        server.reply = work_for(count)
        assert finish(run).status == status
        assert progress_of(run).done == len(asked)
        reopen_benchmark_run(run)
    assert len(asked) == len(set(asked)) == 12
    assert run.report["ssr"] == 1.0


def test_published_rows_become_a_run_with_the_same_figures(tmp_path: Path) -> None:
    """Also a judgment that was read line by line, whose bits are in no order."""
    rows = [
        {**instruction(1), "response": "a", "infer_model": "m", "judge_score": ["1", "1"], "judge_parsing": "1"},
        {**instruction(2), "response": "b", "infer_model": "m", "judge_score": ["1", "0"], "judge_parsing": "1"},
        {**instruction(3, kinds="PSSS"), "response": "c", "infer_model": "m", "judge_response": "x\t1\ny\t1"},
        {**instruction(4), "response": "d", "infer_model": "m", "judge_score": ["0"], "judge_parsing": "-1"},
    ]
    data = [instruction(1), instruction(2), instruction(3, kinds="PSSS"), instruction(4)]
    data_set, is_new = import_constraint_set(
        parse_cfbench(json.dumps(data).encode(), "d"), Benchmark.CFBENCH, name="d"
    )
    stranger = {**instruction(9), "response": "e", "infer_model": "m"}
    imported = import_constraint_run(
        data_set, json.dumps([*rows, stranger, stranger | {"prompt": "\ud800"}, rows[0], 3]).encode(), "published.json"
    )
    [run] = imported.runs
    assert [refusal.reason for refusal in imported.refusals] == [
        "the data set has no such item",
        "the data set has no such item",
        "an earlier row has the same item of the same model; the earlier one counts",
        "it is not a JSON object",
    ]
    theirs = cfbench.score_file(write_rows(tmp_path / "f.json", rows))
    assert is_new
    assert all(run.report[name] == theirs[name] for name in ("csr", "isr", "psr", "by_split"))
    assert (run.report["read_leniently"], run.report["failed"]) == (1, 1)
    assert all(scored(run, tmp_path)[name] == theirs[name] for name in ("csr", "isr", "psr", "read_leniently"))
    with pytest.raises(UnusableFileError, match="row 1: the data set has no such item"):
        import_constraint_run(data_set, json.dumps([stranger]).encode(), "other.json")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"messages": []}, "system_prompt: there is no system message"),
        ({"rounds_related": "yes"}, "rounds_related: it is neither true nor false"),
        ({"prompt_infos": {}}, "turn 1: prompt_infos says nothing about it"),
        ({"messages": [{"role": "user", "content": "a"}] * 2}, "messages: 'a' is asked twice"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "number 1 has the role 'tool'"),
        ({"note": {"x": [float("nan")]}}, "note: nan is no number that a database keeps"),
        ({"note": "\ud800"}, "note: it holds a NUL or half a character"),
    ],
)
def test_a_session_that_is_none_is_named(change: dict[str, Any], sentence: str) -> None:
    broken = session(2) | change
    if change == {"messages": []}:
        broken["system_prompt"] = ""
    found = parse_sysbench(json.dumps([session(1), broken, session(1)]).encode(), "d")
    assert [turn.turn for turn in found.exercises] == [1, 2, 3]
    assert [refusal.row for refusal in found.refusals] == [2, 3]
    assert sentence in found.refusals[0].reason
    assert found.refusals[1].reason == "an earlier row is the same"


def test_the_published_data_set_is_imported_but_for_its_empty_prompt(shared_data: Path) -> None:
    content = (shared_data / "formats" / "cfbench_data.json").read_bytes()
    found = parse_cfbench(content, "cfbench")
    assert len(found.exercises) == 999
    assert [(refusal.row, refusal.reason) for refusal in found.refusals] == [(811, "prompt: it is empty")]
    data_set, _ = import_constraint_set(found, Benchmark.CFBENCH, name="cfbench")
    assert data_set.items.filter(details__split="hard").count() == 499


@pytest.mark.parametrize(
    ("command", "rows"), [("cfbench", [instruction(1), instruction(2)]), ("sysbench", [session(1)])]
)
def test_the_command_runs_and_writes_files_that_it_scores(
    command: str,
    rows: list[dict[str, Any]],
    server: ChatServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leases, "dispatch_job", lambda run: False)
    run = finish(make_run(server, Benchmark(command), rows))
    server.requests.clear()
    file, out = tmp_path / "d.json", tmp_path / "out"
    file.write_bytes(json.dumps(rows).encode())
    call_command(
        command, "run", "--source", "model", "--judge", "judge", "--dataset", str(file), "--out", str(out), "--json"
    )
    said = json.loads(capsys.readouterr().out)
    assert (said["run"], said["failed"], server.requests) == (run.pk, 0, [])
    call_command(command, "score", str(out / "judgments.json"), "--json")
    assert json.loads(capsys.readouterr().out)["csr"] == said["csr"] == 1.0
    assert len(json.loads((out / "answers.json").read_text())) == len(rows)
    call_command(command, "score", str(out / "judgments.json"))
    assert "CSR" in capsys.readouterr().out
