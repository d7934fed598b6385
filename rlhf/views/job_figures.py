"""The figures of one job, drawn."""

from __future__ import annotations

from typing import Any

from django.db.models import Max
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext
from django.views.decorators.http import require_GET

from annotation.agreement import measure_agreement
from rlhf.category_changes import Table
from rlhf.curves import Figure, Mark, figures_for
from rlhf.models import JobMetric, Point, TrainingJob
from rlhf.plots import Plot, Series, draw, format_value, series_of
from rlhf.views.access import StaffRequest, staff_required

POINTS = 240
"""Of each line: about one for every other pixel of a card."""


def figures_of(job: TrainingJob) -> dict[str, Any]:
    """Context of templates/rlhf/_job_curves.html."""
    return {"job": job, "plots": _plots(job), "version": version_of(job)}


def version_of(job: TrainingJob) -> str:
    """Changes with everything that the figures show."""
    newest = job.job_metrics.aggregate(newest=Max("logged_at"))["newest"]
    return f"{newest.timestamp():.6f}" if newest else ""


def _plots(job: TrainingJob) -> list[Plot]:
    logged = JobMetric.objects.curves([job.pk], POINTS)[job.pk]
    if not logged:
        return []
    people = []
    if job.snapshot and (agreement := measure_agreement(job.snapshot.project, humans_only=True).raw_agreement_no_ties):
        people = [Mark(agreement, gettext("people agree %(share)s") % {"share": format_value(agreement)})]
    # While it runs, the axis shows how far there is to go.
    last_step = job.step if job.is_finished else job.total_steps
    # "" where the loss is none of those that the method's band is for
    band_of = "" if job.options.get("loss_type", "sigmoid") not in ("sigmoid", "kto") else job.method
    return [
        draw(
            figure,
            series_of(figure, logged, held_out_rows=job.preflight.get("eval", {}).get("used")),
            last_step=last_step,
            method=job.method if figure.slug != "loss" else band_of,
            marks=people if figure.slug == "accuracy" else [],
        )
        for figure in figures_for(logged)
    ]


def score_lines(table: Table) -> list[Plot]:
    """A figure for each category over the steps, where there are two to connect."""
    if len(table.rows) < 2 or (not table.unit and table.title != gettext("Held-out loss")):
        return []
    plots = []
    for place, category in enumerate(table.categories):
        points = [
            Point(row.step, cell.value, cell.value, cell.value)
            for row in table.rows
            if (cell := row.cells[place]).value is not None
        ]
        if len(points) < 2:
            continue
        figure = Figure(f"category-{place}", category, (), unit=table.unit, exact=True)
        series = [Series("", "accent", points)]
        plots.append(draw(figure, series, last_step=table.rows[-1].step, method="", marks=[]))
    return plots


@staff_required
@require_GET
def job_curves(request: StaffRequest, pk: int) -> HttpResponse:
    """The figures alone, for a page that is watching them; 204 where nothing was logged since `version`."""
    job = get_object_or_404(TrainingJob.objects.select_related("snapshot__project"), pk=pk)
    if request.GET.get("version") == version_of(job):
        return HttpResponse(status=204)
    return render(request, "rlhf/_job_curves.html", figures_of(job))
