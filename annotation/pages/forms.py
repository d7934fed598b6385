"""What people send about accounts and members, checked before a service is called."""

from __future__ import annotations

import re
import typing
from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.utils.translation import gettext_lazy as _

from annotation.models import Role
from annotation.services.tokens import MAX_TOKEN_DAYS
from annotation.services.webhooks import EVENT_KINDS

MAX_NAMES = 1000


class LabelsField(forms.CharField):
    """Short labels separated by commas or spaces, as a list without repeats."""

    def __init__(self, **options: Any) -> None:
        super().__init__(required=False, max_length=1000, **options)

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> list[str]:
        labels = [label.lower() for label in re.split(r"[,;\s]+", super().clean(value)) if label]
        if long := [label for label in labels if len(label) > 60]:
            raise forms.ValidationError(
                _("“%(label)s …” is longer than 60 characters."), params={"label": long[0][:20]}
            )
        return list(dict.fromkeys(labels))


class PlaceForm(forms.Form):
    """What a member may do, and what is routed to them."""

    role = forms.ChoiceField(
        label=_("Role"),
        choices=[(role.value, role.label.capitalize()) for role in Role],
        initial=Role.ANNOTATOR,
        help_text=_(
            "Annotators judge; reviewers also see quality and settle disagreements; admins may do everything."
        ),
    )
    languages = LabelsField(
        label=_("Languages"), help_text=_("Codes such as en, zh. Only prompts in these are handed out; empty: all.")
    )
    skills = LabelsField(
        label=_("Skills"),
        help_text=_("Labels such as math, code. Prompts that need another skill are not handed out."),
    )


class AddMembersForm(PlaceForm):
    usernames = forms.CharField(
        label=_("Accounts"),
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false", "autocapitalize": "none"}),
        help_text=_("User names, one on each line or separated by commas. All of them are added, or none."),
    )
    field_order = ["usernames"]

    def clean_usernames(self) -> list[str]:
        names = list(dict.fromkeys(re.split(r"[,;\s]+", self.cleaned_data["usernames"].strip())))
        if len(names) > MAX_NAMES:
            raise forms.ValidationError(_("Add at most %(most)s people at a time."), params={"most": MAX_NAMES})
        return names


class InvitationForm(PlaceForm):
    email = forms.EmailField(
        required=False, label=_("For"), help_text=_("An address to know the link by. Nothing is sent to it.")
    )
    days = forms.IntegerField(label=_("Good for, in days"), min_value=1, max_value=90, initial=7)
    field_order = ["email", "days"]


class JoinForm(forms.Form):
    """An account for somebody who follows an invitation."""

    username = forms.CharField(
        label=_("User name"),
        max_length=150,
        validators=[UnicodeUsernameValidator()],
        widget=forms.TextInput(attrs={"autocomplete": "username", "autocapitalize": "none", "autofocus": True}),
        help_text=_("Others in the project see it. Letters, digits and @ . + - _ only."),
    )
    password = forms.CharField(
        label=_("Password"),
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text=_("At least 10 characters, and none of the common ones."),
    )

    def clean_username(self) -> str:
        username = User.normalize_username(self.cleaned_data["username"])
        if User.objects.filter(username__iexact=username).exists():
            raise forms.ValidationError(
                _("Somebody has this name already. Choose another one, or sign in if it is you.")
            )
        return username

    def clean(self) -> dict[str, Any]:
        data = typing.cast("dict[str, Any]", super().clean())
        if data.get("password"):
            try:
                validate_password(data["password"], User(username=data.get("username", "")))
            except forms.ValidationError as error:
                self.add_error("password", error)
        return data


class TokenForm(forms.Form):
    name = forms.CharField(
        label=_("Name"), max_length=100, help_text=_("What uses it, such as “nightly import on node-3”.")
    )
    days = forms.IntegerField(label=_("Good for, in days"), min_value=1, max_value=MAX_TOKEN_DAYS, initial=30)


class WebhookForm(forms.Form):
    """An address outside, and what it is told."""

    url = forms.URLField(
        label=_("Address"),
        max_length=500,
        assume_scheme="https",
        widget=forms.URLInput(attrs={"placeholder": "https://example.org/hook"}),
    )
    events = forms.MultipleChoiceField(
        label=_("What it is told"),
        required=False,
        choices=[(kind.value, kind.label) for kind in EVENT_KINDS],
        widget=forms.CheckboxSelectMultiple,
        help_text=_("Nothing chosen: all of them."),
    )
