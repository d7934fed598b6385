"""Evaluations that run by themselves: which models of which jobs are due, and queueing each of them once."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from django.db import IntegrityError, connection, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext

from annotation.errors import DomainError
from annotation.models import ResponseSource, SourceKind
from rlhf.jobspec import STEP_MODELS_DIR, complete_checkpoints
from rlhf.models import (
    BenchmarkRun,
    Checkpoint,
    CheckpointKind,
    EvaluationPlan,
    JobEvaluation,
    JobStatus,
    Method,
    PlanKind,
    PromptEvaluation,
    TrainingJob,
)
from rlhf.services import leases, prompt_evaluations
from rlhf.services.aliases import is_alias
from rlhf.services.benchmarks import queue_benchmark_run
from rlhf.services.checkpoints import publish_checkpoint, register_checkpoint

logger = logging.getLogger(__name__)


def add_evaluation_plan(plan: EvaluationPlan) -> EvaluationPlan:
    """Evaluate every model of a project's jobs from now on; draws the prompts. Raises DomainError."""
    if plan.judge is not None and plan.judge.kind != SourceKind.MODEL:
        raise DomainError(
            gettext("%(name)s is a name in imported data, not a model that can be asked") % {"name": plan.judge.name}
        )
    if plan.kind != PlanKind.BENCHMARK:
        plan.prompt_ids = prompt_evaluations.draw_prompts(plan.project, plan.selection)
    plan.clean_fields(exclude=["created_by"])
    try:
        with transaction.atomic():
            plan.save(force_insert=True)
    except IntegrityError:
        if plan.data_set is None:
            raise
        raise DomainError(
            gettext("the models of %(project)s answer %(data_set)s already")
            % {"project": plan.project.name, "data_set": plan.data_set.name}
        ) from None
    return plan


def remove_evaluation_plan(plan: EvaluationPlan) -> None:
    """Begin nothing more; what was begun stays. Its prompts may be trained on again."""
    EvaluationPlan.objects.filter(pk=plan.pk, ended_at=None).update(ended_at=timezone.now())


def record_step_models(job: TrainingJob) -> int:
    """Make a checkpoint of each whole model that the job's process has saved on the way; gives how many were new."""
    names = complete_checkpoints(job.directory, STEP_MODELS_DIR)
    known = set(job.step_checkpoints.values_list("step", flat=True)) if names else set()
    count = 0
    for name in names:
        step = int(name.removeprefix("step-"))
        if step in known:
            continue
        try:
            with transaction.atomic():
                if not leases.held(job).select_for_update().exists():
                    return count
                checkpoint = register_checkpoint(
                    name=_name_of(job, step),
                    kind=CheckpointKind.POLICY,
                    directory=job.directory / STEP_MODELS_DIR / name,
                    parent=job.base,
                    step=step,
                    step_of=job,
                )
        except (OSError, IntegrityError) as error:  # an evaluation that fails is no reason for a job to fail
            logger.warning("step model not registered: job=%s step=%s error=%s", job.pk, step, error)
            return count
        logger.info("step model registered: job=%s step=%s checkpoint=%s", job.pk, step, checkpoint.pk)
        count += 1
    return count


def _name_of(job: TrainingJob, step: int) -> str:
    name = f"{str(job)[:80]}-step-{step}"
    taken = Checkpoint.objects.filter(name=name).exists() or is_alias(name)
    return f"{name}-{job.pk}" if taken or ResponseSource.objects.filter(name=name).exists() else name


def queue_due_evaluations() -> int:
    """Begin what plans ask for and nobody began, and take further what is under way; gives how many are new.

    Safe to run from several places.
    """
    count = 0
    for plan in EvaluationPlan.objects.filter(ended_at=None).select_related("project", "data_set", "judge"):
        begin = _queue if plan.kind == PlanKind.BENCHMARK else prompt_evaluations.begin
        for job, step, checkpoint in _due(plan):
            count += begin(plan, job, step, checkpoint)
    prompt_evaluations.advance_all()
    return count


def _due(plan: EvaluationPlan) -> Iterator[tuple[TrainingJob, int, Checkpoint]]:
    """Models of the plan's project that nobody gave to it: of jobs that run, or ended since the plan."""
    jobs = jobs_of(plan.project_id).filter(
        Q(finished_at=None) | Q(finished_at__gte=plan.created_at), started_at__isnull=False
    )
    if plan.kind == PlanKind.BENCHMARK:
        done = set(JobEvaluation.objects.filter(job__in=jobs, data_set=plan.data_set_id).values_list("job", "step"))
    else:
        done = set(PromptEvaluation.objects.filter(job__in=jobs, plan=plan).values_list("job", "step"))
    if plan.kind in (PlanKind.BENCHMARK, PlanKind.JUDGE_SCORES):  # the others hold each model against the base
        for job in jobs.select_related("base").order_by("pk"):
            if (job.pk, 0) not in done:
                yield job, 0, job.base
    on_the_way = Q(step_of__in=jobs) if plan.on_the_way else Q(pk__in=[])
    made = Checkpoint.objects.filter(Q(job__in=jobs) | on_the_way, kind=CheckpointKind.POLICY)
    for checkpoint in made.select_related("job", "step_of").order_by("step", "pk"):
        maker = checkpoint.made_by
        assert maker is not None
        step = max(1, checkpoint.step)
        if (maker.pk, step) not in done:
            yield maker, step, checkpoint


# From each merge to the checkpoints that it takes, and through those that are merges themselves to theirs.
_MERGES = """
WITH RECURSIVE taken (merge, checkpoint) AS (
    SELECT job_id, checkpoint_id FROM rlhf_mergeinput
    UNION SELECT id, base_id FROM rlhf_trainingjob WHERE method = 'merge'
), line (merge, checkpoint) AS (
    SELECT merge, checkpoint FROM taken
    UNION
    SELECT line.merge, taken.checkpoint FROM line
      JOIN rlhf_checkpoint c ON c.id = line.checkpoint JOIN taken ON taken.merge = c.job_id
)
SELECT DISTINCT line.merge, s.project_id FROM line
  JOIN rlhf_checkpoint c ON c.id = line.checkpoint
  JOIN rlhf_trainingjob j ON j.id = coalesce(c.job_id, c.step_of_id)
  JOIN rlhf_datasetsnapshot s ON s.id = j.snapshot_id
"""


def jobs_of(project_id: int) -> QuerySet[TrainingJob]:
    """The jobs that make a model that answers: on a project's data, and merges of what was trained on them."""
    with connection.cursor() as cursor:
        cursor.execute(f"{_MERGES} WHERE s.project_id = %s", [project_id])
        merges = [merge for merge, _project in cursor.fetchall()]
    return TrainingJob.objects.filter(
        Q(snapshot__project=project_id) | Q(pk__in=merges), base__kind=CheckpointKind.POLICY
    ).exclude(method=Method.REWARD)


def projects_of(job: TrainingJob) -> list[int]:
    """The projects whose plans are about a job's models: of a merge those whose data its parents were trained on."""
    if job.snapshot is not None:
        return [job.snapshot.project_id]
    with connection.cursor() as cursor:
        cursor.execute(f"{_MERGES} WHERE line.merge = %s", [job.pk])
        return [project for _merge, project in cursor.fetchall()]


def _queue(plan: EvaluationPlan, job: TrainingJob, step: int, checkpoint: Checkpoint) -> bool:
    assert plan.data_set is not None and plan.judge is not None  # a constraint
    try:
        source = publish_checkpoint(checkpoint)
        with transaction.atomic():
            run = _earlier_run(plan, source) if step == 0 else None
            run = run or queue_benchmark_run(
                data_set=plan.data_set,
                source=source,
                judge=plan.judge,
                prompt_language=plan.prompt_language,
                max_tokens=plan.max_tokens,
                judge_max_tokens=plan.judge_max_tokens,
                parallel=plan.parallel,
            )
            JobEvaluation.objects.create(job=job, step=step, data_set=plan.data_set, checkpoint=checkpoint, run=run)
    except IntegrityError:  # another reconciler was first; its run stands and this one is undone
        return False
    except DomainError as error:
        JobEvaluation.objects.get_or_create(
            job=job, step=step, data_set=plan.data_set, defaults={"checkpoint": checkpoint, "error": str(error)}
        )
        logger.warning("evaluation not queued: job=%s step=%s error=%s", job.pk, step, error)
        return False
    logger.info("evaluation queued: job=%s step=%s run=%s", job.pk, step, run.pk)
    return True


def _earlier_run(plan: EvaluationPlan, source: ResponseSource) -> BenchmarkRun | None:
    """What a base answered before is not asked again, where it was asked and judged alike."""
    return (
        BenchmarkRun.objects.filter(
            data_set=plan.data_set,
            source=source,
            judge=plan.judge,
            prompt_language=plan.prompt_language,
            max_tokens=plan.max_tokens,
            is_imported=False,
        )
        .exclude(answers_from__is_imported=True)
        .exclude(status__in=[JobStatus.FAILED, JobStatus.CANCELLED])
        .order_by("-pk")
        .first()
    )
