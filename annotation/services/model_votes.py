"""Votes by models that judge in people's stead, kept under a name that is marked as not a person's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.utils.translation import gettext as _

from annotation.errors import DomainError
from annotation.models import Annotator, Comparison, EventKind, Judgment, Project
from annotation.services.journal import record_event


@dataclass(frozen=True)
class StoredVotes:
    new: int
    already_there: int


def store_model_votes(
    project: Project, name: str, votes: Mapping[int, str], *, user: User | None = None, **facts: Any
) -> StoredVotes:
    """Store preferences (a, b, tie) by comparison, all or none; what this model said of a comparison before stands.

    facts: go into the journal. Raises DomainError where the name is a person's, or a comparison is another project's.
    """
    with transaction.atomic():
        annotator, _made = Annotator.objects.get_or_create(project=project, name=name, defaults={"is_human": False})
        if annotator.is_human:
            raise DomainError(_("%(name)s is known in this project as a person.") % {"name": name})
        before = Judgment.objects.filter(annotator=annotator).count()
        remaining = iter(votes.items())
        while chunk := list(islice(remaining, 2_000)):
            ids = [comparison for comparison, _preference in chunk]
            if Comparison.objects.filter(pk__in=ids, project=project).count() != len(ids):
                raise DomainError(_("A vote is about a comparison of another project."))
            Judgment.objects.bulk_create(
                [
                    Judgment(comparison_id=comparison, annotator=annotator, preference=preference)
                    for comparison, preference in chunk
                ],
                ignore_conflicts=True,
            )
        new = Judgment.objects.filter(annotator=annotator).count() - before
        record_event(EventKind.IMPORT, project=project, user=user, judge=name, judgments=new, **facts)
    return StoredVotes(new, len(votes) - new)
