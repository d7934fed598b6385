"""Writing by program where no response would do: the same queue and the same rules as on the page."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import generics, serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from annotation import services
from annotation.access import has_role
from annotation.api.common import NewestFirstPagination, ProjectView, RefusalSerializer, annotator, person
from annotation.api.serializers import LeaseSerializer, MessageSerializer
from annotation.blind import rewrite_responses
from annotation.content_order import MAX_EDITED_CHARS
from annotation.errors import DomainError
from annotation.models import RewriteStatus, RewriteTask, Role
from annotation.reasons import DropReason

REFUSED = {409: RefusalSerializer, 422: RefusalSerializer}


class RewriteSerializer(serializers.Serializer):
    """A prompt without an acceptable response, with those that it has: who wrote them is not among it."""

    task = serializers.IntegerField()
    lease_expires_at = serializers.DateTimeField()
    messages = MessageSerializer(many=True)
    responses = serializers.ListField(child=serializers.CharField(), help_text="In an order drawn for the caller.")
    lang = serializers.CharField()


class ClaimRewriteSerializer(serializers.Serializer):
    after = serializers.IntegerField(
        required=False, default=0, min_value=0, max_value=2**63 - 1, help_text="A task that was skipped; others first."
    )


class WrittenSerializer(serializers.Serializer):
    text = serializers.CharField(trim_whitespace=False, allow_blank=True, max_length=MAX_EDITED_CHARS)
    start = serializers.IntegerField(
        required=False,
        allow_null=True,
        default=None,
        min_value=0,
        max_value=8,
        help_text="The response that it was made of, by its place among `responses`; null: the caller's own.",
    )
    seconds = serializers.IntegerField(required=False, default=0, min_value=0, max_value=2**31 - 1)


class ClosedRewriteSerializer(serializers.ModelSerializer):
    task = serializers.IntegerField(source="pk")
    status = serializers.ChoiceField(choices=[RewriteStatus.DONE, RewriteStatus.DROPPED])
    messages = MessageSerializer(source="prompt.messages", many=True)
    text = serializers.CharField(source="written.text", default=None, allow_null=True, help_text="null: dropped.")
    annotator = serializers.CharField(source="annotator.name", default=None, allow_null=True)

    class Meta:
        model = RewriteTask
        fields = ["task", "status", "messages", "text", "annotator", "seconds_spent", "edit_distance", "done_at"]


class ReopenedSerializer(serializers.Serializer):
    is_yours = serializers.BooleanField(help_text="false: it is open to everybody again.")
    text = serializers.CharField(help_text="What had been saved.")


class DropSerializer(serializers.Serializer):
    reason = serializers.ChoiceField(choices=DropReason.choices)


class ClaimRewrite(ProjectView):
    @extend_schema(
        operation_id="claim_rewrite",
        request=ClaimRewriteSerializer,
        responses={200: RewriteSerializer, 204: OpenApiResponse(description="Nothing is left to write.")},
    )
    def post(self, request: Request, slug: str) -> Response:
        """The task that the caller holds, or else the next; the lease is renewed."""
        given = ClaimRewriteSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        writer = annotator(request)
        task = services.claim_rewrite(annotator=writer, project=self.project, after=given.validated_data["after"])
        if task is None:
            return Response(status=status.HTTP_204_NO_CONTENT)
        return Response(
            {
                "task": task.pk,
                "lease_expires_at": task.lease_expires_at,
                "messages": task.prompt.messages,
                "responses": [response.text for response in rewrite_responses(task, writer.pk)],
                "lang": task.prompt.lang,
            }
        )


class SaveRewrite(ProjectView):
    @extend_schema(operation_id="save_rewrite", request=WrittenSerializer, responses={204: None, **REFUSED})
    def post(self, request: Request, slug: str, task: int) -> Response:
        """Store the text as a response by people. The same text again changes nothing."""
        given = WrittenSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        writer, start = annotator(request), given.validated_data.pop("start")
        original = None
        if start is not None:
            found = RewriteTask.objects.filter(pk=task, project=self.project)
            known = found.select_related("comparison__response_a", "comparison__response_b").first()
            responses = rewrite_responses(known, writer.pk) if known else []
            if start >= len(responses):
                raise DomainError(_("start: this prompt has no response %(start)d to start from.") % {"start": start})
            original = responses[start]
        services.save_rewrite(
            task_id=task, project=self.project, annotator=writer, original=original, **given.validated_data
        )
        return Response(status=status.HTTP_204_NO_CONTENT)


class SkipRewrite(ProjectView):
    @extend_schema(operation_id="skip_rewrite", request=None, responses={204: None, **REFUSED})
    def post(self, request: Request, slug: str, task: int) -> Response:
        """Leave it to somebody else."""
        services.give_back_rewrite(task_id=task, project=self.project, annotator=annotator(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


class DropRewrite(ProjectView):
    @extend_schema(operation_id="drop_rewrite", request=DropSerializer, responses={204: None, **REFUSED})
    def post(self, request: Request, slug: str, task: int) -> Response:
        """Close it without a text, for good."""
        given = DropSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        services.drop_rewrite(
            task_id=task, project=self.project, annotator=annotator(request), reason=given.validated_data["reason"]
        )
        return Response(status=status.HTTP_204_NO_CONTENT)


class ClosedRewrites(ProjectView, generics.ListAPIView):
    """What was written and dropped, the newest task first: one's own, and to reviewers everybody's."""

    serializer_class = ClosedRewriteSerializer
    pagination_class = NewestFirstPagination

    @extend_schema(operation_id="list_closed_rewrites")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[RewriteTask]:
        is_reviewer = has_role(person(self.request), self.project, Role.REVIEWER)
        return services.closed_rewrites(self.project, by=None if is_reviewer else annotator(self.request))


class ReopenRewrite(ProjectView):
    @extend_schema(operation_id="reopen_rewrite", request=None, responses={200: ReopenedSerializer, **REFUSED})
    def post(self, request: Request, slug: str, task: int) -> Response:
        """Undo a text or a drop: the caller holds it again, or, where it was another's, it is open to everybody.

        Another's is for reviewers. The text stays a response, but stands for the prompt no more.
        """
        writer = annotator(request)
        is_reviewer = has_role(person(request), self.project, Role.REVIEWER)
        reopened, text = services.reopen_rewrite(
            task_id=task, project=self.project, annotator=writer, is_reviewer=is_reviewer
        )
        return Response({"is_yours": reopened.annotator_id == writer.pk, "text": text})


class RenewRewrite(ProjectView):
    @extend_schema(operation_id="renew_rewrite", request=None, responses=LeaseSerializer)
    def post(self, request: Request, slug: str, task: int) -> Response:
        """Hold it for another lease."""
        writer = annotator(request)
        services.renew_rewrite(task_id=task, project=self.project, annotator=writer)
        held = RewriteTask.objects.filter(pk=task, project=self.project, annotator=writer).first()
        return Response({"lease_expires_at": held.lease_expires_at if held else None})
