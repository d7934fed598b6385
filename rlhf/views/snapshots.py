"""Data sets: frozen judgments."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET, require_http_methods

from annotation.models import Project
from annotation.services import DomainError
from rlhf.forms import SnapshotForm
from rlhf.models import DatasetSnapshot
from rlhf.services import create_snapshot
from rlhf.snapshots import SPLITS, snapshot_rows
from rlhf.views.access import StaffRequest, as_sentence, staff_required

ROWS_SHOWN = 6


@staff_required
@require_http_methods(["GET", "POST"])
def snapshot_list(request: StaffRequest) -> HttpResponse:
    form = SnapshotForm(request.POST or None, initial=_initial(request))
    if request.method == "POST" and form.is_valid():
        try:
            snapshot = create_snapshot(**form.cleaned_data, created_by=request.user)
        except DomainError as error:
            form.add_error(None, as_sentence(error))
        else:
            return redirect("snapshot_detail", pk=snapshot.pk)
    snapshots = DatasetSnapshot.objects.select_related("project").order_by("-created_at")
    context = {"snapshots": snapshots, "form": form, "opened": "project" in request.GET}
    return render(request, "rlhf/snapshot_list.html", context, status=422 if form.errors else 200)


def _initial(request: HttpRequest) -> dict[str, Any]:
    """A project's page leads here with its slug: propose the next round's name."""
    project = Project.objects.filter(slug=request.GET.get("project", "")).first()
    if project is None:
        return {}
    return {"project": project, "name": f"{project.slug}-r{project.snapshots.count() + 1}"}


@staff_required
@require_GET
def snapshot_detail(request: StaffRequest, pk: int) -> HttpResponse:
    snapshot = get_object_or_404(DatasetSnapshot.objects.select_related("project", "created_by"), pk=pk)
    verdicts: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    missing = ""
    try:
        for split in SPLITS:
            for row in snapshot_rows(snapshot, split):
                verdicts[row["verdict"]] += 1
                if split == "train" and len(rows) < ROWS_SHOWN:
                    rows.append(row)
    except OSError as error:
        missing = error.strerror or str(error)
    context = {
        "snapshot": snapshot,
        "verdicts": [(_verdict_words(verdict), count) for verdict, count in verdicts.most_common()],
        "rows": rows,
        "missing": missing,
        "jobs": snapshot.jobs.select_related("base", "checkpoint").order_by("-queued_at"),
    }
    return render(request, "rlhf/snapshot.html", context)


_VERDICT_WORDS: dict[str, str | Promise] = {
    "a": _("the first response preferred"),
    "b": _("the second response preferred"),
    "tie": _("about the same"),
    "neither": _("neither acceptable"),
    "no_majority": _("no majority"),
    "different_histories": _("responses to different conversations"),
    "identical_responses": _("two equal texts"),
    "empty": _("the preferred response is blank"),
}


def _verdict_words(verdict: str) -> str:
    return str(_VERDICT_WORDS.get(verdict, verdict.replace("_", " ")))
