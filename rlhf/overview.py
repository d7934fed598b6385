"""Where each part of a project's loop stands, in a fixed number of queries."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Count, Q, Sum

from annotation.models import Assignment, AssignmentStatus, Comparison, Judgment, Project, Prompt, Response
from rlhf.models import Checkpoint, CheckpointKind, DatasetSnapshot, GenerationJob, JobStatus, TrainingJob

UNFINISHED = (JobStatus.QUEUED, JobStatus.RUNNING)


@dataclass(frozen=True)
class Overview:
    """The numbers of the strip on a project's page."""

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
    """Jobs that have not ended; the newest one where all have."""
    snapshots: list[DatasetSnapshot]
    """The newest three."""
    snapshot_count: int
    training: list[TrainingJob]
    """Jobs that have not ended; the newest one where all have."""
    newest: Checkpoint | None
    """The newest checkpoint that writes responses and was trained on this project."""

    @property
    def is_moving(self) -> bool:
        """Whether a job is under way, so that the numbers change by themselves."""
        return any(not job.is_finished for job in [*self.generation, *self.training])


def project_overview(project: Project) -> Overview:
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
    people_on_now = Assignment.objects.filter(project=project, status=AssignmentStatus.LEASED).aggregate(
        people=Count("annotator", distinct=True)
    )["people"]
    snapshots = DatasetSnapshot.objects.filter(project=project).order_by("-created_at")
    generation = list(
        GenerationJob.objects.filter(project=project).select_related("source", "against").order_by("-queued_at")[:20]
    )
    training = list(TrainingJob.objects.filter(snapshot__project=project).order_by("-queued_at")[:20])
    return Overview(
        prompts=prompts["count"],
        tasks=prompts["tasks"],
        responses=responses["count"],
        sources=responses["sources"],
        judgments=judgments["count"],
        needed=needed,
        people=judgments["people"],
        people_on_now=people_on_now,
        generation=[job for job in generation if not job.is_finished] or generation[:1],
        snapshots=list(snapshots[:3]),
        snapshot_count=snapshots.count(),
        training=[job for job in training if not job.is_finished] or training[:1],
        newest=Checkpoint.objects.filter(job__snapshot__project=project, kind=CheckpointKind.POLICY)
        .select_related("source")
        .order_by("-created_at")
        .first(),
    )
