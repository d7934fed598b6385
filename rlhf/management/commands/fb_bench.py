from __future__ import annotations

import json
import os
from argparse import ArgumentParser
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.utils import timezone

from annotation.management.script import ScriptCommand
from annotation.models import ResponseSource
from annotation.services import DomainError
from rlhf import benchmarking
from rlhf.benchmark_figures import answer_rows, judgment_rows, progress_of, report_of
from rlhf.evaluation.fb_bench import UnusableFileError, read_dataset
from rlhf.evaluation.fb_bench_scores import score_file
from rlhf.management.asking import time_left, watch
from rlhf.management.starter import find_or_fetch_checkpoint
from rlhf.models import BenchmarkRun, BenchmarkSet, JobStatus, PromptLanguage
from rlhf.services import publish_checkpoint
from rlhf.services.benchmarks import (
    import_benchmark_set,
    queue_benchmark_run,
    reopen_benchmark_run,
    set_name_of,
    set_parallel,
)

LIMITS = ("prompt_language", "max_tokens", "judge_max_tokens", "judge_attempts", "parallel")


class Command(ScriptCommand):
    help = "FB-Bench: score judgments, or have a model answer the data set and a judge tick the checklists."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        score = actions.add_parser("score", help="score a file of judgments in the authors' shape")
        super().add_arguments(score)
        score.add_argument("judgments", type=Path, metavar="JUDGMENTS.jsonl")
        score.add_argument("--dataset", type=Path, required=True, metavar="FILE")

        run = actions.add_parser("run", help="answer and judge the whole data set; run it again to resume")
        super().add_arguments(run)
        run.add_argument("--source", required=True, metavar="NAME", help="a published model, or a checkpoint")
        run.add_argument("--judge", required=True, metavar="NAME", help="likewise")
        run.add_argument("--dataset", type=Path, required=True, metavar="FILE")
        run.add_argument("--out", type=Path, required=True, metavar="DIR")
        run.add_argument("--max-tokens", type=int, default=4096, help="of an answer (default 4096)")
        run.add_argument("--judge-max-tokens", type=int, default=4096, help="of a judgment (default 4096)")
        run.add_argument("--judge-attempts", type=int, default=3, help="tries of a judgment (default 3)")
        run.add_argument(
            "--prompt-language", choices=PromptLanguage.values, default="zh", help="of the judge's prompt"
        )
        run.add_argument("--parallel", type=int, default=8, help="requests at a time (default 8)")
        run.add_argument("--new", action="store_true", help="begin anew instead of taking up the last such run")

    def run(self, **options: Any) -> dict[str, Any]:
        try:
            if options["action"] == "score":
                return score_file(options["judgments"], read_dataset(options["dataset"]))
            return self._run(**options)
        except UnusableFileError as error:
            raise DomainError(str(error)) from None

    def _run(self, **options: Any) -> dict[str, Any]:
        out: Path = options["out"]
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DomainError(f"{out} cannot be made: {error.strerror or error}") from None
        data_set = read_dataset(options["dataset"])
        for refusal in data_set.refusals:
            self.progress(f"data set, row {refusal.row} is left out: {refusal.reason}")
        stored, _is_new = import_benchmark_set(data_set, name=set_name_of(options["dataset"]))
        run = self._find_or_queue(stored, options)
        watch(run, benchmarking.run_benchmark, _state, self.progress)
        _write_rows(out / "answers.jsonl", answer_rows(run))
        _write_rows(out / "judgments.jsonl", judgment_rows(run))
        figures = {"run": run.pk, **report_of(run)}
        _write_rows(out / "report.json", [figures])
        if run.status != JobStatus.SUCCEEDED:
            raise DomainError(f"run {run.pk} {run.status}: {run.error or 'run the same command to go on'}")
        return figures

    def _find_or_queue(self, data_set: BenchmarkSet, options: dict[str, Any]) -> BenchmarkRun:
        limits = {name: options[name] for name in LIMITS}
        source, judge = _find(options["source"]), _find(options["judge"])
        alike = {name: limits[name] for name in LIMITS if name != "parallel"}
        known = BenchmarkRun.objects.filter(
            data_set=data_set, source=source, judge=judge, answers_from=None, is_imported=False, **alike
        )
        run = None if options["new"] else known.order_by("pk").last()
        if run is None:
            try:
                return queue_benchmark_run(data_set=data_set, source=source, judge=judge, **limits)
            except ValidationError as error:
                field, sentences = next(iter(error.message_dict.items()))
                raise DomainError(f"{field}: {sentences[0]}") from None
        self.progress(f"run {run.pk} is taken up again")
        if run.status == JobStatus.RUNNING and run.lease_expires_at:
            until = timezone.localtime(run.lease_expires_at)
            self.progress(f"{run.owner} holds it; if that was killed, this goes on at {until:%H:%M:%S}")
        if run.parallel != limits["parallel"]:
            set_parallel(run, limits["parallel"])
        if run.status in (JobStatus.FAILED, JobStatus.CANCELLED):
            reopen_benchmark_run(run)
            run.refresh_from_db()
        return run

    def print_for_people(self, result: dict[str, Any]) -> None:
        shown = ("error_correction", "response_maintenance", "overall")
        self.stdout.write(f"{'':24}{'correction':>12}{'maintenance':>13}{'overall':>9}")
        rows = [("macro", result), ("micro", result["micro"]), *result["by_task"].items()]
        rows += [("unusable as 0", result["at_worst"]), ("unusable as 1", result["at_best"])]
        for name, figures in rows:
            correction, maintenance, overall = (_figure(figures[key]) for key in shown)
            self.stdout.write(f"{name:24}{correction:>12}{maintenance:>13}{overall:>9}")
        for name, figure in result["by_deficiency"].items():
            self.stdout.write(f"{name:24}{_figure(figure):>12}")
        for name, figures in result["by_feedback"].items():
            correction, maintenance = (_figure(figures.get(key)) for key in shown[:2])
            self.stdout.write(f"{name:24}{correction:>12}{maintenance:>13}")
        for key, value in result.items():
            if isinstance(value, int) or (key in ("failures", "empty_cells") and value):
                self.stdout.write(f"{key.replace('_', ' ')}: {value}")
        for line in result.get("problems", []):
            self.stdout.write(line)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _find(name: str) -> ResponseSource:
    source = ResponseSource.objects.filter(name=name).first()
    return source or publish_checkpoint(find_or_fetch_checkpoint(name))


def _state(run: BenchmarkRun) -> str:
    progress = progress_of(run)
    line = f"{progress.answers} of {progress.items} answers, {progress.judgments} of {progress.items} judgments"
    failed = progress.failed_answers + progress.failed_judgments
    if failed:
        line += f", {failed} unusable"
    if run.status == JobStatus.RUNNING:
        line += f", {time_left(progress.seconds_left)}"
    if run.waiting_for:
        line += f"; waiting: {run.waiting_for[:120]}"
    return line


def _write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """All or nothing: a reader never sees half a file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DomainError(f"{path} cannot be written: {error.strerror or error}") from None
