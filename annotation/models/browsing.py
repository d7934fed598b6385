"""What the browse pages read: marks that can be filtered and counted, words that can be searched, and tallies.

All of it is derived. Triggers note which rows changed (`BrowseChange`), `services.refresh_browse_index` follows a few
seconds later, so that neither an import nor a vote waits for an index (docs/adr/0009).
"""

from __future__ import annotations

from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.search import SearchVectorField
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from annotation.models.comparing import Comparison
from annotation.models.projects import Project
from annotation.models.texts import Prompt


class JudgedState(models.IntegerChoices):
    """How far a comparison, or all comparisons of a prompt together, have been judged."""

    NOTHING = 0, _("nothing to judge")
    WAITING = 1, _("not judged")
    PARTLY = 2, _("partly judged")
    JUDGED = 3, _("judged")
    WITHDRAWN = 4, _("withdrawn")


def _pointer(model: type[models.Model], **options: Any) -> models.OneToOneField:
    """A primary key that is another table's, without a constraint: rows there are never deleted."""
    return models.OneToOneField(
        model, on_delete=models.DO_NOTHING, primary_key=True, db_constraint=False, related_name="+", **options
    )


def _project() -> models.ForeignKey:
    return models.ForeignKey(
        Project, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )


def _marks() -> ArrayField:
    # "task=code", "state=1", "live" …, and those that begin with @: the project and the blocks that the id lies in.
    return ArrayField(models.TextField())


class PromptEntry(models.Model):
    prompt = _pointer(Prompt)
    project = _project()
    marks = _marks()

    class Meta:
        # Without a pending list, which every reader would have to scan.
        indexes = [GinIndex(fields=["marks"], name="promptentry_marks", fastupdate=False)]

    def __str__(self) -> str:
        return f"entry of prompt {self.pk}"


class ComparisonEntry(models.Model):
    comparison = _pointer(Comparison)
    project = _project()
    state = models.PositiveSmallIntegerField(choices=JudgedState)
    marks = _marks()

    class Meta:
        indexes = [GinIndex(fields=["marks"], name="comparisonentry_marks", fastupdate=False)]

    def __str__(self) -> str:
        return f"entry of comparison {self.pk}"


class PromptWords(models.Model):
    """The words of a prompt and of every response to it."""

    prompt = _pointer(Prompt)
    vector = SearchVectorField()

    class Meta:
        indexes = [GinIndex(fields=["vector"], name="promptwords_vector")]

    def __str__(self) -> str:
        return f"words of prompt {self.pk}"


class StaleWords(models.Model):
    """A prompt whose words are still to be read."""

    prompt = _pointer(Prompt)

    def __str__(self) -> str:
        return f"prompt {self.pk} to be read"


class BrowseChange(models.Model):
    """Rows that changed and are still to be taken into the entries; written by triggers."""

    class Kind(models.IntegerChoices):
        PROMPT = 1, "prompts: marks"
        WORDS = 2, "prompts: words"
        COMPARISON = 3, "comparisons: marks"

    kind = models.PositiveSmallIntegerField(choices=Kind)
    ids = ArrayField(models.BigIntegerField())
    at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"change {self.pk}"


class Tally(models.Model):
    """How many prompts or comparisons of a project carry a mark: ("task", "code") from "task=code"."""

    class Scope(models.TextChoices):
        PROMPT = "p", "prompts"
        COMPARISON = "c", "comparisons"

    project = _project()
    scope = models.CharField(max_length=1, choices=Scope)
    dimension = models.CharField(max_length=20)
    value = models.CharField(max_length=200)
    count = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "scope", "dimension", "value"], name="tally_once"),
        ]
        indexes = [
            # the most frequent values of each dimension
            models.Index("project", "scope", "dimension", models.F("count").desc(), name="tally_largest"),
        ]

    def __str__(self) -> str:
        return f"{self.dimension} {self.value}: {self.count}"


class TallyBlock(models.Model):
    """How many of them lie in a block of 2^13 ids: a reader goes only where everything it looks for occurs."""

    project = _project()
    scope = models.CharField(max_length=1, choices=Tally.Scope)
    dimension = models.CharField(max_length=20)
    value = models.CharField(max_length=200)
    block = models.BigIntegerField()
    count = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["project", "scope", "dimension", "value", "block"], name="tallyblock_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.dimension} {self.value} in {self.block}: {self.count}"
