"""The journal: what happened, in order, never changed."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from annotation.models.checks import json_object, one_of
from annotation.models.projects import Project


class EventKind(models.TextChoices):
    VIEW = "view", _("a comparison was shown")
    VOTE = "vote", _("a verdict was given")
    CHANGE = "change", _("a verdict was replaced")
    SKIP = "skip", _("a comparison was given back")
    UNDO = "undo", _("an earlier comparison was called back")
    FLAG = "flag", _("a comparison was flagged")
    LEASE = "lease", _("a comparison was handed out")
    EXPIRE = "expire", _("a lease ran out or was released")
    ADJUDICATE = "adjudicate", _("a reviewer settled a comparison")
    EXPORT = "export", _("a file or data set was made")
    IMPORT = "import", _("a file was read")
    MEMBER = "member", _("somebody's place in a project changed")
    SETTINGS = "settings", _("a project's settings, protocol or guidelines changed")
    EDIT = "edit", _("prompts, responses or gold items were changed")
    SIGN_IN = "sign_in", _("somebody signed in or out, or was locked out")
    TOKEN = "token", _("an API token or webhook was made or withdrawn")
    CONVERSE = "converse", _("a conversation's turn, pick or feedback")


RARE_KINDS = (
    EventKind.FLAG,
    EventKind.ADJUDICATE,
    EventKind.EXPORT,
    EventKind.IMPORT,
    EventKind.MEMBER,
    EventKind.SETTINGS,
    EventKind.EDIT,
    EventKind.SIGN_IN,
    EventKind.TOKEN,
)
"""What does not come with every vote."""


class Event(models.Model):
    """One thing that happened. A trigger refuses to change or delete rows, whoever asks.

    Foreign keys carry no database constraint: an insert on the vote's path must cost as little as it can, and what
    they point at is never deleted.
    """

    at = models.DateTimeField(db_default=Now())
    client_at = models.DateTimeField(null=True, blank=True, help_text="The browser's clock, where it said.")
    kind = models.CharField(max_length=20, choices=EventKind)
    project = models.ForeignKey(
        Project,
        on_delete=models.DO_NOTHING,
        null=True,
        blank=True,
        related_name="+",
        db_constraint=False,
        db_index=False,
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.DO_NOTHING,
        null=True,
        blank=True,
        related_name="+",
        db_constraint=False,
        db_index=False,
    )
    comparison_id = models.BigIntegerField(null=True, blank=True)
    assignment_id = models.BigIntegerField(null=True, blank=True)
    data = json_object(help_text="What else there is to know; never a text that a model or a person wrote.")

    class Meta:
        constraints = [models.CheckConstraint(condition=one_of("kind", EventKind), name="event_kind_known")]
        indexes = [
            # the journal page of a project, newest first
            models.Index(fields=["project", "-id"], name="event_of_project"),
            # … of one person
            models.Index(fields=["user", "-id"], name="event_of_user"),
            # … of one kind, where that kind is so rare that the index above would be searched for long
            models.Index(fields=["project", "kind", "-id"], condition=Q(kind__in=RARE_KINDS), name="event_rare"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"
