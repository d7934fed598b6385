"""What a reward model's scores on judged pairs say about it. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist, fmean


def wilson_interval(successes: float, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927); it stays inside 0 … 1 and holds for few trials."""
    if trials == 0:
        return (0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return (max(0.0, centre - half), min(1.0, centre + half))


def meetings(votes: Iterable[int]) -> tuple[int, int]:
    """Of one item's votes by verdict: the pairs of votes that are equal, and all pairs."""
    counts = list(votes)
    total = sum(counts)
    return sum(count * (count - 1) // 2 for count in counts), total * (total - 1) // 2


def pair_metrics(
    chosen_scores: Sequence[float],
    rejected_scores: Sequence[float],
    chosen_lengths: Sequence[int],
    rejected_lengths: Sequence[int],
) -> dict[str, float]:
    """Accuracy and calibration of scores on pairs; lengths in characters.

    A pair counts as right where the chosen response scores strictly higher. The two length shares show whether the
    model likes length more than people did: `longer_chosen_share` is theirs, `longer_preferred_share` the model's.
    """
    pairs = len(chosen_scores)
    if pairs == 0:
        return {"pairs": 0}
    margins = [chosen - rejected for chosen, rejected in zip(chosen_scores, rejected_scores, strict=True)]
    right = sum(margin > 0 for margin in margins)
    lower, upper = wilson_interval(right, pairs)
    longer = [chosen - rejected for chosen, rejected in zip(chosen_lengths, rejected_lengths, strict=True)]
    return {
        "pairs": pairs,
        "accuracy": right / pairs,
        "accuracy_lower": lower,
        "accuracy_upper": upper,
        "margin": fmean(margins),
        "loss": fmean(_softplus(-margin) for margin in margins),
        "ece": expected_calibration_error([1 / (1 + math.exp(-max(-700.0, margin))) for margin in margins]),
        "longer_chosen_share": sum(extra > 0 for extra in longer) / pairs,
        "longer_preferred_share": sum(extra * margin > 0 for extra, margin in zip(longer, margins, strict=True))
        / pairs,
    }


def expected_calibration_error(chosen_probabilities: Sequence[float], bins: int = 10) -> float:
    """Mean gap between stated confidence and accuracy, in equal bins of confidence (Guo et al. 2017).

    `chosen_probabilities` are the Bradley–Terry probabilities of the chosen response; confidence is that of whichever
    side the model prefers, so it runs from 0.5 to 1.
    """
    held: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for probability in chosen_probabilities:
        confidence = max(probability, 1 - probability)
        held[min(bins - 1, int((confidence - 0.5) * 2 * bins))].append((confidence, probability > 0.5))
    return sum(
        abs(fmean(confidence for confidence, _ in cell) - fmean(right for _, right in cell)) * len(cell)
        for cell in held
        if cell
    ) / len(chosen_probabilities)


def _softplus(value: float) -> float:
    """log(1 + e^value) without overflow."""
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))
