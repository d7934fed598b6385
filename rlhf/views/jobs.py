"""The page that watches a training job."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

from django.contrib import messages
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET, require_http_methods

from annotation.services import DomainError
from rlhf import artifacts, launcher
from rlhf.category_changes import falls_of, tables_of
from rlhf.costs import cost_of, hardware_of
from rlhf.jobspec import LOG_FILE, SPEC_FILE
from rlhf.launch_commands import notes
from rlhf.models import CancelMode, FailureClass, JobStatus, TrainingJob
from rlhf.option_words import format_number
from rlhf.options import OPTIONS, SpecError, build_options
from rlhf.prompt_tables import prompt_tables
from rlhf.services import broker_is_up, seconds_left, stop_training_job
from rlhf.services.jobs import checkpoint_to_go_on_from, half_micro_batch
from rlhf.services.workers import Queue
from rlhf.shares import held_out_accuracy
from rlhf.snapshots import SPLITS
from rlhf.views.access import StaffRequest, as_sentence, staff_required
from rlhf.views.alarm_words import alarm_title, shown_alarms
from rlhf.views.csv_files import csv_response
from rlhf.views.evaluation_plans import plans_of
from rlhf.views.job_figures import figures_of, score_lines
from rlhf.views.job_insights import batch_tab, extremes_tab, samples_tab
from rlhf.views.job_words import checks_of, what_to_do

METRIC_ROWS_SHOWN = 20
LOG_LINES = 200
LOG_BYTES = 64_000
TABS = {
    "curves": _("Curves"),
    "samples": _("Samples"),
    "batch": _("First batch"),
    "extremes": _("Best and worst"),
    "evaluations": _("Evaluations"),
    "log": _("Log"),
    "options": _("Options and command"),
}
MERGE_TABS = {"curves": _("Result")} | {name: TABS[name] for name in ("evaluations", "log", "options")}
"""A merge learns nothing, so there is nothing to draw."""


def _find_job(pk: int) -> TrainingJob:
    return get_object_or_404(
        TrainingJob.objects.select_related("snapshot__project", "base", "checkpoint__source", "created_by"), pk=pk
    )


def _progress(job: TrainingJob) -> dict[str, Any]:
    last = job.job_metrics.filter(values__has_key="loss").order_by("-step").values_list("values", flat=True).first()
    values = last or {}
    queued = job.status == JobStatus.QUEUED
    queue = Queue.now() if queued else None
    checkpoint = checkpoint_to_go_on_from(job)
    ran_out_of_memory = job.status == JobStatus.FAILED and job.failure_class == FailureClass.OUT_OF_MEMORY
    return {
        "job": job,
        "seconds_left": seconds_left(job),
        "tokens_per_second": values.get("tokens_per_second"),
        "peak_memory_gb": values.get("peak_memory_gb") or job.metrics.get("peak_memory_gb"),
        "train": job.preflight.get("train", {}),
        "jobs_before": queue.jobs_before(job) if queue else 0,
        "waits_because": queue.reason(job) if queue else "",
        "broker_is_away": queued and not broker_is_up(),
        "alarms": shown_alarms(list(job.alarms.all())),
        "paused_for": alarm_title(job.paused_for),
        "cost": cost_of(job, hardware_of([job]).get(job.pk)),
        "goes_on_from": checkpoint,
        "half_micro_batch": half_micro_batch(job) if ran_out_of_memory else None,
        "advice": what_to_do(FailureClass(job.failure_class), checkpoint) if job.error else "",
    }


@staff_required
@require_GET
def job_detail(request: StaffRequest, pk: int) -> HttpResponse:
    job = _find_job(pk)
    tabs = TABS if job.snapshot_id else MERGE_TABS
    tab = request.GET.get("tab", "curves")
    tab = tab if tab in tabs else "curves"
    tables, on_prompts = tables_of(job), prompt_tables(job)
    falls = falls_of(job, [*tables, *(table for table, _pending in on_prompts)])
    context = _progress(job) | {"tab": tab, "tabs": tabs, "falls": falls}
    if tab == "curves":
        context |= figures_of(job) | {
            "checks": checks_of(job.preflight),
            "accuracy": held_out_accuracy(job.metrics),
            "left_out": len({row["comparison"] for row in _left_out(job)}),
            "metric_rows": list(job.job_metrics.order_by("-step")[:METRIC_ROWS_SHOWN]),
        }
    elif tab == "samples":
        context |= samples_tab(job, request)
    elif tab == "batch":
        context |= batch_tab(job)
    elif tab == "extremes":
        context |= extremes_tab(job)
    elif tab == "evaluations":
        context |= {"tables": [(table, score_lines(table)) for table in tables], "plans": plans_of(job)}
        context["on_prompts"] = [(table, pending, score_lines(table)) for table, pending in on_prompts]
    elif tab == "log":
        context |= {"log": read_log(job), "log_lines": LOG_LINES}
    else:
        context |= {"options": _described_options(job), "commands": _commands(job), "notes": _notes(job)}
    return render(request, "rlhf/job.html", context)


@staff_required
@require_GET
def job_progress(request: StaffRequest, pk: int) -> HttpResponse:
    """The head of a job's page, for a page that is watching it; tells it to load anew once the job has ended."""
    job = _find_job(pk)
    response = render(request, "rlhf/_job_progress.html", _progress(job))
    if job.is_finished:
        response["HX-Refresh"] = "true"
    return response


@staff_required
@require_GET
def job_log(request: StaffRequest, pk: int) -> HttpResponse:
    """The end of the log alone, for a page that is watching it."""
    job = _find_job(pk)
    return render(request, "rlhf/_job_log.html", {"job": job, "log": read_log(job), "log_lines": LOG_LINES})


@staff_required
@require_http_methods(["GET", "POST"])
def job_stop(request: StaffRequest, pk: int) -> HttpResponse:
    """Ask before stopping, then stop: what a job has not saved cannot be brought back."""
    job = _find_job(pk)
    if request.method == "GET":
        waits = job.status in (JobStatus.QUEUED, JobStatus.PAUSED)
        context = {"job": job, "mode": request.GET.get("mode", CancelMode.KEEP), "waits": waits}
        return render(request, "rlhf/job_stop.html", context)
    mode = request.POST.get("mode", "")
    try:
        if mode not in (CancelMode.KEEP, CancelMode.DISCARD):
            raise DomainError(gettext("say whether to keep or to discard what was learnt"))
        stop_training_job(job, mode)
    except DomainError as error:
        messages.error(request, as_sentence(error))
    return redirect("job_detail", pk=pk)


@staff_required
@require_GET
def job_left_out(request: StaffRequest, pk: int) -> StreamingHttpResponse:
    """The comparisons that the job does not train on, or not to their end, and why."""
    response = csv_response(iter(_left_out(_find_job(pk))))
    response["Content-Disposition"] = f'attachment; filename="job-{pk}-left-out.csv"'
    return response


def _left_out(job: TrainingJob) -> list[dict[str, Any]]:
    return [
        {"comparison": comparison, "split": split, "what": what}
        for split in SPLITS
        for what, comparisons in job.preflight.get(split, {}).get("left_out", {}).items()
        for comparison in comparisons
    ]


def read_log(job: TrainingJob) -> str:
    """The last lines of the process's output as plain text, or "" where there is none yet."""
    try:
        with (job.directory / LOG_FILE).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - LOG_BYTES))
            data = file.read()
    except OSError:
        data = _stored_log(job)
    text = data.decode(errors="replace").replace("\r\n", "\n")
    kept = "\n".join(text.split("\n")[-LOG_LINES - 1 :])
    return "".join(character for character in kept if character in "\n\t" or character.isprintable())


def _stored_log(job: TrainingJob) -> bytes:
    """The end of the log that another machine has stored."""
    if not artifacts.is_shared():
        return b""
    try:
        return artifacts.read_log(job.pk)[-LOG_BYTES:]
    except artifacts.StorageError:
        return b""


def _commands(job: TrainingJob) -> list[tuple[str, str]]:
    """(host, command) of each machine; nothing where no worker has prepared the job's directory here."""
    if (job.directory / SPEC_FILE).exists():
        try:
            root = shlex.quote(str(launcher.PROJECT_ROOT))
            commands = launcher.host_commands(job.directory)
            return [(host, f"cd {root} && {shlex.join(command)}") for host, command in commands]
        except SpecError as error:
            return [("", str(error))]
    return []


def _notes(job: TrainingJob) -> list[str]:
    try:
        return [gettext(note) for note in notes(build_options(job.method, job.options), job.gpus)]
    except SpecError:  # options of another version of this code
        return []


def _described_options(job: TrainingJob) -> list[tuple[str, str, str]]:
    """Name, value, and the default where the value differs from it."""
    defaults = OPTIONS[job.method]()
    known = [field.name for field in dataclasses.fields(defaults) if field.name in job.options]
    described = []
    # In the order of the form: the database keeps keys in one of its own. An old job may have options that are gone.
    for name in [*known, *(set(job.options) - set(known))]:
        value = job.options[name]
        default = getattr(defaults, name, value)
        described.append((name, format_number(value), "" if value == default else format_number(default)))
    return described
