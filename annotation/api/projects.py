"""Projects, their figures, files, journal and webhooks."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.http import FileResponse
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import generics, status
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation import export, services
from annotation.api import serializers as shapes
from annotation.api.common import (
    NewestFirstPagination,
    ProjectView,
    RefusalSerializer,
    person,
    project_for,
    refuse_unknown,
)
from annotation.api.filters import read_flag
from annotation.leaderboard import KNOWN_CHOICES, Choices, make_leaderboard
from annotation.models import Event, EventKind, GuidelineVersion, Project, Role, Webhook, WebhookDelivery
from annotation.quality_report import project_agreement
from annotation.services import webhooks
from annotation.services.projects import edit_guidelines, update_settings

REFUSED = {422: RefusalSerializer}
EXPORTED_HEADER = "Touchstone-Exported"


class ProjectList(APIView):
    """The projects of the caller."""

    @extend_schema(operation_id="list_projects", responses=shapes.ProjectSerializer(many=True))
    def get(self, request: Request) -> Response:
        user = person(request)
        projects = Project.objects.all() if user.is_staff else Project.objects.filter(members=user)
        return Response(shapes.ProjectSerializer(projects.order_by("slug"), many=True).data)

    @extend_schema(
        operation_id="create_project",
        request=shapes.NewProjectSerializer,
        responses={201: shapes.ProjectSerializer, **REFUSED},
    )
    def post(self, request: Request) -> Response:
        """Make a project, or give the one that has this slug. For staff."""
        if not person(request).is_staff:
            raise PermissionDenied("Only staff may make projects.")
        given = shapes.NewProjectSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        project = services.create_project(**given.validated_data)
        return Response(shapes.ProjectSerializer(project).data, status=status.HTTP_201_CREATED)


class ProjectDetail(ProjectView):
    @extend_schema(operation_id="get_project", responses=shapes.ProjectSerializer)
    def get(self, request: Request, slug: str) -> Response:
        return Response(shapes.ProjectSerializer(self.project).data)

    @extend_schema(
        operation_id="change_settings",
        request=shapes.SettingsSerializer,
        responses={200: shapes.ProjectSerializer, **REFUSED},
    )
    def patch(self, request: Request, slug: str) -> Response:
        """Change settings; `guidelines` makes a new version. All of it or none. For admins."""
        project_for(request, slug, Role.ADMIN)
        given = shapes.SettingsSerializer(data=request.data, partial=True)
        refuse_unknown(given, request.data)
        given.is_valid(raise_exception=True)
        changes = dict(given.validated_data)
        with transaction.atomic():
            if "guidelines" in changes:
                edit_guidelines(self.project, changes.pop("guidelines"), by=person(request))
            update_settings(self.project, person(request), **changes)
        return Response(shapes.ProjectSerializer(Project.objects.get(pk=self.project.pk)).data)


class Guidelines(ProjectView, generics.ListAPIView):
    """Every version of the guidelines, newest first; a judgment says which one was shown."""

    serializer_class = shapes.GuidelineVersionSerializer
    pagination_class = NewestFirstPagination

    @extend_schema(operation_id="list_guidelines")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[GuidelineVersion]:
        return GuidelineVersion.objects.filter(project=self.project)

    @extend_schema(
        operation_id="write_guidelines",
        request=shapes.NewGuidelinesSerializer,
        responses={200: shapes.GuidelineVersionSerializer, 409: RefusalSerializer, **REFUSED},
    )
    def post(self, request: Request, slug: str) -> Response:
        """Put another wording in force; the same wording again makes no version. For admins."""
        project_for(request, slug, Role.ADMIN)
        given = shapes.NewGuidelinesSerializer(data=request.data)
        refuse_unknown(given, request.data)
        given.is_valid(raise_exception=True)
        version = edit_guidelines(self.project, by=person(request), **given.validated_data)
        stored = GuidelineVersion.objects.get(project=self.project, version=version)
        return Response(shapes.GuidelineVersionSerializer(stored).data)


class Agreement(ProjectView):
    role = Role.REVIEWER
    query = (OpenApiParameter("humans_only", bool),)

    @extend_schema(operation_id="get_agreement", parameters=[*query], responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, slug: str) -> Response:
        """How far people agree; the keys are those of `manage.py agreement --json`. null: not defined.

        Intervals are at 95 %, of 1,000 bootstrap samples."""
        humans_only = bool(read_flag(request.query_params, "humans_only"))
        return Response(project_agreement(self.project, humans_only=humans_only))


BOARD_PARAMETERS = {"ties": "ties", "voters": "voters", "method": "method", "interval": "intervals"}
"""What the address calls a choice, and `leaderboard.Choices`."""


class Leaderboard(ProjectView):
    role = Role.REVIEWER

    query = (
        *(OpenApiParameter(name, enum=KNOWN_CHOICES[field]) for name, field in BOARD_PARAMETERS.items()),
        OpenApiParameter("humans_only", bool, description="The same as voters=people."),
        OpenApiParameter("category", description="Prompts of this task only."),
        OpenApiParameter("language", description="Prompts in this language only."),
        OpenApiParameter("style", enum=["as_is", "equal"], description="equal holds length and markup equal."),
    )

    @extend_schema(
        operation_id="get_leaderboard", parameters=[*query], responses={200: OpenApiTypes.OBJECT, **REFUSED}
    )
    def get(self, request: Request, slug: str) -> Response:
        """Ratings with 95 % intervals; the keys are those of `manage.py leaderboard --json`."""
        asked = request.query_params
        if (style := asked.get("style", "as_is")) not in ("as_is", "equal"):
            raise services.DomainError(f"style: {style!r} is neither as_is nor equal.")
        given: dict[str, Any] = {field: asked[name] for name, field in BOARD_PARAMETERS.items() if name in asked}
        if read_flag(asked, "humans_only"):
            given["voters"] = "people"
        try:
            choices = Choices(
                **given,
                category=asked.get("category") or None,
                lang=asked.get("language") or None,
                control=style == "equal",
            )
        except ValueError as error:
            raise services.DomainError(f"{error}.") from None
        board = asdict(make_leaderboard(self.project, choices, with_flags=True))
        return Response({"rows": board.pop("standings")} | board)


DROPS = {"drop_near_identical": "near_identical", "drop_unfinished": "unfinished", "drop_model_names": "names_model"}
"""What the command and an address call a rule, and `export.Rules`."""


class ExportView(ProjectView):
    """An endpoint that exports by the rules of `manage.py export_preferences`, under its names."""

    role = Role.ADMIN
    query = (
        OpenApiParameter("humans_only", bool, description="Leave out judgments by models."),
        OpenApiParameter("axis", description="Judge by this separate question of the protocol."),
        OpenApiParameter("max_spread", float, description="Leave out where people lie further apart, in steps."),
        OpenApiParameter("min_strength", float, description="Leave out where the mean strength is weaker, in steps."),
        OpenApiParameter("drop_near_identical", bool, description="Leave out texts that agree in 95 %."),
        OpenApiParameter("drop_unfinished", bool, description="Leave out responses cut off, or blank."),
        OpenApiParameter("drop_model_names", bool, description="Leave out responses that say who wrote them."),
    )

    def choices(self, kind: str) -> dict[str, Any]:
        """Keywords of `export_preferences` and `count_export`."""
        if kind not in export.Kind.values:
            raise services.DomainError(f"kind: {kind!r} is unknown; choose among {', '.join(export.Kind.values)}.")
        asked = self.request.query_params
        drops = {rule: bool(read_flag(asked, name)) for name, rule in DROPS.items()}
        form = export.RulesForm({name: asked.get(name, "") for name in ("axis", "max_spread", "min_strength")} | drops)
        if not form.is_valid():
            name, errors = next(iter(form.errors.items()))
            raise services.DomainError(f"{name}: {errors[0]}")
        humans_only = bool(read_flag(asked, "humans_only"))
        return {"humans_only": humans_only, "rules": form.rules(), "axis": form.cleaned_data["axis"]}


class Export(ExportView):
    @extend_schema(
        operation_id="export",
        parameters=[
            *ExportView.query,
            OpenApiParameter(
                EXPORTED_HEADER, location=OpenApiParameter.HEADER, response=[200],
                description="What the file holds, as JSON: rows, prompts, sha256 and dropped, by reason.",
            ),
        ],
        responses={(200, "application/octet-stream"): OpenApiTypes.BINARY, **REFUSED},
    )  # fmt: skip
    def get(self, request: Request, slug: str, kind: str, suffix: str) -> FileResponse:
        """The training rows of one kind, as JSON Lines or Parquet."""
        choices = self.choices(kind)
        # The folder goes as soon as the file is open; the file itself lives until it is closed.
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / f"{slug}-{kind}.{suffix}"
            done = export.export_preferences(self.project, kind, out, user=person(request), **choices)
            file = out.open("rb")
        return FileResponse(
            file, as_attachment=True, filename=out.name, headers={EXPORTED_HEADER: json.dumps(asdict(done))}
        )


class ExportCounts(ExportView):
    @extend_schema(
        operation_id="count_export",
        parameters=[*ExportView.query],
        responses={200: shapes.ExportCountsSerializer, **REFUSED},
    )
    def get(self, request: Request, slug: str, kind: str) -> Response:
        """What a file would hold, and how many judged pairs would give no row, by reason."""
        choices = self.choices(kind)
        if kind not in export.TABLE_KINDS:
            raise services.DomainError(
                f"kind: nothing is left out of {kind!r} by rules, so there is nothing to count."
            )
        return Response(asdict(export.count_export(self.project, kind, **choices)))


class Journal(ProjectView, generics.ListAPIView):
    """What happened, newest first; append-only."""

    role = Role.ADMIN
    serializer_class = shapes.EventSerializer
    pagination_class = NewestFirstPagination
    query = (OpenApiParameter("kind", enum=EventKind.values),)

    @extend_schema(operation_id="list_events", parameters=[*query])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[Event]:
        events = Event.objects.filter(project=self.project).select_related("user")
        kind = self.request.query_params.get("kind")
        if kind and kind not in EventKind.values:
            raise services.DomainError(f"kind: {kind!r} is unknown; choose among {', '.join(EventKind.values)}.")
        return events.filter(kind=kind) if kind else events


class Webhooks(ProjectView):
    role = Role.ADMIN

    @extend_schema(operation_id="list_webhooks", responses=shapes.WebhookSerializer(many=True))
    def get(self, request: Request, slug: str) -> Response:
        rows = Webhook.objects.filter(project=self.project, removed_at=None).order_by("id")
        return Response(shapes.WebhookSerializer(rows, many=True).data)

    @extend_schema(
        operation_id="add_webhook",
        request=shapes.NewWebhookSerializer,
        responses={201: shapes.AddedWebhookSerializer, **REFUSED},
    )
    def post(self, request: Request, slug: str) -> Response:
        """Register an address. Messages are signed as Standard Webhooks 1.0 says, with the secret in the answer."""
        given = shapes.NewWebhookSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        webhook = webhooks.add_webhook(self.project, by=person(request), **given.validated_data)
        answer = shapes.WebhookSerializer(webhook).data | {"signing_secret": webhooks.signing_secret(webhook)}
        return Response(answer, status=status.HTTP_201_CREATED)


class WebhookDetail(ProjectView):
    role = Role.ADMIN

    @extend_schema(
        operation_id="switch_webhook",
        request=shapes.WebhookSwitchSerializer,
        responses={200: shapes.WebhookSerializer, **REFUSED},
    )
    def patch(self, request: Request, slug: str, pk: int) -> Response:
        """Switch it off or on. While it is off nothing is kept for it."""
        given = shapes.WebhookSwitchSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        webhook = self._webhook(pk)
        webhooks.switch_webhook(webhook, by=person(request), **given.validated_data)
        webhook.refresh_from_db()
        return Response(shapes.WebhookSerializer(webhook).data)

    @extend_schema(operation_id="remove_webhook", responses={204: None})
    def delete(self, request: Request, slug: str, pk: int) -> Response:
        webhooks.remove_webhook(self._webhook(pk), by=person(request))
        return Response(status=status.HTTP_204_NO_CONTENT)

    def _webhook(self, pk: int) -> Webhook:
        return get_object_or_404(Webhook, pk=pk, project=self.project, removed_at=None)


class ResendDelivery(ProjectView):
    role = Role.ADMIN

    @extend_schema(operation_id="resend_webhook_delivery", request=None, responses={202: None, **REFUSED})
    def post(self, request: Request, slug: str, pk: int, delivery: UUID) -> Response:
        """Have it sent again within seconds, with the same webhook-id."""
        found = get_object_or_404(
            WebhookDelivery, public_id=delivery, webhook=pk, webhook__project=self.project, webhook__removed_at=None
        )
        webhooks.resend_delivery(found, by=person(request))
        return Response(status=status.HTTP_202_ACCEPTED)


class Deliveries(ProjectView, generics.ListAPIView):
    """What was sent to a webhook and how it was answered, newest first."""

    role = Role.ADMIN
    serializer_class = shapes.WebhookDeliverySerializer
    pagination_class = NewestFirstPagination

    @extend_schema(operation_id="list_webhook_deliveries")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[WebhookDelivery]:
        return WebhookDelivery.objects.filter(webhook=self.kwargs["pk"], webhook__project=self.project)
