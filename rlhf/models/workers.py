"""Who works, on what, and which GPU belongs to which job."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone

TRAIN_QUEUE = "train"
MEASURING_LIFE = timedelta(minutes=15)
"""A measurement before a launch that has not ended by then is gone, with its worker."""


def queue_of(label: str) -> str:
    """The Celery queue of the jobs that ask for workers with this label; "" is any worker that trains."""
    return f"{TRAIN_QUEUE}.{label}" if label else TRAIN_QUEUE


class WorkerQuerySet(models.QuerySet["Worker"]):
    def present(self) -> WorkerQuerySet:
        """Those that were heard of within a lease's time."""
        return self.filter(seen_at__gt=Now() - timedelta(seconds=settings.JOB_LEASE_SECONDS), left_at=None)


class Worker(models.Model):
    """A Celery worker process, as it announces itself every few seconds."""

    name = models.CharField(max_length=200, unique=True, help_text="Celery's name: train@host")
    host = models.CharField(max_length=200)
    queues = ArrayField(models.CharField(max_length=100))
    cpu_cores = models.PositiveSmallIntegerField()
    memory_gb = models.FloatField(help_text="10^9 bytes")
    code_version = models.CharField(max_length=80, blank=True)
    started_at = models.DateTimeField(default=timezone.now)
    seen_at = models.DateTimeField(default=timezone.now)
    left_at = models.DateTimeField(null=True, blank=True, help_text="When it said that it stops.")

    objects = WorkerQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name

    @property
    def labels(self) -> list[str]:
        """Labels of the training jobs that it takes; "" where it takes those without a label."""
        prefix = f"{TRAIN_QUEUE}."
        labels = ["" for queue in self.queues if queue == TRAIN_QUEUE]
        return labels + [queue.removeprefix(prefix) for queue in self.queues if queue.startswith(prefix)]

    @property
    def is_present(self) -> bool:
        return not self.left_at and timezone.now() - self.seen_at < timedelta(seconds=settings.JOB_LEASE_SECONDS)


class GPUSlotQuerySet(models.QuerySet["GPUSlot"]):
    def free(self) -> GPUSlotQuerySet:
        """Those whose job no longer holds the lease under which it took them: nothing has to give a slot back."""
        return self.exclude(pk__in=GPUSlot.objects.filter(taken()).values("pk"))

    def taken(self) -> GPUSlotQuerySet:
        return self.filter(taken())


def taken() -> Q:
    measures = Q(measured_for__probe_status="running", measured_for__probe_asked_at__gt=Now() - MEASURING_LIFE)
    return Q(job__status="running", job__attempt=F("attempt")) | measures


class GPUSlot(models.Model):
    """One GPU. It belongs to the attempt of a job that took it, for as long as that attempt holds the job's lease, or
    to the measurement of a launch, for as long as that runs."""

    uuid = models.CharField(max_length=100, unique=True)
    host = models.CharField(max_length=200)
    index = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=100)
    memory_gb = models.FloatField(help_text="10^9 bytes")
    job = models.ForeignKey("TrainingJob", on_delete=models.SET_NULL, null=True, blank=True, related_name="gpu_slots")
    attempt = models.PositiveIntegerField(default=0)
    measured_for = models.ForeignKey(
        "LaunchCheck", on_delete=models.SET_NULL, null=True, blank=True, related_name="gpu_slots"
    )
    seen_at = models.DateTimeField(default=timezone.now)

    objects = GPUSlotQuerySet.as_manager()

    class Meta:
        ordering = ["host", "index"]

    def __str__(self) -> str:
        return f"{self.host}:{self.index}"
