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
from rlhf.comparison import BASE, compare
from rlhf.comparison_files import as_csv, as_markdown
from rlhf.curves import figures_for
from rlhf.job_differences import differing_data, differing_options
from rlhf.job_measures import measure
from rlhf.models import Checkpoint, CheckpointKind, JobMetric, SampleScores, TrainingJob
from rlhf.plots import Plot, Series, draw
from rlhf.scored_samples import scored_samples
from rlhf.services import request_sample_scores
from rlhf.views.access import StaffRequest, as_sentence, staff_required
from rlhf.views.job_figures import POINTS

TONES = ("accent", "warning", "blue", "purple", "error", "soft")
JOBS_COMPARED = len(TONES)


FILES = {
    "csv": (as_csv, "text/csv; charset=utf-8"),
    "md": (as_markdown, "text/markdown; charset=utf-8"),
}


@staff_required
@require_GET
def job_compare(request: StaffRequest) -> HttpResponse:
    """`?job=1&job=2 …`: the first six jobs that are named.

    `against` is a job or "base"; without it deltas are from the base, where something was measured of it, else from
    the first job. `as` csv or md gives the table as a file.
    """
    asked = [int(pk) for pk in request.GET.getlist("job") if _is_key(pk)]
    wanted = list(dict.fromkeys(asked))
    found = TrainingJob.objects.select_related("snapshot__project", "base__source", "checkpoint__source").in_bulk(
        wanted[:JOBS_COMPARED]
    )
    jobs = [found[pk] for pk in wanted if pk in found]
    if len(jobs) < 2 or "choose" in request.GET:
        recent = TrainingJob.objects.select_related("snapshot").defer("preflight").order_by("-queued_at", "-pk")[:30]
        return render(request, "rlhf/job_compare.html", {"jobs": [], "recent": recent, "chosen": set(wanted)})
    against = request.GET.get("against", "")
    key = BASE if against == "base" else int(against) if _is_key(against) else None
    scored = scored_samples(jobs)
    comparison = compare(jobs, *measure(jobs, scored), key)
    if file := FILES.get(request.GET.get("as", "")):
        write, content_type = file
        answer = HttpResponse(write(comparison), content_type=content_type)
        answer["Content-Disposition"] = f'attachment; filename="jobs-compared.{request.GET["as"]}"'
        return answer
    reference = comparison.reference.job or jobs[0]
    differing = differing_options(jobs)
    context: dict[str, Any] = {
        "jobs": jobs,
        "comparison": comparison,
        "rows": list(zip(comparison.rows, [""] * (len(comparison.rows) - len(jobs)) + list(TONES), strict=False)),
        "query": "&".join(f"job={job.pk}" for job in jobs),
        "against": against if key is not None else "",
        "plots": _plots(jobs),
        "options": [option for option in differing if option.is_of_all],
        "own_options": [option for option in differing if not option.is_of_all],
        "reference": reference,
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
    pks = [int(pk) for pk in request.POST.getlist("job") if _is_key(pk)][:JOBS_COMPARED]
    reward_model = request.POST.get("reward_model", "")
    found = Checkpoint.objects.filter(pk=int(reward_model) if _is_key(reward_model) else 0).first()
    try:
        if found is None:
            raise DomainError(gettext("choose a reward model"))
        request_sample_scores(list(TrainingJob.objects.filter(pk__in=pks)), found)
    except DomainError as error:
        messages.error(request, as_sentence(error))
    query: list[tuple[str, object]] = [("job", pk) for pk in pks]
    if against := request.POST.get("against"):
        query.append(("against", against))
    return redirect(f"{reverse('job_compare')}?{urlencode(query)}")


def _is_key(text: str) -> bool:
    return text.isdecimal() and len(text) < 10


def _plots(jobs: list[TrainingJob]) -> list[Plot]:
    """Each figure with one line a job: the first of its metrics that the job logged, held-out where there is one."""
    logged = JobMetric.objects.curves([job.pk for job in jobs], POINTS)
    names = {name for by_name in logged.values() for name in by_name}
    plots = []
    short = dict(zip(jobs, short_names([str(job) for job in jobs]), strict=True))
    for figure in figures_for(names):
        for line in figure.lines:
            series = []
            for job, tone in zip(jobs, TONES, strict=False):
                points = next((logged[job.pk][name] for name in line.names if name in logged[job.pk]), None)
                if points:
                    series.append(Series(short[job], tone, points))
            if len(series) > 1:
                # "Log-probability: chosen, rejected" has one figure for each side here.
                title = f"{re.split('[:：]', str(figure.title))[0]}: {line.label}" if len(figure.lines) > 1 else ""
                plot = draw(figure, series, last_step=0, method="")
                plot.slug, plot.title = f"{plot.slug}-{line.names[0].replace('/', '-')}", title or plot.title
                plots.append(plot)
    return plots


def short_names(names: list[str]) -> list[str]:
    """The names without the words that all of them begin and end with: in a figure they only take its room."""
    words = [re.findall(r"[^-_]+[-_]*", name) for name in names]
    for at, end in ((0, slice(1, None)), (-1, slice(-1))):
        while all(len(parts) > 1 for parts in words) and len({parts[at].strip("-_") for parts in words}) == 1:
            words = [parts[end] for parts in words]
    return ["".join(parts).strip("-_") for parts in words]
