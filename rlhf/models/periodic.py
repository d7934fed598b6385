"""Evaluations that run by themselves while a job trains and at its end."""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q, Value
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from annotation.models import Project, ResponseSource, Study
from annotation.models.checks import json_object, one_of
from rlhf.models.checkpoints import Checkpoint
from rlhf.models.evaluation import DEFAULT_MAX_TOKENS, BenchmarkRun, BenchmarkSet, PromptLanguage
from rlhf.models.generation import GenerationJob
from rlhf.models.judges import JudgeRun
from rlhf.models.training import TrainingJob


class PlanKind(models.TextChoices):
    """How the models of a job are evaluated; all but a benchmark ask prompts of the project."""

    BENCHMARK = "benchmark", _("benchmark")
    JUDGE_PAIRS = "judge_pairs", _("judge: against the base")
    JUDGE_SCORES = "judge_scores", _("judge: scores")
    GSB = "gsb", _("people: good, same, bad")
    RUBRIC = "rubric", _("people: four marks")


STUDY_KINDS = (PlanKind.GSB, PlanKind.RUBRIC)


def prompt_ids(help_text: str) -> ArrayField:
    ids = models.BigIntegerField()
    return ArrayField(
        ids, default=list, db_default=Value([], output_field=ArrayField(ids)), blank=True, help_text=help_text
    )


class EvaluationPlan(models.Model):
    """What each model of a project's jobs is put to: the base, those of `model_every_steps`, the last one."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="evaluation_plans")
    kind = models.CharField(
        max_length=20, choices=PlanKind, default=PlanKind.BENCHMARK, db_default=PlanKind.BENCHMARK.value
    )
    data_set = models.ForeignKey(BenchmarkSet, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    judge = models.ForeignKey(ResponseSource, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    selection = json_object(help_text='Which prompts: {"task", "tag", "at_most"}, as they were chosen.')
    prompt_ids = prompt_ids("Those that were chosen; while the plan stands, data sets hold their groups out.")
    on_the_way = models.BooleanField(
        default=True, db_default=True, help_text="The models of `model_every_steps`, too, and not the last one alone."
    )
    judgments_per_item = models.PositiveSmallIntegerField(
        default=1, db_default=1, validators=[MinValueValidator(1), MaxValueValidator(50)], help_text="of people"
    )
    prompt_language = models.CharField(max_length=2, choices=PromptLanguage, default=PromptLanguage.CHINESE)
    max_tokens = models.PositiveIntegerField(
        default=DEFAULT_MAX_TOKENS, validators=[MinValueValidator(1)], help_text="of an answer"
    )
    judge_max_tokens = models.PositiveIntegerField(
        default=4096, validators=[MinValueValidator(1)], help_text="of a judgment"
    )
    parallel = models.PositiveSmallIntegerField(default=8, validators=[MinValueValidator(1), MaxValueValidator(64)])
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now, help_text="Jobs that had ended by then are left alone.")
    ended_at = models.DateTimeField(null=True, blank=True, help_text="Since when nothing more is begun.")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["project", "data_set"], condition=Q(ended_at=None), name="evaluationplan_once"
            ),
            models.CheckConstraint(condition=one_of("kind", PlanKind), name="evaluationplan_kind_known"),
            models.CheckConstraint(
                condition=Q(kind="benchmark", data_set__isnull=False, judge__isnull=False)
                | Q(kind__in=["judge_pairs", "judge_scores"], data_set__isnull=True, judge__isnull=False)
                | Q(kind__in=STUDY_KINDS, data_set__isnull=True, judge__isnull=True),
                name="evaluationplan_has_what_it_needs",
            ),
            models.CheckConstraint(
                condition=one_of("prompt_language", PromptLanguage), name="evaluationplan_language_known"
            ),
            models.CheckConstraint(
                condition=Q(max_tokens__gte=1, judge_max_tokens__gte=1, parallel__gte=1, judgments_per_item__gte=1),
                name="evaluationplan_limits_positive",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.title} in {self.project}"

    @property
    def title(self) -> str:
        """The data set, or who judges which prompts."""
        if self.data_set is not None:
            return self.data_set.name
        chosen = [str(self.selection[name]) for name in ("task", "tag") if self.selection.get(name)]
        about = f" ({', '.join(chosen)})" if chosen else ""
        if self.judge is not None:
            return f"{self.judge.name}, {self.get_kind_display()}{about}"
        return f"{self.get_kind_display()}{about}"


class JobEvaluation(models.Model):
    """That the model of one step of a job was given to a data set, once; step 0 is the base."""

    job = models.ForeignKey(TrainingJob, on_delete=models.CASCADE, related_name="evaluations")
    step = models.PositiveIntegerField()
    data_set = models.ForeignKey(BenchmarkSet, on_delete=models.PROTECT, related_name="+")
    checkpoint = models.ForeignKey(Checkpoint, on_delete=models.PROTECT, related_name="evaluations")
    run = models.ForeignKey(
        BenchmarkRun, on_delete=models.PROTECT, null=True, blank=True, related_name="job_evaluations"
    )
    error = models.TextField(blank=True, help_text="Why there is no run.")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["job", "data_set", "step"]
        constraints = [
            models.UniqueConstraint(fields=["job", "step", "data_set"], name="jobevaluation_once"),
            models.CheckConstraint(
                condition=Q(run__isnull=False, error="") | (Q(run__isnull=True) & ~Q(error="")),
                name="jobevaluation_run_or_error",
            ),
        ]

    def __str__(self) -> str:
        return f"step {self.step} on {self.data_set}"


class PromptEvaluation(models.Model):
    """The model of one step of a job on a plan's prompts, once; step 0 is the base.

    First responses are written where they are missing, then a judge's run or a study begins in one transaction.
    """

    plan = models.ForeignKey(EvaluationPlan, on_delete=models.PROTECT, related_name="evaluations")
    job = models.ForeignKey(TrainingJob, on_delete=models.CASCADE, related_name="prompt_evaluations")
    step = models.PositiveIntegerField()
    checkpoint = models.ForeignKey(Checkpoint, on_delete=models.PROTECT, related_name="prompt_evaluations")
    against = models.ForeignKey(
        Checkpoint, on_delete=models.PROTECT, null=True, blank=True, related_name="+", help_text="The job's base."
    )
    prompt_ids = prompt_ids("Those of the plan that none of its models, nor any they came from, was trained on.")
    generation = models.ForeignKey(
        GenerationJob, on_delete=models.PROTECT, null=True, blank=True, related_name="+", help_text="The last one."
    )
    judge_run = models.ForeignKey(
        JudgeRun, on_delete=models.PROTECT, null=True, blank=True, related_name="prompt_evaluations"
    )
    study = models.ForeignKey(
        Study, on_delete=models.PROTECT, null=True, blank=True, related_name="prompt_evaluations"
    )
    error = models.TextField(blank=True, help_text="Why nobody judges it.")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["job", "plan", "step"]
        constraints = [
            models.UniqueConstraint(fields=["plan", "job", "step"], name="promptevaluation_once"),
            models.CheckConstraint(
                condition=Q(judge_run=None, study=None) | Q(judge_run=None, error="") | Q(study=None, error=""),
                name="promptevaluation_one_outcome",
            ),
        ]

    def __str__(self) -> str:
        return f"step {self.step} on {self.plan}"

    @property
    def is_open(self) -> bool:
        """Whether its responses are being written still."""
        return self.judge_run_id is None and self.study_id is None and not self.error
