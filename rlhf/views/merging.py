"""Merging checkpoints: which ones, with what weights, how."""

from __future__ import annotations

import math
from collections.abc import Mapping

from django import forms
from django.core.validators import validate_slug
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.utils.functional import cached_property
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods

from annotation.services import DomainError
from rlhf.forms import CheckpointField
from rlhf.models import Checkpoint, Method, TrainingJob
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

    find = forms.CharField(
        label=_("Find by name"), required=False, max_length=100, help_text=_("What is ticked stays on the list.")
    )

    def __init__(self, data: object = None, **kwargs: object) -> None:
        super().__init__(data, **kwargs)  # type: ignore[arg-type]
        self.weights: Mapping[str, str] = self.data
        self.fields["models"].queryset = Checkpoint.objects.all()  # type: ignore[attr-defined]

    @cached_property
    def offered(self) -> list[Checkpoint]:
        """What is ticked, and the newest of those whose name holds what is looked for."""
        ticked = [int(pk) for pk in self["models"].value() or () if str(pk).isdecimal() and len(str(pk)) < 10]
        kept = list(Checkpoint.objects.filter(pk__in=ticked).order_by("-created_at"))
        return kept + list(self._found.exclude(pk__in=ticked)[:CHECKPOINTS_OFFERED])

    @property
    def _found(self) -> QuerySet[Checkpoint]:
        text = (self["find"].value() or "").replace("\0", "").strip()
        return Checkpoint.objects.filter(name__icontains=text).order_by("-created_at")

    @cached_property
    def left_out(self) -> int:
        """How many more there are with such a name."""
        return max(0, self._found.exclude(pk__in=[one.pk for one in self.offered]).count())

    @cached_property
    def rows(self) -> list[tuple[Checkpoint, bool, str]]:
        """Each checkpoint on offer, whether it is ticked, and its weight as given."""
        ticked = {str(pk) for pk in self["models"].value() or ()}
        return [(one, str(one.pk) in ticked, self.weights.get(f"weight-{one.pk}", "1")) for one in self.offered]

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
        return _page(request, _opening_form(request.GET))
    if request.POST.get("step") == "find":
        typed = {name: request.POST.get(name, "") for name in MergeForm.base_fields}
        typed["models"] = request.POST.getlist("models")  # type: ignore[assignment]
        form = MergeForm(initial=typed)
        form.weights = request.POST
        return _page(request, form)
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


def _opening_form(asked: QueryDict) -> MergeForm:
    """As the address asks for it: a merge to clone, or a base to begin with."""
    number = asked.get("clone", "")
    job = None
    if number.isdecimal() and len(number) < 19:
        job = TrainingJob.objects.filter(pk=number, method=Method.MERGE).first()
    if job is None:
        return MergeForm(initial={"base": asked.get("base", "")})
    inputs = list(job.merge_inputs.values_list("checkpoint_id", "weight"))
    said = {name: job.options[name] for name in ("algorithm", "scaling")}
    form = MergeForm(initial={"base": job.base_id, "models": [pk for pk, _weight in inputs], **said})
    form.weights = {f"weight-{pk}": f"{weight:g}" for pk, weight in inputs}
    return form


def _page(request: HttpRequest, form: MergeForm, status: int = 200) -> HttpResponse:
    return render(request, "rlhf/merge_new.html", {"form": form, "algorithms": ALGORITHMS}, status=status)
