"""The kinds of files, and the columns of those that are tables.

A table's query gives flat columns, texts as texts and prompts as jsonb. From them JSON lines are built by Postgres and
Parquet columns by Arrow, so both formats hold the same rows. `training.training_rows` builds them once more in Python.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from django.db import models
from django.utils.translation import gettext_lazy as _


class Kind(models.TextChoices):
    """What a file is for; the first four have the columns of TRL's format of that name."""

    DPO = "dpo", _("pairs for DPO")
    REWARD = "reward", _("pairs for a reward model")
    KTO = "kto", _("single responses, desirable or not")
    SFT = "sft", _("chosen responses only")
    RANKING = "ranking", _("rankings of three responses or more")
    ANNOTATIONS = "annotations", _("everything that was said, person by person")
    FEEDBACK = "feedback", _("typed feedback from conversations")
    FB_BENCH = "fb_bench", _("feedback as items of FB-Bench")


TRAINING_KINDS = (Kind.DPO, Kind.REWARD, Kind.KTO, Kind.SFT)
TABLE_KINDS = (*TRAINING_KINDS, Kind.RANKING)
"""These can be written as Parquet; the others hold records of many shapes."""
USABLE: dict[Kind, frozenset[str]] = {
    kind: frozenset({"a", "b", "neither"} if kind == Kind.KTO else {"a", "b"}) for kind in TRAINING_KINDS
}


class Shape(StrEnum):
    """How a flat column is written."""

    INTEGER = "integer"
    TEXT = "text"
    PROMPT = "prompt"
    """A jsonb list of messages."""
    SAID = "said"
    """A text, written as a list with one message of the assistant."""
    TEXTS = "texts"
    INTEGERS = "integers"
    INTEGER_LISTS = "integer_lists"
    """In jsonb."""
    FLOAT = "float"
    FLOATS = "floats"
    BOOLEAN = "boolean"
    VOTES = "votes"
    """Four integers: chosen, rejected, tie, neither."""
    SCORES = "scores"
    """A float for each aspect of the project, some of them null."""


@dataclass(frozen=True, slots=True)
class Table:
    """A kind's columns, and the query that gives them in this order."""

    columns: tuple[tuple[str, Shape], ...]
    query: str
    aspects: tuple[str, ...] = ()
