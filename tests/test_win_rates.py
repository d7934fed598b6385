"""One source against another: intervals over prompts and people, and the win rate at equal length."""

from __future__ import annotations

import numpy as np
import pytest

from annotation.models import Comparison, Project, Response
from annotation.ratings.battles import LOST, TIED, WON, Battles
from annotation.shares import Share
from annotation.win_rates import WinRate, measure_win_rate, win_rate_of
from tests.factories import make_annotator, make_judgment, make_project, make_prompt, make_response, make_source


def battles_of(verdict: np.ndarray, person: np.ndarray | None = None, group: np.ndarray | None = None) -> Battles:
    count = len(verdict)
    labels = np.arange(count)
    return Battles(
        np.zeros(count, dtype=np.int64),
        np.ones(count, dtype=np.int64),
        verdict,
        labels if person is None else person,
        labels if group is None else group,
        np.ones(count),
    )


def rate_of(verdict: np.ndarray, differences: np.ndarray | None = None, **labels: np.ndarray) -> WinRate:
    return win_rate_of(battles_of(verdict, **labels), np.ones(len(verdict), dtype=bool), differences)


def width(share: Share | None) -> float:
    assert share is not None
    return share.upper - share.lower


def test_votes_of_one_taste_say_less_than_as_many_people() -> None:
    verdict = np.where(np.arange(400) % 20 < 12, WON, LOST)
    independent = rate_of(verdict).rate
    # 20 people, each of whom always votes the same way.
    alike = rate_of(verdict, person=np.arange(400) % 20).rate
    assert independent is not None and alike is not None
    assert independent.value == alike.value == 0.6
    assert width(independent) == pytest.approx(0.096, abs=0.003)
    assert width(alike) == pytest.approx(0.43, abs=0.05)
    assert width(rate_of(verdict, group=np.arange(400) % 20).rate) == pytest.approx(width(alike), abs=0.01)


def test_two_way_interval_holds_the_truth() -> None:
    rng = np.random.default_rng(7)
    prompts, people = 40, 12
    held = 0
    for _ in range(300):
        lean = rng.normal(0, 0.8, prompts)[:, None] + rng.normal(0, 0.8, people)[None, :]
        # The mean over all prompts and people is one half, by symmetry.
        values = rng.random((prompts, people)) < 1 / (1 + np.exp(-lean))
        at = np.indices((prompts, people)).reshape(2, -1)
        share = Share.two_way(values.ravel(), at[0], at[1])
        assert share is not None
        held += share.lower <= 0.5 <= share.upper
    assert 0.92 <= held / 300 <= 0.99


@pytest.mark.parametrize("people", [2, 8])
def test_people_who_all_say_the_same_are_no_reason_to_doubt_it(people: int) -> None:
    at = np.arange(300)
    unanimous = Share.two_way(np.ones(300), at, at % people)
    assert unanimous is not None and unanimous.lower == pytest.approx(0.987, abs=0.001)
    some_differ = Share.two_way(at >= 5, at, at % people)
    assert some_differ is not None and some_differ.lower < unanimous.lower


def test_length_is_held_equal() -> None:
    rng = np.random.default_rng(3)
    differences = rng.normal(0.3, 0.3, 4000)  # the new one writes longer
    chance = 1 / (1 + np.exp(-(0.0 + 4 * differences)))  # no better at equal length
    verdict = np.where(rng.random(4000) < chance, WON, LOST)
    verdict[rng.random(4000) < 0.1] = TIED
    found = rate_of(verdict, differences)
    assert found.rate is not None and found.at_equal_length is not None
    assert found.rate.lower > 0.65
    assert found.at_equal_length.lower < 0.5 < found.at_equal_length.upper
    assert width(found.at_equal_length) < 0.08


@pytest.mark.parametrize(
    ("verdict", "differences"),
    [
        ([WON, WON, WON], [0.1, -0.2, 0.3]),
        ([WON, LOST, WON], [0.1, 0.1, 0.1]),
        ([WON, LOST, WON, LOST], [0.1, -0.2, 0.3, -0.4]),
        ([], []),
    ],
    ids=["all won", "always as much longer", "length alone decides", "no votes"],
)
def test_no_win_rate_at_equal_length_where_the_votes_do_not_tell(verdict: list[int], differences: list[float]) -> None:
    found = rate_of(np.array(verdict, dtype=np.int64), np.array(differences, dtype=float))
    assert found.at_equal_length is None
    assert found.judgments == len(verdict)


def test_how_many_more_votes_would_decide() -> None:
    undecided = rate_of(np.array([WON] * 55 + [LOST] * 45))
    assert not undecided.is_decided
    more = undecided.votes_needed
    assert more is not None and 200 < more < 400  # 55 % is told from 50 % by about 385 votes
    assert rate_of(np.array([WON] * 90 + [LOST] * 10)).votes_needed is None
    assert rate_of(np.array([WON, LOST] * 20)).votes_needed is None


@pytest.mark.django_db
def test_votes_of_several_projects_count_together_and_people_stay_one() -> None:
    new, old, third = make_source("new"), make_source("old"), make_source("third")
    person = make_annotator()

    def vote(project: Project, a: str, b: str, verdict: str) -> None:
        prompt = make_prompt(project)
        sources = {"new": new, "old": old, "third": third}
        one, other = (make_response(prompt, sources[name], text=name * len(name)) for name in (a, b))
        comparison = Comparison.objects.create(project=project, prompt=prompt, response_a=one, response_b=other)
        make_judgment(comparison, verdict, annotator=person)

    here, there, elsewhere = make_project(), make_project(), make_project()
    vote(here, "new", "old", "a")
    vote(there, "old", "new", "b")
    vote(there, "old", "new", "neither")
    vote(there, "new", "third", "b")
    vote(elsewhere, "new", "old", "b")
    found = measure_win_rate([here, there], new, old)
    assert (found.wins, found.ties, found.losses, found.people, found.prompts) == (2, 1, 0, 1, 3)
    assert found.net == pytest.approx(2 / 3)
    assert measure_win_rate([], new, old).judgments == 0
    assert Response.objects.count() == 10
