"""What the truth is likely to be where people disagree: Dawid and Skene's estimate beside the plain majority.

The majority counts every vote alike. The estimate learns from the overlap how often each person says what for each
true verdict, and weighs their votes by it. Source: Dawid and Skene 1979, Maximum Likelihood Estimation of Observer
Error-Rates Using the EM Algorithm, Applied Statistics 28 (1), equations 2.3 to 2.5. Smoothing by everybody's matrix
is ours: without it somebody with three votes gets a matrix of zeros and ones.

crowd-kit has the same estimate and is the reference of the tests. It is no dependency: it brings scikit-learn, pandas
and nltk into every web process, and it requires transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from annotation.agreement.votes import VERDICTS, Votes

# How many votes everybody's error rates count for, beside a person's own.
SMOOTHING_VOTES = 4.0
NO_MAJORITY = -1


@dataclass(frozen=True)
class Estimate:
    """probabilities: (items, V), of each true verdict; shares: (V,), how common each is; errors: (people, V, V).

    errors[i, t, v] is how often person i says v where the truth is t.
    """

    probabilities: NDArray[np.float64]
    shares: NDArray[np.float64]
    errors: NDArray[np.float64]

    @property
    def reliability(self) -> NDArray[np.float64]:
        """(people,), the chance that a vote of this person on any item is right."""
        return np.einsum("t,itt->i", self.shares, self.errors)


def dawid_skene(
    item: NDArray[np.int64],
    person: NDArray[np.int64],
    verdict: NDArray[np.int64],
    *,
    verdicts: int,
    smoothing: float = SMOOTHING_VOTES,
    rounds: int = 200,
    tolerance: float = 1e-4,
) -> Estimate:
    """Estimate by EM from parallel arrays of votes, beginning with each item's shares of votes.

    item: 0 … items − 1, each with a vote; person: 0 … people − 1. Ends when no probability moves by more than
    `tolerance`, or after `rounds`.
    """
    people = int(person.max()) + 1
    items = int(item.max()) + 1
    probabilities = _normalised(np.bincount(item * verdicts + verdict, minlength=items * verdicts).reshape(items, -1))
    cell = person * verdicts + verdict
    # Which items each person said each verdict of: a product with it sums over the votes.
    said_of = sparse.csr_array((np.ones(len(item)), (cell, item)), shape=(people * verdicts, items))
    for _ in range(rounds):
        shares = probabilities.mean(axis=0)
        counts = np.asarray(said_of @ probabilities).reshape(people, verdicts, verdicts).transpose(0, 2, 1)
        everybody = _normalised(counts.sum(axis=0))
        errors = _normalised(counts + smoothing * everybody)
        log_chance = np.log(np.maximum(errors, 1e-10)).transpose(0, 2, 1).reshape(-1, verdicts)
        log_posterior = said_of.T @ log_chance + np.log(np.maximum(shares, 1e-10))
        posterior = _normalised(np.exp(log_posterior - log_posterior.max(axis=1, keepdims=True)))
        moved = np.abs(posterior - probabilities).max()
        probabilities = posterior
        if moved < tolerance:
            break
    return Estimate(probabilities, probabilities.mean(axis=0), errors)


def _normalised(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Rows that sum to one; alike where nothing was counted."""
    totals = counts.sum(axis=-1, keepdims=True)
    return np.divide(counts, totals, out=np.full(counts.shape, 1 / counts.shape[-1]), where=totals > 1e-12)


@dataclass(frozen=True)
class Difference:
    """A comparison whose estimate is not its majority; both index VERDICTS, and `majority` may be NO_MAJORITY."""

    comparison_id: int
    majority: int
    estimate: int
    probability: float
    counts: tuple[int, ...]
    """Votes by verdict."""


@dataclass(frozen=True)
class Reliability:
    votes: int
    estimated: float
    """The chance that this person's vote on any item is right."""
    with_majority: float | None
    """The share of their votes, where there is a majority of others' and theirs, that are with it."""


@dataclass(frozen=True)
class Aggregation:
    """Of the `items` with two votes or more: how many have the estimate as majority, another one, or none."""

    items: int
    same: int
    contrary: int
    decided: int
    differences: list[Difference]
    """The surest first."""
    people: dict[int, Reliability]
    """By the annotator's id."""


def majorities(votes: Votes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each item's verdict with more votes than each other, or NO_MAJORITY, (items,); its counts, (items, 4)."""
    items = int(votes.item[-1]) + 1 if len(votes) else 0
    counts = np.zeros((items, len(VERDICTS)), dtype=np.int64)
    np.add.at(counts, (votes.item, votes.verdict), 1)
    best = counts.max(axis=1, keepdims=True)
    return np.where((counts == best).sum(axis=1) == 1, counts.argmax(axis=1), NO_MAJORITY), counts


def aggregate(votes: Votes) -> Aggregation:
    """The estimate beside the majority, and what it says of each person."""
    majority, counts = majorities(votes)
    shared = counts.sum(axis=1) >= 2
    of_shared = shared[votes.item] if len(votes) else np.zeros(0, dtype=bool)
    if not of_shared.any():
        return Aggregation(0, 0, 0, 0, [], {})
    _, item = np.unique(votes.item[of_shared], return_inverse=True)
    people, person = np.unique(votes.annotator[of_shared], return_inverse=True)
    verdict = votes.verdict[of_shared]
    found = dawid_skene(item, person, verdict, verdicts=len(VERDICTS))

    estimate = found.probabilities.argmax(axis=1)
    majority, counts = majority[shared], counts[shared]
    comparison = votes.comparison[of_shared][np.flatnonzero(np.diff(item, prepend=-1))]
    differs = np.flatnonzero(estimate != majority)
    differs = differs[np.argsort(-found.probabilities[differs, estimate[differs]], kind="stable")]
    has_majority = majority[item] != NO_MAJORITY
    cast = np.bincount(person[has_majority], minlength=len(people))
    agreeing = np.bincount(person[has_majority & (majority[item] == verdict)], minlength=len(people))
    return Aggregation(
        items=len(estimate),
        same=int((estimate == majority).sum()),
        contrary=int(((estimate != majority) & (majority != NO_MAJORITY)).sum()),
        decided=int((majority == NO_MAJORITY).sum()),
        differences=[
            Difference(
                int(comparison[place]),
                int(majority[place]),
                int(estimate[place]),
                float(found.probabilities[place, estimate[place]]),
                tuple(counts[place].tolist()),
            )
            for place in differs
        ],
        people={
            int(pk): Reliability(int(votes_cast), float(reliability), float(right / cast_here) if cast_here else None)
            for pk, votes_cast, reliability, right, cast_here in zip(
                people, np.bincount(person), found.reliability, agreeing, cast, strict=True
            )
        },
    )
