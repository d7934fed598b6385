"""Marking single responses by program: the same queue, the same blindness and the same rules as on the page."""

from __future__ import annotations

from uuid import UUID

from django.db.models import F, QuerySet
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers, status
from rest_framework.fields import empty
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation import services
from annotation.api.common import ProjectView, RefusalSerializer, annotator
from annotation.api.data import Listed
from annotation.api.filters import read_flag
from annotation.api.serializers import LeaseSerializer, MessageSerializer
from annotation.blind import blind_single
from annotation.models import RatingStatus, RubricRating
from annotation.models.studies import ANSWERS

REFUSED = {404: RefusalSerializer, 409: RefusalSerializer, 422: RefusalSerializer}


class BlindSingleSerializer(serializers.Serializer):
    """A response to mark by itself: who wrote it, and which evaluation asks, is not among it."""

    rating = serializers.UUIDField()
    lease_expires_at = serializers.DateTimeField()
    messages = MessageSerializer(many=True)
    response = serializers.CharField()
    task = serializers.CharField()
    lang = serializers.CharField()


class MarkField(serializers.BooleanField):
    default_empty_html = empty  # what a form leaves out was not answered; it is not “no”


class MarksSerializer(serializers.Serializer):
    intent = MarkField(help_text="It understands what was asked.")
    accuracy = MarkField(help_text="What it says is right.")
    language = MarkField(help_text="It is clear, fluent and in the form that was asked for.")
    safety = MarkField(help_text="It harms nobody.")
    is_satisfied = MarkField(help_text="Whoever asked would be content with it.")
    note = serializers.CharField(required=False, default="", allow_blank=True, max_length=10_000)
    guideline_version = serializers.IntegerField(required=False, default=0, min_value=0, max_value=2**31 - 1)
    decided_in_ms = serializers.IntegerField(required=False, default=None, min_value=0, max_value=2**31 - 1)


class StoredRatingSerializer(serializers.Serializer):
    rating = serializers.UUIDField()
    is_late = serializers.BooleanField(help_text="The lease had run out; the marks count all the same.")


class RatingSerializer(serializers.ModelSerializer):
    rating = serializers.UUIDField(source="public_id")
    study = serializers.CharField(help_text="The evaluation that asked.")
    response = serializers.IntegerField()
    annotator = serializers.CharField(source="annotator.name")

    class Meta:
        model = RubricRating
        fields = [
            "id", "rating", "study", "response", "annotator", *ANSWERS, "note", "guideline_version", "is_late",
            "decided_in_ms", "submitted_at", "superseded_at",
        ]  # fmt: skip


class Ratings(Listed):
    """What people marked, corrected ones too (`?live=true`: only those that stand), in order of id."""

    serializer_class = RatingSerializer
    query = (OpenApiParameter("study", str), OpenApiParameter("response", int), OpenApiParameter("live", bool))

    @extend_schema(operation_id="list_ratings", parameters=[*query])
    def get(self, request: Request, *args: object, **kwargs: object) -> Response:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[RubricRating]:
        rows = RubricRating.objects.filter(project=self.project, status=RatingStatus.SUBMITTED)
        if read_flag(self.request.query_params, "live"):
            rows = rows.filter(superseded_at=None)
        named = rows.annotate(study=F("item__study__name"), response=F("item__response"))
        return self.narrowed(named.select_related("annotator"), "study", "response")


class ClaimRating(ProjectView):
    @extend_schema(
        operation_id="claim_rating",
        request=None,
        responses={200: BlindSingleSerializer, 204: OpenApiResponse(description="Nothing is left to mark.")},
    )
    def post(self, request: Request, slug: str) -> Response:
        """The response that the caller holds, or else the next; the lease is renewed.

        Members only: staff see every project, but mark where they were added.
        """
        rating = services.claim_rating(annotator=annotator(request), project=self.project)
        if rating is None:
            return Response(status=status.HTTP_204_NO_CONTENT)
        shown = blind_single(rating)
        return Response(
            {
                "rating": rating.public_id,
                "lease_expires_at": rating.lease_expires_at,
                "messages": shown.messages,
                "response": shown.responses[0],
                "task": shown.task,
                "lang": shown.lang,
            }
        )


class GiveMarks(APIView):
    @extend_schema(operation_id="rate", request=MarksSerializer, responses={200: StoredRatingSerializer, **REFUSED})
    def post(self, request: Request, rating_id: UUID) -> Response:
        """Mark a response, or correct the marks that stand; the same marks again change nothing."""
        given = MarksSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        fields = dict(given.validated_data)
        marks = services.Marks(**{name: fields.pop(name) for name in (*ANSWERS, "note")})
        rating = services.submit_rating(rating_id=rating_id, annotator=annotator(request), marks=marks, **fields)
        return Response({"rating": rating.public_id, "is_late": rating.is_late})


class SkipRating(APIView):
    @extend_schema(operation_id="skip_rating", request=None, responses={204: None, **REFUSED})
    def post(self, request: Request, rating_id: UUID) -> Response:
        """Give a response back; somebody else gets it."""
        services.skip_rating(rating_id=rating_id, annotator=annotator(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


class RenewRating(APIView):
    @extend_schema(operation_id="renew_rating", request=None, responses=LeaseSerializer)
    def post(self, request: Request, rating_id: UUID) -> Response:
        """Hold it for another lease."""
        person = annotator(request)
        services.renew_rating(rating_id=rating_id, annotator=person)
        held = RubricRating.objects.filter(public_id=rating_id, annotator=person, status=RatingStatus.LEASED).first()
        return Response({"lease_expires_at": held.lease_expires_at if held else None})
