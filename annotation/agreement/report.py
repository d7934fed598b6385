"""How far the people of a project agree: every coefficient, its interval, and why one is not defined."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from django.db.models import TextChoices
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from annotation.agreement.coefficients import (
    Floats,
    Ints,
    Sums,
    equal_share,
    fleiss_kappa,
    gwet_ac2,
    kappa,
    krippendorff_alpha,
    percentile_interval,
    resample,
    resampling_weights,
    squared_distances,
)
from annotation.agreement.votes import (
    CODES,
    GRADED,
    IS_SIDE,
    STRENGTHS,
    VERDICT_OF_CODE,
    Votes,
    load_votes,
    names_of,
)
from annotation.models import Project

RESAMPLES = 1000
# Of the pairs of people there are many, and each is read by itself.
RESAMPLES_OF_A_PAIR = 400
Interval = tuple[float, float]


class Undefined(TextChoices):
    """Why a figure has no value."""

    ALONE = "alone", _("fewer than two people have judged here")
    UNSHARED = "unshared", _("no comparison has two judgments")
    UNIFORM = "uniform", _("everybody always gave the same verdict, so that chance would agree as well")
    NO_SIDES = "no_sides", _("no two people both took a side on one comparison")
    UNPLACED = "unplaced", _("no comparison has two votes with a place on the scale")
    UNIFORM_PAIR = "uniform_pair", _("both always gave the same verdict")


# "Neither" agrees with nothing but itself; a and b disagree fully, either of them and a tie by a quarter.
VERDICT_WEIGHTS = np.eye(4)
VERDICT_WEIGHTS[:3, :3] = 1 - squared_distances(np.array([0.0, 0.5, 1.0]))
WEIGHT_NAMES = {
    "gwet_ac2": "quadratic on a < tie < b; neither agrees with nothing but itself",
    "gwet_ac2_scale": "quadratic on the values that occur",
    "weighted_kappa": "quadratic",
}


@dataclass(frozen=True)
class StrengthAgreement:
    """Of the votes of one strength, each with every other vote on its item: how often the verdict is the same."""

    strength: int
    pairs: int
    agreement: float
    interval: Interval | None


@dataclass(frozen=True)
class Agreement:
    """`items` and `judgments` count all of them; the coefficients rest on `pairs` of judgments on one item.

    An item is a comparison, or two responses of a ranking. Verdicts are a, tie, b and neither. The figures on the
    scale use the signed strengths where two people graded one item, else the sides −1, 0, 1 (`scale` says which);
    votes without a place on it ("neither", ungraded ones among graded) are left out there.
    """

    items: int
    judgments: int
    annotators: int
    pairs: int
    raw_agreement: float | None
    """Share of pairs with equal verdicts; `_no_ties`: of the pairs in which both people took a side."""
    raw_agreement_no_ties: float | None
    krippendorff_alpha: float | None
    """Nominal, over verdicts."""
    cohen_kappa: dict[str, float | None]
    fleiss_kappa: float | None
    gwet_ac2: float | None
    krippendorff_alpha_ordinal: float | None
    krippendorff_alpha_interval: float | None
    weighted_kappa: dict[str, float | None]
    gwet_ac2_scale: float | None
    scale: str
    """"strength" or "side"."""
    shared_items: dict[str, int]
    """How many items both people of a pair judged, by the keys of `cohen_kappa`."""
    by_strength: list[StrengthAgreement]
    weights: dict[str, str] = field(default_factory=lambda: dict(WEIGHT_NAMES))
    intervals: dict[str, Interval | dict[str, Interval | None] | None] = field(default_factory=dict)
    """95 %, by the names of the figures above."""
    not_defined: dict[str, Undefined | dict[str, Undefined]] = field(default_factory=dict)
    """Why a figure has no value, by name."""


def measure_agreement(project: Project, *, humans_only: bool = False, resamples: int = 0) -> Agreement:
    """All coefficients of a project's live judgments, with bootstrap intervals where `resamples` are asked for.

    The intervals are the percentiles 2.5 and 97.5 over resampled comparisons (the votes on one comparison stay
    together), from a fixed seed: the same votes give the same interval. Where responses are ranked, a pair of people
    gets none: its table does not say which of its items belong to one ranking.
    """
    votes = load_votes(project, humans_only=humans_only)
    return agreement_of(votes, names_of(votes.annotator), resamples=resamples)


def verdict_tables(project: Project, *, humans_only: bool = False) -> dict[tuple[str, str], Floats]:
    """For each two people with common comparisons, by name in order: how often (one's verdict, the other's) occurred.

    Shape (4, 4), both axes in the order of VERDICTS.
    """
    votes = load_votes(project, humans_only=humans_only)
    tables = {}
    for pair in _people(votes, names_of(votes.annotator)):
        tables[pair.names] = np.zeros((4, 4))
        np.add.at(tables[pair.names], (VERDICT_OF_CODE[pair.one], VERDICT_OF_CODE[pair.other]), pair.times)
    return tables


def agreement_of(votes: Votes, names: dict[int, str], *, resamples: int = 0) -> Agreement:
    """`measure_agreement` of votes at hand."""
    counts, cluster, times = _clusters(votes)
    placed, values, scale = _placed_on_scale(counts)
    verdicts = _merged_columns(counts, VERDICT_OF_CODE, 4)
    occurs, occurs_placed = verdicts.sum(axis=0) > 0, placed.sum(axis=0) > 0
    span = np.ptp(values[occurs_placed]) if occurs_placed.any() else 0.0
    scale_weights = 1 - squared_distances(values / (span or 1.0))
    strengths = sorted({int(abs(STRENGTHS[code])) for code in np.flatnonzero(counts.sum(axis=0)[GRADED])})

    def figures(weights: Floats) -> dict[str, Floats]:
        by_verdict = Sums.of(verdicts, weights, cluster)
        by_place = Sums.of(placed, weights, cluster)
        by_code = Sums.of(counts, weights, cluster)
        found = {
            "pairs": by_verdict.pairs.sum(axis=(1, 2)) / 2,
            "placed": by_place.items,
            "raw_agreement": equal_share(by_verdict.pairs),
            "raw_agreement_no_ties": equal_share(by_verdict.pairs, IS_SIDE),
            "krippendorff_alpha": krippendorff_alpha(by_verdict, "nominal"),
            "fleiss_kappa": fleiss_kappa(by_verdict),
            "gwet_ac2": gwet_ac2(by_verdict, VERDICT_WEIGHTS, occurs),
            "krippendorff_alpha_ordinal": krippendorff_alpha(by_place, "ordinal"),
            "krippendorff_alpha_interval": krippendorff_alpha(by_place, "interval", values),
            "gwet_ac2_scale": gwet_ac2(by_place, scale_weights, occurs_placed),
        }
        same = VERDICT_OF_CODE[:, None] == VERDICT_OF_CODE[None, :]
        for strength in strengths:
            rows = by_code.pairs[:, GRADED][:, np.abs(STRENGTHS) == strength]
            met = rows.sum(axis=(1, 2))
            equal = (rows * same[GRADED][np.abs(STRENGTHS) == strength]).sum(axis=(1, 2))
            found[f"strength {strength} pairs"] = met
            found[f"strength {strength}"] = np.divide(equal, met, out=np.full_like(met, np.nan), where=met > 0)
        return found

    found = {name: float(value[0]) for name, value in figures(times[None].astype(float)).items()}
    resampled: dict[str, Floats] = {}
    rng = np.random.default_rng(0)
    if resamples and times.sum() >= 2:
        blocks = [figures(weights) for weights in resampling_weights(times, resamples, rng)]
        resampled = {name: np.concatenate([block[name] for block in blocks]) for name in found}

    def interval(name: str) -> Interval | None:
        return percentile_interval(resampled[name]) if name in resampled and not np.isnan(found[name]) else None

    people = len(np.unique(votes.annotator))
    nothing = (Undefined.ALONE if people < 2 else Undefined.UNSHARED) if not found["pairs"] else None
    not_defined: dict[str, Undefined | dict[str, Undefined]] = {}
    single = {name: None if np.isnan(found[name]) else found[name] for name in _SINGLE}
    for name, value in single.items():
        if value is None and name == "raw_agreement_no_ties":
            not_defined[name] = nothing or Undefined.NO_SIDES
        elif value is None:
            is_unplaced = name in _ON_SCALE and not found["placed"]
            not_defined[name] = nothing or (Undefined.UNPLACED if is_unplaced else Undefined.UNIFORM)

    pairs = _people(votes, names)
    has_rankings = bool((votes.part > 0).any())
    kinds = {
        "cohen_kappa": (VERDICT_OF_CODE, 1 - np.eye(4)),
        "weighted_kappa": (_place_of_code(scale), squared_distances(values)),
    }
    rng = np.random.default_rng(0)
    pair_reasons: dict[str, dict[str, Undefined]] = {kind: {} for kind in kinds}
    by_pair: dict[str, dict[str, float | None]] = {kind: {} for kind in kinds}
    pair_intervals: dict[str, dict[str, Interval | None]] = {kind: {} for kind in kinds}
    for pair in pairs:
        drawn = None
        if resamples and not has_rankings and pair.times.sum() >= 2:
            drawn = resample(pair.times, min(resamples, RESAMPLES_OF_A_PAIR), rng)
        for kind, (places, disagreement) in kinds.items():
            value, pair_intervals[kind][pair.name], why_not = _kappa_of(pair, places, disagreement, drawn)
            by_pair[kind][pair.name] = value
            if why_not:
                pair_reasons[kind][pair.name] = why_not

    not_defined |= {kind: reasons for kind, reasons in pair_reasons.items() if reasons}
    intervals: dict[str, Interval | dict[str, Interval | None] | None] = {}
    if resamples:
        intervals = {name: interval(name) for name in _SINGLE} | pair_intervals
    return Agreement(
        items=int(votes.item[-1]) + 1 if len(votes) else 0,
        judgments=len(votes),
        annotators=people,
        pairs=int(found["pairs"]),
        raw_agreement=single["raw_agreement"],
        raw_agreement_no_ties=single["raw_agreement_no_ties"],
        krippendorff_alpha=single["krippendorff_alpha"],
        krippendorff_alpha_ordinal=single["krippendorff_alpha_ordinal"],
        krippendorff_alpha_interval=single["krippendorff_alpha_interval"],
        fleiss_kappa=single["fleiss_kappa"],
        gwet_ac2=single["gwet_ac2"],
        gwet_ac2_scale=single["gwet_ac2_scale"],
        cohen_kappa=by_pair["cohen_kappa"],
        weighted_kappa=by_pair["weighted_kappa"],
        scale=scale,
        shared_items={pair.name: int(pair.times.sum()) for pair in pairs},
        by_strength=[
            StrengthAgreement(
                strength,
                int(found[f"strength {strength} pairs"]),
                found[f"strength {strength}"],
                interval(f"strength {strength}"),
            )
            for strength in strengths
            if found[f"strength {strength} pairs"]
        ],
        intervals=intervals,
        not_defined=not_defined,
    )


_ON_SCALE = ("krippendorff_alpha_ordinal", "krippendorff_alpha_interval", "gwet_ac2_scale")
_SINGLE = ("raw_agreement", "raw_agreement_no_ties", "krippendorff_alpha", "fleiss_kappa", "gwet_ac2", *_ON_SCALE)


def _clusters(votes: Votes) -> tuple[Ints, Ints, Ints]:
    """Counts of each code by item, (items, CODES); the cluster of each; how often each cluster occurs.

    Only items with two votes or more. A cluster is a comparison with all its items. Comparisons of two responses with
    the same counts are one cluster that occurs often: that keeps a bootstrap of any number of comparisons small.
    """
    items = int(votes.item[-1]) + 1 if len(votes) else 0
    counts = np.zeros((items, CODES), dtype=np.int64)
    np.add.at(counts, (votes.item, votes.code), 1)
    first = np.searchsorted(votes.item, np.arange(items))
    comparison, is_ranking = votes.comparison[first], votes.part[first] > 0
    shared = counts.sum(axis=1) >= 2
    counts, comparison, is_ranking = counts[shared], comparison[shared], is_ranking[shared]
    patterns, times = np.unique(counts[~is_ranking], axis=0, return_counts=True)
    rankings, place = np.unique(comparison[is_ranking], return_inverse=True)
    return (
        np.concatenate([patterns, counts[is_ranking]]),
        np.concatenate([np.arange(len(patterns)), len(patterns) + place]),
        np.concatenate([times, np.ones(len(rankings), dtype=np.int64)]),
    )


def _placed_on_scale(counts: Ints) -> tuple[Ints, Floats, str]:
    """Counts by place on the scale, (items, places), the places' values, and which scale it is."""
    graded = counts[:, GRADED]
    if (graded.sum(axis=1) >= 2).any():
        return graded, STRENGTHS, "strength"
    return _merged_columns(counts, VERDICT_OF_CODE, 4)[:, :3], np.array([-1.0, 0.0, 1.0]), "side"


def _place_of_code(scale: str) -> Ints:
    """The place on the scale of each code, −1 for none."""
    if scale == "strength":
        return np.where(np.arange(CODES) < GRADED.stop, np.arange(CODES), -1)
    return np.where(VERDICT_OF_CODE < 3, VERDICT_OF_CODE, -1)


def _merged_columns(counts: Ints, places: Ints, size: int) -> Ints:
    """(…, CODES) to (…, size) by the place of each code; those with place −1 are left out."""
    into = (places[:, None] == np.arange(size)).astype(counts.dtype)
    return counts @ into


@dataclass(frozen=True)
class _Pair:
    """Two people with common items, names in order: how many `times` (one's code, the other's) occurred."""

    names: tuple[str, str]
    one: Ints
    other: Ints
    times: Ints

    @property
    def name(self) -> str:
        return "|".join(self.names)


def _people(votes: Votes, names: dict[int, str]) -> list[_Pair]:
    """Each two people with common items, in order of their names."""
    one, other = votes.pairs()
    people, place = np.unique(votes.annotator, return_inverse=True)
    key = (place[one] * len(people) + place[other]) * CODES**2 + votes.code[one] * CODES + votes.code[other]
    cells, times = np.unique(key, return_counts=True)
    keys, start = np.unique(cells // CODES**2, return_index=True)
    ends = np.append(start[1:], len(cells))[: len(keys)]
    pairs = []
    for key, begin, end in zip(keys, start, ends, strict=True):
        name, other_name = (names[int(people[index])] for index in divmod(key, len(people)))
        codes = divmod(cells[begin:end] % CODES**2, CODES)
        if name > other_name:
            name, other_name, codes = other_name, name, codes[::-1]
        pairs.append(_Pair((name, other_name), codes[0], codes[1], times[begin:end]))
    return sorted(pairs, key=lambda pair: pair.names)


def _kappa_of(
    pair: _Pair, places: Ints, disagreement: Floats, drawn: Floats | None
) -> tuple[float | None, Interval | None, Undefined | None]:
    """The kappa of two people, its interval, and why it has no value; drawn: (resamples, cells)."""
    one, other = places[pair.one], places[pair.other]
    keep = (one >= 0) & (other >= 0)
    one, other, times = one[keep], other[keep], pair.times[keep].astype(float)
    value = float(kappa(times[None], one, other, disagreement)[0])
    if np.isnan(value):
        return None, None, (Undefined.UNIFORM_PAIR if len(times) else Undefined.UNPLACED)
    if drawn is None:
        return value, None, None
    return value, percentile_interval(kappa(drawn[:, keep], one, other, disagreement)), None


def alpha_in_words(alpha: float) -> str | Promise:
    """What to do about an alpha. Source: Krippendorff 2019, section 12.5 (0.8 and 0.667 as the customary limits)."""
    if alpha >= 0.8:
        return _("good: conclusions can rest on these votes")
    if alpha >= 0.667:
        return _("tentative: fit for careful conclusions only")
    if alpha > 0:
        return _("low: the guidelines leave much to taste")
    return _("no better than chance: look at the guidelines before more is judged")
