"""Parquet from COPY's binary rows: Postgres builds no JSON, and texts reach Arrow as the bytes that came."""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedIOBase
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from django.db import connection
from pyarrow import json as arrow_json

from annotation.export.kinds import Shape, Table
from annotation.importers.copying import collector_paused

BATCH_BYTES = 2 * 2**20
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_VOTES = ("chosen", "rejected", "tie", "neither")
# What psycopg reads each flat column as: texts stay bytes, which spares decoding and encoding them again.
_WIRE_TYPES = {
    Shape.INTEGER: ["int8"],
    Shape.TEXT: ["bytea"],
    Shape.PROMPT: ["bytea"],
    Shape.SAID: ["bytea"],
    Shape.TEXTS: ["text[]"],
    Shape.INTEGERS: ["int4[]"],
    Shape.INTEGER_LISTS: ["jsonb"],
    Shape.FLOAT: ["float8"],
    Shape.FLOATS: ["float8[]"],
    Shape.BOOLEAN: ["bool"],
    Shape.VOTES: ["int4"] * 4,
    Shape.SCORES: ["float8[]"],
}
_ARROW_TYPES = {
    Shape.INTEGER: pa.int64(),
    Shape.TEXT: pa.string(),
    Shape.PROMPT: _MESSAGES,
    Shape.SAID: _MESSAGES,
    Shape.TEXTS: pa.list_(pa.string()),
    Shape.INTEGERS: pa.list_(pa.int64()),
    Shape.INTEGER_LISTS: pa.list_(pa.list_(pa.int64())),
    Shape.FLOAT: pa.float64(),
    Shape.FLOATS: pa.list_(pa.float64()),
    Shape.BOOLEAN: pa.bool_(),
    Shape.VOTES: pa.struct([(name, pa.int64()) for name in _VOTES]),
}


def write_parquet(table: Table, file: IO[bytes] | BufferedIOBase) -> int:
    """Write the rows of a table, one row group a batch; gives how many."""
    scores = pa.struct([(aspect, pa.float64()) for aspect in table.aspects])
    schema = pa.schema([(name, _ARROW_TYPES.get(shape, scores)) for name, shape in table.columns])
    # Texts seldom repeat, so looking for repetitions costs more than it saves.
    options: dict[str, Any] = {"compression": "zstd", "compression_level": 1, "use_dictionary": ["group"]}
    count = 0
    with collector_paused(), pq.ParquetWriter(file, schema, **options) as writer:
        for rows in _batches(table):
            count += len(rows)
            fields = list(zip(*rows, strict=True))
            columns, at = [], 0
            for name, shape in table.columns:
                width = len(_WIRE_TYPES[shape])
                columns.append(_column(shape, fields[at : at + width], schema.field(name).type))
                at += width
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    return count


def _batches(table: Table) -> Iterator[list[tuple[Any, ...]]]:
    """Rows of a few megabytes together, however long the texts are."""
    types = [name for _, shape in table.columns for name in _WIRE_TYPES[shape]]
    connection.ensure_connection()
    with (
        connection.connection.cursor() as cursor,
        cursor.copy(f"COPY ({table.query}) TO STDOUT (FORMAT binary)") as copy,
    ):
        copy.set_types(types)
        texts = [place for place, name in enumerate(types) if name == "bytea"]
        batch: list[tuple[Any, ...]] = []
        size = 0
        for row in copy.rows():
            batch.append(row)
            size += 100 + sum(len(row[place]) for place in texts)
            if size > BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch


def _column(shape: Shape, fields: list[tuple[Any, ...]], kind: pa.DataType) -> pa.Array:
    values = fields[0]
    if shape == Shape.TEXT:
        return _texts(values)
    if shape == Shape.SAID:
        roles = pa.repeat("assistant", len(values))
        said = pa.StructArray.from_arrays([roles, _texts(values)], names=["role", "content"])
        return pa.ListArray.from_arrays(pa.array(range(len(values) + 1), pa.int32()), said)
    if shape == Shape.PROMPT:
        return _prompts(values)
    if shape == Shape.VOTES:
        return pa.StructArray.from_arrays([pa.array(field, pa.int64()) for field in fields], fields=list(kind))
    if shape == Shape.SCORES:
        empty = [None] * kind.num_fields
        by_aspect = list(zip(*(value or empty for value in values), strict=True))
        return pa.StructArray.from_arrays([pa.array(points, pa.float64()) for points in by_aspect], fields=list(kind))
    return pa.array(values, kind)


def _texts(values: tuple[bytes, ...]) -> pa.Array:
    """The database holds UTF-8 only, so nothing is checked again."""
    return pa.array(values, pa.binary()).view(pa.string())


def _prompts(values: tuple[bytes, ...]) -> pa.Array:
    """jsonb values as lists of messages; a prompt that several rows of the batch share is read once."""
    places: dict[bytes, int] = {}
    indices = [places.setdefault(bytes(value), len(places)) for value in values]
    # The first byte is the number of jsonb's format.
    lines = b"\n".join(b'{"prompt":' + value[1:] + b"}" for value in places)
    read = arrow_json.read_json(
        pa.BufferReader(lines),
        # One block: a long prompt must not straddle two, which the reader refuses.
        read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(lines) + 1),
        parse_options=arrow_json.ParseOptions(
            explicit_schema=pa.schema([("prompt", _MESSAGES)]), unexpected_field_behavior="ignore"
        ),
    )
    prompts = read["prompt"].combine_chunks()
    return prompts if len(places) == len(values) else prompts.take(pa.array(indices))
