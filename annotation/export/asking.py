"""What may be asked of an export: the rules by which rows are left out, read from a form or an address."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from annotation.export.consensus import Rules
from annotation.export.kinds import TABLE_KINDS, TRAINING_KINDS, Kind
from annotation.models import Project
from annotation.protocol import Protocol

REASON_WORDS: dict[str, str | Promise] = {
    "tie": _("about the same"),
    "neither": _("neither acceptable"),
    "no_majority": _("no majority"),
    "gold": _("gold: it measures people"),
    "withdrawn": _("withdrawn by a reviewer"),
    "different_histories": _("responses to different conversations"),
    "identical_responses": _("two equal texts"),
    "empty": _("the preferred response is blank"),
    "edit_of_not_chosen": _("an edit of a response that most did not choose"),
    "spread": _("people’s strengths lie too far apart"),
    "weak": _("the mean strength is too weak"),
    "near_identical": _("texts that agree in 19 of 20 characters"),
    "unfinished": _("a response that was cut off or is blank"),
    "names_model": _("a response that says who wrote it"),
}
"""Why a judged pair gives no row."""


class RulesForm(forms.Form):
    """The rules under the names of `Rules`, and by which question to judge."""

    axis = forms.CharField(required=False, max_length=40, label=_("Judged by"))
    max_spread = forms.FloatField(
        required=False,
        min_value=0,
        label=_("Largest spread of strengths"),
        help_text=_("In steps. Pairs on which people lie further apart are left out."),
    )
    min_strength = forms.FloatField(
        required=False,
        min_value=0,
        label=_("Least mean strength"),
        help_text=_("In steps from 0. What nobody graded stays."),
    )
    near_identical = forms.BooleanField(required=False, label=_("Leave out texts that agree in 19 of 20 characters"))
    unfinished = forms.BooleanField(required=False, label=_("Leave out responses that were cut off, or are blank"))
    names_model = forms.BooleanField(required=False, label=_("Leave out responses that say who wrote them"))

    def rules(self) -> Rules:
        data = self.cleaned_data
        return Rules(
            max_spread=data["max_spread"],
            min_strength=data["min_strength"] or 0.0,
            near_identical=data["near_identical"],
            unfinished=data["unfinished"],
            names_model=data["names_model"],
        )

    def reasons(self) -> list[str]:
        """The reasons that the rules which were asked for give, in the counts also where they met nothing."""
        rules = self.rules()
        asked = {
            "spread": rules.max_spread is not None,
            "weak": rules.min_strength,
            "near_identical": rules.near_identical,
            "unfinished": rules.unfinished,
            "names_model": rules.names_model,
        }
        return [reason for reason, is_asked in asked.items() if is_asked]


class ExportForm(RulesForm):
    """A file to download from a project's pages."""

    kind = forms.ChoiceField(label=_("Rows"), choices=Kind.choices)
    suffix = forms.ChoiceField(
        required=False, label=_("File"), choices=[("jsonl", "JSON Lines (.jsonl)"), ("parquet", "Parquet (.parquet)")]
    )
    with_models = forms.BooleanField(required=False, label=_("Count judgments by models, too"))

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        questions = [(axis.name, axis.label) for axis in Protocol.of(project).axes]
        main = ("", pgettext_lazy("question", "the main one"))
        self.fields["axis"].widget = forms.Select(choices=[main, *questions]) if questions else forms.HiddenInput()

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if data.get("suffix") == "parquet" and data.get("kind") in set(Kind.values) - set(TABLE_KINDS):
            self.add_error("suffix", _("These rows have many shapes, so that their file must be JSON Lines."))
        has_rules = not self.errors and (data["axis"] or self.rules() != Rules())
        if has_rules and data["kind"] not in TRAINING_KINDS:
            self.add_error("kind", _("Nothing is left out of these by rules. Choose rows to train on, or no rules."))
        return data
