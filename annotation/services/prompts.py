"""Edits of many prompts at once, and taking the last one back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation import browse
from annotation.browse import PromptFilter
from annotation.errors import DomainError
from annotation.models import DataJob, DataJobKind, EventKind, Project, PromptBefore
from annotation.search_terms import compile_search
from annotation.services.browse_index import catch_up, refresh_browse_index
from annotation.services.data_jobs import Progress, start_data_job
from annotation.services.journal import record_event
from annotation.services.places import reorder_queue

BATCH_ROWS = 1000
AT_ONCE_UP_TO = 2000  # prompts that an edit changes while its page waits
LOCK_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class PromptEdit:
    """What an edit does to each prompt; None: leave it."""

    task: str | None = None
    lang: str | None = None
    skill: str | None = None
    topic: str | None = None
    add_tags: tuple[str, ...] = ()
    remove_tags: tuple[str, ...] = ()
    archive: bool | None = None

    @property
    def does_nothing(self) -> bool:
        return self == PromptEdit()

    def says(self) -> dict[str, Any]:
        """What it does, without what it leaves."""
        return {name: value for name, value in asdict(self).items() if value is not None and value != ()}


def start_edit(
    project: Project, edit: PromptEdit, *, ids: list[int] | None = None, given: PromptFilter | None = None, user: User
) -> DataJob:
    """Edit the prompts of these ids, or all that a filter lets through. Few are changed before this returns.

    Raises DomainError where nothing would be edited, and ConflictError while other work runs.
    """
    if edit.does_nothing:
        raise DomainError(_("Nothing is to be changed: fill in at least one field."))
    if given is not None:
        search = compile_search(given.query) if given.query else None
        if search is not None and not search.words:
            raise DomainError(_("The search has no word that can be looked for, so nothing matches it."))
        found = browse.matching_ids(project, given, search=search, limit=AT_ONCE_UP_TO + 1)
        if len(found) <= AT_ONCE_UP_TO:
            ids, given = found, None
    if given is None and not ids:
        raise DomainError(_("No prompt is chosen. Tick some, or choose all that match."))
    params = {"edit": edit.says(), **({"filter": given.params()} if given else {"ids": ids})}
    return start_data_job(project, DataJobKind.EDIT, params, user=user, total=len(ids or []), at_once=given is None)


def edit_prompts(job: DataJob, progress: Progress) -> dict[str, Any]:
    """Do a queued edit, batch by batch; what is done stays done if it is stopped, and can be taken back."""
    said: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in job.params["edit"].items()
    }
    edit = PromptEdit(**said)
    # Only the last edit can be taken back.
    PromptBefore.objects.filter(job__project=job.project).exclude(job=job).delete()
    if job.attempt > 1:
        sync_comparisons(_left_behind(job.project))
    try:
        for ids in _chosen(job, progress):
            with transaction.atomic():
                touched = _change(job, edit, ids)
            sync_comparisons(touched)
            progress.at(progress.done + len(ids))
    finally:  # also where it was stopped
        changed = PromptBefore.objects.filter(job=job).count()
        record_event(
            EventKind.EDIT, project=job.project, user=job.created_by, what="prompts", count=changed, **edit.says()
        )
    if edit.topic is not None and job.project.topic_batches:
        reorder_queue(job.project)
    refresh_browse_index(seconds=3)
    return {"changed": changed}


def _chosen(job: DataJob, progress: Progress) -> Iterator[list[int]]:
    if "ids" in job.params:
        ids = job.params["ids"]
        for start in range(0, len(ids), BATCH_ROWS):
            yield ids[start : start + BATCH_ROWS]
        return
    given = PromptFilter.of(job.params["filter"])
    search = compile_search(given.query) if given.query else None
    if not catch_up():
        raise DomainError(_("The lists are far behind what was imported. Nothing was changed; try again later."))
    # All at once: a second look would not find those again whose marks the edit has changed.
    found = browse.matching_ids(job.project, given, search=search, limit=None)
    progress.total = len(found)
    for start in range(0, len(found), BATCH_ROWS):
        yield found[start : start + BATCH_ROWS]


_CHANGE = """
WITH target AS (
    SELECT id, task, lang, skill, topic, tags, archived_at,
           coalesce(%(task)s, task) AS new_task, coalesce(%(lang)s, lang) AS new_lang,
           coalesce(%(skill)s, skill) AS new_skill, coalesce(%(topic)s, topic) AS new_topic,
           CASE WHEN %(keeps_tags)s THEN tags ELSE array(
               SELECT DISTINCT tag::varchar(60) FROM unnest(tags || %(add_tags)s::varchar[]) tag
               WHERE tag <> ALL(%(remove_tags)s::varchar[]) ORDER BY 1
           ) END AS new_tags,
           CASE %(archive)s::boolean WHEN true THEN coalesce(archived_at, %(now)s) WHEN false THEN NULL
                ELSE archived_at END AS new_archived_at
    FROM annotation_prompt WHERE project_id = %(project)s AND id = ANY(%(ids)s)
    ORDER BY id FOR NO KEY UPDATE
), changed AS (
    SELECT * FROM target
    WHERE (task, lang, skill, topic, tags, archived_at)
          IS DISTINCT FROM (new_task, new_lang, new_skill, new_topic, new_tags, new_archived_at)
), saved AS (
    INSERT INTO annotation_promptbefore (job_id, prompt_id, task, lang, skill, topic, tags, archived_at)
    SELECT %(job)s, id, task, lang, skill, topic, tags, archived_at FROM changed
    ON CONFLICT (job_id, prompt_id) DO NOTHING
)
UPDATE annotation_prompt p
SET task = new_task, lang = new_lang, skill = new_skill, topic = new_topic, tags = new_tags,
    archived_at = new_archived_at
FROM changed WHERE p.id = changed.id
RETURNING p.id
"""


def _change(job: DataJob, edit: PromptEdit, ids: list[int]) -> list[int]:
    values = asdict(edit) | {
        "add_tags": list(edit.add_tags),
        "remove_tags": list(edit.remove_tags),
        "keeps_tags": not edit.add_tags and not edit.remove_tags,
        "project": job.project_id,
        "job": job.pk,
        "ids": ids,
        "now": timezone.now(),
    }
    with connection.cursor() as cursor:
        cursor.execute(_CHANGE, values)
        return [pk for (pk,) in cursor.fetchall()]


_SYNC = """
WITH due AS (
    SELECT c.id, p.lang, p.skill, p.archived_at IS NOT NULL AS is_archived
    FROM annotation_comparison c JOIN annotation_prompt p ON p.id = c.prompt_id
    WHERE c.prompt_id = ANY(%s) AND {differs}
    ORDER BY c.id FOR NO KEY UPDATE OF c SKIP LOCKED
)
UPDATE annotation_comparison c
SET lang = due.lang, skill = due.skill,
    is_withdrawn = due.is_archived OR (c.is_withdrawn AND NOT c.withdrawn_with_prompt),
    withdrawn_with_prompt = due.is_archived AND (c.withdrawn_with_prompt OR NOT c.is_withdrawn)
FROM due WHERE c.id = due.id
"""
_DIFFERS = """
((c.lang, c.skill) IS DISTINCT FROM (p.lang, p.skill)
 OR (p.archived_at IS NOT NULL AND NOT c.is_withdrawn) OR (p.archived_at IS NULL AND c.withdrawn_with_prompt))
"""
_LEFT = """
SELECT EXISTS (SELECT FROM annotation_comparison c JOIN annotation_prompt p ON p.id = c.prompt_id
               WHERE c.prompt_id = ANY(%s) AND {differs})
"""


def sync_comparisons(prompt_ids: list[int]) -> None:
    """Give comparisons their prompts' language and skill, withdraw those of archived ones and bring others back.

    A comparison that somebody is claiming at this moment is passed over and tried again, never waited for with locks
    in hand: whoever claims may wait for one of ours.
    """
    end = time.monotonic() + LOCK_PATIENCE_SECONDS
    while prompt_ids:
        with connection.cursor() as cursor:
            cursor.execute(_SYNC.format(differs=_DIFFERS), [prompt_ids])
            cursor.execute(_LEFT.format(differs=_DIFFERS), [prompt_ids])
            if not cursor.fetchone()[0]:
                return
        if time.monotonic() > end:
            raise DomainError(_("Some comparisons stayed locked by others. Nothing is lost; do the same edit again."))
        time.sleep(0.05)


def _left_behind(project: Project) -> list[int]:
    """Prompts whose comparisons were not yet brought into line when a worker was lost."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT c.prompt_id FROM annotation_comparison c JOIN annotation_prompt p ON p.id = c.prompt_id"
            f" WHERE c.project_id = %s AND {_DIFFERS}",
            [project.pk],
        )
        return [pk for (pk,) in cursor.fetchall()]


# ── Taking it back ───────────────────────────────────────────────────────────────────────────────────────────────


def last_edit(project: Project) -> DataJob | None:
    """The project's last edit, if it can be taken back."""
    job = (
        DataJob.objects.filter(project=project, kind=DataJobKind.EDIT, finished_at__isnull=False)
        .select_related("created_by")
        .order_by("-pk")
        .first()
    )
    if job is None or job.undone_at or not PromptBefore.objects.filter(job=job).exists():
        return None
    return job


def start_undo(project: Project, *, user: User) -> DataJob:
    """Take the last edit back. Raises DomainError where there is none, and ConflictError while other work runs."""
    edit = last_edit(project)
    if edit is None:
        raise DomainError(_("There is no edit that could be taken back."))
    total = PromptBefore.objects.filter(job=edit).count()
    return start_data_job(
        project,
        DataJobKind.UNDO,
        {"edit_job": edit.pk},
        user=user,
        total=total,
        at_once=total <= AT_ONCE_UP_TO,
    )


_UNDO = """
WITH before AS (
    DELETE FROM annotation_promptbefore WHERE job_id = %s AND prompt_id = ANY(%s)
    RETURNING prompt_id, task, lang, skill, topic, tags, archived_at
)
UPDATE annotation_prompt p
SET task = before.task, lang = before.lang, skill = before.skill, topic = before.topic, tags = before.tags,
    archived_at = before.archived_at
FROM before WHERE p.id = before.prompt_id
"""


def undo_edit(job: DataJob, progress: Progress) -> dict[str, Any]:
    """Do a queued undo, batch by batch. Nothing else edits prompts, so what was before is still right."""
    edit = DataJob.objects.get(pk=job.params["edit_job"])
    if job.attempt > 1:
        sync_comparisons(_left_behind(job.project))
    restored = 0
    for ids in _changed_by(edit):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(_UNDO, [edit.pk, ids])
        sync_comparisons(ids)
        restored += len(ids)
        progress.at(progress.done + len(ids))
    DataJob.objects.filter(pk=edit.pk).update(undone_at=timezone.now())
    record_event(EventKind.EDIT, project=job.project, user=job.created_by, what="undo of prompts", count=restored)
    if "topic" in edit.params["edit"] and job.project.topic_batches:
        reorder_queue(job.project)
    refresh_browse_index(seconds=3)
    return {"changed": restored}


def _changed_by(edit: DataJob) -> Iterator[list[int]]:
    after = 0
    rows = PromptBefore.objects.filter(job=edit).order_by("prompt_id")
    while ids := list(rows.filter(prompt_id__gt=after).values_list("prompt_id", flat=True)[:BATCH_ROWS]):
        after = ids[-1]
        yield ids
