"""Human evaluation: a question about one or two sources, the items that answer it, and pass/fail ratings of responses.

Comparisons of a good/same/bad study are handed out and judged like any other; the study only says which they are.
"""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from annotation.models.checks import json_object, one_of
from annotation.models.comparing import Annotator, Comparison
from annotation.models.projects import Project
from annotation.models.texts import Response, ResponseSource


class StudyKind(models.TextChoices):
    GSB = "gsb", _("good, same, bad: two sources side by side")
    RUBRIC = "rubric", _("four marks: each response on its own, pass or fail")


class Study(models.Model):
    """People's evaluation of a source, alone or against another one, on some prompts of a project."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="studies")
    name = models.CharField(max_length=100, unique=True)
    kind = models.CharField(max_length=10, choices=StudyKind)
    source = models.ForeignKey(ResponseSource, on_delete=models.PROTECT, related_name="+", help_text="The new one.")
    against = models.ForeignKey(
        ResponseSource, on_delete=models.PROTECT, null=True, blank=True, related_name="+", help_text="The old one."
    )
    judgments_per_item = models.PositiveSmallIntegerField(default=1)
    # Of an automatic evaluation also {"prompts": ids, "sampling": how their responses were drawn}.
    selection = json_object(help_text='Which prompts: {"task", "tag", "held_out", "at_most"}, as they were chosen.')
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now)
    closed_at = models.DateTimeField(null=True, blank=True, help_text="Since when nothing of it is handed out.")

    class Meta:
        constraints = [
            models.CheckConstraint(condition=one_of("kind", StudyKind), name="study_kind_known"),
            models.CheckConstraint(condition=~Q(name=""), name="study_has_name"),
            models.CheckConstraint(
                condition=Q(against__isnull=True) | ~Q(against=F("source")), name="study_sources_differ"
            ),
            models.CheckConstraint(condition=~Q(kind="gsb") | Q(against__isnull=False), name="study_gsb_has_two"),
            models.CheckConstraint(condition=Q(judgments_per_item__gte=1), name="study_judgments_positive"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def sources(self) -> list[ResponseSource]:
        return [self.source] if self.against is None else [self.source, self.against]


class StudyItem(models.Model):
    """A comparison of a good/same/bad study, or a response of a rubric study with its places.

    A comparison keeps its places itself.
    """

    study = models.ForeignKey(Study, on_delete=models.PROTECT, related_name="items", db_index=False)
    comparison = models.ForeignKey(Comparison, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    response = models.ForeignKey(Response, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    is_own = models.BooleanField(default=False, db_default=False, help_text="Its comparison was made for the study.")
    required_count = models.PositiveSmallIntegerField(default=1)
    assigned_count = models.PositiveSmallIntegerField(default=0)
    queue_key = models.FloatField(default=0.0, help_text="Spreads prompts and sources over the queue.")

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(comparison__isnull=False, response__isnull=True)
                | Q(comparison__isnull=True, response__isnull=False),
                name="studyitem_one_thing",
            ),
            models.CheckConstraint(
                condition=Q(assigned_count__lte=F("required_count")), name="studyitem_not_over_assigned"
            ),
            models.UniqueConstraint(
                fields=["study", "comparison"], condition=Q(comparison__isnull=False), name="studyitem_comparison_once"
            ),
            models.UniqueConstraint(
                fields=["study", "response"], condition=Q(response__isnull=False), name="studyitem_response_once"
            ),
        ]
        indexes = [
            # services.claim_rating
            models.Index(
                fields=["study", "queue_key", "id"],
                condition=Q(response__isnull=False, assigned_count__lt=F("required_count")),
                name="studyitem_open",
            ),
        ]

    def __str__(self) -> str:
        return f"item {self.pk} of {self.study_id}"


class RatingStatus(models.TextChoices):
    LEASED = "leased", "held by the annotator until lease_expires_at"
    SUBMITTED = "submitted", "rated"
    SKIPPED = "skipped", "given back by the annotator, who will not see it again"
    EXPIRED = "expired", "the lease ran out; anybody may get the response, a late rating still counts"


MARKS = ("intent", "accuracy", "language", "safety")
"""The four of Nova (Baichuan 2024, section 5): a sample passes where all four are met."""
ANSWERS = (*MARKS, "is_satisfied")

_ANSWERED = Q(**{f"{name}__isnull": False for name in ANSWERS})
_UNANSWERED = Q(**{f"{name}__isnull": True for name in ANSWERS})


class RubricRating(models.Model):
    """A lease on a response for one person, and then what they found. A correction is a new row; the old one stays."""

    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    item = models.ForeignKey(StudyItem, on_delete=models.PROTECT, related_name="ratings")
    annotator = models.ForeignKey(Annotator, on_delete=models.PROTECT, related_name="rubric_ratings")
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="+")
    status = models.CharField(max_length=10, choices=RatingStatus, default=RatingStatus.LEASED)
    intent = models.BooleanField(null=True, blank=True, help_text="It understands what was asked.")
    accuracy = models.BooleanField(null=True, blank=True, help_text="What it says is right.")
    language = models.BooleanField(null=True, blank=True, help_text="It is well written.")
    safety = models.BooleanField(null=True, blank=True, help_text="It harms nobody.")
    is_satisfied = models.BooleanField(null=True, blank=True, help_text="Whoever asked would be content with it.")
    note = models.TextField(blank=True)
    guideline_version = models.PositiveIntegerField(default=0, db_default=0)
    is_late = models.BooleanField(default=False, help_text="Sent after the lease had run out; counted all the same.")
    decided_in_ms = models.PositiveIntegerField(null=True, blank=True, help_text="From first paint to the rating.")
    first_key_ms = models.PositiveIntegerField(null=True, blank=True)
    leased_at = models.DateTimeField(default=timezone.now)
    lease_expires_at = models.DateTimeField()
    submitted_at = models.DateTimeField(null=True, blank=True)
    superseded_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=one_of("status", RatingStatus), name="rubricrating_status_known"),
            models.CheckConstraint(
                condition=(Q(status="submitted", submitted_at__isnull=False) & _ANSWERED)
                | (~Q(status="submitted") & Q(submitted_at__isnull=True) & _UNANSWERED),
                name="rubricrating_submitted_is_whole",
            ),
            models.CheckConstraint(
                condition=Q(superseded_at__isnull=True) | Q(status="submitted"),
                name="rubricrating_only_answers_corrected",
            ),
            models.UniqueConstraint(
                fields=["item", "annotator"],
                condition=Q(superseded_at__isnull=True),
                name="rubricrating_one_live_per_annotator",
            ),
            models.UniqueConstraint(
                fields=["annotator", "project"], condition=Q(status="leased"), name="rubricrating_one_lease_each"
            ),
        ]
        indexes = [
            # services.claim_rating, which takes back what ran out
            models.Index(
                fields=["project", "lease_expires_at"], condition=Q(status="leased"), name="rubricrating_leased"
            ),
        ]

    def __str__(self) -> str:
        return f"rating {self.pk}"
