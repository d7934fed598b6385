"""Importing judged comparisons: formats, accounting, bad input, second runs and two at once."""

from __future__ import annotations

import io
import itertools
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from annotation.importers import ImportRefusedError, hh, import_file, trl
from annotation.importers.reading import Record, read_records
from annotation.importers.rows import Row, UnusableRowError
from annotation.models import Annotator, Comparison, Judgment, Project, Prompt, Response, ResponseSource
from tests.factories import make_project, make_source

CREATED = ("prompts", "responses", "comparisons", "judgments")


def touchstone_row(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"row-{number}",
        "group": f"group-{number}",
        "lang": "en",
        "prompt": f"Question {number}?",
        "messages": None,
        "responses": [{"model": "model-x", "text": f"X{number}"}, {"model": "model-y", "text": f"Y{number}"}],
        "annotations": [{"annotator": "ann", "human": True, "preferred_index": 0, "tie": False}],
        "meta": {},
        **changes,
    }


def annotation(**changes: Any) -> dict[str, Any]:
    return {"annotator": "ann", "human": True, "preferred_index": 0, "tie": False, **changes}


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return path


def import_lines(tmp_path: Path, rows: list[Any], **options: Any) -> dict[str, Any]:
    """The command's JSON over these rows (dictionaries, or bytes to be written as they are)."""
    return run_import(write_lines(tmp_path / "rows.jsonl", rows), **options)


def run_import(path: Path, *, project: str = "imported", **options: Any) -> dict[str, Any]:
    out = io.StringIO()
    call_command("import_preferences", path, project=project, json=True, stdout=out, stderr=io.StringIO(), **options)
    return json.loads(out.getvalue())


def reasons(done: dict[str, Any]) -> list[tuple[int, str]]:
    return [(entry["line"], entry["reason"]) for entry in done["skipped"]]


# ── What goes in ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.django_db
def test_touchstone_row_keeps_all_it_says(tmp_path: Path) -> None:
    history = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    row = touchstone_row(
        messages=[*history, {"role": "user", "content": "More?"}],
        source="a_study",
        meta={"category": "writing"},
        annotations=[
            annotation(annotator="expert", strength=-2, rationale="shorter", shown_first="model-y"),
            annotation(annotator="judge", human=False, preferred_index=None, tie=True, strength=0),
            annotation(annotator="third", preferred_index=None, neither=True),
        ],
    )
    done = import_lines(tmp_path, [row])
    assert {key: done[key] for key in (*CREATED, "rows", "skipped")} == {
        "rows": 1,
        "prompts": 1,
        "responses": 2,
        "comparisons": 1,
        "judgments": 3,
        "skipped": [],
    }
    comparison = Comparison.objects.get(external_id="row-1")
    assert (comparison.prompt.group, comparison.prompt.lang) == ("group-1", "en")
    assert comparison.prompt.messages == row["messages"]
    assert comparison.meta == {"source": "a_study", "category": "writing"}
    assert (comparison.response_a.text, comparison.response_a.source.name) == ("X1", "model-x")
    assert (comparison.response_b.text, comparison.response_b.source.name) == ("Y1", "model-y")
    expert, judge, third = comparison.judgments.order_by("annotator__name")
    assert (expert.preference, expert.strength, expert.note) == ("a", -2, "shorter")
    assert expert.meta == {"shown_first": "model-y"}
    assert (judge.preference, judge.strength, judge.annotator.is_human) == ("tie", 0, False)
    assert (third.preference, third.strength, third.annotator.is_human) == ("neither", None, True)


@pytest.mark.django_db
def test_judged_rows_ask_nobody_and_unjudged_rows_ask_people(tmp_path: Path) -> None:
    make_project("imported", judgments_per_comparison=3)
    same = [{"model": "x", "text": "same"}, {"model": "y", "text": "same"}]
    import_lines(
        tmp_path,
        [
            touchstone_row(1),
            touchstone_row(2, annotations=[]),
            touchstone_row(3, annotations=[], responses=same),
        ],
    )
    required = Comparison.objects.order_by("external_id").values_list("required_count", flat=True)
    assert list(required) == [0, 3, 0]


@pytest.mark.django_db
def test_one_response_in_two_comparisons_is_stored_once(tmp_path: Path) -> None:
    rows = [
        touchstone_row(1),
        touchstone_row(
            2,
            group="group-1",
            prompt="Question 1?",
            responses=[{"model": "model-x", "text": "X1"}, {"model": "model-z", "text": "Z"}],
        ),
    ]
    done = import_lines(tmp_path, rows)
    assert (done["prompts"], done["responses"], done["comparisons"]) == (1, 3, 2)


@pytest.mark.django_db
def test_one_author_may_give_several_texts_and_several_authors_one_text(tmp_path: Path) -> None:
    rows = [
        touchstone_row(1, responses=[{"model": None, "text": "one"}, {"model": None, "text": "two"}]),
        touchstone_row(2, responses=[{"model": "x", "text": "same"}, {"model": "y", "text": "same"}]),
        touchstone_row(3, responses=[{"model": "x", "text": "same"}, {"model": "x", "text": "same"}]),
    ]
    done = import_lines(tmp_path, rows)
    assert done["comparisons"] == 2
    assert reasons(done) == [(3, "both responses are the same text by the same source: there is nothing to compare")]
    first = Response.objects.filter(prompt__group="group-1").order_by("sample_index")
    assert [(r.source.name, r.sample_index, r.text) for r in first] == [
        ("unknown (touchstone)", 0, "one"),
        ("unknown (touchstone)", 1, "two"),
    ]


@pytest.mark.django_db
def test_a_history_of_its_own_is_kept_with_the_response(tmp_path: Path) -> None:
    history = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Two?"},
    ]
    row = touchstone_row(
        prompt="Two?",
        responses=[{"model": "x", "text": "2", "messages": history}, {"model": "y", "text": "2"}],
    )
    import_lines(tmp_path, [row])
    comparison = Comparison.objects.get()
    assert comparison.prompt.messages == [{"role": "user", "content": "Two?"}]
    assert (comparison.response_a.messages, comparison.response_b.messages) == (history, None)


@pytest.mark.django_db
def test_name_of_a_model_that_is_served_here_is_not_taken_for_it(tmp_path: Path) -> None:
    make_source("model-x", kind="model", served_model="/models/x")
    import_lines(tmp_path, [touchstone_row()])
    comparison = Comparison.objects.get()
    assert comparison.response_a.source.name == "model-x (imported)"
    assert import_lines(tmp_path, [touchstone_row()])["responses"] == 0


# ── Accounting and second runs ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.django_db
def test_every_row_is_new_or_there_already_or_skipped(tmp_path: Path) -> None:
    rows = [touchstone_row(1), touchstone_row(2, responses=[]), touchstone_row(1), b"", touchstone_row(3)]
    done = import_lines(tmp_path, rows)
    row_skips = [entry for entry in done["skipped"] if "annotator" not in entry]
    assert (done["rows"], done["comparisons"], done["already_there"], len(row_skips)) == (4, 2, 1, 1)
    assert Comparison.objects.count() == 2


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["touchstone", "trl", "hh", "pandalm"])
def test_second_run_adds_nothing(tmp_path: Path, name: str) -> None:
    rows = {
        "touchstone": [touchstone_row(1), touchstone_row(2, annotations=[annotation(), annotation()])],
        "trl": [{"prompt": "P", "chosen": "c", "rejected": "r"}, {"chosen": "The sky is blue", "rejected": "The sea"}],
        "hh": [{"chosen": "\n\nHuman: Q\n\nAssistant: c", "rejected": "\n\nHuman: Q\n\nAssistant: r"}],
        "pandalm": [pandalm_row()],
    }[name]
    first = import_lines(tmp_path, rows)
    second = import_lines(tmp_path, rows)
    assert first["format"] == second["format"] == name
    assert first["comparisons"] == second["already_there"] == len(rows)
    assert [second[key] for key in CREATED] == [0, 0, 0, 0]
    assert second["skipped"] == first["skipped"]


@pytest.mark.django_db
def test_later_file_adds_new_verdicts_to_known_comparisons(tmp_path: Path) -> None:
    import_lines(tmp_path, [touchstone_row()])
    votes = [
        annotation(preferred_index=1),
        annotation(annotator="new"),
        annotation(annotator="ann2", human=False),
    ]
    done = import_lines(tmp_path, [touchstone_row(annotations=votes)])
    assert (done["comparisons"], done["judgments"]) == (0, 2)
    assert done["skipped"] == [{"line": 1, "annotator": "ann", "reason": "judged it otherwise before; that stands"}]
    assert Judgment.objects.get(annotator__name="ann").preference == "a"


@pytest.mark.django_db
def test_taken_id_and_changed_kind_of_annotator_are_reported(tmp_path: Path) -> None:
    import_lines(tmp_path, [touchstone_row(1)])
    other = touchstone_row(1, responses=[{"model": "x", "text": "other"}, {"model": "y", "text": "texts"}])
    done = import_lines(tmp_path, [other, touchstone_row(2, annotations=[annotation(human=False)])])
    assert done["comparisons"] == 1
    assert done["judgments"] == 0
    assert [line for line, _ in reasons(done)] == [1, 2]
    assert "the id row-1 is taken" in done["skipped"][0]["reason"]
    assert "is known in this project as a person" in done["skipped"][1]["reason"]
    assert Annotator.objects.get(name="ann").is_human


@pytest.mark.django_db(transaction=True)
def test_two_imports_of_one_file_at_once_store_it_once(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [touchstone_row(number) for number in range(300)])
    results: list[Any] = []

    def run(project: str) -> None:
        try:
            results.append(import_file(path, project))
        finally:
            connection.close()

    # A third one shares sources, not the project: it must neither fail nor deadlock.
    threads = [threading.Thread(target=run, args=[project]) for project in ("same", "same", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same = [done for done in results if done.project == "same"]
    assert sorted(done.comparisons for done in same) == [0, 300]
    assert sorted(done.already_there for done in same) == [0, 300]
    assert Judgment.objects.filter(comparison__project__slug="same").count() == 300
    assert Judgment.objects.filter(comparison__project__slug="other").count() == 300
    assert ResponseSource.objects.count() == 2


# ── Bad input ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": 1', "it is not JSON: Expecting ',' delimiter at column 9"),
        (b'{"prompt": "a\xff"}', "it is not UTF-8 (byte 14 of the line)"),
        (b'{"prompt": "a", "prompt": "b"}', 'the key "prompt" occurs twice in one object'),
        (rb'{"prompt": "a\u0000b"}', "it holds the character U+0000, which the database cannot store"),
        (rb'{"prompt": "\ud83d"}', "it holds half of a surrogate pair, which is not a character"),
        (rb'{"\ud83d": 1}', "it holds half of a surrogate pair, which is not a character"),
        (b'{"prompt": NaN}', "NaN is not JSON"),
        (b'{"prompt": 1e999}', "the number 1e999 is too large"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b"7", "it is not a JSON object"),
        (b'{"prompt": "' + b"x" * (17 * 2**20) + b'"}', "it is longer than 16 MiB"),
        (touchstone_row(5, responses=[{"text": "one"}]), "it holds one response: a rating, not a comparison"),
        (touchstone_row(5, responses=[{"text": "x"}] * 3), "it holds 3 responses: only pairs can be compared so far"),
        (touchstone_row(5, prompt=None), '"prompt" is null, not text'),
        (touchstone_row(5, id="x" * 181), '"id" is longer than 180 characters'),
        (touchstone_row(5, lang="x" * 21), '"lang" is longer than 20 characters'),
        (touchstone_row(5, meta=[1]), '"meta" is not an object'),
        (touchstone_row(5, annotations=None), '"annotations" is not a list'),
        (
            touchstone_row(5, responses=[{"text": True}, {"text": "b"}]),
            '"responses[0].text" is true, not text',
        ),
        (
            touchstone_row(5, messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]),
            '"messages" does not end with a turn of the user',
        ),
        (
            touchstone_row(5, messages=[{"role": "tool", "content": "a"}]),
            'message 1 of "messages" has the role "tool": known are system, user, assistant',
        ),
    ],
    ids=itertools.count(),
)
def test_unusable_row_is_reported_and_the_rest_goes_in(tmp_path: Path, line: Any, reason: str) -> None:
    done = import_lines(tmp_path, [touchstone_row(1), line, touchstone_row(3)])
    assert reasons(done) == [(2, reason)]
    assert (done["rows"], done["comparisons"]) == (3, 2)
    assert set(Comparison.objects.values_list("external_id", flat=True)) == {"row-1", "row-3"}


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("vote", "reason"),
    [
        ("text", "is not an object"),
        (annotation(annotator=" "), '"annotator" is not a name of 1 to 180 characters'),
        (annotation(annotator=None), '"annotator" is not a name of 1 to 180 characters'),
        (annotation(annotator="b", human="yes"), '"human" is not true or false'),
        (annotation(annotator="b", preferred_index=2), '"preferred_index" is not 0, 1 or null'),
        (annotation(annotator="b", preferred_index=True), '"preferred_index" is not 0, 1 or null'),
        (annotation(annotator="b", tie=True), '"preferred_index" and "tie" give more than one verdict'),
        (annotation(annotator="b", preferred_index=None), '"preferred_index" and "tie" give no verdict'),
        (annotation(annotator="b", strength=2), '"strength" is 2, which does not fit the verdict'),
        (annotation(annotator="b", strength=-1.5), '"strength" is -1.5, which does not fit the verdict'),
        (annotation(annotator="b", rationale=["long"]), '"rationale" is not text'),
        (annotation(preferred_index=1), "voted twice on this comparison; the first vote is kept"),
    ],
)
def test_unusable_verdict_is_reported_and_the_others_go_in(tmp_path: Path, vote: Any, reason: str) -> None:
    done = import_lines(tmp_path, [touchstone_row(annotations=[annotation(), vote])])
    (entry,) = done["skipped"]
    assert entry["line"] == 1
    assert entry["reason"].startswith(reason)
    assert entry["annotator"]
    assert (done["comparisons"], done["judgments"]) == (1, 1)
    assert Judgment.objects.get().preference == "a"


@pytest.mark.django_db
def test_truncated_last_line_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    whole = json.dumps(touchstone_row(2))
    path.write_text(json.dumps(touchstone_row(1)) + "\n" + whole[: len(whole) // 2])
    done = run_import(path)
    assert done["comparisons"] == 1
    assert done["skipped"][0]["line"] == 2
    assert done["skipped"][0]["reason"].endswith("the file ends in the middle of it")


@pytest.mark.django_db
def test_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "windows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(json.dumps(touchstone_row(n)).encode() for n in (1, 2)) + b"\r\n")
    assert run_import(path)["comparisons"] == 2


REFUSED = {
    "csv": (b"a,b\n1,2\n", "is neither JSON Lines nor a JSON array of objects: line 1"),
    "empty": (b"\n \n", "holds no rows"),
    "unknown": (
        b'{"question": "q", "answer": "a"}\n',
        "is in no format that is known here. Its first row holds question",
    ),
    "unpaired": (b'{"prompt": "p", "completion": "c", "label": true}\n', "is in no format that is known here"),
    "binary": (bytes(range(256)) * 40, "is neither JSON Lines nor a JSON array"),
    "scalars": (b"[1, 2, 3]", "is neither JSON Lines nor a JSON array of objects"),
}


@pytest.mark.django_db
@pytest.mark.parametrize("name", REFUSED)
def test_file_of_no_known_format_is_refused_whole(tmp_path: Path, name: str) -> None:
    content, sentence = REFUSED[name]
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(CommandError, match=sentence):
        run_import(path)
    assert not Project.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("named", "row", "sentence"),
    [
        ("touchstone", {"prompt": "p", "chosen": "c", "rejected": "r"}, "It looks like the format trl"),
        ("trl", {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": ""}, "It looks like the format hh"),
        ("hh", {"prompt": "p", "chosen": "c", "rejected": "r"}, "It looks like the format trl"),
        ("pandalm", {"responses": [], "prompt": ""}, "It looks like the format touchstone"),
        ("pandalm", {"x": 1}, "is not in the pandalm format: its rows hold no"),
        ("helpsteer2", {"x": 1}, "helpsteer2 is not supported yet; supported: touchstone, pandalm, hh, trl"),
    ],
)
def test_file_that_is_not_the_named_format_is_refused_whole(
    tmp_path: Path, named: str, row: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(CommandError, match=sentence):
        import_lines(tmp_path, [row], format=named)
    assert not Project.objects.exists()


@pytest.mark.django_db
def test_missing_file_folder_and_bad_slug_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="No such file"):
        run_import(tmp_path / "none.jsonl")
    with pytest.raises(CommandError, match="Is a directory"):
        run_import(tmp_path)
    with pytest.raises(CommandError, match="--project two words: Enter a valid"):
        import_lines(tmp_path, [touchstone_row()], project="two words")
    assert not Project.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_nothing_stays_of_an_import_that_breaks_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from annotation.importers import store

    monkeypatch.setattr(store, "BATCH_ROWS", 2)
    path = write_lines(tmp_path / "rows.jsonl", [touchstone_row(number) for number in range(6)])

    def break_off(message: str) -> None:
        if message.startswith("4 rows"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_file(path, "half", progress=break_off)
    assert not Project.objects.exists()
    assert not Prompt.objects.exists()
    assert import_file(path, "half").comparisons == 6


# ── trl and hh ───────────────────────────────────────────────────────────────────────────────────────────────────


def texts(row: Row) -> tuple[str, str]:
    """(chosen, rejected), wherever the sides lie."""
    (verdict,) = row.verdicts
    return (row.a.text, row.b.text) if verdict.preference == "a" else (row.b.text, row.a.text)


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
    assert (one.a, one.b) == (other.a, other.b)
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


def test_format_names_in_the_error_are_those_that_work(tmp_path: Path) -> None:
    with pytest.raises(ImportRefusedError, match="no format csv; supported: auto, touchstone, pandalm, hh, trl"):
        import_file(tmp_path / "x", "p", format_name="csv")
