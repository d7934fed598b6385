"""Several jobs beside each other: evaluations with deltas and cost, curves over one another, settings and data."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext
from django.views.decorators.http import require_GET, require_POST

from annotation.services import DomainError
from rlhf.comparison import differing_data, differing_options, measure, scored_samples, tabulate
from rlhf.curves import figures_for
from rlhf.models import Checkpoint, CheckpointKind, JobMetric, SampleScores, TrainingJob
from rlhf.plots import Plot, Series, draw
from rlhf.services import request_sample_scores
from rlhf.views.access import StaffRequest, as_sentence, staff_required
from rlhf.views.job_figures import POINTS

TONES = ("accent", "warning", "blue", "purple", "error", "soft")
JOBS_COMPARED = len(TONES)


@staff_required
@require_GET
def job_compare(request: StaffRequest) -> HttpResponse:
    """`?job=1&job=2 …&against=1`: the first six jobs that are named; deltas are from the first where none is named."""
    asked = [int(pk) for pk in request.GET.getlist("job") if pk.isdecimal() and len(pk) < 10]
    wanted = list(dict.fromkeys(asked))
    found = TrainingJob.objects.select_related("snapshot__project", "base__source", "checkpoint__source").in_bulk(
        wanted[:JOBS_COMPARED]
    )
    jobs = [found[pk] for pk in wanted if pk in found]
    if len(jobs) < 2 or "choose" in request.GET:
        recent = TrainingJob.objects.select_related("snapshot").order_by("-queued_at", "-pk")[:30]
        return render(request, "rlhf/job_compare.html", {"jobs": [], "recent": recent, "chosen": set(wanted)})
    against = request.GET.get("against", "")
    reference = found.get(int(against) if against.isdecimal() and len(against) < 10 else 0, jobs[0])
    scored = scored_samples(jobs)
    columns, measured = measure(jobs, scored)
    cells = tabulate(columns, measured, reference.pk)
    context: dict[str, Any] = {
        "jobs": jobs,
        "reference": reference,
        "columns": [cell.column for cell in cells[reference.pk]],
        "rows": [(job, tone, cells[job.pk]) for job, tone in zip(jobs, TONES, strict=False)],
        "plots": _plots(jobs),
        "options": differing_options(jobs),
        "data": differing_data(jobs, reference),
        "left_out": len(wanted) - len(jobs),
        "scored": scored,
        "asked": list(_unscored(jobs)),
        "reward_models": Checkpoint.objects.filter(kind=CheckpointKind.REWARD).order_by("-created_at"),
    }
    context["awaited"] = [scores for scores in context["asked"] if scores.is_awaited]
    return render(request, "rlhf/job_compare.html", context)


def _unscored(jobs: list[TrainingJob]) -> QuerySet[SampleScores]:
    """What was asked for and is not there: not yet, or because of an error."""
    return SampleScores.objects.filter(job__in=jobs, scored_at=None).select_related("job", "reward_model")


@staff_required
@require_POST
def job_compare_score(request: StaffRequest) -> HttpResponse:
    """Ask for scores of the samples of the jobs named (`job`, several) by `reward_model`, and go back to the table."""
    pks = [int(pk) for pk in request.POST.getlist("job") if pk.isdecimal() and len(pk) < 10][:JOBS_COMPARED]
    reward_model = request.POST.get("reward_model", "")
    found = Checkpoint.objects.filter(pk=int(reward_model) if reward_model.isdecimal() else 0).first()
    try:
        if found is None:
            raise DomainError(gettext("choose a reward model"))
        request_sample_scores(list(TrainingJob.objects.filter(pk__in=pks)), found)
    except DomainError as error:
        messages.error(request, as_sentence(error))
    query = [("job", pk) for pk in pks]
    if (against := request.POST.get("against", "")).isdecimal():
        query.append(("against", int(against)))
    return redirect(f"{reverse('job_compare')}?{urlencode(query)}")


def _plots(jobs: list[TrainingJob]) -> list[Plot]:
    """Each figure with one line a job: the first of its metrics that the job logged, held-out where there is one."""
    logged = JobMetric.objects.curves([job.pk for job in jobs], POINTS)
    names = {name for by_name in logged.values() for name in by_name}
    plots = []
    for figure in figures_for(names):
        for line in figure.lines:
            series = []
            for job, tone in zip(jobs, TONES, strict=False):
                points = next((logged[job.pk][name] for name in line.names if name in logged[job.pk]), None)
                if points:
                    series.append(Series(str(job), tone, points))
            if len(series) > 1:
                # "Log-probability: chosen, rejected" has one figure for each side here.
                title = f"{re.split('[:：]', str(figure.title))[0]}: {line.label}" if len(figure.lines) > 1 else ""
                plot = draw(figure, series, last_step=0, method="")
                plot.slug, plot.title = f"{plot.slug}-{line.names[0].replace('/', '-')}", title or plot.title
                plots.append(plot)
    return plots
