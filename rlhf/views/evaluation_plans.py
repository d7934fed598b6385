"""What the models of a project's jobs are put to by themselves: benchmarks, judges and people."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods, require_POST

from annotation.models import Project, ResponseSource, SourceKind
from annotation.services import DomainError
from rlhf.models import (
    STUDY_KINDS,
    BenchmarkSet,
    EvaluationPlan,
    JobEvaluation,
    PlanKind,
    PromptEvaluation,
    PromptLanguage,
    TrainingJob,
)
from rlhf.prompt_tables import pending_of
from rlhf.services.periodic import add_evaluation_plan, projects_of, remove_evaluation_plan
from rlhf.services.prompt_evaluations import try_again
from rlhf.views.access import StaffRequest, as_sentence, staff_required
from rlhf.views.evaluation import RunForm

EVALUATIONS_SHOWN = 30
SELECTION = ("task", "tag", "at_most")


class PlanForm(forms.Form):
    """The fields that a kind of plan has; the others are left out."""

    project = forms.ModelChoiceField(
        Project.objects.order_by("name"), label=_("Models of the jobs of"), empty_label=None
    )
    data_set = forms.ModelChoiceField(BenchmarkSet.objects.order_by("-pk"), label=_("Answer"), empty_label=None)
    task = forms.CharField(required=False, max_length=60, label=_("Prompts of the task"))
    tag = forms.CharField(required=False, max_length=60, label=_("Prompts with the tag"))
    at_most = forms.IntegerField(
        required=False, min_value=1, max_value=100_000, label=_("At most so many prompts"), help_text=_("Empty: all.")
    )
    judge = forms.ModelChoiceField(
        ResponseSource.objects.filter(kind=SourceKind.MODEL).order_by("name"), label=_("Who judges")
    )
    prompt_language = forms.ChoiceField(choices=PromptLanguage.choices, label=_("Language of the judge’s prompt"))
    max_tokens = RunForm.base_fields["max_tokens"]
    judge_max_tokens = forms.IntegerField(
        min_value=1, max_value=100_000, initial=4096, label=_("Tokens of a judgment")
    )
    parallel = forms.IntegerField(min_value=1, max_value=64, initial=8, label=_("Requests at a time"))
    judgments_per_item = forms.IntegerField(
        min_value=1,
        max_value=50,
        initial=1,
        label=_("People per item"),
        help_text=_("Two or more show how far they agree."),
    )
    on_the_way = forms.BooleanField(
        required=False, label=_("Also the models that a job saves on the way, not the last one alone")
    )

    def __init__(self, kind: PlanKind, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.kind = kind
        by_people = kind in STUDY_KINDS
        left_out = ["data_set"] if kind != PlanKind.BENCHMARK else [*SELECTION, "on_the_way"]
        left_out += (
            ["judge", "prompt_language", "judge_max_tokens", "parallel"] if by_people else ["judgments_per_item"]
        )
        for name in left_out:
            del self.fields[name]
        if "on_the_way" in self.fields:
            self.fields["on_the_way"].initial = not by_people

    def plan(self, request: StaffRequest) -> EvaluationPlan:
        given = dict(self.cleaned_data)
        chosen = {name: given.pop(name, None) for name in SELECTION}
        selection = {name: value for name, value in chosen.items() if value}
        return EvaluationPlan(kind=self.kind, selection=selection, created_by=request.user, **given)


@staff_required
@require_http_methods(["GET", "POST"])
def evaluation_plans(request: StaffRequest) -> HttpResponse:
    """The plans, what they began last, and a form for another of the kind that the query names."""
    asked = request.GET.get("kind", "")
    kind = PlanKind(asked) if asked in PlanKind.values else PlanKind.BENCHMARK
    form = PlanForm(kind, request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            plan = add_evaluation_plan(form.plan(request))
        except (DomainError, ValidationError) as error:
            form.add_error(None, as_sentence(error))
        else:
            messages.success(request, _said(plan))
            return redirect("evaluation_plans")
    evaluations = JobEvaluation.objects.select_related("job", "data_set", "run", "checkpoint").order_by("-pk")
    on_prompts = PromptEvaluation.objects.select_related(
        "job", "plan__project", "plan__judge", "plan__data_set", "checkpoint", "judge_run", "study", "generation"
    ).order_by("-pk")
    standing = EvaluationPlan.objects.filter(ended_at=None).select_related("project", "data_set", "judge")
    context = {
        "plans": standing.order_by("project__name", "pk"),
        "evaluations": evaluations[:EVALUATIONS_SHOWN],
        "on_prompts": [pending_of(one) for one in on_prompts[:EVALUATIONS_SHOWN]],
        "form": form,
        "kind": kind,
        "kinds": PlanKind,
        "has_sets": BenchmarkSet.objects.exists(),
    }
    return render(request, "rlhf/evaluation_plans.html", context, status=422 if form.errors else 200)


def _said(plan: EvaluationPlan) -> str:
    if plan.data_set is not None:
        return gettext("The models of %(project)s answer %(data_set)s by themselves from now on.") % {
            "project": plan.project.name, "data_set": plan.data_set.name
        }  # fmt: skip
    return gettext(
        "The models of %(project)s are evaluated by themselves on %(count)s prompts from now on; data sets hold these "
        "out."
    ) % {"project": plan.project.name, "count": f"{len(plan.prompt_ids):,}"}


@staff_required
@require_POST
def evaluation_plan_remove(request: StaffRequest, pk: int) -> HttpResponse:
    """Begin nothing more; what was begun stays."""
    remove_evaluation_plan(get_object_or_404(EvaluationPlan, pk=pk))
    messages.success(request, gettext("Nothing more is queued by it; what it queued stays."))
    return redirect("evaluation_plans")


@staff_required
@require_POST
def prompt_evaluation_again(request: StaffRequest, pk: int) -> HttpResponse:
    """Take up an evaluation that ended with an error."""
    evaluation = get_object_or_404(PromptEvaluation, pk=pk)
    if try_again(evaluation):
        messages.success(request, gettext("It is taken up again; what is written already is kept."))
    else:
        messages.error(request, gettext("There is nothing to take up again."))
    return redirect("evaluation_plans")


def plans_of(job: TrainingJob) -> list[EvaluationPlan]:
    standing = EvaluationPlan.objects.filter(project__in=projects_of(job), ended_at=None)
    return list(standing.select_related("data_set", "judge").order_by("pk"))
