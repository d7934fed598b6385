"""Where each part of a project's loop stands, in a fixed number of queries."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, TypeVar

from django.db.models import Count, Q, Sum

from annotation.agreement import measure_agreement
from annotation.agreement.report import RESAMPLES
from annotation.leaderboard import Standing, rank_sources
from annotation.models import Assignment, AssignmentStatus, Comparison, Judgment, Project, Prompt, Response
from annotation.shares import Share
from annotation.stored_figures import stored_figures
from annotation.vote_counts import count_sway
from rlhf.models import Checkpoint, CheckpointKind, DatasetSnapshot, GenerationJob, JobStatus, LeasedJob, TrainingJob

Job = TypeVar("Job", bound=LeasedJob)
AGREEMENT_SHOWN = ("raw_agreement", "raw_agreement_no_ties", "krippendorff_alpha", "pairs")


@dataclass(frozen=True)
class Overview:
    """The numbers of the strip on a project's page."""

    as_of: datetime
    """Of the counts down to `people`; the rest is as it stands."""
    prompts: int
    tasks: int
    responses: int
    sources: int
    judgments: int
    needed: int
    """Judgments that all comparisons together ask for."""
    people: int
    people_on_now: int
    generation: list[GenerationJob]
    """Jobs that have not ended, running ones first; the newest one where all have."""
    snapshots: list[DatasetSnapshot]
    """The newest three."""
    snapshot_count: int
    training: list[TrainingJob]
    """Jobs that have not ended, running ones first; the newest one where all have."""
    newest: Checkpoint | None
    """The newest checkpoint that writes responses and was trained on this project."""

    @property
    def jobs(self) -> list[LeasedJob]:
        return [*self.generation, *self.training]

    @property
    def is_moving(self) -> bool:
        """Whether a job is under way, so that the numbers change by themselves."""
        return any(not job.is_finished for job in self.jobs)

    @property
    def training_running(self) -> int:
        return sum(job.status == JobStatus.RUNNING for job in self.training)

    @property
    def training_waiting(self) -> int:
        return sum(job.status == JobStatus.QUEUED for job in self.training)


def count_loop(project: Project) -> dict[str, Any]:
    """The counts of the strip; for `stored_figures`."""
    prompts = Prompt.objects.filter(project=project).aggregate(
        count=Count("pk"), tasks=Count("task", distinct=True, filter=~Q(task=""))
    )
    responses = Response.objects.filter(prompt__project=project).aggregate(
        count=Count("pk"), sources=Count("source", distinct=True)
    )
    judgments = Judgment.objects.filter(
        comparison__project=project, superseded_at=None, annotator__is_human=True
    ).aggregate(count=Count("pk"), people=Count("annotator", distinct=True))
    needed = Comparison.objects.filter(project=project).aggregate(total=Sum("required_count"))["total"] or 0
    return {
        "prompts": prompts["count"],
        "tasks": prompts["tasks"],
        "responses": responses["count"],
        "sources": responses["sources"],
        "judgments": judgments["count"],
        "people": judgments["people"],
        "needed": needed,
    }


def measure_votes(project: Project) -> dict[str, Any]:
    """Who is preferred and how far the votes can be trusted; for `stored_figures`."""
    agreement = measure_agreement(project, humans_only=True, resamples=RESAMPLES)
    sway = count_sway(project)
    return {
        "leaderboard": [asdict(standing) for standing in rank_sources(project, humans_only=True)],
        "agreement": {name: getattr(agreement, name) for name in AGREEMENT_SHOWN}
        | {"intervals": {name: agreement.intervals.get(name) for name in AGREEMENT_SHOWN}},
        "left_chosen": _share(sway.left_chosen, sway.shown),
        "longer_chosen": _share(sway.longer_chosen, sway.unequal),
    }


def _share(successes: int, count: int) -> dict[str, Any] | None:
    share = Share.of(successes, count)
    return asdict(share) if share else None


def project_votes(project: Project) -> tuple[dict[str, Any], datetime]:
    """What `measure_votes` found, and when."""
    data, as_of = stored_figures(project, "votes", measure_votes)
    shares = {name: Share(**data[name]) if data[name] else None for name in ("left_chosen", "longer_chosen")}
    return {**data, **shares, "leaderboard": [Standing(**row) for row in data["leaderboard"]]}, as_of


def project_overview(project: Project) -> Overview:
    counts, as_of = stored_figures(project, "loop", count_loop)
    people_on_now = Assignment.objects.filter(project=project, status=AssignmentStatus.LEASED).aggregate(
        people=Count("annotator", distinct=True)
    )["people"]
    snapshots = DatasetSnapshot.objects.filter(project=project).order_by("-created_at")
    generation = list(
        GenerationJob.objects.filter(project=project).select_related("source", "against").order_by("-queued_at")[:20]
    )
    training = list(TrainingJob.objects.filter(snapshot__project=project).order_by("-queued_at")[:20])
    return Overview(
        **counts,
        as_of=as_of,
        people_on_now=people_on_now,
        generation=_shown(generation),
        snapshots=list(snapshots[:3]),
        snapshot_count=snapshots.count(),
        training=_shown(training),
        newest=Checkpoint.objects.filter(job__snapshot__project=project, kind=CheckpointKind.POLICY)
        .select_related("source")
        .order_by("-created_at")
        .first(),
    )


def _shown(jobs: list[Job]) -> list[Job]:
    unfinished = [job for job in jobs if not job.is_finished]
    return sorted(unfinished, key=lambda job: job.status != JobStatus.RUNNING) or jobs[:1]
