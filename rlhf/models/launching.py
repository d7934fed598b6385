"""What was looked at before a job was started."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from annotation.models.checks import one_of
from rlhf.models.checkpoints import Checkpoint
from rlhf.models.placement import Placed, priority_known
from rlhf.models.snapshots import DatasetSnapshot
from rlhf.models.training import Method, TrainingJob


class ProbeStatus(models.TextChoices):
    NONE = "none", "not asked for"
    WAITING = "waiting", "waiting for a worker"
    RUNNING = "running", "a worker measures"
    DONE = "done", "measured"


class LaunchCheck(Placed):
    """The checks of one launch: its page stands between the form and the start, and can be come back to."""

    snapshot = models.ForeignKey(DatasetSnapshot, on_delete=models.CASCADE, related_name="+")
    base = models.ForeignKey(Checkpoint, on_delete=models.CASCADE, related_name="+")
    method = models.CharField(max_length=20, choices=Method)
    name = models.CharField(max_length=100, blank=True)
    options = models.JSONField(help_text="Every option of the method, defaults included.")
    outcome = models.JSONField(help_text="rlhf.preflight.Outcome")
    probe_status = models.CharField(max_length=10, choices=ProbeStatus, default=ProbeStatus.NONE)
    probe_findings = models.JSONField(default=list, help_text="What a worker found with the model loaded.")
    probe_asked_at = models.DateTimeField(null=True, blank=True)
    job = models.OneToOneField(
        TrainingJob, on_delete=models.CASCADE, null=True, blank=True, related_name="launch_check"
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            priority_known("launchcheck"),
            models.CheckConstraint(condition=one_of("method", Method), name="launchcheck_method_known"),
            models.CheckConstraint(condition=one_of("probe_status", ProbeStatus), name="launchcheck_probe_known"),
            models.CheckConstraint(
                condition=Q(probe_status="none", probe_asked_at__isnull=True)
                | ~Q(probe_status="none") & Q(probe_asked_at__isnull=False),
                name="launchcheck_probe_has_time",
            ),
        ]

    def __str__(self) -> str:
        return self.name or f"{self.method} of {self.snapshot_id}"
