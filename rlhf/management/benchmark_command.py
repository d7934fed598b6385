"""What the benchmarks' commands share: `NAME score FILE`, and `NAME run`, which answers and judges a data set."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Q
from django.utils import timezone

from annotation.management.script import ScriptCommand
from annotation.models import ResponseSource
from annotation.services import DomainError
from rlhf import benchmarking
from rlhf.benchmark_figures import answer_rows, judgment_rows, lines_of, progress_of, report_of
from rlhf.evaluation.fb_bench import Refusal, UnusableFileError
from rlhf.management.following import time_left, watch
from rlhf.management.starter import find_or_fetch_checkpoint
from rlhf.models import Benchmark, BenchmarkRun, BenchmarkSet, JobStatus, PromptLanguage
from rlhf.models.evaluation import DEFAULT_MAX_TOKENS
from rlhf.services import publish_checkpoint
from rlhf.services.benchmarks import queue_benchmark_run, reopen_benchmark_run, set_parallel

DATASET_HELP = "in the authors' shape, or the name of a data set that is here"
LIMITS = ("prompt_language", "max_tokens", "judge_max_tokens", "judge_attempts", "parallel")


class BenchmarkCommand(ScriptCommand):
    """A subclass says how its benchmark's files are scored and imported, and how its figures are printed."""

    kind: Benchmark
    judged_file: str
    """What `score` reads, for its help."""
    suffix = "json"
    """Of the files of answers and judgments: a JSON array, or "jsonl"."""

    def score(self, **options: Any) -> dict[str, Any]:
        """Raises UnusableFileError."""
        raise NotImplementedError

    def import_set(self, path: Path) -> tuple[BenchmarkSet, Iterable[Refusal]]:
        """Raises UnusableFileError."""
        raise NotImplementedError

    def stored_set(self, path: Path) -> BenchmarkSet | None:
        """The data set of that name, where there is no such file. Raises UnusableFileError where it is neither."""
        if path.exists():
            return None
        stored = BenchmarkSet.objects.filter(kind=self.kind, name=str(path)).first()
        if stored is None:
            names = BenchmarkSet.objects.filter(kind=self.kind).order_by("name").values_list("name", flat=True)
            known = ", ".join(names) or "none yet"
            raise UnusableFileError(f"{path} is neither a file nor the name of a data set here; known: {known}")
        return stored

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        score = actions.add_parser("score", help=f"score a file of {self.judged_file}")
        super().add_arguments(score)
        self.add_score_arguments(score)

        run = actions.add_parser("run", help="answer and judge the whole data set; run it again to resume")
        super().add_arguments(run)
        run.add_argument("--source", required=True, metavar="NAME", help="a published model, or a checkpoint")
        run.add_argument("--judge", metavar="NAME", help="likewise; left out: answers only, to be judged later")
        run.add_argument("--dataset", type=Path, required=True, metavar="FILE", help=DATASET_HELP)
        run.add_argument("--out", type=Path, required=True, metavar="DIR")
        run.add_argument("--max-tokens", type=int, default=DEFAULT_MAX_TOKENS, help="of an answer (default 4096)")
        run.add_argument("--judge-max-tokens", type=int, default=4096, help="of a judgment (default 4096)")
        run.add_argument("--judge-attempts", type=int, default=3, help="tries of a judgment (default 3)")
        run.add_argument(
            "--prompt-language", choices=PromptLanguage.values, default="zh", help="of the judge's prompt"
        )
        run.add_argument("--parallel", type=int, default=8, help="requests at a time (default 8)")
        run.add_argument("--new", action="store_true", help="begin anew instead of taking up the last such run")

    def add_score_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE")

    def run(self, **options: Any) -> dict[str, Any]:
        try:
            return self.score(**options) if options["action"] == "score" else self._run(**options)
        except UnusableFileError as error:
            raise DomainError(str(error)) from None

    def _run(self, **options: Any) -> dict[str, Any]:
        out: Path = options["out"]
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DomainError(f"{out} cannot be made: {error.strerror or error}") from None
        stored = self.stored_set(options["dataset"])
        if stored is None:
            stored, refusals = self.import_set(options["dataset"])
            for refusal in refusals:
                self.progress(f"data set, row {refusal.row} is left out: {refusal.reason}")
        run = self._find_or_queue(stored, options)
        watch(run, benchmarking.run_benchmark, _state, self.progress)
        _write_rows(out / f"answers.{self.suffix}", answer_rows(run))
        if run.judge_id:
            _write_rows(out / f"judgments.{self.suffix}", judgment_rows(run))
        figures = {"run": run.pk, **report_of(run)}
        _write_rows(out / "report.json", figures)
        if run.status != JobStatus.SUCCEEDED:
            raise DomainError(f"run {run.pk} {run.status}: {run.error or 'run the same command to go on'}")
        return figures

    def _find_or_queue(self, data_set: BenchmarkSet, options: dict[str, Any]) -> BenchmarkRun:
        limits = {name: options[name] for name in LIMITS}
        source, judge = _find(options["source"]), _find(options["judge"]) if options["judge"] else None
        alike = {name: limits[name] for name in LIMITS if name != "parallel"}
        runs = data_set.runs.filter(source=source, is_imported=False).order_by("pk")
        answered = runs.filter(judge=None, status=JobStatus.SUCCEEDED, max_tokens=limits["max_tokens"])
        # Answers of another judge's run are not taken: who asks for this pair alone gets a run of its own.
        known = runs.filter(Q(answers_from=None) | Q(answers_from__in=answered), judge=judge, **alike)
        run = None if options["new"] else known.last()
        if run is None:
            answers_from = answered.last() if judge and not options["new"] else None
            if answers_from:
                self.progress(f"the answers of run {answers_from.pk} are judged")
            try:
                return queue_benchmark_run(
                    data_set=data_set, source=source, judge=judge, answers_from=answers_from, **limits
                )
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


def _find(name: str) -> ResponseSource:
    source = ResponseSource.objects.filter(name=name).first()
    return source or publish_checkpoint(find_or_fetch_checkpoint(name))


def _state(run: BenchmarkRun) -> str:
    progress = progress_of(run)
    line = f"{progress.answers} of {progress.items} answers"
    if progress.is_judged:
        line += f", {progress.judgments} of {progress.items} judgments"
    failed = progress.failed_answers + progress.failed_judgments
    if failed:
        line += f", {failed} unusable"
    if run.status == JobStatus.RUNNING:
        line += f", {time_left(progress.seconds_left)}"
    if run.waiting_for:
        line += f"; waiting: {run.waiting_for[:120]}"
    return line


def figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _write_rows(path: Path, rows: Iterable[dict[str, Any]] | dict[str, Any]) -> None:
    """All or nothing: a reader never sees half a file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            if isinstance(rows, dict):
                file.write(json.dumps(rows, ensure_ascii=False) + "\n")
            else:
                file.writelines(lines_of(rows, as_array=path.suffix == ".json"))
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DomainError(f"{path} cannot be written: {error.strerror or error}") from None
