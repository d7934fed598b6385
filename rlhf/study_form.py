"""What a new human evaluation asks, field by field."""

from __future__ import annotations

import typing
from typing import Any

from django import forms
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from annotation.browse import tallied_values
from annotation.models import Project, ProjectSource, ResponseSource, StudyKind, Tally
from rlhf.forms import SourceField


class StudyForm(forms.Form):
    name = forms.SlugField(
        max_length=100,
        label=_("Name"),
        help_text=_("For commands and reports: letters, digits and hyphens, such as <code>spring-dpo-2</code>."),
    )
    kind = forms.ChoiceField(choices=StudyKind.choices, label=_("What is asked"), widget=forms.RadioSelect)
    source = SourceField(
        queryset=ResponseSource.objects.none(),
        label=_("New model"),
        empty_label=_("Choose a model"),
        help_text=_("Models that have responses in this project. People never see which is which."),
    )
    against = SourceField(
        queryset=ResponseSource.objects.none(),
        required=False,
        label=_("Compared with"),
        empty_label=_("nothing: marks of one model"),
    )
    task = forms.ChoiceField(required=False, label=_("Task"))
    tag = forms.ChoiceField(required=False, label=_("Tag"))
    held_out = forms.BooleanField(
        required=False,
        label=_("Only prompts that neither model was trained on"),
    )
    at_most = forms.IntegerField(
        required=False, min_value=1, max_value=100_000, label=_("At most so many prompts"), help_text=_("Empty: all.")
    )
    judgments_per_item = forms.IntegerField(
        min_value=1,
        max_value=50,
        initial=1,
        label=_("People per item"),
        help_text=_("Two or more show how far they agree."),
    )

    def __init__(self, project: Project, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        here = ResponseSource.objects.filter(pk__in=ProjectSource.objects.filter(project=project).values("source"))
        for name in ("source", "against"):
            typing.cast("SourceField", self.fields[name]).queryset = here.order_by("-pk")
        values = tallied_values(project, Tally.Scope.PROMPT)
        for name in ("task", "tag"):
            known = [value for value, _count in values[name] if value]
            field = typing.cast("forms.ChoiceField", self.fields[name])
            field.choices = [("", gettext("any")), *((value, value) for value in known)]

    def clean(self) -> dict[str, Any]:
        data = typing.cast("dict[str, Any]", super().clean())
        if data.get("kind") == StudyKind.GSB and data.get("against") is None and "against" not in self.errors:
            self.add_error("against", gettext("Good/same/bad compares two models; choose the one to compare with."))
        if data.get("against") is not None and data.get("against") == data.get("source"):
            self.add_error("against", gettext("A model cannot be compared with itself; choose two different ones."))
        return data

    def selection(self) -> dict[str, Any]:
        chosen = {name: self.cleaned_data[name] for name in ("task", "tag", "held_out", "at_most")}
        return {name: value for name, value in chosen.items() if value}
