"""Quality by program: gold items, what waits for a reviewer, and what reviewers make of it."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import generics, serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.common import (
    ByIdPagination,
    NewestFirstPagination,
    ProjectView,
    RefusalSerializer,
    annotator,
    person,
    refuse_unknown,
)
from annotation.api.filters import read_flag
from annotation.models import Adjudication, AssignmentStatus, Comparison, Flag, Gold, Preference, Role
from annotation.services import quality

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


class PromoteSerializer(serializers.Serializer):
    at_least = serializers.IntegerField(
        required=False, default=quality.UNANIMOUS_VOTES, min_value=2, max_value=100, help_text="People who agree."
    )
    at_most = serializers.IntegerField(required=False, default=50, min_value=1, max_value=1000)


class MadeSerializer(serializers.Serializer):
    made = serializers.IntegerField()


class PromoteGold(ProjectView):
    role = Role.ADMIN

    @extend_schema(operation_id="promote_gold", request=PromoteSerializer, responses={200: MadeSerializer, **REFUSED})
    def post(self, request: Request, slug: str) -> Response:
        """Make gold of the comparisons that everybody judged alike, the surest first."""
        given = PromoteSerializer(data=request.data)
        refuse_unknown(given, request.data)
        given.is_valid(raise_exception=True)
        made = quality.promote_unanimous(self.project, by=person(request), **given.validated_data)
        return Response({"made": made})


class ChangedGoldSerializer(serializers.Serializer):
    is_for_qualification = serializers.BooleanField()


class GoldItem(ProjectView):
    role = Role.ADMIN

    @extend_schema(
        operation_id="change_gold", request=ChangedGoldSerializer, responses={200: GoldSerializer, **REFUSED}
    )
    def patch(self, request: Request, slug: str, comparison: int) -> Response:
        """Move a gold item between the qualification round and the work of those who passed it.

        Another verdict is given by adding it anew (POST gold/), while nobody was measured by the one that stands.
        """
        gold = get_object_or_404(Gold, comparison=comparison, comparison__project=self.project)
        given = ChangedGoldSerializer(data=request.data)
        refuse_unknown(given, request.data)
        given.is_valid(raise_exception=True)
        quality.use_for_qualification(gold, given.validated_data["is_for_qualification"], by=person(request))
        gold.refresh_from_db()
        return Response(GoldSerializer(gold).data)

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


# ── What waits for a reviewer ────────────────────────────────────────────────────────────────────────────────────


class WaitingSerializer(serializers.ModelSerializer):
    """A comparison that people disagree about, flagged or skipped; `votes` are those that stand, without names."""

    comparison = serializers.IntegerField(source="pk")
    question = serializers.SerializerMethodField()
    votes = serializers.SerializerMethodField()
    flags = serializers.SerializerMethodField()
    skips = serializers.SerializerMethodField(help_text="How often it was given back.")

    class Meta:
        model = Comparison
        fields = ["comparison", "prompt", "question", "review_since", "votes", "flags", "skips"]

    def get_question(self, comparison: Comparison) -> str:
        return comparison.prompt.messages[-1]["content"]

    def get_votes(self, comparison: Comparison) -> list[dict[str, Any]]:
        votes = [vote for vote in comparison.judgments.all() if vote.superseded_at is None and vote.round == 0]
        names = ("preference", "strength", "ranking", "note")
        return [{name: getattr(vote, name) for name in names} for vote in votes if vote.annotator.is_human]

    def get_flags(self, comparison: Comparison) -> list[dict[str, Any]]:
        unresolved = [flag for flag in comparison.flags.all() if flag.resolved_at is None]
        return [{"id": flag.pk, "reason": flag.reason, "note": flag.note} for flag in unresolved]

    def get_skips(self, comparison: Comparison) -> int:
        return sum(one.status == AssignmentStatus.SKIPPED for one in comparison.assignments.all())


class Waiting(ProjectView, generics.ListAPIView):
    """What waits to be settled, in order of id: by POST adjudications/, or without a verdict."""

    role = Role.REVIEWER
    serializer_class = WaitingSerializer
    pagination_class = ByIdPagination

    @extend_schema(operation_id="list_waiting")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[Comparison]:
        rows = Comparison.objects.filter(project=self.project, review_since__isnull=False).select_related("prompt")
        return rows.prefetch_related("judgments__annotator", "flags", "assignments")


class LookedSerializer(serializers.Serializer):
    changed = serializers.IntegerField(help_text="Comparisons put on the list or taken off it.")


class LookAgain(ProjectView):
    role = Role.REVIEWER

    @extend_schema(operation_id="look_again", request=None, responses=LookedSerializer)
    def post(self, request: Request, slug: str) -> Response:
        """Look through the whole project for what disagrees, as after an import."""
        return Response({"changed": quality.mark_for_review(project=self.project)})


class WithoutVerdict(ProjectView):
    """Deals with a comparison without a verdict; its open flags are resolved."""

    role = Role.REVIEWER

    def comparison(self, pk: int) -> Comparison:
        return get_object_or_404(Comparison, pk=pk, project=self.project)


class LeaveUndecided(WithoutVerdict):
    @extend_schema(operation_id="leave_undecided", request=None, responses={204: None})
    def post(self, request: Request, slug: str, pk: int) -> Response:
        """Take it off the list as it is: the votes count as they are, and its open flags are resolved."""
        quality.leave_undecided(self.comparison(pk), reviewer=annotator(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


class Withdraw(WithoutVerdict):
    @extend_schema(operation_id="withdraw_comparison", request=None, responses={204: None})
    def post(self, request: Request, slug: str, pk: int) -> Response:
        """Hand it out no more; its votes stay, and its open flags are resolved."""
        quality.withdraw_comparison(self.comparison(pk), reviewer=annotator(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


class Restore(WithoutVerdict):
    @extend_schema(operation_id="restore_comparison", request=None, responses={204: None})
    def post(self, request: Request, slug: str, pk: int) -> Response:
        """Hand a withdrawn one out again."""
        quality.restore_comparison(self.comparison(pk), reviewer=annotator(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


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

    query = (OpenApiParameter("open", bool, description="true: those that nobody has dealt with; false: the others."),)

    @extend_schema(operation_id="list_flags", parameters=[*query])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[Flag]:
        rows = Flag.objects.filter(comparison__project=self.project).select_related("annotator")
        is_open = read_flag(self.request.query_params, "open")
        return rows if is_open is None else rows.filter(resolved_at__isnull=is_open)
