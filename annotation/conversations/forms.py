"""What the pages of conversations send."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from annotation.feedback import Feedback
from annotation.models import (
    FEEDBACK_ALLOWED,
    DeficiencyType,
    FeedbackType,
    ResponseSource,
    Scenario,
    SourceKind,
)
from annotation.protocol import Aspect
from annotation.services.conversations import MAX_MESSAGE_CHARS

MAX_MS = 2_147_483_647  # a Postgres integer; nobody looks at one pair for 24 days
TASKS = (
    _("Mathematics"),
    _("Reasoning"),
    _("Coding"),
    _("Text extraction"),
    _("Text error correction"),
    _("Text creation"),
    _("Text translation"),
    _("Knowledge Q&A"),
)
"""Offered, not imposed: the tasks of FB-Bench."""


def sentence_of(form: forms.Form) -> str:
    """Every error of a form in one line."""
    return " ".join(str(error) for errors in form.errors.values() for error in errors)


class StartForm(forms.Form):
    """The first message, typed, or one of the project's prompts."""

    conversation_id = forms.UUIDField()
    text = forms.CharField(required=False, max_length=MAX_MESSAGE_CHARS, label=_("Your first message"))
    suggested = forms.IntegerField(required=False, min_value=1)
    task = forms.CharField(required=False, max_length=60, label=_("Task"))
    lang = forms.CharField(required=False, max_length=20, label=_("Language"))


def feedback_choices() -> dict[str, Any]:
    """What a template offers, each with its key. Only those of one scenario are visible at once, so keys recur."""
    return {
        "scenarios": [(kind.value, kind.label, key) for kind, key in zip(Scenario, "cr", strict=True)],
        "deficiencies": [(kind.value, kind.label, key) for kind, key in zip(DeficiencyType, "tqavb", strict=True)],
        "kinds": [
            (
                kind.value,
                kind.label,
                key,
                " ".join(str(name) for name, allowed in FEEDBACK_ALLOWED.items() if kind in allowed),
            )
            for kind, key in zip(FeedbackType, "pwixhotai", strict=True)
        ],
    }


class TypedFeedbackForm(forms.Form):
    """The types of one feedback; `scenario` is "none" where the message is a further question instead."""

    position = forms.IntegerField(min_value=0, max_value=10_000)
    scenario = forms.CharField(max_length=30, required=False)

    def feedback(self) -> Feedback | None:
        """None where nothing was chosen."""
        scenario = self.cleaned_data["scenario"]
        if not scenario:
            return None
        return Feedback(
            scenario="" if scenario == "none" else scenario,
            deficiency_types=self.data.getlist("deficiency_types"),  # type: ignore[attr-defined]
            feedback_types=self.data.getlist("feedback_types"),  # type: ignore[attr-defined]
        )


class FeedbackForm(TypedFeedbackForm):
    text = forms.CharField(required=False)
    own_text = forms.CharField(required=False)
    edit_seconds = forms.IntegerField(required=False, min_value=0, max_value=MAX_MS // 1000)
    uptake_a = forms.CharField(required=False, max_length=10)
    uptake_b = forms.CharField(required=False, max_length=10)

    def uptake(self) -> dict[str, str]:
        return {"A": self.cleaned_data["uptake_a"], "B": self.cleaned_data["uptake_b"]}


class RatingForm(TypedFeedbackForm):
    """Scores of one response of an imported conversation, and what kind the answer to it is."""

    note = forms.CharField(required=False, max_length=10_000)
    guideline_version = forms.IntegerField(required=False, min_value=0, max_value=2**31 - 1)

    def __init__(self, *args: Any, aspects: tuple[Aspect, ...], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.aspects = aspects
        for aspect in aspects:
            self.fields[f"score_{aspect.name}"] = forms.IntegerField(required=False)

    def ratings(self) -> dict[str, int | None]:
        return {aspect.name: self.cleaned_data[f"score_{aspect.name}"] for aspect in self.aspects}


class SourcesForm(forms.Form):
    """The models that people talk to."""

    sources = forms.ModelMultipleChoiceField(
        ResponseSource.objects.filter(kind=SourceKind.MODEL).order_by("-id"),
        required=False,
        label=_("Models"),
        widget=forms.CheckboxSelectMultiple,
    )

    def chosen(self) -> list[Any]:
        return list(self.cleaned_data["sources"])
