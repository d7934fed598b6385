"""Judging by program: the same leases, the same blindness and the same rules as on the page."""

from __future__ import annotations

from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation import services
from annotation.api import serializers as shapes
from annotation.api.common import ProjectView, RefusalSerializer, annotator
from annotation.blind import blind_texts
from annotation.models import Assignment

REFUSED = {404: RefusalSerializer, 409: RefusalSerializer, 422: RefusalSerializer}


class Claim(ProjectView):
    @extend_schema(operation_id="claim", request=None, responses=shapes.BlindItemSerializer(many=True))
    def post(self, request: Request, slug: str) -> Response:
        """What the caller holds, topped up to two comparisons; the leases of what is held are renewed.

        Members only: staff see every project, but judge where they were added.
        """
        leased = services.claim_assignments(annotator=annotator(request), project=self.project)
        return Response([_item(assignment) for assignment in leased])


def _item(assignment: Assignment) -> dict[str, object]:
    texts = blind_texts(assignment)
    return {
        "assignment": assignment.public_id,
        "lease_expires_at": assignment.lease_expires_at,
        "messages": texts.messages,
        "responses": texts.responses,
        "task": texts.task,
        "lang": texts.lang,
    }


class Renew(ProjectView):
    @extend_schema(operation_id="renew_leases", request=None, responses=shapes.LeaseSerializer)
    def post(self, request: Request, slug: str) -> Response:
        """Hold what is held for another lease."""
        ends = services.renew_leases(annotator=annotator(request), project=self.project)
        return Response({"lease_expires_at": ends})


class Judge(APIView):
    @extend_schema(
        operation_id="judge",
        request=shapes.AnswerSerializer,
        responses={200: shapes.StoredJudgmentSerializer, **REFUSED},
    )
    def post(self, request: Request, assignment_id: UUID) -> Response:
        """Give a verdict, or correct the one that stands."""
        given = shapes.AnswerSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        judgment = services.submit_judgment(
            assignment_id=assignment_id,
            annotator=annotator(request),
            judgment_id=given.validated_data["judgment"],
            answer=given.answer(),
        )
        return Response({"judgment": judgment.public_id, "is_late": judgment.is_late})


class Skip(APIView):
    @extend_schema(operation_id="skip", request=shapes.SkipSerializer, responses={204: None, **REFUSED})
    def post(self, request: Request, assignment_id: UUID) -> Response:
        """Give a comparison back; somebody else gets it."""
        given = shapes.SkipSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        services.skip_assignment(
            assignment_id=assignment_id, annotator=annotator(request), reason=given.validated_data["reason"]
        )
        return Response(status=204)


class Flag(APIView):
    @extend_schema(operation_id="flag", request=shapes.FlagReasonSerializer, responses={204: None, **REFUSED})
    def post(self, request: Request, assignment_id: UUID) -> Response:
        """Tell the reviewers that something is wrong with a comparison; it stays the caller's."""
        given = shapes.FlagReasonSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        services.flag_comparison(assignment_id=assignment_id, annotator=annotator(request), **given.validated_data)
        return Response(status=204)


class Undo(APIView):
    @extend_schema(operation_id="undo", request=None, responses={204: None, **REFUSED})
    def post(self, request: Request, assignment_id: UUID) -> Response:
        """Call back what was skipped, where nobody else has taken it; a verdict stands until it is corrected."""
        services.undo_assignment(assignment_id=assignment_id, annotator=annotator(request))
        return Response(status=204)
