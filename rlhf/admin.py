"""Looking at rows in Django's admin; jobs, data sets and checkpoints are changed on their own pages."""

from __future__ import annotations

from django.contrib import admin

from annotation.admin import ReadOnlyAdmin
from rlhf import models


@admin.register(models.DatasetSnapshot)
class DatasetSnapshotAdmin(ReadOnlyAdmin):
    list_display = ("name", "project", "train_rows", "eval_rows", "judgment_count", "created_at")
    list_select_related = ("project",)


@admin.register(models.TrainingJob)
class TrainingJobAdmin(ReadOnlyAdmin):
    list_display = ("id", "name", "method", "status", "attempt", "step", "total_steps", "failure_class", "queued_at")
    list_filter = ("status", "method")


@admin.register(models.GenerationJob)
class GenerationJobAdmin(ReadOnlyAdmin):
    list_display = ("id", "project", "source", "against", "status", "response_count", "response_total", "queued_at")
    list_filter = ("status",)
    list_select_related = ("project", "source", "against")


@admin.register(models.AliasMove)
class AliasMoveAdmin(ReadOnlyAdmin):
    list_display = ("alias", "project", "number", "previous", "checkpoint", "moved_by", "moved_at")
    list_filter = ("alias", "project")
    list_select_related = ("project", "previous", "checkpoint", "moved_by")


@admin.register(models.RewardCard)
class RewardCardAdmin(ReadOnlyAdmin):
    list_display = ("checkpoint", "data_name", "made_at")
    list_select_related = ("checkpoint",)


@admin.register(models.Checkpoint)
class CheckpointAdmin(ReadOnlyAdmin):
    list_display = ("name", "kind", "parent", "job", "source", "created_at")
    list_filter = ("kind",)
    list_select_related = ("parent", "job", "source")
