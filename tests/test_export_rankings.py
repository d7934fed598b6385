"""What rankings become in files: the pairs they imply, and the ranks themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotation.export import count_verdicts
from annotation.services.quality import adjudicate
from tests.exporting import exported, pairs, rank, run_export, said
from tests.factories import make_annotator, make_project, make_ranking

RANKS = st.lists(st.lists(st.integers(1, 4), min_size=4, max_size=4), min_size=1, max_size=4)


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
