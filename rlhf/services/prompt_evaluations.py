"""Evaluations that run by themselves on prompts of a project: drawing the prompts, and each step to a verdict.

    begun ──responses missing──▶ a generation job for one model after the other ──▶ judge run or study
      └── cannot be ──▶ error ──again──▶ begun

Each step is one transaction on the locked row, and looks at what is there: whoever repeats it, or dies in it, leaves
nothing double and nothing half done.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.utils.text import slugify
from django.utils.translation import gettext

from annotation import services as annotation
from annotation.errors import DomainError
from annotation.models import Project, Prompt, Response, ResponseSource, StudyKind
from annotation.services.texts import pairs_for_judge
from rlhf.models import (
    FINAL_STATUSES,
    Checkpoint,
    DatasetSnapshot,
    EvaluationPlan,
    GenerationJob,
    JobStatus,
    JudgeKind,
    JudgeRun,
    JudgeScope,
    PlanKind,
    PromptEvaluation,
    TrainingJob,
)
from rlhf.services.checkpoints import publish_checkpoint
from rlhf.services.generation import DEFAULT_SAMPLING, queue_evaluation_responses, sampled_alike, without_seed
from rlhf.services.judging import queue_judge_run
from rlhf.snapshots import snapshot_rows
from rlhf.studies import chosen_prompts, trained_groups

logger = logging.getLogger(__name__)


def draw_prompts(project: Project, selection: Mapping[str, Any]) -> list[int]:
    """The prompts of a selection {"task", "tag", "at_most"} that no data set of the project trains on, in hash order.

    Raises DomainError where nothing is chosen, because a plan keeps its prompts from being trained on; and where
    nothing is left.
    """
    if not any(selection.get(name) for name in ("task", "tag", "at_most")):
        raise DomainError(
            gettext("choose a task, a tag or a number of prompts: what an evaluation asks is not trained on any more")
        )
    trained = {
        row.get("group", "")
        for snapshot in DatasetSnapshot.objects.filter(project=project)
        for row in snapshot_rows(snapshot, "train")
    }
    prompts = chosen_prompts(project, selection, []).exclude(group__in=trained).order_by("content_sha256", "pk")
    found = list(prompts.values_list("pk", flat=True)[: selection.get("at_most") or None])
    if not found:
        raise DomainError(
            gettext("%(project)s has no such prompt that none of its data sets trains on; add some, or choose others")
            % {"project": project.name}
        )
    return found


def held_out_groups(project: Project) -> set[str]:
    """The groups of prompts that plans ask about: what is frozen while a plan stands never trains on them."""
    plans = EvaluationPlan.objects.filter(project=project, ended_at=None)
    asked = {pk for ids in plans.values_list("prompt_ids", flat=True) for pk in ids}
    return set(Prompt.objects.filter(pk__in=asked).values_list("group", flat=True))


def begin(plan: EvaluationPlan, job: TrainingJob, step: int, checkpoint: Checkpoint) -> bool:
    """Store that a model is to be evaluated; False where that was known, or cannot be."""
    against = job.base if plan.kind != PlanKind.JUDGE_SCORES else None
    fields: dict[str, Any] = {"checkpoint": checkpoint, "against": against}
    try:
        sources = [publish_checkpoint(model) for model in (checkpoint, against) if model]
        kept = Prompt.objects.filter(pk__in=plan.prompt_ids, archived_at=None)
        fields["prompt_ids"] = list(
            kept.exclude(group__in=trained_groups(sources)).order_by("pk").values_list("pk", flat=True)
        )
        if not fields["prompt_ids"]:
            raise DomainError(gettext("its models were trained on every prompt of the plan, or all are archived"))
    except DomainError as error:
        fields["error"] = str(error)
        logger.warning("evaluation not begun: plan=%s job=%s step=%s error=%s", plan.pk, job.pk, step, error)
    _found, is_new = PromptEvaluation.objects.get_or_create(plan=plan, job=job, step=step, defaults=fields)
    return is_new and "error" not in fields


def advance_all() -> None:
    """Take every evaluation that is under way as far as it goes now."""
    waiting = PromptEvaluation.objects.filter(judge_run=None, study=None, error="").order_by("pk")
    for pk in waiting.values_list("pk", flat=True):
        _advance(pk)


def try_again(evaluation: PromptEvaluation) -> bool:
    """Take up one that ended with an error; what is written already is kept. False where there is no error."""
    failed = PromptEvaluation.objects.filter(pk=evaluation.pk).exclude(error="").exclude(prompt_ids=[])
    return failed.update(error="", generation=None) == 1


def _advance(pk: int) -> None:
    with transaction.atomic():
        rows = PromptEvaluation.objects.select_for_update(of=("self",), skip_locked=True)
        evaluation = rows.filter(pk=pk, judge_run=None, study=None, error="").first()
        if evaluation is None or _waits_for_responses(evaluation):
            return
        if not evaluation.error:
            try:
                with transaction.atomic():
                    _judge(evaluation)
            except DomainError as error:
                evaluation.error = str(error)
        evaluation.save(update_fields=["prompt_ids", "judge_run", "study", "error"])
    logger.info(
        "evaluation: pk=%s judge_run=%s study=%s error=%s",
        pk, evaluation.judge_run_id, evaluation.study_id, evaluation.error,
    )  # fmt: skip


def sources_of(evaluation: PromptEvaluation) -> list[ResponseSource]:
    """The base first, where there are two."""
    sources = [model.source for model in (evaluation.against, evaluation.checkpoint) if model]
    return [source for source in sources if source]  # published when it began


def sampling_of(plan: EvaluationPlan) -> dict[str, Any]:
    return {**DEFAULT_SAMPLING, "max_tokens": plan.max_tokens}


def _waits_for_responses(evaluation: PromptEvaluation) -> bool:
    """Have one model after the other write what is missing; an error is set where it could not."""
    plan, sampling = evaluation.plan, sampling_of(evaluation.plan)
    live = Prompt.objects.filter(pk__in=evaluation.prompt_ids, archived_at=None)
    for source in sources_of(evaluation):
        done = sampled_alike(source, evaluation.prompt_ids, sampling).values("prompt")
        if not live.exclude(pk__in=done).exists():
            continue
        last = evaluation.generation
        if last and last.source_id == source.pk and last.status in (JobStatus.FAILED, JobStatus.CANCELLED):
            evaluation.error = last.error or gettext("writing the responses was stopped")
            return False
        under_way = GenerationJob.objects.filter(project=plan.project_id, source=source)
        if not under_way.exclude(status__in=FINAL_STATUSES).exists():
            evaluation.generation = queue_evaluation_responses(
                project=plan.project,
                source=source,
                prompt_ids=evaluation.prompt_ids,
                sampling=sampling,
                created_by=plan.created_by,
            )
            evaluation.save(update_fields=["generation"])
        return True
    return False


def _judge(evaluation: PromptEvaluation) -> None:
    """Have the responses, which are all there, judged by whom the plan says. Raises DomainError."""
    plan = evaluation.plan
    live = Prompt.objects.filter(pk__in=evaluation.prompt_ids, archived_at=None)
    evaluation.prompt_ids = list(live.order_by("pk").values_list("pk", flat=True))
    if plan.kind == PlanKind.JUDGE_PAIRS:
        old, new = (_first_responses(evaluation, source) for source in sources_of(evaluation))
        about = pairs_for_judge(plan.project, [(old[pk], new[pk]) for pk in new if pk in old])
        if not about:
            raise DomainError(gettext("both models wrote the same to every prompt, so there is nothing to judge"))
        evaluation.judge_run = _queue_run(plan, JudgeKind.PAIR, about)
    elif plan.kind == PlanKind.JUDGE_SCORES:
        (source,) = sources_of(evaluation)
        evaluation.judge_run = _earlier_run(evaluation) or _queue_run(
            plan, JudgeKind.ABSOLUTE, [response.pk for response in _first_responses(evaluation, source).values()]
        )
    else:
        old_source, new_source = sources_of(evaluation)
        sampling = without_seed(sampling_of(plan))
        evaluation.study = annotation.create_study(
            project=plan.project,
            name=f"{slugify(evaluation.checkpoint.name)[:70]}-{plan.kind}-{evaluation.pk}",
            kind=StudyKind(plan.kind),
            source=new_source,
            against=old_source,
            prompts=live,
            judgments_per_item=plan.judgments_per_item,
            selection={**plan.selection, "prompts": evaluation.prompt_ids, "sampling": sampling},
            by=plan.created_by,
        )


def _first_responses(evaluation: PromptEvaluation, source: ResponseSource) -> dict[int, Response]:
    """By prompt."""
    found = sampled_alike(source, evaluation.prompt_ids, sampling_of(evaluation.plan))
    return {response.prompt_id: response for response in found.order_by("-sample_index")}


def _queue_run(plan: EvaluationPlan, kind: JudgeKind, about: list[int]) -> JudgeRun:
    assert plan.judge is not None  # a constraint
    return queue_judge_run(
        project=plan.project,
        judge=plan.judge,
        kind=kind,
        scope=JudgeScope.EVALUATION,
        language=plan.prompt_language,
        about=about,
        max_tokens=plan.judge_max_tokens,
        parallel=plan.parallel,
        created_by=plan.created_by,
    )


def _earlier_run(evaluation: PromptEvaluation) -> JudgeRun | None:
    """What a base was given by the same plan before."""
    earlier = PromptEvaluation.objects.filter(plan=evaluation.plan_id, checkpoint=evaluation.checkpoint_id)
    known = earlier.filter(judge_run__isnull=False, prompt_ids=evaluation.prompt_ids)
    found = known.exclude(judge_run__status__in=[JobStatus.FAILED, JobStatus.CANCELLED]).first()
    return found.judge_run if found else None
