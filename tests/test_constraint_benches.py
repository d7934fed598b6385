"""CFBench and SysBench: every branch of their rules, on rows of our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from rlhf.evaluation.cfbench import parse_constraints, read_verdicts, score_item
from tests.fb_bench_items import write_rows

P, S = "主需", "次需"


def constraints(kinds: str) -> Any:
    return parse_constraints([[f"c{number}", {"P": P, "S": S}[kind]] for number, kind in enumerate(kinds)])


@pytest.mark.parametrize(
    ("kinds", "bits", "reading", "expected"),
    [
        ("PS", [1, 1], "1", (1.0, 1, 1)),
        ("PSS", [0, 1, 1], "1", (0.67, 0, 0)),  # a primary one is missed
        ("PP", [1, 1], "1", (1.0, 1, 1)),  # only primary ones
        ("SSSSSS", [1, 1, 1, 1, 1, 0], "1", (0.83, 0, 1)),  # no primary one: the share decides
        ("SSSSS", [1, 1, 1, 1, 0], "1", (0.8, 0, 0)),  # 0.8 is not more than 0.8
        ("PSSS", [1, 1, 1, 0], "1", (0.75, 0, 1)),  # 0.5 + 0.5 · 0.67 = 0.835
        ("PSSSSS", [1, 1, 1, 1, 0, 0], "1", (0.67, 0, 0)),  # 0.5 + 0.5 · 0.6 = 0.8
        ("PSSSSS", [0, 1, 1, 1, 1, 1], "0", (0.83, 0, 1)),  # read leniently: only the share counts
        ("PSSSS", [1, 1, 1, 1, 0], "0", (0.8, 0, 0)),
        ("PSSSSS", [1, 1], "0", (1.0, 1, 1)),
        ("PS", [0], "-1", (0.0, 0, 0)),
        ("PS", [1], "-1", (1.0, 1, 0)),
    ],
)
def test_each_branch_of_cfbench(kinds: str, bits: list[int], reading: str, expected: tuple[float, int, int]) -> None:
    scores = score_item(bits, reading, constraints(kinds))
    assert (scores.csr, scores.isr, scores.psr) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("c0\t1\n\nc1\t0", ([1, 0], "1")),
        ("c0\t1\nc1\t0", ([1, 0], "0")),  # no blank line between
        ("c0\t1\n\nother\t1", ([1, 1], "0")),
        ("c0\t1\n\nc1\t0.5", ([1], "0")),
        ("it is fine", ([0], "-1")),
    ],
)
def test_a_judges_lines_are_read_strictly_then_leniently(text: str, expected: tuple[list[int], str]) -> None:
    assert read_verdicts(text, constraints("PS")) == expected


def run(capsys: pytest.CaptureFixture[str], command: str, path: Path) -> dict[str, Any]:
    call_command(command, "score", str(path), "--json")
    return json.loads(capsys.readouterr().out)


def test_a_cfbench_file_is_scored_by_split_and_what_cannot_be_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    criteria = [["a", P, "x", "y"], ["b", S, "x", "y"]]
    rows = [
        {"split": "easy", "criteria": criteria, "judge_score": ["1", "1"], "judge_parsing": "1"},
        {"split": "hard", "criteria": criteria, "judge_response": "a\t1\n\nb\t0"},
        {"split": "hard", "criteria": criteria, "judge_response": "who knows"},
        {"split": "hard", "criteria": criteria, "judge_score": ["1"], "judge_parsing": "1"},
        {"split": "hard", "criteria": [["a", "maybe"]], "judge_score": ["1"]},
        {"split": "hard", "criteria": criteria},
    ]
    figures = run(capsys, "cfbench", write_rows(tmp_path / "f.json", rows, as_array=True))
    assert [figures[key] for key in ("csr", "isr", "psr")] == [0.5, 0.33, 0.33]
    assert figures["by_split"] == {
        "easy": {"csr": 1.0, "isr": 1.0, "psr": 1.0}, "hard": {"csr": 0.25, "isr": 0.0, "psr": 0.0},
    }  # fmt: skip
    assert (figures["items"], figures["unreadable_judgments"], figures["refused"]) == (3, 1, 3)
    assert figures["problems"][0] == "row 4: judge_score: 1 bits for 2 criteria"


def test_the_published_data_set_has_criteria_that_can_be_read(shared_data: Path) -> None:
    items = json.loads((shared_data / "formats" / "cfbench_data.json").read_text())
    parsed = [parse_constraints(item["criteria"]) for item in items]
    assert sum(constraint.is_primary for found in parsed for constraint in found) == 1835
    assert sum(map(len, parsed)) == 1835 + 2402


def session(pattern: list[int], *, related: bool = True, alignment: str = "align") -> dict[str, Any]:
    """Five turns with two criteria each; a miss is in the second one."""
    prompts = [f"turn {number}" for number in range(len(pattern))]
    criteria = {
        "1": {"criteria_id": 1, "criteria_content": "x", "criteria_type": "动作约束"},
        "2": {"criteria_id": 2, "criteria_content": "y", "criteria_type": "格式约束"},
    }
    return {
        "system_id": 1,
        "rounds_related": related,
        "messages": [{"role": "user", "content": prompt} for prompt in prompts],
        "prompt_infos": {prompt: {"alignment": alignment, "criteria": criteria} for prompt in prompts},
        "eval_results": {
            prompt: {"评判理由": "z", "评判结果": {"1": "是", "2": "是" if is_right else "否"}}
            for prompt, is_right in zip(prompts, pattern, strict=True)
        },
    }


def test_a_session_counts_up_to_its_first_miss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = run(capsys, "sysbench", write_rows(tmp_path / "s.json", [session([1, 1, 0, 1, 1])]))
    assert (figures["ssr"], figures["isr"], figures["csr"]) == (0.4, 0.8, 0.9)
    assert figures["rounds"] == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert figures["csr_by_type"] == {"action": 1.0, "format": 0.8}


def test_sysbench_is_split_by_alignment_and_by_dependence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unjudged = session([1] * 5) | {"eval_results": None}
    other_word = session([1] * 5)
    other_word["eval_results"]["turn 2"]["评判结果"]["1"] = "部分"
    rows = [
        session([1] * 5), session([0, 1, 1, 1, 1], related=False, alignment="misalign"), unjudged, other_word, 7,
    ]  # fmt: skip
    figures = run(capsys, "sysbench", write_rows(tmp_path / "s.json", rows))
    assert (figures["ssr"], figures["rounds"]) == (0.5, [0.5] * 5)
    assert figures["isr_by_alignment"] == {"align": 1.0, "misalign": 0.8}
    assert figures["by_sessions"]["dependent"]["ssr"] == 1.0
    assert figures["by_sessions"]["parallel"] == {"ssr": 0.0, "rounds": [0.0] * 5, "sessions": 1}
    assert (figures["sessions"], figures["refused"]) == (2, 3)
    assert "row 4: turn 3: '部分' is neither 是 nor 否" in figures["problems"]


@pytest.mark.parametrize("command", ["cfbench", "sysbench"])
def test_a_file_without_anything_judged_is_refused(command: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="holds no judged"):
        call_command(command, "score", str(write_rows(tmp_path / "f", [{}])))
