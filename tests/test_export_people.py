"""What people's work becomes in files: rankings, edits, rewrites, last words, gold, scores, axes, rules, records."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotation.export import TRAINING_KINDS, Kind, Rules, count_verdicts, judged_rows, training_rows
from annotation.export.consensus import make_consensus
from annotation.export.files import write_table
from annotation.export.tables import make_table
from annotation.models import (
    Adjudication,
    Annotator,
    Assignment,
    Comparison,
    Conversation,
    Edit,
    ErrorSpan,
    Event,
    FurtherResponse,
    Gold,
    Judgment,
    Project,
    Prompt,
    Rating,
    Response,
    RewriteTask,
    Turn,
)
from annotation.services.quality import adjudicate
from tests.factories import (
    make_annotator,
    make_comparison,
    make_judgment,
    make_project,
    make_prompt,
    make_response,
    make_source,
)


def make_ranking(project: Project, *texts: str) -> Comparison:
    prompt = make_prompt(project)
    responses = [make_response(prompt, text=text) for text in texts]
    comparison = Comparison.objects.create(
        project=project,
        prompt=prompt,
        response_a=responses[0],
        response_b=responses[1],
        external_id=f"ranking-{prompt.pk}",
        response_count=len(texts),
    )
    for position, response in enumerate(responses[2:], 2):
        FurtherResponse.objects.create(comparison=comparison, position=position, response=response)
    return comparison


def rank(comparison: Comparison, *ranks: int, annotator: Annotator | None = None) -> Judgment:
    return Judgment.objects.create(
        comparison=comparison,
        annotator=annotator or make_annotator(),
        preference="ranked" if ranks else "neither",
        ranking=list(ranks) or None,
    )


def exported(project: Project, kind: str, **options: Any) -> list[dict[str, Any]]:
    """The JSON rows, and the same from Parquet and from Python, or the test fails."""
    rules, axis = options.pop("rules", None), options.pop("axis", "")
    make_consensus(project, humans_only=True, rules=rules, axis=axis)
    table = make_table(Kind(kind), project, humans_only=True)
    lines, parquet = io.BytesIO(), io.BytesIO()
    write_table(table, lines, is_parquet=False)
    write_table(table, parquet, is_parquet=True)
    rows = [json.loads(line) for line in lines.getvalue().split(b"\n")[:-1]]
    assert pq.read_table(parquet).to_pylist() == rows
    if kind in TRAINING_KINDS and not axis:
        assert list(training_rows(kind, judged_rows(project, rules=rules))) == rows
    return rows


def said(row: dict[str, Any], *sides: str) -> tuple[str, ...]:
    return tuple(row[side][0]["content"] for side in sides)


def pairs(project: Project, **options: Any) -> list[tuple[str, ...]]:
    return [said(row, "chosen", "rejected") for row in exported(project, "dpo", **options)]


def run_export(project: Project, kind: str, out: Path, **options: Any) -> dict[str, Any]:
    shown = io.StringIO()
    call_command("export_preferences", project=project.slug, kind=kind, out=out, json=True, stdout=shown, **options)
    return json.loads(shown.getvalue())


# ── Rankings ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.django_db
def test_ranking_becomes_pairs_that_stay_together() -> None:
    project = make_project()
    comparison = make_ranking(project, "best", "worst", "middle", "also middle")
    rank(comparison, 1, 3, 2, 2)
    rows = exported(project, "dpo")
    assert {said(row, "chosen", "rejected") for row in rows} == {
        ("best", "worst"),
        ("best", "middle"),
        ("best", "also middle"),
        ("middle", "worst"),
        ("also middle", "worst"),
    }
    assert {row["group_id"] for row in rows} == {comparison.pk}
    assert count_verdicts(project) == {"a": 3, "b": 2, "tie": 1}
    assert [(*said(row, "completion"), row["label"]) for row in exported(project, "kto")] == [
        ("best", True),
        ("worst", False),
    ]
    assert [said(row, "completion") for row in exported(project, "sft")] == [("best",)]
    (row,) = exported(project, "ranking")
    assert row["responses"] == ["best", "worst", "middle", "also middle"]
    assert (row["ranks"], row["mean_ranks"], row["judgments"]) == ([1, 3, 2, 2], [1.0, 3.0, 2.0, 2.0], [[1, 3, 2, 2]])


@pytest.mark.django_db
def test_ranks_of_several_people_are_averaged_and_each_pair_has_its_majority() -> None:
    project = make_project()
    comparison = make_ranking(project, "x", "y", "z")
    for ranks in ((1, 2, 3), (2, 1, 3), (1, 3, 2)):
        rank(comparison, *ranks)
    rank(make_ranking(project, "p", "q", "r"))
    rank(make_ranking(project, "s", "t", "u"), 1, 1, 1)
    (row,) = exported(project, "ranking")
    assert (row["ranks"], row["mean_ranks"]) == ([1, 2, 3], [1.333333, 2.0, 2.666667])
    assert pairs(project) == [("x", "y"), ("x", "z"), ("y", "z")]
    assert [row["p_chosen"] for row in exported(project, "dpo")] == [0.666667, 1.0, 0.666667]
    assert count_verdicts(project) == {"a": 3, "neither": 3, "tie": 3}
    kto = [(*said(row, "completion"), row["label"]) for row in exported(project, "kto")]
    assert kto == [("x", True), ("z", False), ("p", False), ("q", False), ("r", False)]


@pytest.mark.django_db(transaction=True)
def test_what_a_reviewer_settled_stands_instead_of_the_ranks(tmp_path: Path) -> None:
    project = make_project()
    comparison, unjudged, hopeless = (make_ranking(project, *texts) for texts in ("xyz", "pqr", "stu"))
    for ranks in ((1, 2, 3), (2, 1, 3), (1, 3, 2)):
        rank(comparison, *ranks)
    rank(hopeless, 1, 2, 3)
    reviewer = make_annotator()
    adjudicate(comparison, reviewer=reviewer, preference="ranked", ranking=[2, 2, 1])
    adjudicate(unjudged, reviewer=reviewer, preference="ranked", ranking=[1, 2, 3])
    adjudicate(hopeless, reviewer=reviewer, preference="neither", note="All three are rude.")
    with transaction.atomic():
        rows = exported(project, "ranking")
        assert [(row["ranks"], row["mean_ranks"], len(row["judgments"])) for row in rows] == [
            ([2, 2, 1], [2.0, 2.0, 1.0], 3),
            ([1, 2, 3], [1.0, 2.0, 3.0], 0),
        ]
        assert pairs(project) == [("z", "x"), ("z", "y"), ("p", "q"), ("p", "r"), ("q", "r")]
        assert {row["p_chosen"] for row in exported(project, "dpo")} == {1.0}
        assert count_verdicts(project) == {"a": 3, "b": 2, "neither": 3, "tie": 1}
    run_export(project, "annotations", tmp_path / "said.jsonl")
    assert [json.loads(line)["meta"]["settled"] for line in (tmp_path / "said.jsonl").read_text().splitlines()] == [
        {"preference": "ranked", "ranking": [2, 2, 1], "note": ""},
        {"preference": "ranked", "ranking": [1, 2, 3], "note": ""},
        {"preference": "neither", "note": "All three are rude."},
    ]
    standing = comparison.adjudications.get()
    adjudicate(comparison, reviewer=reviewer, preference="neither", based_on=standing.pk)
    with transaction.atomic():
        assert [row["ranks"] for row in exported(project, "ranking")] == [[1, 2, 3]]


RANKS = st.lists(st.lists(st.integers(1, 4), min_size=4, max_size=4), min_size=1, max_size=4)


@pytest.mark.django_db
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(RANKS, st.permutations(range(4)))
def test_order_of_content_and_of_votes_does_not_matter_for_rankings(
    rankings: list[list[int]], order: list[int]
) -> None:
    straight, shuffled = make_project(), make_project()
    texts = ["one", "two", "three", "four"]
    first, second = make_ranking(straight, *texts), make_ranking(shuffled, *(texts[place] for place in order))
    people = [make_annotator() for _ in rankings]
    for person, ranks in zip(people, rankings, strict=True):
        rank(first, *ranks, annotator=person)
    for person, ranks in zip(people, rankings[::-1], strict=True):
        rank(second, *(ranks[place] for place in order), annotator=person)
    assert set(pairs(straight)) == set(pairs(shuffled))
    for chosen, rejected in pairs(straight):
        a, b = texts.index(chosen), texts.index(rejected)
        better, worse = (sum(ranks[x] < ranks[y] for ranks in rankings) for x, y in ((a, b), (b, a)))
        assert better > max(worse, len(rankings) - better - worse)
    for kind in ("kto", "sft", "reward"):
        exported(shuffled, kind)


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
