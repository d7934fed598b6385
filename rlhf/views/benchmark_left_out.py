"""The items that a run's figures miss, one by one: what failed and how, and what nobody judged yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.core.paginator import Page, Paginator
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from rlhf.benchmark_figures import items_about
from rlhf.models import BenchmarkAnswer, BenchmarkItem, BenchmarkRun, JudgmentFailure

ITEMS_A_PAGE = 20
RAW_CHARS_SHOWN = 4_000
"""The page of the item and the file of judgments have the rest."""
MISSING, REPETITIVE, UNANSWERED = "missing", "repetitive", "unanswered"


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to be left out, and how many items went it."""

    key: str
    label: str | Promise
    count: int


def kinds_of(run: BenchmarkRun, figures: Mapping[str, Any]) -> list[Kind]:
    """The most frequent failure first; what is only outstanding, or counts as 0, last."""
    if run.judge_id is None:
        outstanding = figures["items"] - figures["answers"] - figures["failed_answers"]
        kinds = [
            Kind(UNANSWERED, _("the model gave no answer"), figures["failed_answers"]),
            Kind(MISSING, _("not answered"), outstanding),
        ]
    else:
        failures = figures.get("failures", {})
        known = [kind for kind in failures if kind in JudgmentFailure.values]
        kinds = [Kind(kind, JudgmentFailure(kind).label, failures[kind]) for kind in known]
        kinds.append(Kind(MISSING, _("not judged"), figures["missing"]))
        kinds.append(Kind(REPETITIVE, _("refused for repetitions: counted as 0"), figures["repetitive"]))
    return sorted((kind for kind in kinds if kind.count), key=lambda kind: kind.key in (MISSING, REPETITIVE))


def left_out(run: BenchmarkRun, figures: Mapping[str, Any], asked: Mapping[str, str]) -> dict[str, Any]:
    """For the template: the kinds, the one asked for, or else the first, and a page of (item, note, raw)."""
    kinds = kinds_of(run, figures)
    # While a run is under way most of it is outstanding; that is listed on request only.
    first = next((kind for kind in kinds if run.is_finished or kind.key != MISSING), None)
    chosen = next((kind for kind in kinds if kind.key == asked.get("left_out")), first)
    page = Paginator(_rows(run, chosen.key), ITEMS_A_PAGE).get_page(asked.get("page")) if chosen else None
    return {"left_out": kinds, "left_out_kind": chosen, "left_out_page": page, "left_out_rows": _shown(page)}


def _rows(run: BenchmarkRun, kind: str) -> Any:
    if kind == UNANSWERED:
        failed = BenchmarkAnswer.objects.filter(run=run.answering_run_id).exclude(error="")
        return failed.select_related("item").order_by("item__position")
    if kind == MISSING:
        items = items_about(run).order_by("position")
        if run.judge_id:
            return items.exclude(pk__in=run.judgments.values("item"))
        return items.exclude(pk__in=BenchmarkAnswer.objects.filter(run=run.answering_run_id).values("item"))
    judgments = run.judgments.filter(is_repetitive=True) if kind == REPETITIVE else run.judgments.filter(failure=kind)
    return judgments.select_related("item").order_by("item__position")


def _shown(page: Page[Any] | None) -> list[tuple[BenchmarkItem, str, str]]:
    return [
        (row, "", "")
        if isinstance(row, BenchmarkItem)
        else (row.item, row.error, "")
        if isinstance(row, BenchmarkAnswer)
        else (row.item, row.note, row.raw[:RAW_CHARS_SHOWN])
        for row in page or ()
    ]
