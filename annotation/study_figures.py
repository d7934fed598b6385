"""What a human evaluation found: good/same/bad and win rates, pass rates, each also by what is known of the prompts.

Pass rate = samples that meet all four marks / samples; satisfaction rate = ratings that say yes to the fifth question
/ ratings. A sample that several people rated counts with the share of them. A prompt's labels are its task
(capability), its language, and its tags `scenario:…`, `difficulty:…` and `format:…`; what has no label is a row of its
own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import numpy as np
from django.db.models import Count, F, Q
from django.db.models.functions import Length
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from numpy.typing import NDArray
from scipy import special

from annotation.models import Project, Prompt, RatingStatus, Response, ResponseSource, RubricRating, Study, StudyItem
from annotation.models.studies import MARKS
from annotation.ratings.battles import Battles, load_battles
from annotation.shares import CONFIDENCE, Share
from annotation.win_rates import WinRate, length_differences, new_comes_first, win_rate_of

AXES: dict[str, str | Promise] = {
    "capability": _("Capability"),
    "scenario": _("Scenario"),
    "difficulty": _("Difficulty"),
    "format": _("Format"),
    "language": _("Language"),
}
MEASURES: dict[str, str | Promise] = {
    "passed": _("Pass rate: all four"),
    "intent": _("Intent"),
    "accuracy": _("Accuracy"),
    "language": _("Language"),
    "safety": _("Safety"),
    "is_satisfied": _("Satisfaction rate"),
}
WORDS = ("good", "same", "bad")
MOST_LABELS = 40
"""Of one axis, the most frequent ones."""

FoundT = TypeVar("FoundT")


@dataclass(frozen=True)
class Slice(Generic[FoundT]):
    """Figures of the prompts with one label; the empty label: those without any."""

    axis: str
    label: str
    found: FoundT


@dataclass(frozen=True)
class Coverage:
    items: int
    judged: int
    """Items with as many judgments as were asked for."""
    wanted: int
    """Judgments that all items together ask for."""
    given: int
    """Of those; what came beyond k is not counted."""


@dataclass(frozen=True)
class RubricFigures:
    """Of one source."""

    source: ResponseSource
    shares: dict[str, Share]
    """By MEASURES; empty where nothing was rated."""
    ratings: int
    samples: int
    people: int


@dataclass(frozen=True)
class Difference:
    """Pass rate of the new source less that of the old one, over the prompts of which both were rated."""

    value: float
    lower: float
    upper: float
    prompts: int


# ── Labels ───────────────────────────────────────────────────────────────────────────────────────────────────────


def labels_of(task: str, lang: str, tags: Iterable[str]) -> dict[str, list[str]]:
    """What is known of a prompt, by AXES; an empty text where nothing is."""
    found: dict[str, list[str]] = {"capability": [task], "language": [lang]}
    for axis in ("scenario", "difficulty", "format"):
        marked = sorted(
            {tag.partition(":")[2].strip() for tag in tags if tag.partition(":")[0].strip() == axis} - {""}
        )
        found[axis] = marked or [""]
    return found


def _sliced(prompts: NDArray[np.int64], measure: Callable[[NDArray[np.bool_]], FoundT]) -> list[Slice[FoundT]]:
    """Figures by label; `prompts` are the ids of each outcome's prompt. Axes without any label are left out."""
    ids, places = np.unique(prompts, return_inverse=True)
    known = {
        pk: labels_of(task, lang, tags)
        for pk, task, lang, tags in Prompt.objects.filter(pk__in=ids.tolist()).values_list(
            "pk", "task", "lang", "tags"
        )
    }
    slices = []
    for axis in AXES:
        members: dict[str, list[int]] = {}
        for place, pk in enumerate(ids.tolist()):
            for label in known[pk][axis]:
                members.setdefault(label, []).append(place)
        if set(members) <= {""}:
            continue
        named = sorted((label for label in members if label), key=lambda label: (-len(members[label]), label))
        for label in [*named[:MOST_LABELS], *([""] if "" in members else [])]:
            slices.append(Slice(axis, label, measure(np.isin(places, members[label]))))
    return slices


def _agreement(items: NDArray[np.int64], outcomes: NDArray[np.int64]) -> Share | None:
    """The share of pairs of people who said the same of one item; None where no item has two."""
    if not len(items):
        return None
    item = np.unique(items, return_inverse=True)[1]
    counts = np.zeros((int(item.max()) + 1, int(outcomes.max()) + 1))
    np.add.at(counts, (item, outcomes), 1)
    total = counts.sum(axis=1)
    return Share.clustered((counts * (counts - 1)).sum(axis=1) / 2, total * (total - 1) / 2)


# ── Good, same, bad ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class GsbFigures:
    whole: WinRate
    slices: list[Slice[WinRate]]
    agreement: Share | None
    """How often two people gave a pair the same of the three verdicts; None where nobody judged what another did."""


def gsb_figures(study: Study) -> GsbFigures:
    battles, is_new_first = _votes(study)
    differences = length_differences(battles, is_new_first)

    def measure(kept: NDArray[np.bool_]) -> WinRate:
        return win_rate_of(battles.where(kept), is_new_first[kept], differences[kept])

    whole = measure(np.ones(len(battles), dtype=bool))
    assert battles.one_response is not None and battles.other_response is not None
    first = np.where(is_new_first, battles.one_response, battles.other_response)
    verdict = np.where(is_new_first, battles.verdict, 2 - battles.verdict)
    return GsbFigures(
        whole, _sliced(_prompts_of(battles), measure) if len(battles) else [], _agreement(first, verdict)
    )


def gsb_whole(study: Study) -> WinRate:
    """Of all votes together, without the slices."""
    battles, is_new_first = _votes(study)
    return win_rate_of(battles, is_new_first, length_differences(battles, is_new_first))


def _votes(study: Study) -> tuple[Battles, NDArray[np.bool_]]:
    assert study.against_id is not None
    battles, ids = load_battles(
        study.project,
        voters="people",
        study=study.pk,
        pair=(study.source_id, study.against_id),
        with_times=True,
        with_responses=True,
    )
    return battles, new_comes_first(battles, ids, study.source)


def _prompts_of(battles: Battles) -> NDArray[np.int64]:
    assert battles.one_response is not None
    ids, places = np.unique(battles.one_response, return_inverse=True)
    prompt = dict(Response.objects.filter(pk__in=ids.tolist()).values_list("pk", "prompt"))
    return np.array([prompt[pk] for pk in ids.tolist()], dtype=np.int64)[places]


def pair_rows(
    projects: Iterable[Project], new: ResponseSource, old: ResponseSource, *, voters: str = "people"
) -> Iterator[dict[str, Any]]:
    """Every vote between two sources in these projects, oldest first. People are numbered, not named."""
    battles, ids = load_battles(
        list(projects), voters=voters, pair=(new.pk, old.pk), with_times=True, with_responses=True
    )
    yield from _vote_rows(battles, new_comes_first(battles, ids, new))


def _vote_rows(
    battles: Battles, is_new_first: NDArray[np.bool_], newest: int | None = None
) -> Iterator[dict[str, Any]]:
    if not len(battles):
        return
    assert battles.at is not None and battles.one_response is not None and battles.other_response is not None
    order = np.argsort(battles.at, kind="stable")[-newest if newest else None :]
    new = np.where(is_new_first, battles.one_response, battles.other_response)
    old = np.where(is_new_first, battles.other_response, battles.one_response)
    verdict = np.where(is_new_first, battles.verdict, 2 - battles.verdict)
    texts = (
        Response.objects.defer("text")
        .annotate(characters=Length("text"), task=F("prompt__task"), lang=F("prompt__lang"), tags=F("prompt__tags"))
        .in_bulk(np.unique([new[order], old[order]]).tolist())
    )
    for row in order.tolist():
        ours, theirs = (texts[int(side[row])] for side in (new, old))
        yield {
            "at": datetime.fromtimestamp(int(battles.at[row]) / 1e6, UTC).isoformat(timespec="seconds"),
            "prompt": ours.prompt_id,
            **_label_columns(ours),
            "person": int(battles.person[row]) + 1,
            "verdict": WORDS[verdict[row]],
            "new_response": ours.pk,
            "old_response": theirs.pk,
            "new_characters": ours.characters,
            "old_characters": theirs.characters,
        }


def _label_columns(marked: Any) -> dict[str, str]:
    labels = labels_of(marked.task, marked.lang, marked.tags)
    return {axis: ", ".join(labels[axis]) for axis in AXES}


# ── Marks ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Ratings:
    """Parallel arrays, one entry a rating."""

    source: NDArray[np.int64]
    prompt: NDArray[np.int64]
    group: NDArray[np.int64]
    person: NDArray[np.int64]
    response: NDArray[np.int64]
    marks: dict[str, NDArray[np.float64]]


def _live_ratings(study: Study):  # type: ignore[no-untyped-def]
    return RubricRating.objects.filter(item__study=study, status=RatingStatus.SUBMITTED, superseded_at=None).order_by(
        "submitted_at", "pk"
    )


def _load_ratings(study: Study) -> _Ratings:
    names = ("intent", "accuracy", "language", "safety", "is_satisfied")
    rows = list(
        _live_ratings(study).values_list(
            "item__response__source", "item__response__prompt", "item__response__prompt__group", "annotator",
            "item__response", *names,
        )
    )  # fmt: skip
    columns = list(zip(*rows, strict=True)) if rows else [()] * (5 + len(names))
    ids = [np.array(columns[place], dtype=np.int64) for place in (0, 1, 3, 4)]
    marks = {name: np.array(columns[5 + place], dtype=float) for place, name in enumerate(names)}
    marks["passed"] = np.prod([marks[name] for name in MARKS], axis=0)
    groups = np.unique(np.array(columns[2], dtype=object), return_inverse=True)[1] if rows else ids[0]
    return _Ratings(ids[0], ids[1], groups, ids[2], ids[3], marks)


@dataclass(frozen=True)
class MarkedFigures:
    whole: list[RubricFigures]
    """The new source first."""
    slices: list[Slice[list[RubricFigures]]]
    agreement: dict[str, Share]
    """How often two people gave one response the same mark, by MEASURES; empty where nobody rated what another did."""
    difference: Difference | None
    """None with one source, and with fewer than two prompts of which both were rated."""


def rubric_figures(study: Study) -> MarkedFigures:
    ratings = _load_ratings(study)

    def measure(kept: NDArray[np.bool_]) -> list[RubricFigures]:
        return [_of_source(ratings, kept & (ratings.source == source.pk), source) for source in study.sources]

    everything = np.ones(len(ratings.source), dtype=bool)
    slices = _sliced(ratings.prompt, measure) if len(ratings.source) else []
    agreed = {name: _agreement(ratings.response, ratings.marks[name].astype(np.int64)) for name in MEASURES}
    agreement = {name: share for name, share in agreed.items() if share}
    return MarkedFigures(measure(everything), slices, agreement, _difference(study, ratings))


def rubric_whole(study: Study, source: ResponseSource) -> RubricFigures:
    """Of all ratings of one of its sources together, without the slices."""
    ratings = _load_ratings(study)
    return _of_source(ratings, ratings.source == source.pk, source)


def _of_source(ratings: _Ratings, kept: NDArray[np.bool_], source: ResponseSource) -> RubricFigures:
    shares = {}
    for name in MEASURES:
        share = Share.two_way(ratings.marks[name][kept], ratings.group[kept], ratings.person[kept])
        if share is not None:
            shares[name] = share
    return RubricFigures(
        source,
        shares,
        ratings=int(kept.sum()),
        samples=len(np.unique(ratings.response[kept])),
        people=len(np.unique(ratings.person[kept])),
    )


def _difference(study: Study, ratings: _Ratings) -> Difference | None:
    """Paired by group of prompts, with Student's t over the groups."""
    if study.against_id is None or not len(ratings.group):
        return None
    size = int(ratings.group.max()) + 1
    means = []
    for source in (study.source_id, study.against_id):
        here = ratings.source == source
        counts = np.bincount(ratings.group[here], minlength=size)
        with np.errstate(invalid="ignore"):
            means.append(np.bincount(ratings.group[here], ratings.marks["passed"][here], size) / counts)
    differences = (means[0] - means[1])[~np.isnan(means[0]) & ~np.isnan(means[1])]
    count = len(differences)
    if count < 2:
        return None
    width = float(special.stdtrit(count - 1, (1 + CONFIDENCE) / 2) * differences.std(ddof=1) / np.sqrt(count))
    value = float(differences.mean())
    return Difference(value, value - width, value + width, count)


def _rating_rows(study: Study, newest: int | None) -> Iterator[dict[str, Any]]:
    found = _live_ratings(study)
    people: dict[int, int] = {}
    for annotator in found.values_list("annotator", flat=True).iterator():
        people.setdefault(annotator, len(people) + 1)
    ratings = found.select_related("item__response__source", "item__response__prompt").defer("item__response__text")
    for rating in reversed(ratings.reverse()[:newest]) if newest else ratings.iterator():
        response = rating.item.response
        yield {
            "at": rating.submitted_at.isoformat(timespec="seconds"),
            "prompt": response.prompt_id,
            **_label_columns(response.prompt),
            "person": people[rating.annotator_id],
            "model": response.source.name,
            "response": response.pk,
            **{f"mark_{name}": getattr(rating, name) for name in MARKS},
            "passed": all(getattr(rating, name) for name in MARKS),
            "satisfied": rating.is_satisfied,
            "note": rating.note,
            "decided_in_ms": rating.decided_in_ms,
        }


# ── A study ──────────────────────────────────────────────────────────────────────────────────────────────────────


def study_rows(study: Study, newest: int | None = None) -> Iterator[dict[str, Any]]:
    """The votes or ratings that its figures rest on, oldest first: all, or the newest. People are numbered."""
    return _vote_rows(*_votes(study), newest) if study.kind == "gsb" else _rating_rows(study, newest)


def coverage_of(study: Study) -> Coverage:
    """One query."""
    items = StudyItem.objects.filter(study=study)
    if study.kind == "gsb":
        live = Q(
            comparison__judgments__superseded_at=None,
            comparison__judgments__round=0,
            comparison__judgments__annotator__is_human=True,
        )
        counts = items.values_list("pk", "comparison__required_count").annotate(
            given=Count("comparison__judgments", filter=live)
        )
    else:
        live = Q(ratings__status=RatingStatus.SUBMITTED, ratings__superseded_at=None)
        counts = items.values_list("pk", "required_count").annotate(given=Count("ratings", filter=live))
    places = [(required, given) for _pk, required, given in counts]
    return Coverage(
        items=len(places),
        judged=sum(given >= required for required, given in places),
        wanted=sum(required for required, _given in places),
        given=sum(min(required, given) for required, given in places),
    )


def say_win_rate(found: WinRate, new: str, old: str) -> str:
    """The result in a sentence."""
    if found.rate is None:
        return gettext("Nobody has judged any of it yet.")
    names = {"new": new, "old": old, "count": f"{found.judgments:,}"}
    if found.is_decided:
        better = gettext("%(new)s is preferred to %(old)s.") if found.rate.value > 0.5 else gettext(
            "%(old)s is preferred to %(new)s."
        )  # fmt: skip
        return better % names
    if found.votes_needed is None:
        return gettext("No difference can be told with these %(count)s votes: the two are even.") % names
    return gettext(
        "No difference can be told with these %(count)s votes. If the share stays as it is, about %(more)s more are "
        "needed."
    ) % {**names, "more": f"{_rounded(found.votes_needed):,}"}


def _rounded(count: int) -> int:
    """To two digits: it is an estimate."""
    step = 10 ** max(0, len(str(count)) - 2)
    return -(-count // step) * step


def figures_of(study: Study) -> dict[str, Any]:
    """Everything as plain values, for files and programs."""
    coverage = coverage_of(study)
    base: dict[str, Any] = {
        "evaluation": study.name,
        "kind": study.kind,
        "project": study.project.slug,
        "new": study.source.name,
        "old": study.against.name if study.against else None,
        "selection": study.selection,
        "judgments_per_item": study.judgments_per_item,
        "items": coverage.items,
        "judged": coverage.judged,
    }
    if study.kind == "gsb":
        found = gsb_figures(study)
        assert study.against is not None
        return base | {
            **win_rate_dict(found.whole),
            "agreement": _ends(found.agreement),
            "sentence": say_win_rate(found.whole, study.source.name, study.against.name),
            "slices": [
                {"axis": part.axis, "label": part.label or None, **win_rate_dict(part.found)} for part in found.slices
            ],
        }
    marked = rubric_figures(study)
    return base | {
        "models": [_marked_dict(figures) for figures in marked.whole],
        "difference": _ends(marked.difference),
        "agreement": {name: _ends(share) for name, share in marked.agreement.items()},
        "slices": [
            {"axis": part.axis, "label": part.label or None, "models": [_marked_dict(one) for one in part.found]}
            for part in marked.slices
        ],
    }


def win_rate_dict(found: WinRate) -> dict[str, Any]:
    return {
        "good": found.wins,
        "same": found.ties,
        "bad": found.losses,
        "judgments": found.judgments,
        "prompts": found.prompts,
        "people": found.people,
        "net": found.net,
        "win_rate": _ends(found.rate),
        "win_rate_at_equal_length": _ends(found.at_equal_length),
    }


def _marked_dict(figures: RubricFigures) -> dict[str, Any]:
    names = {"passed": "pass_rate", "is_satisfied": "satisfaction_rate"}
    return {
        "model": figures.source.name,
        "ratings": figures.ratings,
        "samples": figures.samples,
        "people": figures.people,
        **{names.get(name, name): _ends(figures.shares.get(name)) for name in MEASURES},
    }


def _ends(share: Share | Difference | None) -> dict[str, float] | None:
    return {"value": share.value, "lower": share.lower, "upper": share.upper} if share else None
