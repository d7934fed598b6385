"""Files of judgments to download, by rules that are counted before."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from django.http import FileResponse, Http404, HttpResponse, HttpResponseBase, QueryDict
from django.shortcuts import render
from django.views.decorators.http import require_GET

from annotation import export
from annotation.access import MemberRequest, require_role
from annotation.models import Project, Role


@require_role(Role.ADMIN)
@require_GET
def choose(request: MemberRequest, project: Project) -> HttpResponseBase:
    """Rules for a file; `action` says whether to count what they leave out, or to download."""
    action = request.GET.get("action", "")
    form = export.ExportForm(request.GET if action else None, project=project)
    if action and form.is_valid():
        if action == "download":
            return _file(request, project, form)
        return _page(request, project, form, counted=True)
    return _page(request, project, form)


@require_role(Role.ADMIN)
@require_GET
def download(request: MemberRequest, project: Project, kind: str, suffix: str) -> HttpResponseBase:
    """The rows of one kind as a file; rules may stand in the address."""
    if kind not in export.Kind.values or suffix not in ("jsonl", "parquet"):
        raise Http404("There is no such export.")
    asked: QueryDict = request.GET.copy()
    asked["kind"], asked["suffix"] = kind, suffix
    form = export.ExportForm(asked, project=project)
    return _file(request, project, form) if form.is_valid() else _page(request, project, form)


def _file(request: MemberRequest, project: Project, form: export.ExportForm) -> HttpResponseBase:
    """Made for this request and streamed."""
    data = form.cleaned_data
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{project.slug}-{data['kind']}.{data['suffix'] or 'jsonl'}"
        try:
            export.export_preferences(
                project,
                data["kind"],
                path,
                humans_only=not data["with_models"],
                rules=form.rules(),
                axis=data["axis"],
                user=request.user,
            )
        except export.ExportError as error:
            form.add_error(None, _sentence(error))
            return _page(request, project, form)
        # The open file outlives its name: the disk is freed when the response has been sent.
        return FileResponse(path.open("rb"), as_attachment=True, filename=path.name)


def _page(request: MemberRequest, project: Project, form: export.ExportForm, *, counted: bool = False) -> HttpResponse:
    context: dict[str, Any] = {"project": project, "form": form}
    if counted:
        try:
            context |= _counts(project, form)
        except export.ExportError as error:
            form.add_error(None, _sentence(error))
    return render(request, "people/export.html", context, status=422 if form.errors else 200)


def _counts(project: Project, form: export.ExportForm) -> dict[str, Any]:
    data = form.cleaned_data
    if data["kind"] not in export.TABLE_KINDS:
        return {"holds_everything": True}
    found = export.count_export(
        project, data["kind"], humans_only=not data["with_models"], rules=form.rules(), axis=data["axis"]
    )
    dropped = dict.fromkeys(form.reasons(), 0) | found.dropped
    left_out = [
        (words, dropped[reason], reason in form.reasons())
        for reason, words in export.REASON_WORDS.items()
        if reason in dropped
    ]
    return {"found": found, "left_out": left_out}


def _sentence(error: export.ExportError) -> str:
    text = str(error)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
