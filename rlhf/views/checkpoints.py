"""Checkpoints: what came out of training, where it came from, and its way back to the people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import messages
from django.db.models import Exists, OuterRef, Q
from django.http import Http404, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.http import content_disposition_header
from django.utils.translation import gettext
from django.views.decorators.http import require_GET, require_POST

from annotation.markdown import render_markdown
from annotation.models import Project, Response, ResponseSource
from annotation.services import DomainError
from annotation.study_figures import WORDS, pair_rows
from rlhf.forms import AliasForm
from rlhf.lineage import lineage_of
from rlhf.model_archive import ModelArchive
from rlhf.model_card import model_card, records_of
from rlhf.models import AliasMove, Checkpoint
from rlhf.options import SpecError
from rlhf.promotion import decisions_about
from rlhf.services import aliases_by_checkpoint, publish_checkpoint
from rlhf.shares import held_out_accuracy
from rlhf.views.access import StaffRequest, as_sentence, staff_required
from rlhf.views.csv_files import csv_response
from rlhf.win_rates import checkpoint_win_rate, meeting_places, rivals_of


@staff_required
@require_GET
def checkpoint_list(request: StaffRequest) -> HttpResponse:
    checkpoints = Checkpoint.objects.select_related("parent", "source", "job__snapshot", "step_of").order_by(
        "-created_at"
    )
    standing = aliases_by_checkpoint()
    rows = [
        (
            checkpoint,
            held_out_accuracy(checkpoint.job.metrics) if checkpoint.job else None,
            standing.get(checkpoint.pk, []),
        )
        for checkpoint in checkpoints
    ]
    return render(request, "rlhf/checkpoint_list.html", {"rows": rows})


@staff_required
@require_GET
def checkpoint_detail(request: StaffRequest, pk: int) -> HttpResponse:
    checkpoint = get_object_or_404(
        Checkpoint.objects.select_related(
            "parent__source", "source", "job__snapshot__project", "step_of__snapshot__project"
        ),
        pk=pk,
    )
    source, maker = checkpoint.source, checkpoint.made_by
    parent_source = checkpoint.parent.source if checkpoint.parent else None
    projects = Project.objects.filter(is_open=True).order_by("name")
    if source:
        here = Response.objects.filter(prompt__project=OuterRef("pk"))
        projects = projects.annotate(
            is_answered=Exists(here.filter(source=source)), parent_answered=Exists(here.filter(source=parent_source))
        )
    moves = AliasMove.objects.select_related("project", "previous", "checkpoint", "moved_by")
    context = {
        "checkpoint": checkpoint,
        "lineage": lineage_of(checkpoint),
        "aliases": [move for move in moves.current() if move.checkpoint_id == checkpoint.pk],
        "alias_moves": moves.filter(Q(checkpoint=checkpoint) | Q(previous=checkpoint)).order_by("-moved_at", "-pk"),
        "decisions": decisions_about(checkpoint),
        "alias_form": AliasForm(initial={"project": maker.snapshot.project_id if maker and maker.snapshot else None}),
        "accuracy": held_out_accuracy(checkpoint.job.metrics) if checkpoint.job else None,
        "records": records_of(source) if source else [],
        "rivals": [
            (name, rival, found)
            for name, rival in rivals_of(checkpoint)
            if (found := checkpoint_win_rate(checkpoint, rival)) and found.rate
        ],
        "parent_source": parent_source,
        "projects": projects,
        "merges": checkpoint.merged_into.select_related("job").order_by("job"),
        "children": checkpoint.children.select_related("job").order_by("created_at"),
        "jobs": checkpoint.jobs_from_here.select_related("snapshot", "checkpoint").order_by("-queued_at"),
    }
    return render(request, "rlhf/checkpoint.html", context)


@staff_required
@require_GET
def checkpoint_votes(request: StaffRequest, pk: int, other: int) -> HttpResponseBase:
    """The votes that its win rate against another checkpoint rests on, as CSV."""
    checkpoint, rival = get_object_or_404(Checkpoint, pk=pk), get_object_or_404(Checkpoint, pk=other)
    if checkpoint.source is None or rival.source is None:
        raise Http404("Both must be published.")
    rows = pair_rows(meeting_places(checkpoint, rival), checkpoint.source, rival.source)
    return _votes_file(rows, f"{checkpoint.name}-against-{rival.name}.csv")


@staff_required
@require_GET
def checkpoint_project_votes(request: StaffRequest, pk: int, slug: str, source_id: int) -> HttpResponseBase:
    """People's votes between it and any other source in one project, as CSV; `?verdict=good`, same or bad for its own.

    Good: it was preferred.
    """
    checkpoint, project = get_object_or_404(Checkpoint, pk=pk), get_object_or_404(Project, slug=slug)
    opponent = get_object_or_404(ResponseSource, pk=source_id)
    if checkpoint.source is None:
        raise Http404("It must be published.")
    rows = pair_rows([project], checkpoint.source, opponent)
    name = f"{checkpoint.name}-against-{opponent.name}-{slug}"
    if verdict := request.GET.get("verdict"):
        if verdict not in WORDS:
            raise Http404(f"verdict is one of {', '.join(WORDS)}.")
        rows = (row for row in rows if row["verdict"] == verdict)
        name = f"{name}-{verdict}"
    return _votes_file(rows, f"{name}.csv")


def _votes_file(rows: Iterator[dict[str, Any]], name: str) -> HttpResponseBase:
    response = csv_response(rows)
    response["Content-Disposition"] = content_disposition_header(True, name)
    return response


@staff_required
@require_POST
def checkpoint_publish(request: StaffRequest, pk: int) -> HttpResponse:
    checkpoint = get_object_or_404(Checkpoint, pk=pk)
    try:
        publish_checkpoint(checkpoint)
    except DomainError as error:
        messages.error(request, as_sentence(error))
    else:
        messages.success(
            request,
            gettext("%(name)s is published: it can write responses that people judge.") % {"name": checkpoint.name},
        )
    return redirect("checkpoint_detail", pk=pk)


def _find(pk: int) -> Checkpoint:
    return get_object_or_404(
        Checkpoint.objects.select_related("parent", "source", "job__snapshot__project", "job__base"), pk=pk
    )


@staff_required
@require_GET
def checkpoint_card(request: StaffRequest, pk: int) -> HttpResponse:
    checkpoint = _find(pk)
    text = model_card(checkpoint).split("---\n", 2)[2]
    context = {"checkpoint": checkpoint, "card": render_markdown(text)}
    return render(request, "rlhf/checkpoint_card.html", context)


@staff_required
@require_GET
def checkpoint_card_file(request: StaffRequest, pk: int) -> HttpResponse:
    checkpoint = _find(pk)
    response = HttpResponse(model_card(checkpoint), content_type="text/markdown; charset=utf-8")
    response["Content-Disposition"] = content_disposition_header(True, f"{checkpoint.name}.md")
    return response


@staff_required
@require_GET
def checkpoint_download(request: StaffRequest, pk: int) -> HttpResponseBase:
    """The whole model as a tar file; unpacked, it is a directory that transformers loads."""
    checkpoint = _find(pk)
    try:
        archive = ModelArchive(
            checkpoint.name, checkpoint.path, model_card(checkpoint), checkpoint.created_at.timestamp()
        )
    except SpecError as error:
        messages.error(request, as_sentence(error))
        return redirect("checkpoint_detail", pk=pk)
    response = StreamingHttpResponse(archive, content_type="application/x-tar")
    response["Content-Length"] = archive.size
    response["Content-Disposition"] = content_disposition_header(True, f"{checkpoint.name}.tar")
    return response
