"""Benchmarks: data sets and their items, runs of models over them, and what these gave."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Count, Q, QuerySet
from django.shortcuts import get_object_or_404
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import generics, serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.common import ByIdPagination, person
from annotation.services import DomainError
from rlhf.api.common import REFUSED, StaffList, StaffView, StatusField, as_refusal, given, source_named
from rlhf.benchmark_figures import agreements, figures_of, leaderboard, progress_of, report_of
from rlhf.models import (
    Benchmark,
    BenchmarkItem,
    BenchmarkJudgment,
    BenchmarkRun,
    BenchmarkSet,
    JudgmentFailure,
    PromptLanguage,
)
from rlhf.services import request_cancel
from rlhf.services.benchmarks import queue_benchmark_run, reopen_benchmark_run
from rlhf.views.benchmark_filters import FILTERS, filtered

# ── Data sets ────────────────────────────────────────────────────────────────────────────────────────────────────


class BenchmarkSetSerializer(serializers.ModelSerializer):
    project = serializers.CharField(source="project.slug", default=None, help_text="Whose talks it grows of.")
    ticked_in = serializers.CharField(source="ticked_in.slug", default=None, help_text="Whose people tick answers.")
    items = serializers.IntegerField(source="kept", help_text="That runs are about.")

    class Meta:
        model = BenchmarkSet
        fields = ["id", "kind", "name", "sha256", "project", "ticked_in", "items", "created_at"]


class SetFilters(serializers.Serializer):
    kind = serializers.ChoiceField(choices=[kind.value for kind in Benchmark], required=False)


class BenchmarkSets(StaffList):
    """Data sets of benchmarks, newest first."""

    serializer_class = BenchmarkSetSerializer
    filters = SetFilters

    @extend_schema(operation_id="list_benchmark_sets", parameters=[SetFilters])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def rows(self, asked: dict[str, Any]) -> QuerySet[BenchmarkSet]:
        found = BenchmarkSet.objects.select_related("project", "ticked_in")
        return found.filter(**asked).annotate(kept=Count("items", filter=Q(items__dropped_at=None)))


class BenchmarkItemSerializer(serializers.ModelSerializer):
    criteria = serializers.ListField(
        help_text="Of the newest checklist: [text, weight or null], or [text, kind, …] for CFBench and SysBench."
    )
    checklist_version = serializers.IntegerField(allow_null=True)

    class Meta:
        model = BenchmarkItem
        fields = [
            "id", "position", "key", "scenario", "task", "sub_task", "query", "first_response", "feedback",
            "deficiency_types", "feedback_types", "session", "turn", "details", "dropped_at", "criteria",
            "checklist_version",
        ]  # fmt: skip


_FILTER_NAMES = (*sorted({one.name for filters in FILTERS.values() for one in filters}), "text")


class BenchmarkItems(StaffView, generics.ListAPIView):
    """The items of a data set, in order of id."""

    serializer_class = BenchmarkItemSerializer
    pagination_class = ByIdPagination
    query = _FILTER_NAMES

    @extend_schema(
        operation_id="list_benchmark_items", parameters=[OpenApiParameter(name, str) for name in _FILTER_NAMES]
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[BenchmarkItem]:
        if getattr(self, "swagger_fake_view", False):
            return BenchmarkItem.objects.none()
        data_set = get_object_or_404(BenchmarkSet, pk=self.kwargs["pk"])
        items = BenchmarkItem.objects.filter(data_set=data_set).with_checklist()
        return filtered(data_set.kind, items, self.request.query_params)


class BenchmarkBoard(StaffView):
    @extend_schema(operation_id="get_benchmark_leaderboard", responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, pk: int) -> Response:
        """The newest finished run of each model and judge, the best first, and how far judges agree with people."""
        data_set = get_object_or_404(BenchmarkSet, pk=pk)
        rows = [
            {"run": row.run.pk, **_names(row.run), "gap": row.gap, "figures": row.figures}
            for row in leaderboard(data_set)
        ]
        return Response({"rows": rows, "agreements": [asdict(one) for one in agreements(data_set)]})


def _names(run: BenchmarkRun) -> dict[str, Any]:
    return {"source": run.source.name, "judge": run.judge.name if run.judge else None}


# ── Runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class BenchmarkRunSerializer(serializers.ModelSerializer):
    data_set = serializers.IntegerField(source="data_set_id")
    data_set_name = serializers.CharField(source="data_set.name")
    source = serializers.CharField(source="source.name")  # type: ignore[assignment]
    judge = serializers.CharField(source="judge.name", default=None)
    created_by = serializers.CharField(source="created_by.username", default=None)
    page = serializers.SerializerMethodField()

    class Meta:
        model = BenchmarkRun
        fields = [
            "id", "status", "data_set", "data_set_name", "source", "judge", "answers_from", "is_imported",
            "prompt_language", "max_tokens", "judge_max_tokens", "judge_attempts", "parallel", "waiting_for",
            "error", "created_by", "queued_at", "started_at", "finished_at", "page",
        ]  # fmt: skip

    def get_page(self, run: BenchmarkRun) -> str:
        return reverse("benchmark_run", args=[run.pk])


class ProgressSerializer(serializers.Serializer):
    """What failed is done, too, and counted on its own."""

    items = serializers.IntegerField()
    answers = serializers.IntegerField()
    failed_answers = serializers.IntegerField()
    judgments = serializers.IntegerField()
    failed_judgments = serializers.IntegerField()
    seconds_left = serializers.FloatField(allow_null=True)


class BenchmarkRunDetailSerializer(BenchmarkRunSerializer):
    progress = ProgressSerializer(read_only=True)

    class Meta(BenchmarkRunSerializer.Meta):
        fields = [*BenchmarkRunSerializer.Meta.fields, "progress"]

    def to_representation(self, instance: BenchmarkRun) -> dict[str, Any]:
        return {**BenchmarkRunSerializer(instance).data, "progress": asdict(progress_of(instance))}


class RunFilters(serializers.Serializer):
    data_set = serializers.IntegerField(required=False, min_value=1)
    source = serializers.CharField(required=False)  # type: ignore[assignment]
    judge = serializers.CharField(required=False)
    status = StatusField(required=False)


class NewRunSerializer(serializers.Serializer):
    data_set = serializers.IntegerField(min_value=1)
    source = serializers.CharField(help_text="Who answers.")  # type: ignore[assignment]
    judge = serializers.CharField(
        required=False, allow_null=True, default=None, help_text="Who ticks the checklists; null: answers only."
    )
    answers_from = serializers.IntegerField(
        required=False, allow_null=True, default=None, help_text="A run whose answers this judge ticks, too."
    )
    prompt_language = serializers.ChoiceField(choices=PromptLanguage.choices, required=False, default="zh")
    max_tokens = serializers.IntegerField(required=False, default=4096, min_value=1, max_value=100_000)
    judge_max_tokens = serializers.IntegerField(required=False, default=4096, min_value=1, max_value=100_000)
    judge_attempts = serializers.IntegerField(required=False, default=3, min_value=1, max_value=10)
    parallel = serializers.IntegerField(required=False, default=8, min_value=1, max_value=64)


def _find(pk: int) -> BenchmarkRun:
    runs = BenchmarkRun.objects.select_related("data_set", "source", "judge", "created_by")
    return get_object_or_404(runs, pk=pk)


def _shown(pk: int, code: int = status.HTTP_200_OK) -> Response:
    return Response(BenchmarkRunDetailSerializer(_find(pk)).data, status=code)


class BenchmarkRuns(StaffList):
    """Runs of models over benchmarks, newest first."""

    serializer_class = BenchmarkRunSerializer
    filters = RunFilters

    @extend_schema(operation_id="list_benchmark_runs", parameters=[RunFilters])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def rows(self, asked: dict[str, Any]) -> QuerySet[BenchmarkRun]:
        columns = {"data_set": "data_set", "source": "source__name", "judge": "judge__name", "status": "status"}
        found = BenchmarkRun.objects.select_related("data_set", "source", "judge", "created_by")
        return found.filter(**{columns[name]: value for name, value in asked.items()})

    @extend_schema(
        operation_id="start_benchmark_run",
        request=NewRunSerializer,
        responses={201: BenchmarkRunDetailSerializer, **REFUSED},
    )
    def post(self, request: Request) -> Response:
        """Have a model answer a data set and a judge tick the checklists. Every call starts a run of its own."""
        asked = given(NewRunSerializer, request)
        data_set = get_object_or_404(BenchmarkSet, pk=asked.pop("data_set"))
        source, judge = source_named(asked.pop("source")), asked.pop("judge")
        earlier = asked.pop("answers_from")
        try:
            run = queue_benchmark_run(
                data_set=data_set,
                source=source,
                judge=source_named(judge) if judge is not None else None,
                answers_from=_find(earlier) if earlier else None,
                created_by=person(request),
                **asked,
            )
        except ValidationError as error:
            raise as_refusal(error) from None
        return _shown(run.pk, status.HTTP_201_CREATED)


class BenchmarkRunDetail(StaffView):
    @extend_schema(operation_id="get_benchmark_run", responses=BenchmarkRunDetailSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """Where a run stands, with a count of everything that failed."""
        return _shown(pk)


class BenchmarkRunFigures(StaffView):
    @extend_schema(operation_id="get_benchmark_figures", responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, pk: int) -> Response:
        """Scores by slice and counts of failures; keys as of `fb_bench run`, `cfbench run` and `sysbench run`.

        Of a run that goes on: of what is judged so far.
        """
        run = _find(pk)
        return Response({"run": run.pk, **_names(run), **(figures_of(run) if run.is_finished else report_of(run))})


class StopBenchmarkRun(StaffView):
    @extend_schema(
        operation_id="stop_benchmark_run", request=None, responses={200: BenchmarkRunDetailSerializer, **REFUSED}
    )
    def post(self, request: Request, pk: int) -> Response:
        """Stop a run; what is answered and judged stays, and a retry fills what is missing."""
        request_cancel(_find(pk))
        return _shown(pk)


class RetrySerializer(serializers.Serializer):
    failures = serializers.BooleanField(
        required=False, default=False, help_text="Ask again for what failed, too, of a finished run as well."
    )


class RetryBenchmarkRun(StaffView):
    @extend_schema(
        operation_id="retry_benchmark_run",
        request=RetrySerializer,
        responses={200: BenchmarkRunDetailSerializer, **REFUSED},
    )
    def post(self, request: Request, pk: int) -> Response:
        """Take up a run that failed or was stopped, to fill what is missing."""
        asked = given(RetrySerializer, request)
        if not reopen_benchmark_run(_find(pk), retry_failures=asked["failures"]):
            raise DomainError("this run cannot be taken up: it is under way, finished, or imported")
        return _shown(pk)


class BenchmarkJudgmentSerializer(serializers.ModelSerializer):
    position = serializers.IntegerField(source="item.position")
    answer = serializers.CharField(source="answer.text")
    answer_error = serializers.CharField(source="answer.error")

    class Meta:
        model = BenchmarkJudgment
        fields = [
            "id", "item", "position", "answer", "answer_error", "checklist", "met", "reasons", "score",
            "is_repetitive", "failure", "note", "attempts", "created_at",
        ]  # fmt: skip


class JudgmentFilters(serializers.Serializer):
    failure = serializers.ChoiceField(choices=JudgmentFailure.values, required=False)


class BenchmarkJudgments(StaffList):
    """What the judge said of each answer of a run, or why that cannot be used; newest first."""

    serializer_class = BenchmarkJudgmentSerializer
    filters = JudgmentFilters

    @extend_schema(operation_id="list_benchmark_judgments", parameters=[JudgmentFilters])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def rows(self, asked: dict[str, Any]) -> QuerySet[BenchmarkJudgment]:
        run = _find(self.kwargs["pk"]) if "pk" in self.kwargs else None
        return BenchmarkJudgment.objects.filter(run=run, **asked).select_related("item", "answer")
