"""Conversations by program: the steps of the page, for the person who holds the conversation, and as blind.

Every answer is the whole conversation as it then stands.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import Http404
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework import generics, serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation.access import role_in
from annotation.api.common import (
    NewestFirstPagination,
    ProjectView,
    RefusalSerializer,
    annotator,
    person,
    project_for,
)
from annotation.api.serializers import PickSerializer
from annotation.conversations.plain import plain_conversation
from annotation.conversations.writing import BusyError, start_writing
from annotation.errors import ConflictError, DomainError
from annotation.feedback import UPTAKE_VALUES, Feedback
from annotation.models import (
    Conversation,
    DeficiencyType,
    FeedbackType,
    Role,
    Scenario,
    SideStatus,
    SourceKind,
)
from annotation.services import conversations as services
from annotation.services import turns
from annotation.services.rating_conversations import why_not_held

REFUSED = {404: RefusalSerializer, 409: RefusalSerializer, 422: RefusalSerializer}
RETRY_SECONDS = 3


# ── Shapes ───────────────────────────────────────────────────────────────────────────────────────────────────────


class ConversationSideSerializer(serializers.Serializer):
    name = serializers.ChoiceField(choices=["A", "B"], help_text="A is the left one.")
    status = serializers.ChoiceField(choices=SideStatus.choices)
    text = serializers.CharField(help_text="As far as it has arrived.")
    trouble = serializers.CharField(help_text="Why it broke off.")
    takes_up_feedback = serializers.CharField(help_text="yes, partly or no, as the caller said; empty: not said.")


class ConversationTurnSerializer(serializers.Serializer):
    position = serializers.IntegerField()
    message = serializers.CharField(help_text="The user's.")
    state = serializers.ChoiceField(choices=["writing", "broken", "choosing", "own", "kept"])
    sides = ConversationSideSerializer(many=True)
    choice = serializers.CharField(help_text="Empty: none yet, or nothing to choose.")
    is_choice_waiting = serializers.BooleanField(help_text="It was given before all responses were there.")
    kept_side = serializers.CharField(help_text="A or B; empty where the caller wrote what goes on.")
    kept_text = serializers.CharField(help_text="What goes on in the history.")
    kept_at_random = serializers.BooleanField()
    scenario = serializers.CharField()
    deficiency_types = serializers.ListField(child=serializers.CharField())
    feedback_types = serializers.ListField(child=serializers.CharField())


class ConversationSerializer(serializers.Serializer):
    conversation = serializers.UUIDField()
    project = serializers.CharField()
    task = serializers.CharField()
    lang = serializers.CharField()
    has_ended = serializers.BooleanField()
    max_turns = serializers.IntegerField()
    choices = serializers.ListField(child=serializers.CharField(), help_text="What a choice may be here.")
    turns = ConversationTurnSerializer(many=True)


class ConversationLineSerializer(serializers.ModelSerializer):
    conversation = serializers.UUIDField(source="public_id")

    class Meta:
        model = Conversation
        fields = ["conversation", "task", "lang", "created_at", "ended_at"]


class NewConversationSerializer(serializers.Serializer):
    """The first message, or a prompt of the project. `conversation` is made by the caller: sent twice, it is one."""

    conversation = serializers.UUIDField()
    text = serializers.CharField(required=False, default="", allow_blank=True, max_length=services.MAX_MESSAGE_CHARS)
    prompt = serializers.IntegerField(required=False, allow_null=True, default=None, help_text="Its id, instead.")
    task = serializers.CharField(required=False, default="", allow_blank=True, max_length=60)
    lang = serializers.CharField(required=False, default="", allow_blank=True, max_length=20)
    sources = serializers.ListField(
        child=serializers.CharField(max_length=200),
        required=False,
        default=list,
        max_length=2,
        help_text="Names of those whose responses the caller posts itself (admins); empty: models are drawn.",
    )


class PositionSerializer(serializers.Serializer):
    position = serializers.IntegerField(min_value=0, max_value=10_000, help_text="Of the last turn: 0, 1, …")


class PostedResponseSerializer(serializers.Serializer):
    source = serializers.CharField(max_length=200)  # type: ignore[assignment]
    text = serializers.CharField(trim_whitespace=False, allow_blank=True, max_length=turns.MAX_RESPONSE_CHARS)


class PostedResponsesSerializer(PositionSerializer):
    responses = PostedResponseSerializer(many=True, allow_empty=False)


class ChoiceSerializer(PositionSerializer, PickSerializer):
    """Which response goes on, with the sides as in the turn."""


class UptakeSerializer(serializers.Serializer):
    uptake = serializers.DictField(
        child=serializers.ChoiceField(choices=sorted(UPTAKE_VALUES)),
        required=False,
        default=dict,
        help_text='Whether the responses took up the feedback before them, by side: {"A": "yes", "B": "no"}.',
    )


class NewFeedbackSerializer(PositionSerializer, UptakeSerializer):
    """The next message. Without a scenario it is a further question, and has no types."""

    text = serializers.CharField(max_length=services.MAX_MESSAGE_CHARS)
    scenario = serializers.ChoiceField(choices=Scenario.choices, required=False, default="", allow_blank=True)
    deficiency_types = serializers.ListField(
        child=serializers.ChoiceField(choices=DeficiencyType.choices), required=False, default=list
    )
    feedback_types = serializers.ListField(
        child=serializers.ChoiceField(choices=FeedbackType.choices), required=False, default=list
    )
    own_text = serializers.CharField(
        required=False,
        default="",
        allow_blank=True,
        max_length=services.MAX_MESSAGE_CHARS,
        help_text="The kept response as edited, or the caller's own where neither was good.",
    )
    edit_seconds = serializers.IntegerField(required=False, default=0, min_value=0, max_value=2**31 - 1)


# ── Endpoints ────────────────────────────────────────────────────────────────────────────────────────────────────


class Conversations(ProjectView, generics.ListAPIView):
    """The caller's own conversations with models, newest first."""

    serializer_class = ConversationLineSerializer
    pagination_class = NewestFirstPagination

    @extend_schema(operation_id="list_conversations")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[Conversation]:
        return Conversation.objects.filter(
            project=self.project, annotator__user=person(self.request), source_a__isnull=False
        )

    @extend_schema(
        operation_id="start_conversation",
        request=NewConversationSerializer,
        responses={201: ConversationSerializer, **REFUSED},
    )
    def post(self, request: Request, slug: str) -> Response:
        """Start a conversation; its first responses are asked for, or posted, next."""
        given = NewConversationSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        fields = dict(given.validated_data)
        if fields["sources"]:
            project_for(request, slug, Role.ADMIN)
        prompt = fields.pop("prompt")
        if prompt is not None:
            fields["text"] = services.question_of(self.project, prompt)
        talk = services.start_conversation(
            project=self.project,
            annotator=annotator(request),
            conversation_id=fields.pop("conversation"),
            **fields,
        )
        return Response(plain_conversation(talk), status=status.HTTP_201_CREATED)


class ConversationView(APIView):
    """An endpoint of the caller's own conversation; to others it does not exist."""

    is_imported = False
    """Whether it came out of a file to be rated, or is talked with models."""
    talk: Conversation

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        talk = (
            Conversation.objects.filter(
                public_id=kwargs["conversation_id"],
                annotator__user=person(request),
                source_a__isnull=self.is_imported,
            )
            .select_related("project", "annotator")
            .first()
        )
        if talk is None:
            lost = why_not_held(kwargs["conversation_id"], person(request)) if self.is_imported else None
            if lost is None or role_in(person(request), lost[0]) is None:
                raise Http404
            raise ConflictError(lost[1])
        if role_in(person(request), talk.project) is None:
            raise Http404
        self.talk = talk

    def given(self, shape: type[serializers.Serializer], request: Request) -> serializers.Serializer:
        given = shape(data=request.data)
        given.is_valid(raise_exception=True)
        return given

    def answer(self) -> Response:
        self.talk.refresh_from_db(fields=["ended_at"])
        return Response(plain_conversation(self.talk))


class ConversationDetail(ConversationView):
    @extend_schema(operation_id="get_conversation", responses={200: ConversationSerializer, 404: RefusalSerializer})
    def get(self, request: Request, conversation_id: UUID) -> Response:
        """The conversation with what has arrived of responses that are being written."""
        return self.answer()


class AskModels(ConversationView):
    @extend_schema(
        operation_id="ask_models",
        request=None,
        responses={200: ConversationSerializer, 503: RefusalSerializer, **REFUSED},
    )
    def post(self, request: Request, conversation_id: UUID) -> Response:
        """Have the last turn's responses written, also those that broke off; asking again meanwhile changes nothing.

        The answer does not wait for them: read the conversation until they are there.
        """
        turn = self.talk.turns.latest("position")
        missing = turn.sides.exclude(status=SideStatus.DONE)
        if missing.exclude(source__kind=SourceKind.MODEL).exists():
            raise DomainError(_("These responses are posted by the program that started this; no model is asked."))
        if missing.exists():
            turns.retry_broken_sides(self.talk, turn.position)
            try:
                start_writing(turn)
            except BusyError:
                return Response(
                    {"detail": _("The models are busy with others. Try again in a few seconds.")},
                    status=status.HTTP_503_SERVICE_UNAVAILABLE,
                    headers={"Retry-After": str(RETRY_SECONDS)},
                )
        return self.answer()


class PostResponses(ConversationView):
    @extend_schema(
        operation_id="post_responses",
        request=PostedResponsesSerializer,
        responses={200: ConversationSerializer, **REFUSED},
    )
    def post(self, request: Request, conversation_id: UUID) -> Response:
        """Bring the last turn's responses oneself, by source, all or none; for admins, since it names the sources."""
        project_for(request, self.talk.project.slug, Role.ADMIN)
        given = self.given(PostedResponsesSerializer, request).validated_data
        texts = [(response["source"], response["text"]) for response in given["responses"]]
        turns.post_responses(self.talk, given["position"], texts)
        return self.answer()


class Choose(ConversationView):
    @extend_schema(
        operation_id="choose_response",
        request=ChoiceSerializer,
        responses={200: ConversationSerializer, **REFUSED},
    )
    def post(self, request: Request, conversation_id: UUID) -> Response:
        """Choose between the last turn's responses, or otherwise than before; until they are complete, it waits."""
        given = self.given(ChoiceSerializer, request)
        assert isinstance(given, ChoiceSerializer)
        position, judgment = given.validated_data["position"], given.validated_data["judgment"]
        turns.pick_response(self.talk, position, judgment_id=judgment, answer=given.answer())
        return self.answer()


class KeepComplete(ConversationView):
    @extend_schema(
        operation_id="keep_complete_response",
        request=PositionSerializer,
        responses={200: ConversationSerializer, **REFUSED},
    )
    def post(self, request: Request, conversation_id: UUID) -> Response:
        """Go on with the only response that came to its end, where the other one broke off."""
        turns.keep_the_complete_one(self.talk, self.given(PositionSerializer, request).validated_data["position"])
        return self.answer()


class GiveFeedback(ConversationView):
    @extend_schema(
        operation_id="give_feedback",
        request=NewFeedbackSerializer,
        responses={200: ConversationSerializer, **REFUSED},
    )
    def post(self, request: Request, conversation_id: UUID) -> Response:
        """Answer what was kept with the next message, and say what kind of feedback it is: the next turn begins."""
        given = dict(self.given(NewFeedbackSerializer, request).validated_data)
        feedback = Feedback(given.pop("scenario"), given.pop("deficiency_types"), given.pop("feedback_types"))
        turns.send_feedback(self.talk, given.pop("position"), feedback=feedback, **given)
        return self.answer()


class EndConversation(ConversationView):
    @extend_schema(
        operation_id="end_conversation",
        request=UptakeSerializer,
        responses={200: ConversationSerializer, **REFUSED},
    )
    def post(self, request: Request, conversation_id: UUID) -> Response:
        """Finish the conversation; everything that was said stays."""
        services.end_conversation(self.talk, uptake=self.given(UptakeSerializer, request).validated_data["uptake"])
        return self.answer()


class ReopenConversation(ConversationView):
    @extend_schema(
        operation_id="reopen_conversation", request=None, responses={200: ConversationSerializer, **REFUSED}
    )
    def post(self, request: Request, conversation_id: UUID) -> Response:
        """Go on with a conversation that was finished."""
        services.reopen_conversation(self.talk)
        return self.answer()
