"""Looking at rows in Django's admin. What people did is evidence: it is written by services and changed by nobody."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from annotation import models


class ReadOnlyAdmin(admin.ModelAdmin):
    """Shows rows and changes none."""

    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(models.Project)
class ProjectAdmin(admin.ModelAdmin):
    """Name, guidelines and whether it is open can be mended; people are added on the project's own page."""

    list_display = ("slug", "name", "judgments_per_comparison", "is_open", "created_at")
    fields = ("slug", "name", "guidelines", "judgments_per_comparison", "is_open", "created_at")
    readonly_fields = ("slug", "judgments_per_comparison", "created_at")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(models.Prompt)
class PromptAdmin(ReadOnlyAdmin):
    list_display = ("id", "project", "task", "lang", "group")
    list_filter = ("project", "task")


@admin.register(models.ResponseSource)
class ResponseSourceAdmin(ReadOnlyAdmin):
    list_display = ("name", "kind", "served_model", "base_url")
    list_filter = ("kind",)


@admin.register(models.Response)
class ResponseAdmin(ReadOnlyAdmin):
    list_display = ("id", "prompt_id", "source", "sample_index", "finish_reason", "created_at")
    list_filter = ("source",)
    list_select_related = ("source",)


@admin.register(models.Comparison)
class ComparisonAdmin(ReadOnlyAdmin):
    list_display = ("id", "project", "prompt_id", "assigned_count", "required_count", "external_id")
    list_filter = ("project",)
    list_select_related = ("project",)


@admin.register(models.Annotator)
class AnnotatorAdmin(ReadOnlyAdmin):
    list_display = ("name", "user", "project", "is_human")
    list_select_related = ("user", "project")


@admin.register(models.Assignment)
class AssignmentAdmin(ReadOnlyAdmin):
    list_display = ("id", "annotator", "comparison_id", "status", "a_shown_on_left", "lease_expires_at")
    list_filter = ("status", "project")
    list_select_related = ("annotator",)


@admin.register(models.Judgment)
class JudgmentAdmin(ReadOnlyAdmin):
    list_display = ("id", "comparison_id", "annotator", "preference", "strength", "superseded_at", "created_at")
    list_filter = ("preference", "comparison__project")
    list_select_related = ("annotator",)
