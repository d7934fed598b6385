"""What the pages about prompts ask for."""

from __future__ import annotations

import re
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from annotation.browse import NOT_SET
from annotation.models import Prompt
from annotation.prompt_lines import PromptLinesError, read_prompts
from annotation.services.prompts import PromptEdit

MOST_TAGS = 20


class TagsField(forms.CharField):
    """Tags with commas between, as a tuple."""

    def clean(self, value: Any) -> Any:
        tags = [tag.strip() for tag in re.split(r"[,;，；、]", super().clean(value) or "")]
        tags = [tag for tag in dict.fromkeys(tags) if tag]
        if len(tags) > MOST_TAGS:
            raise forms.ValidationError(_("These are more than %(most)s tags.") % {"most": MOST_TAGS})
        if long := next((tag for tag in tags if len(tag) > 60), None):
            raise forms.ValidationError(_("The tag “%(tag)s…” is longer than 60 characters.") % {"tag": long[:30]})
        return tuple(tags)


def _text(label: Any, longest: int, known: str) -> forms.CharField:
    # The list of values that are in use stands in the page.
    return forms.CharField(
        label=label,
        required=False,
        max_length=longest,
        widget=forms.TextInput(attrs={"list": f"known-{known}", "autocomplete": "off"}),
    )


class EditForm(forms.Form):
    """An edit of prompts. What is left empty is kept; a hyphen empties."""

    task = _text(_("Task"), 60, "task")
    lang = _text(_("Language"), 20, "lang")
    skill = _text(_("Skill"), 60, "skill")
    topic = _text(_("Topic"), 100, "topic")
    add_tags = TagsField(label=_("Add tags"), required=False, widget=forms.TextInput(attrs={"list": "known-tag"}))
    remove_tags = TagsField(
        label=_("Remove tags"), required=False, widget=forms.TextInput(attrs={"list": "known-tag"})
    )
    archive = forms.ChoiceField(
        label=_("Archive"),
        required=False,
        choices=[("", _("leave as it is")), ("yes", _("archive")), ("no", _("take out of the archive"))],
    )

    def edit(self) -> PromptEdit:
        """Call on a valid form."""
        data = self.cleaned_data
        texts = {
            name: "" if data[name] == NOT_SET else data[name] or None for name in ("task", "lang", "skill", "topic")
        }
        return PromptEdit(
            **texts,
            add_tags=data["add_tags"],
            remove_tags=data["remove_tags"],
            archive={"yes": True, "no": False}.get(data["archive"]),
        )


class PromptForm(forms.Form):
    """What is said of one prompt, as it shall be."""

    task = _text(_("Task"), 60, "task")
    lang = _text(_("Language"), 20, "lang")
    skill = _text(_("Skill"), 60, "skill")
    topic = _text(_("Topic"), 100, "topic")
    tags = TagsField(label=_("Tags"), required=False)
    archived = forms.BooleanField(label=_("archived: not listed, not handed out"), required=False)

    @staticmethod
    def initial_of(prompt: Prompt) -> dict[str, Any]:
        texts = {name: getattr(prompt, name) for name in ("task", "lang", "skill", "topic")}
        return texts | {"tags": ", ".join(prompt.tags), "archived": prompt.archived_at is not None}

    def edit_of(self, prompt: Prompt) -> PromptEdit:
        """What has to be done to the prompt. Call on a valid form."""
        data = self.cleaned_data
        texts = {
            name: None if data[name] == getattr(prompt, name) else data[name]
            for name in ("task", "lang", "skill", "topic")
        }
        is_archived = prompt.archived_at is not None
        return PromptEdit(
            **texts,
            add_tags=tuple(tag for tag in data["tags"] if tag not in prompt.tags),
            remove_tags=tuple(tag for tag in prompt.tags if tag not in data["tags"]),
            archive=None if data["archived"] == is_archived else data["archived"],
        )


class LinesForm(forms.Form):
    """Prompts that are pasted; `prompts` holds them once the form is valid."""

    prompts: list[dict[str, Any]]

    text = forms.CharField(
        strip=False,
        label=_("Prompts, one on each line"),
        widget=forms.Textarea(attrs={"rows": 6, "spellcheck": "false"}),
        help_text=_(
            "Plain text, or one JSON object on each line: <code>{&quot;prompt&quot;: …}</code> or "
            "<code>{&quot;messages&quot;: […]}</code>, with <code>task</code>, <code>lang</code> and "
            "<code>tags</code> where known."
        ),
        error_messages={"required": _("Write at least one prompt.")},
    )

    def clean_text(self) -> str:
        text = self.cleaned_data["text"]
        try:
            self.prompts = read_prompts(text)
        except PromptLinesError as error:
            raise forms.ValidationError([*error.sentences, _("Nothing was added.")]) from None
        return text
