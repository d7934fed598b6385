"""Shares with the interval that their count, or the spread between comparisons, allows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

CONFIDENCE = 0.95
FEWEST_PEOPLE = 8
"""With fewer, the interval is about these people's taste on other prompts: they say nothing of how people differ."""


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
        quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, clusters - 1))
        return cls(share, *_wilson(share, float(independent), quantile), int(total))

    @classmethod
    def two_way(cls, values: ArrayLike, prompts: ArrayLike, people: ArrayLike) -> Share | None:
        """The mean of single outcomes that lean the same way on one prompt, and by one person.

        values: (outcomes,), each in 0 … 1; prompts, people: labels of each outcome. As `clustered`, with the variance
        over prompts plus that over people less that over single outcomes (Cameron, Gelbach and Miller 2011), and never
        less than either; with fewer than FEWEST_PEOPLE that over prompts alone.
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
        variance, clusters = _variance(residuals, prompt), prompt_count
        if person_count >= FEWEST_PEOPLE:
            of_people = _variance(residuals, person)
            both = variance + of_people - _variance(residuals, prompt * person_count + person)
            variance, clusters = max(both, variance, of_people), min(prompt_count, person_count)
        independent = clusters if variance < 1e-12 else min(count, share * (1 - share) / variance)
        quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, clusters - 1))
        return cls(share, *_wilson(share, float(independent), quantile), count)


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
