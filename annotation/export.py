"""From judgments to training rows: the consensus of each comparison, and files that TRL loads unchanged.

The consensus is defined once, in `_JUDGED`, and everything that needs it reads that query: the exported files, the
rows that snapshots are made of, and the counts. Postgres builds the JSON of an exported file itself, so a row never
becomes a Python object and memory does not grow with the number of rows.

The verdict of a comparison is the answer (a, b, tie or neither) that got more live judgments than each other answer.
It gives training rows where it is a side; otherwise the comparison is dropped, and counted, for one of these reasons:

- `tie`, `neither`: that answer got the most judgments (kto uses neither: both responses are undesirable);
- `no_majority`: two answers share the first place;
- `different_histories`: the two responses answer different conversations, so they share no prompt;
- `identical_responses`: the two texts are equal, whatever was said of them;
- `empty`: the response that would be chosen is blank.

A judgment is live until another supersedes it. With `humans_only`, judgments by models are left out everywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from django.db import connection, models, transaction

from annotation.models import Project
from annotation.services import DomainError

if TYPE_CHECKING:
    import pyarrow


class Kind(models.TextChoices):
    """What a file is for; each has the columns of TRL's format of that name."""

    DPO = "dpo", "pairs for DPO"
    REWARD = "reward", "pairs for a reward model"
    KTO = "kto", "single responses, desirable or not"
    SFT = "sft", "chosen responses only"


class ExportError(DomainError):
    """A file that cannot be written; the sentence says why and what to do."""


# One narrow row per comparison with a live judgment. The blank test names its characters because Postgres and Python
# disagree about what else is white space.
_JUDGED = """
    SELECT c.id, c.prompt_id, c.response_a_id, c.response_b_id, v.a, v.b, v.tie, v.neither, v.mean_strength,
           CASE
               WHEN ra.messages IS DISTINCT FROM rb.messages THEN 'different_histories'
               WHEN v.tie > greatest(v.a, v.b, v.neither) THEN 'tie'
               WHEN v.neither > greatest(v.a, v.b, v.tie) THEN 'neither'
               WHEN v.a <= greatest(v.b, v.tie, v.neither) AND v.b <= greatest(v.a, v.tie, v.neither)
                   THEN 'no_majority'
               WHEN ra.text_sha256 = rb.text_sha256 THEN 'identical_responses'
               WHEN btrim(CASE WHEN v.a > v.b THEN ra.text ELSE rb.text END, E' \\t\\n\\r\\f\\v') = '' THEN 'empty'
               WHEN v.a > v.b THEN 'a'
               ELSE 'b'
           END AS verdict
      FROM annotation_comparison c
      JOIN (SELECT j.comparison_id,
                   count(*) FILTER (WHERE j.preference = 'a') AS a,
                   count(*) FILTER (WHERE j.preference = 'b') AS b,
                   count(*) FILTER (WHERE j.preference = 'tie') AS tie,
                   count(*) FILTER (WHERE j.preference = 'neither') AS neither,
                   round(avg(j.strength), 6)::float8 AS mean_strength
              FROM annotation_judgment j
              JOIN annotation_annotator n ON n.id = j.annotator_id
              JOIN annotation_comparison mine ON mine.id = j.comparison_id
             WHERE j.superseded_at IS NULL AND mine.project_id = %(project)s AND (n.is_human OR NOT %(humans_only)s)
             GROUP BY j.comparison_id) v ON v.comparison_id = c.id
      JOIN annotation_response ra ON ra.id = c.response_a_id
      JOIN annotation_response rb ON rb.id = c.response_b_id
"""

# The queries of a file read the consensus from a temporary table. Long texts are looked up last, row by row in order
# of id: a plain join would sort them all, through files.
_RESPONSE = """(SELECT json_build_array(json_build_object('role', 'assistant', 'content', r.text))
                  FROM annotation_response r WHERE r.id = {id})"""
_PROMPT = """
    CROSS JOIN LATERAL (SELECT p."group", coalesce(r.messages, p.messages) AS prompt
                          FROM annotation_prompt p, annotation_response r
                         WHERE p.id = judged.prompt_id AND r.id = judged.response_a_id OFFSET 0) history
"""
_CHOSEN_ID = "CASE verdict WHEN 'a' THEN response_a_id ELSE response_b_id END"
_REJECTED_ID = "CASE verdict WHEN 'a' THEN response_b_id ELSE response_a_id END"
# `strength` is 0 where nobody graded, and always has decimals: readers of JSON Lines, the `datasets` library among
# them, take a column's type from the file's first rows and refuse the file where it later turns out otherwise.
_PAIRS = f"""
    SELECT id, "group", prompt, {_RESPONSE.format(id=_CHOSEN_ID)} AS chosen,
           {_RESPONSE.format(id=_REJECTED_ID)} AS rejected, coalesce(abs(mean_strength), 0)::numeric(7, 6) AS strength,
           json_build_object('chosen', greatest(a, b), 'rejected', least(a, b), 'tie', tie, 'neither', neither)
               AS votes
      FROM (SELECT * FROM consensus WHERE verdict IN ('a', 'b') ORDER BY id) judged {_PROMPT} ORDER BY id
"""
# The columns of each kind, named as TRL names them; `training_rows` builds the same rows in Python.
_ROWS = {
    Kind.DPO: _PAIRS,
    Kind.REWARD: _PAIRS,
    Kind.KTO: f"""
        SELECT id, "group", prompt,
               {_RESPONSE.format(id="CASE side WHEN 'a' THEN response_a_id ELSE response_b_id END")} AS completion,
               verdict = side AS label
          FROM (SELECT consensus.*, side FROM consensus CROSS JOIN (VALUES ('a'), ('b')) sides (side)
                 WHERE verdict IN ('a', 'b', 'neither') ORDER BY id, side) judged {_PROMPT} ORDER BY id, side
    """,
    Kind.SFT: f"""
        SELECT id, "group", prompt, {_RESPONSE.format(id=_CHOSEN_ID)} AS completion
          FROM (SELECT * FROM (
                    SELECT DISTINCT ON (consensus.prompt_id, chosen.text_sha256) consensus.*
                      FROM consensus JOIN annotation_response chosen ON chosen.id = {_CHOSEN_ID}
                     WHERE verdict IN ('a', 'b') ORDER BY consensus.prompt_id, chosen.text_sha256, consensus.id
                ) once ORDER BY id) judged {_PROMPT} ORDER BY id
    """,
}
_USABLE = {kind: {"a", "b"} | ({"neither"} if kind == Kind.KTO else set()) for kind in Kind}


@dataclass(frozen=True)
class Exported:
    """What a file holds: `dropped` counts the judged comparisons that gave no row, by reason."""

    rows: int
    prompts: int
    sha256: str
    dropped: dict[str, int]


def judged_rows(project: Project, *, humans_only: bool = True) -> Iterator[dict[str, Any]]:
    """Every comparison with a live judgment, in order of id, as one statement sees them.

    `{"id", "group", "prompt_id", "prompt": [messages], "a": {"source", "text"}, "b": {…},
    "votes": {"a", "b", "tie", "neither"}, "mean_strength": float | None, "verdict": "a" | "b" | a reason}`.
    Streams through a server-side cursor: a transaction stays open until the iterator ends or is closed.
    """
    sql = f"""
        SELECT j.id, p."group", p.id, coalesce(ra.messages, p.messages), sa.name, ra.text, sb.name, rb.text,
               j.a, j.b, j.tie, j.neither, j.mean_strength, j.verdict
          FROM ({_JUDGED}) j
          JOIN annotation_prompt p ON p.id = j.prompt_id
          JOIN annotation_response ra ON ra.id = j.response_a_id
          JOIN annotation_response rb ON rb.id = j.response_b_id
          JOIN annotation_responsesource sa ON sa.id = ra.source_id
          JOIN annotation_responsesource sb ON sb.id = rb.source_id
         ORDER BY j.id
    """
    with transaction.atomic(), connection.chunked_cursor() as cursor:
        cursor.execute(sql, {"project": project.pk, "humans_only": humans_only})
        while rows := cursor.fetchmany(1000):
            for row in rows:
                yield {
                    "id": row[0],
                    "group": row[1],
                    "prompt_id": row[2],
                    "prompt": json.loads(row[3]),
                    "a": {"source": row[4], "text": row[5]},
                    "b": {"source": row[6], "text": row[7]},
                    "votes": {"a": row[8], "b": row[9], "tie": row[10], "neither": row[11]},
                    "mean_strength": row[12],
                    "verdict": row[13],
                }


def training_rows(kind: str, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows of `judged_rows` as TRL rows of one kind; the same as an exported file holds.

    For sft, a response that several comparisons chose is given once, so pass all rows of a file in one call.
    """
    seen: set[tuple[int, bytes]] = set()
    for row in rows:
        verdict, votes = row["verdict"], row["votes"]
        if verdict not in _USABLE[Kind(kind)]:
            continue
        common = {"id": row["id"], "group": row["group"], "prompt": row["prompt"]}
        if kind == Kind.KTO:
            for side in ("a", "b"):
                yield {**common, "completion": _assistant(row[side]["text"]), "label": verdict == side}
            continue
        chosen, rejected = ("a", "b") if verdict == "a" else ("b", "a")
        text = row[chosen]["text"]
        if kind == Kind.SFT:
            key = (row["prompt_id"], hashlib.sha256(text.encode()).digest())
            if key not in seen:
                seen.add(key)
                yield {**common, "completion": _assistant(text)}
            continue
        yield {
            **common,
            "chosen": _assistant(text),
            "rejected": _assistant(row[rejected]["text"]),
            "strength": abs(row["mean_strength"] or 0.0),
            "votes": {
                "chosen": votes[chosen],
                "rejected": votes[rejected],
                "tie": votes["tie"],
                "neither": votes["neither"],
            },
        }


def _assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def count_verdicts(project: Project, *, humans_only: bool = True) -> dict[str, int]:
    """How many judged comparisons came to each verdict or reason."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT verdict, count(*) FROM ({_JUDGED}) judged GROUP BY verdict ORDER BY verdict",
            {"project": project.pk, "humans_only": humans_only},
        )
        return dict(cursor.fetchall())


def export_preferences(project: Project, kind: str, out: Path, *, humans_only: bool = False) -> Exported:
    """Write the training rows of one kind to a .jsonl or .parquet file, whole or not at all.

    Must not be called inside a transaction: it reads from one of its own, so that rows and counts agree while people
    go on judging. Raises ExportError with a sentence; an older file of that name then stands as it was.
    """
    kind = Kind(kind)
    if out.suffix not in (".jsonl", ".parquet"):
        raise ExportError(f"{out.name}: the name must end in .jsonl or .parquet.")
    draft = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with transaction.atomic(durable=True), connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            _make_consensus(project, humans_only=humans_only)
            # Closed before the transaction ends: a rollback would wait for ever on a COPY that nobody reads.
            with draft.open("wb") as file, contextlib.closing(_copy_lines(_ROWS[kind])) as lines:
                rows = _write_jsonl(lines, file) if out.suffix == ".jsonl" else _write_parquet(lines, file, kind)
                file.flush()
                os.fsync(file.fileno())
            cursor.execute("SELECT verdict, count(*) FROM consensus GROUP BY verdict ORDER BY verdict")
            dropped = {verdict: count for verdict, count in cursor.fetchall() if verdict not in _USABLE[kind]}
            usable = sorted(_USABLE[kind])
            cursor.execute("SELECT count(DISTINCT prompt_id) FROM consensus WHERE verdict = ANY(%s)", [usable])
            prompts = cursor.fetchone()[0]
        with draft.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        draft.replace(out)
    except OSError as error:
        raise ExportError(f"{out} cannot be written: {error.strerror or error}. Nothing was left there.") from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
    return Exported(rows, prompts, sha256, dropped)


def _make_consensus(project: Project, *, humans_only: bool) -> None:
    """Put the consensus into a temporary table that lives as long as the transaction."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TEMPORARY TABLE consensus ON COMMIT DROP AS {_JUDGED}",
            {"project": project.pk, "humans_only": humans_only},
        )


def _copy_lines(sql: str) -> Generator[bytes]:
    """The query's rows as JSON lines, built by Postgres.

    COPY's text format doubles backslashes; csv leaves the line alone if JSON cannot hold its quote and delimiter.
    """
    copy = f"COPY (SELECT row_to_json(r) FROM ({sql}) r) TO STDOUT (FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02')"
    connection.ensure_connection()
    with connection.connection.cursor() as cursor, cursor.copy(copy) as rows:
        for row in rows:
            yield bytes(row)


def _write_jsonl(lines: Iterable[bytes], file: IO[bytes]) -> int:
    count = 0
    for line in lines:
        file.write(line)
        count += 1
    return count


_PARQUET_BATCH_BYTES = 8 * 2**20


def _write_parquet(lines: Iterable[bytes], file: IO[bytes], kind: Kind) -> int:
    """Parquet from the same JSON lines, so that both formats hold the same rows; one row group per batch."""
    import pyarrow.parquet as pq

    schema = _parquet_schema(kind)
    count = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        batch = io.BytesIO()
        for line in lines:
            batch.write(line)
            count += 1
            if batch.tell() >= _PARQUET_BATCH_BYTES:
                writer.write_table(_read_batch(batch, schema))
                batch = io.BytesIO()
        if batch.tell():
            writer.write_table(_read_batch(batch, schema))
    return count


def _read_batch(batch: io.BytesIO, schema: pyarrow.Schema) -> pyarrow.Table:
    import pyarrow
    from pyarrow import json as arrow_json

    size = batch.tell()
    return arrow_json.read_json(
        pyarrow.BufferReader(batch.getbuffer()),
        # One block: a long row must not straddle two, which the reader refuses.
        read_options=arrow_json.ReadOptions(use_threads=False, block_size=size + 1),
        parse_options=arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )


def _parquet_schema(kind: Kind) -> pyarrow.Schema:
    import pyarrow as pa

    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    common = [("id", pa.int64()), ("group", pa.string()), ("prompt", messages)]
    if kind == Kind.SFT:
        return pa.schema([*common, ("completion", messages)])
    if kind == Kind.KTO:
        return pa.schema([*common, ("completion", messages), ("label", pa.bool_())])
    votes = pa.struct([(name, pa.int64()) for name in ("chosen", "rejected", "tie", "neither")])
    return pa.schema(
        [*common, ("chosen", messages), ("rejected", messages), ("strength", pa.float64()), ("votes", votes)]
    )
