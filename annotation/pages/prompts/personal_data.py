"""Personal data: how much of it there is, and masking it."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from annotation.access import MemberRequest, require_role
from annotation.models import DataJob, DataJobKind, DataJobStatus, Project, Role
from annotation.pages.prompts.browsing import running_job
from annotation.pages.prompts.editing import finished, samples_of
from annotation.personal_data import STANDS_FOR, PersonalKind
from annotation.services import DomainError, masking


@require_role(Role.ADMIN)
@require_GET
def personal_data(request: MemberRequest, project: Project) -> HttpResponse:
    done = DataJob.objects.filter(
        project=project, kind__in=[DataJobKind.SCAN, DataJobKind.MASK], status=DataJobStatus.DONE
    )
    last = done.select_related("created_by").order_by("-pk").first()
    scan = last if last is not None and last.kind == DataJobKind.SCAN else None
    context = {
        "project": project,
        "scan": scan,
        "masked": last if last is not None and last.kind == DataJobKind.MASK else None,
        "rows": [
            (kind, kind.label, scan.result["hits"][kind], STANDS_FOR[kind])
            for kind in PersonalKind
            if kind in scan.result["hits"]
        ]
        if scan
        else [],
        "samples": samples_of(scan) if scan else [],
        "kinds": PersonalKind,
        "running": running_job(project),
    }
    return render(request, "prompts/personal_data.html", context)


@require_role(Role.ADMIN)
@require_POST
def scan(request: MemberRequest, project: Project) -> HttpResponse:
    try:
        job = masking.start_scan(project, user=request.user)
    except DomainError as refused:
        messages.warning(request, str(refused))
        return redirect("project_personal_data", slug=project.slug)
    if job.status == DataJobStatus.DONE:
        return redirect("project_personal_data", slug=project.slug)
    return redirect("data_job", slug=project.slug, job_id=job.pk)


@require_role(Role.ADMIN)
@require_POST
def mask(request: MemberRequest, project: Project) -> HttpResponse:
    kinds = [kind for kind in request.POST.getlist("kinds") if kind in PersonalKind.values]
    if request.POST.get("sure") != "yes":
        messages.warning(
            request, _("Nothing was changed: tick the box that says that the original texts may be overwritten.")
        )
        return redirect("project_personal_data", slug=project.slug)
    try:
        job = masking.start_masking(project, kinds, user=request.user)
    except DomainError as refused:
        messages.warning(request, str(refused))
        return redirect("project_personal_data", slug=project.slug)
    return finished(request, job, reverse("project_personal_data", args=[project.slug]))
