"""Judged comparisons, frozen for training."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from annotation.models import Project
from annotation.models.checks import json_object


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
    score_measures = json_object(
        help_text="Of each aspect's absolute scores in the training rows (rlhf/score_scales.py): what normalises them."
    )
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(sha256__length=64), name="snapshot_sha256_length"),
            models.CheckConstraint(condition=Q(eval_share__gte=0, eval_share__lt=1), name="snapshot_eval_share_range"),
        ]

    def __str__(self) -> str:
        return self.name
