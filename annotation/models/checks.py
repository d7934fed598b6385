"""What several tables' constraints need."""

from __future__ import annotations

from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q, Value
from django.db.models.functions import Length

models.CharField.register_lookup(Length)  # `…__length=64` in constraints


def one_of(field: str, choices: type[models.TextChoices]) -> Q:
    """The CHECK condition that keeps a text column inside its enum."""
    return Q(**{f"{field}__in": choices.values})


def string_list(max_length: int = 60, **options: Any) -> ArrayField:
    """A list of short strings, empty where nothing is said."""
    base = models.CharField(max_length=max_length)
    return ArrayField(base, default=list, db_default=Value([], output_field=ArrayField(base)), blank=True, **options)


def json_object(**options: Any) -> models.JSONField:
    """A JSON object, empty where nothing is said."""
    return models.JSONField(default=dict, db_default=Value({}, output_field=models.JSONField()), blank=True, **options)
