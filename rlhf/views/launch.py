"""Launching a job: the form, the checks between it and the start, and the start."""

from __future__ import annotations

import dataclasses
import shlex
from itertools import groupby
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext
from django.views.decorators.http import require_GET, require_http_methods

from annotation.services import DomainError
from rlhf.checkpoint_layers import advice_for
from rlhf.footprint import ModelSize
from rlhf.forms import ConfigForm, LaunchForm, OptionsForm
from rlhf.launch_config import LaunchConfig
from rlhf.models import (
    Checkpoint,
    CheckpointKind,
    DatasetSnapshot,
    LaunchCheck,
    Method,
    Priority,
    ProbeStatus,
    TrainingJob,
)
from rlhf.option_words import format_number
from rlhf.options import OPTIONS, SpecError
from rlhf.preflight import Level, worst
from rlhf.preflight.lengths import samples
from rlhf.recipes import Recipe, find_recipe
from rlhf.services import check_launch, request_probe, start_checked_job
from rlhf.services.aliases import resolve_alias
from rlhf.services.launching import findings_of, is_being_measured, launch_config
from rlhf.token_lengths import Token, TokenCounter
from rlhf.views.access import StaffRequest, as_sentence, is_htmx, staff_required
from rlhf.views.histogram import draw_histogram
from rlhf.views.job_words import Check, checks_of

# Merging takes no data set and has a page of its own.
METHODS = [method for method in OPTIONS if method != Method.MERGE]


@staff_required
@require_http_methods(["GET", "POST"])
def job_new(request: StaffRequest) -> HttpResponse:
    if request.method == "GET":
        launch, options = _opening_forms(request)
        if is_htmx(request):
            return render(request, "rlhf/_job_options.html", {"options": options, **_of_base(launch, options)})
        return _form_page(request, launch, options)
    if request.POST.get("step") == "load":
        return _load_config(request)
    launch = LaunchForm(request.POST)
    method = request.POST.get("method", "")
    if method not in METHODS:
        launch.is_valid()  # says so on the field
        return _form_page(request, launch, OptionsForm(Method.DPO), status=422)
    if request.POST.get("step") == "method":  # without scripts a button shows the chosen method's options
        given = {name: request.POST.get(name, "") for name in LaunchForm.base_fields}
        recipe = _recipe(request.POST, method)
        return _form_page(request, LaunchForm(initial=given), OptionsForm(method, recipe=recipe))
    options = OptionsForm(method, request.POST)
    if not (launch.is_valid() & options.is_valid()):
        return _form_page(request, launch, options, status=422)
    try:
        check = check_launch(**launch.cleaned_data, options=options.cleaned_data, created_by=request.user)
    except DomainError as error:
        launch.add_error(None, as_sentence(error))
    else:
        return redirect("launch_check", pk=check.pk)
    return _form_page(request, launch, options, status=422)


@staff_required
@require_GET
def layer_advice(request: StaffRequest) -> HttpResponse:
    """How many layers one gradient checkpoint should span in the base that the form has chosen."""
    return render(request, "rlhf/_layer_advice.html", _advice(LaunchForm(request.GET)))


@staff_required
@require_GET
def recipe_choice(request: StaffRequest) -> HttpResponse:
    """The method's recipes, those for a model of the chosen base's size first."""
    launch, options = _opening_forms(request)
    return render(request, "rlhf/_recipes.html", {"options": options, **_of_base(launch, options)})


def _of_base(launch: LaunchForm, options: OptionsForm) -> dict[str, Any]:
    """What the options page says of the base that is chosen."""
    advice = _advice(launch)
    return {**advice, "recipe_groups": _recipe_groups(options.recipes(), advice["advised_base"])}


def _recipe_groups(recipes: list[Recipe], base: Checkpoint | None) -> list[tuple[str, list[Recipe]]]:
    """Recipes under headings; under none where nothing is known of the base."""
    try:
        parameters = ModelSize.of(base.path).parameters if base else None
    except (SpecError, OSError, ValueError):  # half-written: the checks say so
        parameters = None
    if base is None or parameters is None:
        return [("", recipes)]
    fitting = [recipe for recipe in recipes if recipe.suits(parameters)]
    others = [recipe for recipe in recipes if recipe not in fitting]
    for_base = gettext("For the size of %(name)s") % {"name": base.name}
    groups = [(for_base, fitting), (gettext("For models of another size"), others)]
    return [group for group in groups if group[1]]


def _advice(launch: LaunchForm) -> dict[str, Any]:
    given = launch["base"].value()
    try:
        base = launch.fields["base"].clean(given) if given else None
    except ValidationError:
        base = None
    return {"advised_base": base, "advice": advice_for(base.path) if base else None}


def _opening_forms(request: HttpRequest) -> tuple[LaunchForm, OptionsForm]:
    """The forms as the address asks for them: a job to clone, a launch to change, or what to begin with."""
    source = _named(TrainingJob, request.GET.get("clone", "")) or _named(LaunchCheck, request.GET.get("check", ""))
    if source is not None and source.snapshot_id is not None:
        given: dict[str, Any] = {
            "snapshot": source.snapshot_id,
            "base": source.base_id,
            "method": source.method,
            "name": source.name if isinstance(source, LaunchCheck) else "",
            **source.placement,
        }
        return LaunchForm(initial=given), OptionsForm(source.method, initial=_as_typed(source.options))
    method = request.GET.get("method", Method.DPO)
    method = method if method in METHODS else Method.DPO
    given = {name: request.GET[name] for name in ("snapshot", "base", "name") if name in request.GET}
    return LaunchForm(initial={**given, "method": method}), OptionsForm(method, recipe=_recipe(request.GET, method))


def _recipe(given: QueryDict, method: str) -> Recipe | None:
    recipe = find_recipe(given.get("recipe", ""))
    return recipe if recipe and recipe.method == method else None


def _load_config(request: HttpRequest) -> HttpResponse:
    """The forms filled from a file; what it names and is not here is said above them."""
    form = ConfigForm(request.POST, request.FILES)
    if not form.is_valid():
        return _form_page(request, LaunchForm(), OptionsForm(Method.DPO), status=422, config=form)
    config: LaunchConfig = form.cleaned_data["config"]
    if config.method not in METHODS:
        form.add_error("config", gettext("Merging has a page of its own, under Checkpoints; or use train --config."))
        return _form_page(request, LaunchForm(), OptionsForm(Method.DPO), status=422, config=form)
    snapshot = DatasetSnapshot.objects.select_related("project").filter(name=config.snapshot).first()
    base = _base_of(config, snapshot)
    given: dict[str, Any] = {"snapshot": snapshot and snapshot.pk, "base": base and base.pk}
    given |= {"label": config.label, "gpus": config.gpus, "priority": Priority[config.priority.upper()]}
    launch = LaunchForm(initial={**given, "name": config.name, "method": config.method})
    if config.snapshot and not snapshot:
        sentence = gettext("There is no data set %(name)s here: choose one.")
        messages.warning(request, sentence % {"name": config.snapshot})
    if config.base and not base:
        sentence = gettext("There is no checkpoint %(name)s here: choose one.")
        messages.warning(request, sentence % {"name": config.base})
    return _form_page(request, launch, OptionsForm(config.method, initial=_as_typed(config.options)))


def _base_of(config: LaunchConfig, snapshot: DatasetSnapshot | None) -> Checkpoint | None:
    """What the file names, by name or by alias. A path in a file that somebody uploads is not looked at."""
    base = Checkpoint.objects.filter(name=config.base).first()
    if base is None and config.base:
        try:
            base = resolve_alias(config.base, snapshot.project if snapshot else None)
        except DomainError:  # several projects have such an alias
            return None
    return base if base and base.kind == CheckpointKind.POLICY else None


def _named(model: type[Any], number: str) -> Any:
    return model.objects.filter(pk=number).first() if number.isdecimal() and len(number) < 19 else None


def _as_typed(options: dict[str, Any]) -> dict[str, Any]:
    """Options as a person would type them."""
    return {name: value if isinstance(value, bool) else format_number(value) for name, value in options.items()}


def _form_page(
    request: HttpRequest,
    launch: LaunchForm,
    options: OptionsForm,
    status: int = 200,
    config: ConfigForm | None = None,
) -> HttpResponse:
    context = {"launch": launch, "options": options, "config": config or ConfigForm(), **_of_base(launch, options)}
    return render(request, "rlhf/job_new.html", context, status=status)


@staff_required
@require_GET
def job_config(request: StaffRequest, pk: int, suffix: str) -> HttpResponse:
    return _config_file(get_object_or_404(TrainingJob.objects.select_related("snapshot", "base"), pk=pk), suffix)


@staff_required
@require_GET
def check_config(request: StaffRequest, pk: int, suffix: str) -> HttpResponse:
    return _config_file(_find_check(pk), suffix)


def _config_file(source: TrainingJob | LaunchCheck, suffix: str) -> HttpResponse:
    """The launch as a file that the form and `train --config` read."""
    config = launch_config(source)
    if suffix not in ("json", "toml"):
        raise Http404
    text = config.as_json() if suffix == "json" else config.as_toml()
    response = HttpResponse(text, content_type=f"application/{suffix}")
    name = source.name or f"{source.method}-{source.pk}"
    response["Content-Disposition"] = f'attachment; filename="{name}.{suffix}"'
    return response


# ── Between the form and the start ───────────────────────────────────────────────────────────────────────────────


@staff_required
@require_http_methods(["GET", "POST"])
def launch_check(request: StaffRequest, pk: int) -> HttpResponse:
    check = _find_check(pk)
    if check.job is not None:
        return redirect("job_detail", pk=check.job.pk)
    if request.method == "GET":
        return render(request, "rlhf/launch_check.html", _found(check) | _shown(check))
    try:
        if request.POST.get("step") == "measure":
            request_probe(check)
            return redirect("launch_check", pk=pk)
        job = start_checked_job(check, proceed="proceed" in request.POST, created_by=request.user)
    except DomainError as error:
        messages.error(request, as_sentence(error))
        return redirect("launch_check", pk=pk)
    return redirect("job_detail", pk=job.pk)


@staff_required
@require_GET
def launch_found(request: StaffRequest, pk: int) -> HttpResponse:
    """What was found, alone, for a page that waits for a worker."""
    return render(request, "rlhf/_launch_found.html", _found(_find_check(pk)))


def _find_check(pk: int) -> LaunchCheck:
    return get_object_or_404(LaunchCheck.objects.select_related("snapshot", "base__source", "job"), pk=pk)


def _found(check: LaunchCheck) -> dict[str, Any]:
    findings = findings_of(check)
    lines = checks_of({**check.outcome, "checks": [finding.as_json() for finding in findings]})
    level = worst(findings)
    return {
        "check": check,
        "problems": _by_concern([line for line in lines if line.tone != "good"]),
        "passes": _by_concern([line for line in lines if line.tone == "good"]),
        "passed_count": sum(line.tone == "good" for line in lines),
        "level": level.name.lower(),
        "can_start": level < Level.REFUSED,
        "blocked": sum(finding.level == Level.BLOCKED for finding in findings),
        "warned": sum(finding.level == Level.WARNED for finding in findings),
        "being_measured": is_being_measured(check),
        "is_measured": check.probe_status == ProbeStatus.DONE,
    }


def _by_concern(lines: list[Check]) -> dict[str, list[Check]]:
    groups: dict[str, list[Check]] = {}
    for line in lines:
        groups.setdefault(line.concern, []).append(line)
    return groups


def _shown(check: LaunchCheck) -> dict[str, Any]:
    """What the page draws beside the findings."""
    try:
        counter = TokenCounter(check.base.path)
        cut_at = check.options["max_tokens"] if check.options.get("long_rows") == "truncate" else None
        shown = list(samples(check.snapshot, check.method, counter, check.outcome["sample_ids"], cut_at=cut_at))
    except (SpecError, OSError):  # the base or the data set went away since
        shown = []
    defaults = dataclasses.asdict(OPTIONS[check.method]())
    return {
        "report": check.outcome,
        "histogram": draw_histogram(check.outcome["histogram"]),
        "samples": [
            (sample.comparison, [(side, _runs(side.read), _runs(side.learnt)) for side in sample.sides])
            for sample in shown
        ],
        "options": [
            (name, format_number(check.options[name]), check.options[name] == default)
            for name, default in defaults.items()
            if name in check.options
        ],
        "command": launch_command(check),
    }


def launch_command(check: LaunchCheck | TrainingJob) -> str:
    """The command that launches the same from a terminal; options at their defaults are left out."""
    defaults = OPTIONS[check.method]()
    parts = ["python", "manage.py", "train", "--method", check.method]
    parts += ["--snapshot", check.snapshot.name] if check.snapshot else []
    parts += ["--base", check.base.name]
    if check.name:
        parts += ["--name", check.name]
    if check.label:
        parts += ["--label", check.label]
    if check.gpus:
        parts += ["--gpus", str(check.gpus)]
    if check.priority != Priority.NORMAL:
        parts += ["--priority", Priority(check.priority).name.lower()]
    changed = [
        f"{name}={str(value).lower() if isinstance(value, bool) else format_number(value)}"
        for name, value in check.options.items()
        if value != getattr(defaults, name, None)
    ]
    return shlex.join([*parts, *(["--set", *changed] if changed else [])])


def _runs(tokens: list[Token]) -> list[tuple[bool, str]]:
    """(whether it is special, text) of tokens that stand together; line ends are made visible."""
    return [
        (special, "".join(token.text for token in group).replace("\n", "↵\n"))
        for special, group in groupby(tokens, key=lambda token: token.is_special)
    ]
