from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from django.core.exceptions import ValidationError
from django.utils import timezone

from annotation.management.script import ScriptCommand, find_project
from annotation.models import Annotator, Project, ResponseSource
from annotation.services import DomainError
from rlhf.judges.card import Card, Standard, Verdicts, make_card
from rlhf.judges.verdicts import of_this, progress_of, report_of, verdicts_of_annotator, verdicts_of_run
from rlhf.judges.work import run_judge
from rlhf.management.following import time_left, watch
from rlhf.management.starter import find_or_fetch_checkpoint
from rlhf.models import JobStatus, JudgeKind, JudgeRun, JudgeScope, PromptLanguage
from rlhf.services import publish_checkpoint
from rlhf.services.judging import queue_judge_run, reopen_judge_run, set_parallel, store_prompts_in_force, take_votes


class Command(ScriptCommand):
    help = "Have a model judge in people's stead, and measure whether it may."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        run = actions.add_parser("run", help="compare or score what a project holds; run it again to resume")
        super().add_arguments(run)
        run.add_argument("--project", required=True, metavar="SLUG")
        run.add_argument("--judge", required=True, metavar="NAME", help="a published model, or a checkpoint")
        run.add_argument("--kind", choices=JudgeKind.values, default="pair")
        run.add_argument("--scope", choices=JudgeScope.values, default="voted", help="which comparisons")
        run.add_argument("--limit", type=int, metavar="N", help="at most so many comparisons, evenly drawn")
        run.add_argument("--prompt-language", choices=PromptLanguage.values, default="zh")
        run.add_argument("--max-tokens", type=int, default=1024, help="of a verdict (default 1024)")
        run.add_argument("--attempts", type=int, default=3, help="tries of a verdict (default 3)")
        run.add_argument("--parallel", type=int, default=8, help="requests at a time (default 8)")
        run.add_argument("--new", action="store_true", help="begin anew instead of taking up the last such run")

        card = actions.add_parser("card", help="how far a judge agrees with people, and what it is partial to")
        votes = actions.add_parser("votes", help="keep a run's verdicts as votes by a model, if its card allows it")
        for one in (card, votes):
            super().add_arguments(one)
            one.add_argument("--people", default="*", metavar="PATTERN", help="annotators to hold it against")
            one.add_argument("--margin", type=float, default=Standard.margin, help="below people's own agreement")
            one.add_argument("--min-comparisons", type=int, default=Standard.comparisons, metavar="N")
        votes.add_argument("--run", type=int, required=True, metavar="RUN", dest="run_id")
        card.add_argument("--run", type=int, metavar="RUN", dest="run_id", help="of a judge's run here")
        card.add_argument("--project", metavar="SLUG", help="with --annotator")
        card.add_argument("--annotator", metavar="NAME", help="of a model whose votes were imported")

    def run(self, **options: Any) -> dict[str, Any]:
        return {"run": self._run, "card": self._card, "votes": self._votes}[options["action"]](options)

    # ── run ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self, options: dict[str, Any]) -> dict[str, Any]:
        project = find_project(options["project"])
        judge = ResponseSource.objects.filter(name=options["judge"]).first()
        judge = judge or publish_checkpoint(find_or_fetch_checkpoint(options["judge"]))
        try:
            run = self._find_or_queue(project, judge, options)
        except ValidationError as error:
            field, sentences = next(iter(error.message_dict.items()))
            raise DomainError(f"{field}: {sentences[0]}") from None
        watch(run, run_judge, _state, self.progress)
        found = {"run": run.pk, **report_of(run)}
        if run.status != JobStatus.SUCCEEDED:
            raise DomainError(f"run {run.pk} {run.status}: {run.error or 'run the same command to go on'}")
        return found

    def _find_or_queue(self, project: Project, judge: ResponseSource, options: dict[str, Any]) -> JudgeRun:
        asked = {
            "kind": options["kind"],
            "scope": options["scope"],
            "language": options["prompt_language"],
            "max_tokens": options["max_tokens"],
            "attempts": options["attempts"],
        }
        prompts = store_prompts_in_force(asked["kind"], asked["language"])
        known = JudgeRun.objects.filter(
            project=project, judge=judge, prompt_ids=sorted(prompt.pk for prompt in prompts.values()), **asked
        )
        run = None if options["new"] else known.order_by("pk").last()
        if run is None:
            return queue_judge_run(
                project=project, judge=judge, limit=options["limit"], parallel=options["parallel"], **asked
            )
        self.progress(f"run {run.pk} is taken up again")
        if run.status == JobStatus.RUNNING and run.lease_expires_at:
            until = timezone.localtime(run.lease_expires_at)
            self.progress(f"{run.owner} holds it; if that was killed, this goes on at {until:%H:%M:%S}")
        if run.parallel != options["parallel"]:
            set_parallel(run, options["parallel"])
        if run.status in (JobStatus.FAILED, JobStatus.CANCELLED):
            reopen_judge_run(run)
            run.refresh_from_db()
        return run

    # ── card, votes ──────────────────────────────────────────────────────────────────────────────────────────────

    def _card(self, options: dict[str, Any]) -> dict[str, Any]:
        if options["run_id"]:
            run = _find_run(options["run_id"])
            return _measure(run.project, verdicts_of_run(run), options).as_json()
        if not (options["project"] and options["annotator"]):
            raise DomainError("name a run with --run, or a model in imported data with --project and --annotator")
        project = find_project(options["project"])
        models = Annotator.objects.filter(project=project, is_human=False)
        annotator = models.filter(name=options["annotator"]).first()
        if annotator is None:
            known = ", ".join(models.order_by("name").values_list("name", flat=True)) or "none"
            raise DomainError(f"no model {options['annotator']!r} votes in {project.slug}; known: {known}")
        return _measure(project, verdicts_of_annotator(annotator), options).as_json()

    def _votes(self, options: dict[str, Any]) -> dict[str, Any]:
        run = _find_run(options["run_id"])
        card = _measure(run.project, verdicts_of_run(run), options)
        return {"run": run.pk, "annotator": run.voter_name, **take_votes(run, card, of_this(run)[0])}

    def print_for_people(self, result: dict[str, Any]) -> None:
        if "may_stand_in" not in result:
            super().print_for_people(result)
            return
        self.stdout.write("may stand in for people" if result["may_stand_in"] else "may not stand in for people:")
        for sentence in (*result["reasons"].values(), *(f"note: {word}" for word in result["cautions"].values())):
            self.stdout.write(f"  {sentence}")
        for key in ("agreement", "human", "agreement_no_ties", "human_no_ties", "position_consistency"):
            self.stdout.write(f"{key.replace('_', ' ')}: {_shown(result[key])}")
        for key in ("length", "own"):
            for side, share in (result[key] or {}).items():
                self.stdout.write(f"{key}, {side}: {_shown(share)}")
        for key in ("comparisons", "prompts", "human_votes", "people", "depends", "unusable", "undecided_votes"):
            self.stdout.write(f"{key.replace('_', ' ')}: {result[key]}")


def _shown(share: dict[str, Any] | None) -> str:
    if share is None:
        return "not defined"
    ends = "" if share["lower"] is None else f" ({100 * share['lower']:.1f} to {100 * share['upper']:.1f})"
    return f"{100 * share['value']:.1f} %{ends} of {share['count']}"


def _measure(project: Project, verdicts: Verdicts, options: dict[str, Any]) -> Card:
    standard = replace(Standard(), margin=options["margin"], comparisons=options["min_comparisons"])
    pattern = options["people"]
    return make_card(project, verdicts, standard=standard, is_counted=lambda name: fnmatchcase(name, pattern))


def _find_run(run_id: int) -> JudgeRun:
    run = JudgeRun.objects.select_related("project", "judge").filter(pk=run_id).first()
    if run is None:
        raise DomainError(f"there is no judge run {run_id}")
    return run


def _state(run: JudgeRun) -> str:
    progress = progress_of(run)
    line = f"{progress.done} of {progress.total} verdicts"
    if progress.unusable:
        line += f", {progress.unusable} unusable"
    if run.status == JobStatus.RUNNING:
        line += f", {time_left(progress.seconds_left)}"
    if run.waiting_for:
        line += f"; waiting: {run.waiting_for[:120]}"
    return line
