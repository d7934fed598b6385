"""The figures of a project's quality page, stored as JSON between visits, and what they mean in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from annotation.aggregation import aggregate
from annotation.agreement import RESAMPLES, Undefined, load_votes, measure_agreement
from annotation.agreement.report import agreement_of, alpha_in_words
from annotation.agreement.scores import score_agreement
from annotation.agreement.votes import names_of
from annotation.models import Project
from annotation.quality import Concern, measure_annotators
from annotation.shares import Share
from annotation.stored_figures import stored_figures

Words = str | Promise
PAIRS_SHOWN = 50
NO_SPREAD = _("too few comparisons, or too alike, for an interval")
DIFFERENCES_SHOWN = 20

FIGURES: tuple[tuple[str, Words, Words], ...] = (
    ("raw_agreement", _("Two people agree"), _("share of pairs of votes with the same verdict")),
    ("raw_agreement_no_ties", _("… where both took a side"), _("the ceiling of a model that learns from these votes")),
    ("krippendorff_alpha_interval", _("Krippendorff’s alpha, interval"), _("by how far votes lie apart")),
    ("krippendorff_alpha_ordinal", _("Krippendorff’s alpha, ordinal"), _("by their order alone")),
    ("krippendorff_alpha", _("Krippendorff’s alpha, nominal"), _("same verdict or not")),
    ("gwet_ac2_scale", _("Gwet’s AC2"), _("quadratic weights on the scale; steady where one answer is rare")),
    ("gwet_ac2", _("Gwet’s AC2 over verdicts"), _("quadratic weights on a, same, b")),
    ("fleiss_kappa", _("Fleiss’ kappa"), _("same verdict or not, every comparison alike")),
)
_ALPHAS = ("krippendorff_alpha_interval", "krippendorff_alpha_ordinal", "krippendorff_alpha")


@dataclass(frozen=True)
class Figure:
    """A figure with its interval, or the words that say why there is none."""

    label: Words
    help: Words
    value: float | None
    interval: tuple[float, float] | None
    words: Words
    is_share: bool = False

    @property
    def shown(self) -> str:
        return "" if self.value is None else self._text(self.value)

    @property
    def shown_interval(self) -> str:
        return " … ".join(self._text(end) for end in self.interval or ())

    def _text(self, value: float) -> str:
        if self.is_share:
            return f"{100 * value:.1f} %"
        return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")  # + 0.0: there is no −0.00

    @property
    def place(self) -> str:
        """Where it lies on an axis from 0 to 1, for `.interval`; what is below chance lies at its end."""
        ends = [100 * min(1.0, max(0.0, end)) for end in (self.value or 0.0, *(self.interval or ()))]
        at, start, end = ends if self.interval else (ends[0], ends[0], ends[0])
        return f"--at: {at:.2f}%; --start: {start:.2f}%; --width: {end - start:.2f}%"


@dataclass(frozen=True)
class Person:
    """One line of the table of people."""

    pk: int
    name: str
    votes: int
    with_others: Share | None
    gold: Share | None
    left: Share | None
    longer: Share | None
    consistent: Share | None
    median_seconds: float | None
    votes_per_hour: float | None
    reliability: float | None
    concerns: list[Concern]


@dataclass(frozen=True)
class Pair:
    one: str
    other: str
    items: int
    kappa: Figure
    weighted: Figure


@dataclass(frozen=True)
class Weighed:
    """Votes weighed by who cast them, beside the majority; `differences` are the surest of them."""

    items: int
    same: int
    contrary: int
    decided: int
    differences: list[dict[str, Any]]


@dataclass(frozen=True)
class QualityReport:
    as_of: datetime
    items: int
    judgments: int
    annotators: int
    pairs: int
    scale: str
    figures: list[Figure]
    by_strength: list[tuple[int, int, Figure]]
    """Strength, pairs of votes, agreement."""
    scores: list[tuple[int, Figure]]
    """Of each aspect and axis: how many scores there are, and alpha."""
    people_pairs: list[Pair]
    more_pairs: int
    people: list[Person]
    weighed: Weighed


def quality_report(project: Project) -> QualityReport:
    """The report as of the last time that it was computed."""
    data, as_of = stored_figures(project, "quality", _compute)
    agreement, intervals, reasons = data["agreement"], data["agreement"]["intervals"], data["agreement"]["not_defined"]
    figures = [
        _figure(label, help_text, agreement[name], intervals.get(name), reasons.get(name), name=name)
        for name, label, help_text in FIGURES
    ]
    by_strength = [
        (row["strength"], row["pairs"], _figure("", "", row["agreement"], row["interval"], None, is_share=True))
        for row in agreement["by_strength"]
    ]
    return QualityReport(
        as_of=as_of,
        items=agreement["items"],
        judgments=agreement["judgments"],
        annotators=agreement["annotators"],
        pairs=agreement["pairs"],
        scale=agreement["scale"],
        figures=figures,
        by_strength=by_strength,
        scores=[
            (row["scores"], _figure(row["label"], "", row["alpha"], row["interval"], row["not_defined"]))
            for row in data["scores"]
        ],
        people_pairs=[_pair(row) for row in data["pairs"]],
        more_pairs=data["more_pairs"],
        people=[_person(row) for row in data["people"]],
        weighed=Weighed(**data["weighed"]),
    )


def _compute(project: Project) -> dict[str, Any]:
    votes = load_votes(project, humans_only=True)
    agreement = asdict(agreement_of(votes, names_of(votes.annotator), resamples=RESAMPLES))
    # Of many people there are very many pairs: those with most in common are shown.
    pairs = sorted(agreement.pop("shared_items").items(), key=lambda pair: -pair[1])
    by_pair = {kind: agreement.pop(kind) for kind in ("cohen_kappa", "weighted_kappa")}
    intervals = {kind: agreement["intervals"].pop(kind, {}) for kind in by_pair}
    reasons = {kind: agreement["not_defined"].pop(kind, {}) for kind in by_pair}
    weighed = asdict(aggregate(votes))
    reliability = weighed.pop("people")
    return {
        "agreement": agreement,
        "scores": [asdict(row) for row in score_agreement(project, resamples=RESAMPLES)],
        "pairs": [
            {
                "name": name,
                "items": items,
                **{
                    kind: (by_pair[kind][name], intervals[kind].get(name), reasons[kind].get(name)) for kind in by_pair
                },
            }
            for name, items in pairs[:PAIRS_SHOWN]
        ],
        "more_pairs": max(0, len(pairs) - PAIRS_SHOWN),
        "people": [
            {
                "pk": figures.annotator.pk,
                "name": figures.annotator.name,
                "votes": figures.counts.votes,
                "with_others": _stored(figures.with_others),
                "gold": _stored(figures.gold),
                "left": _stored(figures.left),
                "longer": _stored(figures.longer),
                "consistent": _stored(figures.repeats.consistent if figures.repeats else None),
                "median_seconds": figures.counts.median_seconds,
                "votes_per_hour": figures.votes_per_hour,
                "reliability": reliability[figures.annotator.pk]["estimated"]
                if figures.annotator.pk in reliability
                else None,
                "concerns": figures.concerns,
            }
            for figures in measure_annotators(project, votes)
        ],
        "weighed": {**weighed, "differences": weighed["differences"][:DIFFERENCES_SHOWN]},
    }


def project_agreement(project: Project, *, humans_only: bool) -> dict[str, Any]:
    """The figures of `manage.py agreement --json`, with their intervals, as of the last time they were computed."""
    compute = partial(compute_agreement, humans_only=humans_only)
    return stored_figures(project, f"agreement:{'people' if humans_only else 'all'}", compute)[0]


def compute_agreement(project: Project, *, humans_only: bool) -> dict[str, Any]:
    return asdict(measure_agreement(project, humans_only=humans_only, resamples=RESAMPLES))


def _stored(share: Share | None) -> dict[str, Any] | None:
    return asdict(share) if share else None


def _person(row: dict[str, Any]) -> Person:
    shares = {
        name: Share(**row[name]) if row[name] else None
        for name in ("with_others", "gold", "left", "longer", "consistent")
    }
    return Person(**{**row, **shares, "concerns": [Concern(concern) for concern in row["concerns"]]})


def _pair(row: dict[str, Any]) -> Pair:
    one, other = row["name"].split("|", 1)
    kappa, weighted = (_figure("", "", *row[kind]) for kind in ("cohen_kappa", "weighted_kappa"))
    return Pair(one, other, row["items"], kappa, weighted)


def _figure(
    label: Words,
    help_text: Words,
    value: float | None,
    interval: list[float] | None,
    reason: str | None,
    *,
    name: str = "",
    is_share: bool = False,
) -> Figure:
    words: Words = ""
    if value is None and reason:
        words = Undefined(reason).label
    elif value is not None and interval is None:
        words = NO_SPREAD
    elif value is not None and name in _ALPHAS:
        words = alpha_in_words(value)
    bounds = (interval[0], interval[1]) if interval else None
    return Figure(label, help_text, value, bounds, words, is_share or name.startswith("raw_agreement"))
