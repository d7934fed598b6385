"""The items of one run with the score that each got there: the rows that its figures are made of."""

from __future__ import annotations

from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_GET

from rlhf.benchmark_figures import items_about
from rlhf.models import BenchmarkAnswer, BenchmarkRun
from rlhf.views.access import StaffRequest, staff_required
from rlhf.views.benchmark_filters import filtered, filters_of, item_label

ITEMS_A_PAGE = 50


@staff_required
@require_GET
def benchmark_run_items(request: StaffRequest, pk: int) -> HttpResponse:
    """`?task=…` and the other filters of the data set's list keep to a slice."""
    run = get_object_or_404(BenchmarkRun.objects.select_related("data_set", "source", "judge"), pk=pk)
    items = filtered(run.data_set.kind, items_about(run), request.GET).order_by("position")
    page = Paginator(items.distinct(), ITEMS_A_PAGE).get_page(request.GET.get("page"))
    shown = [item.pk for item in page.object_list]
    judgments = {row.item_id: row for row in run.judgments.filter(item__in=shown).defer("raw")}
    answers = BenchmarkAnswer.objects.filter(run=run.answering_run_id, item__in=shown)
    by_item = {answer.item_id: answer for answer in answers}
    kept = request.GET.copy()
    kept.pop("page", None)
    context = {
        "run": run,
        "page": page,
        "rows": [(item, item_label(item), by_item.get(item.pk), judgments.get(item.pk)) for item in page.object_list],
        "filters": filters_of(run.data_set, request.GET),
        "text": request.GET.get("text", ""),
        "kept": kept.urlencode(),
    }
    return render(request, "rlhf/benchmark_run_items.html", context)
