"""Shares with the interval that their count, or the spread between comparisons, allows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special  # scipy.stats would take each process a third of a second more to start

CONFIDENCE = 0.95
FEWEST_PEOPLE = 2
"""One person says nothing of how people differ: that interval is about one person's taste on other prompts."""


@dataclass(frozen=True)
class Share:
    """A share of `count` trials, with its 95 % interval; all three lie in 0 … 1."""

    value: float
    lower: float
    upper: float
    count: int

    @classmethod
    def of(cls, successes: float, count: int) -> Share | None:
        """Wilson's interval (1927) for independent trials; None where there was no trial."""
        if not count:
            return None
        return cls(successes / count, *_wilson(successes / count, count, NormalDist().inv_cdf(0.975)), count)

    @classmethod
    def clustered(cls, successes: ArrayLike, trials: ArrayLike) -> Share | None:
        """The share over clusters whose trials lean the same way, such as the meetings of votes on one comparison.

        successes, trials: (clusters,). Wilson's interval with the number of independent trials that would vary as much
        as the clusters do, at most all and at least one a cluster; Student's t for the normal quantile.
        """
        successes, trials = np.asarray(successes, dtype=float), np.asarray(trials, dtype=float)
        successes, trials = successes[trials > 0], trials[trials > 0]
        clusters, total = len(trials), trials.sum()
        if not clusters:
            return None
        share = float(successes.sum() / total)
        if clusters == 1:
            return cls(share, 0.0, 1.0, int(total))
        variance = ((successes - share * trials) ** 2).sum() * clusters / (clusters - 1) / total**2
        independent = clusters if variance < 1e-12 else min(total, share * (1 - share) / variance)
        quantile = float(special.stdtrit(clusters - 1, (1 + CONFIDENCE) / 2))
        return cls(share, *_wilson(share, float(independent), quantile), int(total))

    @classmethod
    def two_way(cls, values: ArrayLike, prompts: ArrayLike, people: ArrayLike) -> Share | None:
        """The mean of single outcomes that lean the same way on one prompt, and by one person.

        values: (outcomes,), each in 0 … 1; prompts, people: labels of each outcome. As `clustered`, with the
        `two_way_variance`; with fewer than FEWEST_PEOPLE, or where all outcomes are the same, that over prompts alone.
        """
        values = np.asarray(values, dtype=float)
        count = len(values)
        if not count:
            return None
        share = float(values.mean())
        prompt, person = (np.unique(np.asarray(labels), return_inverse=True)[1] for labels in (prompts, people))
        prompt_count, person_count = int(prompt.max()) + 1, int(person.max()) + 1
        if prompt_count == 1:
            return cls(share, 0.0, 1.0, count)
        residuals = values - share
        variance, freedom = _variance(residuals, prompt), prompt_count - 1.0
        # Where nobody differs, few people are no reason for doubt: unanimous votes would be the least certain.
        if person_count >= FEWEST_PEOPLE and np.ptp(values):
            of_votes = _variance(residuals, prompt * person_count + person)
            both, degrees = two_way_variance(
                variance, _variance(residuals, person), of_votes, prompt_count, person_count
            )
            variance, freedom = float(both), float(degrees)
        independent = prompt_count if variance < 1e-12 else min(count, share * (1 - share) / variance)
        quantile = float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2))
        return cls(share, *_wilson(share, float(independent), quantile), count)


def two_way_variance(
    of_prompts: ArrayLike, of_people: ArrayLike, of_votes: ArrayLike, prompts: int, people: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The variance of what leans the same way on one prompt, and by one person; and its degrees of freedom.

    What the prompts vary plus what the people vary less the single votes, which both count (Cameron, Gelbach and
    Miller 2011); never less than either alone, since with few clusters the difference can come out too small. The
    degrees of freedom are those of Student's t for a sum of two variances that rest on unequal numbers of clusters
    (Satterthwaite 1946): few people cost their own part of the variance its certainty, and not that of the prompts.
    """
    prompt, person, vote = (np.asarray(part, dtype=float) for part in (of_prompts, of_people, of_votes))
    variance = np.maximum(prompt + person - vote, np.maximum(prompt, person))
    spread = prompt**2 / (prompts - 1) + person**2 / (people - 1)
    fewest = np.full_like(variance, min(prompts, people) - 1)
    degrees = np.divide(variance**2, spread, out=fewest.copy(), where=spread > 0)
    return variance, np.maximum(degrees, fewest)


def _variance(residuals: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Of a mean, by clusters."""
    label = np.unique(labels, return_inverse=True)[1]
    sums = np.bincount(label, weights=residuals)
    return float((sums**2).sum() * len(sums) / max(len(sums) - 1, 1) / len(residuals) ** 2)


def _wilson(share: float, trials: float, quantile: float) -> tuple[float, float]:
    width = 1 + quantile**2 / trials
    centre = (share + quantile**2 / (2 * trials)) / width
    half = quantile / width * math.sqrt(share * (1 - share) / trials + quantile**2 / (4 * trials**2))
    return max(0.0, centre - half), min(1.0, centre + half)
