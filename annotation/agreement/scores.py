"""Agreement on what is asked beside the verdict: scores of single responses, and verdicts on further axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from annotation.agreement.coefficients import Sums, krippendorff_alpha, percentile_interval, resampling_weights
from annotation.agreement.report import Interval, Undefined
from annotation.agreement.votes import LIVE, copy_integers
from annotation.models import Project
from annotation.protocol import Protocol

AXIS_ENDS = (-3, 3)

# An item is a response of a comparison, or the pair itself (position 0) on an axis.
_SCORES = """
    SELECT c.id AS comparison, asked.number::int8, score.position, score.value::int8
      FROM annotation_judgment j
      JOIN annotation_comparison c ON c.id = j.comparison_id
      JOIN annotation_annotator n ON n.id = j.annotator_id
      LEFT JOIN annotation_assignment s ON s.id = j.assignment_id
     CROSS JOIN unnest({names}::text[]) WITH ORDINALITY AS asked (name, number)
     CROSS JOIN LATERAL (
        SELECT position, value::int FROM jsonb_array_elements_text(j.ratings -> asked.name)
               WITH ORDINALITY AS given (value, position) WHERE value IS NOT NULL
         UNION ALL SELECT 0::int8, (j.axes ->> asked.name)::int WHERE j.axes ? asked.name) score
     WHERE {live} AND n.is_human
"""


@dataclass(frozen=True)
class ScoreAgreement:
    """Krippendorff's alpha with interval distances, over the scores that people gave to the same things."""

    label: str
    scores: int
    alpha: float | None
    interval: Interval | None
    not_defined: Undefined | None


def score_agreement(project: Project, *, resamples: int = 0) -> list[ScoreAgreement]:
    """One for each aspect and axis of the project's protocol, in its order; no query where it asks for none.

    Resamples draw comparisons, each with the scores of all its responses.
    """
    protocol = Protocol.of(project)
    asked = [(aspect.name, aspect.label, aspect.low, aspect.high) for aspect in protocol.aspects]
    asked += [(axis.name, axis.label, *AXIS_ENDS) for axis in protocol.axes]
    if not asked:
        return []
    names = "ARRAY[" + ", ".join(f"'{name}'" for name, *_rest in asked) + "]"  # [a-z0-9_] by Protocol.check
    query = _SCORES.format(names=names, live=LIVE.format(project=int(project.pk)))
    comparison, number, position, value = copy_integers(query, 4)
    found = []
    for place, (_name, label, low, high) in enumerate(asked, 1):
        of_this = (number == place) & (value >= low) & (value <= high)
        found.append(_agreement(label, comparison[of_this], position[of_this], value[of_this], low, high, resamples))
    return found


def _agreement(
    label: str,
    comparison: np.ndarray,
    position: np.ndarray,
    value: np.ndarray,
    low: int,
    high: int,
    resamples: int,
) -> ScoreAgreement:
    if not len(value):
        return ScoreAgreement(label, 0, None, None, Undefined.UNSHARED)
    comparisons, cluster = np.unique(comparison, return_inverse=True)
    places, steps = int(position.max()) + 1, high - low + 1
    counts = np.zeros((len(comparisons), places, steps), dtype=np.int64)
    np.add.at(counts, (cluster, position, value - low), 1)
    patterns, times = np.unique(counts.reshape(len(comparisons), -1), axis=0, return_counts=True)
    items, of = patterns.reshape(-1, steps), np.repeat(np.arange(len(patterns)), places)
    values = np.arange(low, high + 1, dtype=float)

    def alpha(weights: np.ndarray) -> np.ndarray:
        return krippendorff_alpha(Sums.of(items, weights, of), "interval", values)

    (found,) = alpha(times[None].astype(float))
    if np.isnan(found):
        is_shared = bool((items.sum(axis=1) >= 2).any())
        reason = Undefined.UNIFORM if is_shared else Undefined.UNSHARED
        return ScoreAgreement(label, len(value), None, None, reason)
    interval = None
    if resamples and len(comparisons) >= 2:
        blocks = resampling_weights(times, resamples, np.random.default_rng(0))
        interval = percentile_interval(np.concatenate([alpha(weights) for weights in blocks]))
    return ScoreAgreement(label, len(value), float(found), interval, None)
