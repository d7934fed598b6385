"""Looking for prompts that read alike and for comparisons of responses that do, and keeping one of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils.translation import gettext as _

from annotation.duplicates import find_alike, passages, similarity
from annotation.errors import DomainError
from annotation.models import (
    BrowseChange,
    Comparison,
    DataJob,
    DataJobKind,
    Duplicate,
    Project,
    Prompt,
    SimilarResponses,
)
from annotation.services.browse_index import refresh_browse_index
from annotation.services.data_jobs import Progress, start_data_job
from annotation.services.prompts import PromptEdit, start_edit

AT_ONCE_UP_TO = 1000  # prompts and comparisons that are looked through while the page waits
RESPONSES_ALIKE = 0.9
CHUNK_ROWS = 2000


def start_search(project: Project, *, user: User) -> DataJob:
    """Look for duplicates among everything that is not archived. Raises ConflictError while other work runs."""
    few = AT_ONCE_UP_TO + 1
    counts = (
        Prompt.objects.filter(project=project)[:few].count(),
        Comparison.objects.filter(project=project)[:few].count(),
    )
    return start_data_job(project, DataJobKind.DUPLICATES, {}, user=user, at_once=max(counts) < few)


def find_duplicates(job: DataJob, progress: Progress) -> dict[str, Any]:
    """Do a queued search; what the last one found stands until this one is through."""
    project = job.project
    prompts = Prompt.objects.filter(project=project, archived_at=None).order_by("id")
    comparisons = Comparison.objects.filter(project=project, is_withdrawn=False)
    prompt_count = prompts.count()
    progress.total = prompt_count + comparisons.count()
    found = [
        Duplicate(prompt_id=pk, project=project, like_id=like, similarity=int(100 * share))
        for pk, like, share in find_alike(
            ((pk, _text(messages)) for pk, messages in prompts.values_list("id", "messages").iterator(CHUNK_ROWS)),
            lambda ids: {
                pk: _text(messages) for pk, messages in Prompt.objects.filter(pk__in=ids).values_list("id", "messages")
            },
            progress=progress.at,
        )
    ]
    similar = [
        SimilarResponses(comparison_id=pk, similarity=int(100 * share))
        for pk, share in _similar_responses(project, prompt_count, progress)
    ]
    with transaction.atomic():
        Duplicate.objects.filter(project=project).delete()
        Duplicate.objects.bulk_create(found, batch_size=CHUNK_ROWS)
        before = SimilarResponses.objects.filter(comparison__project=project)
        changed = {row.pk for row in similar} ^ set(before.values_list("pk", flat=True))
        before.delete()
        SimilarResponses.objects.bulk_create(similar, batch_size=CHUNK_ROWS)
        for start in range(0, len(changed), CHUNK_ROWS):
            BrowseChange.objects.create(
                kind=BrowseChange.Kind.COMPARISON, ids=sorted(changed)[start : start + CHUNK_ROWS]
            )
    refresh_browse_index(seconds=3)
    return {"prompts": prompt_count, "duplicates": len(found), "similar_responses": len(similar)}


def _text(messages: list[dict[str, str]]) -> str:
    return "\n".join(message["content"] for message in messages)


_PAIRS = """
SELECT c.id, ra.text_sha256 = rb.text_sha256, ra.text, rb.text
FROM annotation_comparison c
JOIN annotation_response ra ON ra.id = c.response_a_id
JOIN annotation_response rb ON rb.id = c.response_b_id
WHERE c.id = ANY(%s)
  -- What differs more than this in length cannot be alike.
  AND least(length(ra.text), length(rb.text)) >= 0.8 * greatest(length(ra.text), length(rb.text))
"""


def _similar_responses(project: Project, done: int, progress: Progress) -> Iterator[tuple[int, float]]:
    """(comparison, similarity) where the two responses read nearly the same."""
    after = 0
    comparisons = Comparison.objects.filter(project=project, is_withdrawn=False).order_by("id")
    while ids := list(comparisons.filter(pk__gt=after).values_list("pk", flat=True)[:CHUNK_ROWS]):
        after = ids[-1]
        with connection.cursor() as cursor:
            cursor.execute(_PAIRS, [ids])
            for pk, is_same, a, b in cursor.fetchall():
                share = 1.0 if is_same else similarity(passages(a), passages(b))
                if share >= RESPONSES_ALIKE:
                    yield pk, share
        done += len(ids)
        progress.at(done)


def keep_one(project: Project, like_id: int, keep_id: int, *, user: User) -> DataJob:
    """Archive a group of duplicates except one. Raises DomainError where there is no such group any more."""
    group = Duplicate.objects.filter(project=project, like=like_id)
    ids = {like_id, *group.values_list("prompt_id", flat=True)}
    if len(ids) < 2 or keep_id not in ids:
        raise DomainError(_("This group has changed since the page was opened. Nothing was archived; look again."))
    job = start_edit(project, PromptEdit(archive=True), ids=sorted(ids - {keep_id}), user=user)
    group.delete()
    return job


def keep_oldest(project: Project, *, at_least: int, user: User) -> DataJob:
    """Archive every duplicate that is so many percent like the oldest of its group."""
    found = Duplicate.objects.filter(project=project, similarity__gte=at_least, prompt__archived_at=None)
    ids = list(found.order_by("prompt_id").values_list("prompt_id", flat=True))
    if not ids:
        raise DomainError(_("No prompt is that much like an older one. Nothing was archived."))
    job = start_edit(project, PromptEdit(archive=True), ids=ids, user=user)
    found.filter(pk__in=ids).delete()
    return job
