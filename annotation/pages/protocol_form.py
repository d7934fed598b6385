"""The form over a protocol: what is asked beside the verdict, row by row, starting from a preset or from what is."""

from __future__ import annotations

import dataclasses
import re
import typing
import unicodedata
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from annotation.errors import DomainError
from annotation.protocol import MAX_ASPECTS, MAX_AXES, MAX_CHIPS, Aspect, Axis, Demand, Protocol, Scale
from annotation.services.projects import LARGEST

SCALES = {
    Scale.SEVEN: _("Seven steps, with “about the same” in the middle"),
    Scale.FOUR: _("A side and one of four named levels for it, no middle"),
    Scale.EIGHT: _("Eight even steps with named ends, no middle"),
    Scale.BINARY: _("One or the other, ungraded"),
    Scale.RANKING: _("An order of three to nine responses"),
}
DEMANDS = {Demand.OFF: _("not asked"), Demand.OPTIONAL: _("may be given"), Demand.REQUIRED: _("must be given")}


def _demand_field(label: Any, *, may_be_off: bool = True, **options: Any) -> forms.ChoiceField:
    choices = [(demand.value, words) for demand, words in DEMANDS.items() if may_be_off or demand != Demand.OFF]
    return forms.ChoiceField(label=label, choices=choices, **options)


class ChipsField(forms.CharField):
    """Reasons, one on each line."""

    widget = forms.Textarea

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list | tuple) else value

    def clean(self, value: Any) -> tuple[str, ...]:
        lines = [line.strip() for line in super().clean(value).splitlines()]
        chips = tuple(dict.fromkeys(line for line in lines if line))
        if len(chips) > MAX_CHIPS:
            raise forms.ValidationError(_("More than %(most)s reasons are not read."), params={"most": MAX_CHIPS})
        if long := [chip for chip in chips if len(chip) > 60]:
            raise forms.ValidationError(_("“%(chip)s …” is longer than 60 characters."), params={"chip": long[0][:20]})
        return chips


class PercentField(forms.FloatField):
    """A share, written in percent."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"min_value": 0, "max_value": 100, **options})
        self.widget.attrs.setdefault("step", "any")

    def prepare_value(self, value: Any) -> Any:
        return f"{100 * value:.6g}" if isinstance(value, float) else value

    def clean(self, value: Any) -> float | None:
        percent = super().clean(value)
        return None if percent is None else round(percent / 100, 6)


class ProtocolForm(forms.Form):
    scale = forms.ChoiceField(
        label=_("Scale"), widget=forms.RadioSelect, choices=[(scale.value, words) for scale, words in SCALES.items()]
    )
    allow_tie = forms.BooleanField(required=False, label=_("Ties are allowed (in “one or the other” and rankings)"))
    allow_neither = forms.BooleanField(required=False, label=_("“Neither is good” can be chosen"))
    aspects_demand = _demand_field(_("Scores"), may_be_off=False)
    chips = ChipsField(
        required=False,
        label=_("Reasons to pick from"),
        widget=forms.Textarea(attrs={"rows": 4}),
        help_text=_("One on each line, such as “more accurate”. They are offered after the choice."),
    )
    chips_demand = _demand_field(_("A picked reason"), may_be_off=False)
    note_demand = _demand_field(_("A written reason"))
    spans = forms.BooleanField(required=False, label=_("Passages can be marked as wrong"))
    edit_demand = _demand_field(_("An edit of the better response"))
    rewrite_below = PercentField(
        required=False,
        label=_("Rewrite when all scores are below, in percent"),
        help_text=_("Of the way from the lowest to the highest score; empty: never."),
    )
    rewrite_neither = forms.BooleanField(required=False, label=_("Rewrite when neither response is good"))
    conversations = forms.BooleanField(
        required=False, label=_("People talk to the models, turn by turn, and give typed feedback")
    )
    max_turns = forms.IntegerField(label=_("Turns of a conversation, at most"), min_value=1, max_value=50)
    responses_per_turn = forms.TypedChoiceField(
        label=_("Responses at each turn"),
        choices=[(2, _("two, side by side")), (1, _("one"))],
        coerce=int,
        required=False,
        empty_value=2,  # type: ignore[arg-type]
    )

    def __init__(self, data: Any = None, *, start: Protocol) -> None:
        initial = {field.name: getattr(start, field.name) for field in dataclasses.fields(start)}
        super().__init__(data, initial=initial, prefix="protocol")
        self.start = self.protocol = start
        self.aspects = AspectRows(data, prefix="aspect", initial=[dataclasses.asdict(one) for one in start.aspects])
        self.axes = AxisRows(data, prefix="axis", initial=[dataclasses.asdict(one) for one in start.axes])

    def is_valid(self) -> bool:
        rows_fit = [rows.is_valid() for rows in (self.aspects, self.axes)]
        return super().is_valid() and all(rows_fit)

    def clean(self) -> dict[str, Any]:
        data = typing.cast("dict[str, Any]", super().clean())
        if self.errors or not (self.aspects.is_valid() and self.axes.is_valid()):
            return data
        # What the form does not know stays as it is.
        own = {name: value for name, value in data.items() if name in self.fields}
        try:
            self.protocol = dataclasses.replace(
                self.start,
                **own
                | {
                    "scale": Scale(data["scale"]),
                    **{name: Demand(value) for name, value in data.items() if name.endswith("_demand")},
                    "aspects": tuple(
                        Aspect(name, row["label"], row["low"], row["high"]) for name, row in _named(self.aspects)
                    ),
                    "axes": tuple(Axis(name, row["label"]) for name, row in _named(self.axes)),
                },
            )
            self.protocol.check()
            self.protocol.check_sense()
        except DomainError as refused:
            self.add_error(None, str(refused))
        return data


class AspectForm(forms.Form):
    name = forms.CharField(required=False, widget=forms.HiddenInput)
    label = forms.CharField(required=False, label=_("What is scored"), max_length=60)
    low = forms.IntegerField(label=_("from"), min_value=0, max_value=9, initial=1)
    high = forms.IntegerField(label=_("to"), min_value=1, max_value=10, initial=5)


class AxisForm(forms.Form):
    name = forms.CharField(required=False, widget=forms.HiddenInput)
    label = forms.CharField(required=False, label=_("Question"), max_length=120)


class _Rows(forms.BaseFormSet):
    """Rows with two empty ones behind them; a row whose label is emptied goes away. Saving shows two new ones."""


AspectRows = forms.formset_factory(AspectForm, formset=_Rows, extra=2, max_num=MAX_ASPECTS, absolute_max=20)
AxisRows = forms.formset_factory(AxisForm, formset=_Rows, extra=1, max_num=MAX_AXES, absolute_max=20)


def _named(rows: Any) -> list[tuple[str, dict[str, Any]]]:
    """The filled rows, each with the name that answers are stored by: its old one, or one made of its label."""
    filled = [row for form in rows.forms if (row := form.cleaned_data) and row.get("label", "").strip()]
    taken = {row["name"] for row in filled if row["name"]}
    named = []
    for row in filled:
        name = row["name"]
        if not name:
            stem = _stem(row["label"])
            name = next(
                f"{stem}{mark}" for mark in ("", *(f"_{n}" for n in range(2, 40))) if f"{stem}{mark}" not in taken
            )
            taken.add(name)
        named.append((name, row))
    return named


def _stem(label: str) -> str:
    ascii_only = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", ascii_only).strip("_0123456789")[:36] or "aspect"


class QueueForm(forms.Form):
    """How many people judge what, and what they are measured by."""

    name = forms.CharField(label=_("Name"), max_length=200)
    judgments_per_comparison = forms.IntegerField(
        label=_("People for each comparison"),
        min_value=1,
        max_value=LARGEST["judgments_per_comparison"],
        help_text=_("For comparisons that are made from now on."),
    )
    ask_of_existing = forms.BooleanField(
        required=False, label=_("Ask a changed number of the comparisons that are here already, too")
    )
    overlap_share = PercentField(
        label=_("Share judged by more people, in percent"), help_text=_("Drawn at random; measures agreement.")
    )
    overlap_count = forms.IntegerField(label=_("… by how many"), min_value=1, max_value=LARGEST["overlap_count"])
    escalate_to = forms.IntegerField(
        label=_("Where three disagree, ask up to"),
        min_value=0,
        max_value=LARGEST["escalate_to"],
        help_text=_("When the first three are more than 2 steps apart or on both sides. 0: never."),
    )
    gold_every = forms.IntegerField(
        label=_("One gold item in"),
        min_value=0,
        max_value=LARGEST["gold_every"],
        help_text=_("Its right answer is known. 0: none."),
    )
    gold_every_at_first = forms.IntegerField(
        label=_("… among a person’s first 50, one in"), min_value=0, max_value=LARGEST["gold_every_at_first"]
    )
    repeat_share = PercentField(
        label=_("Shown again with the sides swapped, in percent"), help_text=_("Measures how steady a person is.")
    )
    qualification_count = forms.IntegerField(
        label=_("Items to judge before any work"),
        min_value=0,
        max_value=LARGEST["qualification_count"],
        help_text=_(
            "Gold items that are marked for qualification. 0: no such round. For people who join from now on."
        ),
    )
    qualification_pass_mark = PercentField(label=_("… and how many to get right, in percent"))
    topic_batches = forms.BooleanField(
        required=False, label=_("One topic after the other, so that people need not think themselves in anew")
    )
