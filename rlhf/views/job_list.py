"""The list of training jobs: filters, pages, and what is ticked for the comparison."""

from __future__ import annotations

from collections import Counter
from typing import Any
from urllib.parse import urlencode

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from annotation.models import Project
from rlhf.models import JobAlarm, JobStatus, Method, TrainingJob
from rlhf.services import broker_is_up, seconds_left_by_job
from rlhf.services.workers import Queue
from rlhf.views.access import StaffRequest, staff_required

JOBS_SHOWN = 100


@staff_required
@require_GET
def job_list(request: StaffRequest) -> HttpResponse:
    """`status`, `method` and `project` narrow it; `job`, several, are ticked, on this page or on another."""
    context = _rows(request)
    ticked = {int(pk) for pk in request.GET.getlist("job") if _is_key(pk)}
    here = {job.pk for job, *_ in context["rows"]}
    projects = Project.objects.filter(snapshots__jobs__isnull=False).distinct().order_by("name")
    context |= {
        "ticked": ticked,
        "ticked_elsewhere": sorted(ticked - here),
        "statuses": JobStatus.values,
        "methods": Method.choices,
        "projects": projects,
        "is_empty": not context["rows"] and not TrainingJob.objects.exists(),
    }
    return render(request, "rlhf/job_list.html", context)


@staff_required
@require_GET
def job_rows(request: StaffRequest) -> HttpResponse:
    """The table alone, for a page that is watching it."""
    return render(request, "rlhf/_job_rows.html", _rows(request))


def _rows(request: StaffRequest) -> dict[str, Any]:
    """One page, newest first; a value that no job can have is as if it were not there."""
    asked = {name: request.GET.get(name, "").replace("\0", "") for name in ("status", "method", "project")}
    before = request.GET.get("before", "")
    found = TrainingJob.objects.like(**asked)
    if _is_key(before):
        found = found.filter(pk__lt=int(before))
    page = list(
        found.select_related("snapshot", "base", "checkpoint", "worker")
        .defer("preflight")  # it holds the number of every row that was left out
        .order_by("-pk")[: JOBS_SHOWN + 1]
    )
    jobs = page[:JOBS_SHOWN]
    left = seconds_left_by_job(jobs)
    alarms = Counter(JobAlarm.objects.filter(job__in=jobs).values_list("job", flat=True))
    is_waiting = any(job.status == JobStatus.QUEUED for job in jobs)
    queue = Queue.now() if is_waiting else None
    waits = {job.pk: queue.reason(job) for job in jobs if queue and job.status == JobStatus.QUEUED}
    return {
        "rows": [(job, left.get(job.pk), waits.get(job.pk, ""), alarms[job.pk]) for job in jobs],
        "asked": asked,
        "is_filtered": any(asked.values()),
        "query": urlencode({name: value for name, value in (asked | {"before": before}).items() if value}),
        "is_first": not before,
        "next": str(jobs[-1].pk) if len(page) > len(jobs) else "",
        "is_moving": any(not job.is_finished for job in jobs),
        "broker_is_away": is_waiting and not broker_is_up(),
    }


def _is_key(text: str) -> bool:
    return text.isdecimal() and len(text) < 10
