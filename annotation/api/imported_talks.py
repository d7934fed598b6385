"""Rating imported conversations by program, response by response, without knowing who wrote them."""

from __future__ import annotations

from uuid import UUID

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.api.common import ProjectView, RefusalSerializer, annotator, refuse_unknown
from annotation.api.conversations import ConversationView
from annotation.api.serializers import MessageSerializer
from annotation.conversations.plain import plain_rated
from annotation.feedback import Feedback
from annotation.models import DeficiencyType, FeedbackType, Scenario
from annotation.services import conversations as services
from annotation.services import rating_conversations

REFUSED = {404: RefusalSerializer, 409: RefusalSerializer, 422: RefusalSerializer}
FURTHER_QUESTION = "further_question"


class AspectSerializer(serializers.Serializer):
    name = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment]
    low = serializers.IntegerField()
    high = serializers.IntegerField()


class RatedTurnSerializer(serializers.Serializer):
    position = serializers.IntegerField()
    messages = MessageSerializer(many=True, help_text="What was said since the response before.")
    response = serializers.CharField()
    is_answered = serializers.BooleanField(help_text="Whether the user said something to it: that has a scenario.")
    scores = serializers.DictField(child=serializers.FloatField(allow_null=True))
    note = serializers.CharField()
    scenario = serializers.CharField()
    deficiency_types = serializers.ListField(child=serializers.CharField())
    feedback_types = serializers.ListField(child=serializers.CharField())


class RatedConversationSerializer(serializers.Serializer):
    conversation = serializers.UUIDField()
    project = serializers.CharField()
    lang = serializers.CharField()
    has_ended = serializers.BooleanField()
    aspects = AspectSerializer(many=True)
    turns = RatedTurnSerializer(many=True)


class TurnRatingSerializer(serializers.Serializer):
    position = serializers.IntegerField(min_value=0, max_value=10_000)
    scores = serializers.DictField(child=serializers.IntegerField(), help_text="One for each of the aspects.")
    note = serializers.CharField(required=False, default="", allow_blank=True, max_length=10_000)
    scenario = serializers.ChoiceField(
        choices=[*Scenario.values, FURTHER_QUESTION],
        required=False,
        help_text="What the answer to the response is; left out: nothing is said of it.",
    )
    deficiency_types = serializers.ListField(
        child=serializers.ChoiceField(choices=DeficiencyType.choices), required=False, default=list
    )
    feedback_types = serializers.ListField(
        child=serializers.ChoiceField(choices=FeedbackType.choices), required=False, default=list
    )
    guideline_version = serializers.IntegerField(required=False, default=0, min_value=0, max_value=2**31 - 1)


class TakeConversation(ProjectView):
    @extend_schema(
        operation_id="take_conversation",
        request=None,
        responses={200: RatedConversationSerializer, 204: OpenApiResponse(description="Nothing is left."), **REFUSED},
    )
    def post(self, request: Request, slug: str) -> Response:
        """The imported conversation that the caller has begun to rate, or else the next free one."""
        talk = rating_conversations.take_conversation(self.project, annotator(request))
        if talk is None:
            return Response(status=status.HTTP_204_NO_CONTENT)
        return Response(plain_rated(talk))


class ImportedView(ConversationView):
    """An endpoint of an imported conversation that the caller rates."""

    is_imported = True

    def rated(self) -> Response:
        self.talk.refresh_from_db(fields=["ended_at"])
        return Response(plain_rated(self.talk))


class RateConversation(ImportedView):
    @extend_schema(operation_id="get_rated_conversation", responses={200: RatedConversationSerializer, **REFUSED})
    def get(self, request: Request, conversation_id: UUID) -> Response:
        return self.rated()

    @extend_schema(
        operation_id="rate_turn",
        request=TurnRatingSerializer,
        responses={200: RatedConversationSerializer, **REFUSED},
    )
    def post(self, request: Request, conversation_id: UUID) -> Response:
        """Rate one response, or rate it otherwise than before, and say what kind the answer to it is."""
        given = TurnRatingSerializer(data=request.data)
        refuse_unknown(given, request.data)
        given.is_valid(raise_exception=True)
        said = given.validated_data
        feedback = None
        if scenario := said.get("scenario"):
            named = "" if scenario == FURTHER_QUESTION else scenario
            feedback = Feedback(named, said["deficiency_types"], said["feedback_types"])
        rating_conversations.rate_turn(
            self.talk,
            said["position"],
            ratings=said["scores"],
            feedback=feedback,
            note=said["note"],
            guideline_version=said["guideline_version"],
        )
        return self.rated()


class FinishRating(ImportedView):
    @extend_schema(operation_id="finish_rating", request=None, responses={200: RatedConversationSerializer, **REFUSED})
    def post(self, request: Request, conversation_id: UUID) -> Response:
        """Everything is said; the next one can be taken."""
        services.end_conversation(self.talk)
        return self.rated()


class GiveBackConversation(ImportedView):
    @extend_schema(operation_id="give_back_conversation", request=None, responses={204: None, **REFUSED})
    def post(self, request: Request, conversation_id: UUID) -> Response:
        """Let somebody else rate it; scores that were given stay."""
        rating_conversations.give_back_conversation(self.talk)
        return Response(status=status.HTTP_204_NO_CONTENT)
