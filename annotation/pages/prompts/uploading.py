"""Adding prompts and comparisons: pasted lines, or a file that is looked at, checked and then imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation import services
from annotation.access import MemberRequest, require_role
from annotation.importers.rows import Row, Talk
from annotation.models import DataJob, DataJobKind, DataJobStatus, Project, Role
from annotation.pages.prompts.browsing import running_job
from annotation.pages.prompts.editing import finished
from annotation.pages.prompts.forms import LinesForm
from annotation.services import DomainError
from annotation.services.uploads import Reading, preview, start_check, start_import
from annotation.upload_files import KeptUpload, StreamToDisk, UploadTooLargeError, kept_upload
from annotation.uploads import (
    FURTHER,
    PREVIEW_ROWS,
    MappedRow,
    Meaning,
    Table,
    UploadRefusedError,
    check_mapping,
    guess_mapping,
    open_table,
)

BY_COLUMNS = "columns"


# Its token is checked in `_receive`: the check reads the form, which must not happen before the file has a handler.
@csrf_exempt
@require_role(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def add(request: MemberRequest, project: Project) -> HttpResponse:
    if request.method == "POST":
        handler = StreamToDisk(request, project)
        request.upload_handlers = [handler]
        return _receive(request, project, handler)
    return _add_page(request, project)


@csrf_protect
def _receive(request: MemberRequest, project: Project, handler: StreamToDisk) -> HttpResponse:
    """Keep the file if it can be read as a table at all."""
    request.FILES  # noqa: B018 - reads the body
    if handler.is_too_large:
        return _add_page(request, project, problem=str(UploadTooLargeError()), status=413)
    upload = handler.kept
    if upload is None:
        return _add_page(request, project, problem=_("Choose a file first."), status=422)
    try:
        open_table(upload.path, upload.name)
    except UploadRefusedError as refused:
        upload.delete()
        return _add_page(request, project, problem=f"{upload.name}: {refused}", status=422)
    return redirect("upload", slug=project.slug, token=upload.token)


def _add_page(
    request: MemberRequest, project: Project, *, problem: str = "", lines: LinesForm | None = None, status: int = 200
) -> HttpResponse:
    context = {
        "project": project,
        "problem": problem,
        "lines": lines or LinesForm(),
        "limit_mb": settings.UPLOAD_MAX_BYTES // 10**6,
        "limit_bytes": settings.UPLOAD_MAX_BYTES,
        "running": running_job(project),
    }
    return render(request, "prompts/add.html", context, status=status)


@require_role(Role.ADMIN)
@require_POST
def add_lines(request: MemberRequest, project: Project) -> HttpResponse:
    form = LinesForm(request.POST)
    if not form.is_valid():
        return _add_page(request, project, lines=form, status=422)
    added = services.add_prompts(project, form.prompts)
    services.refresh_browse_index(seconds=1)
    sentence = ngettext("%(count)s prompt added.", "%(count)s prompts added.", added) % {"count": added}
    if known := len(form.prompts) - added:
        sentence += " " + ngettext("%(count)s was here already.", "%(count)s were here already.", known) % {
            "count": known
        }
    messages.success(request, sentence)
    return redirect("project_prompts", slug=project.slug)


# ── An uploaded file ─────────────────────────────────────────────────────────────────────────────────────────────


def _upload_or_404(project: Project, token: str) -> KeptUpload:
    upload = kept_upload(project, token)
    if upload is None:
        raise Http404(_("This upload is gone: it was imported, or is older than a week. Upload the file again."))
    return upload


def _reading(table: Table, given: Mapping[str, str]) -> Reading:
    """How the form says the table is to be read; before it says anything, the likeliest way."""
    chosen = given.get("read_as", "")
    if not chosen:
        return Reading(table.likeliest, guess_mapping(table.columns))
    mapping = {name: given[name] for name in Meaning.values if given.get(name) in table.columns}
    return Reading("" if chosen not in table.formats else chosen, mapping)


@require_role(Role.ADMIN)
@require_GET
def look(request: MemberRequest, project: Project, token: str) -> HttpResponse:
    """The first rows as they would become, and what the columns are taken for."""
    upload = _upload_or_404(project, token)
    return _look_page(request, project, upload, request.GET.dict())


def _look_page(
    request: MemberRequest,
    project: Project,
    upload: KeptUpload,
    given: dict[str, str],
    *,
    problem: str = "",
    status: int = 200,
) -> HttpResponse:
    table = open_table(upload.path, upload.name)
    reading = _reading(table, given)
    rows: list[tuple[int, MappedRow | Row | Talk | None, str]] = []
    try:
        if not reading.format_name:
            check_mapping(reading.mapping)
        rows = preview(table, reading, PREVIEW_ROWS)
    except UploadRefusedError as refused:
        problem = problem or str(refused)
    context = {
        "project": project,
        "upload": upload,
        "table": table,
        "reading": reading,
        "meanings": [_chosen(meaning, reading) for meaning in Meaning if meaning not in FURTHER],
        "further": [_chosen(meaning, reading) for meaning in Meaning if meaning in FURTHER],
        "is_ranking": not FURTHER.isdisjoint(reading.mapping),
        "rows": [_shown(line, row, reason) for line, row, reason in rows],
        "problem": problem,
    }
    return render(request, "prompts/upload.html", context, status=status)


def _chosen(meaning: Meaning, reading: Reading) -> tuple[str, str, str]:
    return meaning.value, str(meaning.label), reading.mapping.get(meaning.value, "")


def _shown(line: int, row: MappedRow | Row | Talk | None, problem: str) -> dict[str, Any]:
    """A row of the preview, whichever way it was read."""
    shown: dict[str, Any] = {"line": line, "problem": problem}
    if row is None:
        return shown
    if isinstance(row, Talk):
        last = row.turns[-1]
        said = _("a conversation of %(count)s turns") % {"count": len(row.turns)}
        return shown | {"messages": last.messages, "sides": last.sides, "labels": [said, row.lang]}
    if isinstance(row, MappedRow):
        sides = row.row.sides if row.row else []
        labels = [row.task, row.lang, row.skill, row.topic, *row.tags, row.group]
        return shown | {
            "messages": row.messages,
            "sides": sides,
            "labels": [label for label in labels if label],
            "id": row.row.external_id if row.row else "",
        }
    said = ""
    if row.verdicts:
        said = ngettext("%(count)s judgment", "%(count)s judgments", len(row.verdicts)) % {"count": len(row.verdicts)}
    elif row.scores:
        said = ngettext("%(count)s rating", "%(count)s ratings", len(row.scores)) % {"count": len(row.scores)}
    labels = [row.lang, row.group, said]
    return shown | {
        "messages": row.messages,
        "sides": row.sides,
        "labels": [label for label in labels if label],
        "id": row.external_id,
    }


@require_role(Role.ADMIN)
@require_POST
def check(request: MemberRequest, project: Project, token: str) -> HttpResponse:
    upload = _upload_or_404(project, token)
    given = request.POST.dict()
    try:
        table = open_table(upload.path, upload.name)
        job = start_check(project, upload, _reading(table, given), user=request.user)
    except DomainError as refused:
        return _look_page(request, project, upload, given, problem=str(refused), status=422)
    return redirect("data_job", slug=project.slug, job_id=job.pk)


@require_role(Role.ADMIN)
@require_POST
def confirm(request: MemberRequest, project: Project, job_id: int) -> HttpResponse:
    """Import what was checked."""
    checked = get_object_or_404(DataJob, pk=job_id, project=project, kind=DataJobKind.CHECK, status=DataJobStatus.DONE)
    try:
        job = start_import(checked, leave_out=request.POST.get("leave_out") == "yes", user=request.user)
    except DomainError as refused:
        messages.warning(request, str(refused))
        return redirect("data_job", slug=project.slug, job_id=job_id)
    return finished(request, job, reverse("project_prompts", args=[project.slug]))
