"""Importing: what goes in, accounting, second runs, two at once, bad input."""

from __future__ import annotations

import itertools
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError
from django.db import connection

from annotation.importers import FORMATS, ImportRefusedError, import_file
from annotation.models import (
    Annotator,
    Comparison,
    Event,
    Judgment,
    Project,
    Prompt,
    Response,
    ResponseSource,
)
from annotation.services import content_sha256
from tests.factories import make_project, make_source
from tests.importing import CREATED, annotation, import_lines, reasons, run_import, touchstone_row, write_lines
from tests.test_import_pairs import pandalm_row, shp_row
from tests.test_import_ratings import preference_row, scored_row, ultrafeedback_row
from tests.test_import_trees import oasst_tree, talk_row

# ── What goes in ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.django_db
def test_touchstone_row_keeps_all_it_says(tmp_path: Path) -> None:
    history = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    row = touchstone_row(
        messages=[*history, {"role": "user", "content": "More?"}],
        source="a_study",
        tags=["format:table", "difficulty:hard"],
        meta={"category": "writing"},
        annotations=[
            annotation(annotator="expert", strength=-2, rationale="shorter", shown_first="model-y"),
            annotation(annotator="judge", human=False, preferred_index=None, tie=True, strength=0),
            annotation(annotator="third", preferred_index=None, neither=True),
        ],
    )
    done = import_lines(tmp_path, [row])
    assert {key: done[key] for key in ("rows", *CREATED) if done[key]} == {
        "rows": 1,
        "prompts": 1,
        "responses": 2,
        "comparisons": 1,
        "judgments": 3,
    }
    assert done["skipped"] == []
    comparison = Comparison.objects.get(external_id="row-1")
    assert (comparison.prompt.group, comparison.prompt.lang) == ("group-1", "en")
    assert comparison.prompt.messages == row["messages"]
    assert comparison.prompt.tags == ["difficulty:hard", "format:table"]
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


EXAMPLES: dict[str, list[Any]] = {
    "touchstone": [
        touchstone_row(1),
        touchstone_row(2, annotations=[annotation(), annotation()]),
        touchstone_row(3, responses=[{"text": text} for text in "abc"], annotations=[annotation(ranking=[2, 1, 2])]),
        touchstone_row(4, responses=[{"text": "alone"}], annotations=[annotation(label="Yes")]),
    ],
    "trl": [{"prompt": "P", "chosen": "c", "rejected": "r"}, {"chosen": "The sky is blue", "rejected": "The sea"}],
    "hh": [{"chosen": "\n\nHuman: Q\n\nAssistant: c", "rejected": "\n\nHuman: Q\n\nAssistant: r"}],
    "pandalm": [pandalm_row()],
    "shp": [shp_row()],
    "helpsteer2": [scored_row(), preference_row()],
    "ultrafeedback": [ultrafeedback_row()],
    "oasst": [oasst_tree()],
    "sharegpt": [talk_row(), talk_row(id="other")],
    "messages": [{"id": "m", "messages": [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "B"}]}],
}


@pytest.mark.django_db
@pytest.mark.parametrize("name", FORMATS)
def test_second_run_adds_nothing(tmp_path: Path, name: str) -> None:
    first = import_lines(tmp_path, EXAMPLES[name])
    second = import_lines(tmp_path, EXAMPLES[name])
    assert first["format"] == second["format"] == name
    assert first["comparisons"] + first["single_responses"] == second["already_there"] == first["rows"] > 0
    assert [second[key] for key in CREATED] == [0] * len(CREATED)
    assert second["skipped"] == first["skipped"]
    assert Project.objects.get().batches.count() == (1 if first["comparisons"] else 0)
    events = Event.objects.filter(kind="import").order_by("id").values_list("data", flat=True)
    assert [data["comparisons"] for data in events] == [first["comparisons"], 0]


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


@pytest.mark.django_db
def test_what_was_masked_is_still_found_by_the_file(tmp_path: Path) -> None:
    import_lines(tmp_path, [touchstone_row()])
    for model, field, masked in (
        (Prompt, "content_sha256", {"messages": [{"role": "user", "content": "[name]?"}]}),
        (Response, "text_sha256", {"text": "[name]"}),
    ):
        for row in model.objects.all():
            model.objects.filter(pk=row.pk).update(
                original_sha256=getattr(row, field), **{field: content_sha256(str(row.pk))}, **masked
            )
    done = import_lines(tmp_path, [touchstone_row()])
    assert [done[key] for key in CREATED] == [0] * len(CREATED)
    assert (done["already_there"], done["skipped"]) == (1, [])
    assert Prompt.objects.get().messages[0]["content"] == "[name]?"


@pytest.mark.django_db
def test_disagreement_in_a_file_waits_for_a_reviewer(tmp_path: Path) -> None:
    votes = [annotation(), annotation(annotator="other", preferred_index=1)]
    import_lines(tmp_path, [touchstone_row(1, annotations=votes), touchstone_row(2), touchstone_row(3)])
    waiting = Comparison.objects.exclude(review_since=None)
    assert [comparison.external_id for comparison in waiting] == ["row-1"]
    import_lines(tmp_path, [touchstone_row(2, annotations=votes[1:])])
    assert {comparison.external_id for comparison in waiting.all()} == {"row-1", "row-2"}


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
        (
            touchstone_row(5, responses=[{"text": "one"}], annotations=[]),
            "it holds one response and no annotation: there is neither a comparison nor a rating",
        ),
        (
            touchstone_row(5, responses=[{"text": "x"}] * 3),
            "two of the responses are the same text by the same source: there is nothing to compare",
        ),
        (touchstone_row(5, responses=[{"text": "x"}] * 10), "it holds 10 responses: at most 9 can be ranked"),
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
        (annotation(annotator="b", ratings={"style": [1]}), '"ratings" of style are not 2 numbers or nulls'),
        (annotation(annotator="b", ratings=[]), '"ratings" is not an object with names'),
        (annotation(annotator="b", axes={"harmless": 5}), '"axes" of harmless is not a whole number from -4 to 4'),
        (annotation(annotator="b", chips=["x" * 61]), '"chips" is not a list of texts'),
        (annotation(annotator="b", ranking=[1]), '"ranking" is [1], not 2 ranks from 1, the best, to 9'),
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
        ("helpsteer2", {"x": 1}, "is not in the helpsteer2 format: its rows hold no"),
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


def test_format_names_in_the_error_are_those_that_work(tmp_path: Path) -> None:
    with pytest.raises(ImportRefusedError, match="no format csv; supported: auto, touchstone, pandalm, helpsteer2"):
        import_file(tmp_path / "x", "p", format_name="csv")
