"""Looking at rows in Django's admin. What people did is evidence: it is written by services and changed by nobody."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _

from annotation import models, services


class ReadOnlyAdmin(admin.ModelAdmin):
    """Shows rows and changes none."""

    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


admin.site.unregister(User)


@admin.register(User)
class AccountAdmin(UserAdmin):
    """Making accounts and switching them off; what people do in projects is on the projects' own pages."""

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Without deletion of many: each account that has worked here has a sentence of its own."""
        return {name: action for name, action in super().get_actions(request).items() if name != "delete_selected"}

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Only who never had a place here can be deleted: what people did is evidence and keeps its author."""
        user = self.get_object(request, object_id)
        if user and (user.memberships.exists() or models.Annotator.objects.filter(user=user).exists()):
            sentence = _(
                "%(name)s has a place or votes here, and these are kept, so the account cannot be deleted. "
                "Switch it off instead: take the tick from “Active” and save."
            )
            messages.error(request, sentence % {"name": user.get_username()})
            return redirect("admin:auth_user_change", user.pk)
        return super().delete_view(request, object_id, extra_context)

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        leaves = change and not obj.is_active and form.initial.get("is_active")
        super().save_model(request, obj, form, change)
        if leaves:
            assert isinstance(request.user, User)
            services.deactivate_user(obj, by=request.user)


@admin.register(models.Project)
class ProjectAdmin(ReadOnlyAdmin):
    """Settings and guidelines are changed on the project's own pages, which keep versions and a journal."""

    list_display = ("slug", "name", "judgments_per_comparison", "is_open", "created_at")


@admin.register(models.Membership)
class MembershipAdmin(ReadOnlyAdmin):
    list_display = ("project", "user", "role", "qualification", "joined_at")
    list_filter = ("project", "role")
    list_select_related = ("project", "user")


@admin.register(models.Invitation)
class InvitationAdmin(ReadOnlyAdmin):
    list_display = ("id", "project", "role", "email", "created_by", "expires_at", "accepted_at", "revoked_at")
    list_filter = ("project",)
    list_select_related = ("project", "created_by")
    exclude = ("token_sha256",)


@admin.register(models.GuidelineVersion)
class GuidelineVersionAdmin(ReadOnlyAdmin):
    list_display = ("project", "version", "created_by", "created_at")
    list_filter = ("project",)
    list_select_related = ("project", "created_by")


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
