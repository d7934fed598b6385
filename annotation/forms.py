"""What the pages of an annotator send."""

from __future__ import annotations

from typing import Any

from django import forms

from annotation.blind import VERDICTS


class JudgmentForm(forms.Form):
    """A vote, with the sides as the person saw them."""

    judgment_id = forms.UUIDField()
    choice = forms.ChoiceField(
        choices=[(verdict.value, verdict.label) for verdict in VERDICTS],
        error_messages={
            "required": "Choose one of the seven steps, or “neither is good”.",
            "invalid_choice": "Choose one of the seven steps, or “neither is good”.",
        },
    )
    note = forms.CharField(
        required=False,
        max_length=10_000,
        error_messages={"max_length": "The note is longer than 10,000 characters; shorten it and save again."},
    )
    # Postgres integer; nobody looks at one pair for 24 days.
    decided_in_ms = forms.IntegerField(required=False, min_value=0, max_value=2_147_483_647)

    def verdict(self) -> dict[str, Any]:
        """The keyword arguments of services.submit_judgment, except whose assignment it is."""
        data = self.cleaned_data
        neither = data["choice"] == "neither"
        return {
            "judgment_id": data["judgment_id"],
            "strength_shown": None if neither else int(data["choice"]),
            "neither": neither,
            "note": data["note"],
            "decided_in_ms": data["decided_in_ms"],
        }
