"""The formats of two responses each: trl, hh, shp and pandalm, which is a JSON array."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from annotation.importers import hh, shp, trl
from annotation.importers.reading import Record, read_records
from annotation.importers.rows import Row, UnusableRowError
from annotation.models import Comparison
from tests.importing import import_lines, reasons, run_import

# ── trl and hh ───────────────────────────────────────────────────────────────────────────────────────────────────


def texts(row: Row) -> tuple[str, str]:
    """(chosen, rejected), wherever the sides lie."""
    (verdict,) = row.verdicts
    a, b = (side.text for side in row.sides)
    return (a, b) if verdict.preference == "a" else (b, a)


USER = {"role": "user", "content": "Hi"}
MORE = {"role": "user", "content": "More"}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("record", "prompt", "pair"),
    [
        ({"prompt": "P", "chosen": "c", "rejected": "r"}, [{"role": "user", "content": "P"}], ("c", "r")),
        ({"prompt": "P", "chosen": "", "rejected": "r"}, [{"role": "user", "content": "P"}], ("", "r")),
        (
            {"chosen": "The sky is blue.", "rejected": "The sky is green."},
            [{"role": "user", "content": "The sky is"}],
            (" blue.", " green."),
        ),
        ({"prompt": [USER], "chosen": [said("c")], "rejected": [said("r")]}, [USER], ("c", "r")),
        ({"chosen": [USER, said("c")], "rejected": [USER, said("r")]}, [USER], ("c", "r")),
        ({"prompt": "Hi", "chosen": [USER, said("c")], "rejected": [USER, said("r")]}, [USER], ("c", "r")),
        (
            {"chosen": [USER, said("x"), MORE, said("c")], "rejected": [USER, said("x"), MORE, said("r")]},
            [USER, said("x"), MORE],
            ("c", "r"),
        ),
    ],
)
def test_trl_rows(record: dict[str, Any], prompt: Any, pair: tuple[str, str]) -> None:
    assert trl.recognises(record)
    row = trl.parse(record)
    assert (row.messages, texts(row)) == (prompt, pair)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"chosen": "Blue.", "rejected": "Green."}, "begin differently"),
        ({"prompt": 7, "chosen": "c", "rejected": "r"}, '"prompt" is 7, not text'),
        ({"prompt": "P", "chosen": "c", "rejected": None}, '"rejected" is null, not text'),
        ({"prompt": "P", "chosen": "c", "rejected": "c"}, "nothing to compare"),
        ({"prompt": [USER], "chosen": [said("c"), USER, said("d")], "rejected": [said("r")]}, "holds 3 messages"),
        ({"chosen": [USER, said("c")], "rejected": [MORE, said("r")]}, "differ before the last turn"),
        ({"prompt": "Other", "chosen": [USER, said("c")], "rejected": [USER, said("r")]}, '"prompt" is neither'),
        ({"chosen": [USER], "rejected": [USER, said("r")]}, "does not end with a turn of the assistant"),
        ({"chosen": [said("c")], "rejected": [said("r")]}, '"chosen" is not a list of messages'),
    ],
)
def test_unusable_trl_rows(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnusableRowError, match=reason):
        trl.parse(record)


def test_hh_transcripts_share_all_but_the_last_turn() -> None:
    start = "\n\nHuman: One?\n\nAssistant: First\n\nsecond paragraph\n\nHuman: Two?\n\nAssistant:"
    row = hh.parse({"chosen": f"{start} Yes.", "rejected": start})
    assert [message["role"] for message in row.messages] == ["user", "assistant", "user"]
    assert row.messages[1]["content"] == "First\n\nsecond paragraph"
    assert texts(row) == ("Yes.", "")
    again = hh.parse({"chosen": "\n\nHuman: One?\n\nAssistant: a", "rejected": "\n\nHuman: One?\n\nAssistant: b"})
    assert again.group == row.group  # the same dialogue at another depth


def test_side_does_not_tell_which_response_is_better() -> None:
    one = hh.parse({"chosen": "\n\nHuman: Q\n\nAssistant: x", "rejected": "\n\nHuman: Q\n\nAssistant: y"})
    other = hh.parse({"chosen": "\n\nHuman: Q\n\nAssistant: y", "rejected": "\n\nHuman: Q\n\nAssistant: x"})
    assert one.sides == other.sides
    assert {one.verdicts[0].preference, other.verdicts[0].preference} == {"a", "b"}


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        ("\n\nHuman: Q\n\nAssistant: a", "\n\nHuman: Other\n\nAssistant: a", "share no prompt"),
        ("\n\nHuman: Q\n\nAssistant: a", "\n\nHuman: Q", '"rejected" does not end with a turn of the assistant'),
        ("Human: Q\n\nAssistant: a", "\n\nHuman: Q\n\nAssistant: b", '"chosen" does not begin with'),
        ("", "\n\nHuman: Q\n\nAssistant: b", '"chosen" does not begin with'),
        ("\n\nAssistant: a", "\n\nAssistant: b", '"chosen" is not a list of messages'),
        ("\n\nHuman: Q\n\nAssistant: a", ["b"], "not text"),
    ],
)
def test_unusable_hh_rows(chosen: Any, rejected: Any, reason: str) -> None:
    with pytest.raises(UnusableRowError, match=reason):
        hh.parse({"chosen": chosen, "rejected": rejected})


# ── pandalm and JSON arrays ──────────────────────────────────────────────────────────────────────────────────────


def pandalm_row(**changes: Any) -> dict[str, Any]:
    return {
        "idx": 4,
        "motivation_app": "Search",
        "cmp_key": "opt-7b_llama-7b",
        "instruction": "Do it.",
        "input": "",
        "response1": "one",
        "response2": "",
        "annotator1": 2,
        "annotator2": 0,
        **changes,
    }


@pytest.mark.django_db
def test_pandalm_array(tmp_path: Path) -> None:
    path = tmp_path / "array.json"
    rows = [
        pandalm_row(),
        pandalm_row(idx=5, response1=True),
        pandalm_row(idx=6, cmp_key="one"),
        pandalm_row(idx=7, input="With this.", annotator2=3),
    ]
    path.write_text(json.dumps(rows, indent=1))
    done = run_import(path)
    assert done["format"] == "pandalm"
    assert (done["rows"], done["comparisons"], done["judgments"]) == (4, 2, 3)
    assert [(entry["item"], entry["reason"]) for entry in done["skipped"]] == [
        (2, '"response1" is true, not text'),
        (3, '"cmp_key" does not name two models with one underscore between them'),
        (4, "the verdict is not 0, 1 or 2"),
    ]
    assert [entry["line"] for entry in done["skipped"]] == [13, 24, 35]
    first = Comparison.objects.get(external_id="pandalm-4")
    assert (first.response_a.source.name, first.response_b.source.name) == ("opt-7b", "llama-7b")
    assert first.response_b.text == ""
    assert set(first.judgments.values_list("annotator__name", "preference")) == {
        ("annotator1", "b"),
        ("annotator2", "tie"),
    }
    last = Comparison.objects.get(external_id="pandalm-7")
    assert last.prompt.messages == [{"role": "user", "content": "Do it.\n\nWith this."}]


def records_of(tmp_path: Path, text: str) -> list[Record]:
    path = tmp_path / "array.json"
    path.write_text(text)
    with path.open("rb") as file:
        return list(read_records(file))


def test_array_elements_longer_than_any_chunk_are_read(tmp_path: Path) -> None:
    rows = [{"text": "é" * 300_000, "number": number} for number in range(3)] + [{"text": "", "number": 3}]
    records = records_of(tmp_path, " [\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n")
    assert [record.value for record in records] == rows
    assert [(record.line, record.item) for record in records] == [(2, 1), (3, 2), (4, 3), (5, 4)]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('[{"a": 1}, {"a": ', "nothing can be read from here on: it is not JSON: Expecting value"),
        ('[{"a": 1}, {"a" 2}]', "nothing can be read from here on: it is not JSON"),
        ('[{"a": 1} {"a": 2}]', "a comma or the closing bracket is missing"),
        ('[{"a": 1}', "nothing can be read from here on: the file ends here"),
        ('[{"a": 1}, {"a": 1, "a": 2}]', 'the key "a" occurs twice in one object'),
        ('[{"a": 1}, 7]', "it is not a JSON object"),
    ],
)
def test_broken_array_gives_what_stands_before_the_break(tmp_path: Path, text: str, error: str) -> None:
    first, broken = records_of(tmp_path, text)
    assert first.value == {"a": 1}
    assert (broken.value, broken.item) == (None, 2)
    assert error in broken.error


# ── shp ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def shp_row(**changes: Any) -> dict[str, Any]:
    return {
        "post_id": "p1",
        "domain": "askbaking_train",
        "history": "How long does it keep?",
        "c_root_id_A": "c1",
        "c_root_id_B": "c2",
        "human_ref_A": "A week.",
        "human_ref_B": "A day.",
        "score_A": 8,
        "score_B": 2,
        "score_ratio": 4.0,
        "labels": 1,
        **changes,
    }


@pytest.mark.django_db
def test_shp_rows(tmp_path: Path) -> None:
    rows = [shp_row(), shp_row(c_root_id_B="c3", human_ref_B="Two days.", labels=0), shp_row(labels=2)]
    done = import_lines(tmp_path, rows)
    assert (done["format"], done["comparisons"], done["prompts"]) == ("shp", 2, 1)
    assert reasons(done) == [(3, '"labels" is not 1 (A is the better) or 0')]
    first, second = Comparison.objects.order_by("external_id")
    assert (first.external_id, first.prompt.group, first.judgments.get().preference) == ("shp-c1-c2", "shp-p1", "a")
    assert (second.response_a.text, second.judgments.get().preference) == ("A week.", "b")
    assert first.meta["score_ratio"] == 4.0
    assert shp.parse(shp_row(post_id=None, c_root_id_A=None)).external_id == ""
