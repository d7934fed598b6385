"""Shapes of what goes in and out. Names are those of the tables and of the training rows."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from annotation.answer import Answer, MarkedSpan
from annotation.importers.rows import MAX_TAGS
from annotation.models import (
    Comparison,
    ErrorKind,
    ErrorSpan,
    Event,
    GuidelineVersion,
    Judgment,
    Project,
    Prompt,
    Response,
    ResponseSource,
    Turn,
    Webhook,
    WebhookDelivery,
)
from annotation.reasons import FlagReason, SkipReason
from annotation.services.projects import SETTINGS
from annotation.services.webhooks import EVENT_KINDS


class MessageSerializer(serializers.Serializer):
    role = serializers.ChoiceField(choices=["system", "user", "assistant"])
    content = serializers.CharField(trim_whitespace=False, max_length=1_000_000)


class ProjectSerializer(serializers.ModelSerializer):
    class Meta:
        model = Project
        fields = [
            "slug", "name", "guidelines", "guideline_version", "protocol", "is_open", "judgments_per_comparison",
            "overlap_share", "overlap_count", "escalate_to", "gold_every", "gold_every_at_first", "repeat_share",
            "qualification_count", "qualification_pass_mark", "topic_batches", "created_at",
        ]  # fmt: skip


class SettingsSerializer(serializers.ModelSerializer):
    class Meta:
        model = Project
        fields = ["guidelines", *SETTINGS]


class GuidelineVersionSerializer(serializers.ModelSerializer):
    class Meta:
        model = GuidelineVersion
        fields = ["version", "text", "created_at"]


class NewGuidelinesSerializer(serializers.Serializer):
    text = serializers.CharField(allow_blank=True, max_length=100_000)
    based_on = serializers.IntegerField(
        required=False,
        allow_null=True,
        default=None,
        help_text="The version it was made of: 409 if it is not in force.",
    )


class NewProjectSerializer(serializers.Serializer):
    slug = serializers.SlugField()
    name = serializers.CharField(max_length=200)
    guidelines = serializers.CharField(required=False, default="", allow_blank=True)
    judgments_per_comparison = serializers.IntegerField(required=False, default=1, min_value=1, max_value=100)


class PromptSerializer(serializers.ModelSerializer):
    messages = MessageSerializer(many=True)

    class Meta:
        model = Prompt
        fields = ["id", "messages", "group", "task", "lang", "skill", "topic", "tags", "archived_at", "created_at"]


class NewPromptSerializer(serializers.Serializer):
    messages = MessageSerializer(many=True, allow_empty=False)
    task = serializers.CharField(required=False, default="", allow_blank=True, max_length=60)
    lang = serializers.CharField(required=False, default="", allow_blank=True, max_length=20)
    skill = serializers.CharField(required=False, default="", allow_blank=True, max_length=60)
    topic = serializers.CharField(required=False, default="", allow_blank=True, max_length=100)
    tags = serializers.ListField(
        child=serializers.CharField(max_length=60),
        max_length=MAX_TAGS,
        required=False,
        default=list,
        help_text="difficulty:…, format:… and scenario:… are what evaluations by people are broken down by.",
    )

    def validate_tags(self, tags: list[str]) -> list[str]:
        return sorted(set(tags))

    def validate_messages(self, messages: list[dict[str, str]]) -> list[dict[str, str]]:
        if messages[-1]["role"] != "user":
            raise serializers.ValidationError("The last message must be the user's.")
        return [{"role": message["role"], "content": message["content"]} for message in messages]


class CountSerializer(serializers.Serializer):
    new = serializers.IntegerField(help_text="How many were not there before.")
    given = serializers.IntegerField()


class ExportCountsSerializer(serializers.Serializer):
    rows = serializers.IntegerField()
    prompts = serializers.IntegerField()
    dropped = serializers.DictField(
        child=serializers.IntegerField(), help_text="Judged pairs without a row, by reason."
    )


class SourceSerializer(serializers.ModelSerializer):
    class Meta:
        model = ResponseSource
        fields = ["id", "name", "kind", "created_at"]


class ResponseSerializer(serializers.ModelSerializer):
    source = serializers.CharField(source="source.name")  # type: ignore[assignment]

    class Meta:
        model = Response
        fields = ["id", "prompt", "source", "sample_index", "text", "messages", "seed", "sampling", "finish_reason"]


class NewResponseSerializer(serializers.Serializer):
    prompt = serializers.IntegerField(help_text="The prompt's id.")
    source = serializers.CharField(  # type: ignore[assignment]
        max_length=200, help_text="Who wrote it: any name; the same name is the same source."
    )
    sample_index = serializers.IntegerField(required=False, default=0, min_value=0)
    text = serializers.CharField(trim_whitespace=False, allow_blank=True, max_length=1_000_000)


class ComparisonSerializer(serializers.ModelSerializer):
    responses = serializers.SerializerMethodField(help_text="Response ids in content order: a, b, …")

    class Meta:
        model = Comparison
        fields = [
            "id", "prompt", "responses", "lang", "skill", "required_count", "assigned_count", "is_withdrawn",
            "uncertainty", "created_at",
        ]  # fmt: skip

    def get_responses(self, comparison: Comparison) -> list[int]:
        further = [further.response_id for further in comparison.further_responses.all()]
        return [comparison.response_a_id, comparison.response_b_id, *further]


class AdminComparisonSerializer(ComparisonSerializer):
    """With what a reviewer, who may still judge it, must not know: that it measures people, and what it was called
    in the file that it came with, whose ids may say so or name the models."""

    class Meta(ComparisonSerializer.Meta):
        fields = [*ComparisonSerializer.Meta.fields, "external_id", "is_gold"]
        extra_kwargs = {
            name: {"required": False, "help_text": "Only to admins."} for name in ("external_id", "is_gold")
        }


class NewComparisonSerializer(serializers.Serializer):
    responses = serializers.ListField(
        child=serializers.IntegerField(),
        min_length=2,
        max_length=9,
        help_text="Response ids; three or more: a ranking.",
    )


class ErrorSpanSerializer(serializers.ModelSerializer):
    class Meta:
        model = ErrorSpan
        fields = ["response", "start", "end", "kind", "note"]


class JudgmentSerializer(serializers.ModelSerializer):
    annotator = serializers.CharField(source="annotator.name")
    error_spans = ErrorSpanSerializer(many=True)

    class Meta:
        model = Judgment
        fields = [
            "id", "public_id", "comparison", "annotator", "round", "preference", "strength", "ranking", "ratings",
            "axes", "chips", "note", "error_spans", "guideline_version", "is_partial", "is_late", "decided_in_ms",
            "supersedes", "superseded_at", "created_at",
        ]  # fmt: skip


# ── Judging ──────────────────────────────────────────────────────────────────────────────────────────────────────


class BlindItemSerializer(serializers.Serializer):
    """A comparison as its annotator may see it: who wrote the responses is not among it."""

    assignment = serializers.UUIDField()
    lease_expires_at = serializers.DateTimeField()
    messages = MessageSerializer(many=True)
    responses = serializers.ListField(child=serializers.CharField(), help_text="From left to right.")
    task = serializers.CharField()
    lang = serializers.CharField()


class MarkedSpanSerializer(serializers.Serializer):
    position = serializers.IntegerField(min_value=0, max_value=8, help_text="0 is the leftmost response.")
    start = serializers.IntegerField(min_value=0)
    end = serializers.IntegerField(min_value=1)
    kind = serializers.ChoiceField(choices=ErrorKind.choices)
    note = serializers.CharField(required=False, default="", allow_blank=True, max_length=10_000)


class PickSerializer(serializers.Serializer):
    """A verdict with sides and orders as shown. `judgment` is made by the caller: sent twice, it counts once."""

    judgment = serializers.UUIDField()
    choice = serializers.CharField(
        max_length=20, help_text="A strength, −3 … 3 (negative: left), left, right, neither."
    )
    ratings = serializers.DictField(
        child=serializers.ListField(child=serializers.IntegerField(allow_null=True)), required=False
    )
    axes = serializers.DictField(child=serializers.IntegerField(), required=False)
    chips = serializers.ListField(child=serializers.CharField(max_length=60), required=False)
    note = serializers.CharField(required=False, allow_blank=True, max_length=10_000)
    guideline_version = serializers.IntegerField(required=False, min_value=0, max_value=2**31 - 1)
    decided_in_ms = serializers.IntegerField(required=False, min_value=0, max_value=2**31 - 1)

    def answer(self) -> Answer:
        others = ("judgment", "position")
        given: dict[str, Any] = {key: value for key, value in self.validated_data.items() if key not in others}
        if "spans" in given:
            given["spans"] = [MarkedSpan(**span) for span in given["spans"]]
        return Answer(**given)


class AnswerSerializer(PickSerializer):
    """All that a comparison can be answered with."""

    ranking = serializers.ListField(child=serializers.IntegerField(), required=False, allow_null=True)
    spans = MarkedSpanSerializer(many=True, required=False)
    edited_text = serializers.CharField(required=False, allow_blank=True, trim_whitespace=False, max_length=1_000_000)
    edit_seconds = serializers.IntegerField(required=False, min_value=0, max_value=2**31 - 1)


class StoredJudgmentSerializer(serializers.Serializer):
    judgment = serializers.UUIDField()
    is_late = serializers.BooleanField(help_text="The lease had run out; the vote counts all the same.")


class SkipSerializer(serializers.Serializer):
    reason = serializers.ChoiceField(choices=SkipReason.choices, required=False, default="", allow_blank=True)


class FlagReasonSerializer(serializers.Serializer):
    reason = serializers.ChoiceField(choices=FlagReason.choices)
    note = serializers.CharField(required=False, default="", allow_blank=True, max_length=10_000)


class LeaseSerializer(serializers.Serializer):
    lease_expires_at = serializers.DateTimeField(allow_null=True, help_text="null: nothing is held.")


# ── Journal, webhooks ────────────────────────────────────────────────────────────────────────────────────


class EventSerializer(serializers.ModelSerializer):
    user = serializers.CharField(source="user.username", default=None)

    class Meta:
        model = Event
        fields = ["id", "at", "client_at", "kind", "user", "comparison_id", "data"]


class TurnSerializer(serializers.ModelSerializer):
    class Meta:
        model = Turn
        fields = [
            "conversation", "position", "prompt", "comparison", "kept_response", "kept_at_random", "scenario",
            "deficiency_types", "feedback_types", "feedback", "created_at",
        ]  # fmt: skip


class WebhookSerializer(serializers.ModelSerializer):
    class Meta:
        model = Webhook
        fields = ["id", "url", "events", "is_active", "created_at"]


class NewWebhookSerializer(serializers.Serializer):
    url = serializers.URLField(max_length=500)
    events = serializers.ListField(
        child=serializers.ChoiceField(choices=[(kind.value, kind.label) for kind in EVENT_KINDS]),
        required=False,
        default=list,
        help_text="Empty: all of them.",
    )


class WebhookSwitchSerializer(serializers.Serializer):
    is_active = serializers.BooleanField()


class AddedWebhookSerializer(WebhookSerializer):
    signing_secret = serializers.CharField()

    class Meta(WebhookSerializer.Meta):
        fields = [*WebhookSerializer.Meta.fields, "signing_secret"]


class WebhookDeliverySerializer(serializers.ModelSerializer):
    class Meta:
        model = WebhookDelivery
        fields = [
            "public_id", "event_id", "payload", "status", "attempt_count", "next_attempt_at", "last_status_code",
            "last_error", "delivered_at", "created_at",
        ]  # fmt: skip
