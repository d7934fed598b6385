"""One click each: pause, resume, and another try with half the micro-batch."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext
from django.views.decorators.http import require_POST

from annotation.services import DomainError
from rlhf.models import TrainingJob
from rlhf.services import request_pause, resume_job
from rlhf.services.jobs import retry_with_half_micro_batch
from rlhf.views.access import StaffRequest, as_sentence, staff_required


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
        resume_job(get_object_or_404(TrainingJob, pk=pk))
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
    said = gettext("Job %(number)s tries again with %(rows)s rows at once; each step still learns from %(batch)s.")
    numbers = {"number": retry.pk, "rows": retry.options["micro_batch_size"], "batch": retry.options["batch_size"]}
    messages.success(request, said % numbers)
    return redirect("job_detail", pk=retry.pk)
