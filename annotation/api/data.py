"""Prompts, responses, comparisons, judgments and conversations, in and out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import transaction
from django.db.models import Prefetch, QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import generics, status
from rest_framework.request import Request
from rest_framework.response import Response as HttpAnswer

from annotation import services
from annotation.access import has_role
from annotation.api import filters
from annotation.api import serializers as shapes
from annotation.api.common import ByIdPagination, ProjectView, RefusalSerializer, person
from annotation.models import (
    Comparison,
    FurtherResponse,
    Judgment,
    ProjectSource,
    Prompt,
    Response,
    ResponseSource,
    Role,
    SourceKind,
    Turn,
)

REFUSED = {422: RefusalSerializer}
MOST_AT_ONCE = 1000


class Listed(ProjectView, generics.ListAPIView):
    """Rows of a project for its reviewers, in order of id."""

    role = Role.REVIEWER
    pagination_class = ByIdPagination

    def narrowed(self, rows: QuerySet, *names: str) -> QuerySet:
        """The rows that match the query's parameters of these names."""
        given = {name: self.request.query_params[name] for name in names if name in self.request.query_params}
        try:
            return rows.filter(**given)
        except ValueError as error:
            raise services.DomainError(f"{', '.join(given)}: {error}") from error

    def given_rows(self, serializer: type) -> list[dict[str, Any]]:
        rows = serializer(data=self.request.data, many=True, allow_empty=False, max_length=MOST_AT_ONCE)
        rows.is_valid(raise_exception=True)
        return rows.validated_data

    def browsed(self, rows: QuerySet, ids: Callable[[int, int], list[int]]) -> HttpAnswer:
        """The page of those rows that the browse index finds."""
        assert isinstance(self.paginator, ByIdPagination)
        return filters.browsed_page(self.request, self.paginator, rows, self.get_serializer_class(), ids)

    def require_admin(self) -> None:
        self.role = Role.ADMIN
        self.initial(self.request, **self.kwargs)


class Prompts(Listed):
    """The prompts of a project, in order of id."""

    serializer_class = shapes.PromptSerializer
    query = (
        *(OpenApiParameter(name, str) for name in ("task", "lang", "skill", "topic", "tag")),
        OpenApiParameter("query", description="Words of the prompt or of a response to it."),
        filters.STATE,
        filters.BATCH,
        OpenApiParameter(
            "archived",
            bool,
            description="true: only those; false: only the others, as with tag, query, state and batch; else all.",
        ),
    )

    @extend_schema(operation_id="list_prompts", parameters=[*query])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpAnswer:
        if any(name in request.query_params for name in filters.INDEXED_PROMPT_FILTERS):
            ids = filters.prompt_ids(self.project, filters.prompt_filter(self.project, request.query_params))
            return self.browsed(Prompt.objects.filter(project=self.project), ids)
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[Prompt]:
        return self.narrowed(Prompt.objects.filter(project=self.project), "task", "lang", "skill", "topic")

    @extend_schema(
        operation_id="add_prompts",
        request=shapes.NewPromptSerializer(many=True),
        responses={201: shapes.CountSerializer, **REFUSED},
    )
    def post(self, request: Request, slug: str) -> HttpAnswer:
        """Add up to 1000 prompts, all or none; those that are there already are left alone."""
        self.require_admin()
        rows = self.given_rows(shapes.NewPromptSerializer)
        new = services.add_prompts(self.project, rows)
        return HttpAnswer({"new": new, "given": len(rows)}, status=status.HTTP_201_CREATED)


class Responses(Listed):
    """The responses to a project's prompts, in order of id; for admins, since it names the sources."""

    role = Role.ADMIN  # as its page: a reviewer may still judge what they would read here
    serializer_class = shapes.ResponseSerializer
    query = (OpenApiParameter("prompt", int),)

    @extend_schema(operation_id="list_responses", parameters=[*query])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpAnswer:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[Response]:
        rows = Response.objects.filter(prompt__project=self.project).select_related("source")
        return self.narrowed(rows, "prompt")

    @extend_schema(
        operation_id="add_responses",
        request=shapes.NewResponseSerializer(many=True),
        responses={201: shapes.ResponseSerializer(many=True), **REFUSED},
    )
    def post(self, request: Request, slug: str) -> HttpAnswer:
        """Add up to 1000 responses, all or none; what stands under a prompt, source and sample index stays."""
        rows = self.given_rows(shapes.NewResponseSerializer)
        prompts = Prompt.objects.filter(project=self.project).in_bulk({row["prompt"] for row in rows})
        made = []
        with transaction.atomic():
            for number, row in enumerate(rows):
                if row["prompt"] not in prompts:
                    raise services.DomainError(f"row {number}: this project has no prompt {row['prompt']}.")
                source, _ = ResponseSource.objects.get_or_create(
                    name=row["source"], defaults={"kind": SourceKind.IMPORTED}
                )
                made.append(
                    services.add_response(
                        prompts[row["prompt"]], source, row["sample_index"], row["text"],
                        seed=None, sampling={}, template_sha256="", finish_reason="",
                    )
                )  # fmt: skip
        return HttpAnswer(shapes.ResponseSerializer(made, many=True).data, status=status.HTTP_201_CREATED)


class Sources(ProjectView):
    role = Role.REVIEWER

    @extend_schema(operation_id="list_sources", responses=shapes.SourceSerializer(many=True))
    def get(self, request: Request, slug: str) -> HttpAnswer:
        """Who wrote the responses of this project."""
        here = ProjectSource.objects.filter(project=self.project).values("source")
        sources = ResponseSource.objects.filter(pk__in=here).order_by("name")
        return HttpAnswer(shapes.SourceSerializer(sources, many=True).data)


def comparison_shape(view: ProjectView) -> type[shapes.ComparisonSerializer]:
    """What the caller may know of a comparison; for the description of the API, all that there is."""
    if not hasattr(view, "project") or has_role(person(view.request), view.project, Role.ADMIN):
        return shapes.AdminComparisonSerializer
    return shapes.ComparisonSerializer


class Comparisons(Listed):
    """The comparisons of a project, in order of id; to admins with `is_gold` and `external_id`, which a reviewer, who
    may still judge them, must not know."""

    serializer_class = shapes.AdminComparisonSerializer
    query = (
        *(OpenApiParameter(name, type_) for name, type_ in (("prompt", int), ("lang", str), ("skill", str))),
        filters.STATE,
        filters.BATCH,
    )

    @extend_schema(operation_id="list_comparisons", parameters=[*query])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpAnswer:
        asked = request.query_params
        if not any(name in asked for name in filters.INDEXED_COMPARISON_FILTERS):
            return super().get(request, *args, **kwargs)
        if "prompt" in asked:
            raise services.DomainError("A prompt has few comparisons: leave state and batch out, or leave prompt out.")
        ids = filters.comparison_ids(self.project, filters.comparison_filter(self.project, asked))
        return self.browsed(self._rows(), ids)

    def get_serializer_class(self) -> type[shapes.ComparisonSerializer]:
        return comparison_shape(self)

    def get_queryset(self) -> QuerySet[Comparison]:
        return self.narrowed(self._rows(), "prompt", "lang", "skill")

    def _rows(self) -> QuerySet[Comparison]:
        further = Prefetch("further_responses", FurtherResponse.objects.order_by("position"))
        return Comparison.objects.filter(project=self.project).prefetch_related(further)

    @extend_schema(
        operation_id="add_comparisons",
        request=shapes.NewComparisonSerializer(many=True),
        responses={201: shapes.CountSerializer, **REFUSED},
    )
    def post(self, request: Request, slug: str) -> HttpAnswer:
        """Put responses before the annotators, two to compare or up to nine to rank; pairs there already stay."""
        self.require_admin()
        rows = self.given_rows(shapes.NewComparisonSerializer)
        wanted = {pk for row in rows for pk in row["responses"]}
        found = Response.objects.filter(prompt__project=self.project).in_bulk(wanted)
        if missing := sorted(wanted - set(found)):
            raise services.DomainError(f"this project has no response {missing[0]}.")
        groups = [[found[pk] for pk in row["responses"]] for row in rows]
        with transaction.atomic():
            new = services.create_comparisons(self.project, [(g[0], g[1]) for g in groups if len(g) == 2])
            new += services.create_rankings(self.project, [group for group in groups if len(group) > 2])
        return HttpAnswer({"new": new, "given": len(rows)}, status=status.HTTP_201_CREATED)


class Judgments(Listed):
    """Every judgment, superseded ones too (`?live=true`: only those that stand), in order of id."""

    serializer_class = shapes.JudgmentSerializer
    query = (OpenApiParameter("comparison", int), OpenApiParameter("live", bool))

    @extend_schema(operation_id="list_judgments", parameters=[*query])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpAnswer:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[Judgment]:
        rows = Judgment.objects.filter(comparison__project=self.project).select_related("annotator")
        if filters.read_flag(self.request.query_params, "live"):
            rows = rows.filter(superseded_at=None)
        return self.narrowed(rows.prefetch_related("error_spans"), "comparison")


class Turns(Listed):
    """The turns of the project's conversations with their typed feedback, in order of id."""

    serializer_class = shapes.TurnSerializer
    query = (OpenApiParameter("conversation", int),)

    @extend_schema(operation_id="list_turns", parameters=[*query])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpAnswer:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[Turn]:
        return self.narrowed(Turn.objects.filter(conversation__project=self.project), "conversation")


class ComparisonDetail(ProjectView):
    role = Role.REVIEWER

    @extend_schema(
        operation_id="get_comparison", responses={200: shapes.AdminComparisonSerializer, 404: OpenApiTypes.OBJECT}
    )
    def get(self, request: Request, slug: str, pk: int) -> HttpAnswer:
        row = get_object_or_404(Comparison.objects.prefetch_related("further_responses"), pk=pk, project=self.project)
        return HttpAnswer(comparison_shape(self)(row).data)
