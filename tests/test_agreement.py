"""Coefficients of agreement against published examples and against their definitions spelled out."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterable
from typing import Any

import krippendorff
import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation.agreement import VERDICTS, Undefined, measure_agreement
from annotation.agreement.coefficients import Sums, fleiss_kappa, gwet_ac2, kappa, krippendorff_alpha
from annotation.agreement.report import VERDICT_WEIGHTS, agreement_of
from annotation.agreement.scores import score_agreement
from annotation.agreement.votes import Votes
from annotation.models import (
    Annotator,
    Assignment,
    AssignmentKind,
    AssignmentStatus,
    Comparison,
    FurtherResponse,
    Judgment,
    Project,
)
from annotation.protocol import Aspect, Axis, Protocol
from tests.factories import make_annotator, make_comparison, make_project, make_response, make_user

Item = dict[str, str | int]


def preference_of(vote: str | int) -> str:
    if isinstance(vote, str):
        return vote
    return "tie" if vote == 0 else "a" if vote < 0 else "b"


def judge(project: Project, items: Iterable[Item]) -> None:
    """One comparison for each mapping of annotator names to verdicts, or to strengths."""
    for votes in items:
        comparison = make_comparison(project)
        for name, vote in votes.items():
            annotator, _ = Annotator.objects.get_or_create(
                project=project, name=name, defaults={"is_human": not name.startswith("gpt")}
            )
            Judgment.objects.create(
                comparison=comparison,
                annotator=annotator,
                preference=preference_of(vote),
                strength=vote if isinstance(vote, int) else None,
            )


def sums_of(items: list[list[str]]) -> Sums:
    counts = np.array([[votes.count(verdict) for verdict in VERDICTS] for votes in items])
    return Sums.of(counts, np.ones((1, len(items))))


@pytest.mark.django_db
def test_raw_agreement_counts_pairs_of_judgments() -> None:
    project = make_project()
    judge(
        project,
        [
            {"p": "a", "q": "a", "r": "b"},  # 1 of 3 pairs
            {"p": "tie", "q": "a"},  # 0 of 1, with a tie
            {"p": "neither", "q": "neither"},  # 1 of 1, without a side
            {"p": "a"},
        ],
    )
    agreement = measure_agreement(project)
    assert (agreement.items, agreement.judgments, agreement.annotators, agreement.pairs) == (4, 8, 3, 5)
    assert agreement.raw_agreement == pytest.approx(2 / 5)
    assert agreement.raw_agreement_no_ties == pytest.approx(1 / 3)
    assert set(agreement.cohen_kappa) == {"p|q", "p|r", "q|r"}


@pytest.mark.django_db
def test_superseded_judgments_and_other_projects_stay_out_and_models_if_asked() -> None:
    project = make_project()
    judge(project, [{"p": "a", "q": "b", "gpt": "a"}])
    judge(make_project(), [{"p": "a", "q": "b"}])
    old = Judgment.objects.get(comparison__project=project, annotator__name="q")
    Judgment.objects.filter(pk=old.pk).update(superseded_at=timezone.now())
    Judgment.objects.create(comparison=old.comparison, annotator=old.annotator, preference="a", supersedes=old)
    assert measure_agreement(project).pairs == 3
    assert measure_agreement(project, humans_only=True).pairs == 1
    assert measure_agreement(project).raw_agreement == 1


@pytest.mark.django_db
def test_two_people_of_one_name_are_told_apart() -> None:
    project = make_project()
    judge(project, [{"ann": "a", "bob": "a"}])
    user = make_annotator(make_user("ann"))
    Judgment.objects.create(
        comparison=Judgment.objects.filter(annotator__name="bob").get().comparison, annotator=user, preference="b"
    )
    imported = Annotator.objects.get(project=project, name="ann")
    keys = set(measure_agreement(project).cohen_kappa)
    anns = sorted(f"ann #{pk}" for pk in (imported.pk, user.pk))
    assert keys == {"|".join(anns), *(f"{ann}|bob" for ann in anns)}


@pytest.mark.django_db
@pytest.mark.parametrize(
    "items",
    [
        [],
        [{"p": "a"}, {"q": "b"}],  # nobody judged the same
        [{"p": "a", "q": "a"}, {"p": "a", "q": "a"}],  # always the same verdict
    ],
)
def test_undefined_numbers_are_null(items: list[Item]) -> None:
    project = make_project()
    judge(project, items)
    out = io.StringIO()
    call_command("agreement", project=project.slug, json=True, stdout=out)
    shown = json.loads(out.getvalue(), parse_constant=pytest.fail)  # no NaN
    assert shown["krippendorff_alpha"] is shown["fleiss_kappa"] is shown["gwet_ac2"] is None
    assert all(kappa is None for kappa in shown["cohen_kappa"].values())
    assert shown["raw_agreement"] == (1 if shown["pairs"] else None)


@pytest.mark.django_db
def test_number_of_queries_is_fixed(django_assert_num_queries: Any) -> None:
    project = make_project()
    judge(project, [{f"p{n}": "a" for n in range(4)}, {f"p{n}": "b" for n in range(6)}])
    with django_assert_num_queries(2):
        measure_agreement(project)


@pytest.mark.django_db
def test_unknown_project_is_refused_by_name() -> None:
    with pytest.raises(CommandError, match="nowhere"):
        call_command("agreement", project="nowhere")


def test_cohen_kappa_of_a_known_table() -> None:
    # 20 both yes, 15 both no, 5 and 10 apart: kappa 0.4
    cells = np.array([[20.0, 5.0, 10.0, 15.0]])
    assert kappa(cells, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), 1 - np.eye(2)) == pytest.approx(0.4)


def test_fleiss_kappa_of_the_published_example() -> None:
    # Fourteen raters, ten subjects, five categories: kappa 0.210 (Fleiss 1971's worked layout)
    patterns = np.array(
        [
            [0, 0, 0, 0, 14],
            [0, 2, 6, 4, 2],
            [0, 0, 3, 5, 6],
            [0, 3, 9, 2, 0],
            [2, 2, 8, 1, 1],
            [7, 7, 0, 0, 0],
            [3, 2, 6, 3, 0],
            [2, 5, 3, 2, 2],
            [6, 5, 2, 1, 0],
            [0, 2, 2, 3, 7],
        ]
    )
    assert fleiss_kappa(Sums.of(patterns, np.ones((1, 10)))) == pytest.approx(0.210, abs=5e-4)


ITEMS = st.lists(st.lists(st.sampled_from(VERDICTS), min_size=1, max_size=5), min_size=1, max_size=12)


@settings(deadline=None, max_examples=60)
@given(ITEMS)
def test_alpha_by_its_definition(items: list[list[str]]) -> None:
    pairable = [votes for votes in items if len(votes) > 1]
    values = list(itertools.chain.from_iterable(pairable))
    (alpha,) = krippendorff_alpha(sums_of(items), "nominal")
    if len(set(values)) < 2:
        assert np.isnan(alpha)
        return
    observed = sum(
        sum(x != y for x, y in itertools.permutations(votes, 2)) / (len(votes) - 1) for votes in pairable
    ) / len(values)
    expected = sum(x != y for x, y in itertools.permutations(values, 2)) / (len(values) * (len(values) - 1))
    assert alpha == pytest.approx(1 - observed / expected)


@settings(deadline=None, max_examples=60)
@given(ITEMS)
def test_ac2_by_its_definition(items: list[list[str]]) -> None:
    pairable = [votes for votes in items if len(votes) > 1]
    occurring = sorted({vote for votes in pairable for vote in votes})
    (ac2,) = gwet_ac2(sums_of(items), VERDICT_WEIGHTS, np.isin(VERDICTS, occurring))
    if len(occurring) < 2:
        assert np.isnan(ac2)
        return
    place = {"a": 0.0, "tie": 0.5, "b": 1.0}

    def weight(x: str, y: str) -> float:
        if "neither" in (x, y):
            return float(x == y)
        return 1 - (place[x] - place[y]) ** 2

    pairs = [list(itertools.permutations(votes, 2)) for votes in pairable]
    observed = np.mean([np.mean([weight(x, y) for x, y in of_item]) for of_item in pairs])
    share = {v: np.mean([votes.count(v) / len(votes) for votes in pairable]) for v in occurring}
    total = sum(weight(x, y) for x in occurring for y in occurring)
    count = len(occurring)
    expected = total / (count * (count - 1)) * sum(share[v] * (1 - share[v]) for v in occurring)
    assert ac2 == pytest.approx((observed - expected) / (1 - expected))


# Three people, twelve comparisons, None where one did not judge.
STRENGTHS = {
    "p": [-3, -2, 0, 1, 2, 3, -1, None, 0, 2, -2, 3],
    "q": [-2, -2, 1, 1, 3, 3, 0, -1, None, 1, -3, -1],
    "r": [-3, None, 0, 2, 2, 2, -1, -2, 0, 3, 1, 3],
}


def graded_votes() -> Votes:
    rows = sorted(
        (item, annotator, 0, strength + 4)
        for annotator, strengths in enumerate(STRENGTHS.values())
        for item, strength in enumerate(strengths)
        if strength is not None
    )
    comparison, annotator, part, code = np.array(rows).T
    return Votes(comparison, annotator, part, code)


def test_figures_on_the_scale_are_those_of_other_packages() -> None:
    """Computed once from STRENGTHS by krippendorff 0.9.0, irrCAC 0.4.4 (CAC.gwet, fleiss) and scikit-learn 1.9.1
    (cohen_kappa_score with quadratic weights); irrCAC leaves out nothing, as here: it takes missing ratings."""
    found = agreement_of(graded_votes(), dict(enumerate(STRENGTHS)))
    assert found.scale == "strength"
    assert found.krippendorff_alpha_ordinal == pytest.approx(0.6960070387909841)
    assert found.krippendorff_alpha_interval == pytest.approx(0.7021479713603819)
    assert found.gwet_ac2_scale == pytest.approx(0.73273, abs=5e-6)
    assert found.weighted_kappa == pytest.approx(
        {"p|q": 0.73621103117506, "p|r": 0.8356164383561644, "q|r": 0.45012787723785164}
    )
    assert found.shared_items == {"p|q": 10, "p|r": 10, "q|r": 10}
    # … and over their sides:
    assert found.krippendorff_alpha == pytest.approx(0.6144578313253012)
    assert found.fleiss_kappa == pytest.approx(0.64356, abs=5e-6)
    assert found.gwet_ac2 == pytest.approx(0.63115, abs=5e-6)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(-3, 3), min_size=1, max_size=5), min_size=1, max_size=12))
def test_alpha_is_the_packages(items: list[list[int]]) -> None:
    values = np.arange(-3.0, 4.0)
    counts = np.array([[votes.count(int(value)) for value in values] for votes in items])
    if len(set(itertools.chain.from_iterable(votes for votes in items if len(votes) > 1))) < 2:
        return
    for level in ("nominal", "ordinal", "interval"):
        expected = krippendorff.alpha(value_counts=counts, value_domain=values, level_of_measurement=level)
        found = krippendorff_alpha(Sums.of(counts, np.ones((1, len(items)))), level, values)
        assert found == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(ITEMS, st.integers(2, 4))
def test_weights_are_the_items_spelled_out(items: list[list[str]], times: int) -> None:
    counts = np.array([[votes.count(verdict) for verdict in VERDICTS] for votes in items])
    weighted = Sums.of(counts, np.full((1, len(items)), float(times)))
    spelled_out = Sums.of(np.repeat(counts, times, axis=0), np.ones((1, times * len(items))))
    occurs = counts[counts.sum(axis=1) > 1].sum(axis=0) > 0
    for one, other in [
        (krippendorff_alpha(weighted, "nominal"), krippendorff_alpha(spelled_out, "nominal")),
        (fleiss_kappa(weighted), fleiss_kappa(spelled_out)),
        (gwet_ac2(weighted, VERDICT_WEIGHTS, occurs), gwet_ac2(spelled_out, VERDICT_WEIGHTS, occurs)),
    ]:
        assert one == pytest.approx(other, nan_ok=True)


def test_agreement_by_strength_counts_votes_that_met_another() -> None:
    votes = Votes(
        comparison=np.array([1, 1, 1, 2, 2]),
        annotator=np.array([1, 2, 3, 1, 2]),
        part=np.zeros(5, dtype=int),
        code=np.array([-3, -1, 2, 0, 0]) + 4,
    )
    found = agreement_of(votes, {1: "p", 2: "q", 3: "r"})
    shown = {entry.strength: (entry.pairs, entry.agreement) for entry in found.by_strength}
    # Strength 3 met −1 (same side) and 2 (not); −1 met the same; 2 met nobody of its side; the ties met each other.
    assert shown == {3: (2, 0.5), 1: (2, 0.5), 2: (2, 0.0), 0: (2, 1.0)}


def test_a_bootstrap_interval_is_that_of_resampled_comparisons() -> None:
    votes = graded_votes()
    names = dict(enumerate(STRENGTHS))
    found = agreement_of(votes, names, resamples=4000)
    assert found.intervals == agreement_of(votes, names, resamples=4000).intervals

    # The same by hand: draw comparisons, take each one's pairs of equal sides.
    sides = np.array([[np.nan if x is None else np.sign(x) for x in row] for row in STRENGTHS.values()])
    both = [(sides[i], sides[k]) for i, k in itertools.combinations(range(3), 2)]
    known = sum((~np.isnan(x + y)).astype(float) for x, y in both)
    equal = sum((x == y).astype(float) for x, y in both)
    drawn = np.random.default_rng(5).integers(0, 12, size=(4000, 12))
    by_hand = np.quantile(equal[drawn].sum(axis=1) / known[drawn].sum(axis=1), [0.025, 0.975])
    assert found.intervals["raw_agreement"] == pytest.approx(tuple(by_hand), abs=0.03)
    assert found.raw_agreement == pytest.approx(equal.sum() / known.sum())
    for name in ("krippendorff_alpha_interval", "gwet_ac2"):
        lower, upper = found.intervals[name]  # type: ignore[misc]
        assert lower < getattr(found, name) < upper
    assert set(found.intervals["weighted_kappa"]) == {"p|q", "p|r", "q|r"}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "name", "reason"),
    [
        ([(1, 1, "a")], "krippendorff_alpha", "fewer than two people"),
        ([(1, 1, "a"), (2, 2, "b")], "raw_agreement", "no comparison has two"),
        ([(1, 1, "a"), (1, 2, "a")], "gwet_ac2", "always gave the same verdict"),
        ([(1, 1, "a"), (1, 2, "tie")], "raw_agreement_no_ties", "took a side"),
        ([(1, 1, "neither"), (1, 2, "a")], "krippendorff_alpha_ordinal", "place on the scale"),
    ],
)
def test_what_is_not_defined_says_why(rows: list[tuple[int, int, str]], name: str, reason: str) -> None:
    comparison, annotator, verdicts = zip(*rows, strict=True)
    code = np.array([9 + VERDICTS.index(verdict) for verdict in verdicts])
    votes = Votes(np.array(comparison), np.array(annotator), np.zeros(len(rows), dtype=int), code)
    found = agreement_of(votes, {1: "p", 2: "q"}, resamples=50)
    assert getattr(found, name) is None and found.intervals[name] is None
    why = found.not_defined[name]
    assert isinstance(why, Undefined) and reason in str(why.label)


@pytest.mark.django_db
def test_gold_and_repeats_say_nothing_of_agreement() -> None:
    project = make_project()
    judge(project, [{"p": -2, "q": -1}])
    comparison = Comparison.objects.get(project=project)
    for kind, number in [(AssignmentKind.GOLD, 0), (AssignmentKind.REPEAT, 1)]:
        annotator = make_annotator()
        assignment = Assignment.objects.create(
            comparison=comparison,
            annotator=annotator,
            project=project,
            kind=kind,
            round=number,
            status=AssignmentStatus.SUBMITTED,
            holds_place=False,
            a_shown_on_left=True,
            submitted_at=timezone.now(),
            lease_expires_at=timezone.now(),
        )
        Judgment.objects.create(
            comparison=comparison, annotator=annotator, assignment=assignment, preference="b", round=number
        )
    found = measure_agreement(project)
    assert (found.judgments, found.pairs, found.raw_agreement) == (2, 1, 1)


@pytest.mark.django_db
def test_a_ranking_is_judged_pair_by_pair() -> None:
    project = make_project()
    comparison = make_comparison(project)
    third = make_response(comparison.prompt)
    FurtherResponse.objects.create(comparison=comparison, position=2, response=third)
    Comparison.objects.filter(pk=comparison.pk).update(response_count=3)
    for ranking in ([1, 2, 3], [1, 3, 2], [2, 2, 1]):
        Judgment.objects.create(
            comparison=comparison, annotator=make_annotator(), preference="ranked", ranking=ranking
        )
    found = measure_agreement(project, resamples=100)
    # a before b before c; a before c before b; c before both, which are equal.
    assert (found.items, found.judgments, found.pairs, found.scale) == (3, 9, 9, "side")
    # On (a, b): a, a, tie; on (a, c): a, a, b; on (b, c): a, b, b: one equal pair of three each.
    assert found.raw_agreement == pytest.approx(3 / 9)
    assert found.intervals["raw_agreement"] is None  # one comparison cannot be resampled


@pytest.mark.django_db
def test_scores_and_axes_have_an_alpha_of_their_own(django_assert_num_queries: Any) -> None:
    protocol = Protocol(aspects=(Aspect("clarity", "Clarity"),), axes=(Axis("harmless", "Less harmful"),))
    project = make_project()
    with django_assert_num_queries(0):
        assert score_agreement(project) == []
    Project.objects.filter(pk=project.pk).update(protocol=protocol.to_json())
    project.refresh_from_db()
    people = [make_annotator(), make_annotator()]
    given: list[tuple[list[int | None], list[int | None]]]
    given = [([4, 2], [5, 2]), ([1, 3], [1, 4]), ([2, None], [3, 5]), ([5, 5], [4, 5])]
    for number, scores in enumerate(given):
        comparison = make_comparison(project)
        for annotator, pair in zip(people, scores, strict=True):
            Judgment.objects.create(
                comparison=comparison,
                annotator=annotator,
                preference="a",
                ratings={"clarity": pair, "gone": [1, 1]},
                axes={"harmless": 1} if number < 2 else {},
            )
    clarity, harmless = score_agreement(project, resamples=200)
    rows = np.array([[one[i] or np.nan for pair in given for one in [pair[p]] for i in (0, 1)] for p in (0, 1)])
    expected = krippendorff.alpha(reliability_data=rows, level_of_measurement="interval")
    assert clarity.alpha == pytest.approx(expected) and clarity.scores == 15
    assert clarity.interval and clarity.interval[0] < expected < clarity.interval[1]
    assert (harmless.alpha, harmless.scores, harmless.not_defined) == (None, 4, Undefined.UNIFORM)


@pytest.mark.django_db
def test_the_command_prints_intervals_and_reasons() -> None:
    project = make_project()
    judge(project, [{"p": -2, "q": -1}, {"p": 2, "q": 1}, {"p": 1, "q": -3}, {"p": 0, "q": 0}, {"p": 3, "q": 3}])
    out = io.StringIO()
    call_command("agreement", project=project.slug, json=True, stdout=out)
    shown = json.loads(out.getvalue(), parse_constant=pytest.fail)
    lower, upper = shown["intervals"]["krippendorff_alpha_interval"]
    assert lower < shown["krippendorff_alpha_interval"] < upper
    assert shown["intervals"]["cohen_kappa"]["p|q"][0] < shown["cohen_kappa"]["p|q"]
    assert [entry["strength"] for entry in shown["by_strength"]] == [0, 1, 2, 3]
    assert shown["not_defined"] == {} and "quadratic" in shown["weights"]["gwet_ac2"]
    text = io.StringIO()
    call_command("agreement", project=project.slug, stdout=text)
    assert "krippendorff alpha interval" in text.getvalue() and "95 %" in text.getvalue()
