"""What people's work becomes in files: edits, rewrites, last words, gold, scores, axes, rules, records."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from annotation.export import Rules, count_verdicts
from annotation.models import (
    Adjudication,
    Annotator,
    Assignment,
    Comparison,
    Conversation,
    Edit,
    ErrorSpan,
    Event,
    Gold,
    Judgment,
    Prompt,
    Rating,
    Response,
    RewriteTask,
    Turn,
)
from tests.exporting import exported, pairs, rank, run_export, said
from tests.factories import (
    make_annotator,
    make_comparison,
    make_judgment,
    make_project,
    make_prompt,
    make_ranking,
    make_response,
    make_source,
)

# ── Edits, rewrites, last words ──────────────────────────────────────────────────────────────────────────────────


def edit(judgment: Judgment, original: Response, text: str) -> Edit:
    edited = make_response(original.prompt, make_source("people", kind="person"), text=text)
    return Edit.objects.create(judgment=judgment, original=original, edited=edited)


@pytest.mark.django_db
def test_edited_beats_chosen_beats_rejected() -> None:
    project = make_project()
    comparison = make_comparison(project, a_text="good", b_text="bad")
    edit(make_judgment(comparison, "a", -2), comparison.response_a, "better")
    make_judgment(comparison, "a", -1)
    assert pairs(project) == [("good", "bad"), ("better", "good"), ("better", "bad")]
    assert [said(row, "completion") for row in exported(project, "sft")] == [("better",)]
    assert [(*said(row, "completion"), row["label"]) for row in exported(project, "kto")] == [
        ("good", True),
        ("bad", False),
        ("better", True),
    ]
    vote, edited, _ = exported(project, "reward")
    assert (vote["strength"], vote["votes"]["chosen"]) == (1.5, 2)
    assert (edited["strength"], edited["votes"]["chosen"], edited["p_chosen"]) == (0.0, 1, 1.0)


@pytest.mark.django_db
def test_edit_of_what_most_did_not_choose_is_left_out_and_counted() -> None:
    project = make_project()
    comparison = make_comparison(project, a_text="good", b_text="bad")
    edit(make_judgment(comparison, "b", 1), comparison.response_b, "bad no more")
    edit(make_judgment(comparison, "a", -1), comparison.response_a, "better")
    withdrawn = make_judgment(comparison, "a", -1)
    edit(withdrawn, comparison.response_a, "of a vote that was corrected")
    Judgment.objects.filter(pk=withdrawn.pk).update(superseded_at=timezone.now())
    make_judgment(comparison, "a", -3)
    assert pairs(project) == [("good", "bad"), ("better", "good"), ("better", "bad")]
    assert count_verdicts(project) == {"a": 3, "edit_of_not_chosen": 1}


@pytest.mark.django_db
def test_rewrites_are_learnt_from() -> None:
    project = make_project()
    comparison, other, open_one = (make_comparison(project, a_text=f"bad {n}", b_text=f"worse {n}") for n in range(3))
    for number, (task, original) in enumerate([(comparison, comparison.response_a), (other, None), (open_one, None)]):
        make_judgment(task, "neither")
        written = make_response(task.prompt, make_source("people", kind="person"), text=f"written {number}")
        RewriteTask.objects.create(
            project=project,
            comparison=task,
            prompt=task.prompt,
            cause="neither",
            status="open" if task is open_one else "done",
            original=original,
            written=written,
            done_at=timezone.now(),
        )
    assert pairs(project) == [("written 0", "bad 0")]
    assert [said(row, "completion") for row in exported(project, "sft")] == [("written 0",), ("written 1",)]
    kto = [(*said(row, "completion"), row["label"]) for row in exported(project, "kto")]
    assert [text for text, label in kto if label] == ["written 0", "written 1"]
    assert len(kto) == 8


@pytest.mark.django_db
def test_reviewers_last_word_stands_instead_of_the_counts() -> None:
    project = make_project()
    settled, unvoted = (
        make_comparison(project, a_text="a", b_text="b"),
        make_comparison(project, a_text="c", b_text="d"),
    )
    make_judgment(settled, "a", -1)
    for comparison, preference, strength in ((settled, "b", 3), (unvoted, "a", None)):
        Adjudication.objects.create(
            comparison=comparison, reviewer=make_annotator(), preference=preference, strength=strength
        )
    old = make_comparison(project, a_text="e", b_text="f")
    make_judgment(old, "b")
    Adjudication.objects.create(
        comparison=old, reviewer=make_annotator(), preference="tie", superseded_at=timezone.now()
    )
    assert pairs(project) == [("b", "a"), ("c", "d"), ("f", "e")]
    row = exported(project, "reward")[0]
    assert (row["strength"], row["p_chosen"], row["votes"]["chosen"], row["votes"]["rejected"]) == (3.0, 1.0, 0, 1)


@pytest.mark.django_db
def test_gold_repeats_and_withdrawn_comparisons_train_nothing() -> None:
    project = make_project()
    gold, repeated, withdrawn, archived, was_gold = (make_comparison(project) for _ in range(5))
    Gold.objects.create(comparison=gold, preference="a")
    Comparison.objects.filter(pk=gold.pk).update(is_gold=True)
    Comparison.objects.filter(pk=withdrawn.pk).update(is_withdrawn=True)
    Comparison.objects.filter(pk=archived.pk).update(is_withdrawn=True, withdrawn_with_prompt=True)
    for comparison in (gold, withdrawn, archived):
        make_judgment(comparison, "a")
    again = make_judgment(repeated, "b").annotator
    Judgment.objects.create(comparison=repeated, annotator=again, preference="a", round=1)
    for kind, name in (("gold", "a"), ("qualification", "b")):
        person = make_annotator()
        assignment = Assignment.objects.create(
            comparison=was_gold,
            annotator=person,
            project=project,
            kind=kind,
            status="submitted",
            holds_place=False,
            a_shown_on_left=True,
            lease_expires_at=timezone.now(),
            submitted_at=timezone.now(),
        )
        Judgment.objects.create(comparison=was_gold, annotator=person, preference=name, assignment=assignment)
    assert count_verdicts(project) == {"a": 1, "b": 1, "gold": 1, "withdrawn": 1}
    assert [row["id"] for row in exported(project, "reward")] == [repeated.pk, archived.pk]


# ── Scores and axes ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.django_db
def test_scores_are_in_the_rows_where_there_are_any() -> None:
    project = make_project()
    scored, unscored = make_comparison(project, a_text="a", b_text="b"), make_comparison(project)
    for points in ([4, 2], [5, None]):
        judgment = make_judgment(scored, "a")
        Judgment.objects.filter(pk=judgment.pk).update(ratings={"helpfulness": points})
    make_judgment(unscored, "b")
    judge = Annotator.objects.create(project=project, name="judge", is_human=False)
    hostile = 'it\'s "so" %(x)s'
    Rating.objects.create(response=scored.response_b, annotator=make_annotator(), aspect=hostile, value=0.25)
    Rating.objects.create(response=scored.response_b, annotator=judge, aspect="helpfulness", value=5)
    Rating.objects.create(response=scored.response_b, annotator=make_annotator(), aspect="class", label="Yes")
    first, second = exported(project, "reward")
    assert first["chosen_scores"] == {"helpfulness": 4.5, hostile: None}
    assert first["rejected_scores"] == {"helpfulness": 2.0, hostile: 0.25}
    assert set(second["chosen_scores"].values()) == {None}
    assert [row["scores"]["helpfulness"] for row in exported(project, "kto")] == [4.5, 2.0, None, None]
    exported(project, "sft")


@pytest.mark.django_db
def test_axis_has_a_preference_of_its_own() -> None:
    project = make_project()
    comparison, other = make_comparison(project, a_text="a", b_text="b"), make_comparison(project)
    for preference, strength, harmless in (("a", -2, 1), ("a", -1, 3), ("b", 1, -1)):
        judgment = make_judgment(comparison, preference, strength)
        Judgment.objects.filter(pk=judgment.pk).update(axes={"harmless": harmless})
    make_judgment(other, "a")
    (row,) = exported(project, "dpo", axis="harmless")
    assert said(row, "chosen", "rejected") == ("b", "a")
    assert (row["strength"], row["votes"]["chosen"], row["votes"]["rejected"]) == (1.0, 2, 1)
    assert pairs(project)[0] == ("a", "b")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("axis", ["harmles", "x' OR true --"])
def test_unknown_axis_is_refused(tmp_path: Path, axis: str) -> None:
    project = make_project()
    make_judgment(make_comparison(project), "a")
    with pytest.raises(CommandError, match="nobody judged by the axis"):
        run_export(project, "dpo", tmp_path / "rows.jsonl", axis=axis)
    assert not list(tmp_path.iterdir())


# ── Rules ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.django_db
def test_rules_leave_out_and_count() -> None:
    project = make_project()
    plain = make_comparison(project, a_text="It rises in the east.", b_text="In the west, I think.")
    make_judgment(plain, "a", -3)
    split = make_comparison(project)
    for strength in (-3, -2, 1):
        make_judgment(split, "a" if strength < 0 else "b", strength)
    weak = make_comparison(project)
    make_judgment(weak, "b", 1)
    long_text = "The moon pulls the water towards itself, and so the tide rises twice a day. " * 3
    alike = make_comparison(project, a_text=long_text, b_text=long_text.replace("twice", "twive"))
    make_judgment(alike, "a", -2)
    cut = make_comparison(project)
    Response.objects.filter(pk=cut.response_b_id).update(finish_reason="length")
    make_judgment(cut, "a", -2)
    named = make_comparison(project, a_text="I am ChatGPT, a model trained by OpenAI.", b_text="Hello!")
    make_judgment(named, "a", -2)
    own = make_prompt(project)
    by_name = Comparison.objects.create(
        project=project,
        prompt=own,
        response_a=make_response(own, make_source("snow-hawk-7b"), "Ask Snow-Hawk-7B about it."),
        response_b=make_response(own, text="Llamas live in the Andes, says a page of OpenAI."),
        external_id="named",
    )
    make_judgment(by_name, "b", 2)
    assert count_verdicts(project) == {"a": 5, "b": 2}
    rules = Rules(max_spread=2, min_strength=1.5, near_identical=True, unfinished=True, names_model=True)
    counted = {"a": 1, "spread": 1, "weak": 1, "near_identical": 1, "unfinished": 1, "names_model": 2}
    assert count_verdicts(project, rules=rules) == counted
    assert pairs(project, rules=rules) == [("It rises in the east.", "In the west, I think.")]
    make_judgment(make_comparison(project), "a")  # nobody graded it: no strength that could be weak
    assert count_verdicts(project, rules=Rules(min_strength=3))["a"] == 2


@pytest.mark.django_db(transaction=True)
def test_rules_of_the_command_and_the_journal(tmp_path: Path) -> None:
    project = make_project()
    make_judgment(make_comparison(project), "a", -1)
    make_judgment(make_comparison(project), "a", -3)
    out = tmp_path / "rows.jsonl"
    done = run_export(project, "reward", out, min_strength=2.0, drop_unfinished=True)
    assert (done["rows"], done["dropped"]) == (1, {"weak": 1})
    (data,) = Event.objects.filter(kind="export").values_list("data", flat=True)
    assert (data["what"], data["rows"], data["sha256"]) == ("reward", 1, hashlib.sha256(out.read_bytes()).hexdigest())
    assert (data["rules"]["min_strength"], data["dropped"]) == (2.0, {"weak": 1})
    with pytest.raises(CommandError, match="nothing is left out of ranking by rules"):
        run_export(project, "ranking", out, drop_unfinished=True)
    with pytest.raises(CommandError, match="an axis has a verdict of its own"):
        run_export(project, "annotations", out, axis="harmless")
    with pytest.raises(CommandError, match=r"must end in \.jsonl"):
        run_export(project, "feedback", tmp_path / "rows.parquet")
    assert Event.objects.filter(kind="export").count() == 1


# ── Records ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.django_db(transaction=True)
def test_annotations_hold_all_that_was_said_and_can_be_imported(tmp_path: Path) -> None:
    project = make_project("here")
    comparison = make_comparison(project, a_text="one two three", b_text="four")
    project.prompts.update(tags=["difficulty:hard"])
    judgment = make_judgment(comparison, "a", -2)
    Judgment.objects.filter(pk=judgment.pk).update(
        note="shorter", chips=["clear"], ratings={"helpfulness": [4, None]}, axes={"harmless": 1}
    )
    ErrorSpan.objects.create(
        judgment=judgment, response=comparison.response_a, start=4, end=7, kind="factual", note="no"
    )
    edit(judgment, comparison.response_a, "one two")
    ranking = make_ranking(project, "x", "y", "z")
    rank(ranking, 2, 1, 2)
    Rating.objects.create(response=comparison.response_b, annotator=judgment.annotator, label="Yes")
    out = tmp_path / "said.jsonl"
    done = run_export(project, "annotations", out)
    assert (done["rows"], done["prompts"], done["dropped"]) == (3, 2, {})
    first, second, third = [json.loads(line) for line in out.read_text().splitlines()]
    (said,) = first["annotations"]
    assert (said["preferred_index"], said["strength"], said["rationale"], said["chips"]) == (
        0,
        -2,
        "shorter",
        ["clear"],
    )
    assert (said["ratings"], said["axes"]) == ({"helpfulness": [4, None]}, {"harmless": 1})
    assert said["spans"] == [{"response": 0, "start": 4, "end": 7, "kind": "factual", "note": "no", "text": "two"}]
    assert said["edit"]["text"] == "one two"
    assert second["annotations"][0]["ranking"] == [2, 1, 2]
    assert third["annotations"][0]["label"] == "Yes"
    shown = io.StringIO()
    call_command("import_preferences", out, project="there", json=True, stdout=shown, stderr=io.StringIO())
    there = json.loads(shown.getvalue())
    assert (there["comparisons"], there["judgments"], there["ratings"], there["skipped"]) == (2, 2, 1, [])
    before, after = (
        list(
            Judgment.objects.filter(comparison__project__slug=slug)
            .order_by("comparison_id")
            .values_list("preference", "strength", "ranking", "note", "ratings", "axes", "chips")
        )
        for slug in ("here", "there")
    )
    assert after == before
    assert set(Prompt.objects.filter(tags=["difficulty:hard"]).values_list("project__slug", flat=True)) == {
        "here",
        "there",
    }


@pytest.mark.django_db(transaction=True)
def test_feedback_goes_out_as_records_and_as_items_of_fb_bench(tmp_path: Path) -> None:
    project = make_project()
    conversation = Conversation.objects.create(project=project, annotator=make_annotator(), task="Coding")
    prompt = make_prompt(project, "Sort it.")
    Turn.objects.create(
        conversation=conversation,
        position=0,
        prompt=prompt,
        kept_response=make_response(prompt, text="Bubble sort."),
        scenario="error_correction",
        deficiency_types=["not_following_instructions"],
        feedback_types=["pointing_out_errors"],
        feedback="I asked for quicksort.",
        feedback_at=timezone.now(),
    )
    assert run_export(project, "feedback", tmp_path / "feedback.jsonl")["rows"] == 1
    record = json.loads((tmp_path / "feedback.jsonl").read_text())
    assert (record["scenario"], record["feedback"]) == ("error_correction", "I asked for quicksort.")
    assert run_export(project, "fb_bench", tmp_path / "items.jsonl")["prompts"] == 1
    item = json.loads((tmp_path / "items.jsonl").read_text())
    assert (item["bench_type"], item["user_query"], item["origin_first_response"], item["error_type"]) == (
        "Error Correction",
        "Sort it.",
        "Bubble sort.",
        ["Not Following Instructions"],
    )
    assert Prompt.objects.count() == 1
