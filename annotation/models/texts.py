"""Prompts, responses, and who wrote them."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone

from annotation.models.checks import one_of, string_list
from annotation.models.projects import Project


class Prompt(models.Model):
    """A conversation that ends with a user turn, to which responses are written."""

    # No index of its own, as below: a unique constraint begins with it.
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="prompts", db_index=False)
    messages = models.JSONField(help_text='[{"role", "content"} …], the last one from the user')
    # The unit that never straddles train and eval; the prompt's own hash where the data named none.
    group = models.CharField(max_length=200)
    task = models.CharField(max_length=60, blank=True)
    lang = models.CharField(max_length=20, blank=True)
    skill = models.CharField(max_length=60, blank=True, db_default="", help_text="Who can judge it; empty: anybody.")
    topic = models.CharField(max_length=100, blank=True, db_default="")
    tags = string_list()
    archived_at = models.DateTimeField(null=True, blank=True, help_text="Hidden from lists and queues; kept.")
    content_sha256 = models.CharField(max_length=64)
    original_sha256 = models.CharField(
        max_length=64, blank=True, db_default="", help_text="Of the messages that were judged before they were masked."
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "content_sha256", "group"], name="prompt_once_per_group"),
            models.CheckConstraint(condition=Q(content_sha256__length=64), name="prompt_sha256_length"),
        ]

    def __str__(self) -> str:
        return self.messages[-1]["content"][:80]


class SourceKind(models.TextChoices):
    MODEL = "model", "a model that can be asked"
    IMPORTED = "imported", "named by imported data"
    PERSON = "person", "written or edited by people here"


class ResponseSource(models.Model):
    """Who wrote a response: a model behind an OpenAI-compatible server, or an author named by imported data.

    Templates for annotators never touch this table: blindness is that simple.
    """

    name = models.CharField(max_length=200, unique=True)
    kind = models.CharField(max_length=20, choices=SourceKind)
    # What to send as `model`: the local server takes a directory, a remote one its own name.
    served_model = models.CharField(max_length=500, blank=True)
    base_url = models.CharField(max_length=500, blank=True, help_text="Empty: the default model server.")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=one_of("kind", SourceKind), name="responsesource_kind_known"),
            models.CheckConstraint(
                condition=~Q(kind="model") | ~Q(served_model=""), name="responsesource_model_is_servable"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Response(models.Model):
    """A text that a source wrote for a prompt, with what is needed to know how it came about."""

    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="responses", db_index=False)
    source = models.ForeignKey(ResponseSource, on_delete=models.PROTECT, related_name="responses")
    author = models.ForeignKey(
        "annotation.Annotator",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        db_index=False,
        help_text="The person here who wrote or edited it, and who never judges it.",
    )
    sample_index = models.PositiveIntegerField(help_text="0, 1, … among this source's responses to this prompt")
    text = models.TextField(blank=True)
    text_sha256 = models.CharField(max_length=64)
    original_sha256 = models.CharField(
        max_length=64, blank=True, db_default="", help_text="Of the text that was judged before it was masked."
    )
    # Where this response answers another history than its prompt's (the second turn of MT-Bench).
    messages = models.JSONField(null=True, blank=True)
    seed = models.BigIntegerField(null=True, blank=True)
    sampling = models.JSONField(null=True, blank=True, help_text="temperature, top_p, max_tokens … as sent")
    template_sha256 = models.CharField(max_length=64, blank=True)
    finish_reason = models.CharField(max_length=20, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["prompt", "source", "sample_index"], name="response_sample_once"),
            models.CheckConstraint(condition=Q(text_sha256__length=64), name="response_sha256_length"),
        ]

    def __str__(self) -> str:
        return f"response {self.pk}"


class ProjectSource(models.Model):
    """Whose responses a project holds; written by a trigger with the first response of each.

    A pair may stand here more than once: transactions that bring the same one at a time do not wait for each other.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="+")
    source = models.ForeignKey(ResponseSource, on_delete=models.CASCADE, related_name="+", db_index=False)

    def __str__(self) -> str:
        return f"source {self.source_id} of {self.project_id}"
