"""The loop of a project: what is asked, answered, judged, frozen, trained and published; and what staff add to it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.db.models import Count, Q
from django.http import FileResponse, Http404, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation import export, services
from annotation.agreement import measure_agreement
from annotation.leaderboard import Standing, rank_sources
from annotation.markdown import render_markdown
from annotation.models import Project
from annotation.services import DomainError
from annotation.vote_counts import count_sway
from rlhf.forms import GenerateForm, MemberForm, ProjectForm, PromptsForm
from rlhf.models import GenerationJob, JobStatus, LeasedJob
from rlhf.overview import project_overview
from rlhf.services import broker_is_up, queue_generation_job, request_cancel
from rlhf.shares import Share
from rlhf.views.access import StaffRequest, as_sentence, staff_required

PROMPTS_SHOWN = 50


@staff_required
@require_http_methods(["GET", "POST"])
def project_list(request: StaffRequest) -> HttpResponse:
    form = ProjectForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        project = services.create_project(**form.cleaned_data)
        messages.success(request, f"{project.name} is there. Add prompts to it next.")
        return redirect("project_detail", slug=project.slug)
    projects = Project.objects.annotate(
        prompt_count=Count("prompts", distinct=True), member_count=Count("members", distinct=True)
    ).order_by("-created_at")
    judged = dict(
        Project.objects.annotate(
            count=Count(
                "comparisons__judgments",
                filter=Q(comparisons__judgments__superseded_at=None, comparisons__judgments__annotator__is_human=True),
            )
        ).values_list("pk", "count")
    )
    rows = [(project, judged.get(project.pk, 0)) for project in projects]
    return render(request, "rlhf/project_list.html", {"rows": rows, "form": form}, status=422 if form.errors else 200)


@staff_required
@require_GET
def project_detail(request: StaffRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project, slug=slug)
    overview, sway = project_overview(project), count_sway(project)
    context = {
        "project": project,
        "overview": overview,
        "leaderboard": scaled(rank_sources(project, humans_only=True)),
        "agreement": measure_agreement(project, humans_only=True),
        "left_chosen": Share.of(sway.left_chosen, sway.shown),
        "longer_chosen": Share.of(sway.longer_chosen, sway.unequal),
        "kinds": export.Kind.choices,
    }
    return render(request, "rlhf/project.html", context | _broker(overview.jobs))


def _broker(jobs: Sequence[LeasedJob]) -> dict[str, bool]:
    """Whether to say that jobs wait for the broker; asked only where a job waits."""
    return {"broker_is_away": any(job.status == JobStatus.QUEUED for job in jobs) and not broker_is_up()}


@staff_required
@require_GET
def project_strip(request: StaffRequest, slug: str) -> HttpResponse:
    """The strip of numbers alone, for a page that is watching it."""
    project = get_object_or_404(Project, slug=slug)
    overview = project_overview(project)
    context = {"project": project, "overview": overview} | _broker(overview.jobs)
    return render(request, "rlhf/_project_strip.html", context)


@dataclass(frozen=True)
class ScaledStanding:
    """A leaderboard's row with its place on an axis that all rows share, in percent of the width."""

    standing: Standing
    at: float | None = None
    start: float = 0.0
    width: float = 0.0


def scaled(standings: list[Standing]) -> list[ScaledStanding]:
    """Every row's interval on one axis that holds them all."""
    ends = [end for row in standings for end in (row.lower, row.upper, row.rating) if end is not None]
    low, high = min(ends, default=0.0), max(ends, default=0.0)
    scale = 100 / ((high - low) or 1.0)
    rows = []
    for row in standings:
        if row.rating is None:
            rows.append(ScaledStanding(row))
            continue
        at = round((row.rating - low) * scale, 2)
        if row.lower is None or row.upper is None:
            rows.append(ScaledStanding(row, at, at))
        else:
            rows.append(
                ScaledStanding(row, at, round((row.lower - low) * scale, 2), round((row.upper - row.lower) * scale, 2))
            )
    return rows


# ── What staff add ───────────────────────────────────────────────────────────────────────────────────────────────


@staff_required
@require_http_methods(["GET", "POST"])
def project_people(request: StaffRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project, slug=slug)
    form = MemberForm(request.POST or None, project=project)
    if request.method == "POST" and form.is_valid():
        user = form.cleaned_data["user"]
        services.add_member(project, user)
        messages.success(request, f"{user.username} may judge now.")
        return redirect("project_people", slug=slug)
    judged = Count(
        "annotator__judgments",
        filter=Q(annotator__judgments__comparison__project=project, annotator__judgments__superseded_at=None),
    )
    context = {
        "project": project,
        "form": form,
        "members": project.members.annotate(judged=judged).order_by("username"),
        "guidelines": render_markdown(project.guidelines).html if project.guidelines else "",
    }
    return render(request, "rlhf/project_people.html", context, status=422 if form.errors else 200)


@staff_required
@require_POST
def project_remove_member(request: StaffRequest, slug: str, user_id: int) -> HttpResponse:
    project = get_object_or_404(Project, slug=slug)
    user = get_object_or_404(User, pk=user_id)
    returned = services.remove_member(project, user)
    gone_back = f" {returned} comparisons went back to the others." if returned else ""
    messages.success(request, f"{user.username} no longer judges here; what they judged stays.{gone_back}")
    return redirect("project_people", slug=slug)


@staff_required
@require_http_methods(["GET", "POST"])
def project_prompts(request: StaffRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project, slug=slug)
    form = PromptsForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        added = services.add_prompts(project, form.prompts)
        known = len(form.prompts) - added
        there = f" {known} were there already." if known else ""
        messages.success(request, f"{added} prompts added.{there}")
        return redirect("project_prompts", slug=slug)
    context = {
        "project": project,
        "form": form,
        "prompt_count": project.prompts.count(),
        "prompts": project.prompts.order_by("-pk")[:PROMPTS_SHOWN],
    }
    return render(request, "rlhf/project_prompts.html", context, status=422 if form.errors else 200)


@staff_required
@require_http_methods(["GET", "POST"])
def project_generate(request: StaffRequest, slug: str) -> HttpResponse:
    project = get_object_or_404(Project, slug=slug)
    # A checkpoint's page leads here with both sources named.
    given = {name: request.GET[name] for name in ("source", "against", "per_prompt") if name in request.GET}
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
            messages.success(request, f"{data['source'].name} is asked for {data['per_prompt']} responses per prompt.")
            return redirect("project_generate", slug=slug)
    context = {"project": project, "form": form, "prompt_count": project.prompts.count()} | _generation(project)
    return render(request, "rlhf/project_generate.html", context, status=422 if form.errors else 200)


@staff_required
@require_GET
def generation_rows(request: StaffRequest, slug: str) -> HttpResponse:
    """The table of generation jobs alone, for a page that is watching it."""
    project = get_object_or_404(Project, slug=slug)
    return render(request, "rlhf/_generation_jobs.html", {"project": project} | _generation(project))


def _generation(project: Project) -> dict[str, Any]:
    jobs = list(
        GenerationJob.objects.filter(project=project).select_related("source", "against").order_by("-queued_at")[:50]
    )
    return {"jobs": jobs, "is_moving": any(not job.is_finished for job in jobs)} | _broker(jobs)


@staff_required
@require_POST
def cancel_generation(request: StaffRequest, slug: str, job_id: int) -> HttpResponse:
    job = get_object_or_404(GenerationJob, pk=job_id, project__slug=slug)
    try:
        request_cancel(job)
    except DomainError as error:
        messages.warning(request, as_sentence(error))
    else:
        messages.success(request, "Generation stops; the responses written so far stay.")
    return redirect("project_generate", slug=slug)


@staff_required
@require_GET
def project_export(request: StaffRequest, slug: str, kind: str, suffix: str) -> HttpResponseBase:
    """The training rows of one kind as a file, made for this request and streamed."""
    project = get_object_or_404(Project, slug=slug)
    if kind not in export.Kind.values or suffix not in ("jsonl", "parquet"):
        raise Http404("There is no such export.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{project.slug}-{kind}.{suffix}"
        try:
            export.export_preferences(project, kind, path, humans_only=True)
        except export.ExportError as error:
            messages.error(request, as_sentence(error))
            return redirect("project_detail", slug=slug)
        # The open file outlives its name: the disk is freed when the response has been sent.
        return FileResponse(path.open("rb"), as_attachment=True, filename=path.name)
