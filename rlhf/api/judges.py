"""Models that judge in people's stead: their runs, their verdicts and their cards."""

from __future__ import annotations

from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.common import person
from annotation.models import Project
from annotation.services import DomainError
from rlhf.api.benchmarks import RetrySerializer
from rlhf.api.common import REFUSED, StaffList, StaffView, StatusField, as_refusal, given, source_named
from rlhf.judges.card import Card, make_card
from rlhf.judges.verdicts import of_this, progress_of, report_of, verdicts_of_run
from rlhf.models import JudgeKind, JudgeOutcome, JudgeRun, JudgeScope, JudgeVerdict, PromptLanguage
from rlhf.services import request_cancel
from rlhf.services.judging import queue_judge_run, reopen_judge_run, take_votes


class JudgeRunSerializer(serializers.ModelSerializer):
    project = serializers.CharField(source="project.slug")
    judge = serializers.CharField(source="judge.name")
    created_by = serializers.CharField(source="created_by.username", default=None)
    page = serializers.SerializerMethodField()

    class Meta:
        model = JudgeRun
        fields = [
            "id", "status", "project", "judge", "kind", "scope", "language", "prompt_ids", "max_tokens", "attempts",
            "parallel", "waiting_for", "error", "created_by", "queued_at", "started_at", "finished_at", "page",
        ]  # fmt: skip

    def get_page(self, run: JudgeRun) -> str:
        return reverse("judge_run", args=[run.pk])


class JudgeProgressSerializer(serializers.Serializer):
    total = serializers.IntegerField()
    done = serializers.IntegerField()
    unusable = serializers.IntegerField()
    seconds_left = serializers.FloatField(allow_null=True)


class JudgeRunDetailSerializer(JudgeRunSerializer):
    progress = JudgeProgressSerializer(read_only=True)
    report = serializers.DictField(read_only=True, help_text="Keys as of `judge run`.")

    class Meta(JudgeRunSerializer.Meta):
        fields = [*JudgeRunSerializer.Meta.fields, "progress", "report"]

    def to_representation(self, instance: JudgeRun) -> dict[str, Any]:
        report = instance.report if instance.is_finished and instance.report else report_of(instance)
        return {
            **JudgeRunSerializer(instance).data,
            "progress": asdict(progress_of(instance)),
            "report": report,
        }


class JudgeRunFilters(serializers.Serializer):
    project = serializers.SlugField(required=False)
    judge = serializers.CharField(required=False)
    kind = serializers.ChoiceField(choices=JudgeKind.values, required=False)
    status = StatusField(required=False)


class NewJudgeRunSerializer(serializers.Serializer):
    project = serializers.SlugField()
    judge = serializers.CharField(help_text="A response source that can be asked, or a published checkpoint.")
    kind = serializers.ChoiceField(choices=JudgeKind.choices, required=False, default="pair")
    scope = serializers.ChoiceField(choices=JudgeScope.choices, required=False, default="voted")
    language = serializers.ChoiceField(choices=PromptLanguage.choices, required=False, default="zh")
    limit = serializers.IntegerField(
        required=False, allow_null=True, default=None, min_value=1, help_text="Comparisons at most, evenly drawn."
    )
    max_tokens = serializers.IntegerField(required=False, default=1024, min_value=1, max_value=100_000)
    attempts = serializers.IntegerField(required=False, default=3, min_value=1, max_value=10)
    parallel = serializers.IntegerField(required=False, default=8, min_value=1, max_value=64)


def _find(pk: int) -> JudgeRun:
    return get_object_or_404(JudgeRun.objects.select_related("project", "judge", "created_by"), pk=pk)


def _shown(pk: int, code: int = status.HTTP_200_OK) -> Response:
    return Response(JudgeRunDetailSerializer(_find(pk)).data, status=code)


class JudgeRuns(StaffList):
    """Runs of judges, newest first."""

    serializer_class = JudgeRunSerializer
    filters = JudgeRunFilters

    @extend_schema(operation_id="list_judge_runs", parameters=[JudgeRunFilters])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def rows(self, asked: dict[str, Any]) -> QuerySet[JudgeRun]:
        columns = {"project": "project__slug", "judge": "judge__name", "kind": "kind", "status": "status"}
        found = JudgeRun.objects.select_related("project", "judge", "created_by")
        return found.filter(**{columns[name]: value for name, value in asked.items()})

    @extend_schema(
        operation_id="start_judge_run",
        request=NewJudgeRunSerializer,
        responses={201: JudgeRunDetailSerializer, **REFUSED},
    )
    def post(self, request: Request) -> Response:
        """Have a judge compare or score what a project holds. Every call starts a run of its own."""
        asked = given(NewJudgeRunSerializer, request)
        project = get_object_or_404(Project, slug=asked.pop("project"))
        judge = source_named(asked.pop("judge"))
        try:
            run = queue_judge_run(project=project, judge=judge, created_by=person(request), **asked)
        except ValidationError as error:
            raise as_refusal(error) from None
        return _shown(run.pk, status.HTTP_201_CREATED)


class JudgeRunDetail(StaffView):
    @extend_schema(operation_id="get_judge_run", responses=JudgeRunDetailSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """Where a run stands and what it gave, with a count of everything that could not be used."""
        return _shown(pk)


class StopJudgeRun(StaffView):
    @extend_schema(operation_id="stop_judge_run", request=None, responses={200: JudgeRunDetailSerializer, **REFUSED})
    def post(self, request: Request, pk: int) -> Response:
        """Stop a run; its verdicts stay, and a retry asks what is open."""
        request_cancel(_find(pk))
        return _shown(pk)


class RetryJudgeRun(StaffView):
    @extend_schema(
        operation_id="retry_judge_run",
        request=RetrySerializer,
        responses={200: JudgeRunDetailSerializer, **REFUSED},
    )
    def post(self, request: Request, pk: int) -> Response:
        """Take up a run that failed or was stopped, to ask what is open."""
        asked = given(RetrySerializer, request)
        if not reopen_judge_run(_find(pk), retry_failures=asked["failures"]):
            raise DomainError("this run cannot be taken up: it is under way, or finished")
        return _shown(pk)


class JudgeVerdictSerializer(serializers.ModelSerializer):
    class Meta:
        model = JudgeVerdict
        fields = [
            "id", "comparison", "is_swapped", "response", "prompt", "outcome", "preference", "score", "same_result",
            "same_reasoning", "reason", "note", "tries", "seconds",
        ]  # fmt: skip


class VerdictFilters(serializers.Serializer):
    outcome = serializers.ChoiceField(choices=[value for value in JudgeOutcome.values if value], required=False)


class JudgeVerdicts(StaffList):
    """Every question of a run and what came of it, newest first; sides are in content order, a and b."""

    serializer_class = JudgeVerdictSerializer
    filters = VerdictFilters

    @extend_schema(operation_id="list_judge_verdicts", parameters=[VerdictFilters])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def rows(self, asked: dict[str, Any]) -> QuerySet[JudgeVerdict]:
        run = _find(self.kwargs["pk"]) if "pk" in self.kwargs else None
        return JudgeVerdict.objects.filter(run=run, **asked)


class JudgeCard(StaffView):
    query = ("people",)

    @extend_schema(
        operation_id="get_judge_card",
        parameters=[OpenApiParameter("people", description="Annotators to hold it against; * stands for anything.")],
        responses=OpenApiTypes.OBJECT,
    )
    def get(self, request: Request, pk: int) -> Response:
        """How far the judge agrees with people and whether it may stand in for them; keys as of `judge card`."""
        pattern = request.query_params.get("people", "").strip()[:200] or "*"
        return Response(_card(_find(pk), pattern).as_json())


def _card(run: JudgeRun, pattern: str = "*") -> Card:
    return make_card(run.project, verdicts_of_run(run), is_counted=lambda name: fnmatchcase(name, pattern))


class JudgeVotes(StaffView):
    @extend_schema(operation_id="take_judge_votes", request=None, responses={200: OpenApiTypes.OBJECT, **REFUSED})
    def post(self, request: Request, pk: int) -> Response:
        """Keep a run's verdicts as votes by a model, where its card allows it; asked again, nothing is added."""
        run = _find(pk)
        taken = take_votes(run, _card(run), of_this(run)[0], by=person(request))
        return Response({"run": run.pk, "annotator": run.voter_name, **taken})
