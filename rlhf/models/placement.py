"""Where a job may run, and how urgent it is."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _


class Priority(models.IntegerChoices):
    """Of jobs that wait for the same workers, the more urgent one is first, then the one that waits longer."""

    LOW = -1, _("low")
    NORMAL = 0, _("normal")
    HIGH = 1, _("high")


class Placed(models.Model):
    """What a launch asks of the workers (rlhf/services/workers.py)."""

    # Workers of the queue train.<label> take it; without one, those of the queue train.
    label = models.CharField(max_length=50, blank=True, default="", db_default="")
    gpus = models.PositiveSmallIntegerField(default=0, db_default=0, help_text="At least so many on the worker.")
    priority = models.SmallIntegerField(choices=Priority, default=Priority.NORMAL, db_default=0)

    class Meta:
        abstract = True

    @property
    def placement(self) -> dict[str, Any]:
        return {"label": self.label, "gpus": self.gpus, "priority": self.priority}


def priority_known(table: str) -> models.CheckConstraint:
    return models.CheckConstraint(condition=Q(priority__in=Priority.values), name=f"{table}_priority_known")
