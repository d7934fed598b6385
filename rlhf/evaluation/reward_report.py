"""A reward model's card: everything that scores on judged pairs say about it, beside how far people agree on them.

Pure functions over rows; standard library only. The gates are those of the field: human data rarely allow more than
80 % (then a leak or a shortcut is likelier), a model that prefers length 15 points more often than people did has
learnt length, and an expected calibration error above 0.10 makes its probabilities useless.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from rlhf.evaluation.reward_card import meetings, pair_metrics, wilson_interval

BINS = 10
LEAST_ACCURACY, SUSPICIOUS_ACCURACY = 0.55, 0.80
LENGTH_GAP = 0.15
GOOD_ECE, POOR_ECE = 0.05, 0.10
FEW_PAIRS = 200
MOST_SHIFT = 0.05
"""How far a score may move with what shares its batch: bfloat16 moves it by about 0.01."""


@dataclass(frozen=True)
class ScoredPair:
    """One judged pair with its two scores, the chosen response first; lengths in characters."""

    scores: tuple[float, float]
    lengths: tuple[int, int]
    id: int | str | None = None
    strength: float | None = None
    """Mean of people's steps, 0 or more; None where nobody graded."""
    category: str = ""
    votes: dict[str, int] = field(default_factory=dict)
    """By "chosen", "rejected", "tie"."""
    voters: tuple[tuple[str, str], ...] = ()
    """(name, "chosen" or "rejected") of each vote for a side."""

    @property
    def margin(self) -> float:
        return self.scores[0] - self.scores[1]


def make_card(
    pairs: Sequence[ScoredPair], probes: dict[str, Any] | None = None, held_out: Iterable[str] = ()
) -> dict[str, Any]:
    """The card as JSON. `held_out`: names of voters on none of whose votes it was trained. Empty without pairs."""
    if not pairs:
        return {"pairs": 0}
    chosen, rejected = zip(*(pair.scores for pair in pairs), strict=True)
    metrics = pair_metrics(chosen, rejected, *zip(*(pair.lengths for pair in pairs), strict=True))
    probabilities = [_sigmoid(pair.margin) for pair in pairs]
    card: dict[str, Any] = {
        "pairs": len(pairs),
        "accuracy": _share(pair.margin > 0 for pair in pairs),
        "people": people_agreement(pairs),
        "with_people": _votes_met(pairs),
        "by_strength": _grouped(pairs, _strength_of),
        "by_category": _grouped(pairs, lambda pair: pair.category),
        "by_voter": _by_voter(pairs, set(held_out)),
        "calibration": {
            "ece": metrics["ece"],
            "nll": metrics["loss"],
            "brier": fmean((1 - probability) ** 2 for probability in probabilities),
            "bins": reliability_bins(probabilities),
        },
        "length": _length(pairs, metrics),
        "probes": probes or {},
    }
    return card | {"gates": gates(card)}


def people_agreement(pairs: Sequence[ScoredPair]) -> dict[str, Any] | None:
    """How often two people who both took a side on one of these pairs took the same one: the ceiling."""
    same = met = items = 0
    for pair in pairs:
        equal, both = meetings(pair.votes.get(side, 0) for side in ("chosen", "rejected"))
        same, met, items = same + equal, met + both, items + bool(both)
    # Votes on one item are no independent trials; that many items are.
    return _interval(same / met, items) | {"meetings": met, "items": items} if met else None


def _votes_met(pairs: Sequence[ScoredPair]) -> dict[str, Any] | None:
    """How often the model takes the side of one person: what people's agreement is to be compared with."""
    right = met = items = 0
    for pair in pairs:
        sides = (pair.votes.get("chosen", 0), pair.votes.get("rejected", 0))
        right += sides[0] if pair.margin > 0 else sides[1] if pair.margin < 0 else 0
        met, items = met + sum(sides), items + bool(sum(sides))
    return _interval(right / met, items) | {"votes": met} if met else None


def _strength_of(pair: ScoredPair) -> str:
    return "" if not pair.strength else str(math.ceil(abs(pair.strength) - 1e-9))


def _grouped(pairs: Sequence[ScoredPair], key: Callable[[ScoredPair], str]) -> list[dict[str, Any]]:
    groups: dict[str, list[bool]] = {}
    for pair in pairs:
        groups.setdefault(key(pair), []).append(pair.margin > 0)
    if set(groups) == {""}:
        return []
    return [{"name": name, **_share(right)} for name, right in sorted(groups.items())]


def _by_voter(pairs: Sequence[ScoredPair], held_out: set[str]) -> list[dict[str, Any]]:
    met: dict[str, list[bool]] = {}
    for pair in pairs:
        for name, side in pair.voters:
            met.setdefault(name, []).append((pair.margin > 0) == (side == "chosen") and pair.margin != 0)
    return [
        {"name": name, **_share(right), "held_out": name in held_out}
        for name, right in sorted(met.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def reliability_bins(chosen_probabilities: Sequence[float], count: int = BINS) -> list[dict[str, float]]:
    """Confidence against accuracy in bins of equally many pairs, with Wilson intervals; confidence from 0.5 to 1."""
    ordered = sorted((max(p, 1 - p), p > 0.5) for p in chosen_probabilities)
    count = max(1, min(count, len(ordered) // 10))
    bins = []
    for number in range(count):
        cell = ordered[len(ordered) * number // count : len(ordered) * (number + 1) // count]
        right = sum(is_right for _, is_right in cell)
        lower, upper = wilson_interval(right, len(cell))
        bins.append(
            {
                "confidence": fmean(confidence for confidence, _ in cell),
                "accuracy": right / len(cell),
                "lower": lower,
                "upper": upper,
                "pairs": len(cell),
            }
        )
    return bins


def _length(pairs: Sequence[ScoredPair], metrics: dict[str, float]) -> dict[str, Any]:
    longer = [pair.margin > 0 for pair in pairs if pair.lengths[0] > pair.lengths[1]]
    shorter = [pair.margin > 0 for pair in pairs if pair.lengths[0] < pair.lengths[1]]
    scores = [score for pair in pairs for score in pair.scores]
    lengths = [float(length) for pair in pairs for length in pair.lengths]
    return {
        "longer_chosen_share": metrics["longer_chosen_share"],
        "longer_preferred_share": metrics["longer_preferred_share"],
        "accuracy_chosen_longer": _share(longer) if longer else None,
        "accuracy_chosen_shorter": _share(shorter) if shorter else None,
        "correlation": _correlation(scores, lengths),
    }


def gates(card: dict[str, Any]) -> list[dict[str, str]]:
    """`{"code", "tone"}` of what somebody should know before using the model; the words are the page's."""
    found = []

    def add(code: str, tone: str = "warning") -> None:
        found.append({"code": code, "tone": tone})

    accuracy = card["accuracy"]
    if accuracy["value"] < LEAST_ACCURACY:
        add("no_signal", "error")
    elif accuracy["value"] > SUSPICIOUS_ACCURACY:
        add("too_good")
    # Single votes against single votes: a verdict of many is less noisy than any of its votes, and easier to meet.
    if card["people"] and card["with_people"] and card["with_people"]["lower"] > card["people"]["upper"]:
        add("above_people")
    if card["pairs"] < FEW_PAIRS:
        add("few_pairs")
    ece = card["calibration"]["ece"]
    if ece > POOR_ECE:
        add("poorly_calibrated")
    elif ece <= GOOD_ECE:
        add("well_calibrated", "good")
    length = card["length"]
    if abs(length["longer_preferred_share"] - length["longer_chosen_share"]) > LENGTH_GAP:
        add("likes_length")
    consistency = card["probes"].get("consistency")
    if consistency and max(consistency["alone"], consistency["swapped"]) > MOST_SHIFT:
        add("inconsistent", "error")
    padding = card["probes"].get("padding")
    if padding and padding["responses"] >= 10 and padding["raised_share"] > 0.75:
        add("likes_padding")
    return found


def _share(right: Iterable[bool]) -> dict[str, Any]:
    hits = list(right)
    return _interval(sum(hits) / len(hits), len(hits)) | {"count": len(hits)}


def _interval(value: float, trials: int) -> dict[str, Any]:
    lower, upper = wilson_interval(value * trials, trials)
    return {"value": value, "lower": lower, "upper": upper}


def _correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    mean_one, mean_other = fmean(one), fmean(other)
    both = sum((a - mean_one) * (b - mean_other) for a, b in zip(one, other, strict=True))
    spread = math.sqrt(sum((a - mean_one) ** 2 for a in one) * sum((b - mean_other) ** 2 for b in other))
    return both / spread if spread else None


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-max(-700.0, min(700.0, value))))
