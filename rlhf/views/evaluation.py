"""The benchmarks' pages: leaderboards, runs, and what they gave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.text import slugify
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation.models import ResponseSource, SourceKind, Study
from annotation.services import DomainError
from rlhf.benchmark_charts import Bars, bars_of, scatter_of
from rlhf.benchmark_figures import (
    Row,
    agreements,
    answer_rows,
    figures_of,
    item_rows,
    judgment_rows,
    leaderboard,
    lines_of,
    progress_of,
    report_of,
    result_table,
)
from rlhf.evaluation.fb_bench import UnusableFileError
from rlhf.models import Benchmark, BenchmarkRun, BenchmarkSet, PromptLanguage
from rlhf.models.evaluation import DEFAULT_MAX_TOKENS
from rlhf.services import broker_is_up, request_cancel
from rlhf.services.benchmark_files import import_run_file, import_set_file
from rlhf.services.benchmarks import queue_benchmark_run, reopen_benchmark_run, set_name_of
from rlhf.spreadsheets import comma_separated, workbook
from rlhf.views import constraint_words
from rlhf.views.access import StaffRequest, as_sentence, is_htmx, staff_required
from rlhf.views.benchmark_left_out import left_out

MAX_FILE_BYTES = 50_000_000
STUDIES_SHOWN = 10
RUNS_SHOWN = 30
FB_BENCH_RATES = ("error_correction", "response_maintenance", "overall")


class FileForm(forms.Form):
    file = forms.FileField(label=_("File"), help_text=_("JSON or JSON lines in the authors’ shape."))

    def clean_file(self) -> Any:
        file = self.cleaned_data["file"]
        if file.size > MAX_FILE_BYTES:
            raise ValidationError(_("The file is larger than 50 MB."))
        return file


class DataSetField(forms.ModelChoiceField):
    def label_from_instance(self, obj: BenchmarkSet) -> str:
        return f"{obj.get_kind_display()}: {obj.name}"


class RunForm(forms.Form):
    data_set = DataSetField(BenchmarkSet.objects.order_by("-pk"), label=_("Data set"), empty_label=None)
    source = forms.ModelChoiceField(
        ResponseSource.objects.filter(kind=SourceKind.MODEL).order_by("name"), label=_("Who answers")
    )
    judge = forms.ModelChoiceField(
        ResponseSource.objects.filter(kind=SourceKind.MODEL).order_by("name"),
        label=_("Who judges"),
        required=False,
        empty_label=_("nobody for now: answers only"),
        help_text=_("People can tick the answers without a judge, and one can be asked later."),
    )
    prompt_language = forms.ChoiceField(choices=PromptLanguage.choices, label=_("Language of the judge’s prompt"))
    max_tokens = forms.IntegerField(
        min_value=1, max_value=100_000, initial=DEFAULT_MAX_TOKENS, label=_("Tokens of an answer")
    )
    judge_max_tokens = forms.IntegerField(
        min_value=1, max_value=100_000, initial=4096, label=_("Tokens of a judgment")
    )
    judge_attempts = forms.IntegerField(min_value=1, max_value=10, initial=3, label=_("Tries of a judgment"))
    parallel = forms.IntegerField(min_value=1, max_value=64, initial=8, label=_("Requests at a time"))


class JudgeAgainForm(forms.Form):
    judge = forms.ModelChoiceField(
        ResponseSource.objects.filter(kind=SourceKind.MODEL).order_by("name"), label=_("Who judges")
    )
    prompt_language = RunForm.base_fields["prompt_language"]
    judge_max_tokens = RunForm.base_fields["judge_max_tokens"]
    judge_attempts = RunForm.base_fields["judge_attempts"]


@staff_required
@require_GET
def evaluation_home(request: StaffRequest) -> HttpResponse:
    sets = list(BenchmarkSet.objects.order_by("-pk"))
    wanted = request.GET.get("set", "")
    shown = next((one for one in sets if str(one.pk) == wanted), sets[0] if sets else None)
    rows = leaderboard(shown) if shown else []
    runs = BenchmarkRun.objects.select_related("data_set", "source", "judge").order_by("-pk")[:RUNS_SHOWN]
    context = {
        "sets": sets,
        "shown": shown,
        "rows": rows,
        "is_mixed": len({row.run.conditions for row in rows}) > 1,
        "scatter": scatter_of(rows),
        "board": _board(shown.kind, rows) if shown else [],
        "rate_names": [name.upper() for name in constraint_words.RATES.get(shown.kind, ())] if shown else [],
        "agreements": _agreements(shown) if shown else [],
        "runs": [(run, progress_of(run)) for run in runs],
        "file_form": FileForm(),
        "studies": Study.objects.select_related("project", "source", "against").order_by("-pk")[:STUDIES_SHOWN],
    }
    return render(request, "rlhf/evaluation.html", context)


NOT_COMPARED = {
    "failed": _("unusable judgment"),
    "repetitive": _("refused for repetitions"),
    "lenient": _("read line by line"),
    "other_checklist": _("ticked by another version of the checklist"),
    "not_judged": _("not judged"),
}


def _agreements(data_set: BenchmarkSet) -> list[dict[str, Any]]:
    return [
        {
            "judge": one.judge,
            "share": one.share,
            "by_model": one.by_model,
            "compared": one.compared,
            "pairs": one.pairs,
            "left_out": [(label, one.left_out[key]) for key, label in NOT_COMPARED.items() if key in one.left_out],
        }
        for one in agreements(data_set)
    ]


def _board(kind: str, rows: list[Row]) -> list[tuple[Row, list[str]]]:
    """CFBench's and SysBench's lines with their rates."""
    names = constraint_words.RATES.get(kind, ())
    return [(row, [constraint_words.shown(row.figures[name]) for name in names]) for row in rows if names]


@staff_required
@require_POST
def benchmark_set_new(request: StaffRequest) -> HttpResponse:
    form = FileForm(request.POST, request.FILES)
    if not form.is_valid():
        messages.error(request, " ".join(str(error) for errors in form.errors.values() for error in errors))
        return redirect("evaluation_home")
    file = form.cleaned_data["file"]
    try:
        imported = import_set_file(file.read(), file.name, name=set_name_of(Path(file.name)), by=request.user)
    except UnusableFileError as error:
        messages.error(request, as_sentence(error))
        return redirect("evaluation_home")
    stored, count = imported.data_set, imported.items
    if imported.is_new:
        messages.success(
            request, ngettext("%(count)s item imported.", "%(count)s items imported.", count) % {"count": count}
        )
    else:
        messages.info(request, gettext("This file is here already, as %(name)s.") % {"name": stored.name})
    _warn_of(request, imported.refusals)
    return redirect("benchmark_set", pk=stored.pk)


def _warn_of(request: HttpRequest, refusals: Any) -> None:
    if not refusals:
        return
    shown = "; ".join(
        gettext("row %(row)s: %(reason)s") % {"row": refusal.row, "reason": refusal.reason} for refusal in refusals[:5]
    )
    count = len(refusals)
    text = ngettext("%(count)s row was left out: %(shown)s", "%(count)s rows were left out: %(shown)s", count)
    messages.warning(request, text % {"count": count, "shown": shown + (" …" if count > 5 else "")})


@staff_required
@require_POST
def benchmark_run_import(request: StaffRequest, pk: int) -> HttpResponse:
    data_set = get_object_or_404(BenchmarkSet, pk=pk)
    form = FileForm(request.POST, request.FILES)
    if not form.is_valid():
        messages.error(request, " ".join(str(error) for errors in form.errors.values() for error in errors))
        return redirect("benchmark_set", pk=pk)
    file = form.cleaned_data["file"]
    try:
        imported = import_run_file(data_set, file.read(), file.name, by=request.user)
    except UnusableFileError as error:
        messages.error(request, as_sentence(error))
        return redirect("benchmark_set", pk=pk)
    _warn_of(request, imported.refusals)
    return redirect("benchmark_run", pk=imported.runs[0].pk)


@staff_required
@require_http_methods(["GET", "POST"])
def benchmark_run_new(request: StaffRequest) -> HttpResponse:
    form = RunForm(request.POST or None, initial={"data_set": request.GET.get("set")})
    if request.method == "POST" and form.is_valid():
        try:
            run = queue_benchmark_run(**form.cleaned_data, created_by=request.user)
        except DomainError as error:
            form.add_error(None, as_sentence(error))
        else:
            return redirect("benchmark_run", pk=run.pk)
    return render(request, "rlhf/benchmark_run_new.html", {"form": form}, status=422 if form.errors else 200)


def _run_or_404(pk: int) -> BenchmarkRun:
    return get_object_or_404(
        BenchmarkRun.objects.select_related("data_set", "source", "judge", "answers_from", "created_by"), pk=pk
    )


@staff_required
@require_GET
def benchmark_run(request: StaffRequest, pk: int) -> HttpResponse:
    run = _run_or_404(pk)
    figures = figures_of(run) if run.is_finished else report_of(run)
    context = {
        **_progress_context(run),
        "figures": figures,
        **left_out(run, figures, request.GET),
        "judge_again": JudgeAgainForm() if run.is_finished else None,
        "judged_by_others": BenchmarkRun.objects.filter(answers_from=run.answering_run_id)
        .exclude(pk=run.pk)
        .select_related("judge"),
    }
    if run.data_set.kind == Benchmark.FB_BENCH:
        return render(request, "rlhf/benchmark_run.html", context | {"charts": _charts(figures)})
    context |= {
        "rates": constraint_words.rates_of(run.data_set.kind, figures),
        "tables": constraint_words.tables_of(run.data_set.kind, figures),
        "chart": constraint_words.bars(figures),
    }
    return render(request, "rlhf/constraint_run.html", context)


def _charts(figures: dict[str, Any]) -> list[Bars]:
    feedback = figures["by_feedback"]
    return [
        bars_of(gettext("By task"), figures["by_task"]),
        bars_of(
            gettext("By deficiency of the first response"),
            {name: {"error_correction": value} for name, value in figures["by_deficiency"].items()},
        ),
        bars_of(gettext("By kind of feedback"), feedback),
    ]


def _progress_context(run: BenchmarkRun) -> dict[str, Any]:
    progress = progress_of(run)
    return {"run": run, "progress": progress, "broker_is_up": run.is_finished or broker_is_up()}


@staff_required
@require_GET
def benchmark_run_progress(request: StaffRequest, pk: int) -> HttpResponse:
    run = _run_or_404(pk)
    answer = render(request, "rlhf/_benchmark_progress.html", _progress_context(run))
    if run.is_finished and is_htmx(request):
        answer["HX-Refresh"] = "true"
    return answer


@staff_required
@require_POST
def benchmark_run_act(request: StaffRequest, pk: int) -> HttpResponse:
    """Stop a run, take it up again, or have another judge tick its answers."""
    run = _run_or_404(pk)
    action = request.POST.get("action")
    try:
        if action == "stop":
            request_cancel(run)
        elif action == "go_on" and not reopen_benchmark_run(run):
            raise DomainError(gettext("This run cannot be taken up: it is under way, finished, or imported."))
        elif action == "retry" and not reopen_benchmark_run(run, retry_failures=True):
            raise DomainError(gettext("This run cannot be taken up: it is under way, or imported."))
        elif action == "judge_again":
            form = JudgeAgainForm(request.POST)
            if not form.is_valid():
                raise DomainError(" ".join(str(error) for errors in form.errors.values() for error in errors))
            again = queue_benchmark_run(
                data_set=run.data_set,
                source=run.source,
                answers_from=run,
                parallel=run.parallel,
                created_by=request.user,
                **form.cleaned_data,
            )
            return redirect("benchmark_run", pk=again.pk)
    except DomainError as error:
        messages.error(request, as_sentence(error))
    return redirect("benchmark_run", pk=pk)


@staff_required
@require_GET
def benchmark_run_export(request: StaffRequest, pk: int, name: str) -> HttpResponseBase:
    """answers and judgments in the authors' shapes; results.csv and results.xlsx for spreadsheets."""
    run = _run_or_404(pk)
    suffix = "jsonl" if run.data_set.kind == Benchmark.FB_BENCH else "json"
    rows = {f"answers.{suffix}": answer_rows, f"judgments.{suffix}": judgment_rows}
    answer: HttpResponseBase
    if name in rows:
        text = lines_of(rows[name](run), as_array=suffix == "json")
        answer = StreamingHttpResponse(text, content_type=f"application/{suffix}")
    elif name == "results.csv":
        answer = HttpResponse(comma_separated(result_table(run)), content_type="text/csv; charset=utf-8")
    elif name == "results.xlsx":
        content = workbook({"items": result_table(run), "figures": _figure_table(run)})
        answer = HttpResponse(
            content, content_type="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
        )
    else:
        raise Http404
    stem = slugify(f"{run.source.name} {run.judge.name if run.judge else ''}") or f"run-{run.pk}"
    answer["Content-Disposition"] = f'attachment; filename="{stem}.{name}"'
    return answer


def _figure_table(run: BenchmarkRun) -> list[list[Any]]:
    figures = figures_of(run)
    if run.data_set.kind != Benchmark.FB_BENCH:
        names = constraint_words.RATES[run.data_set.kind]
        table: list[list[Any]] = [["", *names]]
        table += [[name, *(figures[name][key] for key in names)] for name in ("at_worst", "at_best")]
        table.insert(1, ["all", *(figures[key] for key in names)])
        for found in constraint_words.tables_of(run.data_set.kind, figures):
            table += [[], [found.title, *found.columns], *([label, *cells] for label, cells in found.rows)]
        return table
    keys = FB_BENCH_RATES
    table = [["", *keys], ["macro", *(figures[key] for key in keys)]]
    table += [[name, *(figures[name][key] for key in keys)] for name in ("micro", "at_worst", "at_best")]
    table += [[name, *(values[key] for key in keys)] for name, values in figures["by_task"].items()]
    table += [[name, value, None, None] for name, value in figures["by_deficiency"].items()]
    table += [[name, *(values.get(key) for key in keys)] for name, values in figures["by_feedback"].items()]
    return table


@staff_required
@require_GET
def evaluation_export(request: StaffRequest, pk: int, name: str) -> HttpResponseBase:
    """The leaderboard of a data set, and its items in the authors' shape."""
    data_set = get_object_or_404(BenchmarkSet, pk=pk)
    suffix = "jsonl" if data_set.kind == Benchmark.FB_BENCH else "json"
    if name == f"items.{suffix}":
        text = lines_of(item_rows(data_set), as_array=suffix == "json")
        file = StreamingHttpResponse(text, content_type=f"application/{suffix}")
        file["Content-Disposition"] = f'attachment; filename="{slugify(data_set.name) or "data-set"}.{suffix}"'
        return file
    if name not in ("leaderboard.csv", "leaderboard.xlsx"):
        raise Http404
    is_fb_bench = data_set.kind == Benchmark.FB_BENCH
    keys = (
        ("error_correction", "response_maintenance", "overall")
        if is_fb_bench
        else constraint_words.RATES[data_set.kind]
    )
    table: list[list[Any]] = [
        ["rank", "model", "judge", "language", "max_tokens", *keys, *(["gap"] if is_fb_bench else []), "unusable"]
    ]
    for row in leaderboard(data_set):
        figures = row.figures
        shown = [figures[key] for key in keys] + ([row.gap] if is_fb_bench else [])
        judge, (_judge, language, tokens) = row.run.judge.name if row.run.judge else "", row.run.conditions
        asked = [judge, language or None, tokens]
        table.append([row.rank, row.run.source.name, *asked, *shown, figures["failed"] + figures["missing"]])
    if name == "leaderboard.csv":
        answer = HttpResponse(comma_separated(table), content_type="text/csv; charset=utf-8")
    else:
        answer = HttpResponse(
            workbook({"leaderboard": table}),
            content_type="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        )
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer
