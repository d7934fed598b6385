"""New FB-Bench items out of a project's conversations, one at a time and by hand."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext, ngettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation.chat import ChatError
from annotation.models import Project, ResponseSource
from annotation.services import DomainError
from rlhf.benchmark_curation import candidate_of, candidates, solved_by_all
from rlhf.benchmark_drafts import draft_checklist
from rlhf.evaluation.fb_bench import Scenario
from rlhf.models import BenchmarkSet
from rlhf.services.benchmarks import drop_items, take_over_item
from rlhf.views.access import StaffRequest, as_sentence, staff_required
from rlhf.views.benchmark_items import EMPTY_ROWS, DraftForm, number_of, posted_criteria, weighed

MODELS_THAT_SOLVE = 3
"""So many models must have solved an item before it is too easy; the authors took three."""


@staff_required
@require_GET
def curation(request: StaffRequest) -> HttpResponse:
    projects = Project.objects.filter(conversations__turns__kept_response__isnull=False).distinct().order_by("name")
    project = projects.filter(slug=request.GET.get("project", "")).first() or projects.first()
    data_set = BenchmarkSet.objects.filter(project=project).first() if project else None
    context = {
        "projects": projects,
        "project": project,
        "data_set": data_set,
        "candidates": candidates(project, data_set) if project else [],
        "solved": solved_by_all(data_set, MODELS_THAT_SOLVE) if data_set else [],
        "models_that_solve": MODELS_THAT_SOLVE,
    }
    return render(request, "rlhf/curation.html", context)


@staff_required
@require_http_methods(["GET", "POST"])
def curation_item(request: StaffRequest, project_id: int, turn_id: int) -> HttpResponse:
    """The masked item and an empty checklist; a model may draft it, a person saves it."""
    project = get_object_or_404(Project, pk=project_id)
    candidate = candidate_of(project, turn_id)
    if candidate is None:
        messages.error(request, gettext("There is no such feedback any more."))
        return redirect("curation")
    is_weighted = candidate.item.scenario == Scenario.ERROR_CORRECTION
    criteria: list[tuple[str, Any]] = []
    error = ""
    drafter = None
    if request.method == "POST":
        drafter = ResponseSource.objects.filter(pk=number_of(request.POST.get("drafted_by"))).first()
        criteria = list(posted_criteria(request.POST))
        form = DraftForm(request.POST)
        try:
            if request.POST.get("action") == "draft":
                if not form.is_valid():
                    raise DomainError(gettext("Choose who drafts."))
                drafter = form.cleaned_data["source"]
                criteria = list(draft_checklist(drafter, candidate.item))
                messages.info(request, gettext("This is a draft. Check every line, then save it."))
            else:
                item = take_over_item(
                    project, candidate.item, weighed(criteria, is_weighted), by=request.user, drafted_by=drafter
                )
                messages.success(request, gettext("Item %(number)s is in the data set.") % {"number": item.position})
                return redirect("benchmark_item", pk=item.pk)
        except DomainError as refusal:
            error = as_sentence(refusal)
        except ChatError as refusal:
            error = str(refusal.trouble.label)
    context = {
        "project": project,
        "candidate": candidate,
        "is_weighted": is_weighted,
        "rows": [*criteria, *[("", "")] * EMPTY_ROWS],
        "error": error,
        "drafter": drafter,
        # One may be chosen; whoever writes the checklist alone chooses none.
        "draft_form": DraftForm(use_required_attribute=False),
    }
    return render(request, "rlhf/curation_item.html", context, status=422 if error else 200)


@staff_required
@require_POST
def curation_drop(request: StaffRequest, pk: int) -> HttpResponse:
    data_set = get_object_or_404(BenchmarkSet.objects.select_related("project"), pk=pk, project__isnull=False)
    count = drop_items(solved_by_all(data_set, MODELS_THAT_SOLVE))
    text = ngettext(
        "%(count)s item is left out of runs to come.", "%(count)s items are left out of runs to come.", count
    )
    messages.success(request, text % {"count": count})
    return redirect("benchmark_set", pk=pk)
