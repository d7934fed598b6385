"""Pause, resume, another try with half the micro-batch, and sweeps: the same job with lists of values."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods, require_POST

from annotation.services import DomainError
from rlhf.models import TrainingJob
from rlhf.option_words import LABELS
from rlhf.options import SpecError
from rlhf.preflight import worst
from rlhf.services import request_pause
from rlhf.services.jobs import resume_training_job, retry_with_half_micro_batch
from rlhf.services.sweeps import JOBS_IN_SWEEP, check_sweep, combinations, queue_sweep, said
from rlhf.views.access import StaffRequest, as_sentence, staff_required
from rlhf.views.job_words import checks_of


@staff_required
@require_POST
def job_pause(request: StaffRequest, pk: int) -> HttpResponse:
    try:
        request_pause(get_object_or_404(TrainingJob, pk=pk))
    except DomainError as error:
        messages.error(request, as_sentence(error))
    return redirect("job_detail", pk=pk)


@staff_required
@require_POST
def job_resume(request: StaffRequest, pk: int) -> HttpResponse:
    try:
        resume_training_job(get_object_or_404(TrainingJob, pk=pk))
    except DomainError as error:
        messages.error(request, as_sentence(error))
    return redirect("job_detail", pk=pk)


@staff_required
@require_POST
def job_retry(request: StaffRequest, pk: int) -> HttpResponse:
    job = get_object_or_404(TrainingJob.objects.select_related("snapshot", "base"), pk=pk)
    try:
        retry = retry_with_half_micro_batch(job, request.user)
    except DomainError as error:
        messages.error(request, as_sentence(error))
        return redirect("job_detail", pk=pk)
    if retry == job:
        said = gettext(
            "Job %(number)s goes on from %(checkpoint)s with %(rows)s rows at once; each step still learns from "
            "%(batch)s."
        )
    else:
        said = gettext("Job %(number)s tries again with %(rows)s rows at once; each step still learns from %(batch)s.")
    numbers = {
        "number": retry.pk,
        "checkpoint": retry.resume_from,
        "rows": retry.options["micro_batch_size"],
        "batch": retry.options["batch_size"],
    }
    messages.success(request, said % numbers)
    return redirect("job_detail", pk=retry.pk)


AXES = 3


@staff_required
@require_http_methods(["GET", "POST"])
def job_sweep(request: StaffRequest, pk: int) -> HttpResponse:
    """Ask for lists of values, say how many jobs they make and what is found of each, and queue them once that is
    confirmed."""
    job = get_object_or_404(TrainingJob.objects.select_related("snapshot", "base"), pk=pk, snapshot__isnull=False)
    numbers = range(1, AXES + 1)
    axes = [(n, request.POST.get(f"option{n}", ""), request.POST.get(f"values{n}", "")) for n in numbers]
    context = {
        "job": job,
        "axes": axes,
        "options": [(name, LABELS.get(name, name), job.options[name]) for name in job.options],
        "most": JOBS_IN_SWEEP,
    }
    if request.method == "GET":
        return render(request, "rlhf/job_sweep.html", context)
    given = [(name, [value.strip() for value in values.split(",") if value.strip()]) for _, name, values in axes]
    try:
        planned = combinations(job, [axis for axis in given if axis[0] or axis[1]])
        shown = "; ".join(map(said, planned))
        if request.POST.get("count") == str(len(planned)):
            # Over the findings that this person was shown, not over those of values that were typed since.
            made = queue_sweep(job, planned, request.user, proceed=request.POST.get("proceed") == shown)
            named = "&".join(f"job={one.pk}" for one in made)
            messages.success(request, gettext("%(count)s jobs wait for a worker.") % {"count": len(made)})
            return redirect(f"{reverse('job_compare')}?{named}" if len(made) > 1 else reverse("job_list"))
        outcomes = check_sweep(job, planned)
    except (DomainError, SpecError) as error:
        return render(request, "rlhf/job_sweep.html", context | {"problem": as_sentence(error)}, status=422)
    found = {
        "planned": [
            (values, [line for line in checks_of(outcome.as_json()) if line.tone != "good"])
            for values, outcome in zip(planned, outcomes, strict=True)
        ],
        "level": max(worst(outcome.findings) for outcome in outcomes).name.lower(),
        "shown": shown,
    }
    return render(request, "rlhf/job_sweep.html", context | found)
