"""What measures and settles judgments: gold items, adjudications, flags."""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils import timezone

from annotation.models.comparing import VERDICT_FITS, Annotator, Comparison


class Gold(models.Model):
    """A comparison whose right verdict is known; it is served like any other and never trains anything."""

    comparison = models.OneToOneField(Comparison, on_delete=models.PROTECT, related_name="gold")
    preference = models.CharField(max_length=10)
    strength = models.SmallIntegerField(null=True, blank=True)
    reason = models.TextField(blank=True, help_text="Why this verdict is certain.")
    is_for_qualification = models.BooleanField(default=False, db_default=False)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now)
    retired_at = models.DateTimeField(null=True, blank=True, help_text="No longer served; its scores stay.")

    class Meta:
        constraints = [models.CheckConstraint(condition=VERDICT_FITS, name="gold_strength_fits_preference")]

    def __str__(self) -> str:
        return f"gold {self.pk}"


class Adjudication(models.Model):
    """A reviewer's last word on a comparison; it stands instead of the vote counts. Append-only, like judgments."""

    comparison = models.ForeignKey(Comparison, on_delete=models.PROTECT, related_name="adjudications")
    reviewer = models.ForeignKey(Annotator, on_delete=models.PROTECT, related_name="adjudications")
    preference = models.CharField(max_length=10)
    strength = models.SmallIntegerField(null=True, blank=True)
    ranking = ArrayField(
        models.PositiveSmallIntegerField(),
        null=True,
        blank=True,
        help_text="Ranks in content order, 1 the best; equal numbers are ties.",
    )
    note = models.TextField(blank=True)
    superseded_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=VERDICT_FITS, name="adjudication_strength_fits_preference"),
            models.CheckConstraint(
                condition=Q(preference="ranked", ranking__isnull=False)
                | (~Q(preference="ranked") & Q(ranking__isnull=True)),
                name="adjudication_ranking_where_ranked",
            ),
            models.UniqueConstraint(
                fields=["comparison"], condition=Q(superseded_at__isnull=True), name="adjudication_one_live"
            ),
        ]

    def __str__(self) -> str:
        return f"adjudication {self.pk}"


class Flag(models.Model):
    """An annotator's remark that something is wrong with a comparison itself."""

    comparison = models.ForeignKey(Comparison, on_delete=models.PROTECT, related_name="flags")
    annotator = models.ForeignKey(Annotator, on_delete=models.PROTECT, related_name="flags")
    reason = models.CharField(max_length=40)
    note = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["comparison", "annotator"], condition=Q(resolved_at__isnull=True), name="flag_open_once"
            ),
        ]

    def __str__(self) -> str:
        return f"flag {self.pk}"
