"""Secrets that a program uses in place of a person's password. Only their digests are stored (django-rest-knox)."""

from __future__ import annotations

from django.db import models
from knox.models import AbstractAuthToken


class ApiToken(AbstractAuthToken):
    """A token for the API, with a name by which its owner knows it again; `token_key` is its visible beginning."""

    name = models.CharField(max_length=100)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=models.Q(expiry__isnull=False), name="apitoken_expires"),
        ]

    def __str__(self) -> str:
        return self.name
