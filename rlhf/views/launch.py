"""Launching a job: the form, the checks between it and the start, and the start."""

from __future__ import annotations

import shlex
from itertools import groupby
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext
from django.views.decorators.http import require_GET, require_http_methods

from annotation.services import DomainError
from rlhf.forms import LaunchForm, OptionsForm
from rlhf.models import LaunchCheck, Method, Priority, ProbeStatus, TrainingJob
from rlhf.option_words import format_number
from rlhf.options import OPTIONS, SpecError, build_options
from rlhf.preflight import Level, worst
from rlhf.preflight.lengths import samples
from rlhf.services import check_launch, request_probe, start_checked_job
from rlhf.services.launching import findings_of, is_being_measured
from rlhf.token_lengths import Token, TokenCounter
from rlhf.views.access import StaffRequest, as_sentence, is_htmx, staff_required
from rlhf.views.histogram import draw_histogram
from rlhf.views.job_words import checks_of


@staff_required
@require_http_methods(["GET", "POST"])
def job_new(request: StaffRequest) -> HttpResponse:
    if request.method == "GET":
        launch, options = _opening_forms(request)
        if is_htmx(request):
            return render(request, "rlhf/_job_options.html", {"options": options})
        return _form_page(request, launch, options)
    launch = LaunchForm(request.POST)
    method = request.POST.get("method", "")
    if method not in OPTIONS:
        launch.is_valid()  # says so on the field
        return _form_page(request, launch, OptionsForm(Method.DPO), status=422)
    if request.POST.get("step") == "method":  # without scripts a button shows the chosen method's options
        given = {name: request.POST.get(name, "") for name in LaunchForm.base_fields}
        return _form_page(request, LaunchForm(initial=given), OptionsForm(method))
    options = OptionsForm(method, request.POST)
    if not (launch.is_valid() & options.is_valid()):
        return _form_page(request, launch, options, status=422)
    try:
        check = check_launch(**launch.cleaned_data, options=options.cleaned_data, created_by=request.user)
    except DomainError as error:
        launch.add_error(None, as_sentence(error))
    except OSError as error:
        problem = gettext("The data set cannot be read (%(reason)s). Nothing was started.")
        launch.add_error(None, problem % {"reason": error.strerror or error})
    else:
        return redirect("launch_check", pk=check.pk)
    return _form_page(request, launch, options, status=422)


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
    method = method if method in OPTIONS else Method.DPO
    given = {name: request.GET[name] for name in ("snapshot", "base", "name") if name in request.GET}
    return LaunchForm(initial={**given, "method": method}), OptionsForm(method)


def _named(model: type[Any], number: str) -> Any:
    return model.objects.filter(pk=number).first() if number.isdecimal() and len(number) < 19 else None


def _as_typed(options: dict[str, Any]) -> dict[str, Any]:
    """Options as a person would type them."""
    return {name: value if isinstance(value, bool) else format_number(value) for name, value in options.items()}


def _form_page(request: HttpRequest, launch: LaunchForm, options: OptionsForm, status: int = 200) -> HttpResponse:
    return render(request, "rlhf/job_new.html", {"launch": launch, "options": options}, status=status)


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
    groups = [(concern, list(group)) for concern, group in groupby(lines, key=lambda line: line.concern)]
    level = worst(findings)
    return {
        "check": check,
        "groups": _merged(groups),
        "level": level.name.lower(),
        "can_start": level < Level.REFUSED,
        "blocked": sum(finding.level == Level.BLOCKED for finding in findings),
        "warned": sum(finding.level == Level.WARNED for finding in findings),
        "being_measured": is_being_measured(check),
        "is_measured": check.probe_status == ProbeStatus.DONE,
    }


def _merged(groups: list[tuple[str, list[Any]]]) -> dict[str, list[Any]]:
    merged: dict[str, list[Any]] = {}
    for name, lines in groups:
        merged.setdefault(name, []).extend(lines)
    return merged


def _shown(check: LaunchCheck) -> dict[str, Any]:
    """What the page draws beside the findings."""
    try:
        counter = TokenCounter(check.base.path)
        shown = list(samples(check.snapshot, check.method, counter, check.outcome["sample_ids"]))
    except (SpecError, OSError):  # the base or the data set went away since
        shown = []
    options = build_options(check.method, check.options)
    return {
        "report": check.outcome,
        "histogram": draw_histogram(check.outcome["histogram"]),
        "samples": [
            (sample.comparison, [(side, _runs(side.read), _runs(side.learnt)) for side in sample.sides])
            for sample in shown
        ],
        "options": [
            (name, format_number(value), format_number(value) == format_number(getattr(type(options)(), name)))
            for name, value in check.options.items()
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
    if check.priority:
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
