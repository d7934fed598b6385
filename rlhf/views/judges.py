"""Judges: what they are asked, their runs, and their cards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db.models import Exists, OuterRef
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.text import slugify
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation.models import Annotator, Comparison, Judgment, Project, Prompt, ResponseSource, SourceKind
from annotation.services import DomainError
from rlhf.evaluation.fb_bench import TASKS
from rlhf.judges import charts, wording
from rlhf.judges.card import REASONS, Verdicts, make_card
from rlhf.judges.verdicts import of_this, progress_of, report_of, verdict_rows, verdicts_of_annotator, verdicts_of_run
from rlhf.models import JudgeKind, JudgeOutcome, JudgePrompt, JudgeRun, JudgeScope, PromptLanguage
from rlhf.services import broker_is_up, request_cancel
from rlhf.services.judging import edit_prompt, prompts_in_force, queue_judge_run, reopen_judge_run, take_votes
from rlhf.views.access import StaffRequest, as_sentence, is_htmx, staff_required

RUNS_SHOWN = 50
VERDICTS_A_PAGE = 25


class RunForm(forms.Form):
    project = forms.ModelChoiceField(Project.objects.order_by("name"), label=_("Project"), empty_label=None)
    judge = forms.ModelChoiceField(
        ResponseSource.objects.filter(kind=SourceKind.MODEL).order_by("name"), label=_("Who judges")
    )
    kind = forms.ChoiceField(choices=JudgeKind.choices, label=_("How it is asked"))
    scope = forms.ChoiceField(
        choices=[choice for choice in JudgeScope.choices if choice[0] != JudgeScope.EVALUATION], label=_("About what")
    )
    language = forms.ChoiceField(choices=PromptLanguage.choices, label=_("Language of the judge’s prompt"))
    limit = forms.IntegerField(
        min_value=1, required=False, label=_("Comparisons at most"), help_text=_("Evenly drawn; empty: all.")
    )
    max_tokens = forms.IntegerField(min_value=1, max_value=100_000, initial=1024, label=_("Tokens of a verdict"))
    attempts = forms.IntegerField(min_value=1, max_value=10, initial=3, label=_("Tries of a verdict"))
    parallel = forms.IntegerField(min_value=1, max_value=64, initial=8, label=_("Requests at a time"))


class PromptForm(forms.Form):
    text = forms.CharField(
        label=_("What the judge is asked"),
        max_length=wording.MAX_TEXT_CHARS,
        widget=forms.Textarea(attrs={"rows": 24, "spellcheck": "false"}),
    )
    asks_sameness = forms.BooleanField(
        required=False,
        label=_("Also ask whether both reach the same result, and by the same reasoning"),
    )
    based_on = forms.IntegerField(widget=forms.HiddenInput)


@staff_required
@require_GET
def judge_home(request: StaffRequest) -> HttpResponse:
    runs = JudgeRun.objects.select_related("project", "judge").order_by("-pk")[:RUNS_SHOWN]
    votes = Judgment.objects.filter(annotator=OuterRef("pk"), superseded_at=None)
    models = Annotator.objects.filter(Exists(votes), is_human=False).select_related("project").order_by("name")
    context = {"runs": [(run, progress_of(run)) for run in runs], "models": models[:RUNS_SHOWN]}
    return render(request, "rlhf/judges.html", context)


# ── What is asked ────────────────────────────────────────────────────────────────────────────────────────────────


@staff_required
@require_GET
def judge_prompts(request: StaffRequest) -> HttpResponse:
    kinds = []
    for kind in JudgeKind:
        prompts = [prompt for language in PromptLanguage for prompt in prompts_in_force(kind, language).values()]
        kinds.append((kind, sorted(prompts, key=lambda prompt: (prompt.task, prompt.language))))
    return render(request, "rlhf/judge_prompts.html", {"kinds": kinds, "place_form": _PlaceForm()})


class _PlaceForm(forms.Form):
    """Which prompt to open: of a task that has none yet, the general one as a beginning."""

    kind = forms.ChoiceField(choices=JudgeKind.choices, label=_("How it is asked"))
    task = forms.CharField(
        max_length=60,
        required=False,
        label=_("Task"),
        help_text=_("As prompts name it; empty: any task without words of its own."),
        widget=forms.TextInput(attrs={"list": "tasks"}),
    )
    language = forms.ChoiceField(choices=PromptLanguage.choices, label=_("Language"))

    @property
    def tasks(self) -> list[str]:
        known = Prompt.objects.exclude(task="").order_by("task").values_list("task", flat=True).distinct()[:100]
        return sorted({*TASKS, *known})


@staff_required
@require_http_methods(["GET", "POST"])
def judge_prompt(request: StaffRequest) -> HttpResponse:
    """One prompt and its versions; which, the query says."""
    place = _PlaceForm(request.GET)
    if not place.is_valid():
        raise Http404
    kind, task, language = (place.cleaned_data[name] for name in ("kind", "task", "language"))
    task = task.strip()
    in_force = prompts_in_force(kind, language)
    newest, general = in_force.get(task), in_force[""]
    stored = JudgePrompt.objects.filter(kind=kind, task=task, language=language).order_by("-version")
    versions = list(stored.select_related("created_by")) or [one for one in (newest,) if one]
    wanted = request.GET.get("version", "")
    shown = next((one for one in versions if str(one.version) == wanted), newest or general)
    form = PromptForm(
        request.POST or None,
        initial={
            "text": shown.text,
            "asks_sameness": shown.asks_sameness,
            "based_on": newest.version if newest else 0,
        },
    )
    if kind != JudgeKind.PAIR:
        del form.fields["asks_sameness"]
    if request.method == "POST" and form.is_valid():
        try:
            saved = edit_prompt(kind, task, language, by=request.user, **form.cleaned_data)
        except DomainError as error:
            form.add_error(None, as_sentence(error))
        else:
            messages.success(
                request, gettext("Version %(version)s is in force for runs to come.") % {"version": saved.version}
            )
            query = urlencode({"kind": kind, "task": task, "language": language})
            return redirect(f"{reverse('judge_prompt')}?{query}")
    context = {
        "form": form,
        "kind": JudgeKind(kind),
        "task": task,
        "asked_in": PromptLanguage(language),
        "newest": newest,
        "shown": shown,
        "versions": versions,
        "placeholders": [f"{{{name}}}" for name in wording.PLACEHOLDERS[kind]],
        "json_form": wording.form_of(kind, language, asks_sameness=shown.asks_sameness),
    }
    return render(request, "rlhf/judge_prompt.html", context, status=422 if form.errors else 200)


# ── Runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@staff_required
@require_http_methods(["GET", "POST"])
def judge_run_new(request: StaffRequest) -> HttpResponse:
    initial = {"language": "zh", "project": Project.objects.filter(slug=request.GET.get("project", "")).first()}
    form = RunForm(request.POST or None, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            run = queue_judge_run(**form.cleaned_data, created_by=request.user)
        except (DomainError, ValidationError) as error:
            form.add_error(None, as_sentence(error))
        else:
            return redirect("judge_run", pk=run.pk)
    return render(request, "rlhf/judge_run_new.html", {"form": form}, status=422 if form.errors else 200)


def _run_or_404(pk: int) -> JudgeRun:
    return get_object_or_404(JudgeRun.objects.select_related("project", "judge", "created_by"), pk=pk)


@staff_required
@require_GET
def judge_run(request: StaffRequest, pk: int) -> HttpResponse:
    run = _run_or_404(pk)
    report = run.report if run.is_finished and run.report else report_of(run)
    card = report.get("card")
    outcome = request.GET.get("outcome", "")
    verdicts = run.verdicts.exclude(outcome=JudgeOutcome.OPEN)
    if outcome in JudgeOutcome.values and outcome:
        verdicts = verdicts.filter(outcome=outcome)
    verdicts = verdicts.select_related(
        "comparison__prompt",
        "comparison__response_a__source",
        "comparison__response_b__source",
        "response__prompt",
        "response__source",
    ).order_by("comparison", "response", "is_swapped")
    page = Paginator(verdicts, VERDICTS_A_PAGE).get_page(request.GET.get("page"))
    context = {
        **_progress_context(run),
        "report": report,
        "card": card,
        # The report keeps them in the language of the worker.
        "reasons": [words for code, words in REASONS.items() if card and code in card["reasons"]],
        "prompts": JudgePrompt.objects.filter(pk__in=run.prompt_ids).order_by("task"),
        "failures": [
            (kind, JudgeOutcome(kind).label, count)
            for kind, count in report["failures"].items()
            if kind in JudgeOutcome.values
        ],
        "scores": charts.histogram_of(report.get("scores", {})),
        "outcome": outcome,
        "outcomes": [(value, label) for value, label in JudgeOutcome.choices if value],
        "page": page,
    }
    return render(request, "rlhf/judge_run.html", context)


def _progress_context(run: JudgeRun) -> dict[str, Any]:
    return {"run": run, "progress": progress_of(run), "broker_is_up": run.is_finished or broker_is_up()}


@staff_required
@require_GET
def judge_run_progress(request: StaffRequest, pk: int) -> HttpResponse:
    run = _run_or_404(pk)
    answer = render(request, "rlhf/_judge_progress.html", _progress_context(run))
    if run.is_finished and is_htmx(request):
        answer["HX-Refresh"] = "true"
    return answer


@staff_required
@require_POST
def judge_run_act(request: StaffRequest, pk: int) -> HttpResponse:
    """Stop a run, take it up again, or take its verdicts over as votes."""
    run = _run_or_404(pk)
    action = request.POST.get("action")
    try:
        if action == "stop":
            request_cancel(run)
        elif action == "go_on" and not reopen_judge_run(run):
            raise DomainError(gettext("This run cannot be taken up: it is under way, or finished."))
        elif action == "retry" and not reopen_judge_run(run, retry_failures=True):
            raise DomainError(gettext("This run cannot be taken up: it is under way."))
        elif action == "votes":
            taken = take_votes(run, make_card(run.project, verdicts_of_run(run)), of_this(run)[0], by=request.user)
            messages.success(
                request,
                gettext(
                    "%(votes)s votes are kept under the name %(name)s; %(already_there)s were there before. Without a "
                    "vote: %(position_dependent)s that turn with the order, %(unusable)s without a usable verdict."
                )
                % {**taken, "name": run.voter_name},
            )
    except DomainError as error:
        messages.error(request, as_sentence(error))
    return redirect("judge_run", pk=pk)


@staff_required
@require_GET
def judge_run_export(request: StaffRequest, pk: int) -> HttpResponseBase:
    """Every question of the run and what came of it, one JSON object a line."""
    run = _run_or_404(pk)
    answer = StreamingHttpResponse(_lines(verdict_rows(run)), content_type="application/jsonl")
    stem = slugify(f"{run.judge.name} {run.kind} {run.pk}")
    answer["Content-Disposition"] = f'attachment; filename="{stem}.jsonl"'
    return answer


def _lines(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield json.dumps(row, ensure_ascii=False) + "\n"


# ── Cards ────────────────────────────────────────────────────────────────────────────────────────────────────────


@staff_required
@require_GET
def judge_run_card(request: StaffRequest, pk: int) -> HttpResponse:
    run = _run_or_404(pk)
    facts = {"run": run, "runs": run.same_judge.order_by("pk"), "name": run.judge.name}
    return _card(request, run.project, verdicts_of_run(run), facts)


@staff_required
@require_GET
def judge_model_card(request: StaffRequest, pk: int) -> HttpResponse:
    """The card of a model whose votes came with imported data."""
    annotator = get_object_or_404(
        Annotator.objects.select_related("project"), pk=pk, is_human=False, project__isnull=False
    )
    assert annotator.project is not None  # as the query says
    return _card(request, annotator.project, verdicts_of_annotator(annotator), {"name": annotator.name})


def _card(request: StaffRequest, project: Project, verdicts: Verdicts, facts: dict[str, Any]) -> HttpResponse:
    people = request.GET.get("people", "").strip()[:200] or "*"
    card = make_card(project, verdicts, is_counted=lambda name: fnmatchcase(name, people))
    contradicted = Comparison.objects.filter(pk__in=card.contradicted).select_related(
        "prompt", "response_a__source", "response_b__source"
    )
    words = {0: "a", 2: "b"}
    context = {
        **facts,
        "project": project,
        "card": card,
        "people": people,
        "agreement": charts.agreement_dots(card),
        "partiality": charts.partiality_dots(card),
        "by_task": charts.task_dots(card),
        "contradicted": [(one, words[verdicts.codes[one.pk]]) for one in contradicted],
    }
    return render(request, "rlhf/judge_card.html", context)
