"""Coefficients of agreement over tables of counts, many resamples at once.

A table counts, for each item (a comparison, or two responses of a ranking), how many people gave each verdict. Every
coefficient here depends on such a table only through sums over the items, so a bootstrap needs no loop: the sums of
all resamples are one matrix product, and each coefficient is computed for all of them together.

Shapes: B resamples, V verdicts. A coefficient that is not defined is NaN.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# A block of resampling weights is kept under this many numbers (32 MB).
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Sums:
    """Sums over the items that two or more people judged, for each resample.

    `pairs` counts ordered pairs of judgments on one item by their verdicts. `coincidences` gives every judgment the
    weight 1 (Krippendorff's coincidence matrix), `mean_pairs` every item. `shares` sums the share of an item that each
    verdict has.
    """

    items: Floats  # (B,)
    pairs: Floats  # (B, V, V)
    coincidences: Floats  # (B, V, V)
    mean_pairs: Floats  # (B, V, V)
    shares: Floats  # (B, V)

    @classmethod
    def of(cls, counts: Ints, weights: Floats, cluster: Ints | None = None) -> Sums:
        """counts: (items, V); weights: (B, clusters), how often a resample holds each cluster.

        cluster: (items,), the cluster of each item where several are drawn together; else each is its own.
        """
        verdicts = counts.shape[1]
        sizes = counts.sum(axis=1)
        keep = sizes >= 2
        counts, sizes = counts[keep].astype(float), sizes[keep].astype(float)[:, None]
        place = np.flatnonzero(keep) if cluster is None else cluster[keep]
        pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(verdicts)
        pairs = pairs.reshape(len(counts), verdicts * verdicts)
        features = np.hstack(
            [np.ones_like(sizes), pairs, pairs / (sizes - 1), pairs / (sizes * (sizes - 1)), counts / sizes]
        )
        by_cluster = np.zeros((weights.shape[1], features.shape[1]))
        np.add.at(by_cluster, place, features)
        sums = weights @ by_cluster
        square = verdicts * verdicts
        items, *matrices, shares = np.split(sums, [1, 1 + square, 1 + 2 * square, 1 + 3 * square], axis=1)
        pairs, coincidences, mean_pairs = (matrix.reshape(-1, verdicts, verdicts) for matrix in matrices)
        return cls(items[:, 0], pairs, coincidences, mean_pairs, shares)


def resampling_weights(times: Ints, resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Bootstrap resamples in blocks, (B, clusters): how often each cluster, there `times` times, was drawn."""
    size = max(1, _BLOCK // max(1, int(times.sum())))
    for start in range(0, resamples, size):
        yield resample(times, min(size, resamples - start), rng)


def resample(times: Ints, resamples: int, rng: np.random.Generator) -> Floats:
    """One block of them."""
    total, kinds = int(times.sum()), len(times)
    if total > 10 * kinds:
        return rng.multinomial(total, times / total, size=resamples).astype(float)
    # Few draws are cheaper drawn one by one.
    drawn = np.repeat(np.arange(kinds), times)[rng.integers(0, total, size=(resamples, total))]
    flat = (drawn + kinds * np.arange(resamples)[:, None]).ravel()
    return np.bincount(flat, minlength=resamples * kinds).reshape(resamples, kinds).astype(float)


def equal_share(pairs: Floats, where: NDArray[np.bool_] | None = None) -> Floats:
    """Share of pairs of judgments with equal verdicts, (B,); of those in which both verdicts are among `where`."""
    if where is not None:
        pairs = pairs[:, where][:, :, where]
    return _divide(np.trace(pairs, axis1=1, axis2=2), pairs.sum(axis=(1, 2)))


def krippendorff_alpha(sums: Sums, level: str, values: Floats | None = None) -> Floats:
    """Alpha, (B,). level: "nominal", "ordinal", or "interval" with the verdicts' values, (V,); verdicts in order.

    Source: Krippendorff 2019, Content Analysis, 4th edition, sections 12.3.1 to 12.3.4.
    """
    coincidences = sums.coincidences
    margins = coincidences.sum(axis=2)
    total = margins.sum(axis=1)
    if level == "nominal":
        distances = 1 - np.eye(margins.shape[1])[None]
    elif level == "ordinal":
        # Ranks of the verdicts: how many judgments lie below, and half of the verdict's own.
        ranks = np.cumsum(margins, axis=1) - margins / 2
        distances = (ranks[:, :, None] - ranks[:, None, :]) ** 2
    else:
        assert values is not None
        distances = (np.subtract.outer(values, values) ** 2)[None]
    observed = (coincidences * distances).sum(axis=(1, 2))
    expected = (margins[:, :, None] * margins[:, None, :] * distances).sum(axis=(1, 2))
    return 1 - _divide((total - 1) * observed, expected)


def fleiss_kappa(sums: Sums) -> Floats:
    """Fleiss 1971 in the form that lets the number of judgments differ between items, (B,).

    Each item weighs the same, in the observed agreement as in the shares of the verdicts; where all have equally many
    judgments this is Fleiss's own kappa. Source: Gwet 2014, Handbook of Inter-Rater Reliability, section 2.6.
    """
    observed = _divide(np.trace(sums.mean_pairs, axis1=1, axis2=2), sums.items)
    expected = (_divide(sums.shares, sums.items[:, None]) ** 2).sum(axis=1)
    return _beyond_chance(observed, expected)


def gwet_ac2(sums: Sums, weights: Floats, occurs: NDArray[np.bool_]) -> Floats:
    """Gwet's AC2, (B,). weights: (V, V), 1 for full agreement; occurs: (V,), the verdicts that count as categories.

    Source: Gwet 2014, section 4.3 (with missing ratings).
    """
    categories = int(occurs.sum())
    if categories < 2:
        return np.full(len(sums.items), np.nan)
    shares = _divide(sums.shares, sums.items[:, None])
    spread = weights[np.ix_(occurs, occurs)].sum() / (categories * (categories - 1))
    observed = _divide((sums.mean_pairs * weights).sum(axis=(1, 2)), sums.items)
    return _beyond_chance(observed, spread * (shares * (1 - shares)).sum(axis=1))


def kappa(cells: Floats, one: Ints, other: Ints, disagreement: Floats) -> Floats:
    """Kappa of two people, (B,). cells: (B, cells), how often (one's verdict, the other's) occurred; both: (cells,).

    disagreement: (V, V), 0 on the diagonal. With 1 everywhere else it is Cohen 1960; with squared distances of values
    the quadratic weighted kappa (Cohen 1968).
    """
    verdicts = np.eye(len(disagreement))
    observed = cells @ disagreement[one, other]
    by_chance = ((cells @ verdicts[one] @ disagreement) * (cells @ verdicts[other])).sum(axis=1)
    return 1 - _divide(observed * cells.sum(axis=1), by_chance)


def squared_distances(values: Floats) -> Floats:
    """(V, V)"""
    return np.subtract.outer(values, values) ** 2


def percentile_interval(resampled: Floats, confidence: float = 0.95) -> tuple[float, float] | None:
    """The bootstrap's percentile interval; None where the resamples show no spread or most of them are undefined."""
    known = resampled[~np.isnan(resampled)]
    if 2 * len(known) < len(resampled) or not len(known):
        return None
    lower, upper = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return None if np.isclose(lower, upper) else (float(lower), float(upper))


def _beyond_chance(observed: Floats, expected: Floats) -> Floats:
    return _divide(observed - expected, 1 - expected)


def _divide(part: Floats, whole: Floats) -> Floats:
    """NaN where the whole is nothing but rounding errors."""
    part, whole = np.broadcast_arrays(part, whole)
    result = np.full(part.shape, np.nan)
    np.divide(part, whole, out=result, where=np.abs(whole) > 1e-12)
    return result
