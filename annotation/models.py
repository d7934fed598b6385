"""Tables of the annotation side: prompts, responses, who wrote them, comparisons, leases and judgments.

Rules that must hold are constraints here, so that Postgres refuses the bad row whoever writes it. Every write goes
through `services.py`. `rlhf` points at `ResponseSource`; nothing here knows about `rlhf`.
"""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Length
from django.utils import timezone

models.CharField.register_lookup(Length)  # `…__length=64` in constraints


def one_of(field: str, choices: type[models.TextChoices]) -> Q:
    """The CHECK condition that keeps a text column inside its enum."""
    return Q(**{f"{field}__in": choices.values})


class Project(models.Model):
    """A body of prompts judged under one set of guidelines, each comparison by `judgments_per_comparison` people."""

    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=200)
    guidelines = models.TextField(blank=True, help_text="Markdown, one key away from the annotator.")
    judgments_per_comparison = models.PositiveSmallIntegerField(default=1)
    is_open = models.BooleanField(default=True, help_text="A closed project hands out no work; its data stays.")
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="projects", blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(judgments_per_comparison__gte=1), name="project_judgments_positive"),
        ]

    def __str__(self) -> str:
        return self.name


class Prompt(models.Model):
    """A conversation that ends with a user turn, to which responses are written."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="prompts")
    messages = models.JSONField(help_text='[{"role", "content"} …], the last one from the user')
    # The unit that never straddles train and eval; the prompt's own hash where the data named none.
    group = models.CharField(max_length=200)
    task = models.CharField(max_length=60, blank=True)
    lang = models.CharField(max_length=20, blank=True)
    content_sha256 = models.CharField(max_length=64)
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

    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="responses")
    source = models.ForeignKey(ResponseSource, on_delete=models.PROTECT, related_name="responses")
    sample_index = models.PositiveIntegerField(help_text="0, 1, … among this source's responses to this prompt")
    text = models.TextField(blank=True)
    text_sha256 = models.CharField(max_length=64)
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


class Comparison(models.Model):
    """Two responses to one prompt, waiting for or holding judgments. Content order is (a, b); display order is not.

    That both responses answer `prompt` is checked in `services.create_comparisons` and its test: a foreign key
    cannot say it without repeating the prompt in a composite key.
    """

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="comparisons")
    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="comparisons")
    response_a = models.ForeignKey(Response, on_delete=models.PROTECT, related_name="+")
    response_b = models.ForeignKey(Response, on_delete=models.PROTECT, related_name="+")
    external_id = models.CharField(max_length=200, blank=True, help_text="The id in the imported file.")
    meta = models.JSONField(default=dict, blank=True)
    required_count = models.PositiveSmallIntegerField(default=1)
    # How many assignments hold a place. Kept on the locked row because a count subquery over-assigns under
    # concurrency; changed only together with Assignment.holds_place, in services.py.
    assigned_count = models.PositiveSmallIntegerField(default=0)
    # Spreads the queue over prompts and batches; drawn once, so that the order can be replayed.
    queue_key = models.FloatField(default=0.0)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=~Q(response_a=F("response_b")), name="comparison_responses_differ"),
            models.CheckConstraint(
                condition=Q(assigned_count__lte=F("required_count")), name="comparison_not_over_assigned"
            ),
            models.UniqueConstraint(
                fields=["response_a", "response_b"], condition=Q(external_id=""), name="comparison_pair_once"
            ),
            models.UniqueConstraint(
                fields=["project", "external_id"], condition=~Q(external_id=""), name="comparison_external_id_once"
            ),
        ]
        indexes = [
            # services.claim_assignment: the next comparison that still has room
            models.Index(
                "project",
                "queue_key",
                "id",
                condition=Q(assigned_count__lt=F("required_count")),
                name="comparison_open",
            ),
        ]

    def __str__(self) -> str:
        return f"comparison {self.pk}"


class Annotator(models.Model):
    """Somebody who judges: a user of this site, or a name that imported data gives (a person or a model)."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="annotator"
    )
    project = models.ForeignKey(Project, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    name = models.CharField(max_length=200)
    is_human = models.BooleanField(default=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(user__isnull=False, project__isnull=True) | Q(user__isnull=True, project__isnull=False),
                name="annotator_is_user_or_imported",
            ),
            models.UniqueConstraint(
                fields=["project", "name"], condition=Q(project__isnull=False), name="annotator_name_once_per_project"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class AssignmentStatus(models.TextChoices):
    LEASED = "leased", "held by the annotator until lease_expires_at"
    SUBMITTED = "submitted", "judged"
    SKIPPED = "skipped", "given back by the annotator, who will not see it again"
    EXPIRED = "expired", "the lease ran out or was released; anybody may get the comparison, a late vote still counts"


class Assignment(models.Model):
    """A lease on one comparison for one annotator, with the sides drawn once and stored."""

    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    comparison = models.ForeignKey(Comparison, on_delete=models.PROTECT, related_name="assignments")
    annotator = models.ForeignKey(Annotator, on_delete=models.PROTECT, related_name="assignments")
    status = models.CharField(max_length=20, choices=AssignmentStatus, default=AssignmentStatus.LEASED)
    # What the annotator saw is data: never drawn again.
    a_shown_on_left = models.BooleanField()
    # 0 and 1: the one on the screen and the one prefetched behind it. 2: one that was skipped and called back.
    slot = models.PositiveSmallIntegerField(default=0)
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="+")
    # Whether it fills one of its comparison's places. A late vote finds its place taken: it counts, beyond k.
    holds_place = models.BooleanField(default=True)
    skip_reason = models.CharField(max_length=40, blank=True)
    leased_at = models.DateTimeField(default=timezone.now)
    lease_expires_at = models.DateTimeField()
    submitted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=one_of("status", AssignmentStatus), name="assignment_status_known"),
            models.UniqueConstraint(fields=["comparison", "annotator"], name="assignment_once_per_annotator"),
            models.CheckConstraint(condition=Q(slot__in=[0, 1, 2]), name="assignment_slot_known"),
            models.UniqueConstraint(
                fields=["annotator", "project", "slot"],
                condition=Q(status="leased"),
                name="assignment_slot_holds_one",
            ),
            models.CheckConstraint(
                condition=Q(status="submitted", submitted_at__isnull=False)
                | (~Q(status="submitted") & Q(submitted_at__isnull=True)),
                name="assignment_submitted_has_time",
            ),
            models.CheckConstraint(
                condition=Q(status="leased", holds_place=True)
                | Q(status="submitted")
                | Q(status__in=["skipped", "expired"], holds_place=False),
                name="assignment_place_fits_status",
            ),
        ]
        indexes = [
            # services.expire_assignments
            models.Index(fields=["lease_expires_at"], condition=Q(status="leased"), name="assignment_leased"),
            # today's progress of one annotator
            models.Index(fields=["annotator", "submitted_at"], name="assignment_progress"),
        ]

    def __str__(self) -> str:
        return f"assignment {self.pk}"


class Preference(models.TextChoices):
    A = "a", "a is better"
    B = "b", "b is better"
    TIE = "tie", "about the same"
    NEITHER = "neither", "neither is acceptable"


class Judgment(models.Model):
    """One verdict. Append-only: a correction is a new row that supersedes the old one.

    `strength` is signed in content order: −3 (a much better) … 0 (about the same) … +3 (b much better). It is empty
    where the data does not grade, and where neither is acceptable.
    """

    # Made by the browser: sending the same vote twice stores it once.
    public_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    comparison = models.ForeignKey(Comparison, on_delete=models.PROTECT, related_name="judgments")
    annotator = models.ForeignKey(Annotator, on_delete=models.PROTECT, related_name="judgments")
    assignment = models.ForeignKey(
        Assignment, on_delete=models.PROTECT, related_name="judgments", null=True, blank=True
    )
    preference = models.CharField(max_length=10, choices=Preference)
    strength = models.SmallIntegerField(null=True, blank=True)
    note = models.TextField(blank=True)
    is_late = models.BooleanField(default=False, help_text="Sent after the lease had expired; counted all the same.")
    decided_in_ms = models.PositiveIntegerField(null=True, blank=True, help_text="From first paint to the vote.")
    meta = models.JSONField(default=dict, blank=True)
    supersedes = models.OneToOneField(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="superseded_by"
    )
    superseded_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(preference="a", strength__isnull=True)
                | Q(preference="a", strength__in=[-3, -2, -1])
                | Q(preference="b", strength__isnull=True)
                | Q(preference="b", strength__in=[1, 2, 3])
                | Q(preference="tie", strength__isnull=True)
                | Q(preference="tie", strength=0)
                | Q(preference="neither", strength__isnull=True),
                name="judgment_strength_fits_preference",
            ),
            models.UniqueConstraint(
                fields=["comparison", "annotator"],
                condition=Q(superseded_at__isnull=True),
                name="judgment_one_live_per_annotator",
            ),
        ]

    def __str__(self) -> str:
        return f"judgment {self.pk}"
