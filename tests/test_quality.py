"""What is known about single annotators, gold items, qualification, and votes weighed by who cast them."""

from __future__ import annotations

import numpy as np
import pytest

from annotation.aggregation import NO_MAJORITY, aggregate, dawid_skene, majorities
from annotation.agreement import VERDICTS, Votes

# ── Aggregation ──────────────────────────────────────────────────────────────────────────────────────────────────


def noisy_votes(
    rng: np.random.Generator, accuracies: list[float], items: int, share_judged: float = 0.8
) -> tuple[Votes, np.ndarray]:
    """Votes of people who are right with given chances, and the truth: (items,) indexes of a, tie and b."""
    truth = rng.integers(0, 3, items)
    is_right = rng.random((items, len(accuracies))) < accuracies
    wrong = (truth[:, None] + rng.integers(1, 3, is_right.shape)) % 3
    verdict = np.where(is_right, truth[:, None], wrong)
    judged = rng.random(is_right.shape) < share_judged
    judged[:, :2] = True  # two votes at least
    item, person = np.nonzero(judged)
    return Votes(item + 1, person + 1, np.zeros_like(item), 9 + verdict[item, person]), truth


def test_the_estimate_beats_the_majority_where_some_are_careless() -> None:
    rng = np.random.default_rng(11)
    accuracies = [0.9, 0.85, 0.85, 0.4, 0.35, 0.34]
    votes, truth = noisy_votes(rng, accuracies, 400)
    majority, _ = majorities(votes)
    found = aggregate(votes)
    estimate = majority.copy()
    for difference in found.differences:
        estimate[difference.comparison_id - 1] = difference.estimate
    by_majority, by_estimate = (majority == truth).mean(), (estimate == truth).mean()
    assert by_estimate > by_majority + 0.08
    # Whom to trust is told by the votes alone, to a few points.
    told = [found.people[person + 1].estimated for person in range(len(accuracies))]
    assert told == pytest.approx(accuracies, abs=0.08)
    assert found.items == found.same + found.contrary + found.decided == 400
    assert len(found.differences) == found.contrary + found.decided


def test_without_smoothing_the_estimate_is_crowd_kits() -> None:
    """Reference: crowdkit.aggregation.DawidSkene(n_iter=5, tol=0) of crowd-kit 1.4.2 on the same votes."""
    rng = np.random.default_rng(3)
    rows = []
    for item, right in enumerate(rng.integers(0, 3, 40)):
        for person, accuracy in enumerate([0.85, 0.8, 0.7, 0.5]):
            rows.append((item, person, right if rng.random() < accuracy else (right + rng.integers(1, 3)) % 3))
    item, person, verdict = np.array(rows).T
    after_five = dawid_skene(item, person, verdict, verdicts=3, smoothing=0, rounds=5, tolerance=0)
    assert after_five.shares == pytest.approx([0.363895, 0.319839, 0.316265], abs=1e-6)
    at_the_end = dawid_skene(item, person, verdict, verdicts=3, smoothing=0, rounds=500, tolerance=0)
    assert at_the_end.shares == pytest.approx([0.349918, 0.325082, 0.325], abs=1e-6)
    assert at_the_end.errors[0] == pytest.approx(
        np.array([[0.92654, 0.07346, 0], [0.156229, 0.843771, 0], [0, 0, 1]]), abs=1e-6
    )


def test_nothing_shared_gives_nothing() -> None:
    nobody = np.zeros(0, dtype=np.int64)
    assert aggregate(Votes(nobody, nobody, nobody, nobody)).items == 0
    alone = aggregate(Votes(np.array([1, 2]), np.array([1, 1]), np.array([0, 0]), np.array([9, 11])))
    assert (alone.items, alone.people) == (0, {})


def test_a_majority_needs_more_votes_than_each_other_verdict() -> None:
    # a a b | a b | neither | tie tie
    votes = Votes(
        np.array([1, 1, 1, 2, 2, 3, 4, 4]),
        np.array([1, 2, 3, 1, 2, 1, 1, 2]),
        np.zeros(8, dtype=int),
        np.array([1, 9, 11, 9, 11, 12, 4, 10]),
    )
    majority, counts = majorities(votes)
    assert majority.tolist() == [0, NO_MAJORITY, VERDICTS.index("neither"), VERDICTS.index("tie")]
    assert counts[0].tolist() == [2, 0, 1, 0]
