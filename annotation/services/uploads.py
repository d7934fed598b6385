"""Importing an uploaded table: checked as a whole first, then written as a whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.utils.translation import gettext as _

from annotation.errors import DomainError
from annotation.importers.parser_process import in_batches
from annotation.importers.reading import Record
from annotation.importers.rows import Row, Talk, UnusableRowError
from annotation.importers.store import Imported, store_rows
from annotation.models import DataJob, DataJobKind, EventKind, Project
from annotation.services.browse_index import refresh_browse_index
from annotation.services.data_jobs import Progress, start_data_job
from annotation.services.journal import record_event
from annotation.services.texts import insert_prompts
from annotation.upload_files import KeptUpload, kept_upload
from annotation.uploads import MappedRow, Table, check_mapping, map_record, open_table, parser_of

AT_ONCE_UP_TO_BYTES = 2_000_000
REFUSED_SHOWN = 100
CHUNK_ROWS = 1000


@dataclass(frozen=True)
class Reading:
    """How an upload is to be read: in a format that is known, or by what its columns mean."""

    format_name: str = ""
    mapping: dict[str, str] = field(default_factory=dict)

    def params(self) -> dict[str, Any]:
        return {"format": self.format_name, "mapping": self.mapping}

    @classmethod
    def of(cls, params: dict[str, Any]) -> Reading:
        return cls(params.get("format", ""), params.get("mapping", {}))


def start_check(project: Project, upload: KeptUpload, reading: Reading, *, user: User) -> DataJob:
    """Find out what an import would do. Raises DomainError where the columns make no rows."""
    if not reading.format_name:
        check_mapping(reading.mapping)
    params = {"token": upload.token, "name": upload.name, **reading.params()}
    return start_data_job(project, DataJobKind.CHECK, params, user=user, at_once=upload.size <= AT_ONCE_UP_TO_BYTES)


def start_import(check: DataJob, *, leave_out: bool, user: User) -> DataJob:
    """Import what was checked. leave_out: without the rows that cannot be used; otherwise there must be none."""
    if check.result.get("refused") and not leave_out:
        raise DomainError(_("Some rows cannot be used. Mend the file, or choose to leave them out."))
    upload = kept_upload(check.project, check.params["token"])
    if upload is None:
        raise DomainError(_("The uploaded file is gone: it is kept for a week. Upload it again."))
    return start_data_job(
        check.project,
        DataJobKind.IMPORT,
        check.params | {"leave_out": leave_out},
        user=user,
        total=check.result.get("rows", 0),
        at_once=upload.size <= AT_ONCE_UP_TO_BYTES,
    )


def start_import_of(project: Project, upload: KeptUpload, reading: Reading, *, leave_out: bool, user: User) -> DataJob:
    """Import without a check before it, as `start_import` does. Raises DomainError where the columns make no rows."""
    if not reading.format_name:
        check_mapping(reading.mapping)
    params = {"token": upload.token, "name": upload.name, "leave_out": leave_out, **reading.params()}
    return start_data_job(project, DataJobKind.IMPORT, params, user=user, at_once=upload.size <= AT_ONCE_UP_TO_BYTES)


@dataclass
class Outcome:
    """What an import did or would do, in rows of the file; `reasons` names the first of the refused ones."""

    rows: int = 0
    new: int = 0
    there: int = 0
    refused: int = 0
    prompts: int = 0
    comparisons: int = 0
    judgments: int = 0
    ratings: int = 0
    conversations: int = 0
    left_out_verdicts: int = 0
    reasons: list[dict[str, Any]] = field(default_factory=list)

    def refuse(self, record: Record, reason: str) -> None:
        self.refused += 1
        if len(self.reasons) < REFUSED_SHOWN:
            self.reasons.append({"line": record.line, "item": record.item, "reason": reason})


def check_upload(job: DataJob, progress: Progress) -> dict[str, Any]:
    """Do a queued check: the import itself, taken back at its end, so that the counts are those of the import."""
    with transaction.atomic():
        outcome = _import(job, progress)
        transaction.set_rollback(True)
    return vars(outcome)


def import_upload(job: DataJob, progress: Progress) -> dict[str, Any]:
    """Do a queued import, all of it or nothing."""
    with transaction.atomic():
        outcome = _import(job, progress)
        if outcome.refused and not job.params["leave_out"]:
            raise DomainError(
                _("Some rows cannot be used, so nothing was imported. Check the file, or leave them out.")
            )
    if upload := kept_upload(job.project, job.params["token"]):
        upload.delete()
    refresh_browse_index(seconds=3)
    return vars(outcome)


def _import(job: DataJob, progress: Progress) -> Outcome:
    upload = kept_upload(job.project, job.params["token"])
    if upload is None:
        raise DomainError(_("The uploaded file is gone: it is kept for a week. Upload it again."))
    table = open_table(upload.path, upload.name)
    reading = Reading.of(job.params)
    outcome = Outcome()
    rows = table.rows_or_more()
    progress.total = rows
    if reading.format_name:
        parsed = _parsed_records(table, reading.format_name, progress)
        _count_imported(outcome, _store(job, parsed, reading.format_name))
        return outcome
    check_mapping(reading.mapping)
    if "response_a" in reading.mapping:  # the prompts first, then what is compared
        progress.total = 2 * rows
    for chunk in _chunks(_mapped(table, reading, outcome, progress)):
        outcome.rows += len(chunk)
        new = insert_prompts(job.project, [vars_of(row) for row in chunk])
        outcome.prompts += new
        if chunk[0].row is None:
            outcome.new += new
            outcome.there += len(chunk) - new
    outcome.rows += outcome.refused
    if "response_a" in reading.mapping:
        # The prompts are in; refused rows were counted with them.
        stored = _store(job, _comparison_records(table, reading, progress), "table")
        outcome.new, outcome.there, outcome.comparisons = stored.comparisons, stored.already_there, stored.comparisons
        for entry in stored.skipped:
            outcome.refuse(Record(entry["line"], None, item=entry.get("item")), entry["reason"])
    else:
        record_event(
            EventKind.IMPORT,
            project=job.project,
            user=job.created_by,
            file=upload.name,
            prompts=outcome.prompts,
            already_there=outcome.there,
            skipped=outcome.refused,
        )
    return outcome


def vars_of(row: MappedRow) -> dict[str, Any]:
    """What `insert_prompts` takes."""
    names = ("messages", "group", "task", "lang", "skill", "topic", "tags")
    return {name: getattr(row, name) for name in names}


def _mapped(table: Table, reading: Reading, outcome: Outcome, progress: Progress) -> Iterator[MappedRow]:
    for number, record in enumerate(table.records(), 1):
        progress.at(number)
        if record.value is None:
            outcome.refuse(record, record.error)
            continue
        try:
            yield map_record(record.value, reading.mapping, file_name=table.name)
        except UnusableRowError as error:
            outcome.refuse(record, str(error))


def _chunks(rows: Iterator[MappedRow]) -> Iterator[list[MappedRow]]:
    while chunk := list(islice(rows, CHUNK_ROWS)):
        yield chunk


def _comparison_records(
    table: Table, reading: Reading, progress: Progress
) -> Iterator[tuple[Record, Row | None, str]]:
    for number, record in enumerate(table.records(), progress.done + 1):
        progress.at(number)
        if record.value is None:
            continue
        try:
            yield record, map_record(record.value, reading.mapping, file_name=table.name).row, ""
        except UnusableRowError:
            continue


def _parsed_records(
    table: Table, format_name: str, progress: Progress
) -> Iterator[tuple[Record, Row | Talk | None, str]]:
    parser = parser_of(format_name)
    for number, record in enumerate(table.records(), 1):
        progress.at(number)
        if record.value is None:
            yield record, None, record.error
            continue
        try:
            found = parser.parse(record.value)
        except UnusableRowError as error:
            yield record, None, str(error)
        else:
            for row in found if isinstance(found, list) else [found]:
                yield record, row, ""


def _store(job: DataJob, parsed: Iterator[tuple[Record, Row | Talk | None, str]], format_name: str) -> Imported:
    # Parsed in this process: it tells how far it is on the job's row.
    return store_rows(
        job.project.slug,
        in_batches(parsed, format_name),
        format_name=format_name,
        file_name=job.params["name"],
        user=job.created_by,
    )


def _count_imported(outcome: Outcome, done: Imported) -> None:
    outcome.rows = done.rows
    outcome.there = done.already_there
    outcome.new = done.comparisons + done.single_responses
    for name in ("prompts", "comparisons", "judgments", "ratings", "conversations"):
        setattr(outcome, name, getattr(done, name))
    for entry in done.skipped:
        if "annotator" in entry:
            outcome.left_out_verdicts += 1
        else:
            outcome.refuse(Record(entry["line"], None, item=entry.get("item")), entry["reason"])


def preview(table: Table, reading: Reading, rows: int) -> list[tuple[int, MappedRow | Row | Talk | None, str]]:
    """(line, what the row would become, why it cannot be used) of the first rows; without the database."""
    shown: list[tuple[int, MappedRow | Row | Talk | None, str]] = []
    for record in islice(table.records(), rows):
        if record.value is None:
            shown.append((record.line, None, record.error))
            continue
        try:
            if reading.format_name:
                found = parser_of(reading.format_name).parse(record.value)
                shown += [(record.line, row, "") for row in (found if isinstance(found, list) else [found])]
            else:
                shown.append((record.line, map_record(record.value, reading.mapping, file_name=table.name), ""))
        except UnusableRowError as error:
            shown.append((record.line, None, str(error)))
    return shown[:rows]
