"""How far the people who judged the same comparisons agree.

Everything here is about verdicts (a, b, tie, neither), live ones only. A number that is undefined is None: no two
people judged the same comparison, or everybody always gave the same verdict and chance alone explains that.

Three queries, whatever the size: comparisons with the same counts of verdicts are alike to every coefficient, and
people enter only through one 4 × 4 table for each two of them that share comparisons.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import krippendorff
import numpy as np
from django.db import connection
from numpy.typing import NDArray

from annotation.models import Preference, Project

VERDICTS = (Preference.A, Preference.TIE, Preference.B, Preference.NEITHER)
IS_SIDE = np.array([True, False, True, False])

_LIVE = """
    SELECT j.comparison_id, j.annotator_id, j.preference
      FROM annotation_judgment j
      JOIN annotation_comparison c ON c.id = j.comparison_id
      JOIN annotation_annotator n ON n.id = j.annotator_id
     WHERE c.project_id = %(project)s AND j.superseded_at IS NULL AND (n.is_human OR NOT %(humans_only)s)
"""
_PATTERNS = f"""
    SELECT a, tie, b, neither, count(*) FROM (
        SELECT count(*) FILTER (WHERE preference = 'a') AS a, count(*) FILTER (WHERE preference = 'tie') AS tie,
               count(*) FILTER (WHERE preference = 'b') AS b, count(*) FILTER (WHERE preference = 'neither') AS neither
          FROM ({_LIVE}) live GROUP BY comparison_id) patterns
     GROUP BY a, tie, b, neither ORDER BY a, tie, b, neither
"""
_PAIRS = f"""
    WITH live AS MATERIALIZED ({_LIVE}),
    joint AS (
        SELECT one.annotator_id AS one_id, other.annotator_id AS other_id, one.preference AS one_verdict,
               other.preference AS other_verdict, count(*) AS n
          FROM live one JOIN live other
            ON other.comparison_id = one.comparison_id AND other.annotator_id > one.annotator_id
         GROUP BY one.annotator_id, other.annotator_id, one.preference, other.preference)
    SELECT one.id, one.name, other.id, other.name, joint.one_verdict, joint.other_verdict, joint.n
      FROM joint
      JOIN annotation_annotator one ON one.id = joint.one_id
      JOIN annotation_annotator other ON other.id = joint.other_id
"""


@dataclass(frozen=True)
class Agreement:
    """`items` and `judgments` count all of them; the coefficients rest on `pairs` of judgments on one comparison.

    raw_agreement: share of pairs with equal verdicts; `_no_ties`: of the pairs in which both people took a side.
    """

    items: int
    judgments: int
    annotators: int
    pairs: int
    raw_agreement: float | None
    raw_agreement_no_ties: float | None
    krippendorff_alpha: float | None
    cohen_kappa: dict[str, float | None]
    fleiss_kappa: float | None
    gwet_ac2: float | None


def measure_agreement(project: Project, *, humans_only: bool = False) -> Agreement:
    """All coefficients of a project's live judgments."""
    params = {"project": project.pk, "humans_only": humans_only}
    with connection.cursor() as cursor:
        cursor.execute(_PATTERNS, params)
        rows = np.array(cursor.fetchall(), dtype=np.int64).reshape(-1, 5)
        cursor.execute(f"SELECT count(DISTINCT annotator_id) FROM ({_LIVE}) live", params)
        annotators = cursor.fetchone()[0]
    patterns, times = rows[:, :4], rows[:, 4]
    tables = verdict_tables(project, humans_only=humans_only)
    joint = sum(tables.values(), np.zeros((4, 4)))
    return Agreement(
        items=int(times.sum()),
        judgments=int(patterns.sum(axis=1) @ times),
        annotators=annotators,
        pairs=int(joint.sum()),
        raw_agreement=_share(np.trace(joint), joint.sum()),
        raw_agreement_no_ties=_share(joint[0, 0] + joint[2, 2], joint[np.ix_(IS_SIDE, IS_SIDE)].sum()),
        krippendorff_alpha=krippendorff_alpha(patterns, times),
        cohen_kappa={f"{one}|{other}": cohen_kappa(table) for (one, other), table in sorted(tables.items())},
        fleiss_kappa=fleiss_kappa(patterns, times),
        gwet_ac2=gwet_ac2(patterns, times),
    )


def verdict_tables(project: Project, *, humans_only: bool = False) -> dict[tuple[str, str], NDArray[np.float64]]:
    """For each two people with common comparisons, by name in order: how often (one's verdict, the other's) occurred.

    Shape (4, 4), both axes in the order of VERDICTS. A name that two people share is told apart by their ids.
    """
    with connection.cursor() as cursor:
        cursor.execute(_PAIRS, {"project": project.pk, "humans_only": humans_only})
        rows = cursor.fetchall()
    people = {(pk, name) for row in rows for pk, name in (row[0:2], row[2:4])}
    bearers = Counter(name for _, name in people)
    names = {pk: name if bearers[name] == 1 else f"{name} #{pk}" for pk, name in people}
    tables: dict[tuple[str, str], NDArray[np.float64]] = {}
    for one, _, other, _, one_verdict, other_verdict, count in rows:
        cell = VERDICTS.index(one_verdict), VERDICTS.index(other_verdict)
        key = names[one], names[other]
        if key[0] > key[1]:
            key, cell = key[::-1], cell[::-1]
        tables.setdefault(key, np.zeros((4, 4)))[cell] += count
    return tables


def krippendorff_alpha(patterns: NDArray[np.int64], times: NDArray[np.int64]) -> float | None:
    """Nominal alpha. patterns: counts of the four verdicts, shape (patterns, 4); times: comparisons with each."""
    patterns, times = _paired(patterns, times)
    if np.count_nonzero(times @ patterns) < 2:
        return None
    units = np.repeat(patterns, times, axis=0)
    return float(krippendorff.alpha(value_counts=units, level_of_measurement="nominal"))


def cohen_kappa(table: NDArray[np.float64]) -> float | None:
    """Cohen 1960, unweighted, over the comparisons that both people judged."""
    total = table.sum()
    expected = table.sum(axis=0) @ table.sum(axis=1) / total**2
    return None if np.isclose(expected, 1) else float((np.trace(table) / total - expected) / (1 - expected))


def fleiss_kappa(patterns: NDArray[np.int64], times: NDArray[np.int64]) -> float | None:
    """Fleiss 1971 in the form that lets the number of judgments differ between comparisons.

    Comparisons with one judgment are left out. Each other one weighs the same, in the observed agreement as in the
    shares of the verdicts; where all have equally many judgments this is Fleiss's own kappa.
    Source: Gwet 2014, Handbook of Inter-Rater Reliability, section 2.6.
    """
    patterns, times = _paired(patterns, times)
    if not times.sum():
        return None
    expected = (_shares(patterns, times) ** 2).sum()
    observed = _observed(patterns, times, np.eye(patterns.shape[1]))
    return None if np.isclose(expected, 1) else float((observed - expected) / (1 - expected))


def gwet_ac2(patterns: NDArray[np.int64], times: NDArray[np.int64]) -> float | None:
    """Gwet's AC2 with quadratic weights on the order a < tie < b; "neither" agrees with nothing but itself.

    So a and b disagree fully (weight 0), either of them and a tie by a quarter (weight 0.75). Comparisons with one
    judgment are left out. Only the verdicts that occur count as categories; with one of them it is undefined.
    Source: Gwet 2014, section 4.3 (with missing ratings).
    """
    patterns, times = _paired(patterns, times)
    occurs = times @ patterns > 0
    categories = int(occurs.sum())
    if categories < 2:
        return None
    weights = np.eye(4)
    weights[:3, :3] = 1 - (np.subtract.outer(np.arange(3), np.arange(3)) / 2) ** 2
    shares = _shares(patterns, times)
    used = weights[np.ix_(occurs, occurs)]
    expected = used.sum() / (categories * (categories - 1)) * (shares * (1 - shares)).sum()
    observed = _observed(patterns, times, weights)
    return None if np.isclose(expected, 1) else float((observed - expected) / (1 - expected))


def _paired(patterns: NDArray[np.int64], times: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    keep = patterns.sum(axis=1) >= 2
    return patterns[keep], times[keep]


def _shares(patterns: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean over comparisons of the share of each verdict, shape (4,)."""
    return times @ (patterns / patterns.sum(axis=1, keepdims=True)) / times.sum()


def _observed(patterns: NDArray[np.int64], times: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
    """Mean over comparisons of the mean weight over the ordered pairs of their judgments."""
    sizes = patterns.sum(axis=1)
    # Each judgment meets the others, itself excepted (every verdict's weight with itself is 1).
    agreeing = (patterns * (patterns @ weights - 1)).sum(axis=1)
    return float(times @ (agreeing / (sizes * (sizes - 1))) / times.sum())


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
