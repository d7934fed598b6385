"""Long work on a project's prompts: edits of many, the search for personal data and for duplicates."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, F, Window
from django.db.models.functions import RowNumber
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import generics, serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.common import ByIdPagination, ProjectView, RefusalSerializer, person, refuse_unknown
from annotation.api.filters import STATES, prompt_filter
from annotation.errors import DomainError
from annotation.models import DataJob, Duplicate, Prompt, Role
from annotation.personal_data import PersonalKind
from annotation.services import duplicates, masking
from annotation.services.data_jobs import stop_data_job
from annotation.services.prompts import PromptEdit, start_edit, start_undo

REFUSED = {409: RefusalSerializer, 422: RefusalSerializer}
MEMBERS_LISTED = 100
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


class ByGroup(ByIdPagination):
    ordering = "-like"


class AlikePromptSerializer(serializers.Serializer):
    prompt = serializers.IntegerField()
    similarity = serializers.IntegerField(allow_null=True, help_text="To the oldest, in percent; null: it is that.")
    question = serializers.CharField()


class DuplicateGroupSerializer(serializers.Serializer):
    like = serializers.IntegerField(help_text="The oldest prompt, by which the group is known.")
    size = serializers.IntegerField()
    prompts = AlikePromptSerializer(many=True, help_text=f"The first {MEMBERS_LISTED} of them, the oldest first.")


class Duplicates(ProjectView, generics.ListAPIView):
    """Groups of prompts that read alike, as the last search found them, newest first."""

    role = Role.ADMIN
    serializer_class = DuplicateGroupSerializer
    pagination_class = ByGroup

    @extend_schema(operation_id="list_duplicates")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> Any:
        return Duplicate.objects.filter(project=self.project).values("like").annotate(size=Count("pk") + 1)

    def paginate_queryset(self, queryset: Any) -> Any:
        groups = list(super().paginate_queryset(queryset) or [])
        found = Duplicate.objects.filter(project=self.project, like__in=[group["like"] for group in groups])
        place = Window(RowNumber(), partition_by=F("like"), order_by=[F("similarity").desc(), F("prompt")])
        members: dict[int, list[tuple[int, int | None]]] = {group["like"]: [(group["like"], None)] for group in groups}
        for row in found.annotate(place=place).filter(place__lt=MEMBERS_LISTED).order_by("place"):
            members[row.like_id].append((row.prompt_id, row.similarity))
        prompts = Prompt.objects.in_bulk([pk for rows in members.values() for pk, _similarity in rows])
        return [
            group
            | {
                "prompts": [
                    {"prompt": pk, "similarity": similarity, "question": prompts[pk].messages[-1]["content"]}
                    for pk, similarity in members[group["like"]]
                ]
            }
            for group in groups
        ]


class KeepOneSerializer(serializers.Serializer):
    like = serializers.IntegerField(help_text="The group.")
    keep = serializers.IntegerField(help_text="The prompt of it that stays; the others are archived.")


class KeepOldestSerializer(serializers.Serializer):
    at_least = serializers.IntegerField(min_value=0, max_value=100, help_text="How alike, in percent.")


class KeepOne(ProjectView):
    role = Role.ADMIN

    @extend_schema(
        operation_id="keep_one_duplicate", request=KeepOneSerializer, responses={202: DataJobSerializer, **REFUSED}
    )
    def post(self, request: Request, slug: str) -> Response:
        """Keep one prompt of a group and archive the others."""
        given = KeepOneSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        which = given.validated_data
        job = duplicates.keep_one(self.project, which["like"], which["keep"], user=person(request))
        return Response(DataJobSerializer(job).data, status=status.HTTP_202_ACCEPTED)


class KeepOldest(ProjectView):
    role = Role.ADMIN

    @extend_schema(
        operation_id="keep_oldest_duplicates",
        request=KeepOldestSerializer,
        responses={202: DataJobSerializer, **REFUSED},
    )
    def post(self, request: Request, slug: str) -> Response:
        """Archive every prompt that is so much like the oldest of its group."""
        given = KeepOldestSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        job = duplicates.keep_oldest(self.project, **given.validated_data, user=person(request))
        return Response(DataJobSerializer(job).data, status=status.HTTP_202_ACCEPTED)


class DataJobDetail(ProjectView):
    role = Role.ADMIN

    @extend_schema(operation_id="get_data_job", responses=DataJobSerializer)
    def get(self, request: Request, slug: str, pk: int) -> Response:
        return Response(DataJobSerializer(get_object_or_404(DataJob, pk=pk, project=self.project)).data)


class StopDataJob(ProjectView):
    role = Role.ADMIN

    @extend_schema(operation_id="stop_data_job", request=None, responses={202: DataJobSerializer, **REFUSED})
    def post(self, request: Request, slug: str, pk: int) -> Response:
        """Have it stop at its next step; what an edit has changed can be taken back."""
        job = get_object_or_404(DataJob, pk=pk, project=self.project)
        if not stop_data_job(job):
            raise DomainError("This work has ended already.")
        job.refresh_from_db()
        return Response(DataJobSerializer(job).data, status=status.HTTP_202_ACCEPTED)
