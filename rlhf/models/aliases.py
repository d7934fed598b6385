"""Names that move from checkpoint to checkpoint, such as `champion`."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from annotation.models import Project
from annotation.models.checks import json_object
from rlhf.models.checkpoints import Checkpoint


class AliasMoveQuerySet(models.QuerySet["AliasMove"]):
    def current(self) -> AliasMoveQuerySet:
        """The newest move of each alias, those that were taken away included."""
        return self.order_by("alias", "project_id", "-number").distinct("alias", "project_id")


class AliasMove(models.Model):
    """One step of an alias; the newest says what it stands for. A trigger refuses to change or delete rows.

    `number` counts the moves of one alias in one project (or on the whole site, where project is empty): of two people
    who move it at the same moment, the second is refused instead of undoing what they have not seen.
    """

    alias = models.SlugField(max_length=60)
    project = models.ForeignKey(
        Project, on_delete=models.PROTECT, null=True, blank=True, related_name="alias_moves", help_text="Empty: all."
    )
    number = models.PositiveIntegerField()
    previous = models.ForeignKey(Checkpoint, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    checkpoint = models.ForeignKey(
        Checkpoint,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="alias_moves",
        help_text="Empty: it was taken away.",
    )
    why = models.TextField()
    # What a gate found at that moment (rlhf/promotion.py): {"champion", "criteria": […]}; empty where none stood.
    gate = json_object()
    despite_gate = models.BooleanField(
        default=False, db_default=False, help_text="It moved although the gate was not passed; `why` says why."
    )
    moved_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True)
    moved_at = models.DateTimeField(default=timezone.now)

    objects = AliasMoveQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["alias", "project", "number"], nulls_distinct=False, name="aliasmove_one_after_the_other"
            ),
            models.CheckConstraint(condition=~Q(why=""), name="aliasmove_says_why"),
            models.CheckConstraint(
                condition=Q(despite_gate=False) | ~Q(gate={}), name="aliasmove_despite_a_gate_keeps_its_figures"
            ),
            models.CheckConstraint(
                condition=Q(previous__isnull=True, checkpoint__isnull=False)
                | Q(previous__isnull=False, checkpoint__isnull=True)
                | (Q(previous__isnull=False) & ~Q(previous=F("checkpoint"))),
                name="aliasmove_moves",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.project.slug}/{self.alias}" if self.project else self.alias
