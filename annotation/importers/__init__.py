"""Reading what was said from files: `import_file` is the way in, one module per format, `placing` writes the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BufferedReader
from itertools import chain, islice
from pathlib import Path
from types import ModuleType

from django.contrib.auth.models import User

from annotation.importers import (
    conversations,
    helpsteer2,
    hh,
    oasst,
    pandalm,
    sharegpt,
    shp,
    touchstone,
    trl,
    ultrafeedback,
)
from annotation.importers.imported import Imported
from annotation.importers.parser_process import Parsed, in_batches_from_child
from annotation.importers.reading import Record, read_records
from annotation.importers.rows import UnusableRowError
from annotation.importers.store import store_rows
from annotation.services import DomainError

# In the order in which `auto` tries them: the stricter before those that it would also fit.
FORMATS: dict[str, ModuleType] = {
    "touchstone": touchstone,
    "pandalm": pandalm,
    "helpsteer2": helpsteer2,
    "ultrafeedback": ultrafeedback,
    "shp": shp,
    "oasst": oasst,
    "sharegpt": sharegpt,
    "messages": conversations,
    "hh": hh,
    "trl": trl,
}
RECORDS_TO_TELL_BY = 100


class ImportRefusedError(DomainError):
    """The file was refused whole and nothing was written; the sentence says why and what to do."""


def import_file(
    path: Path,
    project_slug: str,
    *,
    format_name: str = "auto",
    user: User | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Imported:
    """Import a file into the project of that slug, made if there is none. Raises ImportRefusedError.

    user: who asked for it, for the journal.
    """
    if format_name != "auto" and format_name not in FORMATS:
        raise ImportRefusedError(f"There is no format {format_name}; supported: auto, {', '.join(FORMATS)}.")
    try:
        with path.open("rb") as file:
            records, parser = _told_apart(file, path, format_name)
            found_format = _name_of(parser)
            return store_rows(
                project_slug,
                in_batches_from_child(_parsed(records, parser), found_format),
                format_name=found_format,
                file_name=path.name,
                user=user,
                progress=progress,
            )
    except OSError as error:
        raise ImportRefusedError(f"{path} cannot be read: {error.strerror or error}.") from error


def _told_apart(file: BufferedReader, path: Path, format_name: str) -> tuple[Iterator[Record], ModuleType]:
    """The file's records and the format that its first ones show. A wrong one is refused before any write."""
    records = read_records(file)
    head = list(islice(records, RECORDS_TO_TELL_BY))
    values = [record.value for record in head if record.value is not None]
    if not head:
        raise ImportRefusedError(f"{path} holds no rows.")
    if not values:
        first = head[0]
        raise ImportRefusedError(
            f"{path} is neither JSON Lines nor a JSON array of objects: line {first.line}: {first.error}."
        )
    wanted = FORMATS.values() if format_name == "auto" else [FORMATS[format_name]]
    for parser in wanted:
        if any(parser.recognises(value) for value in values):
            return chain(head, records), parser
    other = next((name for name, parser in FORMATS.items() if any(map(parser.recognises, values))), "")
    if format_name == "auto":
        advice = f"Its first row holds {', '.join(list(values[0])[:8]) or 'nothing'}. Supported: {', '.join(FORMATS)}."
        raise ImportRefusedError(f"{path} is in no format that is known here. {advice}")
    advice = f" It looks like the format {other}." if other else ""
    raise ImportRefusedError(
        f"{path} is not in the {format_name} format: its rows hold no {FORMATS[format_name].COLUMNS}.{advice}"
    )


def _name_of(parser: ModuleType) -> str:
    return next(name for name, module in FORMATS.items() if module is parser)


def _parsed(records: Iterator[Record], parser: ModuleType) -> Iterator[Parsed]:
    """Each record with what it was read into, once for each row of it, or with the reason why there is none."""
    for record in records:
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
