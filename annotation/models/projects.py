"""Projects, who works in them in which role, and what they are told to do."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from annotation.models.checks import json_object, one_of, string_list


class Project(models.Model):
    """A body of prompts judged under one set of guidelines and one protocol."""

    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=200)
    # The text in force; every version that ever was is a GuidelineVersion.
    guidelines = models.TextField(blank=True, help_text="Markdown, one key away from the annotator.")
    guideline_version = models.PositiveIntegerField(default=0, db_default=0)
    protocol = json_object(help_text="What is asked; read it with annotation.protocol.Protocol.of(project).")
    is_open = models.BooleanField(default=True, help_text="A closed project hands out no work; its data stays.")
    members = models.ManyToManyField(
        settings.AUTH_USER_MODEL, through="Membership", related_name="projects", blank=True
    )
    created_at = models.DateTimeField(default=timezone.now)

    # How many people judge a comparison: k for most, overlap_count for a random share, and up to escalate_to where
    # the first three disagree (0: never more).
    judgments_per_comparison = models.PositiveSmallIntegerField(default=1)
    overlap_share = models.FloatField(default=0.0, db_default=0.0)
    overlap_count = models.PositiveSmallIntegerField(default=3, db_default=3)
    escalate_to = models.PositiveSmallIntegerField(default=0, db_default=0)
    # One item in gold_every is gold, one in gold_every_at_first among a person's first 50; 0: none.
    gold_every = models.PositiveSmallIntegerField(default=20, db_default=20)
    gold_every_at_first = models.PositiveSmallIntegerField(default=10, db_default=10)
    repeat_share = models.FloatField(
        default=0.0, db_default=0.0, help_text="Share of a person's items that they get again with the sides swapped."
    )
    qualification_count = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="Items to judge before any work is handed out; 0: no qualification round."
    )
    qualification_pass_mark = models.FloatField(default=0.75, db_default=0.75)
    topic_batches = models.BooleanField(
        default=False, db_default=False, help_text="Serve comparisons of one topic after each other."
    )

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(judgments_per_comparison__gte=1), name="project_judgments_positive"),
            models.CheckConstraint(condition=Q(overlap_count__gte=1), name="project_overlap_positive"),
            models.CheckConstraint(
                condition=Q(overlap_share__gte=0, overlap_share__lte=1)
                & Q(repeat_share__gte=0, repeat_share__lte=1)
                & Q(qualification_pass_mark__gte=0, qualification_pass_mark__lte=1),
                name="project_shares_are_shares",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class GuidelineVersion(models.Model):
    """One wording of a project's guidelines; append-only. A judgment stores the version that was shown."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="guideline_versions")
    version = models.PositiveIntegerField()
    text = models.TextField(blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "version"], name="guidelineversion_number_once"),
        ]

    def __str__(self) -> str:
        return f"guidelines {self.version}"


class Role(models.TextChoices):
    """What a member may do; each may also do what the ones before it may."""

    ANNOTATOR = "annotator", _("annotator")
    REVIEWER = "reviewer", _("reviewer")
    ADMIN = "admin", _("admin")


class QualificationState(models.TextChoices):
    NOT_NEEDED = "not_needed", _("not needed")
    RUNNING = "running", _("in the qualification round")
    PASSED = "passed", _("passed")
    FAILED = "failed", _("failed")


class Membership(models.Model):
    """A user's place in a project."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="memberships")
    role = models.CharField(max_length=20, choices=Role, default=Role.ANNOTATOR, db_default=Role.ANNOTATOR)
    # What is routed here; an empty list means everything.
    languages = string_list()
    skills = string_list()
    qualification = models.CharField(
        max_length=20,
        choices=QualificationState,
        default=QualificationState.NOT_NEEDED,
        db_default=QualificationState.NOT_NEEDED,
    )
    qualification_tries = models.PositiveSmallIntegerField(default=0, db_default=0)
    # Counted by the claim, which puts gold items, repeats and uncertain comparisons in their places by it.
    served_count = models.PositiveIntegerField(
        default=0, db_default=0, help_text="Comparisons handed out, qualification rounds aside."
    )
    joined_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "user"], name="membership_once"),
            models.CheckConstraint(condition=one_of("role", Role), name="membership_role_known"),
            models.CheckConstraint(
                condition=one_of("qualification", QualificationState), name="membership_qualification_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} in {self.project_id} as {self.role}"


class Invitation(models.Model):
    """A link that makes whoever follows it a member. Only the sha256 of its secret is kept."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="invitations")
    role = models.CharField(max_length=20, choices=Role, default=Role.ANNOTATOR)
    email = models.EmailField(blank=True, help_text="For whom it is; nothing is sent.")
    languages = string_list()
    skills = string_list()
    token_sha256 = models.CharField(max_length=64, unique=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    accepted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    accepted_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=one_of("role", Role), name="invitation_role_known"),
            models.CheckConstraint(condition=Q(token_sha256__length=64), name="invitation_sha256_length"),
            models.CheckConstraint(
                condition=Q(accepted_by__isnull=True, accepted_at__isnull=True)
                | Q(accepted_by__isnull=False, accepted_at__isnull=False),
                name="invitation_accepted_by_somebody",
            ),
        ]

    def __str__(self) -> str:
        return f"invitation {self.pk}"


class Batch(models.Model):
    """Comparisons that came into a project together: an import, a checkpoint's first responses, a week."""

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="batches")
    name = models.CharField(max_length=200)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="batch_name_once")]

    def __str__(self) -> str:
        return self.name
