"""How the work goes and how people judge, as on the pages Progress and Quality and on a person's own."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.contrib.auth.models import User
from django.http import Http404
from django.shortcuts import get_object_or_404
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation.aggregation import NO_MAJORITY
from annotation.agreement import VERDICTS, load_votes
from annotation.api.common import ProjectView, RefusalSerializer, person
from annotation.errors import DomainError
from annotation.models import Annotator, Role
from annotation.own_work import own_work
from annotation.pace import Estimate, Holding, holding, project_pace, strength_mixes, stuck
from annotation.quality import Bins, Counts, Figures, measure_annotator, measure_annotators
from annotation.quality_report import quality_report
from annotation.shares import Share

REFUSED = {404: RefusalSerializer, 422: RefusalSerializer}


class ProgressView(ProjectView):
    role = Role.REVIEWER

    @extend_schema(operation_id="get_progress", responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, slug: str) -> Response:
        """Judgments an hour and a day, by whom, the time still to go, how clear the votes are by batch, who is stuck.

        The estimate's days are null where they are not defined; `soonest` and `latest` lie two standard errors apart
        from the pace of the last week.
        """
        pace, (mixes, mixes_as_of) = project_pace(self.project), strength_mixes(self.project)
        names = dict(User.objects.filter(pk__in=pace.people).values_list("pk", "username"))
        holders = holding(self.project)
        return Response(
            {
                "as_of": pace.as_of,
                "today": pace.today,
                "last_24_hours": pace.last_hours,
                "estimate": _estimate(pace.estimate),
                "hours": [{"hour": hour, "judgments": count} for hour, count in pace.hours],
                "days": [{"day": day, "judgments": count} for day, count in pace.days],
                "people": [
                    {"username": names.get(pk, ""), **asdict(work), "skips_a_lot": work.skips_a_lot}
                    for pk, work in sorted(pace.people.items(), key=lambda row: -row[1].done)
                ],
                "strengths_as_of": mixes_as_of,
                "strengths": [{"batch": mix.name, "first": mix.first, "counts": mix.counts} for mix in mixes],
                "holding": [_holding(one) for one in holders],
                "stuck": [_holding(one) for one in stuck(holders, timezone.now())],
            }
        )


def _estimate(found: Estimate) -> dict[str, Any]:
    soonest, latest = found.whole_bounds
    return {
        "left": found.left,
        "per_day": found.per_day,
        "days": found.whole_days,
        "soonest": soonest,
        "latest": latest,
    }


def _holding(one: Holding) -> dict[str, Any]:
    return {"username": one.username, "held": one.held, "since": one.since, "last": one.last}


# ── How people judge ─────────────────────────────────────────────────────────────────────────────────────────────


class Annotators(ProjectView):
    role = Role.REVIEWER

    @extend_schema(operation_id="list_annotators", responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, slug: str) -> Response:
        """How each person judges: shares with counts and 95 % intervals; null where there is nothing to divide by."""
        figures = measure_annotators(self.project, load_votes(self.project, humans_only=True))
        return Response({"annotators": [_figures(row) for row in figures]})


class AnnotatorDetail(ProjectView):
    role = Role.REVIEWER
    query = (
        OpenApiParameter(
            "by", enum=[Bins.WEEKS.value, Bins.HUNDREDS.value], description="Weeks (default), or a hundred votes each."
        ),
    )

    @extend_schema(operation_id="get_annotator", parameters=[*query], responses={200: OpenApiTypes.OBJECT, **REFUSED})
    def get(self, request: Request, slug: str, pk: int) -> Response:
        """One person's figures and their drift: the same over stretches of time, oldest first."""
        by = request.query_params.get("by", Bins.WEEKS.value)
        if by not in (Bins.WEEKS, Bins.HUNDREDS):
            raise DomainError(f"by: {by!r} is neither {Bins.WEEKS} nor {Bins.HUNDREDS}.")
        found = measure_annotator(self.project, get_object_or_404(Annotator, pk=pk), Bins(by))
        if found is None:
            raise Http404
        figures, stretches = found
        drift = [
            {
                **_span(stretch.counts),
                "votes_so_far": stretch.votes_so_far,
                "agreement_with_others": _share(stretch.with_others),
                "agreement_with_gold": _share(stretch.gold),
            }
            for stretch in stretches
        ]
        return Response({**_figures(figures), **_span(figures.counts), "drift": drift})


class Aggregation(ProjectView):
    role = Role.REVIEWER

    @extend_schema(operation_id="get_aggregation", responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, slug: str) -> Response:
        """Dawid and Skene's estimate of the right verdicts beside the plain majority, over people's votes.

        Of `items` with two votes or more the estimate is the majority (`same`), contrary to it, or decided where there
        is none; `differences` names the surest of the last two. `reliability` is the chance that somebody is right.
        """
        report = quality_report(self.project)
        differences = [
            {
                "comparison": row["comparison_id"],
                "majority": None if row["majority"] == NO_MAJORITY else VERDICTS[row["majority"]],
                "estimate": VERDICTS[row["estimate"]],
                "probability": row["probability"],
                "votes": dict(zip(VERDICTS, row["counts"], strict=True)),
            }
            for row in report.weighed.differences
        ]
        people = [
            {"id": row.pk, "annotator": row.name, "votes": row.votes, "reliability": row.reliability}
            for row in report.people
        ]
        weighed = {name: getattr(report.weighed, name) for name in ("items", "same", "contrary", "decided")}
        return Response({"as_of": report.as_of, **weighed, "differences": differences, "people": people})


def _figures(figures: Figures) -> dict[str, Any]:
    return {
        "id": figures.annotator.pk,
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


def _span(counts: Counts) -> dict[str, Any]:
    return {
        "first": counts.first,
        "last": counts.last,
        "votes": counts.votes,
        "median_seconds": counts.median_seconds,
    }


def _share(share: Share | None) -> dict[str, float] | None:
    if share is None:
        return None
    return {"share": share.value, "lower": share.lower, "upper": share.upper, "of": share.count}


# ── Oneself ──────────────────────────────────────────────────────────────────────────────────────────────────────


class OwnProjectSerializer(serializers.Serializer):
    project = serializers.CharField()
    role = serializers.CharField()
    qualification = serializers.CharField()
    done = serializers.IntegerField()
    done_today = serializers.IntegerField()
    held = serializers.IntegerField()
    open = serializers.IntegerField(help_text="Comparisons that they could judge, among the first of the queue.")
    more_may_be_open = serializers.BooleanField()
    agreement_with_others = serializers.DictField(allow_null=True)
    agreement_with_gold = serializers.DictField(allow_null=True)


class DaySerializer(serializers.Serializer):
    day = serializers.DateField()
    judgments = serializers.IntegerField()


class OwnWorkSerializer(serializers.Serializer):
    username = serializers.CharField()
    done = serializers.IntegerField()
    done_today = serializers.IntegerField()
    streak = serializers.IntegerField(help_text="Days in a row with work.")
    days = DaySerializer(many=True)
    projects = OwnProjectSerializer(many=True)


class Me(APIView):
    @extend_schema(operation_id="get_own_work", responses=OwnWorkSerializer)
    def get(self, request: Request) -> Response:
        """The caller's own progress, agreement and streak, as on their page."""
        user = person(request)
        work = own_work(user)
        projects = [
            {
                "project": row.project.slug,
                "role": row.role,
                "qualification": row.qualification,
                "done": row.done,
                "done_today": row.done_today,
                "held": row.held,
                "open": row.open,
                "more_may_be_open": row.more,
                "agreement_with_others": _share(measured.get("with_others")),
                "agreement_with_gold": _share(measured.get("gold")),
            }
            for row, measured in work.projects
        ]
        return Response(
            {
                "username": user.get_username(),
                "done": work.done,
                "done_today": work.done_today,
                "streak": work.streak,
                "days": [{"day": day, "judgments": count} for day, count in work.days],
                "projects": projects,
            }
        )
