"""CFBench's and SysBench's pages: import, browse, runs with their slices and files, ticking in context."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from rlhf.models import BenchmarkRun, BenchmarkSet, BenchmarkTicks
from tests.constraint_items import instruction, session
from tests.factories import make_user

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]
INSTRUCTIONS = [instruction(1), instruction(2, split="hard", gold="Waves. More waves."), instruction(3, doamin="法律")]
SESSIONS = [session(1), session(2, related=False)]


@pytest.fixture
def staff(client: Client) -> Client:
    client.force_login(make_user("boss", is_staff=True))
    return client


def upload(rows: list[Any], name: str = "items.json") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, json.dumps(rows).encode())


def imported(staff: Client, rows: list[Any]) -> BenchmarkSet:
    staff.post(reverse("benchmark_set_new"), {"file": upload(rows)})
    return BenchmarkSet.objects.latest("pk")


def judged_instructions() -> list[dict[str, Any]]:
    bits = (["1", "1"], ["1", "0"], ["0"])
    return [
        {**row, "response": f"Sea {row['idx']}.", "infer_model": "secret-model", "judge_model": "a-judge",
         "judge_score": score, "judge_parsing": "1" if len(score) > 1 else "-1"}
        for row, score in zip(INSTRUCTIONS, bits, strict=True)
    ]  # fmt: skip


def judged_sessions() -> list[dict[str, Any]]:
    rows = []
    for row in SESSIONS:
        said, results = [row["messages"][0]], {}
        for question in row["prompt_infos"]:
            said += [{"role": "user", "content": question}, {"role": "assistant", "content": f"Roger {question}"}]
            results[question] = {
                "评判理由": "Because.",
                "评判结果": {"1": "是", "2": "否" if "2 of" in question else "是"},
            }
        rows.append({**row, "infer_model": "secret-model", "infer_results": said, "eval_results": results})
    return rows


def with_run(staff: Client, rows: list[Any], judged: list[Any]) -> BenchmarkRun:
    data_set = imported(staff, rows)
    staff.post(reverse("benchmark_run_import", args=[data_set.pk]), {"file": upload(judged)})
    return BenchmarkRun.objects.get(data_set=data_set)


def text_of(staff: Client, name: str, *args: Any, **asked: str) -> str:
    return " ".join(staff.get(reverse(name, args=args), asked).content.decode().split())


def test_a_file_is_known_by_its_shape_and_browsed(staff: Client) -> None:
    cfbench, sysbench = imported(staff, INSTRUCTIONS), imported(staff, SESSIONS)
    assert (cfbench.kind, sysbench.kind) == ("cfbench", "sysbench")
    assert ">SysBench: items (" in text_of(staff, "benchmark_run_new")
    text = text_of(staff, "benchmark_set", cfbench.pk)
    assert "hard (1)" in text and "easy (2)" in text and "格式约束 (3)" in text
    text = text_of(staff, "benchmark_set", cfbench.pk, split="hard", kind="格式约束")
    assert "Write 2 lines" in text and "Write 1 lines" not in text
    text = text_of(staff, "benchmark_set", sysbench.pk, alignment="misalign")
    assert "2 items" in text and "session 1, turn 2" in text and "turn 3" not in text
    assert "6 items" in text_of(staff, "benchmark_set", sysbench.pk, kind="role")
    assert "2 items" in text_of(staff, "benchmark_set", sysbench.pk, turn="3")
    assert "No item is like this." in text_of(staff, "benchmark_set", sysbench.pk, turn="x", kind="a\0b")
    turn = sysbench.items.get(session=1, turn=2)
    text = text_of(staff, "benchmark_item", turn.pk)
    assert "You are pilot 1." in text and "question 3 of session 1" in text and "speaks as a pilot" in text
    assert staff.post(reverse("benchmark_item", args=[turn.pk]), {}).status_code == 405


def test_a_run_without_a_usable_judgment_gives_its_files_and_what_failed(staff: Client) -> None:
    judged = [
        {**row, "judge_score": ["0"], "judge_parsing": "-1", "failure": "prose", "judge_response": "Hm."}
        for row in judged_instructions()
    ]
    run = with_run(staff, INSTRUCTIONS, judged)
    page = staff.get(reverse("benchmark_run", args=[run.pk]))
    text = page.content.decode()
    assert page.context["figures"]["scored"] == 0
    assert reverse("benchmark_run_export", args=[run.pk, "judgments.json"]) in text
    assert len(page.context["left_out_rows"]) == 3 and "Hm." in text


def test_the_page_of_a_run_shows_slices_and_gives_the_authors_files(staff: Client) -> None:
    run = with_run(staff, INSTRUCTIONS, judged_instructions())
    text = text_of(staff, "benchmark_run", run.pk)
    assert "<dt>CSR</dt><dd>50</dd>" in text and "50 to 83 whatever the rest is worth" in text
    assert '<th scope="row">hard</th><td class="num">50</td><td class="num">0</td>' in text
    assert '<th scope="row">primary</th><td class="num">66.67</td><td class="num">3</td>' in text
    assert '<th scope="row">法律</th>' in text and "<svg" in text
    assert 'aria-current="true">JSON in another shape</a></th><td class="num">1</td>' in text
    files = {}
    for name in ("answers.json", "judgments.json", "results.csv", "results.xlsx"):
        answer = staff.get(reverse("benchmark_run_export", args=[run.pk, name]))
        files[name] = b"".join(answer) if answer.streaming else answer.content
    assert [row["judge_score"] for row in json.loads(files["judgments.json"])] == [["1", "1"], ["1", "0"], ["0"]]
    assert json.loads(files["answers.json"])[1]["gold"] == "Waves. More waves."
    assert b"Write 2 lines" in files["results.csv"] and files["results.xlsx"][:2] == b"PK"
    assert staff.get(reverse("benchmark_run_export", args=[run.pk, "answers.jsonl"])).status_code == 404
    board = text_of(staff, "evaluation_home")
    assert "CFBench: items" in board and '<td class="num strong">33</td>' in board and "1 of 3" in board
    csv = staff.get(reverse("evaluation_export", args=[run.data_set_id, "leaderboard.csv"])).content.decode()
    assert csv.splitlines() == [
        "rank,model,judge,language,max_tokens,csr,isr,psr,unusable",
        "1,secret-model,a-judge,,,0.5,0.33,0.33,1",
    ]


def test_a_sysbench_run_is_shown_by_type_alignment_and_round(staff: Client) -> None:
    run = with_run(staff, SESSIONS, judged_sessions())
    text = text_of(staff, "benchmark_run", run.pk)
    assert "<dt>SSR</dt><dd>33.33</dd>" in text and "2 of 2 sessions whole" in text
    assert 'aria-label="format (6): 66.67; role (6): 100.00"' in text
    assert '<th scope="row">the user asks against the system message</th><td class="num">0</td>' in text
    assert '<th scope="row">turns stand alone (1)</th><td class="num">100</td><td class="num">0</td>' in text
    item = run.data_set.items.get(session=2, turn=2)
    assert "unnamed judge: 0.50" in text_of(staff, "benchmark_item", item.pk)


def test_people_tick_a_turn_with_what_was_said_before(staff: Client) -> None:
    run = with_run(staff, SESSIONS[:1], judged_sessions()[:1])
    address = reverse("benchmark_tick", args=[run.data_set_id])
    for _turn in range(3):
        page = staff.get(address)
        text = page.content.decode()
        assert "You are pilot 1." in text and "secret-model" not in text and "ideal:" not in text
        assert ("Roger question 1" in text) == (page.context["item"].turn in (1, 2, 3))
        assert len(page.context["before"]) == page.context["item"].turn - 1
        posted = {"answer": page.context["answer"].pk, "checklist": page.context["item"].checklist_id}
        assert staff.post(address, posted | {"met-0": "yes", "met-1": "yes"}).status_code == 302
    assert BenchmarkTicks.objects.count() == 3
    assert "83.3 %" in text_of(staff, "evaluation_home")


@pytest.mark.parametrize("rows", [INSTRUCTIONS, SESSIONS])
def test_a_data_set_goes_out_in_the_authors_shape_and_comes_back(staff: Client, rows: list[Any]) -> None:
    data_set = imported(staff, rows)
    address = reverse("evaluation_export", args=[data_set.pk, "items.json"])
    assert address in text_of(staff, "benchmark_set", data_set.pk)
    content = b"".join(staff.get(address))
    staff.post(reverse("benchmark_set_new"), {"file": SimpleUploadedFile("again.json", content)})
    again = BenchmarkSet.objects.latest("pk")
    fields = [[item.as_exercise() for item in one.items.with_checklist()] for one in (data_set, again)]
    assert again.pk != data_set.pk and fields[0] == fields[1]
