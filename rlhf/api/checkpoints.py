"""Checkpoints: where they come from, what was measured of them, and the aliases that stand for them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.db.models import Q, QuerySet
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.http import content_disposition_header
from django.utils.translation import gettext
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.common import person
from annotation.models import Project
from annotation.services import DomainError
from rlhf.api.common import REFUSED, StaffList, StaffView, checkpoint_named, given, refused
from rlhf.checkpoint_report import groups_of
from rlhf.lineage import lineage_of
from rlhf.model_archive import ModelArchive
from rlhf.model_card import limits_of, model_card
from rlhf.models import AliasMove, Checkpoint, CheckpointKind, PromotionGate
from rlhf.options import SpecError
from rlhf.promotion import Decision, decide, decisions_about
from rlhf.services import aliases_by_checkpoint, move_alias, publish_checkpoint, resolve_alias, roll_back_alias
from rlhf.services.aliases import GateRefusedError
from rlhf.win_rates import rivals_of

_SHOWN = ("parent", "source", "job__snapshot__project", "job__base", "step_of__snapshot__project")


def _find(pk: int) -> Checkpoint:
    return get_object_or_404(Checkpoint.objects.select_related(*_SHOWN), pk=pk)


class CheckpointSerializer(serializers.ModelSerializer):
    parent = serializers.CharField(source="parent.name", default=None)  # type: ignore[assignment]
    source = serializers.CharField(  # type: ignore[assignment]
        source="source.name", default=None, help_text="As what it writes responses; empty before it is published."
    )
    aliases = serializers.SerializerMethodField(help_text="champion, or PROJECT/champion.")
    page = serializers.SerializerMethodField()

    class Meta:
        model = Checkpoint
        fields = [
            "id", "name", "kind", "parent", "job", "step_of", "step", "source", "aliases", "manifest_sha256",
            "created_at", "page",
        ]  # fmt: skip

    def get_aliases(self, checkpoint: Checkpoint) -> list[str]:
        return self._standing.get(checkpoint.pk, [])

    @cached_property
    def _standing(self) -> dict[int, list[str]]:
        return aliases_by_checkpoint()  # one query for all rows: a list has one such serializer

    def get_page(self, checkpoint: Checkpoint) -> str:
        return reverse("checkpoint_detail", args=[checkpoint.pk])


class ResponsesWrittenSerializer(serializers.Serializer):
    project = serializers.CharField(source="project.slug")
    responses = serializers.IntegerField()
    comparisons = serializers.IntegerField()
    judged = serializers.IntegerField(help_text="Comparisons with a vote.")
    judgments = serializers.IntegerField()


class LineageSerializer(serializers.Serializer):
    ancestors = serializers.ListField(child=serializers.CharField(), help_text="From the first base to the parent.")
    snapshot = serializers.CharField(allow_null=True, help_text="What its job learnt from.")
    project = serializers.CharField(allow_null=True)
    merged_from = serializers.ListField(child=serializers.CharField())
    children = serializers.ListField(child=serializers.CharField())
    jobs = serializers.ListField(child=serializers.IntegerField(), help_text="That started from it.")
    merged_into = serializers.ListField(child=serializers.IntegerField(), help_text="Jobs that merge it.")
    written = ResponsesWrittenSerializer(many=True)
    benchmark_runs = serializers.ListField(child=serializers.IntegerField(), help_text="The newest five.")


class GateSerializer(serializers.Serializer):
    """What the gate of an alias says of a checkpoint."""

    alias = serializers.CharField()
    is_passed = serializers.BooleanField()
    missing = serializers.CharField(help_text="A clause for each criterion that is not met.")
    champion = serializers.CharField(allow_null=True, help_text="What it is held against.")
    criteria = serializers.ListField(child=serializers.DictField())


class CheckpointDetailSerializer(CheckpointSerializer):
    lineage = LineageSerializer(read_only=True)
    gates = GateSerializer(many=True, read_only=True)
    limits = serializers.ListField(child=serializers.CharField(), read_only=True)
    links = serializers.DictField(child=serializers.CharField(), read_only=True)

    class Meta(CheckpointSerializer.Meta):
        fields = [*CheckpointSerializer.Meta.fields, "lineage", "gates", "limits", "links"]

    def to_representation(self, instance: Checkpoint) -> dict[str, Any]:
        here = f"/api/v1/checkpoints/{instance.pk}/"
        return {
            **CheckpointSerializer(instance).data,
            "lineage": _lineage(instance),
            "gates": [_verdict(decision) for decision in decisions_about(instance)],
            "limits": limits_of(instance),
            "links": {"report": here + "report/", "card": here + "card.md", "download": here + "model.tar"},
        }


def _lineage(checkpoint: Checkpoint) -> dict[str, Any]:
    found = lineage_of(checkpoint)
    job = checkpoint.made_by
    snapshot = job.snapshot if job else None
    merged = job.merge_inputs.select_related("checkpoint") if job else []
    return {
        "ancestors": [one.name for one in found.ancestors],
        "snapshot": snapshot.name if snapshot else None,
        "project": snapshot.project.slug if snapshot else None,
        "merged_from": [one.checkpoint.name for one in merged],
        "children": list(checkpoint.children.order_by("pk").values_list("name", flat=True)),
        "jobs": list(checkpoint.jobs_from_here.order_by("pk").values_list("pk", flat=True)),
        "merged_into": [one.pk for one in found.merged_into],
        "written": ResponsesWrittenSerializer(found.written, many=True).data,
        "benchmark_runs": [one.pk for one in found.benchmark_runs],
    }


def _verdict(decision: Decision) -> dict[str, Any]:
    return {
        "alias": str(decision.gate),
        "is_passed": decision.is_passed,
        "missing": decision.missing,
        **decision.as_json(),
    }


class CheckpointFilters(serializers.Serializer):
    name = serializers.CharField(required=False, help_text="Its name, or an alias: champion, PROJECT/champion.")
    kind = serializers.ChoiceField(choices=[kind.value for kind in CheckpointKind], required=False)
    project = serializers.SlugField(required=False, help_text="Of the data set that it learnt from.")


class Checkpoints(StaffList):
    """Checkpoints, newest first."""

    serializer_class = CheckpointSerializer
    filters = CheckpointFilters

    @extend_schema(operation_id="list_checkpoints", parameters=[CheckpointFilters])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def rows(self, asked: dict[str, Any]) -> QuerySet[Checkpoint]:
        found = Checkpoint.objects.select_related("parent", "source")
        if name := asked.get("name"):
            standing = resolve_alias(name)
            found = found.filter(Q(name=name) | Q(pk=standing.pk if standing else None))
        if "kind" in asked:
            found = found.filter(kind=asked["kind"])
        if "project" in asked:
            slug = asked["project"]
            of_step = Q(step_of__snapshot__project__slug=slug)
            found = found.filter(Q(job__snapshot__project__slug=slug) | of_step)
        return found


class CheckpointDetail(StaffView):
    @extend_schema(operation_id="get_checkpoint", responses=CheckpointDetailSerializer)
    def get(self, request: Request, pk: int) -> Response:
        """A checkpoint with its lineage both ways, its aliases, and what the gates of others say of it."""
        return Response(CheckpointDetailSerializer(_find(pk)).data)


class CheckpointReport(StaffView):
    @extend_schema(operation_id="get_checkpoint_report", responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, pk: int) -> Response:
        """What was measured of a checkpoint, as on its report: groups of figures with intervals and their rows' pages.

        Votes are those against its parent and the champions, where both are published; `against` names the parent.
        Human evaluations are seen from its side; ratings are those of each project's leaderboard by people's votes.
        """
        checkpoint = _find(pk)
        rival = checkpoint.parent if checkpoint.parent and checkpoint.parent.source_id else None
        rivals = {other.pk: other for _alias, other in rivals_of(checkpoint)}
        return Response(
            {
                **CheckpointSerializer(checkpoint).data,
                "against": rival.name if rival else None,
                "groups": [asdict(group) for group in groups_of(checkpoint, rivals.values())],
                "gates": [_verdict(decision) for decision in decisions_about(checkpoint)],
                "limits": limits_of(checkpoint),
                "lineage": _lineage(checkpoint),
            }
        )


class PublishCheckpoint(StaffView):
    @extend_schema(operation_id="publish_checkpoint", request=None, responses={200: CheckpointSerializer, **REFUSED})
    def post(self, request: Request, pk: int) -> Response:
        """Let it write responses that people judge; asked again, nothing changes."""
        publish_checkpoint(_find(pk))
        return Response(CheckpointSerializer(_find(pk)).data)


class ModelCard(StaffView):
    @extend_schema(operation_id="get_model_card", responses={(200, "text/markdown"): OpenApiTypes.STR})
    def get(self, request: Request, pk: int) -> HttpResponse:
        """The model card, made from the rows."""
        return HttpResponse(model_card(_find(pk)), content_type="text/markdown; charset=utf-8")


class DownloadModel(StaffView):
    @extend_schema(
        operation_id="download_model", responses={(200, "application/x-tar"): OpenApiTypes.BINARY, **REFUSED}
    )
    def get(self, request: Request, pk: int) -> HttpResponseBase:
        """The model with its card as a tar file; unpacked, a directory that transformers loads."""
        checkpoint = _find(pk)
        try:
            archive = ModelArchive(
                checkpoint.name, checkpoint.path, model_card(checkpoint), checkpoint.created_at.timestamp()
            )
        except SpecError as error:
            raise DomainError(str(error)) from None
        answer = StreamingHttpResponse(archive, content_type="application/x-tar")
        answer["Content-Length"] = archive.size
        answer["Content-Disposition"] = content_disposition_header(True, f"{checkpoint.name}.tar")
        return answer


# ── Aliases ──────────────────────────────────────────────────────────────────────────────────────────────────────


class AliasMoveSerializer(serializers.ModelSerializer):
    alias = serializers.CharField()
    project = serializers.CharField(source="project.slug", default=None)
    checkpoint = serializers.CharField(source="checkpoint.name", default=None, help_text="null: it was taken away.")
    previous = serializers.CharField(source="previous.name", default=None)
    moved_by = serializers.CharField(source="moved_by.username", default=None)

    class Meta:
        model = AliasMove
        fields = [
            "id", "alias", "project", "number", "checkpoint", "previous", "why", "despite_gate", "gate", "moved_by",
            "moved_at",
        ]  # fmt: skip


class AliasSerializer(serializers.Serializer):
    alias = serializers.SlugField(max_length=60)
    project = serializers.SlugField(
        required=False, allow_null=True, default=None, help_text="Whose alias; empty: the whole site's."
    )


class MoveAliasSerializer(AliasSerializer):
    checkpoint = serializers.CharField(allow_null=True, help_text="Its name or another alias; null: nothing.")
    why = serializers.CharField(max_length=500, help_text="Kept for good, with your name and the time.")
    despite_gate = serializers.BooleanField(
        required=False, default=False, help_text="Even where its gate says no; for administrators."
    )


class MoveRefusedSerializer(serializers.Serializer):
    detail = serializers.CharField()
    gate = GateSerializer(required=False)


class Aliases(StaffView):
    @extend_schema(operation_id="list_aliases", responses=AliasMoveSerializer(many=True))
    def get(self, request: Request) -> Response:
        """What each alias stands for now: its newest move."""
        moves = AliasMove.objects.current().select_related("project", "checkpoint", "previous", "moved_by")
        return Response(AliasMoveSerializer([move for move in moves if move.checkpoint_id], many=True).data)

    @extend_schema(
        operation_id="move_alias",
        request=MoveAliasSerializer,
        responses={201: AliasMoveSerializer, 422: MoveRefusedSerializer},
    )
    def post(self, request: Request) -> Response:
        """Let an alias stand for a checkpoint from now on; where its gate says no, 422 has what is missing."""
        asked = given(MoveAliasSerializer, request)
        project = _project(asked["project"])
        user = person(request)
        if asked["despite_gate"] and not user.is_superuser:
            raise DomainError(gettext("only an administrator may move an alias in spite of its gate"))
        checkpoint = checkpoint_named(asked["checkpoint"], project) if asked["checkpoint"] else None
        try:
            move = move_alias(
                asked["alias"],
                checkpoint,
                why=asked["why"],
                project=project,
                by=user,
                despite_gate=asked["despite_gate"],
            )
        except GateRefusedError as error:
            return refused(error, gate=_verdict(error.decision))
        return Response(AliasMoveSerializer(move).data, status=status.HTTP_201_CREATED)


class RollBackAlias(StaffView):
    @extend_schema(
        operation_id="roll_back_alias", request=AliasSerializer, responses={201: AliasMoveSerializer, **REFUSED}
    )
    def post(self, request: Request) -> Response:
        """Undo the newest move of an alias; no gate is asked. Each call goes one step."""
        asked = given(AliasSerializer, request)
        move = roll_back_alias(asked["alias"], project=_project(asked["project"]), by=person(request))
        return Response(AliasMoveSerializer(move).data, status=status.HTTP_201_CREATED)


def _project(slug: str | None) -> Project | None:
    return get_object_or_404(Project, slug=slug) if slug else None


class AliasMoveFilters(serializers.Serializer):
    alias = serializers.SlugField(required=False)
    project = serializers.SlugField(required=False)


class AliasMoves(StaffList):
    """The log: every move of every alias, newest first."""

    serializer_class = AliasMoveSerializer
    filters = AliasMoveFilters

    @extend_schema(operation_id="list_alias_moves", parameters=[AliasMoveFilters])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def rows(self, asked: dict[str, Any]) -> QuerySet[AliasMove]:
        moves = AliasMove.objects.select_related("project", "checkpoint", "previous", "moved_by")
        columns = {"alias": "alias", "project": "project__slug"}
        return moves.filter(**{columns[name]: value for name, value in asked.items() if value})


class GateVerdict(StaffView):
    @extend_schema(operation_id="get_gate_verdict", responses=GateSerializer)
    def get(self, request: Request, pk: int, gate: int) -> Response:
        """What one gate says of a checkpoint, though its alias stands for it already."""
        found = get_object_or_404(PromotionGate.objects.select_related("project", "benchmark"), pk=gate)
        return Response(_verdict(decide(found, _find(pk))))


class GateSettingsSerializer(serializers.ModelSerializer):
    project = serializers.CharField(source="project.slug", default=None)
    benchmark = serializers.CharField(source="benchmark.name", default=None)

    class Meta:
        model = PromotionGate
        fields = [
            "id", "alias", "project", "least_win_rate", "voters", "hold_length_equal", "least_votes", "least_people",
            "benchmark", "most_benchmark_drop", "least_reward_accuracy", "changed_at",
        ]  # fmt: skip


class Gates(StaffView):
    @extend_schema(operation_id="list_gates", responses=GateSettingsSerializer(many=True))
    def get(self, request: Request) -> Response:
        """The thresholds that aliases have; they are set on the page Aliases."""
        gates = PromotionGate.objects.select_related("project", "benchmark")
        return Response(GateSettingsSerializer(gates, many=True).data)
