"""How sure the strengths are, when votes on one prompt, and votes by one person, lean the same way.

Both estimates add what the prompts vary and what the people vary and take off what both count twice, the single votes
(Cameron, Gelbach and Miller 2011). `sandwich_errors` does it with derivatives, `bootstrap_errors` by fitting again to
resampled prompts and people. Resampling both at once would be simpler, but counts the single votes three times (Owen
2007), and resampling votes alone forgets prompts and people.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse, special

from annotation.ratings.battles import LOST, TIED, WON, Battles, Floats, Ints
from annotation.ratings.bradley_terry import Fit, Rows, score_residuals
from annotation.shares import CONFIDENCE, FEWEST_PEOPLE, two_way_variance

_NOTHING = 1e-12
_LEAST_KNOWN = 4.0
"""Variance in nats² of what a single vote at even odds tells: with style, what is known less has no interval."""
_DENSE_CELLS = 10_000_000
_CELLS_AT_ONCE = 2_000_000
_VOTES_AT_ONCE = 100_000


@dataclass(frozen=True)
class Errors:
    """Half widths of the 95 % intervals in nats, shape (parameters,) or (sources,); NaN where nothing is known."""

    half_widths: Floats
    prompts: int
    people: int
    """0 where they were too few (shares.FEWEST_PEOPLE) to be counted."""


def sandwich_errors(fit: Fit, votes: Rows, battles: Battles) -> Errors:
    """By the derivatives of each vote; `votes` are rows of single votes, in the order of `battles`."""
    group, person = numbered(battles.group), numbered(battles.person)
    prompts, people = clusters_in(group), clusters_in(person)
    if prompts < 2:
        return Errors(np.full(len(fit.parameters), np.nan), prompts, 0)
    scores = score_residuals(fit, votes)
    of_prompts = _variance(fit, votes, scores, group, prompts)
    if votes.style.shape[1]:
        # What the prior alone holds in place has hardly a residual, which is not certainty.
        of_prompts[np.diag(fit.covariance) > _LEAST_KNOWN] = np.nan
    if people < FEWEST_PEOPLE:
        return one_way_errors(of_prompts, prompts)
    of_people = _variance(fit, votes, scores, person, people)
    of_votes = _variance(fit, votes, scores, *cells_of(group, person, people))
    return two_way_errors(of_prompts, of_people, of_votes, prompts, people)


def bootstrap_errors(
    fit: Fit, votes: Rows, battles: Battles, *, ties: str, resamples: int = 200, seed: int = 0
) -> Errors:
    """By fitting again to resampled prompts, then to resampled people; for votes without style.

    The spread of each is that between the percentiles 16 and 84, so that the odd resample in which a source lost
    everything does no harm. What the single votes vary comes from their derivatives.
    """
    count = fit.count
    group, person = numbered(battles.group), numbered(battles.person)
    prompts, people = clusters_in(group), clusters_in(person)
    if prompts < 2:
        return Errors(np.full(count, np.nan), prompts, 0)
    rng = np.random.default_rng(seed)
    of_prompts = _spread(_refits(fit, battles, group, prompts, ties, resamples, rng)) ** 2
    if people < FEWEST_PEOPLE:
        return one_way_errors(of_prompts, prompts)
    of_people = _spread(_refits(fit, battles, person, people, ties, resamples, rng)) ** 2
    of_votes = _variance(fit, votes, score_residuals(fit, votes), *cells_of(group, person, people))[:count]
    return two_way_errors(of_prompts, of_people, of_votes, prompts, people)


def one_way_errors(of_prompts: Floats, prompts: int) -> Errors:
    """From variances over prompts alone, where the people are too few."""
    return Errors(_half_widths(of_prompts, prompts - 1), prompts, 0)


def two_way_errors(of_prompts: Floats, of_people: Floats, of_votes: Floats, prompts: int, people: int) -> Errors:
    """From variances over prompts, people and single votes (`shares.two_way_variance`)."""
    return Errors(_half_widths(*two_way_variance(of_prompts, of_people, of_votes, prompts, people)), prompts, people)


def _half_widths(variance: Floats, freedom: Floats | int) -> Floats:
    # Nothing but ties leaves no residual at all: that is not certainty.
    known = np.where(variance > _NOTHING, variance, np.nan)
    return np.asarray(np.sqrt(known) * special.stdtrit(freedom, (1 + CONFIDENCE) / 2))


def numbered(labels: Ints) -> Ints:
    """Without gaps, which filtering leaves."""
    present = np.bincount(labels) > 0
    return np.asarray((np.cumsum(present) - 1)[labels], dtype=np.int64)


def clusters_in(labels: Ints) -> int:
    return int(labels.max(initial=-1)) + 1


def cells_of(group: Ints, person: Ints, people: int) -> tuple[Ints, int]:
    """One person's votes on one prompt."""
    cell = np.unique(group * people + person, return_inverse=True)[1]
    return cell, clusters_in(cell)


def _variance(fit: Fit, votes: Rows, scores: tuple[Floats, Floats | None], cluster: Ints, clusters: int) -> Floats:
    """Of each parameter, by the derivatives of the clusters, shape (parameters,)."""
    by_distance, by_nu = scores
    width = len(fit.parameters)
    if clusters == len(votes.one) and width == votes.count:
        # Every vote by itself: its outer product has four entries.
        places = votes.one * width + votes.other
        one_way = np.bincount(places, weights=by_distance**2, minlength=width * width).reshape(width, width)
        meat = np.asarray(-(one_way + one_way.T), dtype=float)
        meat[np.diag_indices(width)] -= meat.sum(axis=1)
    else:
        meat = np.zeros((width, width))
        is_dense = clusters * width <= _DENSE_CELLS
        # By parts, since the sums of all clusters at once take more room than the votes do.
        size = max(1, _CELLS_AT_ONCE // width if is_dense else _VOTES_AT_ONCE * clusters // len(cluster))
        for first in range(0, clusters, size):
            many = min(size, clusters - first)
            inside = np.flatnonzero((cluster >= first) & (cluster < first + many))
            local = cluster[inside] - first
            columns, values = _derivatives_of(fit, votes, by_distance, by_nu, inside)
            if is_dense:
                flat = np.zeros(many * width)
                for column, value in zip(columns, values, strict=True):
                    flat += np.bincount(local * width + column, weights=value, minlength=many * width)
                sums = flat.reshape(many, width)
                meat += sums.T @ sums
            else:
                places = np.concatenate([np.broadcast_to(column, local.shape) for column in columns])
                few = sparse.csr_array(
                    (np.concatenate(values), (np.tile(local, len(values)), places)), shape=(many, width)
                )
                meat += (few.T @ few).toarray()
    half = fit.covariance @ meat
    return np.asarray(np.einsum("ij,ji->i", half, fit.covariance) * clusters / (clusters - 1), dtype=float)


def _derivatives_of(
    fit: Fit, votes: Rows, by_distance: Floats, by_nu: Floats | None, chosen: Ints
) -> tuple[list[Ints | int], list[Floats]]:
    """Of some votes: the parameters and the derivatives by them, in pairs; a parameter for each vote or for all."""
    distance = by_distance[chosen]
    columns: list[Ints | int] = [votes.one[chosen], votes.other[chosen]]
    values = [distance, -distance]
    for feature in range(votes.style.shape[1]):
        columns.append(votes.count + feature)
        values.append(distance * votes.style[chosen, feature])
    if by_nu is not None:
        columns.append(len(fit.parameters) - 1)
        values.append(by_nu[chosen])
    return columns, values


def _refits(
    fit: Fit, battles: Battles, cluster: Ints, clusters: int, ties: str, resamples: int, rng: np.random.Generator
) -> Floats:
    """Strengths of resampled clusters, shape (resamples, sources)."""
    count = fit.count
    swapped = battles.one > battles.other
    pair = np.where(swapped, battles.other * count + battles.one, battles.one * count + battles.other)
    verdict = np.where(swapped, LOST - battles.verdict, battles.verdict)
    met, pair = np.unique(pair, return_inverse=True)
    kinds = (WON, LOST) if ties == "drop" else (WON, TIED, LOST)
    by_kind = {
        kind: sparse.csr_array((battles.weight[chosen], (pair[chosen], cluster[chosen])), shape=(len(met), clusters))
        for kind in kinds
        for chosen in [np.flatnonzero(verdict == kind)]
    }
    found, size = [], max(1, min(resamples, 2_000_000 // max(clusters, 1)))
    for first in range(0, resamples, size):
        batch = min(size, resamples - first)
        drawn = _drawn(clusters, batch, rng)
        sums = {kind: (votes @ drawn).T for kind, votes in by_kind.items()}  # (batch, pairs)
        tied = sums.get(TIED, np.zeros((batch, len(met))))
        found.append(_refit(fit, met // count, met % count, sums[WON], tied, sums[LOST]))
    return np.concatenate(found)


def _drawn(clusters: int, batch: int, rng: np.random.Generator) -> Floats:
    """How often each cluster was drawn, shape (clusters, batch)."""
    picks = rng.integers(0, clusters, size=(batch, clusters)) + np.arange(batch)[:, None] * clusters
    times = np.bincount(picks.ravel(), minlength=batch * clusters).reshape(batch, clusters)
    return np.ascontiguousarray(times.T, dtype=float)


_REFIT_STEPS = 5
_PRIOR = 1e-3  # of a vote: keeps a resample without any win finite


def _refit(fit: Fit, one: Ints, other: Ints, won: Floats, tied: Floats, lost: Floats) -> Floats:
    """Newton's method from the fit for all resamples at once; won, tied, lost: (batch, pairs)."""
    batch, count = len(won), fit.count
    strengths = np.tile(fit.strengths, (batch, 1))
    log_nu = np.full((batch, 1), fit.parameters[-1] if fit.ties == "davidson" else 0.0)
    total = won + tied + lost
    # Each pair's contribution to the sources' gradients, shape (pairs, sources).
    ends = sparse.csr_array(
        (np.repeat([1.0, -1.0], len(one)), (np.tile(np.arange(len(one)), 2), np.concatenate([one, other]))),
        shape=(len(one), count),
    )
    places = one * count + other
    for _ in range(_REFIT_STEPS):
        distance = strengths[:, one] - strengths[:, other]
        if fit.ties == "davidson":
            # ν hardly depends on which votes were drawn: it is left where it is.
            half, nu = np.exp(-np.abs(distance) / 2), np.exp(log_nu - np.abs(distance) / 2)
            better, worse = 1 / (1 + half**2 + nu), half**2 / (1 + half**2 + nu)
            gap = np.sign(distance) * (better - worse)
            residual, curvature = (won - lost - total * gap) / 2, total * (better + worse - gap**2) / 4
        else:
            chance = 1 / (1 + np.exp(-distance))
            residual, curvature = won + tied / 2 - total * chance, total * chance * (1 - chance)
        flat = np.zeros((batch, count * count))
        flat[:, places] = curvature
        information = flat.reshape(batch, count, count)
        information = information + information.transpose(0, 2, 1)
        degrees = information.sum(axis=2)
        information = 1 / count - information
        diagonal = np.arange(count)
        information[:, diagonal, diagonal] += degrees + _PRIOR
        gradient = (ends.T @ residual.T).T - _PRIOR * (strengths - fit.strengths)
        step = np.linalg.solve(information, gradient[:, :, None])[:, :, 0]
        strengths = strengths + np.clip(step, -2, 2)
        if np.abs(step).max(initial=0.0) < 1e-6:
            break
    return np.asarray(strengths - strengths.mean(axis=1, keepdims=True))


def _spread(strengths: Floats) -> Floats:
    low, high = np.percentile(strengths, [15.865, 84.135], axis=0)
    return np.asarray((high - low) / 2)
