"""Training runs and what they logged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from django.conf import settings
from django.db import connection, models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from annotation.models.checks import one_of
from rlhf.models.leased import LeasedJob, leased_job_constraints
from rlhf.models.placement import Placed, priority_known
from rlhf.models.snapshots import DatasetSnapshot


class Point(NamedTuple):
    """The values of one metric between two steps, up to `step`."""

    step: int
    mean: float
    low: float
    high: float


class Method(models.TextChoices):
    SFT = "sft", _("Supervised fine-tuning")
    REWARD = "reward", _("Reward model")
    DPO = "dpo", _("Direct preference optimisation")
    KTO = "kto", _("Kahneman–Tversky optimisation")
    GRPO = "grpo", _("Group-relative policy optimisation")
    GRPO_TOKEN_KL = "grpo_token_kl", _("GRPO with KL in the token reward")
    RLOO = "rloo", _("Leave-one-out REINFORCE")
    PPO = "ppo", _("Proximal policy optimisation")
    MERGE = "merge", _("Merging")


class FailureClass(models.TextChoices):
    """By whose fault: decides whether another attempt is made (services.FAILURE_BUDGETS)."""

    NONE = "", _("none")
    INFRASTRUCTURE = "infrastructure", _("the worker or its machine went away")
    OUT_OF_MEMORY = "out_of_memory", _("out of memory")
    BAD_DATA = "bad_data", _("the data or the options cannot be used")
    STALLED = "stalled", _("the training process gave no sign of life")
    UNKNOWN = "unknown", _("unknown")


class CancelMode(models.TextChoices):
    NONE = "", "not asked"
    KEEP = "keep", "stop and keep what was learnt"
    DISCARD = "discard", "stop and discard"
    PAUSE = "pause", "save a checkpoint and free the worker"


class TrainingJobQuerySet(models.QuerySet["TrainingJob"]):
    def like(
        self, *, status: str = "", method: str = "", project: str = "", snapshot: str = ""
    ) -> TrainingJobQuerySet:
        """Those with this status, method, project (its slug) and data set (its name); what is empty is not asked."""
        columns = {
            "status": status,
            "method": method,
            "snapshot__project__slug": project,
            "snapshot__name": snapshot,
        }
        return self.filter(**{column: value for column, value in columns.items() if value})


class TrainingJob(Placed, LeasedJob):
    """One training run over one snapshot from one base checkpoint, or a merge of checkpoints, which needs no data."""

    name = models.CharField(max_length=100, blank=True)
    method = models.CharField(max_length=20, choices=Method)
    snapshot = models.ForeignKey(DatasetSnapshot, on_delete=models.PROTECT, related_name="jobs", null=True, blank=True)
    base = models.ForeignKey("Checkpoint", on_delete=models.PROTECT, related_name="jobs_from_here")
    # What scored the completions of an on-policy method; `options` holds its name.
    reward_model = models.ForeignKey(
        "Checkpoint", on_delete=models.PROTECT, null=True, blank=True, related_name="jobs_scored_by_this"
    )
    options = models.JSONField(help_text="Every option of the method, defaults included (rlhf/options).")
    # What the rows became before the start, and what else was found (rlhf/preflight).
    preflight = models.JSONField(default=dict)
    # Set where it was started over warnings or against a check that blocked.
    proceeded_at = models.DateTimeField(null=True, blank=True)
    proceeded_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    code_version = models.CharField(max_length=80, blank=True)
    failure_class = models.CharField(max_length=20, choices=FailureClass, default=FailureClass.NONE, blank=True)
    infrastructure_failures = models.PositiveSmallIntegerField(default=0)
    unknown_failures = models.PositiveSmallIntegerField(default=0, help_text="Hangs among them.")
    short_attempts = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="Attempts one after another that crashed with few new steps."
    )
    cancel_mode = models.CharField(max_length=10, choices=CancelMode, default=CancelMode.NONE, blank=True)
    paused_for = models.CharField(
        max_length=20, blank=True, default="", db_default="", help_text="The alarm for which its worker paused it."
    )
    resume_from = models.CharField(max_length=40, blank=True, help_text="Last complete checkpoint, step-N.")
    step = models.PositiveIntegerField(default=0)
    total_steps = models.PositiveIntegerField(default=0)
    metrics = models.JSONField(default=dict, help_text="The final ones, from result.json.")
    worker = models.ForeignKey(
        "Worker",
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="jobs",
        help_text="The last to take it.",
    )
    process_seconds = models.FloatField(
        default=0.0, db_default=0.0, help_text="How long its training processes ran, over all attempts; pauses not."
    )
    # The job that ran out of memory and of which this is the retry with a smaller micro-batch.
    retry_of = models.OneToOneField("self", on_delete=models.SET_NULL, null=True, blank=True, related_name="retry")

    objects = TrainingJobQuerySet.as_manager()

    class Meta:
        constraints = [
            *leased_job_constraints("trainingjob"),
            models.CheckConstraint(condition=one_of("method", Method), name="trainingjob_method_known"),
            models.CheckConstraint(
                condition=one_of("failure_class", FailureClass),
                name="trainingjob_failure_class_known",
            ),
            models.CheckConstraint(
                condition=Q(cancel_mode="", cancel_requested_at__isnull=True)
                | Q(cancel_mode__in=["keep", "discard", "pause"], cancel_requested_at__isnull=False),
                name="trainingjob_cancel_has_mode",
            ),
            models.CheckConstraint(
                condition=Q(proceeded_by__isnull=True) | Q(proceeded_at__isnull=False),
                name="trainingjob_proceeded_has_time",
            ),
            priority_known("trainingjob"),
            models.CheckConstraint(
                condition=Q(method="merge", snapshot__isnull=True) | (~Q(method="merge") & Q(snapshot__isnull=False)),
                name="trainingjob_only_a_merge_has_no_data",
            ),
        ]
        indexes = [
            # the reconciler's two questions: what waits, whose lease ran out
            models.Index(fields=["lease_expires_at"], condition=Q(status="running"), name="trainingjob_running"),
            models.Index(fields=["queued_at"], condition=Q(status="queued"), name="trainingjob_queued"),
        ]

    def __str__(self) -> str:
        return self.name or f"{self.method}-{self.pk}"

    @property
    def directory(self) -> Path:
        return settings.JOBS_DIR / str(self.pk)


class JobMetricQuerySet(models.QuerySet["JobMetric"]):
    def curves(self, job_ids: Sequence[int], buckets: int) -> dict[int, dict[str, list[Point]]]:
        """Every number that these jobs logged, by job and name, at most `buckets` points a job over equal steps."""
        last = self.filter(job__in=job_ids).aggregate(last=models.Max("step"))["last"] or 0
        width = max(1, math.ceil(last / buckets))
        found: dict[int, dict[str, list[Point]]] = {job_id: {} for job_id in job_ids}
        with connection.cursor() as cursor:
            cursor.execute(_CURVES, {"jobs": list(job_ids), "width": width})
            for job_id, name, step, mean, low, high in cursor.fetchall():
                found[job_id].setdefault(name, []).append(Point(step, mean, low, high))
        return found


# A line may name a step that was done before a job came back from a checkpoint: a row holds one step, the newest.
_CURVES = """
    SELECT metric.job_id, value.key, max(metric.step),
           avg(value.value::float8), min(value.value::float8), max(value.value::float8)
    FROM rlhf_jobmetric AS metric, jsonb_each(metric.values) AS value
    WHERE metric.job_id = ANY(%(jobs)s) AND jsonb_typeof(value.value) = 'number'
    GROUP BY metric.job_id, value.key, (metric.step - 1) / %(width)s
    ORDER BY metric.job_id, value.key, max(metric.step)
"""


class JobMetric(models.Model):
    """What the training process logged at one step; a retry from a checkpoint writes a step anew."""

    job = models.ForeignKey(TrainingJob, on_delete=models.CASCADE, related_name="job_metrics")
    step = models.PositiveIntegerField()
    values = models.JSONField()
    logged_at = models.DateTimeField(default=timezone.now)

    objects = JobMetricQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["job", "step"], name="jobmetric_step_once")]

    def __str__(self) -> str:
        return f"step {self.step}"


class JobCheckpoint(models.Model):
    """A training checkpoint in the shared storage (rlhf/artifacts.py), from which any machine can go on."""

    job = models.ForeignKey(TrainingJob, on_delete=models.CASCADE, related_name="stored_checkpoints")
    step = models.PositiveIntegerField()
    manifest_sha256 = models.CharField(max_length=64)
    stored_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["job", "step"], name="jobcheckpoint_step_once"),
            models.CheckConstraint(condition=Q(manifest_sha256__length=64), name="jobcheckpoint_sha256_length"),
        ]

    def __str__(self) -> str:
        return f"step-{self.step}"
