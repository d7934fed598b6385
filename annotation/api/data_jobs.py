"""Long work on a project's prompts: edits of many, the search for personal data and for duplicates."""

from __future__ import annotations

from typing import Any

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.common import ProjectView, RefusalSerializer, person, refuse_unknown
from annotation.api.filters import STATES, prompt_filter
from annotation.errors import DomainError
from annotation.models import DataJob, Role
from annotation.personal_data import PersonalKind
from annotation.services import duplicates, masking
from annotation.services.prompts import PromptEdit, start_edit, start_undo

REFUSED = {409: RefusalSerializer, 422: RefusalSerializer}
_TEXT: dict[str, Any] = {"required": False, "allow_blank": True, "allow_null": True, "default": None}


class DataJobSerializer(serializers.ModelSerializer):
    class Meta:
        model = DataJob
        fields = ["id", "kind", "status", "result", "error", "total", "done", "created_at", "finished_at"]


class PromptFilterSerializer(serializers.Serializer):
    """As the list of prompts is narrowed; {}: all that are not archived."""

    query = serializers.CharField(required=False, max_length=500)
    task = serializers.CharField(required=False, allow_blank=True, max_length=60)
    lang = serializers.CharField(required=False, allow_blank=True, max_length=20)
    skill = serializers.CharField(required=False, allow_blank=True, max_length=60)
    topic = serializers.CharField(required=False, allow_blank=True, max_length=100)
    tag = serializers.CharField(required=False, max_length=60)
    state = serializers.ChoiceField(choices=list(STATES), required=False)
    batch = serializers.CharField(required=False, max_length=200, help_text="Its name, or its id.")
    archived = serializers.ChoiceField(choices=["true", "false"], required=False)


class PromptEditSerializer(serializers.Serializer):
    """What to do to the prompts of these ids, or of this filter; what is not given is left as it is."""

    ids = serializers.ListField(child=serializers.IntegerField(), min_length=1, max_length=10_000, required=False)
    filter = PromptFilterSerializer(required=False)
    task = serializers.CharField(max_length=60, **_TEXT)
    lang = serializers.CharField(max_length=20, **_TEXT)
    skill = serializers.CharField(max_length=60, **_TEXT)
    topic = serializers.CharField(max_length=100, **_TEXT)
    add_tags = serializers.ListField(child=serializers.CharField(max_length=60), required=False, default=list)
    remove_tags = serializers.ListField(child=serializers.CharField(max_length=60), required=False, default=list)
    archive = serializers.BooleanField(required=False, allow_null=True, default=None)


class EditPrompts(ProjectView):
    role = Role.ADMIN

    @extend_schema(
        operation_id="edit_prompts", request=PromptEditSerializer, responses={202: DataJobSerializer, **REFUSED}
    )
    def post(self, request: Request, slug: str) -> Response:
        """Edit many prompts at once; few are changed before the answer, many by a worker."""
        given = PromptEditSerializer(data=request.data)
        refuse_unknown(given, request.data)
        given.is_valid(raise_exception=True)
        refuse_unknown(PromptFilterSerializer(), given.initial_data.get("filter"))
        fields = dict(given.validated_data)
        ids, narrowed = fields.pop("ids", None), fields.pop("filter", None)
        if (ids is None) == (narrowed is None):
            raise DomainError("Say which prompts: either ids or filter.")
        which = prompt_filter(self.project, narrowed) if narrowed is not None else None
        fields |= {name: tuple(fields[name]) for name in ("add_tags", "remove_tags")}
        job = start_edit(self.project, PromptEdit(**fields), ids=ids, given=which, user=person(request))
        return Response(DataJobSerializer(job).data, status=status.HTTP_202_ACCEPTED)


class UndoEdit(ProjectView):
    role = Role.ADMIN

    @extend_schema(operation_id="undo_edit", request=None, responses={202: DataJobSerializer, **REFUSED})
    def post(self, request: Request, slug: str) -> Response:
        """Take the last edit of prompts back."""
        job = start_undo(self.project, user=person(request))
        return Response(DataJobSerializer(job).data, status=status.HTTP_202_ACCEPTED)


class FindPersonalData(ProjectView):
    role = Role.ADMIN

    @extend_schema(operation_id="find_personal_data", request=None, responses={202: DataJobSerializer, **REFUSED})
    def post(self, request: Request, slug: str) -> Response:
        """Count personal data in prompts and responses by kind; changes nothing."""
        job = masking.start_scan(self.project, user=person(request))
        return Response(DataJobSerializer(job).data, status=status.HTTP_202_ACCEPTED)


class MaskSerializer(serializers.Serializer):
    kinds = serializers.MultipleChoiceField(choices=PersonalKind.choices)
    originals_may_be_overwritten = serializers.BooleanField()

    def validate_originals_may_be_overwritten(self, value: bool) -> bool:
        if not value:
            raise serializers.ValidationError("Masking cannot be undone: say true.")
        return value


class MaskPersonalData(ProjectView):
    role = Role.ADMIN

    @extend_schema(
        operation_id="mask_personal_data", request=MaskSerializer, responses={202: DataJobSerializer, **REFUSED}
    )
    def post(self, request: Request, slug: str) -> Response:
        """Overwrite personal data of these kinds for good."""
        given = MaskSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        job = masking.start_masking(self.project, sorted(given.validated_data["kinds"]), user=person(request))
        return Response(DataJobSerializer(job).data, status=status.HTTP_202_ACCEPTED)


class FindDuplicates(ProjectView):
    role = Role.ADMIN

    @extend_schema(operation_id="find_duplicates", request=None, responses={202: DataJobSerializer, **REFUSED})
    def post(self, request: Request, slug: str) -> Response:
        """Look for prompts that read alike, and for comparisons of responses that do."""
        job = duplicates.start_search(self.project, user=person(request))
        return Response(DataJobSerializer(job).data, status=status.HTTP_202_ACCEPTED)


class DataJobDetail(ProjectView):
    role = Role.ADMIN

    @extend_schema(operation_id="get_data_job", responses=DataJobSerializer)
    def get(self, request: Request, slug: str, pk: int) -> Response:
        return Response(DataJobSerializer(get_object_or_404(DataJob, pk=pk, project=self.project)).data)
