"""New FB-Bench items out of a project's conversations, one at a time and by hand."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET, require_http_methods

from annotation.chat import ChatError
from annotation.models import Project, ResponseSource
from annotation.services import DomainError
from rlhf.benchmark_curation import candidate_of, candidates, judges_of, solved_by_all
from rlhf.benchmark_drafts import draft_checklist
from rlhf.evaluation.fb_bench import Scenario
from rlhf.models import Benchmark, BenchmarkSet
from rlhf.services.benchmarks import bring_back_items, drop_items, take_over_item
from rlhf.views.access import StaffRequest, as_sentence, staff_required
from rlhf.views.benchmark_items import EMPTY_ROWS, DraftForm, number_of, posted_criteria, weighed

MODELS_THAT_SOLVE = 3
"""What makes an item too easy unless somebody says otherwise; the authors took three."""


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


class EasyForm(forms.Form):
    models = forms.IntegerField(
        min_value=1, max_value=100, initial=MODELS_THAT_SOLVE, label=_("Solved by at least so many models")
    )
    judge = forms.ModelChoiceField(ResponseSource.objects.none(), label=_("As this judge sees it"), empty_label=None)

    def __init__(self, judges: Collection[ResponseSource], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = cast(forms.ModelChoiceField, self.fields["judge"])
        field.queryset = ResponseSource.objects.filter(pk__in=[judge.pk for judge in judges]).order_by("name")
        field.initial = next(iter(judges), None)


@staff_required
@require_http_methods(["GET", "POST"])
def benchmark_easy(request: StaffRequest, pk: int) -> HttpResponse:
    """What every model solves, to be left out of runs to come, and what was left out, to be brought back."""
    data_set = get_object_or_404(BenchmarkSet, pk=pk, kind=Benchmark.FB_BENCH)
    judges = judges_of(data_set)
    if request.method == "POST":
        return _drop_or_bring_back(request, data_set, judges)
    form = EasyForm(judges, request.GET if request.GET else None)
    wanted: dict[str, Any] = {"models": MODELS_THAT_SOLVE, "judge": next(iter(judges), None)}
    if form.is_bound:
        wanted = form.cleaned_data if form.is_valid() else {}
    judge = wanted.get("judge")
    context = {
        "data_set": data_set,
        "judges": judges,
        "form": form,
        "wanted": wanted,
        "solved": solved_by_all(data_set, wanted["models"], judge) if judge else [],
        "answered": judges.get(judge, 0) if judge else 0,
        "dropped": data_set.items.exclude(dropped_at=None),
    }
    return render(request, "rlhf/benchmark_easy.html", context, status=422 if form.errors else 200)


def _drop_or_bring_back(
    request: StaffRequest, data_set: BenchmarkSet, judges: Collection[ResponseSource]
) -> HttpResponse:
    action = request.POST.get("action")
    if action == "drop":
        form = EasyForm(judges, request.POST)
        if not form.is_valid():
            messages.error(request, gettext("Say how many models, and which judge."))
            return redirect("benchmark_easy", pk=data_set.pk)
        count = drop_items(solved_by_all(data_set, form.cleaned_data["models"], form.cleaned_data["judge"]))
        text = ngettext(
            "%(count)s item is left out of runs to come.", "%(count)s items are left out of runs to come.", count
        )
        messages.success(request, text % {"count": count})
    elif action in ("bring_back", "bring_back_all"):
        items = data_set.items.all()
        if action == "bring_back":
            items = items.filter(pk=number_of(request.POST.get("item")))
        count = bring_back_items(items)
        text = ngettext("%(count)s item is asked again.", "%(count)s items are asked again.", count)
        messages.success(request, text % {"count": count})
    return redirect("benchmark_easy", pk=data_set.pk)
