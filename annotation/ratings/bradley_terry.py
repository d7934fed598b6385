"""Strengths by maximum likelihood: Bradley–Terry (1952), ties as half a win, left out, or by Davidson (1970).

With s the log strengths and d = s_i − s_j + x·β:
- half, drop: P(i wins) = 1 / (1 + e^−d); a tie counts half a win for each side, or nothing.
- davidson: P(i wins), P(j wins) and P(tie) are as e^{d/2}, e^{−d/2} and ν.
x are differences of style, so that s compares sources whose responses look alike.

Strengths that are `rated_together` have a finite maximum, but β and ν may not: a single response in bold that won
would be worth infinitely much. Both have a normal prior of precision PRIOR, too weak to be seen where votes tell
anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from annotation.ratings.battles import LOST, TIED, WON, Battles, Floats, Ints

TIES = ("half", "drop", "davidson")
_MOST_STEPS = 100
_PRECISION = 1e-10
_ROUNDING = 1e-12
PRIOR = 1e-3
"""Information on a style's worth and on log ν before any vote; one at even odds brings 0.25 a standard deviation."""


@dataclass(frozen=True)
class Rows:
    """Votes or sums of votes on one pair of sources; won, tied and lost are weights from `one`'s side."""

    count: int
    """Of sources."""
    one: Ints
    other: Ints
    won: Floats
    tied: Floats
    lost: Floats
    style: Floats
    """(rows, features)"""


@dataclass(frozen=True)
class Fit:
    """Maximum-likelihood parameters in the order strengths, style, log ν (Davidson only)."""

    parameters: Floats
    count: int
    ties: str
    covariance: Floats
    """The inverse of the information, strengths kept to a sum of 0: what it would be if all votes were independent."""

    @property
    def strengths(self) -> Floats:
        """In nats, mean 0, shape (sources,)."""
        return self.parameters[: self.count]

    @property
    def style(self) -> Floats:
        """In nats for each standard deviation of the feature, shape (features,)."""
        end = len(self.parameters) - (self.ties == "davidson")
        return self.parameters[self.count : end]


def rows_of_votes(battles: Battles, count: int, ties: str, style: Floats | None = None) -> Rows:
    """One row a vote where there is style; else one for each pair that met, which is as good and much smaller."""
    weight = battles.weight
    if ties == "drop":
        weight = weight * (battles.verdict != TIED)
    if style is not None:
        won, tied, lost = (weight * (battles.verdict == verdict) for verdict in (WON, TIED, LOST))
        return Rows(count, battles.one, battles.other, won, tied, lost, style)
    swapped = battles.one > battles.other
    pair = np.where(swapped, battles.other * count + battles.one, battles.one * count + battles.other)
    verdict = np.where(swapped, LOST - battles.verdict, battles.verdict)
    sums = np.bincount(pair * 3 + verdict, weights=weight, minlength=3 * count * count).reshape(-1, 3)
    met = np.flatnonzero(sums.any(axis=1))
    won, tied, lost = sums[met].T
    return Rows(count, met // count, met % count, won, tied, lost, np.zeros((len(met), 0)))


def points_matrix(rows: Rows) -> Floats:
    """points[i, j]: what i scored against j, a tie half a point, shape (sources, sources)."""
    points = np.zeros((rows.count, rows.count))
    np.add.at(points, (rows.one, rows.other), rows.won + rows.tied / 2)
    np.add.at(points, (rows.other, rows.one), rows.lost + rows.tied / 2)
    return points


def rated_together(points: Floats) -> Ints:
    """The largest set of sources each of which scored, directly or through others, against each other one."""
    _, labels = connected_components(sparse.csr_array(points > 0), connection="strong")
    sets = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return max(sets, key=lambda members: (len(members), points[np.ix_(members, members)].sum(), -members[0]))


def fit_strengths(rows: Rows, ties: str) -> Fit:
    """Newton's method with halved steps, for sources that are all `rated_together`."""
    if ties not in TIES:
        raise ValueError(f"ties is {ties!r}; it is one of {', '.join(TIES)}")
    is_davidson = ties == "davidson" and bool(rows.tied.any())
    parameters = np.zeros(rows.count + rows.style.shape[1] + is_davidson)
    value = _log_likelihood(rows, parameters, is_davidson)
    for _ in range(_MOST_STEPS):
        gradient, information = _derivatives(rows, parameters, is_davidson)
        step = np.linalg.solve(information, gradient)
        if np.abs(step).max(initial=0.0) < _PRECISION:
            break
        size = 1.0
        # What is lost to rounding is no reason to halve: near the maximum of many votes it never ended.
        least = value - _ROUNDING * abs(value)
        while (after := _log_likelihood(rows, parameters + size * step, is_davidson)) < least and size > 1e-6:
            size /= 2
        parameters, value = parameters + size * step, after
    parameters[: rows.count] -= parameters[: rows.count].mean()
    _, information = _derivatives(rows, parameters, is_davidson)
    return Fit(
        parameters,
        rows.count,
        "davidson" if is_davidson else "half",
        np.asarray(np.linalg.inv(information), dtype=float),
    )


def score_residuals(fit: Fit, rows: Rows) -> tuple[Floats, Floats | None]:
    """The derivative of each row's log likelihood by d and, under Davidson, by log ν."""
    distance = _distance(rows, fit.parameters)
    return _scores(rows, distance, fit.parameters[-1] if fit.ties == "davidson" else None)


def _distance(rows: Rows, parameters: Floats) -> Floats:
    distance = parameters[rows.one] - parameters[rows.other]
    features = rows.style.shape[1]
    return distance + rows.style @ parameters[rows.count : rows.count + features] if features else distance


def _chances(distance: Floats, log_nu: float) -> tuple[Floats, Floats, Floats]:
    """P(won), P(lost), P(tied) under Davidson."""
    shift = np.maximum(np.abs(distance) / 2, log_nu)  # against overflow
    won, lost, tied = (np.exp(part - shift) for part in (distance / 2, -distance / 2, np.full_like(distance, log_nu)))
    total = won + lost + tied
    return won / total, lost / total, tied / total


def _log_likelihood(rows: Rows, parameters: Floats, is_davidson: bool) -> float:
    distance = _distance(rows, parameters)
    total = rows.won + rows.tied + rows.lost
    prior = PRIOR / 2 * float((parameters[rows.count :] ** 2).sum())
    if not is_davidson:
        score = rows.won + rows.tied / 2
        # log σ(d) = −log(1 + e^−d), and log σ(−d) = log σ(d) − d
        return float((total * -np.logaddexp(0, -distance) - (total - score) * distance).sum()) - prior
    log_nu = parameters[-1]
    half = distance / 2
    log_total = np.logaddexp(np.logaddexp(half, -half), log_nu)
    return float(((rows.won - rows.lost) * half + rows.tied * log_nu - total * log_total).sum()) - prior


def _scores(rows: Rows, distance: Floats, log_nu: float | None) -> tuple[Floats, Floats | None]:
    total = rows.won + rows.tied + rows.lost
    if log_nu is None:
        return rows.won + rows.tied / 2 - total / (1 + np.exp(-distance)), None
    won, lost, tied = _chances(distance, log_nu)
    return (rows.won - rows.lost - total * (won - lost)) / 2, rows.tied - total * tied


def _derivatives(rows: Rows, parameters: Floats, is_davidson: bool) -> tuple[Floats, Floats]:
    """Gradient with the prior's, and minus the second derivative plus 1/n in the strengths' block.

    The likelihood is flat along (1, 1, …); the added matrix fills that direction, in which there is no gradient.
    """
    count, features = rows.count, rows.style.shape[1]
    distance = _distance(rows, parameters)
    total = rows.won + rows.tied + rows.lost
    if is_davidson:
        won, lost, tied = _chances(distance, parameters[-1])
        curvature = total * (won + lost - (won - lost) ** 2) / 4
        cross, own = -total * tied * (won - lost) / 2, total * tied * (1 - tied)
    else:
        chance = 1 / (1 + np.exp(-distance))
        curvature = total * chance * (1 - chance)
    by_distance, by_nu = _scores(rows, distance, parameters[-1] if is_davidson else None)

    def spread(values: Floats) -> Floats:
        """Sum of a derivative by d over the rows of each source."""
        ones = np.bincount(rows.one, weights=values, minlength=count)
        return np.asarray(ones - np.bincount(rows.other, weights=values, minlength=count), dtype=float)

    gradient = [spread(by_distance), rows.style.T @ by_distance]
    information = np.zeros((len(parameters), len(parameters)))
    met = np.bincount(rows.one * count + rows.other, weights=curvature, minlength=count * count).reshape(count, count)
    met = met + met.T
    information[:count, :count] = np.diag(met.sum(axis=1)) - met + 1 / count
    for feature in range(features):
        column = spread(curvature * rows.style[:, feature])
        information[:count, count + feature] = information[count + feature, :count] = column
        information[count + feature, count : count + features] = (curvature * rows.style[:, feature]) @ rows.style
    end = count + features
    if is_davidson and by_nu is not None:
        gradient.append(np.array([by_nu.sum()]))
        information[:count, end] = information[end, :count] = spread(cross)
        information[count:end, end] = information[end, count:end] = rows.style.T @ cross
        information[end, end] = own.sum()
    beside = np.arange(count, len(parameters))
    information[beside, beside] += PRIOR
    ascent = np.concatenate(gradient)
    ascent[beside] -= PRIOR * parameters[beside]
    return ascent, information
