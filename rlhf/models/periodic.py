"""Evaluations that run by themselves while a job trains and at its end."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from annotation.models import Project, ResponseSource
from annotation.models.checks import one_of
from rlhf.models.checkpoints import Checkpoint
from rlhf.models.evaluation import DEFAULT_MAX_TOKENS, BenchmarkRun, BenchmarkSet, PromptLanguage
from rlhf.models.training import TrainingJob


class EvaluationPlan(models.Model):
    """A data set that each model of a project's jobs answers: the base, those of `model_every_steps`, the last one."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="evaluation_plans")
    data_set = models.ForeignKey(BenchmarkSet, on_delete=models.PROTECT, related_name="+")
    judge = models.ForeignKey(ResponseSource, on_delete=models.PROTECT, related_name="+")
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

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "data_set"], name="evaluationplan_once"),
            models.CheckConstraint(
                condition=one_of("prompt_language", PromptLanguage), name="evaluationplan_language_known"
            ),
            models.CheckConstraint(
                condition=Q(max_tokens__gte=1, judge_max_tokens__gte=1, parallel__gte=1),
                name="evaluationplan_limits_positive",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.data_set} in {self.project}"


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
