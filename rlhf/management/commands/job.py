from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from annotation.management.script import ScriptCommand
from annotation.services import DomainError
from rlhf.api.job_shapes import JobDetailSerializer, JobSerializer
from rlhf.management.following import follow
from rlhf.models import JobStatus, Method, TrainingJob
from rlhf.services import request_pause, resume_training_job, stop_training_job
from rlhf.services.jobs import retry_with_half_micro_batch

_WITH_NAMES = ("snapshot__project", "base", "checkpoint", "created_by", "reward_model", "worker", "proceeded_by")
_VERBS: dict[str, tuple[str, Callable[[TrainingJob], object]]] = {
    "pause": ("save a checkpoint and free the worker", request_pause),
    "resume": ("put it back into the queue, to go on from its last checkpoint", resume_training_job),
}


class Command(ScriptCommand):
    help = "Training jobs that `train` or a page launched: list and follow them, stop, pause, resume and retry them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
        listing = verbs.add_parser("list", help="the newest first")
        super().add_arguments(listing)
        listing.add_argument("--status", choices=JobStatus.values)
        listing.add_argument("--method", choices=Method.values)
        listing.add_argument("--project", metavar="SLUG", help="of the data set that they learn from")
        listing.add_argument("--limit", type=int, default=100, metavar="N", help="at most so many (default 100)")
        listing.add_argument("--before", type=int, metavar="JOB", help="older than this one")
        one_job = {
            "show": "everything that its page says",
            "follow": "say how far it is until it ends; Ctrl-C stops nothing",
            "stop": "ask its worker to stop, or take it out of the queue",
            **{verb: text for verb, (text, _call) in _VERBS.items()},
            "retry": "after running out of memory: half as many rows at once, from its checkpoint or as another job",
        }
        for verb, text in one_job.items():
            added = verbs.add_parser(verb, help=text)
            super().add_arguments(added)
            added.add_argument("job", type=int, metavar="JOB")
            if verb == "stop":
                how = added.add_mutually_exclusive_group(required=True)
                how.add_argument("--keep", action="store_true", help="what was learnt becomes a checkpoint")
                how.add_argument("--discard", action="store_true", help="nothing is kept")

    def run(self, **options: Any) -> dict[str, Any]:
        verb = options["verb"]
        if verb == "list":
            return _list(options)
        job = _find(options["job"])
        if verb == "follow":
            self._follow(job)
        elif verb == "stop":
            stop_training_job(job, "keep" if options["keep"] else "discard")
        elif verb == "retry":
            job = retry_with_half_micro_batch(job)
        elif verb in _VERBS:
            _VERBS[verb][1](job)
        return dict(JobDetailSerializer(_find(job.pk)).data)

    def _follow(self, job: TrainingJob) -> None:
        try:
            follow(job, self.progress)
        except KeyboardInterrupt:
            raise DomainError(f"job {job.pk} goes on without being followed") from None
        if job.status == JobStatus.FAILED:
            raise DomainError(f"job {job.pk} failed: {job.error}")

    def print_for_people(self, result: dict[str, Any]) -> None:
        if "jobs" not in result:
            super().print_for_people({key: value for key, value in result.items() if value not in (None, "", [], {})})
            return
        for row in result["jobs"]:
            steps = f"{row['step']} of {row['total_steps'] or '?'}"
            self.stdout.write(f"{row['id']:>6} {row['status']:<10} {row['method']:<14} {steps:>14}  {row['name']}")
        if result["older"]:
            self.stdout.write(f"older ones: --before {result['older']}")


def _list(options: dict[str, Any]) -> dict[str, Any]:
    if options["limit"] < 1:
        raise DomainError("--limit is at least 1")
    jobs = TrainingJob.objects.like(**{name: options[name] or "" for name in ("status", "method", "project")})
    if options["before"] is not None:
        jobs = jobs.filter(pk__lt=options["before"])
    rows = list(jobs.select_related(*_WITH_NAMES[:4]).order_by("-pk")[: options["limit"] + 1])
    shown = rows[: options["limit"]]
    return {
        "jobs": [dict(row) for row in JobSerializer(shown, many=True).data],
        "older": shown[-1].pk if len(rows) > len(shown) else None,
    }


def _find(pk: int) -> TrainingJob:
    job = TrainingJob.objects.select_related(*_WITH_NAMES).filter(pk=pk).first()
    if job is None:
        raise DomainError(f"there is no job {pk}; `job list` names those that there are")
    return job
