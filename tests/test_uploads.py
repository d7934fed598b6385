"""Uploaded tables: what is refused in which words, what columns mean, and imports that are whole or nothing."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from django.contrib.auth.models import User
from pyarrow import parquet

from annotation.errors import DomainError
from annotation.models import Comparison, DataJobStatus, Event, EventKind, Project, Prompt, Response
from annotation.services import uploads
from annotation.services.uploads import Reading, preview, start_check, start_import
from annotation.study_figures import labels_of
from annotation.upload_files import KeptUpload, kept_upload
from annotation.uploads import (
    FileKind,
    MappedRow,
    UploadRefusedError,
    check_mapping,
    guess_mapping,
    open_table,
)
from tests.factories import make_project, make_prompt, make_user

TABLE = [
    {"question": "What is rain?", "answer_1": "Water, that falls.", "answer_2": "No.", "category": "nature", "n": "7"},
    {"question": "Say “hi”,\nplease", "answer_1": "Hi!", "answer_2": "Why?", "category": "", "n": "8"},
    {"question": "什么是雪？", "answer_1": "冻结的水。", "answer_2": "不知道。", "category": "nature", "n": "9"},
]  # fmt: skip


def csv_bytes(rows: list[dict[str, str]], delimiter: str = ",") -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def parquet_bytes(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


FILES = {
    "table.csv": csv_bytes(TABLE),
    "semicolons.csv": csv_bytes(TABLE, ";"),
    "marked.csv": b"\xef\xbb\xbf" + csv_bytes(TABLE),
    "table.tsv": csv_bytes(TABLE, "\t"),
    "table.jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in TABLE).encode(),
    "table.json": json.dumps(TABLE, indent=1).encode(),
    "table.parquet": parquet_bytes(TABLE),
    "no_suffix": csv_bytes(TABLE),
}


@pytest.mark.parametrize("name", FILES)
def test_the_same_table_is_read_from_every_kind_of_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(FILES[name])
    table = open_table(path, name)
    assert table.columns == list(TABLE[0])
    assert [record.value for record in table.records()] == TABLE
    assert table.rows_or_more() == 0 if name == "table.json" else 3 <= table.rows_or_more() <= 6


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("book.xlsx", b"PK\x03\x04rest", "Excel workbook"),
        ("data.jsonl.gz", b"\x1f\x8b\x08rest", "gzip"),
        ("paper.pdf", b"%PDF-1.7", "PDF"),
        ("cat.png", b"\x89PNG\r\n", "picture"),
        ("excel.csv", "a;b\n1;2".encode("utf-16"), "UTF-16"),
        ("program", b"\x7fELF\x02\0\0\0", "binary file"),
        ("empty.csv", b"", "empty"),
        ("blank.jsonl", b"\xef\xbb\xbf \n\n", "empty"),
        ("header.csv", b"prompt,task\n", "a header and no rows"),
        ("latin.csv", b"prompt\nfine\ncaf\xe9\n", "Line 3 is not UTF-8: byte 4 of it is 0xE9"),
        ("twice.csv", b"a,b,a\n1,2,3\n", "Two columns are named “a”"),
        ("wrong.jsonl", b"{not json}\n", "Line 1: it is not JSON"),
        ("cut.parquet", parquet_bytes(TABLE)[:-20], "cannot be read as one"),
        ("quotes.csv", b'prompt,task\n"never closed,x\n', "Line 2"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_what_to_do(
    name: str, content: bytes, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UploadRefusedError) as refused:
        open_table(path, name)
    assert says in str(refused.value)


def test_broken_rows_name_their_line_and_cost_themselves_only(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b'prompt,task\n"two\nlines",x\n\nshort\nfine,y\n')
    records = list(open_table(path, "x.csv").records())
    assert [(record.line, record.error.split(",")[0]) for record in records] == [
        (2, ""),
        (5, "it has 1 fields and the header has 2"),
        (6, ""),
    ]
    assert records[0].value == {"prompt": "two\nlines", "task": "x"}


def test_plain_lines_are_prompts(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("What, now?\n\n  And then?\n")
    table = open_table(path, "prompts.txt")
    assert table.kind == FileKind.LINES
    assert [record.value for record in table.records()] == [{"prompt": "What, now?"}, {"prompt": "And then?"}]


@pytest.mark.parametrize(
    ("columns", "mapping"),
    [
        (["Question", "Answer 1", "answer-2", "Category"], {"prompt": "Question", "response_a": "Answer 1",
                                                            "response_b": "answer-2", "task": "Category"}),
        (["messages", "prompt", "lang", "id"], {"messages": "messages", "lang": "lang", "id": "id"}),
        (["指令", "语言"], {"prompt": "指令", "lang": "语言"}),
        (["foo", "bar"], {}),
        (["prompt", "response_1", "response_2", "response_3", "model_3"], {
            "prompt": "prompt", "response_a": "response_1", "response_b": "response_2", "response_c": "response_3",
            "source_c": "model_3"}),
        (["prompt", "answer_3"], {"prompt": "prompt"}),
    ],
)  # fmt: skip
def test_columns_are_guessed_by_their_names(columns: list[str], mapping: dict[str, str]) -> None:
    assert guess_mapping(columns) == mapping


@pytest.mark.parametrize(
    "mapping",
    [
        {},
        {"task": "a"},
        {"prompt": "a", "messages": "b"},
        {"prompt": "a", "response_a": "b"},
        {"prompt": "a", "task": "a"},
        {"prompt": "a", "response_c": "b"},
        {"prompt": "a", "response_a": "b", "response_b": "c", "source_d": "d"},
    ],
)
def test_a_mapping_that_makes_no_rows_is_refused(mapping: dict[str, str]) -> None:
    with pytest.raises(UploadRefusedError):
        check_mapping(mapping)


def test_known_formats_are_recognised_in_every_kind_of_file(tmp_path: Path) -> None:
    rows = [{"prompt": "Why?", "chosen": "Because.", "rejected": "No."}]
    for name, content in (("x.csv", csv_bytes(rows)), ("x.parquet", parquet_bytes(rows))):
        path = tmp_path / name
        path.write_bytes(content)
        table = open_table(path, name)
        assert table.formats == ["trl"]
        [(line, row, problem)] = preview(table, Reading("trl"), 20)
        assert (line, problem) == (2 if name == "x.csv" else 1, "")
        assert not isinstance(row, MappedRow) and row is not None


def test_conversations_that_wait_for_an_answer_are_prompts(tmp_path: Path) -> None:
    asked = {"role": "user", "content": "Why?"}
    answered = [asked, {"role": "assistant", "content": "Because."}]
    for rows, likeliest in (
        ([{"messages": [asked]}], ""),
        ([{"messages": [*answered, asked]}], ""),
        ([{"messages": answered}], "messages"),
    ):
        path = tmp_path / "file"
        path.write_text("\n".join(map(json.dumps, rows)))
        assert open_table(path, "x.jsonl").likeliest == likeliest


# ── Into the database ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def project(db: None, settings: Any, tmp_path: Path) -> Project:
    settings.UPLOADS_DIR = tmp_path / "uploads"
    return make_project()


@pytest.fixture
def user(db: None) -> User:
    return make_user()


def keep(project: Project, name: str, content: bytes, settings: Any) -> KeptUpload:
    upload = KeptUpload("ab" * 16, project.pk, name, len(content))
    upload.folder.mkdir(parents=True, exist_ok=True)
    upload.path.write_bytes(content)
    (upload.folder / "about.json").write_text(json.dumps(vars(upload)))
    return upload


MAPPED = Reading(
    mapping={"prompt": "question", "response_a": "answer_1", "response_b": "answer_2", "task": "category"}
)


def test_a_check_says_what_the_import_then_does(project: Project, user: User, settings: Any) -> None:
    rows = [*TABLE, TABLE[0] | {"question": " "}, TABLE[0] | {"question": "Same?", "answer_1": "x", "answer_2": "x"}]
    upload = keep(project, "table.csv", csv_bytes(rows), settings)
    check = start_check(project, upload, MAPPED, user=user)
    assert check.status == DataJobStatus.DONE, check.error
    assert not Prompt.objects.exists() and not Comparison.objects.exists()
    counts = {name: check.result[name] for name in ("rows", "new", "there", "refused", "prompts", "comparisons")}
    assert check.done <= check.total
    assert counts == {"rows": 5, "new": 4, "there": 0, "refused": 1, "prompts": 4, "comparisons": 4}
    assert check.result["reasons"] == [{"line": 6, "item": None, "reason": "“question” is empty"}]

    with pytest.raises(DomainError):
        start_import(check, leave_out=False, user=user)
    done = start_import(check, leave_out=True, user=user)
    assert {name: done.result[name] for name in counts} == counts
    prompt = Prompt.objects.get(task="nature", messages__0__content="What is rain?")
    assert list(prompt.responses.order_by("pk").values_list("text", "source__name")) == [
        ("Water, that falls.", "answer_1 (table.csv)"),
        ("No.", "answer_2 (table.csv)"),
    ]
    assert Comparison.objects.get(prompt__messages__0__content="Same?").required_count == 0
    assert kept_upload(project, upload.token) is None, "what is imported is not kept"
    assert Event.objects.filter(kind=EventKind.IMPORT, project=project).count() == 1

    again = keep(project, "table.csv", csv_bytes(rows), settings)
    second = start_check(project, again, MAPPED, user=user)
    assert (second.result["new"], second.result["there"]) == (0, 4)


def test_rows_of_three_to_nine_responses_become_rankings(project: Project, user: User, settings: Any) -> None:
    names = [f"response_{number}" for number in range(1, 10)]

    def row(question: str, *texts: str) -> dict[str, str]:
        return {"question": question, **dict.fromkeys(names, ""), **dict(zip(names, texts, strict=False))}

    rows = [
        row("All nine?", *map(str, range(9))),
        row("Three, with a gap?", "one", "two", "", "four"),
        row("Two?", "one", "two"),
        row(" ", "one", "two", "three"),
    ]
    upload = keep(project, "many.csv", csv_bytes(rows), settings)
    reading = Reading(mapping=guess_mapping(list(rows[0])))
    shown = preview(open_table(upload.path, upload.name), reading, 20)
    sides = [len(found.row.sides) for _line, found, _problem in shown if isinstance(found, MappedRow) and found.row]
    assert sides == [9, 3, 2]
    check = start_check(project, upload, reading, user=user)
    assert (check.result["comparisons"], check.result["refused"]) == (3, 1)
    assert check.result["reasons"] == [{"line": 5, "item": None, "reason": "“question” is empty"}]
    start_import(check, leave_out=True, user=user)
    counts = project.comparisons.order_by("response_count").values_list("response_count", flat=True)
    assert list(counts) == [2, 3, 9]
    ranked = project.comparisons.get(response_count=3)
    further = ranked.further_responses.get().response
    assert (further.text, further.source.name) == ("four", "response_4 (many.csv)")


def test_prompts_alone_bring_their_labels(project: Project, user: User, settings: Any) -> None:
    make_prompt(project, "What is rain?")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    rows = [
        {"text": "What is rain?", "tags": "a, b;c", "skill": "law", "topic": "rain", "language": "en", "group": ""},
        {"text": "What is snow?", "tags": "", "skill": "", "topic": "", "language": "", "group": "g1"},
    ]
    upload = keep(project, "p.csv", csv_bytes(rows), settings)
    check = start_check(project, upload, Reading(mapping=guess_mapping(list(rows[0]))), user=user)
    assert (check.result["new"], check.result["there"]) == (1, 1)
    done = start_import(check, leave_out=False, user=user)
    assert done.status == DataJobStatus.DONE
    assert Prompt.objects.get(group="g1").messages[0]["content"] == "What is snow?"
    assert Event.objects.get(kind=EventKind.IMPORT).data["prompts"] == 1

    table = [{"chat": json.dumps(messages), "tags": "x;y"}, {"chat": "[1]", "tags": ""}]
    upload = keep(project, "m.csv", csv_bytes(table), settings)
    check = start_check(project, upload, Reading(mapping={"messages": "chat", "tags": "tags"}), user=user)
    assert (check.result["new"], check.result["refused"]) == (1, 1)
    start_import(check, leave_out=True, user=user)
    assert Prompt.objects.get(messages__0__role="system").tags == ["x", "y"]


def test_tags_of_json_lines_are_lists_or_texts_and_a_wrong_one_names_its_line(
    project: Project, user: User, settings: Any
) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "A list?", "tags": ["format:table", "difficulty:hard"]},
        {"prompt": "A text?", "tags": "difficulty:hard，format:table"},
        {"prompt": "A number?", "tags": ["fine", 7]},
        {"prompt": "Too long?", "tags": "x" * 61},
        {"prompt": "Too many?", "tags": [f"t{n}" for n in range(101)]},
    ]
    upload = keep(project, "tags.jsonl", "\n".join(map(json.dumps, rows)).encode(), settings)
    check = start_check(project, upload, Reading(mapping=guess_mapping(list(rows[0]))), user=user)
    assert [(reason["line"], reason["reason"]) for reason in check.result["reasons"]] == [
        (3, '"tags" is 7, not text'),
        (4, '"tags" is longer than 60 characters'),
        (5, '"tags" holds 101 tags: a prompt can have 100'),
    ]
    start_import(check, leave_out=True, user=user)
    assert [labels_of(prompt.task, prompt.lang, prompt.tags)["difficulty"] for prompt in project.prompts.all()] == [
        ["hard"],
        ["hard"],
    ]


def test_a_known_format_brings_its_judgments(project: Project, user: User, settings: Any) -> None:
    rows = [{"prompt": f"Why {n}?", "chosen": "Because.", "rejected": "No."} for n in range(3)]
    upload = keep(project, "x.parquet", parquet_bytes(rows), settings)
    check = start_check(project, upload, Reading("trl"), user=user)
    assert (check.result["new"], check.result["judgments"]) == (3, 3)
    start_import(check, leave_out=False, user=user)
    assert Comparison.objects.filter(project=project, judgments__isnull=False).count() == 3


def test_an_import_that_breaks_leaves_nothing(
    project: Project, user: User, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = keep(project, "table.csv", csv_bytes(TABLE), settings)
    check = start_check(project, upload, MAPPED, user=user)

    def break_off(*args: object, **more: object) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(uploads, "store_rows", break_off)
    done = start_import(check, leave_out=False, user=user)
    assert done.status == DataJobStatus.FAILED
    assert "nobody foresaw" in done.error
    assert not Prompt.objects.exists() and not Response.objects.exists()
    assert kept_upload(project, upload.token) is not None, "so that it can be tried again"


def test_an_upload_belongs_to_its_project(project: Project, settings: Any) -> None:
    upload = keep(project, "x.csv", b"a\n1\n", settings)
    assert kept_upload(project, upload.token) == upload
    assert kept_upload(make_project(), upload.token) is None
    assert kept_upload(project, "../" + upload.token) is None
