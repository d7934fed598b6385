"""Tables that somebody uploads: telling what a file is, reading it row by row, and what its columns mean.

Whatever is wrong is said with the line it is in. Rows are read one at a time, so a file of any length takes little
memory.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from django.db import models
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.errors import DomainError
from annotation.importers import FORMATS
from annotation.importers.reading import MAX_RECORD_BYTES, Record, read_records
from annotation.importers.rows import (
    Messages,
    Row,
    Side,
    UnusableRowError,
    checked_messages,
    checked_name,
    checked_tags,
    checked_text,
    said_by_user,
)

HEAD_ROWS = 100  # by which the columns and the format are told
PREVIEW_ROWS = 20
MAX_PROMPT_CHARS = 100_000
MAX_COLUMNS = 500
MAX_UNPACKED_BYTES = 20 * 10**9  # a Parquet file of a few megabytes can claim to hold anything


class UploadRefusedError(DomainError):
    """The file cannot be used; the sentence says where it fails and what to do."""


class FileKind(models.TextChoices):
    JSONL = "jsonl", gettext_lazy("JSON Lines")
    JSON = "json", gettext_lazy("JSON array")
    CSV = "csv", gettext_lazy("CSV")
    TSV = "tsv", gettext_lazy("TSV")
    LINES = "lines", gettext_lazy("a prompt on each line")
    PARQUET = "parquet", gettext_lazy("Parquet")


# ── What a file is ───────────────────────────────────────────────────────────────────────────────────────────────

_NOT_TABLES: list[tuple[bytes, str | Promise]] = [
    (b"PK\x03\x04", gettext_lazy("It is an Excel workbook or a ZIP archive: save it as “CSV UTF-8”, or unpack it.")),
    (b"\xd0\xcf\x11\xe0", gettext_lazy("It is an old Excel workbook. Save the sheet as “CSV UTF-8” and upload that.")),
    (b"\x1f\x8b", gettext_lazy("It is compressed with gzip. Unpack it (gunzip) and upload what is inside.")),
    (b"\x28\xb5\x2f\xfd", gettext_lazy("It is compressed with zstd. Unpack it (unzstd) and upload what is inside.")),
    (b"%PDF", gettext_lazy("It is a PDF. A table is needed: JSON Lines, JSON, CSV, TSV or Parquet.")),
    (b"\x89PNG", gettext_lazy("It is a picture. A table is needed: JSON Lines, JSON, CSV, TSV or Parquet.")),
    (b"\xff\xd8\xff", gettext_lazy("It is a picture. A table is needed: JSON Lines, JSON, CSV, TSV or Parquet.")),
    (b"SQLite format 3", gettext_lazy("It is a database. Export a table of it as CSV or JSON Lines.")),
    (b"\xff\xfe", gettext_lazy("It is in UTF-16 (“Unicode text” in Excel). Save it as “CSV UTF-8”, or as UTF-8.")),
    (b"\xfe\xff", gettext_lazy("It is in UTF-16 (“Unicode text” in Excel). Save it as “CSV UTF-8”, or as UTF-8.")),
]  # fmt: skip


def tell_kind(path: Path, name: str) -> FileKind:
    """What the file is, by what it holds; its name only tells apart kinds of text. Raises UploadRefusedError."""
    with path.open("rb") as file:
        head = file.read(2**16)
    if head.startswith(b"PAR1"):
        return FileKind.PARQUET
    for start, sentence in _NOT_TABLES:
        if head.startswith(start):
            raise UploadRefusedError(str(sentence))
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        raise UploadRefusedError(_("The file is empty. Choose one with at least one row."))
    if b"\0" in head:
        raise UploadRefusedError(
            _("It is a binary file of a kind that is not known here. Upload JSON Lines, JSON, CSV, TSV or Parquet.")
        )
    if text.startswith(b"["):
        return FileKind.JSON
    if text.startswith(b"{"):
        return FileKind.JSONL
    if name.lower().endswith((".txt", ".md")):
        return FileKind.LINES
    first = text.split(b"\n", 1)[0]
    is_tsv = name.lower().endswith((".tsv", ".tab")) or first.count(b"\t") > first.count(b",") + first.count(b";")
    return FileKind.TSV if is_tsv else FileKind.CSV


@dataclass(frozen=True)
class Table:
    """A file as a table. `size`: bytes."""

    path: Path
    name: str
    kind: FileKind
    columns: list[str]
    formats: list[str]
    """Names of the known formats that its first rows fit."""
    likeliest: str
    """The one of them that the file is most probably in; empty: none."""

    def records(self) -> Iterator[Record]:
        """Every row, from the start; broken ones say what is wrong."""
        return _READERS[self.kind](self.path)

    def rows_or_more(self) -> int:
        """How many rows there are at most, for saying how far somebody is; 0: nobody knows."""
        if self.kind == FileKind.JSON:
            return 0
        if self.kind == FileKind.PARQUET:
            from pyarrow import parquet

            return parquet.read_metadata(self.path).num_rows
        with self.path.open("rb") as file:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(2**20), b"")) + 1


def open_table(path: Path, name: str) -> Table:
    """Read as much as shows what the table holds. Raises UploadRefusedError where nothing in it can be used."""
    kind = tell_kind(path, name)
    head = list(islice(_READERS[kind](path), HEAD_ROWS))
    values = [record.value for record in head if record.value is not None]
    if not head:
        raise UploadRefusedError(_("The file has a header and no rows. Choose one with at least one row."))
    if not values:
        raise UploadRefusedError(
            _("No row of it can be read. Line %(line)s: %(problem)s. Mend it and upload the file again.")
            % {"line": head[0].line, "problem": head[0].error}
        )
    columns = list(dict.fromkeys(column for value in values for column in value))
    if len(columns) > MAX_COLUMNS:
        raise UploadRefusedError(
            _("It has %(count)s columns; up to %(most)s can be read. Leave out those that are not needed.")
            % {"count": len(columns), "most": MAX_COLUMNS}
        )
    formats = [name_ for name_, parser in FORMATS.items() if any(_fits(parser, value) for value in values)]
    likeliest = formats[0] if formats else ""
    # Conversations that wait for an answer are prompts with a history, not talks to be rated.
    if likeliest == "messages" and all(_waits(value.get("messages")) for value in values):
        likeliest = ""
    return Table(path, name, kind, columns, formats, likeliest)


def _fits(parser: ModuleType, value: dict[str, Any]) -> bool:
    try:
        return parser.recognises(value) and bool(parser.parse(value))
    except UnusableRowError:
        return False


def _waits(messages: Any) -> bool:
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, dict) and last.get("role") == "user"


# ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_json(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        yield from read_records(file)


def _decoded_lines(path: Path) -> Iterator[str]:
    """Raises UploadRefusedError: after a line of another encoding, quotes cannot be trusted either."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_RECORD_BYTES + 1):
            number += 1
            if len(line) > MAX_RECORD_BYTES:
                raise UploadRefusedError(
                    _("Line %(line)s is longer than %(size)s MiB. Is a quotation mark missing before it?")
                    % {"line": number, "size": MAX_RECORD_BYTES // 2**20}
                )
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UploadRefusedError(
                    _(
                        "Line %(line)s is not UTF-8: byte %(byte)s of it is 0x%(value)02X. Save the file as UTF-8"
                        " (in Excel: “CSV UTF-8”) and upload it again."
                    )
                    % {"line": number, "byte": error.start + 1, "value": line[error.start]}
                ) from None


def _read_delimited(path: Path, delimiter: str) -> Iterator[Record]:
    csv.field_size_limit(MAX_RECORD_BYTES)
    reader = csv.reader(_decoded_lines(path), delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Record(
                line,
                None,
                _("it and what follows cannot be read: %(problem)s. A quotation mark inside a field is written twice")
                % {"problem": error},
            )
            return
        if not any(field.strip() for field in fields):
            continue
        if columns is None:
            columns = _checked_columns(fields)
        elif len(fields) != len(columns):
            yield Record(
                line,
                None,
                _("it has %(count)s fields and the header has %(wanted)s")
                % {"count": len(fields), "wanted": len(columns)},
            )
        elif any("\0" in field for field in fields):
            yield Record(line, None, _("it holds the character U+0000, which cannot be stored"))
        else:
            yield Record(line, dict(zip(columns, fields, strict=True)), size=sum(map(len, fields)))


def _checked_columns(fields: Sequence[str]) -> list[str]:
    columns = [field.strip() or _("column %(number)s") % {"number": at} for at, field in enumerate(fields, 1)]
    if twice := next((column for column in columns if columns.count(column) > 1), None):
        raise UploadRefusedError(
            _("Two columns are named “%(name)s”. Give each column a name of its own in the first line.")
            % {"name": twice}
        )
    return columns


def _read_csv(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        first = file.readline(2**16)
    # Where the comma is the decimal sign, spreadsheets write semicolons between the fields.
    return _read_delimited(path, ";" if first.count(b";") > first.count(b",") else ",")


def _read_tsv(path: Path) -> Iterator[Record]:
    return _read_delimited(path, "\t")


def _read_text_lines(path: Path) -> Iterator[Record]:
    for number, line in enumerate(_decoded_lines(path), 1):
        if text := line.strip():
            problem = _problem_of(text)
            yield Record(number, None if problem else {Meaning.PROMPT.value: text}, problem, size=len(text))


def _read_parquet(path: Path) -> Iterator[Record]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        file = parquet.ParquetFile(path)
        groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
        if sum(group.total_byte_size for group in groups) > MAX_UNPACKED_BYTES:
            raise UploadRefusedError(
                _("Unpacked it would be more than %(size)s GB. Split it.") % {"size": MAX_UNPACKED_BYTES // 10**9}
            )
        for batch in file.iter_batches(batch_size=200):
            for value in batch.to_pylist():
                number += 1
                problem = _problem_of(value)
                yield Record(number, None if problem else value, problem, size=batch.nbytes // batch.num_rows)
    except (pyarrow.ArrowException, OSError, ValueError, UnicodeDecodeError) as error:
        raise UploadRefusedError(
            _("It begins as a Parquet file and cannot be read as one after row %(row)s: %(problem)s. Write it anew.")
            % {"row": number, "problem": str(error)[:200]}
        ) from None


def _problem_of(value: Any) -> str:
    if isinstance(value, str) and "\0" in value:
        return _("it holds the character U+0000, which cannot be stored")
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return next(filter(None, map(_problem_of, parts)), "")
    return ""


_READERS = {
    FileKind.JSONL: _read_json,
    FileKind.JSON: _read_json,
    FileKind.CSV: _read_csv,
    FileKind.TSV: _read_tsv,
    FileKind.LINES: _read_text_lines,
    FileKind.PARQUET: _read_parquet,
}

# ── What the columns mean ────────────────────────────────────────────────────────────────────────────────────────


class Meaning(models.TextChoices):
    """What a column can be; each column name that is guessed to be it is in `_GUESSES`."""

    PROMPT = "prompt", gettext_lazy("Prompt (text)")
    MESSAGES = "messages", gettext_lazy("Prompt (messages)")
    RESPONSE_A = "response_a", gettext_lazy("Response A")
    RESPONSE_B = "response_b", gettext_lazy("Response B")
    SOURCE_A = "source_a", gettext_lazy("Who wrote A")
    SOURCE_B = "source_b", gettext_lazy("Who wrote B")
    RESPONSE_C = "response_c", gettext_lazy("Response C")
    SOURCE_C = "source_c", gettext_lazy("Who wrote C")
    RESPONSE_D = "response_d", gettext_lazy("Response D")
    SOURCE_D = "source_d", gettext_lazy("Who wrote D")
    RESPONSE_E = "response_e", gettext_lazy("Response E")
    SOURCE_E = "source_e", gettext_lazy("Who wrote E")
    RESPONSE_F = "response_f", gettext_lazy("Response F")
    SOURCE_F = "source_f", gettext_lazy("Who wrote F")
    RESPONSE_G = "response_g", gettext_lazy("Response G")
    SOURCE_G = "source_g", gettext_lazy("Who wrote G")
    RESPONSE_H = "response_h", gettext_lazy("Response H")
    SOURCE_H = "source_h", gettext_lazy("Who wrote H")
    RESPONSE_I = "response_i", gettext_lazy("Response I")
    SOURCE_I = "source_i", gettext_lazy("Who wrote I")
    TASK = "task", gettext_lazy("Task")
    LANG = "lang", gettext_lazy("Language")
    SKILL = "skill", gettext_lazy("Skill")
    TOPIC = "topic", gettext_lazy("Topic")
    TAGS = "tags", gettext_lazy("Tags")
    GROUP = "group", gettext_lazy("Group")
    ID = "id", gettext_lazy("Id")


RESPONSES = tuple((Meaning(f"response_{letter}"), Meaning(f"source_{letter}")) for letter in "abcdefghi")
"""Each response with who wrote it. Beyond the first two a cell may be empty: the row has fewer."""
FURTHER = frozenset(meaning for both in RESPONSES[2:] for meaning in both)


def _numbered(letter: str, number: int) -> dict[str, tuple[str, ...]]:
    """What the columns of a third response, or a later one, are called."""
    words = ("response", "answer", "output", "completion")
    names = [f"{word}{suffix}" for word in words for suffix in (f"_{letter}", str(number), f"_{number}")]
    written = [f"model_{letter}_response", f"回答{letter}", f"回复{letter}", f"回答{number}"]
    sources = [f"model_{letter}", f"source_{letter}", f"model{number}", f"model_{number}", f"generator_{letter}"]
    return {f"response_{letter}": (*names, *written), f"source_{letter}": (*sources, f"模型{letter}")}


_GUESSES: dict[str, tuple[str, ...]] = {
    Meaning.MESSAGES: ("messages", "conversation", "conversations", "chat", "history", "context_messages"),
    Meaning.PROMPT: (
        "prompt", "question", "instruction", "query", "input", "user", "text", "问题", "提示", "指令", "输入",
    ),
    Meaning.RESPONSE_A: (
        "response_a", "response1", "response_1", "answer_a", "answer1", "answer_1", "output_a", "output1", "output_1",
        "completion_a", "completion_1", "a", "model_a_response", "chosen", "回答a", "回复a", "回答1",
    ),
    Meaning.RESPONSE_B: (
        "response_b", "response2", "response_2", "answer_b", "answer2", "answer_2", "output_b", "output2", "output_2",
        "completion_b", "completion_2", "b", "model_b_response", "rejected", "回答b", "回复b", "回答2",
    ),
    Meaning.SOURCE_A: ("model_a", "source_a", "model1", "model_1", "generator_a", "模型a"),
    Meaning.SOURCE_B: ("model_b", "source_b", "model2", "model_2", "generator_b", "模型b"),
    **{name: names for number in range(3, 10) for name, names in _numbered("abcdefghi"[number - 1], number).items()},
    Meaning.TASK: ("task", "category", "type", "domain", "任务", "类别"),
    Meaning.LANG: ("lang", "language", "locale", "语言"),
    Meaning.SKILL: ("skill", "expertise", "技能"),
    Meaning.TOPIC: ("topic", "subject", "theme", "主题"),
    Meaning.TAGS: ("tags", "tag", "labels", "keywords", "标签"),
    Meaning.GROUP: ("group", "group_id", "cluster", "分组"),
    Meaning.ID: ("id", "uid", "uuid", "external_id", "question_id", "prompt_id", "编号"),
}  # fmt: skip

Mapping_ = dict[str, str]
"""Meaning → column."""


def guess_mapping(columns: Sequence[str]) -> Mapping_:
    """What the columns seem to be, by their names; each is used once."""
    by_name = {re.sub(r"[\s-]+", "_", column.strip().lower()): column for column in reversed(columns)}
    mapping: Mapping_ = {}
    for meaning, names in _GUESSES.items():
        column = next((by_name[name] for name in names if name in by_name), None)
        if column is not None and column not in mapping.values():
            mapping[meaning] = column
    if Meaning.MESSAGES in mapping:
        mapping.pop(Meaning.PROMPT, None)
    if Meaning.RESPONSE_A not in mapping or Meaning.RESPONSE_B not in mapping:
        mapping = {meaning: column for meaning, column in mapping.items() if meaning not in FURTHER}
    return mapping


def check_mapping(mapping: Mapping[str, str]) -> None:
    """Raises UploadRefusedError where the columns that were chosen do not make rows."""
    if (Meaning.PROMPT in mapping) == (Meaning.MESSAGES in mapping):
        raise UploadRefusedError(
            _("Choose one column that holds the prompt: either its text or its list of messages.")
        )
    if (Meaning.RESPONSE_A in mapping) != (Meaning.RESPONSE_B in mapping):
        raise UploadRefusedError(_("A comparison needs two responses: choose columns for both, or for neither."))
    if Meaning.RESPONSE_A not in mapping and not FURTHER.isdisjoint(mapping):
        raise UploadRefusedError(_("A ranking needs responses A and B, too: choose columns for them."))
    for response, source in RESPONSES[2:]:
        if source in mapping and response not in mapping:
            raise UploadRefusedError(
                _("“%(source)s” is chosen without “%(response)s”: choose a column for both, or for neither.")
                % {"source": source.label, "response": response.label}
            )
    columns = list(mapping.values())
    if twice := next((column for column in columns if columns.count(column) > 1), None):
        raise UploadRefusedError(_("The column “%(name)s” is chosen twice. Choose it once.") % {"name": twice})


@dataclass(frozen=True)
class MappedRow:
    """A row as it would be stored: a prompt, and with `row` also a comparison of two responses to it, or a ranking of
    three to nine."""

    messages: Messages
    task: str
    lang: str
    skill: str
    topic: str
    tags: list[str]
    group: str
    row: Row | None


def map_record(value: Mapping[str, Any], mapping: Mapping[str, str], *, file_name: str) -> MappedRow:
    """Raises UnusableRowError with a sentence about the first thing that is wrong."""

    def given(meaning: Meaning) -> Any:
        return value.get(mapping[meaning]) if meaning in mapping else None

    def name(meaning: Meaning, longest: int) -> str:
        said = given(meaning)
        said = str(said) if isinstance(said, int | float) and not isinstance(said, bool) else said
        return checked_name(said, mapping.get(meaning, ""), longest=longest)

    messages = _mapped_messages(given(Meaning.MESSAGES), given(Meaning.PROMPT), mapping)
    lang, group = name(Meaning.LANG, 20), name(Meaning.GROUP, 180)
    row = None
    if Meaning.RESPONSE_A in mapping:
        sides = []
        for response, source in RESPONSES:
            if response in FURTHER and given(response) in (None, ""):
                continue
            # Without a name the column is all that is known of the author.
            author = name(source, 150) or f"{mapping[response]} ({file_name[:100]})"
            sides.append(Side(author, checked_text(given(response), mapping[response])))
        row = Row(messages, sides, external_id=name(Meaning.ID, 180), group=group, lang=lang)
    return MappedRow(
        messages,
        task=name(Meaning.TASK, 60),
        lang=lang,
        skill=name(Meaning.SKILL, 60),
        topic=name(Meaning.TOPIC, 100),
        tags=checked_tags(given(Meaning.TAGS), mapping.get(Meaning.TAGS, "")),
        group=group,
        row=row,
    )


def _mapped_messages(messages: Any, prompt: Any, mapping: Mapping[str, str]) -> Messages:
    if Meaning.PROMPT in mapping:
        text = checked_text(prompt, mapping[Meaning.PROMPT])
        if not text.strip():
            raise UnusableRowError(_("“%(column)s” is empty") % {"column": mapping[Meaning.PROMPT]})
        checked = said_by_user(text)
    else:
        column = mapping[Meaning.MESSAGES]
        if isinstance(messages, str):  # as a table of text has it
            try:
                messages = json.loads(messages)
            except ValueError:
                raise UnusableRowError(_("“%(column)s” is no list of messages in JSON") % {"column": column}) from None
        checked = checked_messages(messages, column)
    if sum(len(message["content"]) for message in checked) > MAX_PROMPT_CHARS:
        raise UnusableRowError(_("the prompt is longer than %(most)s characters") % {"most": MAX_PROMPT_CHARS})
    return checked


def parser_of(format_name: str) -> ModuleType:
    """Raises UploadRefusedError for a name that is none."""
    if format_name not in FORMATS:
        raise UploadRefusedError(_("There is no format “%(name)s”.") % {"name": format_name})
    return FORMATS[format_name]
