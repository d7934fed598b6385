"""Merging checkpoints: which ones, with what weights, how."""

from __future__ import annotations

import math

from django import forms
from django.core.validators import validate_slug
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.functional import cached_property
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods

from annotation.services import DomainError
from rlhf.forms import CheckpointField
from rlhf.models import Checkpoint
from rlhf.services import queue_merge_job
from rlhf.views.access import StaffRequest, as_sentence, staff_required

CHECKPOINTS_OFFERED = 50
ALGORITHMS = (
    ("model_stock", _("Model Stock"), _("Finds by itself how far to move from the base. Takes no weights.")),
    ("linear", _("Linear"), _("The weighted mean of the models; the base only lends its form.")),
    ("task_arithmetic", _("Task arithmetic"), _("Adds each model’s change to the base, times its weight and λ.")),
)


class MergeForm(forms.Form):
    base = CheckpointField(
        queryset=Checkpoint.objects.order_by("-created_at"),
        label=_("Base"),
        empty_label=_("Choose a checkpoint"),
        help_text=_("What the others were trained from."),
    )
    models = forms.ModelMultipleChoiceField(
        queryset=Checkpoint.objects.none(), label=_("Models"), widget=forms.CheckboxSelectMultiple
    )
    algorithm = forms.ChoiceField(
        label=_("Algorithm"),
        choices=[(value, label) for value, label, _text in ALGORITHMS],
        initial="model_stock",
        widget=forms.RadioSelect,
    )
    scaling = forms.FloatField(
        label=_("Scaling, λ"), min_value=0, max_value=10, initial=1, help_text=_("Of task arithmetic alone.")
    )
    name = forms.CharField(
        label=_("Name"),
        required=False,
        max_length=100,
        validators=[validate_slug],
        help_text=_("Of the job and of the checkpoint that it makes. Letters, digits, hyphens and underscores."),
    )

    def __init__(self, data: object = None, **kwargs: object) -> None:
        super().__init__(data, **kwargs)  # type: ignore[arg-type]
        self.offered = list(Checkpoint.objects.order_by("-created_at")[:CHECKPOINTS_OFFERED])
        self.fields["models"].queryset = Checkpoint.objects.filter(  # type: ignore[attr-defined]
            pk__in=[checkpoint.pk for checkpoint in self.offered]
        )

    @cached_property
    def rows(self) -> list[tuple[Checkpoint, bool, str]]:
        """Each checkpoint on offer, whether it is ticked, and its weight as given."""
        ticked = {str(pk) for pk in self["models"].value() or ()}
        return [(one, str(one.pk) in ticked, self.data.get(f"weight-{one.pk}", "1")) for one in self.offered]

    def options(self) -> dict[str, str | float]:
        """For queue_merge_job, the models in the order of the page. Raises DomainError that names a bad weight."""
        algorithm = self.cleaned_data["algorithm"]
        chosen = [(one, weight) for one, ticked, weight in self.rows if ticked]
        weights = []
        for checkpoint, text in chosen:
            try:
                weight = float(text)
            except ValueError:
                weight = math.nan
            if not math.isfinite(weight):
                raise DomainError(
                    gettext("the weight of %(name)s, %(weight)s, is not a number")
                    % {"name": checkpoint.name, "weight": text or "–"}
                )
            weights.append(weight)
        takes_weights = algorithm != "model_stock" and any(weight != 1 for weight in weights)
        return {
            "models": ",".join(checkpoint.name for checkpoint, _weight in chosen),
            "algorithm": algorithm,
            "weights": ",".join(f"{weight:g}" for weight in weights) if takes_weights else "",
            "scaling": self.cleaned_data["scaling"] if algorithm == "task_arithmetic" else 1.0,
        }


@staff_required
@require_http_methods(["GET", "POST"])
def merge_new(request: StaffRequest) -> HttpResponse:
    if request.method == "GET":
        return _page(request, MergeForm(initial={"base": request.GET.get("base", "")}))
    form = MergeForm(request.POST)
    if form.is_valid():
        try:
            job = queue_merge_job(
                base=form.cleaned_data["base"],
                options=form.options(),
                name=form.cleaned_data["name"],
                created_by=request.user,
            )
        except DomainError as error:
            form.add_error(None, as_sentence(error))
        else:
            return redirect("job_detail", pk=job.pk)
    return _page(request, form, status=422)


def _page(request: HttpRequest, form: MergeForm, status: int = 200) -> HttpResponse:
    return render(request, "rlhf/merge_new.html", {"form": form, "algorithms": ALGORITHMS}, status=status)
