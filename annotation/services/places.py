"""How many people a new comparison is for, and its place in the queue."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import Any

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils.translation import gettext as _

from annotation.errors import DomainError
from annotation.models import Comparison, EventKind, Project, Prompt, QueueTier, Response
from annotation.services.journal import record_event

_TOPIC_PLACES = 2**24
"""Topics that land on the same one of these places of the queue (of a hundred, one time in 3,400) mix."""


def draw_required_count(project: Project) -> int:
    """The project's k, or its overlap_count for a random share, on which agreement is measured."""
    k = project.judgments_per_comparison
    return max(k, project.overlap_count) if random.random() < project.overlap_share else k


def draw_queue_key(project: Project, topic: str) -> float:
    """A place in the queue, 0 … 1: random, or among those of one topic where the project serves topic by topic."""
    if not (project.topic_batches and topic):
        return random.random()
    return (_topic_place(project.pk, topic) + random.random()) / _TOPIC_PLACES


def _topic_place(project_id: int, topic: str) -> int:
    digest = hashlib.sha256(f"{project_id} {topic}".encode()).digest()
    return int.from_bytes(digest[:3])


_REORDER = """
UPDATE annotation_comparison c
SET queue_key = CASE WHEN topics.place IS NULL THEN random() ELSE (topics.place + random()) / %(places)s END
FROM annotation_prompt q LEFT JOIN unnest(%(topics)s::text[], %(at)s::int[]) AS topics (topic, place)
    ON topics.topic = q.topic
WHERE c.project_id = %(project)s AND c.prompt_id = q.id AND c.assigned_count < c.required_count
"""


def reorder_queue(project: Project) -> None:
    """Draw the places of a project's open comparisons again, as after topic_batches was switched or topics changed."""
    topics = []
    if project.topic_batches:
        topics = list(project.prompts.exclude(topic="").order_by("topic").values_list("topic", flat=True).distinct())
    values: dict[str, Any] = {
        "project": project.pk,
        "places": float(_TOPIC_PLACES),
        "topics": topics,
        "at": [_topic_place(project.pk, topic) for topic in topics],
    }
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_REORDER, values)


_UNCERTAIN = """
UPDATE annotation_comparison c
SET uncertainty = found.value, tier = CASE WHEN c.tier = %(partly)s THEN c.tier
                                           WHEN found.value >= %(at_least)s THEN %(uncertain)s ELSE %(new)s END
FROM unnest(%(ids)s::bigint[], %(values)s::float8[]) AS found (id, value)
WHERE c.id = found.id AND c.project_id = %(project)s
"""


def set_uncertainties(
    project: Project,
    uncertainties: Mapping[int, float],
    *,
    at_least: float = 0.8,
    by: User | None = None,
    reward_model: str = "",
) -> int:
    """Say how unsure a reward model is about comparisons, by id, 0 … 1; gives how many the project has of them.

    Those from `at_least` on are handed out before other new ones, at every other of a person's items at most. Raises
    DomainError for a value outside.
    """
    for comparison_id, value in uncertainties.items():
        if not 0 <= value <= 1:
            raise DomainError(
                _("Comparison %(id)s has an uncertainty of %(value)s, not one from 0 to 1. Nothing was changed.")
                % {"id": comparison_id, "value": value}
            )
    values: dict[str, Any] = {
        "project": project.pk,
        "ids": list(uncertainties),
        "values": list(uncertainties.values()),
        "at_least": at_least,
        "partly": QueueTier.PARTLY_JUDGED,
        "uncertain": QueueTier.UNCERTAIN,
        "new": QueueTier.NEW,
    }
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_UNCERTAIN, values)
        known = cursor.rowcount
        said: dict[str, Any] = {"reward_model": reward_model} if reward_model else {}
        record_event(EventKind.EDIT, project=project, user=by, action="uncertainties", comparisons=known, **said)
    return known


def comparison_of(
    project: Project, prompt: Prompt, responses: Sequence[Response], *, external_id: str = ""
) -> Comparison:
    """An unsaved comparison of two or more responses with its places, and with copies of what routes it.

    One of an archived prompt waits for the prompt to come back.
    """
    is_archived = prompt.archived_at is not None
    return Comparison(
        is_withdrawn=is_archived,
        withdrawn_with_prompt=is_archived,
        project=project,
        prompt=prompt,
        response_a=responses[0],
        response_b=responses[1],
        response_count=len(responses),
        external_id=external_id,
        lang=prompt.lang,
        skill=prompt.skill,
        written_by=sorted({response.author_id for response in responses if response.author_id}) or None,
        required_count=draw_required_count(project),
        queue_key=draw_queue_key(project, prompt.topic),
    )
