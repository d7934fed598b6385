"""FB-Bench's formula and file shapes: the published figures, and every quirk of the files on rows of our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from rlhf.evaluation.fb_bench import UnusableItemError, parse_item, read_dataset, temperature_of
from tests.fb_bench_items import correction, maintenance, tick, write_rows

PUBLISHED: dict[str, dict[str, Any]] = {
    "DeepSeek-V3": {
        "all": (74.24, 75.48, 74.86),
        "micro": (70.37, 74.52, 72.55),
        "tasks": {
            "Coding": (88.83, 73.17, 81.00), "Knowledge Q&A": (81.67, 79.07, 80.37),
            "Mathematics": (62.34, 100, 81.17), "Reasoning": (52.45, 78.57, 65.51),
            "Text Creation": (83.33, 69.70, 76.52), "Text Error Correction": (70.33, 78.26, 74.30),
            "Text Extraction": (69.37, 54.84, 62.11), "Text Translation": (85.56, 70.21, 77.88),
        },
        "deficiencies": {
            "Factual Error": 74.03, "Incomplete Answer": 70.26, "Logical Error": 66.59,
            "Not Following Instructions": 70.99, "Unprofessional Answer": 72.65,
        },
        "correction": {
            "Clarifying Intent": 64.99, "Detailed Explanation": 76.29, "Hinting Guidance": 84.20,
            "Pointing Out Errors": 75.24, "Raising Objections": 69.82, "Simple Questioning": 75.06,
        },
        "maintenance": {
            "Credibility Support": 69.73, "Misinformation": 63.72, "Simple Questioning": 82.43,
            "Unreasonable Requests": 89.34,
        },
    },
    "Phi-3-medium-4k-instruct": {"all": (37.62, 65.54, 51.58), "micro": (32.17, 63.55, 48.63)},
}  # fmt: skip
KEYS = ("error_correction", "response_maintenance", "overall")


def score(capsys: pytest.CaptureFixture[str], judgments: Path, dataset: Path) -> dict[str, Any]:
    call_command("fb_bench", "score", str(judgments), "--dataset", str(dataset), "--json")
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("model", list(PUBLISHED))
def test_the_published_figures_come_out(model: str, shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shared_data / "fb_bench"
    figures = score(capsys, folder / f"{model}.judgments.jsonl", folder / "dataset_v3.json")
    expected = PUBLISHED[model]
    assert tuple(figures[key] for key in KEYS) == expected["all"]
    assert tuple(figures["micro"][key] for key in KEYS) == expected["micro"]
    assert (figures["items"], figures["scored"], figures["failed"], figures["other_score"]) == (591, 591, 0, 0)
    for task, published in expected.get("tasks", {}).items():
        assert tuple(figures["by_task"][task][key] for key in KEYS) == pytest.approx(published, abs=0.0101), task
    assert figures["by_deficiency"] == pytest.approx(
        expected.get("deficiencies", figures["by_deficiency"]), abs=0.0101
    )
    for scenario in ("correction", "maintenance"):
        for kind, published in expected.get(scenario, {}).items():
            key = "error_correction" if scenario == "correction" else "response_maintenance"
            assert figures["by_feedback"][kind][key] == pytest.approx(published, abs=0.0101), kind


def test_the_data_set_holds_what_its_authors_say(shared_data: Path) -> None:
    data_set = read_dataset(shared_data / "fb_bench" / "dataset_v3.json")
    items = data_set.items
    assert (len(items), data_set.refusals) == (591, ())
    corrections = [item for item in items if item.scenario == "Error Correction"]
    assert len(corrections) == 281
    weights = [criterion.weight is None for item in items for criterion in item.checklist]
    assert (weights.count(False), weights.count(True)) == (1016, 580)
    assert sum(item.reference is not None for item in items) == 194
    rows = json.loads((shared_data / "fb_bench" / "dataset_v3.json").read_text())
    assert [item.as_row() for item in items] == rows


def test_one_way_of_several_is_enough_and_weights_add_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = [
        correction("a"), correction("b"), maintenance("c"), maintenance("d"),
        correction("e", task_type="Coding"), maintenance("f", task_type="Coding"),
    ]  # fmt: skip
    ticks = [(True, False), (False, False), (False, True), (False, False), (True, True), (True, True)]
    rows = [tick(item, met) for item, met in zip(items, ticks, strict=True)]
    figures = score(
        capsys, write_rows(tmp_path / "j.jsonl", rows), write_rows(tmp_path / "d.json", items, as_array=True)
    )
    # cells: correction 15 % and 100 %, maintenance 50 % and 100 %
    assert [figures[key] for key in KEYS] == [57.5, 75.0, 66.25]
    assert [figures["micro"][key] for key in KEYS] == [43.33, 66.67, 55.0]
    assert figures["by_task"]["Coding"] == dict.fromkeys(KEYS, 100.0)
    assert "Error Correction / Reasoning" in figures["empty_cells"]
    assert len(figures["empty_cells"]) == 12


def test_nothing_met_is_zero_and_no_data_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    item = correction()
    figures = score(
        capsys, write_rows(tmp_path / "j", [tick(item, (False, False))]), write_rows(tmp_path / "d", [item])
    )
    assert [figures[key] for key in KEYS] == [0.0, None, 0.0]
    assert figures["by_deficiency"] == {"Logical Error": 0.0}


def test_weights_come_from_the_data_set_whatever_the_judge_echoes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    item = correction()
    row = tick(item, (True, False), score=0.9)
    row["judgement"]["Says that 6 was wrong"]["weight"] = 0.9
    figures = score(capsys, write_rows(tmp_path / "j", [row]), write_rows(tmp_path / "d", [item]))
    assert (figures["error_correction"], figures["other_score"]) == (30.0, 1)


def test_rows_that_give_no_score_are_counted_and_bound_the_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [correction(name) for name in "abcdefgh"]
    invented, partly = tick(items[3], (True, True)), tick(items[4], (True, True))
    invented["judgement"]["Is polite"] = {"评判理由": "x", "评判结果": "是", "weight": 0.1}
    partly["judgement"]["Gives 5"]["评判结果"] = "部分是"
    rows = [
        tick(items[0], (True, True), score=1.0),
        tick(items[0], (False, False)),
        {**items[1], "judgement": {"API fialed": "$REPETITIVE PATTERNS$"}, "score": 0},
        {**items[2], "judgement": "$ERROR$"},
        invented,
        partly,
        {**items[5], "judgement": {}},
        tick(correction("somewhere else"), (True, True)),
        ["no object"],
    ]
    path = write_rows(tmp_path / "j", rows)
    path.write_text(path.read_text() + '{"user_query": \n')
    figures = score(capsys, path, write_rows(tmp_path / "d", items))
    counted = ("items", "scored", "failed", "missing", "unknown", "duplicates", "unreadable", "repetitive")
    assert [figures[key] for key in counted] == [8, 2, 4, 2, 1, 1, 2, 1]
    assert figures["failures"] == {
        "wrong_shape": 1, "invented_criterion": 1, "partial_credit": 1, "nothing": 1,
    }  # fmt: skip
    assert figures["error_correction"] == 50.0
    assert figures["at_worst"]["error_correction"] == 12.5
    assert figures["at_best"]["error_correction"] == 87.5
    assert "row 6: 'Gives 5': '部分是' is neither yes nor no" in figures["problems"]


@pytest.mark.parametrize(
    ("criterion", "echo"),
    [
        (r"Writes \frac{1}{2} for the half", r"Writes \\frac{1}{2} for the half"),
        ("答案是否为（A）", "答案是否为(A)"),
        ("Says that the answer is wrong", "Says that the answr is wrong"),
        ("Stands by the first response", "An older wording of what is asked for"),
    ],
)
def test_a_criterion_that_was_copied_badly_is_still_its_own(
    criterion: str, echo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    item = correction(checklist=[["Gives 5", 0.25], [criterion, 0.75]])
    row = tick(item, (False, True))
    row["judgement"][echo] = row["judgement"].pop(criterion)
    figures = score(capsys, write_rows(tmp_path / "j", [row]), write_rows(tmp_path / "d", [item]))
    assert (figures["error_correction"], figures["respelt_criteria"], figures["failed"]) == (75.0, 1, 0)


def test_a_judge_that_answers_in_english_is_understood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    item = maintenance()
    row = tick(item, (False, True))
    row["judgement"] = {
        text: {"judgement reason": "Because.", "judgement result": "Yes" if is_met else "no", "weight": None}
        for text, is_met in zip(item["checklist"], (False, True), strict=True)
    }
    figures = score(capsys, write_rows(tmp_path / "j", [row]), write_rows(tmp_path / "d", [item]))
    assert figures["response_maintenance"] == 100.0


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        (correction(checklist=[["a", 0.5], ["b", 0.4]]), "the weights sum to 0.9, not to 1"),
        (correction(checklist=[["a", 0.5], "b"]), "some criteria have a weight and some have none"),
        (correction(checklist=[["a", 0.5], ["a", 0.5]]), "'a' stands there twice"),
        (correction(checklist=[["a", float("nan")]]), "the weight of criterion 1, nan, is not in 0 … 1"),
        (correction(checklist=["a"]), "Error Correction needs a weight for each criterion"),
        (correction(checklist=[]), "checklist: it is not a list that holds something"),
        (maintenance(checklist=[["a", 1]]), "Response Maintenance lists alternatives"),
        (maintenance(error_type=["Logical Error"]), "nothing is wrong with the first response"),
        (correction(feedback_type=["Misinformation"]), "'Misinformation' is no feedback of Error Correction"),
        (correction(error_type=None), "error_type: it is not a list"),
        (correction(bench_type="Other"), "bench_type: 'Other' is not"),
        (correction(user_query=7), "user_query: it is not a text"),
        (correction(feedback="a\0"), "feedback: it holds a NUL"),
    ],
)
def test_an_item_in_another_shape_is_refused_with_its_field(item: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UnusableItemError) as refusal:
        parse_item(item)
    assert sentence in str(refusal.value)


def test_a_bad_item_is_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = [correction("a"), correction("b", checklist=[["x", 0.2]]), correction("a")]
    judged = [tick(items[0], (True, True))]
    figures = score(capsys, write_rows(tmp_path / "j", judged), write_rows(tmp_path / "d", items))
    assert (figures["items"], figures["refused_items"]) == (1, 2)
    assert figures["problems"] == [
        "data set, row 2: checklist: the weights sum to 0.2, not to 1",
        "data set, row 3: user_query: 'a' stands in an earlier item, too",
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"[1,", "is not valid JSON"), (b"\xff", "is not UTF-8"), (b"[]", "holds no FB-Bench item")],
)
def test_a_file_that_cannot_be_read_is_refused(content: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_bytes(content)
    for judgments in (path, tmp_path / "nowhere"):
        with pytest.raises(CommandError, match=sentence):
            call_command("fb_bench", "score", str(judgments), "--dataset", str(path))


def test_each_task_has_its_temperature() -> None:
    assert [temperature_of(task) for task in ("Coding", "Knowledge Q&A", "Text Creation", "Text Translation")] == [
        0.0, 0.1, 0.7, 0.7,
    ]  # fmt: skip
