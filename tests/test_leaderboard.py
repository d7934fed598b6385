"""Bradley–Terry ratings, their intervals and ranks, and one source against another."""

from __future__ import annotations

import io
import itertools
import json
import random
from typing import Any

import numpy as np
import pytest
from django.core.management import call_command
from django.utils import timezone
from scipy.optimize import minimize

from annotation.leaderboard import (
    POINTS_PER_NAT,
    Choices,
    Standing,
    _with_ranks,
    board_of,
    head_to_head,
    rank_sources,
)
from annotation.models import (
    Annotator,
    Comparison,
    FurtherResponse,
    Judgment,
    Project,
    Response,
    ResponseSource,
)
from annotation.ratings.battles import Battles
from annotation.services import content_sha256
from tests.factories import (
    make_annotator,
    make_comparison,
    make_judgment,
    make_project,
    make_prompt,
    make_response,
    make_source,
)

_annotators = itertools.count(1)


def result(project: Project, a: str, b: str, *preferences: str, group: int | None = None) -> Comparison:
    """A comparison of one response of each source, judged once per preference; a group has one prompt."""
    prompt = make_prompt(project, "" if group is None else f"Question of group {group}?")
    responses = []
    for name in (a, b):
        source = make_source(name)
        text = f"{name} {Response.objects.count()}"
        index = Response.objects.filter(prompt=prompt, source=source).count()
        responses.append(
            Response.objects.create(
                prompt=prompt, source=source, sample_index=index, text=text, text_sha256=content_sha256(text)
            )
        )
    comparison = Comparison.objects.create(
        project=project, prompt=prompt, response_a=responses[0], response_b=responses[1]
    )
    for preference in preferences:
        name = f"{project.slug} {next(_annotators)}"
        annotator = Annotator.objects.create(project=project, name=name)
        Judgment.objects.create(comparison=comparison, annotator=annotator, preference=preference)
    return comparison


def by_source(standings: list[Standing]) -> dict[str, Standing]:
    return {standing.source: standing for standing in standings}


@pytest.mark.django_db
def test_two_sources_have_the_closed_form() -> None:
    project = make_project()
    for preference in ["a"] * 6 + ["b"] * 2 + ["tie"] * 2:
        result(project, "x", "y", preference)
    half = by_source(rank_sources(project))
    # 7 points of 10: log-odds shared equally around 1000
    assert half["x"].rating == pytest.approx(1000 + 200 * np.log10(7 / 3))
    assert half["y"].rating == pytest.approx(1000 - 200 * np.log10(7 / 3))
    assert half["x"].judgments == 10
    dropped = by_source(rank_sources(project, ties="drop"))
    assert dropped["x"].rating == pytest.approx(1000 + 200 * np.log10(6 / 2))
    assert dropped["x"].judgments == 8


@pytest.mark.django_db
def test_neither_is_treated_as_a_tie() -> None:
    one, other = make_project(), make_project()
    for project, level in ((one, "tie"), (other, "neither")):
        for group, preference in enumerate(["a", "a", "b", level, level]):
            result(project, "x", "y", preference, group=group)
    for ties in ("half", "drop"):
        assert rank_sources(one, ties=ties) == rank_sources(other, ties=ties)


@pytest.mark.django_db
def test_ratings_maximise_the_likelihood_whichever_side_a_source_is_on() -> None:
    project = make_project()
    rng = random.Random(0)
    names = ["p", "q", "r", "s"]
    votes = []
    for _ in range(150):
        one, other = rng.sample(names, 2)
        preference = rng.choices(["a", "b", "tie"], weights=[names.index(one) + 1, names.index(other) + 1, 1])[0]
        result(project, one, other, preference)
        votes.append((names.index(one), names.index(other), {"a": 1.0, "b": 0.0, "tie": 0.5}[preference]))

    def loss(strengths: np.ndarray) -> float:
        gaps = [(strengths[i] - strengths[j], score) for i, j, score in votes]
        missed = sum(score * np.logaddexp(0, -gap) + (1 - score) * np.logaddexp(0, gap) for gap, score in gaps)
        return missed + strengths.mean() ** 2

    best = minimize(loss, np.zeros(4), tol=1e-10).x
    standings = by_source(rank_sources(project))
    for name, strength in zip(names, best, strict=True):
        assert standings[name].rating == pytest.approx(1000 + 400 / np.log(10) * strength, abs=0.1)
    assert np.mean([standing.rating for standing in standings.values()]) == pytest.approx(1000)


@pytest.mark.django_db
def test_more_people_on_the_same_prompts_who_vote_alike_do_not_narrow_the_interval() -> None:
    once, often = make_project(), make_project()
    for project, times in ((once, 1), (often, 5)):
        for group in range(12):
            result(project, "x", "y", *(["a" if group % 3 else "b"] * times), group=group)
    (one, _), (five, _) = rank_sources(once), rank_sources(often)
    assert (five.rating, five.lower, five.upper) == pytest.approx((one.rating, one.lower, one.upper))
    assert five.judgments == 5 * one.judgments
    more = make_project()
    for group in range(48):
        result(more, "x", "y", "a" if group % 3 else "b", group=group)
    first = rank_sources(more)[0]
    assert first.lower is not None and one.lower is not None and first.lower > one.lower


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Two hundred drawn data sets, seeded; the sandwich's own formula is not used to make them."""
    rng = np.random.default_rng(7)
    truth = np.array([0.6, 0.0, -0.6])
    hits = 0
    for _ in range(200):
        groups = np.repeat(np.arange(40), 3)
        one, other = np.tile([0, 0, 1], 40), np.tile([1, 2, 2], 40)
        lean = rng.normal(0, 0.5, size=(40, 3))  # what a prompt favours, shared by its comparisons
        gap = truth[one] - truth[other] + lean[groups, one] - lean[groups, other]
        verdict = np.where(rng.random(120) < 1 / (1 + np.exp(-gap)), 0, 2)
        battles = Battles(one, other, verdict, np.arange(120), groups, np.ones(120))
        first = by_source(board_of(battles, ["x", "y", "z"], Choices()).standings)["x"]
        assert first.lower is not None
        assert first.upper is not None
        hits += first.lower <= 1000 + POINTS_PER_NAT * truth[0] <= first.upper
    assert 0.90 <= hits / 200 <= 0.99


@pytest.mark.django_db
def test_source_that_always_wins_gets_a_sentence_and_the_rest_is_rated() -> None:
    project = make_project()
    for group, (a, b, preference) in enumerate(
        [("x", "y", "a"), ("x", "y", "b"), ("x", "y", "a"), ("top", "x", "a"), ("y", "top", "b"), ("x", "last", "a")]
    ):
        result(project, a, b, preference, group=group)
    standings = by_source(rank_sources(project))
    assert standings["x"].rating == pytest.approx(1000 + 200 * np.log10(2))
    for name, note in (("top", "it won every comparison"), ("last", "it lost every comparison")):
        assert (standings[name].rating, standings[name].lower, standings[name].rank) == (None, None, None)
        assert standings[name].note.startswith(note)
    out = io.StringIO()
    call_command("leaderboard", project=project.slug, json=True, stdout=out)
    assert len(json.loads(out.getvalue(), parse_constant=pytest.fail)["rows"]) == 4
    call_command("leaderboard", project=project.slug, stdout=out)
    assert "it won every comparison" in out.getvalue()


@pytest.mark.django_db
def test_islands_are_not_compared() -> None:
    project = make_project()
    for group, (a, b) in enumerate([("p", "q"), ("p", "q"), ("p", "q"), ("r", "s"), ("r", "s")]):
        result(project, a, b, "a" if group % 2 else "b", group=group)
    standings = by_source(rank_sources(project))
    assert standings["p"].rating is not None
    assert standings["r"].rating is None
    assert "cannot be placed" in standings["r"].note


@pytest.mark.django_db
@pytest.mark.parametrize("votes", [["a"], ["a", "a", "a"]])
def test_nothing_is_rated_where_one_side_won_all(votes: list[str]) -> None:
    project = make_project()
    result(project, "x", "y", *votes)
    assert [standing.rating for standing in rank_sources(project)] == [None, None]
    assert rank_sources(make_project()) == []


@pytest.mark.django_db
def test_only_ties_or_one_prompt_give_no_interval() -> None:
    ties, one_prompt = make_project(), make_project()
    for group in range(3):
        result(ties, "x", "y", "tie", group=group)
    for preference in ("a", "a", "b"):
        result(one_prompt, "x", "y", preference, group=0)
    for project in (ties, one_prompt):
        for standing in rank_sources(project):
            assert standing.rating is not None
            assert (standing.lower, standing.upper, standing.rank) == (None, None, None)
            assert "no interval" in standing.note
    assert "left out" in rank_sources(ties, ties="drop")[0].note


def test_overlapping_intervals_share_a_rank_also_through_a_chain() -> None:
    intervals = [(95, 105), (85, 96), (80, 90), (60, 70), (50, 59)]
    standings = [Standing(str(n), sum(i) / 2, *i, None, 1) for n, i in enumerate(intervals)]
    assert [standing.rank for standing in _with_ranks(standings)] == [1, 1, 1, 4, 5]


@pytest.mark.django_db
def test_same_source_superseded_and_model_judgments_stay_out() -> None:
    project = make_project()
    result(project, "x", "x", "a")
    result(project, "x", "y", "a")
    result(project, "x", "y", "b")
    changed = result(project, "x", "y", "b")
    Judgment.objects.filter(comparison=changed).update(superseded_at=timezone.now())
    Annotator.objects.filter(judgments__comparison=result(project, "x", "y", "b", "b", "b")).update(is_human=False)
    people = by_source(rank_sources(project, humans_only=True))
    assert people["x"].rating == pytest.approx(1000)
    assert people["x"].judgments == 2
    assert by_source(rank_sources(project))["x"].judgments == 5


@pytest.mark.django_db
def test_number_of_queries_is_fixed(django_assert_num_queries: Any) -> None:
    project = make_project()
    for group, (a, b) in enumerate(itertools.permutations("wxyz", 2)):
        result(project, a, b, "a", group=group)
    with django_assert_num_queries(2):
        assert len(rank_sources(project)) == 4


# ── One source against another ───────────────────────────────────────────────────────────────────────────────────


def against(project: Project, new: str, old: str, **options: Any) -> dict[str, float]:
    new_source, old_source = (ResponseSource.objects.get(name=name) for name in (new, old))
    return head_to_head(project, new_source, old_source, **options)


@pytest.mark.django_db
def test_head_to_head_counts_from_the_new_sources_side() -> None:
    project = make_project()
    make_source("zeta"), make_source("alpha")
    for group, (a, b, preference) in enumerate(
        [("zeta", "alpha", "a"), ("alpha", "zeta", "b"), ("alpha", "zeta", "a"), ("zeta", "alpha", "tie")]
    ):
        result(project, a, b, preference, group=group)
    result(project, "zeta", "third", "b")
    found = against(project, "zeta", "alpha")
    assert {key: found[key] for key in ("wins", "ties", "losses", "judgments")} == {
        "wins": 2,
        "ties": 1,
        "losses": 1,
        "judgments": 4,
    }
    assert found["win_rate"] == pytest.approx(2.5 / 4)
    mirrored = against(project, "alpha", "zeta")
    assert (mirrored["wins"], mirrored["losses"]) == (1, 2)
    assert mirrored["lower"] == pytest.approx(1 - found["upper"])
    assert mirrored["upper"] == pytest.approx(1 - found["lower"])


@pytest.mark.django_db
def test_head_to_head_can_keep_to_some_groups() -> None:
    project = make_project()
    for group, preference in enumerate("aab"):
        result(project, "new", "old", preference, group=group)
    groups = sorted(project.prompts.values_list("group", flat=True))
    assert against(project, "new", "old")["judgments"] == 3
    assert against(project, "new", "old", groups=groups[:2])["judgments"] == 2
    assert against(project, "new", "old", groups=[])["win_rate"] is None


@pytest.mark.django_db
def test_head_to_head_interval_is_wilsons_for_independent_judgments() -> None:
    project = make_project()
    for group in range(100):
        result(project, "x", "y", "a" if group < 60 else "b", group=group)
    found = against(project, "x", "y")
    # Wilson for 60 of 100 is 0.502 to 0.691; Student's t and the cluster correction move it a little.
    assert found["lower"] == pytest.approx(0.502, abs=0.005)
    assert found["upper"] == pytest.approx(0.691, abs=0.005)


@pytest.mark.django_db
def test_head_to_head_never_claims_certainty() -> None:
    project = make_project()
    for group in range(10):
        result(project, "x", "y", "a", "a", group=group)
    found = against(project, "x", "y")
    assert found["win_rate"] == 1
    assert 0.5 < found["lower"] < 0.75
    assert found["upper"] == 1
    one_group = make_project()
    result(one_group, "x", "y", "a", "b", "a")
    assert (against(one_group, "x", "y")["lower"], against(one_group, "x", "y")["win_rate"]) == (None, 2 / 3)
    nothing = against(make_project(), "x", "y")
    assert (nothing["judgments"], nothing["win_rate"], nothing["lower"]) == (0, None, None)


@pytest.mark.django_db
def test_a_ranking_counts_once_for_each_pair_in_it() -> None:
    project = make_project()
    prompt = make_prompt(project)
    best, middle, worst = (make_source(name) for name in ("best", "middle", "worst"))
    responses = [make_response(prompt, source) for source in (middle, best, worst)]
    comparison = Comparison.objects.create(
        project=project, prompt=prompt, response_a=responses[0], response_b=responses[1], response_count=3
    )
    FurtherResponse.objects.create(comparison=comparison, position=2, response=responses[2])
    for ranking in ([2, 1, 3], [1, 1, 2]):
        Judgment.objects.create(
            comparison=comparison, annotator=make_annotator(), preference="ranked", ranking=ranking
        )
    assert head_to_head(project, best, worst)["wins"] == 2
    assert head_to_head(project, middle, worst)["wins"] == 2
    record = head_to_head(project, best, middle)
    assert (record["wins"], record["ties"], record["losses"]) == (1, 1, 0)


@pytest.mark.django_db
def test_gold_items_and_repeats_do_not_move_the_ratings() -> None:
    comparison = make_comparison()
    project, a, b = comparison.project, comparison.response_a.source, comparison.response_b.source
    make_judgment(comparison, "a")
    repeat = make_judgment(comparison, "b")
    Judgment.objects.filter(pk=repeat.pk).update(round=1)
    gold = make_comparison(project)
    Response.objects.filter(pk=gold.response_a_id).update(source=a)
    Response.objects.filter(pk=gold.response_b_id).update(source=b)
    Comparison.objects.filter(pk=gold.pk).update(is_gold=True)
    make_judgment(gold, "b")
    record = head_to_head(project, a, b)
    assert (record["wins"], record["judgments"]) == (1, 1)
