"""People's evaluations of a project, and what they found; for its reviewers, as on their pages."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.common import NewestFirstPagination, ProjectView
from annotation.models import Role, Study
from annotation.study_figures import figures_of


class StudySerializer(serializers.ModelSerializer):
    source = serializers.CharField(source="source.name", help_text="The new one.")  # type: ignore[assignment]
    against = serializers.CharField(source="against.name", default=None, help_text="The old one.")

    class Meta:
        model = Study
        fields = [
            "id", "name", "kind", "source", "against", "judgments_per_item", "selection", "created_at", "closed_at",
        ]  # fmt: skip


class Studies(ProjectView, generics.ListAPIView):
    """Evaluations by people, newest first."""

    role = Role.REVIEWER
    serializer_class = StudySerializer
    pagination_class = NewestFirstPagination

    @extend_schema(operation_id="list_studies")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[Study]:
        return Study.objects.filter(project=self.project).select_related("source", "against")


class StudyDetail(ProjectView):
    role = Role.REVIEWER

    @extend_schema(operation_id="get_study", responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, slug: str, pk: int) -> Response:
        """An evaluation with its results and their intervals, also by slice; keys as of `human_eval`."""
        study = get_object_or_404(
            Study.objects.select_related("project", "source", "against"), pk=pk, project=self.project
        )
        return Response({**StudySerializer(study).data, "results": figures_of(study)})
