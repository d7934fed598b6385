"""Conversations in which a person answers model responses with typed feedback, turn by turn.

A turn's prompt holds the whole history and its two responses are an ordinary comparison, so that a compared turn is
judged, exported and ranked like any other. The types are those of FB-Bench (Li et al. 2024, arXiv 2410.09412).
"""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from annotation.models.checks import json_object, one_of, string_list
from annotation.models.comparing import Annotator, Comparison
from annotation.models.projects import Project
from annotation.models.texts import Prompt, Response, ResponseSource


class Scenario(models.TextChoices):
    """Why the person answers: the response is wrong, or it is right and is being challenged."""

    ERROR_CORRECTION = "error_correction", _("error correction")
    RESPONSE_MAINTENANCE = "response_maintenance", _("response maintenance")


class DeficiencyType(models.TextChoices):
    """What is wrong with a response; only in error correction."""

    LOGICAL_ERROR = "logical_error", _("logical error")
    NOT_FOLLOWING_INSTRUCTIONS = "not_following_instructions", _("not following instructions")
    FACTUAL_ERROR = "factual_error", _("factual error")
    INCOMPLETE_ANSWER = "incomplete_answer", _("incomplete answer")
    UNPROFESSIONAL_ANSWER = "unprofessional_answer", _("unprofessional answer")


class FeedbackType(models.TextChoices):
    """How the person puts it."""

    POINTING_OUT_ERRORS = "pointing_out_errors", _("pointing out errors")
    SIMPLE_QUESTIONING = "simple_questioning", _("simple questioning")
    CLARIFYING_INTENT = "clarifying_intent", _("clarifying intent")
    DETAILED_EXPLANATION = "detailed_explanation", _("detailed explanation")
    HINTING_GUIDANCE = "hinting_guidance", _("hinting guidance")
    RAISING_OBJECTIONS = "raising_objections", _("raising objections")
    MISINFORMATION = "misinformation", _("misinformation")
    CREDIBILITY_SUPPORT = "credibility_support", _("credibility support")
    UNREASONABLE_REQUESTS = "unreasonable_requests", _("unreasonable requests")


FEEDBACK_ALLOWED: dict[str, tuple[FeedbackType, ...]] = {
    Scenario.ERROR_CORRECTION: (
        FeedbackType.POINTING_OUT_ERRORS,
        FeedbackType.SIMPLE_QUESTIONING,
        FeedbackType.CLARIFYING_INTENT,
        FeedbackType.DETAILED_EXPLANATION,
        FeedbackType.HINTING_GUIDANCE,
        FeedbackType.RAISING_OBJECTIONS,
    ),
    Scenario.RESPONSE_MAINTENANCE: (
        FeedbackType.SIMPLE_QUESTIONING,
        FeedbackType.MISINFORMATION,
        FeedbackType.CREDIBILITY_SUPPORT,
        FeedbackType.UNREASONABLE_REQUESTS,
    ),
}
"""Only simple questioning occurs in both scenarios."""


class ConversationSource(models.Model):
    """A model that the people of a project talk to."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="conversation_sources")
    source = models.ForeignKey(ResponseSource, on_delete=models.PROTECT, related_name="+")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "source"], name="conversationsource_once"),
        ]

    def __str__(self) -> str:
        return f"source {self.source_id} of {self.project_id}"


class Conversation(models.Model):
    """A person's talk with one or two sources, or an imported one that is rated turn by turn."""

    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="conversations")
    annotator = models.ForeignKey(
        Annotator, on_delete=models.PROTECT, null=True, blank=True, related_name="conversations"
    )
    source_a = models.ForeignKey(ResponseSource, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    source_b = models.ForeignKey(ResponseSource, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    sampling_probability = models.FloatField(
        null=True, blank=True, help_text="With which its two sources were drawn; empty where nobody drew them."
    )
    task = models.CharField(max_length=60, blank=True)
    lang = models.CharField(max_length=20, blank=True)
    external_id = models.CharField(max_length=200, blank=True, help_text="The id in the imported file.")
    created_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True, blank=True)
    lease_expires_at = models.DateTimeField(
        null=True, blank=True, help_text="Of an imported one: from then on somebody else may rate it."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["project", "external_id"], condition=~Q(external_id=""), name="conversation_external_id_once"
            ),
            models.CheckConstraint(
                condition=Q(sampling_probability__gt=0, sampling_probability__lte=1)
                | Q(sampling_probability__isnull=True),
                name="conversation_sampling_probability_range",
            ),
        ]
        indexes = [
            # a person's open conversations
            models.Index(
                fields=["annotator", "project"], condition=Q(ended_at__isnull=True), name="conversation_open"
            ),
        ]

    def __str__(self) -> str:
        return f"conversation {self.pk}"


class Turn(models.Model):
    """One user message and what was answered, and the typed feedback on the response that was kept."""

    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="turns")
    position = models.PositiveSmallIntegerField(help_text="0, 1, …")
    prompt = models.OneToOneField(Prompt, on_delete=models.PROTECT, related_name="turn")
    comparison = models.OneToOneField(Comparison, on_delete=models.PROTECT, null=True, blank=True, related_name="turn")
    kept_response = models.ForeignKey(
        Response, on_delete=models.PROTECT, null=True, blank=True, related_name="+", help_text="What goes on."
    )
    kept_at_random = models.BooleanField(
        default=False, db_default=False, help_text="Both were the same to the person, so chance kept one."
    )
    # Drawn once: which response is on which side is data.
    a_shown_on_left = models.BooleanField(default=True, db_default=True)
    early_vote = json_object(
        help_text="A verdict given while a response was still being written; a judgment as soon as all are there."
    )
    scenario = models.CharField(max_length=30, choices=Scenario, blank=True)
    deficiency_types = string_list()
    feedback_types = string_list()
    feedback = models.TextField(blank=True, help_text="About the kept response; the next turn's user message.")
    feedback_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["conversation", "position"], name="turn_position_once"),
            models.CheckConstraint(
                condition=Q(scenario="") | one_of("scenario", Scenario), name="turn_scenario_known"
            ),
            models.CheckConstraint(
                condition=Q(deficiency_types__contained_by=DeficiencyType.values), name="turn_deficiencies_known"
            ),
            models.CheckConstraint(
                condition=Q(scenario="error_correction") | Q(deficiency_types=[]),
                name="turn_deficiencies_only_in_correction",
            ),
            models.CheckConstraint(
                condition=Q(scenario="", feedback_types=[])
                | Q(
                    scenario="error_correction",
                    feedback_types__contained_by=[str(kind) for kind in FEEDBACK_ALLOWED[Scenario.ERROR_CORRECTION]],
                )
                | Q(
                    scenario="response_maintenance",
                    feedback_types__contained_by=[
                        str(kind) for kind in FEEDBACK_ALLOWED[Scenario.RESPONSE_MAINTENANCE]
                    ],
                ),
                name="turn_feedback_allowed_in_scenario",
            ),
        ]

    def __str__(self) -> str:
        return f"turn {self.position} of {self.conversation_id}"


class SideStatus(models.TextChoices):
    OPEN = "open", "to be written, or being written by whoever holds the advisory lock on it"
    DONE = "done", "the response stands"
    BROKEN = "broken", "the model could not finish it; it can be asked again"


class TurnSide(models.Model):
    """One of the responses of a turn, from the asking to the stored response.

    Asking again sends the same seed, so that a model that repeats itself repeats the same response.
    """

    turn = models.ForeignKey(Turn, on_delete=models.CASCADE, related_name="sides")
    position = models.PositiveSmallIntegerField(help_text="In content order: 0 is a, 1 is b.")
    source = models.ForeignKey(ResponseSource, on_delete=models.PROTECT, related_name="+")
    seed = models.BigIntegerField()
    status = models.CharField(max_length=10, choices=SideStatus, default=SideStatus.OPEN)
    text = models.TextField(blank=True, help_text="What has arrived so far, saved now and then.")
    error = models.CharField(max_length=300, blank=True, help_text="For staff: it may name the model.")
    response = models.OneToOneField(
        Response, on_delete=models.PROTECT, null=True, blank=True, related_name="turn_side"
    )

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["turn", "position"], name="turnside_position_once"),
            models.CheckConstraint(condition=Q(position__in=[0, 1]), name="turnside_position_known"),
            models.CheckConstraint(condition=one_of("status", SideStatus), name="turnside_status_known"),
            models.CheckConstraint(
                condition=Q(status="done", response__isnull=False) | (~Q(status="done") & Q(response__isnull=True)),
                name="turnside_done_has_response",
            ),
        ]

    def __str__(self) -> str:
        return f"side {self.position} of turn {self.turn_id}"
