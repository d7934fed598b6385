"""Editing many prompts, taking that back, and watching long work."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_POST

from annotation.access import MemberRequest, require_role
from annotation.browse import PromptFilter
from annotation.models import DataJob, DataJobKind, DataJobStatus, Project, Prompt, Response, Role
from annotation.pages.prompts.browsing import prompts_page
from annotation.pages.prompts.forms import EditForm
from annotation.personal_data import PersonalKind
from annotation.services import DomainError, data_jobs
from annotation.services.prompts import start_edit, start_undo

SAMPLE_CONTEXT = 40  # characters before and after what was found


@require_role(Role.ADMIN)
@require_POST
def edit(request: MemberRequest, project: Project) -> HttpResponse:
    form = EditForm(request.POST)
    params = {
        name.removeprefix("filter_"): str(value) for name, value in request.POST.items() if name.startswith("filter_")
    }
    if form.is_valid():
        ids = [int(pk) for pk in request.POST.getlist("ids") if pk.isdecimal() and len(pk) < 19]
        given = PromptFilter.of(params) if request.POST.get("which") == "all" else None
        try:
            job = start_edit(project, form.edit(), ids=None if given else ids, given=given, user=request.user)
        except DomainError as refused:
            form.add_error(None, str(refused))
        else:
            return finished(request, job, reverse("project_prompts", args=[project.slug]))
    return prompts_page(request, project, params, form=form, status=422)


@require_role(Role.ADMIN)
@require_POST
def undo(request: MemberRequest, project: Project) -> HttpResponse:
    try:
        job = start_undo(project, user=request.user)
    except DomainError as refused:
        messages.warning(request, str(refused))
        return redirect("project_prompts", slug=project.slug)
    return finished(request, job, reverse("project_prompts", args=[project.slug]))


def finished(request: MemberRequest, job: DataJob, where: str) -> HttpResponse:
    """On to `where` with a sentence if the work is done, otherwise to the page that shows how far it is."""
    if job.status != DataJobStatus.DONE:
        return redirect("data_job", slug=job.project.slug, job_id=job.pk)
    messages.success(request, said_of(job))
    return redirect(where)


def said_of(job: DataJob) -> str:
    """What came of work that is done, in a sentence."""
    result = job.result
    if job.kind == DataJobKind.EDIT:
        changed = result["changed"]
        if not changed:
            return _("These prompts were like that already; nothing was changed.")
        return ngettext("%(count)s prompt changed.", "%(count)s prompts changed.", changed) % {"count": changed}
    if job.kind == DataJobKind.UNDO:
        changed = result["changed"]
        return ngettext(
            "%(count)s prompt is as it was before.", "%(count)s prompts are as they were before.", changed
        ) % {"count": changed}
    if job.kind == DataJobKind.IMPORT:
        parts = [
            (result["prompts"], _("prompts")),
            (result["comparisons"], _("comparisons")),
            (result["judgments"], _("judgments")),
            (result["ratings"], _("ratings")),
            (result["conversations"], _("conversations")),
        ]
        new = ", ".join(f"{count} {name}" for count, name in parts if count)
        return _("Imported: %(new)s.") % {"new": new} if new else _("Everything was here already.")
    if job.kind == DataJobKind.MASK:
        hits = sum(result.get(kind, 0) for kind in PersonalKind.values)
        return ngettext("%(count)s passage was masked.", "%(count)s passages were masked.", hits) % {"count": hits}
    if job.kind == DataJobKind.DUPLICATES:
        found = result["duplicates"]
        return ngettext(
            "%(count)s prompt reads like an older one.", "%(count)s prompts read like an older one.", found
        ) % {"count": found}
    return _("Done.")


# ── Long work ────────────────────────────────────────────────────────────────────────────────────────────────────

# Where the work was asked for, and where its result is looked at.
_PAGES = {
    DataJobKind.EDIT: "project_prompts",
    DataJobKind.UNDO: "project_prompts",
    DataJobKind.CHECK: "prompts_add",
    DataJobKind.IMPORT: "project_prompts",
    DataJobKind.SCAN: "project_personal_data",
    DataJobKind.MASK: "project_personal_data",
    DataJobKind.DUPLICATES: "project_duplicates",
}


def _context(project: Project, job_id: int) -> dict[str, Any]:
    job = get_object_or_404(DataJob.objects.select_related("created_by"), pk=job_id, project=project)
    back = ""
    if job.kind in (DataJobKind.CHECK, DataJobKind.IMPORT):  # to the columns that the file was read by
        read_as = {"read_as": job.params["format"] or "columns", **job.params["mapping"]}
        back = f"{reverse('upload', args=[project.slug, job.params['token']])}?{urlencode(read_as)}"
    return {
        "back": back,
        "project": project,
        "job": job,
        "said": said_of(job) if job.status == DataJobStatus.DONE else "",
        "page": reverse(_PAGES[DataJobKind(job.kind)], args=[project.slug]),
        "tab": {
            "project_personal_data": "personal_data",
            "project_duplicates": "duplicates",
            "prompts_add": "add",
        }.get(_PAGES[DataJobKind(job.kind)], "prompts"),
    }


@require_role(Role.ADMIN)
@require_GET
def job(request: MemberRequest, project: Project, job_id: int) -> HttpResponse:
    context = _context(project, job_id)
    if context["job"].kind == DataJobKind.CHECK and context["job"].status == DataJobStatus.DONE:
        return render(request, "prompts/checked.html", context)
    return render(request, "prompts/work.html", context)


@require_role(Role.ADMIN)
@require_GET
def job_state(request: MemberRequest, project: Project, job_id: int) -> HttpResponse:
    """How far the work is, for a page that is watching it; the whole page again when it is over."""
    context = _context(project, job_id)
    if context["job"].is_finished:
        return HttpResponse(headers={"HX-Refresh": "true"})
    return render(request, "prompts/_work_state.html", context)


@require_role(Role.ADMIN)
@require_POST
def job_stop(request: MemberRequest, project: Project, job_id: int) -> HttpResponse:
    job = get_object_or_404(DataJob, pk=job_id, project=project)
    if not data_jobs.stop_data_job(job):
        messages.warning(request, _("It had ended before."))
    return redirect("data_job", slug=project.slug, job_id=job_id)


def samples_of(job: DataJob) -> list[tuple[str, list[tuple[int, str, str, str]]]]:
    """(kind, (prompt id, before, what was found, after)) of a scan, read from the texts as they are now."""
    places = [place for found in job.result.get("samples", {}).values() for place in found]
    prompts = Prompt.objects.in_bulk([pk for model, pk, *_rest in places if model == "prompt"])
    responses = Response.objects.in_bulk([pk for model, pk, *_rest in places if model == "response"])
    samples = []
    for kind, found in job.result.get("samples", {}).items():
        shown = []
        for model, pk, path, start, end in found:
            if model == "prompt":
                prompt_id, text, history = pk, "", prompts[pk].messages
            else:
                prompt_id, text, history = responses[pk].prompt_id, responses[pk].text, responses[pk].messages or []
            if path:
                text = history[path[0]]["content"]
            before = text[max(0, start - SAMPLE_CONTEXT) : start]
            shown.append((prompt_id, before, text[start:end], text[end : end + SAMPLE_CONTEXT]))
        samples.append((str(PersonalKind(kind).label), shown))
    return samples
