"""What every kind of long work shares: one worker at a time, by a lease on its row."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from annotation.models.checks import json_object, one_of


class JobStatus(models.TextChoices):
    QUEUED = "queued", "waiting for a worker"
    RUNNING = "running", "a worker holds the lease"
    PAUSED = "paused", "stopped with its checkpoint, to go on when somebody asks"
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
    not_before = models.DateTimeField(
        null=True, blank=True, help_text="When it may be taken again, after a failure of its machine."
    )
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

    @property
    def is_resting(self) -> bool:
        return self.not_before is not None and self.not_before > timezone.now()


class AskingJob(LeasedJob):
    """A job that asks a source for many texts and stores each as it comes; later tries fill what is missing."""

    parallel = models.PositiveSmallIntegerField(default=8, validators=[MinValueValidator(1), MaxValueValidator(64)])
    waiting_for = models.TextField(blank=True, db_default="", help_text="Why nothing comes just now.")
    report = json_object(help_text="The figures at its end.")

    class Meta:
        abstract = True


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
