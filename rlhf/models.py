"""Tables of the training side: frozen data sets, jobs and what came out of them.

Lineage: DatasetSnapshot → TrainingJob → Checkpoint → annotation.ResponseSource → responses → judgments. Status columns
are written only by the transition functions in `services.py`.
"""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from annotation.models import Project, ResponseSource
from annotation.models.checks import one_of


class DatasetSnapshot(models.Model):
    """Judged comparisons of one project, frozen, hashed and split by `group`. Its files never change."""

    name = models.SlugField(max_length=100, unique=True)
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="snapshots")
    sha256 = models.CharField(max_length=64, help_text="Of train.jsonl followed by eval.jsonl.")
    eval_share = models.FloatField()
    train_rows = models.PositiveIntegerField()
    eval_rows = models.PositiveIntegerField()
    prompt_count = models.PositiveIntegerField()
    judgment_count = models.PositiveIntegerField()
    humans_only = models.BooleanField(default=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(sha256__length=64), name="snapshot_sha256_length"),
            models.CheckConstraint(condition=Q(eval_share__gte=0, eval_share__lt=1), name="snapshot_eval_share_range"),
        ]

    def __str__(self) -> str:
        return self.name


class JobStatus(models.TextChoices):
    QUEUED = "queued", "waiting for a worker"
    RUNNING = "running", "a worker holds the lease"
    SUCCEEDED = "succeeded", "finished; its result stands"
    FAILED = "failed", "ended by an error that another try would not mend, or whose tries are spent"
    CANCELLED = "cancelled", "stopped because somebody asked"


FINAL_STATUSES = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


class LeasedJob(models.Model):
    """Long work that one worker at a time may do. This row is the truth; a Celery message is only a hint to look."""

    status = models.CharField(max_length=20, choices=JobStatus, default=JobStatus.QUEUED)
    owner = models.CharField(max_length=200, blank=True, help_text="host:pid:token of the worker that holds the lease")
    attempt = models.PositiveIntegerField(default=0)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    dispatched_at = models.DateTimeField(null=True, blank=True, help_text="When a message was last sent for it.")
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    queued_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        abstract = True

    @property
    def is_finished(self) -> bool:
        return self.status in FINAL_STATUSES


def leased_job_constraints(table: str) -> list[models.CheckConstraint]:
    """What Postgres refuses of any leased job."""
    return [
        models.CheckConstraint(condition=one_of("status", JobStatus), name=f"{table}_status_known"),
        models.CheckConstraint(
            condition=Q(status="running", lease_expires_at__isnull=False) & ~Q(owner="")
            | ~Q(status="running") & Q(lease_expires_at__isnull=True, owner=""),
            name=f"{table}_running_has_lease",
        ),
        models.CheckConstraint(
            condition=Q(status__in=FINAL_STATUSES, finished_at__isnull=False)
            | ~Q(status__in=FINAL_STATUSES) & Q(finished_at__isnull=True),
            name=f"{table}_finished_has_time",
        ),
    ]


class Method(models.TextChoices):
    SFT = "sft", _("Supervised fine-tuning")
    REWARD = "reward", _("Reward model")
    DPO = "dpo", _("Direct preference optimisation")
    KTO = "kto", _("Kahneman–Tversky optimisation")


class FailureClass(models.TextChoices):
    """By whose fault: decides whether another attempt is made (services.FAILURE_BUDGETS)."""

    NONE = "", _("none")
    INFRASTRUCTURE = "infrastructure", _("the worker or its machine went away")
    OUT_OF_MEMORY = "out_of_memory", _("out of memory")
    BAD_DATA = "bad_data", _("the data or the options cannot be used")
    UNKNOWN = "unknown", _("unknown")


class CancelMode(models.TextChoices):
    NONE = "", "not asked"
    KEEP = "keep", "stop and keep what was learnt"
    DISCARD = "discard", "stop and discard"


class TrainingJob(LeasedJob):
    """One training run over one snapshot from one base checkpoint."""

    name = models.CharField(max_length=100, blank=True)
    method = models.CharField(max_length=20, choices=Method)
    snapshot = models.ForeignKey(DatasetSnapshot, on_delete=models.PROTECT, related_name="jobs")
    base = models.ForeignKey("Checkpoint", on_delete=models.PROTECT, related_name="jobs_from_here")
    options = models.JSONField(help_text="Every option of the method, defaults included (rlhf/jobspec.py).")
    # What the rows became before the start: used, too long, ties … (rlhf/preflight.py)
    preflight = models.JSONField(default=dict)
    code_version = models.CharField(max_length=80, blank=True)
    failure_class = models.CharField(max_length=20, choices=FailureClass, default=FailureClass.NONE, blank=True)
    infrastructure_failures = models.PositiveSmallIntegerField(default=0)
    unknown_failures = models.PositiveSmallIntegerField(default=0)
    cancel_mode = models.CharField(max_length=10, choices=CancelMode, default=CancelMode.NONE, blank=True)
    resume_from = models.CharField(max_length=40, blank=True, help_text="Last complete checkpoint, step-N.")
    step = models.PositiveIntegerField(default=0)
    total_steps = models.PositiveIntegerField(default=0)
    metrics = models.JSONField(default=dict, help_text="The final ones, from result.json.")

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
                | Q(cancel_mode__in=["keep", "discard"], cancel_requested_at__isnull=False),
                name="trainingjob_cancel_has_mode",
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


class JobMetric(models.Model):
    """What the training process logged at one step; a retry from a checkpoint writes a step anew."""

    job = models.ForeignKey(TrainingJob, on_delete=models.CASCADE, related_name="job_metrics")
    step = models.PositiveIntegerField()
    values = models.JSONField()
    logged_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["job", "step"], name="jobmetric_step_once")]

    def __str__(self) -> str:
        return f"step {self.step}"


class CheckpointKind(models.TextChoices):
    POLICY = "policy", _("writes responses")
    REWARD = "reward", _("scores responses")


class Checkpoint(models.Model):
    """A model directory that can be trained from, scored with or published: trained here, or a base brought in."""

    name = models.CharField(max_length=100, unique=True)
    kind = models.CharField(max_length=20, choices=CheckpointKind)
    # Relative to the data folder where it lies inside, so that the folder can be moved.
    directory = models.CharField(max_length=500)
    manifest_sha256 = models.CharField(max_length=64)
    parent = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="children")
    job = models.OneToOneField(TrainingJob, on_delete=models.PROTECT, null=True, blank=True, related_name="checkpoint")
    step = models.PositiveIntegerField(default=0)
    # Set when it is published: from then on it may write responses that people judge.
    source = models.OneToOneField(
        ResponseSource, on_delete=models.PROTECT, null=True, blank=True, related_name="checkpoint"
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=one_of("kind", CheckpointKind), name="checkpoint_kind_known"),
            models.CheckConstraint(condition=Q(manifest_sha256__length=64), name="checkpoint_sha256_length"),
            models.CheckConstraint(
                condition=Q(source__isnull=True) | Q(kind="policy"), name="checkpoint_only_policy_published"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def path(self) -> Path:
        return settings.DATA_DIR / self.directory


class GenerationJob(LeasedJob):
    """Sampling responses of one source for every prompt of a project, and the comparisons made of them.

    Idempotent by (prompt, source, sample_index): running it again fills what is missing.
    """

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="generation_jobs")
    source = models.ForeignKey(ResponseSource, on_delete=models.PROTECT, related_name="generation_jobs")
    # Compare each new response with this source's; empty compares the source's own samples with each other.
    against = models.ForeignKey(
        ResponseSource, on_delete=models.PROTECT, null=True, blank=True, related_name="generation_jobs_against"
    )
    per_prompt = models.PositiveSmallIntegerField(default=2)
    sampling = models.JSONField(default=dict, help_text="temperature, top_p, max_tokens, seed")
    response_total = models.PositiveIntegerField(default=0)
    response_count = models.PositiveIntegerField(default=0)
    comparison_count = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [
            *leased_job_constraints("generationjob"),
            models.CheckConstraint(condition=Q(per_prompt__gte=1), name="generationjob_per_prompt_positive"),
        ]

    def __str__(self) -> str:
        return f"generation {self.pk}"
