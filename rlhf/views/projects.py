"""The loop of a project: what is asked, answered, judged, frozen, trained and published; and what staff add to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation import export, services
from annotation.access import MemberRequest, PersonRequest, manages_a_project, person_required, require_role
from annotation.browse import project_sizes
from annotation.models import Conversation, Membership, Project, Role
from annotation.pace import holding, project_pace, stuck
from annotation.pages.leaderboard import scaled
from annotation.protocol import PRESETS
from annotation.services import DomainError
from rlhf.forms import GenerateForm, ProjectForm
from rlhf.models import GenerationJob, JobStatus, LeasedJob
from rlhf.overview import project_overview, project_votes
from rlhf.services import broker_is_up, queue_generation_job, request_cancel
from rlhf.services.generation import ranks_responses
from rlhf.views.access import as_sentence

RANKED_AT_FIRST = 4
"""Responses to a prompt that the form offers where people rank them."""


@person_required
@require_http_methods(["GET", "POST"])
def project_list(request: PersonRequest) -> HttpResponse:
    """Staff see every project and make new ones; others see those that they review or run."""
    if not manages_a_project(request.user) or (request.method == "POST" and not request.user.is_staff):
        raise PermissionDenied
    form = ProjectForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        project = services.create_project(by=request.user, protocol=PRESETS["seven"][1].to_json(), **form.cleaned_data)
        messages.success(request, _("%(name)s is there. Add prompts to it next.") % {"name": project.name})
        return redirect("project_detail", slug=project.slug)
    projects = Project.objects.annotate(member_count=Count("members")).order_by("-created_at")
    if not request.user.is_staff:
        mine = Membership.objects.filter(user=request.user, role__in=[Role.REVIEWER, Role.ADMIN])
        projects = projects.filter(pk__in=mine.values("project"))
    sizes = project_sizes(projects)
    rows = [(project, sizes[project.pk]) for project in projects]
    return render(request, "rlhf/project_list.html", {"rows": rows, "form": form}, status=422 if form.errors else 200)


@require_role(Role.REVIEWER)
@require_GET
def project_detail(request: MemberRequest, project: Project) -> HttpResponse:
    overview = project_overview(project)
    votes, votes_as_of = project_votes(project)
    context = {
        "project": project,
        "overview": overview,
        **votes,
        "leaderboard": scaled(votes["leaderboard"]),
        "votes_as_of": votes_as_of,
        "kinds": [(kind.value, kind.label, kind in export.TABLE_KINDS) for kind in export.Kind],
        "pace": project_pace(project),
        "talks_to_rate": Conversation.objects.filter(project=project, source_a=None, ended_at=None).count(),
        "stuck": stuck(holding(project), timezone.now()),
    }
    return render(request, "rlhf/project.html", context | _broker(overview.jobs))


def _broker(jobs: Sequence[LeasedJob]) -> dict[str, bool]:
    """Whether to say that jobs wait for the broker; asked only where a job waits."""
    return {"broker_is_away": any(job.status == JobStatus.QUEUED for job in jobs) and not broker_is_up()}


@require_role(Role.REVIEWER)
@require_GET
def project_strip(request: MemberRequest, project: Project) -> HttpResponse:
    """The strip of numbers alone, for a page that is watching it."""
    overview = project_overview(project)
    context = {"project": project, "overview": overview} | _broker(overview.jobs)
    return render(request, "rlhf/_project_strip.html", context)


# ── What staff add ───────────────────────────────────────────────────────────────────────────────────────────────


@require_role(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def project_generate(request: MemberRequest, project: Project) -> HttpResponse:
    # A checkpoint's page leads here with both sources named.
    given: dict[str, Any] = {
        name: request.GET[name] for name in ("source", "against", "per_prompt") if name in request.GET
    }
    is_ranked = ranks_responses(project)
    if is_ranked:
        given.setdefault("per_prompt", RANKED_AT_FIRST)
    form = GenerateForm(request.POST or None, initial=given)
    if request.method == "POST" and form.is_valid():
        data: dict[str, Any] = form.cleaned_data
        try:
            queue_generation_job(
                project=project,
                source=data["source"],
                against=data["against"],
                per_prompt=data["per_prompt"],
                sampling=form.sampling(),
                created_by=request.user,
            )
        except DomainError as error:
            form.add_error(None, as_sentence(error))
        else:
            asked = _("%(name)s is asked for %(count)s responses per prompt.")
            messages.success(request, asked % {"name": data["source"].name, "count": data["per_prompt"]})
            return redirect("project_generate", slug=project.slug)
    context = {"project": project, "form": form, "prompt_count": project.prompts.count(), "is_ranked": is_ranked}
    context |= _generation(project)
    return render(request, "rlhf/project_generate.html", context, status=422 if form.errors else 200)


@require_role(Role.ADMIN)
@require_GET
def generation_rows(request: MemberRequest, project: Project) -> HttpResponse:
    """The table of generation jobs alone, for a page that is watching it."""
    return render(request, "rlhf/_generation_jobs.html", {"project": project} | _generation(project))


def _generation(project: Project) -> dict[str, Any]:
    jobs = list(
        GenerationJob.objects.filter(project=project).select_related("source", "against").order_by("-queued_at")[:50]
    )
    return {"jobs": jobs, "is_moving": any(not job.is_finished for job in jobs)} | _broker(jobs)


@require_role(Role.ADMIN)
@require_POST
def cancel_generation(request: MemberRequest, project: Project, job_id: int) -> HttpResponse:
    job = get_object_or_404(GenerationJob, pk=job_id, project=project)
    try:
        request_cancel(job)
    except DomainError as error:
        messages.warning(request, as_sentence(error))
    else:
        messages.success(request, _("Generation stops; the responses written so far stay."))
    return redirect("project_generate", slug=project.slug)
