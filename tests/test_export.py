"""Consensus, the rows of judged comparisons, and exported files."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotation.export import _ROWS, Kind, _copy_lines, count_verdicts, judged_rows, training_rows
from annotation.models import Annotator, Comparison, Judgment, Project, Response
from tests.factories import make_comparison, make_judgment, make_project, make_prompt, make_source

WINNERS = ("a", "b")


def expected_verdict(votes: Counter[str]) -> str:
    """The rule once more, written another way."""
    ranking = votes.most_common()
    if len(ranking) > 1 and ranking[0][1] == ranking[1][1]:
        return "no_majority"
    return ranking[0][0]


def vote(comparison: Comparison, *preferences: str) -> None:
    for preference in preferences:
        make_judgment(comparison, preference)


def verdict_of(comparison: Comparison) -> str:
    (row,) = [row for row in judged_rows(comparison.project) if row["id"] == comparison.pk]
    return row["verdict"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("votes", "verdict"),
    [
        (["a"], "a"),
        (["b"], "b"),
        (["tie"], "tie"),
        (["neither"], "neither"),
        (["a", "a", "b"], "a"),
        (["a", "b"], "no_majority"),
        (["a", "tie"], "no_majority"),
        (["a", "neither"], "no_majority"),
        (["a", "a", "tie", "b"], "a"),
        (["a", "a", "tie", "tie", "b"], "no_majority"),
        (["a", "tie", "tie"], "tie"),
        (["b", "neither", "neither"], "neither"),
    ],
)
def test_verdict_is_the_answer_with_most_votes(votes: list[str], verdict: str) -> None:
    comparison = make_comparison()
    vote(comparison, *votes)
    assert verdict_of(comparison) == verdict == expected_verdict(Counter(votes))


@pytest.mark.django_db
def test_reasons_that_lie_in_the_texts() -> None:
    project = make_project()
    same = make_comparison(project, a_text="One.", b_text="One.x")
    Response.objects.filter(pk=same.response_b_id).update(
        text="One.", text_sha256=Response.objects.get(pk=same.response_a_id).text_sha256
    )
    blank = make_comparison(project, a_text=" \n\t", b_text="Two.")
    blank_rejected = make_comparison(project, a_text=" \n\t", b_text="Three.")
    other_history = make_comparison(project)
    Response.objects.filter(pk=other_history.response_a_id).update(messages=[{"role": "user", "content": "?"}])
    vote(same, "a")
    vote(blank, "a")
    vote(blank_rejected, "b")
    vote(other_history, "a")
    assert verdict_of(same) == "identical_responses"
    assert verdict_of(blank) == "empty"
    assert verdict_of(blank_rejected) == "b"
    assert verdict_of(other_history) == "different_histories"


@pytest.mark.django_db
def test_histories_that_both_responses_share_replace_the_prompt() -> None:
    comparison = make_comparison()
    history = [{"role": "user", "content": "another history"}]
    Response.objects.filter(pk__in=[comparison.response_a_id, comparison.response_b_id]).update(messages=history)
    vote(comparison, "b")
    (row,) = judged_rows(comparison.project)
    assert (row["verdict"], row["prompt"]) == ("b", history)


@pytest.mark.django_db
def test_superseded_judgments_and_models_do_not_count() -> None:
    comparison = make_comparison()
    old = make_judgment(comparison, "a", -3)
    Judgment.objects.filter(pk=old.pk).update(superseded_at=timezone.now())
    make_judgment(comparison, "b", 1, annotator=old.annotator)
    for name in ("judge one", "judge two"):
        model = Annotator.objects.create(project=comparison.project, name=name, is_human=False)
        make_judgment(comparison, "a", -2, annotator=model)
    (people,) = judged_rows(comparison.project, humans_only=True)
    (everyone,) = judged_rows(comparison.project, humans_only=False)
    assert (people["verdict"], people["mean_strength"], people["votes"]["a"]) == ("b", 1.0, 0)
    assert (everyone["verdict"], everyone["mean_strength"], everyone["votes"]["a"]) == ("a", -1.0, 2)
    assert count_verdicts(comparison.project) == {"b": 1}


@pytest.mark.django_db
def test_other_projects_and_unjudged_comparisons_stay_out() -> None:
    comparison, other = make_comparison(), make_comparison()
    unjudged = make_comparison(comparison.project)
    vote(comparison, "a")
    vote(other, "a")
    rows = list(judged_rows(comparison.project))
    assert [row["id"] for row in rows] == [comparison.pk] != [unjudged.pk]


@pytest.mark.django_db
def test_chosen_response_is_given_once_for_sft() -> None:
    project = make_project()
    prompt = make_prompt(project)
    for _ in range(2):  # two comparisons that the same text wins
        vote(make_comparison(project, prompt=prompt, a_text="The best."), "a")
    rows = list(training_rows("sft", judged_rows(project)))
    assert [row["completion"] for row in rows] == [[{"role": "assistant", "content": "The best."}]]


ANSWERS = st.lists(st.sampled_from(["a", "b", "tie", "neither"]), min_size=1, max_size=6)
TEXTS = st.sampled_from(
    ["Short.", " ", "", 'With "quotes" and \\ back\\slashes\\n', "Zwei\nZeilen\r\n\t€ 😀 \x01\x02", "\u2028"]
)


STRENGTHS: dict[str, list[int | None]] = {
    "a": [-3, -2, -1, None],
    "b": [1, 2, 3, None],
    "tie": [0, None],
    "neither": [None],
}
GRADED = st.sampled_from([(preference, strength) for preference, any_of in STRENGTHS.items() for strength in any_of])
COMPARISONS = st.lists(
    st.tuples(TEXTS, TEXTS, st.lists(GRADED, min_size=1, max_size=5), st.randoms()), min_size=1, max_size=6
)
MIRROR = {"a": "b", "b": "a"}


@pytest.mark.django_db
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(COMPARISONS)
def test_order_of_votes_does_not_matter_and_swapping_sides_mirrors(
    comparisons: list[tuple[str, str, list[tuple[str, int | None]], Any]],
) -> None:
    straight, swapped = make_project(), make_project()
    people = [
        Annotator.objects.get_or_create(project=straight, name=f"person {number}", defaults={"is_human": True})[0]
        for number in range(5)
    ]
    for a_text, b_text, votes, rng in comparisons:
        first = compare(straight, a_text, b_text)
        second = compare(swapped, b_text, a_text)
        mirrored = [(MIRROR.get(p, p), None if s is None else -s) for p, s in votes]
        rng.shuffle(mirrored)
        for comparison, cast in ((first, votes), (second, mirrored)):
            Judgment.objects.bulk_create(
                Judgment(comparison=comparison, annotator=person, preference=p, strength=s)
                for person, (p, s) in zip(people, cast, strict=False)
            )
    rows, mirror = list(judged_rows(straight)), list(judged_rows(swapped))
    assert [row["verdict"] for row in mirror] == [MIRROR.get(row["verdict"], row["verdict"]) for row in rows]
    for row, (_, _, votes, _) in zip(rows, comparisons, strict=True):
        counted = Counter(preference for preference, _ in votes)
        assert {side: count for side, count in row["votes"].items() if count} == counted
        if row["verdict"] in (*WINNERS, "identical_responses", "empty"):
            assert expected_verdict(counted) in WINNERS
        else:
            assert row["verdict"] == expected_verdict(counted)
    for kind in ("dpo", "reward"):
        for row, again in zip(training_rows(kind, rows), training_rows(kind, mirror), strict=True):
            assert {**row, "id": 0, "group": "", "prompt": []} == {**again, "id": 0, "group": "", "prompt": []}
            assert row["chosen"] != row["rejected"]
            assert row["votes"]["chosen"] > max(row["votes"][key] for key in ("rejected", "tie", "neither"))
            assert row["chosen"][0]["content"].strip(" \t\n\r\f\v")
    for kind in Kind:  # what Postgres builds and what Python builds is the same
        assert copied(straight, kind) == list(training_rows(kind, rows))


def compare(project: Project, a_text: str, b_text: str) -> Comparison:
    """A comparison of exactly these texts, equal or blank ones too."""
    prompt = make_prompt(project)
    a, b = [
        Response.objects.create(
            prompt=prompt,
            source=make_source("one author"),
            sample_index=index,
            text=text,
            text_sha256=hashlib.sha256(text.encode()).hexdigest(),
        )
        for index, text in enumerate((a_text, b_text))
    ]
    return Comparison.objects.create(project=project, prompt=prompt, response_a=a, response_b=b)


def copied(project: Project, kind: Kind) -> list[dict[str, Any]]:
    lines = _copy_lines(_ROWS[kind], {"project": project.pk, "humans_only": True})
    return [json.loads(line) for line in b"".join(lines).splitlines()]
