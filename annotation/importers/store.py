"""Writes imported rows in bulk. Everything is found again by its content, so a second run of a file adds nothing."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from uuid import uuid4

from django.db import connection, models, transaction
from django.utils import timezone

from annotation.importers.reading import Record
from annotation.importers.rows import Row, Side, digest
from annotation.models import (
    Annotator,
    Comparison,
    Judgment,
    Project,
    Prompt,
    Response,
    ResponseSource,
    SourceKind,
)

BATCH_ROWS = 1000
# Any number that no other part of the site locks. One import at a time: two would create the same sources, and each
# could wait for the other.
IMPORT_LOCK = 7_310_001

PromptKey = tuple[str, str]  # (content_sha256, group)
ResponseKey = tuple[int, int, str, str]  # (prompt id, source id, text_sha256, digest of own messages)


@dataclass
class Imported:
    """What one run of an import did. Every row is new, or there already, or among `skipped`.

    A `skipped` entry that names an "annotator" is one verdict of a row that was otherwise used.
    """

    project: str
    format: str
    rows: int = 0
    prompts: int = 0
    responses: int = 0
    comparisons: int = 0
    judgments: int = 0
    already_there: int = 0
    skipped: list[dict[str, Any]] = field(default_factory=list)

    def skip(self, record: Record, reason: str, annotator: str = "") -> None:
        entry: dict[str, Any] = {"line": record.line, "reason": reason}
        if record.item is not None:
            entry["item"] = record.item
        if annotator:
            entry["annotator"] = annotator
        self.skipped.append(entry)


def store_rows(
    project_slug: str,
    rows: Iterable[tuple[Record, Row | None, str]],
    *,
    format_name: str,
    progress: Callable[[str], None] = lambda _: None,
) -> Imported:
    """Store (record, row, reason it has none) in one transaction: all usable rows go in, or, after an error, none."""
    done = Imported(project_slug, format_name)
    remaining = iter(rows)
    with transaction.atomic():
        _take_turn(progress)
        project, _ = Project.objects.get_or_create(slug=project_slug, defaults={"name": project_slug})
        while batch := list(islice(remaining, BATCH_ROWS)):
            usable = []
            for record, row, reason in batch:
                if row is None:
                    done.skip(record, reason)
                else:
                    usable.append((record, row))
                    for annotator, verdict_reason in row.skipped:
                        done.skip(record, verdict_reason, annotator)
            done.rows += len(batch)
            if usable:
                _Batch(project, format_name, usable, done).store()
            progress(f"{done.rows} rows read, {done.comparisons} comparisons stored")
    done.skipped.sort(key=lambda entry: (entry["line"], entry.get("item", 0)))
    return done


def _take_turn(progress: Callable[[str], None]) -> None:
    """The advisory lock of imports, held until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [IMPORT_LOCK])
        if not cursor.fetchone()[0]:
            progress("another import is running; waiting for its end")
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [IMPORT_LOCK])


class _Batch:
    """Some rows on their way into the tables, in the order that foreign keys ask for. Needs an open transaction."""

    def __init__(self, project: Project, format_name: str, rows: list[tuple[Record, Row]], done: Imported) -> None:
        self.project = project
        self.format_name = format_name
        self.rows = rows
        self.done = done
        self.now = timezone.now()

    def store(self) -> None:
        self.sources = self._sources()
        self.prompts = self._prompts()
        self.responses = self._responses()
        comparisons = self._comparisons()
        self._judgments(comparisons)

    def _sources(self) -> dict[str, int]:
        """Ids by name in the file. A model that can be asked here keeps its name to itself: the imported author of
        the same name need not be the same model."""
        names = {side.source for _, row in self.rows for side in (row.a, row.b)}
        taken = ResponseSource.objects.filter(name__in=names, kind=SourceKind.MODEL).values_list("name", flat=True)
        stored_as = {name: f"{name} (imported)" if name in set(taken) else name for name in names}
        ResponseSource.objects.bulk_create(
            [ResponseSource(name=name, kind=SourceKind.IMPORTED) for name in sorted(stored_as.values())],
            ignore_conflicts=True,
        )
        ids = dict(ResponseSource.objects.filter(name__in=stored_as.values()).values_list("name", "id"))
        return {name: ids[stored] for name, stored in stored_as.items()}

    def _prompts(self) -> dict[PromptKey, int]:
        wanted = {row.prompt_key: row for _, row in self.rows}
        found = self._found_prompts(wanted)
        new = [
            Prompt(project=self.project, messages=row.messages, group=key[1], lang=row.lang, content_sha256=key[0])
            for key, row in wanted.items()
            if key not in found
        ]
        # A prompt may be added by hand at this moment: the one that was first stands.
        Prompt.objects.bulk_create(new, ignore_conflicts=True)
        self.done.prompts += len(new)
        return self._found_prompts(wanted) if new else found

    def _found_prompts(self, keys: Iterable[PromptKey]) -> dict[PromptKey, int]:
        hashes = {sha256 for sha256, _ in keys}
        found = Prompt.objects.filter(project=self.project, content_sha256__in=hashes)
        return {(sha256, group): pk for sha256, group, pk in found.values_list("content_sha256", "group", "id")}

    def _responses(self) -> dict[ResponseKey, int]:
        """The same text by the same source to the same prompt is one response, however often it is compared."""
        ids: dict[ResponseKey, int] = {}
        samples: dict[tuple[int, int], int] = defaultdict(int)
        found = Response.objects.filter(prompt_id__in=set(self.prompts.values()))
        columns = ("id", "prompt_id", "source_id", "sample_index", "text_sha256", "messages")
        for pk, prompt, source, index, sha256, messages in found.order_by("-id").values_list(*columns):
            ids[prompt, source, sha256, "" if messages is None else digest(messages)] = pk
            samples[prompt, source] = max(samples[prompt, source], index + 1)
        new: dict[ResponseKey, tuple[Any, ...]] = {}
        for _, row in self.rows:
            for side in (row.a, row.b):
                key = self._response_key(row, side)
                if key in ids or key in new:
                    continue
                prompt, source, sha256, _ = key
                own = None if side.messages is None else json.dumps(side.messages, ensure_ascii=False)
                new[key] = (prompt, source, samples[prompt, source], side.text, sha256, own, "", "", self.now)
                samples[prompt, source] += 1
        columns = ("prompt_id", "source_id", "sample_index", "text", "text_sha256", "messages")
        stored = _copy_in(Response, (*columns, "template_sha256", "finish_reason", "created_at"), new.values())
        self.done.responses += len(new)
        return ids | dict(zip(new, stored, strict=True))

    def _response_key(self, row: Row, side: Side) -> ResponseKey:
        own = "" if side.messages is None else digest(side.messages)
        return self.prompts[row.prompt_key], self.sources[side.source], side.text_sha256, own

    def _comparisons(self) -> list[tuple[Record, Row, int]]:
        """The rows that have a comparison, with its id: new, or found by its id in the file."""
        external_ids = [row.external_id or self._derived_id(row) for _, row in self.rows]
        found = Comparison.objects.filter(project=self.project, external_id__in=external_ids)
        sides = {
            external_id: (a, b)
            for external_id, a, b in found.values_list("external_id", "response_a_id", "response_b_id")
        }
        new: dict[str, tuple[Any, ...]] = {}
        usable = []
        for (record, row), external_id in zip(self.rows, external_ids, strict=True):
            a, b = (self.responses[self._response_key(row, side)] for side in (row.a, row.b))
            if external_id not in sides:
                sides[external_id] = a, b
                prompt, meta = self.prompts[row.prompt_key], json.dumps(row.meta, ensure_ascii=False)
                places = self._required_count(row)
                new[external_id] = (
                    *(self.project.pk, prompt, a, b, external_id, meta),
                    *(places, 0, random.random(), self.now),
                )
            elif sides[external_id] == (a, b):
                self.done.already_there += 1
            else:
                self.done.skip(record, f"the id {external_id} is taken by another comparison of this project")
                continue
            usable.append((record, row, external_id))
        columns = ("project_id", "prompt_id", "response_a_id", "response_b_id", "external_id", "meta")
        _copy_in(Comparison, (*columns, "required_count", "assigned_count", "queue_key", "created_at"), new.values())
        self.done.comparisons += len(new)
        ids = dict(found.values_list("external_id", "id"))
        return [(record, row, ids[external_id]) for record, row, external_id in usable]

    def _derived_id(self, row: Row) -> str:
        sides = [(side.source, side.text, side.messages) for side in (row.a, row.b)]
        return f"{self.format_name}-{digest([row.messages, row.group, sides])[:32]}"

    def _required_count(self, row: Row) -> int:
        """Judged data asks nobody again, and equal texts leave nothing to judge."""
        return 0 if row.verdicts or row.a.text == row.b.text else self.project.judgments_per_comparison

    def _judgments(self, comparisons: list[tuple[Record, Row, int]]) -> None:
        annotators = self._annotators()
        live = Judgment.objects.filter(
            comparison__in={comparison for _, _, comparison in comparisons}, superseded_at__isnull=True
        )
        preferences = {
            (comparison, annotator): preference
            for comparison, annotator, preference in live.values_list("comparison_id", "annotator_id", "preference")
        }
        new: list[tuple[Any, ...]] = []
        for record, row, comparison in comparisons:
            for verdict in row.verdicts:
                annotator, is_human = annotators[verdict.annotator]
                key = (comparison, annotator)
                if is_human != verdict.is_human:
                    self.done.skip(record, _KIND_DIFFERS.format("person" if is_human else "model"), verdict.annotator)
                elif key in preferences:
                    if preferences[key] != verdict.preference:
                        self.done.skip(record, "judged it otherwise before; that stands", verdict.annotator)
                else:
                    preferences[key] = verdict.preference
                    meta = json.dumps(verdict.meta, ensure_ascii=False)
                    said = (str(verdict.preference), verdict.strength, verdict.note, meta)
                    new.append((uuid4(), comparison, annotator, *said, False, self.now))
        columns = ("public_id", "comparison_id", "annotator_id", "preference", "strength", "note", "meta")
        _copy_in(Judgment, (*columns, "is_late", "created_at"), new)
        self.done.judgments += len(new)

    def _annotators(self) -> dict[str, tuple[int, bool]]:
        """(id, is human) by name, within this project; the first row that names somebody says what they are."""
        kinds: dict[str, bool] = {}
        for _, row in self.rows:
            for verdict in row.verdicts:
                kinds.setdefault(verdict.annotator, verdict.is_human)
        Annotator.objects.bulk_create(
            [Annotator(project=self.project, name=name, is_human=is_human) for name, is_human in kinds.items()],
            ignore_conflicts=True,
        )
        found = Annotator.objects.filter(project=self.project, name__in=kinds)
        return {name: (pk, is_human) for name, pk, is_human in found.values_list("name", "id", "is_human")}


_KIND_DIFFERS = "is known in this project as a {}; the verdict that says otherwise is left out"


def _copy_in(model: type[models.Model], columns: tuple[str, ...], rows: Collection[tuple[Any, ...]]) -> list[int]:
    """COPY new rows into a model's table (twice as fast as bulk_create) and give their ids, in order."""
    if not rows:
        return []
    table = model._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT nextval(pg_get_serial_sequence(%s, 'id')) FROM generate_series(1, %s)", [table, len(rows)]
        )
        ids = [pk for (pk,) in cursor.fetchall()]
    command = f"COPY {table} (id, {', '.join(columns)}) FROM STDIN"
    with connection.connection.cursor() as cursor, cursor.copy(command) as copy:
        for pk, row in zip(ids, rows, strict=True):
            copy.write_row((pk, *row))
    return ids
