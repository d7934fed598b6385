"""Quality by program: gold items, what waits for a reviewer, adjudications, and how people judge."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import generics, serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.agreement import load_votes
from annotation.api.common import (
    ByIdPagination,
    NewestFirstPagination,
    ProjectView,
    RefusalSerializer,
    annotator,
    person,
)
from annotation.models import Adjudication, Comparison, Flag, Gold, Preference, Role
from annotation.quality import Figures, measure_annotators
from annotation.services import quality
from annotation.shares import Share

REFUSED = {409: RefusalSerializer, 422: RefusalSerializer}


class VerdictSerializer(serializers.Serializer):
    """A verdict in content order, as judgments are stored."""

    comparison = serializers.IntegerField()
    preference = serializers.ChoiceField(choices=Preference.choices)
    strength = serializers.IntegerField(required=False, allow_null=True, default=None, min_value=-4, max_value=4)


class GoldSerializer(serializers.ModelSerializer):
    class Meta:
        model = Gold
        fields = ["comparison", "preference", "strength", "reason", "is_for_qualification", "created_at", "retired_at"]


class NewGoldSerializer(VerdictSerializer):
    reason = serializers.CharField(required=False, default="", allow_blank=True, max_length=10_000)
    is_for_qualification = serializers.BooleanField(required=False, default=False)


class GoldItems(ProjectView, generics.ListAPIView):
    """Comparisons whose right verdict is known, retired ones too, in order of id."""

    role = Role.ADMIN
    serializer_class = GoldSerializer
    pagination_class = ByIdPagination

    @extend_schema(operation_id="list_gold")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[Gold]:
        return Gold.objects.filter(comparison__project=self.project)

    @extend_schema(operation_id="add_gold", request=NewGoldSerializer, responses={201: GoldSerializer, **REFUSED})
    def post(self, request: Request, slug: str) -> Response:
        """Make a comparison gold."""
        given = NewGoldSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        fields = dict(given.validated_data)
        comparison = get_object_or_404(Comparison, pk=fields.pop("comparison"), project=self.project)
        gold = quality.add_gold(comparison, by=person(request), **fields)
        return Response(GoldSerializer(gold).data, status=status.HTTP_201_CREATED)


class GoldItem(ProjectView):
    role = Role.ADMIN

    @extend_schema(operation_id="retire_gold", responses={204: None})
    def delete(self, request: Request, slug: str, comparison: int) -> Response:
        """Serve a comparison as gold no more; what it measured stays."""
        gold = get_object_or_404(Gold, comparison=comparison, comparison__project=self.project)
        quality.retire_gold(gold, by=person(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


class AdjudicationSerializer(serializers.ModelSerializer):
    reviewer = serializers.CharField(source="reviewer.name")

    class Meta:
        model = Adjudication
        fields = [
            "id",
            "comparison",
            "reviewer",
            "preference",
            "strength",
            "ranking",
            "note",
            "superseded_at",
            "created_at",
        ]


class NewAdjudicationSerializer(VerdictSerializer):
    ranking = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=9),
        required=False,
        allow_null=True,
        default=None,
        max_length=9,
        help_text="With preference “ranked”: a rank for each response in content order, 1 the best.",
    )
    note = serializers.CharField(required=False, default="", allow_blank=True, max_length=10_000)
    based_on = serializers.IntegerField(
        required=False, allow_null=True, default=None, help_text="The adjudication that it replaces, by id."
    )


class Adjudications(ProjectView, generics.ListAPIView):
    """Reviewers' last words, superseded ones too, newest first."""

    role = Role.REVIEWER
    serializer_class = AdjudicationSerializer
    pagination_class = NewestFirstPagination

    @extend_schema(operation_id="list_adjudications")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[Adjudication]:
        return Adjudication.objects.filter(comparison__project=self.project).select_related("reviewer")

    @extend_schema(
        operation_id="adjudicate",
        request=NewAdjudicationSerializer,
        responses={201: AdjudicationSerializer, **REFUSED},
    )
    def post(self, request: Request, slug: str) -> Response:
        """Settle a comparison; the verdict stands instead of the votes."""
        given = NewAdjudicationSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        fields = dict(given.validated_data)
        comparison = get_object_or_404(Comparison, pk=fields.pop("comparison"), project=self.project)
        stored = quality.adjudicate(comparison, reviewer=annotator(request), **fields)
        return Response(AdjudicationSerializer(stored).data, status=status.HTTP_201_CREATED)


class FlagSerializer(serializers.ModelSerializer):
    annotator = serializers.CharField(source="annotator.name")

    class Meta:
        model = Flag
        fields = ["id", "comparison", "annotator", "reason", "note", "created_at", "resolved_at"]


class Flags(ProjectView, generics.ListAPIView):
    """What annotators said is wrong with comparisons themselves, newest first."""

    role = Role.REVIEWER
    serializer_class = FlagSerializer
    pagination_class = NewestFirstPagination

    @extend_schema(operation_id="list_flags")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[Flag]:
        return Flag.objects.filter(comparison__project=self.project).select_related("annotator")


class Annotators(ProjectView):
    role = Role.REVIEWER

    @extend_schema(operation_id="list_annotators", responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, slug: str) -> Response:
        """How each person judges: shares with counts and 95 % intervals; null where there is nothing to divide by."""
        figures = measure_annotators(self.project, load_votes(self.project, humans_only=True))
        return Response({"annotators": [_figures(row) for row in figures]})


def _figures(figures: Figures) -> dict[str, Any]:
    return {
        "annotator": figures.annotator.name,
        "votes": figures.counts.votes,
        "agreement_with_others": _share(figures.with_others),
        "agreement_with_gold": _share(figures.gold),
        "consistency": _share(figures.repeats.consistent if figures.repeats else None),
        "left_chosen": _share(figures.left),
        "longer_chosen": _share(figures.longer),
        "too_fast": _share(figures.fast),
        "votes_per_hour": figures.votes_per_hour,
        "concerns": [concern.value for concern in figures.concerns],
    }


def _share(share: Share | None) -> dict[str, float] | None:
    if share is None:
        return None
    return {"share": share.value, "lower": share.lower, "upper": share.upper, "of": share.count}
