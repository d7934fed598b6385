"""What staff may ask for, checked field by field before a service is called."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import inspect
import itertools
import re
import textwrap
import typing
from collections.abc import Iterator
from typing import Any, Literal

from django import forms
from django.core.validators import validate_slug
from django.forms.models import ModelChoiceIterator
from django.utils.html import escape
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from annotation.errors import DomainError
from annotation.models import Project, ResponseSource, SourceKind
from rlhf.launch_config import LARGEST_FILE_BYTES, LaunchConfig, parse_config
from rlhf.models import (
    BenchmarkSet,
    Checkpoint,
    CheckpointKind,
    DatasetSnapshot,
    Method,
    Priority,
    PromotionGate,
    Voters,
)
from rlhf.option_words import LABELS, format_number
from rlhf.options import OPTIONS, SpecError, TrainingOptions, build_options
from rlhf.recipes import RECIPES, Recipe
from rlhf.services import aliases_by_checkpoint, find_checkpoint, resolve_alias
from rlhf.services.generation import DEFAULT_SAMPLING


class _WithAliases(ModelChoiceIterator):
    def __iter__(self) -> Iterator[Any]:
        self.field.standing = aliases_by_checkpoint()  # type: ignore[attr-defined]  # one query for all labels
        return super().__iter__()


class CheckpointField(forms.ModelChoiceField):
    """A checkpoint by id, name or alias; its choices say which aliases stand for them."""

    iterator = _WithAliases
    standing: dict[int, list[str]] = {}

    def to_python(self, value: Any) -> Checkpoint | None:
        if isinstance(value, str) and value and not value.isdecimal():
            try:
                value = find_checkpoint(value).pk
            except DomainError as error:
                raise forms.ValidationError(str(error)) from None
        return typing.cast("Checkpoint | None", super().to_python(value))

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, str) and value and not value.isdecimal():
            with contextlib.suppress(DomainError):
                return find_checkpoint(value).pk
        return super().prepare_value(value)

    def label_from_instance(self, obj: Any) -> str:
        names = self.standing.get(obj.pk)
        return f"{obj.name} ({', '.join(names)})" if names else obj.name


class SourceField(forms.ModelChoiceField):
    """Who writes, by id or by the alias of a published checkpoint."""

    def to_python(self, value: Any) -> ResponseSource | None:
        return typing.cast("ResponseSource | None", super().to_python(_source_of_alias(value)))

    def prepare_value(self, value: Any) -> Any:
        return super().prepare_value(_source_of_alias(value))


def _source_of_alias(value: Any) -> Any:
    if isinstance(value, str) and value and not value.isdecimal():
        with contextlib.suppress(DomainError):
            checkpoint = resolve_alias(value)
            if checkpoint and checkpoint.source_id:
                return checkpoint.source_id
    return value


class AliasForm(forms.Form):
    """Lets an alias stand for a checkpoint."""

    alias = forms.SlugField(
        max_length=60,
        label=_("Alias"),
        initial="champion",
        help_text=_(
            "Such as <code>champion</code> or <code>candidate</code>. It can be named wherever a checkpoint is."
        ),
    )
    project = forms.ModelChoiceField(
        queryset=Project.objects.order_by("name"), required=False, label=_("In"), empty_label=_("the whole site")
    )
    why = forms.CharField(max_length=500, label=_("Why"), help_text=_("Kept for good, with your name and the time."))
    despite_gate = forms.BooleanField(required=False, label=_("Even where its gate says no; the log will say so"))

    def clean_alias(self) -> str:
        return self.cleaned_data["alias"].lower()


class GateForm(forms.Form):
    """The thresholds of an alias's gate; shares are given in percent."""

    alias = forms.SlugField(max_length=60, label=_("Alias"), initial="champion")
    project = forms.ModelChoiceField(
        queryset=Project.objects.order_by("name"), required=False, label=_("In"), empty_label=_("the whole site")
    )
    least_win_rate = forms.FloatField(
        required=False,
        min_value=0,
        max_value=100,
        initial=50,
        label=_("Win rate against the champion, %"),
        help_text=_("The whole interval (95 %) must lie above it. Empty: not asked."),
    )
    voters = forms.ChoiceField(choices=Voters.choices, label=_("Verdicts of"), initial=Voters.PEOPLE)
    hold_length_equal = forms.BooleanField(
        required=False, label=_("At equal length: what a fit gives for responses of one length")
    )
    least_votes = forms.IntegerField(min_value=1, initial=200, label=_("Votes, at least"))
    least_people = forms.IntegerField(min_value=1, initial=3, label=_("Different voters, at least"))
    benchmark = forms.ModelChoiceField(
        queryset=BenchmarkSet.objects.order_by("name"),
        required=False,
        label=_("Benchmark"),
        empty_label=_("not asked"),
        help_text=_("Its overall figure, of runs by one judge."),
    )
    most_benchmark_drop = forms.FloatField(
        min_value=0, max_value=100, initial=1, label=_("Points below the champion, at most")
    )
    least_reward_accuracy = forms.FloatField(
        required=False,
        min_value=0,
        max_value=100,
        label=_("Accuracy on held-out pairs, %"),
        help_text=_("Of aliases of reward models; they have no votes. Empty: not asked."),
    )

    SHARES = ("least_win_rate", "least_reward_accuracy")

    def __init__(self, *args: Any, gate: PromotionGate | None = None, **kwargs: Any) -> None:
        """`gate`: the one that is changed; it stays that of its alias."""
        if gate:
            values = {name: getattr(gate, name) for name in self.base_fields}
            kwargs["initial"] = values | {name: 100 * values[name] for name in self.SHARES if values[name] is not None}
        super().__init__(*args, **kwargs)
        for name in ("alias", "project") if gate else ():
            self.fields[name].disabled = True

    def as_gate(self) -> PromotionGate:
        values = dict(self.cleaned_data)
        values["alias"] = values["alias"].lower()
        for name in self.SHARES:
            values[name] = None if values[name] is None else values[name] / 100
        return PromotionGate(**values)


class ProjectForm(forms.Form):
    name = forms.CharField(
        max_length=200, label=_("Name"), help_text=_("What annotators see, such as “Helpful answers”.")
    )
    slug = forms.SlugField(
        max_length=50,
        label=_("Short name"),
        help_text=_("For addresses and commands: letters, digits and hyphens. It cannot be changed later."),
    )
    judgments_per_comparison = forms.IntegerField(
        min_value=1,
        max_value=100,
        initial=1,
        label=_("Judgments per comparison"),
        help_text=_("How many people judge each pair. Two or more show how far people agree."),
    )
    guidelines = forms.CharField(
        required=False,
        label=_("Guidelines"),
        widget=forms.Textarea(attrs={"rows": 6}),
        help_text=_("Markdown, one key away while people judge."),
    )

    def clean_slug(self) -> str:
        slug = self.cleaned_data["slug"].lower()
        if Project.objects.filter(slug=slug).exists():
            raise forms.ValidationError(
                _("There is a project with the short name %(slug)s already; take another one."), params={"slug": slug}
            )
        return slug


class GenerateForm(forms.Form):
    source = SourceField(
        queryset=ResponseSource.objects.filter(kind=SourceKind.MODEL).order_by("-pk"),
        label=_("Who writes"),
        empty_label=_("Choose a model"),
        help_text=_("A published checkpoint or another model that can be asked."),
    )
    against = SourceField(
        queryset=ResponseSource.objects.filter(kind=SourceKind.MODEL).order_by("-pk"),
        required=False,
        label=_("Compared with"),
        empty_label=_("its own other responses"),
        help_text=_("The two are shown blind; it must have responses to these prompts."),
    )
    per_prompt = forms.IntegerField(min_value=1, max_value=64, initial=2, label=_("Responses per prompt"))
    temperature = forms.FloatField(
        label=_("Temperature"), min_value=0, max_value=2, initial=DEFAULT_SAMPLING["temperature"]
    )
    max_tokens = forms.IntegerField(
        min_value=1, max_value=32_768, initial=DEFAULT_SAMPLING["max_tokens"], label=_("Longest response, in tokens")
    )
    seed = forms.IntegerField(label=_("Seed"), min_value=0, max_value=2**31 - 1, initial=DEFAULT_SAMPLING["seed"])

    def clean(self) -> dict[str, Any]:
        data = typing.cast("dict[str, Any]", super().clean())
        if data.get("against") is not None and data.get("against") == data.get("source"):
            self.add_error("against", gettext("This is the same source; leave it open to compare its own responses."))
        if data.get("against") is None and data.get("per_prompt") == 1:
            self.add_error(
                "per_prompt", gettext("One response cannot be compared with itself; ask for 2 or name another source.")
            )
        return data

    def sampling(self) -> dict[str, Any]:
        return {name: self.cleaned_data[name] for name in ("temperature", "max_tokens", "seed")}


class SnapshotForm(forms.Form):
    project = forms.ModelChoiceField(
        label=_("Project"), queryset=Project.objects.order_by("name"), empty_label=_("Choose a project")
    )
    name = forms.SlugField(
        label=_("Name"),
        max_length=100,
        help_text=_(
            "Lower-case letters, digits and hyphens, such as <code>helpful-r2</code>. Data sets never change."
        ),
    )
    eval_share = forms.FloatField(
        min_value=0,
        max_value=0.9,
        initial=0.1,
        label=_("Held-out share"),
        help_text=_("Of the prompts, kept away from training to measure on. 0.1 is one in ten."),
    )
    humans_only = forms.BooleanField(required=False, initial=True, label=_("Judgments by people only"))


class LaunchForm(forms.Form):
    """What to train, from what, on what; the method's options are an OptionsForm beside it."""

    snapshot = forms.ModelChoiceField(
        queryset=DatasetSnapshot.objects.order_by("-created_at"),
        label=_("Data set"),
        empty_label=_("Choose a data set"),
    )
    base = CheckpointField(
        queryset=Checkpoint.objects.filter(kind=CheckpointKind.POLICY).order_by("-created_at"),
        label=_("Starting from"),
        empty_label=_("Choose a checkpoint"),
    )
    name = forms.CharField(
        label=_("Name"),
        required=False,
        max_length=100,
        validators=[validate_slug],
        help_text=_("Of the job and of the checkpoint that it makes. Letters, digits, hyphens and underscores."),
    )
    label = forms.SlugField(
        label=_("Workers"),
        required=False,
        max_length=50,
        help_text=_("The label of the workers that may take it, such as <code>a100</code>; empty for any."),
    )
    gpus = forms.IntegerField(
        label=_("GPUs"),
        required=False,
        initial=0,
        min_value=0,
        max_value=64,
        help_text=_("How many the worker must have free. With 0 a worker without GPUs may take it, too."),
    )
    priority = forms.ChoiceField(
        label=_("Priority"), required=False, choices=list(reversed(Priority.choices)), initial=Priority.NORMAL
    )
    method = forms.ChoiceField(
        label=_("Method"),
        choices=[choice for choice in Method.choices if choice[0] in OPTIONS and choice[0] != Method.MERGE],
        initial=Method.DPO,
        widget=forms.RadioSelect,
    )

    def clean_gpus(self) -> int:
        return self.cleaned_data["gpus"] or 0

    def clean_priority(self) -> int:
        return int(self.cleaned_data["priority"] or Priority.NORMAL)


# What people change often; the rest is folded.
_BASIC_OPTIONS = {
    "learning_rate", "epochs", "batch_size", "max_tokens", "use_lora", "beta",
    "reward_model", "rule", "rule_argument", "kl_coefficient",
}  # fmt: skip


class ConfigForm(forms.Form):
    """A launch that was kept as a file."""

    config = forms.FileField(
        label=_("Config file"),
        help_text=_("JSON or TOML, as a job’s page gives it."),
        widget=forms.FileInput(attrs={"accept": ".json,.toml"}),
    )

    def clean_config(self) -> LaunchConfig:
        file = self.cleaned_data["config"]
        if file.size > LARGEST_FILE_BYTES:
            raise forms.ValidationError(gettext("This is larger than any config; choose another file."))
        try:
            return parse_config(file.read().decode("utf-8"))
        except UnicodeDecodeError:
            raise forms.ValidationError(gettext("This is not a text in UTF-8; choose another file.")) from None
        except SpecError as error:
            raise forms.ValidationError(f"{str(error)[:1].upper()}{str(error)[1:]}.") from None


class OptionsForm(forms.Form):
    """The options of one training method: its fields, defaults and help come from the dataclass in jobspec."""

    options: TrainingOptions

    def __init__(self, method: str, *args: Any, recipe: Recipe | None = None, **kwargs: Any) -> None:
        """With a recipe, its options take the place of the method's defaults."""
        if recipe is not None:
            typed = {
                name: value if isinstance(value, bool) else format_number(value)
                for name, value in recipe.options.items()
            }
            kwargs["initial"] = typed | kwargs.get("initial", {})
        super().__init__(*args, **kwargs)
        self.method = method
        self.recipe = recipe
        hints = typing.get_type_hints(OPTIONS[method])
        help_texts = option_help(method)
        for option in dataclasses.fields(OPTIONS[method]):
            field = _option_field(option.name, hints[option.name], option.default)
            field.label = str(LABELS[option.name])
            field.help_text = _as_html(_translated(help_texts.get(option.name, "")))
            self.fields[option.name] = field

    def clean(self) -> dict[str, Any]:
        data = typing.cast("dict[str, Any]", super().clean())
        given = dict(data)
        while True:  # one error at a time is named; go on until there is none or it is not a field's own
            try:
                self.options = build_options(self.method, given)
            except SpecError as error:
                name, problem = _split_error(str(error), set(self.fields))
                if name in self.errors:
                    break
                self.add_error(name, problem)
                if given.pop(name or "", None) is None:
                    break
            else:
                break
        return data

    def basic(self) -> list[forms.BoundField]:
        return [self[name] for name in self.fields if name in _BASIC_OPTIONS]

    def advanced(self) -> list[forms.BoundField]:
        return [self[name] for name in self.fields if name not in _BASIC_OPTIONS]

    def recipes(self) -> list[Recipe]:
        return [recipe for recipe in RECIPES if recipe.method == self.method]

    def changed_by_recipe(self) -> list[tuple[str, str, str]]:
        """Label, default and value of each option that the recipe sets otherwise."""
        defaults = OPTIONS[self.method]()
        given = self.recipe.options if self.recipe else {}
        return [
            (str(self.fields[name].label), format_number(getattr(defaults, name)), format_number(value))
            for name, value in given.items()
            if value != getattr(defaults, name)
        ]

    def has_advanced_errors(self) -> bool:
        return any(name in self.errors for name in self.fields if name not in _BASIC_OPTIONS)


def _option_field(name: str, kind: Any, default: Any) -> forms.Field:
    if name == "reward_model":
        # Asked for when the form is shown, so that a reward model trained since is there.
        return forms.ChoiceField(choices=_reward_models, required=False, initial=default)
    if kind is str:
        return forms.CharField(
            max_length=500, required=False, initial=default, widget=forms.TextInput(attrs={"autocomplete": "off"})
        )
    if kind is bool:
        return forms.BooleanField(required=False, initial=default)
    if typing.get_origin(kind) is Literal:
        return forms.ChoiceField(choices=[(value, value) for value in typing.get_args(kind)], initial=default)
    mode = "numeric" if kind is int else "decimal"
    return forms.CharField(
        max_length=30,
        initial=format_number(default),
        widget=forms.TextInput(attrs={"inputmode": mode, "autocomplete": "off"}),
    )


def _reward_models() -> list[tuple[str, str]]:
    rewards = Checkpoint.objects.filter(kind=CheckpointKind.REWARD).order_by("-created_at")
    return [("", gettext("no reward model")), *((name, name) for name in rewards.values_list("name", flat=True))]


def _split_error(sentence: str, names: set[str]) -> tuple[str | None, str]:
    """A SpecError's sentence begins with the option that it is about."""
    match = re.match(r"(\w+):? ", sentence)
    if match is None or match[1] not in names:
        return None, sentence
    rest = sentence[match.end() :]
    return match[1], rest[:1].upper() + rest[1:] + "."


def _translated(text: str) -> str:
    """Empty stays empty: gettext answers "" with the catalogue's header."""
    return gettext(text) if text else ""


def _as_html(text: str) -> str:
    return re.sub(r"`(\w+)`", r"<code>\1</code>", escape(text))


@functools.cache
def option_help(method: str) -> dict[str, str]:
    """The string under each field of the method's options dataclass, base classes included."""
    texts: dict[str, str] = {}
    for owner in reversed(OPTIONS[method].__mro__[:-1]):
        body = typing.cast("ast.ClassDef", ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]).body
        for field, below in itertools.pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                texts[field.target.id] = str(below.value.value)
    return texts
