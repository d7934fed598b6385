"""A checkpoint's report, and several checkpoints beside each other; both can be printed."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_GET

from annotation.markdown import render_markdown
from rlhf.checkpoint_report import Example, benchmark_examples, compare, groups_of, vote_examples
from rlhf.lineage import lineage_of
from rlhf.model_card import limits_of, records_of
from rlhf.models import AliasMove, Checkpoint
from rlhf.plots import Plot
from rlhf.promotion import decisions_about
from rlhf.score_plot import score_plot
from rlhf.views.access import StaffRequest, staff_required
from rlhf.views.job_compare import TONES
from rlhf.views.job_figures import figures_of
from rlhf.win_rates import rivals_of

CHECKPOINTS_COMPARED = 6
FIGURES_SHOWN = {"reward", "loss", "accuracy", "margin", "kl", "length", "logps", "token_accuracy"}
"""Of the job's curves those that say how learning went; the rest is about the machine."""
_WITH_LINEAGE = ("parent__source", "source", "job__snapshot__project", "job__base", "step_of__snapshot")


@staff_required
@require_GET
def checkpoint_report(request: StaffRequest, pk: int) -> HttpResponse:
    checkpoint = get_object_or_404(Checkpoint.objects.select_related(*_WITH_LINEAGE), pk=pk)
    rivals = {rival.pk: rival for _alias, rival in rivals_of(checkpoint)}
    moves = AliasMove.objects.select_related("project", "previous", "checkpoint", "moved_by")
    context = {
        "checkpoint": checkpoint,
        "lineage": lineage_of(checkpoint),
        "groups": groups_of(checkpoint, rivals.values()),
        "plots": _curves(checkpoint),
        "records": records_of(checkpoint.source) if checkpoint.source else [],
        "decisions": decisions_about(checkpoint),
        "aliases": [move for move in moves.current() if move.checkpoint_id == checkpoint.pk],
        "limits": limits_of(checkpoint),
        "children": checkpoint.children.select_related("job").order_by("created_at"),
        "jobs": checkpoint.jobs_from_here.select_related("snapshot", "checkpoint").order_by("-queued_at"),
    }
    return render(request, "rlhf/checkpoint_report.html", context)


def _curves(checkpoint: Checkpoint) -> list[Plot]:
    if checkpoint.job is None:
        return []
    return [plot for plot in figures_of(checkpoint.job)["plots"] if plot.slug in FIGURES_SHOWN]


@staff_required
@require_GET
def checkpoint_compare(request: StaffRequest) -> HttpResponse:
    """`?ids=1,2,3`, or `ids` several times: the first six that are named; votes are against the first."""
    asked = [part for value in request.GET.getlist("ids") for part in value.split(",")]
    wanted = list(dict.fromkeys(int(part) for part in asked if part.isdecimal() and len(part) < 10))
    found = Checkpoint.objects.select_related(*_WITH_LINEAGE).in_bulk(wanted[:CHECKPOINTS_COMPARED])
    checkpoints = [found[pk] for pk in wanted if pk in found]
    if len(checkpoints) < 2:
        recent = Checkpoint.objects.select_related("job", "step_of").order_by("-created_at", "-pk")[:40]
        context: dict[str, Any] = {"checkpoints": [], "recent": recent, "chosen": set(wanted)}
        return render(request, "rlhf/checkpoint_compare.html", context)
    examples = [
        ("benchmark", _shown(benchmark_examples(checkpoints))),
        ("votes", _shown(vote_examples(checkpoints[0], checkpoints[1]))),
    ]
    parts = compare(checkpoints)
    context = {
        "checkpoints": checkpoints,
        "parts": parts,
        "plot": score_plot(checkpoints, parts, TONES),
        "plot_key": [(one.name, tone) for one, tone in zip(checkpoints, TONES, strict=False)],
        "examples": [(kind, shown) for kind, shown in examples if shown],
        "left_out": len(wanted) - len(checkpoints),
    }
    return render(request, "rlhf/checkpoint_compare.html", context)


def _shown(examples: list[Example]) -> list[tuple[Example, list[tuple[str, Any]], list[tuple[Any, Any]]]]:
    """With every text made safe: models and uploads wrote them."""
    return [
        (
            example,
            [(message["role"], render_markdown(message["content"])) for message in example.asked],
            [(side, render_markdown(side.text)) for side in example.sides],
        )
        for example in examples
    ]
