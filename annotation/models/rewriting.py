"""What people write themselves: edits of a chosen response, and the queue of responses that need a rewrite."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone

from annotation.models.checks import one_of
from annotation.models.comparing import Annotator, Comparison, Judgment
from annotation.models.projects import Project
from annotation.models.texts import Prompt, Response


class Edit(models.Model):
    """The better response made better still: edited > chosen > rejected. The edited text is a Response by people."""

    judgment = models.OneToOneField(Judgment, on_delete=models.PROTECT, related_name="edit")
    original = models.ForeignKey(Response, on_delete=models.PROTECT, related_name="+")
    edited = models.ForeignKey(Response, on_delete=models.PROTECT, related_name="+")
    seconds_spent = models.PositiveIntegerField(default=0)
    edit_distance = models.PositiveIntegerField(default=0, help_text="Levenshtein distance in characters.")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=~Q(original=models.F("edited")), name="edit_changes_something")
        ]

    def __str__(self) -> str:
        return f"edit {self.pk}"


class RewriteCause(models.TextChoices):
    ALL_LOW = "all_low", "every response was scored low"
    NEITHER = "neither", "neither response was acceptable"


class RewriteStatus(models.TextChoices):
    OPEN = "open", "waiting for somebody"
    LEASED = "leased", "held until lease_expires_at"
    DONE = "done", "rewritten"
    DROPPED = "dropped", "not worth it, as somebody said"


class RewriteTask(models.Model):
    """A prompt without an acceptable response: somebody edits the least bad one, or writes their own."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="rewrite_tasks")
    comparison = models.OneToOneField(Comparison, on_delete=models.PROTECT, related_name="rewrite_task")
    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="+")
    cause = models.CharField(max_length=20, choices=RewriteCause)
    status = models.CharField(max_length=20, choices=RewriteStatus, default=RewriteStatus.OPEN)
    annotator = models.ForeignKey(
        Annotator, on_delete=models.PROTECT, null=True, blank=True, related_name="rewrite_tasks"
    )
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    original = models.ForeignKey(
        Response, on_delete=models.PROTECT, null=True, blank=True, related_name="+", help_text="What was edited."
    )
    written = models.ForeignKey(Response, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    seconds_spent = models.PositiveIntegerField(default=0)
    edit_distance = models.PositiveIntegerField(default=0, help_text="Levenshtein distance in characters.")
    created_at = models.DateTimeField(default=timezone.now)
    done_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=one_of("cause", RewriteCause), name="rewritetask_cause_known"),
            models.CheckConstraint(condition=one_of("status", RewriteStatus), name="rewritetask_status_known"),
            models.CheckConstraint(
                condition=Q(status="leased", annotator__isnull=False, lease_expires_at__isnull=False)
                | ~Q(status="leased"),
                name="rewritetask_lease_has_holder",
            ),
            models.CheckConstraint(
                condition=Q(status="done", written__isnull=False, done_at__isnull=False) | ~Q(status="done"),
                name="rewritetask_done_has_text",
            ),
        ]
        indexes = [
            models.Index(fields=["project", "id"], condition=Q(status="open"), name="rewritetask_open"),
        ]

    def __str__(self) -> str:
        return f"rewrite {self.pk}"
