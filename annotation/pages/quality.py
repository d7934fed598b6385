"""Pages about how far votes can be trusted, and the gold items that measure it."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation.access import MemberRequest, require_role
from annotation.aggregation import NO_MAJORITY
from annotation.agreement import VERDICTS
from annotation.models import Annotator, Comparison, Gold, Project, Role
from annotation.quality import GOLD_VOTES_FOR_CONCERN, Bins, gold_scores, measure_annotator
from annotation.quality_report import quality_report
from annotation.services.quality import (
    QUALIFICATION_TRIES,
    UNANIMOUS_VOTES,
    promote_unanimous,
    retire_gold,
    use_for_qualification,
)

WAITING_COUNTED = 100
GOLD_SHOWN = 50


@require_role(Role.REVIEWER)
@require_GET
def quality(request: MemberRequest, project: Project) -> HttpResponse:
    report = quality_report(project)
    waiting = list(
        Comparison.objects.filter(project=project, review_since__isnull=False).values_list("pk")[: WAITING_COUNTED + 1]
    )
    context = {
        "project": project,
        "report": report,
        "differences": [
            {
                **difference,
                "majority": None if difference["majority"] == NO_MAJORITY else VERDICTS[difference["majority"]],
                "estimate": VERDICTS[difference["estimate"]],
            }
            for difference in report.weighed.differences
        ],
        "waiting": min(len(waiting), WAITING_COUNTED),
        "more_waiting": len(waiting) > WAITING_COUNTED,
    }
    return render(request, "quality/project.html", context)


@require_role(Role.REVIEWER)
@require_GET
def annotator(request: MemberRequest, project: Project, annotator_id: int) -> HttpResponse:
    person = get_object_or_404(Annotator, pk=annotator_id)
    bins = Bins.HUNDREDS if request.GET.get("by") == Bins.HUNDREDS else Bins.WEEKS
    found = measure_annotator(project, person, bins)
    if found is None:
        raise Http404(_("This person has judged nothing in this project."))
    figures, stretches = found
    report = quality_report(project)
    line = next((line for line in report.people if line.pk == person.pk), None)
    others = next(figure for figure in report.figures if figure.is_share)
    context = {
        "project": project,
        "person": person,
        "figures": figures,
        "line": line,
        "others": others,
        "bins": stretches,
        "by": bins,
        "gold_needed": GOLD_VOTES_FOR_CONCERN,
        "chart": {
            "rows": [
                {
                    "step": stretch.votes_so_far,
                    "agreement": stretch.with_others and 100 * stretch.with_others.value,
                    "gold": stretch.gold and 100 * stretch.gold.value,
                    "seconds": stretch.counts.median_seconds,
                }
                for stretch in stretches
            ],
            "everybody": others.value and 100 * others.value,
        },
    }
    return render(request, "quality/annotator.html", context)


# ── Gold ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@require_role(Role.ADMIN)
@require_GET
def gold(request: MemberRequest, project: Project) -> HttpResponse:
    retired = request.GET.get("show") == "retired"
    rows = Gold.objects.filter(comparison__project=project, retired_at__isnull=not retired)
    before = request.GET.get("before", "")
    if before.isdigit():
        rows = rows.filter(pk__lt=int(before))
    page = list(rows.select_related("comparison__prompt", "created_by").order_by("-pk")[: GOLD_SHOWN + 1])
    scores = gold_scores([item.pk for item in page])
    counts = Gold.objects.filter(comparison__project=project, retired_at=None).aggregate(
        work=Count("pk", filter=Q(is_for_qualification=False)),
        qualification=Count("pk", filter=Q(is_for_qualification=True)),
    )
    context: dict[str, Any] = {
        "project": project,
        "rows": [
            (item, item.comparison.prompt.messages[-1]["content"], scores.get(item.pk)) for item in page[:GOLD_SHOWN]
        ],
        "next": page[GOLD_SHOWN - 1].pk if len(page) > GOLD_SHOWN else None,
        "is_first": not before,
        "retired": retired,
        "counts": counts,
        "needed": QUALIFICATION_TRIES * project.qualification_count,
        "tries": QUALIFICATION_TRIES,
        "lasts": _votes_until_gold_runs_out(project, counts["work"]),
        "unanimous": UNANIMOUS_VOTES,
    }
    return render(request, "quality/gold.html", context)


def _votes_until_gold_runs_out(project: Project, items: int) -> int | None:
    """After how many votes a person has met all of them; None where no gold is served."""
    at_first, later = project.gold_every_at_first, project.gold_every
    if at_first and items <= 50 // at_first:
        return items * at_first
    if not later:
        return None
    return 50 + (items - (50 // at_first if at_first else 0)) * later


@require_role(Role.ADMIN)
@require_POST
def promote(request: MemberRequest, project: Project) -> HttpResponse:
    made = promote_unanimous(project, by=request.user)
    if made:
        done = ngettext("%(count)s comparison is gold now.", "%(count)s comparisons are gold now.", made)
        messages.success(request, done % {"count": made})
    else:
        messages.info(
            request,
            _("No comparison was judged alike by %(votes)s people or more, so there is nothing to promote yet.")
            % {"votes": UNANIMOUS_VOTES},
        )
    return redirect("project_gold", project.slug)


@require_role(Role.ADMIN)
@require_http_methods(["POST"])
def change_gold(request: MemberRequest, project: Project, gold_id: int) -> HttpResponse:
    item = get_object_or_404(Gold, pk=gold_id, comparison__project=project)
    match request.POST.get("action"):
        case "retire":
            retire_gold(item, by=request.user)
            messages.success(request, _("It is served as gold no more. What it measured stays."))
        case "qualification":
            use_for_qualification(item, True, by=request.user)
        case "work":
            use_for_qualification(item, False, by=request.user)
        case _:
            raise PermissionDenied(_("Nothing was changed: the form asked for nothing that can be done here."))
    return redirect("project_gold", project.slug)
