"""Writing files, whole or not at all, at constant memory."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from django.contrib.auth.models import User
from django.db import connection, transaction
from psycopg import sql

from annotation.export.consensus import ExportError, Rules, make_consensus
from annotation.export.copying import copy_lines
from annotation.export.kinds import TABLE_KINDS, USABLE, Kind, Shape, Table
from annotation.export.records import write_records
from annotation.export.tables import make_table
from annotation.models import EventKind, Project
from annotation.services import record_event

CHUNK_BYTES = 2**20


class HashedFile(io.BufferedIOBase):
    """Writes to a file and hashes on the way: while Postgres builds the next rows, this process has nothing to do."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


@dataclass(frozen=True)
class Counted:
    """What a file would hold. `dropped`: the judged pairs that give no row (of `ranking` the rankings), by reason."""

    rows: int
    prompts: int
    dropped: dict[str, int]


@dataclass(frozen=True)
class Exported:
    """What a file holds, as Counted has it."""

    rows: int
    prompts: int
    sha256: str
    dropped: dict[str, int]


def export_preferences(
    project: Project,
    kind: str,
    out: Path,
    *,
    humans_only: bool = False,
    rules: Rules | None = None,
    axis: str = "",
    user: User | None = None,
) -> Exported:
    """Write the rows of one kind to a .jsonl or .parquet file, whole or not at all, and note it in the journal.

    axis: judge by this separate question of the protocol. user: who asked, for the journal. Must not be called inside
    a transaction: it reads from one of its own, so that rows and counts agree while people go on judging. Raises
    ExportError with a sentence; an older file of that name then stands as it was.
    """
    kind, rules = Kind(kind), rules or Rules()
    _check_name(kind, out)
    _check_rules(kind, rules, axis)
    draft = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with transaction.atomic(durable=True), connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            with draft.open("wb") as opened:
                file = HashedFile(opened)
                if kind in TABLE_KINDS:
                    make_consensus(project, humans_only=humans_only, rules=rules, axis=axis)
                    table = make_table(kind, project, humans_only=humans_only)
                    rows = write_table(table, file, is_parquet=out.suffix == ".parquet")
                    prompts, dropped = _counts(kind)
                else:
                    rows, prompts = write_records(kind, project, file, humans_only=humans_only)
                    dropped = {}
                opened.flush()
                os.fsync(opened.fileno())
            done = Exported(rows, prompts, file.sha256, dropped)
            record_event(
                EventKind.EXPORT,
                project=project,
                user=user,
                what=str(kind),
                format=out.suffix[1:],
                humans_only=humans_only,
                axis=axis,
                rules=asdict(rules),
                **asdict(done),
            )
            draft.replace(out)
    except OSError as error:
        raise ExportError(f"{out} cannot be written: {error.strerror or error}. Nothing was left there.") from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
    return done


def count_export(
    project: Project, kind: str, *, humans_only: bool = False, rules: Rules | None = None, axis: str = ""
) -> Counted:
    """What `export_preferences` would write and leave out, of the kinds that are tables. Raises ExportError as it."""
    kind, rules = Kind(kind), rules or Rules()
    _check_rules(kind, rules, axis)
    with transaction.atomic(), connection.cursor() as cursor:
        make_consensus(project, humans_only=humans_only, rules=rules, axis=axis)
        cursor.execute(f"SELECT count(*) FROM ({make_table(kind, project, humans_only=humans_only).query}) counted")
        rows = cursor.fetchone()[0]
        prompts, dropped = _counts(kind)
    return Counted(rows, prompts, dropped)


def _check_name(kind: Kind, out: Path) -> None:
    if out.suffix not in (".jsonl", ".parquet"):
        raise ExportError(f"{out.name}: the name must end in .jsonl or .parquet.")
    if kind not in TABLE_KINDS and out.suffix == ".parquet":
        raise ExportError(f"{out.name}: {kind} holds records of many shapes, so its file must end in .jsonl.")


def _check_rules(kind: Kind, rules: Rules, axis: str) -> None:
    if axis and kind not in USABLE:
        raise ExportError(f"an axis has a verdict of its own, which {kind} does not hold; leave the axis out.")
    if rules != Rules() and kind not in USABLE:
        raise ExportError(f"nothing is left out of {kind} by rules; choose dpo, reward, kto or sft, or no rules.")


def _counts(kind: Kind) -> tuple[int, dict[str, int]]:
    """(prompts that gave rows, judged pairs that gave none by reason)"""
    table = "ranked" if kind == Kind.RANKING else "consensus"
    usable = ["ranked"] if kind == Kind.RANKING else sorted(USABLE[kind])
    paired = "AND response_b_id IS NOT NULL" if kind in (Kind.DPO, Kind.REWARD) else ""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT verdict, count(*) FROM {table} GROUP BY verdict ORDER BY verdict")
        dropped = {verdict: count for verdict, count in cursor.fetchall() if verdict not in usable}
        cursor.execute(f"SELECT count(DISTINCT prompt_id) FROM {table} WHERE verdict = ANY(%s) {paired}", [usable])
        return cursor.fetchone()[0], dropped


def write_table(table: Table, file: IO[bytes] | io.BufferedIOBase, *, is_parquet: bool) -> int:
    """Write the rows of a table; gives how many. Needs the transaction that its temporary tables live in."""
    # Closed before the transaction ends: a rollback would wait for ever on a COPY that nobody reads.
    if is_parquet:
        from annotation.export.parquet import write_parquet

        return write_parquet(table, file)
    with contextlib.closing(copy_lines(json_query(table))) as lines:
        return _write_lines(lines, file)


def _write_lines(lines: Iterable[bytes], file: IO[bytes] | io.BufferedIOBase) -> int:
    count = size = 0
    chunk: list[bytes] = []
    for line in lines:
        chunk.append(line)
        count += 1
        size += len(line)
        if size > CHUNK_BYTES:
            file.write(b"".join(chunk))
            chunk, size = [], 0
    file.write(b"".join(chunk))
    return count


def json_query(table: Table) -> str:
    """A query whose columns are the values that a JSON line holds."""
    names: list[str] = []
    values = []
    for name, shape in table.columns:
        fields = [f"f{len(names) + place}" for place in range(4 if shape == Shape.VOTES else 1)]
        names += fields
        values.append(f'{_json_value(shape, fields, table.aspects)} AS "{name}"')
    return f"SELECT {', '.join(values)} FROM ({table.query}) flat ({', '.join(names)})"


def _json_value(shape: Shape, fields: list[str], aspects: tuple[str, ...]) -> str:
    field = fields[0]
    if shape == Shape.SAID:
        return f"json_build_array(json_build_object('role', 'assistant', 'content', {field}))"
    if shape == Shape.FLOAT:
        return f"{field}::numeric(7, 6)"
    if shape == Shape.FLOATS:
        return f"{field}::numeric(7, 6)[]"
    if shape == Shape.VOTES:
        return "json_build_object('chosen', {}, 'rejected', {}, 'tie', {}, 'neither', {})".format(*fields)
    if shape == Shape.SCORES:
        # Aspects are named by people and by imported files.
        pairs = [
            f"{sql.Literal(aspect).as_string(connection.connection)}, {field}[{place}]::numeric(22, 6)"
            for place, aspect in enumerate(aspects, 1)
        ]
        return f"json_build_object({', '.join(pairs)})"
    return field


def count_verdicts(project: Project, *, humans_only: bool = True, rules: Rules | None = None) -> dict[str, int]:
    """How many judged pairs came to each verdict or reason."""
    with transaction.atomic(), connection.cursor() as cursor:
        make_consensus(project, humans_only=humans_only, rules=rules)
        cursor.execute("SELECT verdict, count(*) FROM consensus GROUP BY verdict ORDER BY verdict")
        return dict(cursor.fetchall())
