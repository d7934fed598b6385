"""Which data sets the models of a project's jobs answer by themselves."""

from __future__ import annotations

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods, require_POST

from annotation.models import Project, ResponseSource, SourceKind
from annotation.services import DomainError
from rlhf.models import BenchmarkSet, EvaluationPlan, JobEvaluation, PromptLanguage, TrainingJob
from rlhf.services.periodic import add_evaluation_plan, projects_of, remove_evaluation_plan
from rlhf.views.access import StaffRequest, as_sentence, staff_required
from rlhf.views.evaluation import RunForm

EVALUATIONS_SHOWN = 30


class PlanForm(forms.Form):
    project = forms.ModelChoiceField(
        Project.objects.order_by("name"), label=_("Models of the jobs of"), empty_label=None
    )
    data_set = forms.ModelChoiceField(BenchmarkSet.objects.order_by("-pk"), label=_("Answer"), empty_label=None)
    judge = forms.ModelChoiceField(
        ResponseSource.objects.filter(kind=SourceKind.MODEL).order_by("name"), label=_("Who judges")
    )
    prompt_language = forms.ChoiceField(choices=PromptLanguage.choices, label=_("Language of the judge’s prompt"))
    max_tokens = RunForm.base_fields["max_tokens"]
    judge_max_tokens = forms.IntegerField(
        min_value=1, max_value=100_000, initial=4096, label=_("Tokens of a judgment")
    )
    parallel = forms.IntegerField(min_value=1, max_value=64, initial=8, label=_("Requests at a time"))


@staff_required
@require_http_methods(["GET", "POST"])
def evaluation_plans(request: StaffRequest) -> HttpResponse:
    """The plans, what they queued last, and a form for another."""
    form = PlanForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            plan = add_evaluation_plan(EvaluationPlan(created_by=request.user, **form.cleaned_data))
        except DomainError as error:
            form.add_error(None, as_sentence(error))
        else:
            said = gettext("The models of %(project)s answer %(data_set)s by themselves from now on.")
            given = {"project": plan.project.name, "data_set": plan.data_set.name}
            messages.success(request, said % given)
            return redirect("evaluation_plans")
    evaluations = JobEvaluation.objects.select_related("job", "data_set", "run", "checkpoint").order_by("-pk")
    context = {
        "plans": EvaluationPlan.objects.select_related("project", "data_set", "judge").order_by("project__name", "pk"),
        "evaluations": evaluations[:EVALUATIONS_SHOWN],
        "form": form,
        "has_sets": BenchmarkSet.objects.exists(),
    }
    return render(request, "rlhf/evaluation_plans.html", context, status=422 if form.errors else 200)


@staff_required
@require_POST
def evaluation_plan_remove(request: StaffRequest, pk: int) -> HttpResponse:
    """Queue no more; what was queued stays."""
    remove_evaluation_plan(get_object_or_404(EvaluationPlan, pk=pk))
    messages.success(request, gettext("Nothing more is queued by it; what it queued stays."))
    return redirect("evaluation_plans")


def plans_of(job: TrainingJob) -> list[EvaluationPlan]:
    return list(EvaluationPlan.objects.filter(project__in=projects_of(job)).select_related("data_set"))
