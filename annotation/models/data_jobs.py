"""Long work on a project's prompts, what it can take back, and what it found."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from annotation.models.checks import json_object, one_of, string_list
from annotation.models.comparing import Comparison
from annotation.models.projects import Project
from annotation.models.texts import Prompt


class DataJobKind(models.TextChoices):
    EDIT = "edit", _("edit of prompts")
    UNDO = "undo", _("undo of an edit")
    CHECK = "check", _("check of an uploaded file")
    IMPORT = "import", _("import of an uploaded file")
    SCAN = "scan", _("search for personal data")
    MASK = "mask", _("masking of personal data")
    DUPLICATES = "duplicates", _("search for duplicates")


class DataJobStatus(models.TextChoices):
    QUEUED = "queued", _("waiting for a worker")
    RUNNING = "running", _("at work")
    DONE = "done", _("done")
    FAILED = "failed", _("failed")
    STOPPED = "stopped", _("stopped")


class DataJob(models.Model):
    """Work on many rows of one project; one at a time in each. This row is the truth, a Celery message only a hint."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="data_jobs")
    kind = models.CharField(max_length=20, choices=DataJobKind)
    status = models.CharField(max_length=20, choices=DataJobStatus, default=DataJobStatus.QUEUED)
    params = json_object(help_text="What is to be done; its keys depend on the kind.")
    result = json_object(help_text="What came of it.")
    error = models.TextField(blank=True, help_text="A sentence for people.")
    total = models.PositiveIntegerField(default=0)
    done = models.PositiveIntegerField(default=0)
    attempt = models.PositiveSmallIntegerField(default=0)
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    stop_requested = models.BooleanField(default=False)
    undone_at = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=one_of("kind", DataJobKind), name="datajob_kind_known"),
            models.CheckConstraint(condition=one_of("status", DataJobStatus), name="datajob_status_known"),
            models.CheckConstraint(
                condition=Q(status__in=["queued", "running"], finished_at__isnull=True)
                | Q(status__in=["done", "failed", "stopped"], finished_at__isnull=False),
                name="datajob_finished_has_time",
            ),
            models.UniqueConstraint(
                fields=["project"], condition=Q(status__in=["queued", "running"]), name="datajob_one_at_a_time"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"

    @property
    def is_finished(self) -> bool:
        return self.finished_at is not None


class PromptBefore(models.Model):
    """A prompt as it was before an edit; only the last edit of a project keeps them."""

    job = models.ForeignKey(DataJob, on_delete=models.CASCADE, related_name="before")
    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="+", db_index=False)
    task = models.CharField(max_length=60, blank=True)
    lang = models.CharField(max_length=20, blank=True)
    skill = models.CharField(max_length=60, blank=True)
    topic = models.CharField(max_length=100, blank=True)
    tags = string_list()
    archived_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["job", "prompt"], name="promptbefore_once")]

    def __str__(self) -> str:
        return f"prompt {self.prompt_id} before {self.job_id}"


class Duplicate(models.Model):
    """A prompt that reads like another one of its project, the oldest of its kind; found by the last search."""

    prompt = models.OneToOneField(Prompt, on_delete=models.CASCADE, primary_key=True, related_name="+")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="+", db_index=False)
    like = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="+", db_index=False)
    similarity = models.PositiveSmallIntegerField(help_text="Percent of the passages that either has; 100: the same.")

    class Meta:
        indexes = [models.Index(fields=["project", "-like", "prompt"], name="duplicate_groups")]

    def __str__(self) -> str:
        return f"prompt {self.prompt_id} like {self.like_id}"


class SimilarResponses(models.Model):
    """A comparison whose two responses read nearly the same; found by the last search."""

    comparison = models.OneToOneField(Comparison, on_delete=models.CASCADE, primary_key=True, related_name="+")
    similarity = models.PositiveSmallIntegerField(help_text="As in Duplicate.")

    def __str__(self) -> str:
        return f"comparison {self.comparison_id}: {self.similarity} %"
