"""Coefficients of agreement against published examples and against their definitions spelled out."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from annotation.agreement import VERDICTS, cohen_kappa, fleiss_kappa, gwet_ac2, krippendorff_alpha, measure_agreement
from annotation.models import Annotator, Judgment, Project
from tests.factories import make_annotator, make_comparison, make_project, make_user

Votes = dict[str, str]


def judge(project: Project, items: Iterable[Votes]) -> None:
    """One comparison for each mapping of annotator names to verdicts."""
    for votes in items:
        comparison = make_comparison(project)
        for name, preference in votes.items():
            annotator, _ = Annotator.objects.get_or_create(
                project=project, name=name, defaults={"is_human": not name.startswith("gpt")}
            )
            Judgment.objects.create(comparison=comparison, annotator=annotator, preference=preference)


def patterns_of(items: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    patterns = np.array([[votes.count(verdict) for verdict in VERDICTS] for votes in items])
    return patterns, np.ones(len(items), dtype=int)


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
def test_undefined_numbers_are_null(items: list[Votes]) -> None:
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
    with django_assert_num_queries(3):
        measure_agreement(project)


@pytest.mark.django_db
def test_unknown_project_is_refused_by_name() -> None:
    with pytest.raises(CommandError, match="nowhere"):
        call_command("agreement", project="nowhere")


def test_cohen_kappa_of_a_known_table() -> None:
    table = np.zeros((4, 4))
    # 20 both yes, 15 both no, 5 and 10 apart: kappa 0.4
    table[0, 0], table[2, 2], table[0, 2], table[2, 0] = 20, 15, 5, 10
    assert cohen_kappa(table) == pytest.approx(0.4)


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
    assert fleiss_kappa(patterns, np.ones(10, dtype=int)) == pytest.approx(0.210, abs=5e-4)


ITEMS = st.lists(st.lists(st.sampled_from(VERDICTS), min_size=1, max_size=5), min_size=1, max_size=12)


@given(ITEMS)
def test_alpha_by_its_definition(items: list[list[str]]) -> None:
    pairable = [votes for votes in items if len(votes) > 1]
    values = list(itertools.chain.from_iterable(pairable))
    alpha = krippendorff_alpha(*patterns_of(items))
    if len(set(values)) < 2:
        assert alpha is None
        return
    observed = sum(
        sum(x != y for x, y in itertools.permutations(votes, 2)) / (len(votes) - 1) for votes in pairable
    ) / len(values)
    expected = sum(x != y for x, y in itertools.permutations(values, 2)) / (len(values) * (len(values) - 1))
    assert alpha == pytest.approx(1 - observed / expected)


@given(ITEMS)
def test_ac2_by_its_definition(items: list[list[str]]) -> None:
    pairable = [votes for votes in items if len(votes) > 1]
    occurring = sorted({vote for votes in pairable for vote in votes})
    ac2 = gwet_ac2(*patterns_of(items))
    if len(occurring) < 2:
        assert ac2 is None
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


@given(ITEMS, st.integers(2, 4))
def test_patterns_with_multiplicities_are_the_items_spelled_out(items: list[list[str]], times: int) -> None:
    patterns, ones = patterns_of(items)
    for coefficient in (krippendorff_alpha, fleiss_kappa, gwet_ac2):
        spelled_out = coefficient(np.repeat(patterns, times, axis=0), np.repeat(ones, times))
        assert coefficient(patterns, ones * times) == (None if spelled_out is None else pytest.approx(spelled_out))
