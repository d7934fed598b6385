"""Files in: kept on disk under the limit of the page, looked at, and read by a worker where they are large."""

from __future__ import annotations

from typing import Any

from django.utils.http import parse_header_parameters
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import parsers, serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from annotation import importers
from annotation.api.common import ProjectView, RefusalSerializer, person
from annotation.api.data_jobs import DataJobSerializer
from annotation.api.filters import read_flag
from annotation.errors import DomainError
from annotation.importers.rows import Row, Talk
from annotation.models import Role
from annotation.services.uploads import Reading, preview, start_check, start_import_of
from annotation.upload_files import KeptUpload, keep_stream
from annotation.uploads import PREVIEW_ROWS, MappedRow, Meaning, Table, check_mapping, guess_mapping, open_table

REFUSED = {409: RefusalSerializer, 413: RefusalSerializer, 422: RefusalSerializer}
COLUMNS = "columns"


class AnyBody(parsers.BaseParser):
    """The file is the body, of whatever type; the view reads it from the stream."""

    media_type = "*/*"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> dict[str, Any]:
        return {}


class ImportJobSerializer(DataJobSerializer):
    read_as = serializers.CharField(help_text="The format, or “columns”.")
    mapping = serializers.DictField(
        child=serializers.CharField(), help_text="Meaning → column, where read by columns."
    )
    columns = serializers.ListField(child=serializers.CharField())
    formats = serializers.ListField(child=serializers.CharField(), help_text="Those that its first rows fit.")
    preview = serializers.ListField(
        child=serializers.DictField(), help_text="Of a dry run: the first rows as they would become."
    )

    class Meta(DataJobSerializer.Meta):
        fields = [*DataJobSerializer.Meta.fields, "read_as", "mapping", "columns", "formats", "preview"]


class Import(ProjectView):
    role = Role.ADMIN
    parser_classes = [AnyBody]
    query = (
        OpenApiParameter("format", enum=["auto", COLUMNS, *importers.FORMATS]),
        OpenApiParameter("dry_run", bool, description="Say what would become of it, and store nothing."),
        OpenApiParameter("leave_out", bool, description="false: import nothing where a row cannot be used."),
        *(
            OpenApiParameter(meaning.value, description=f"Which column is: {meaning.label}. Implies format=columns.")
            for meaning in Meaning
        ),
    )

    @extend_schema(
        operation_id="import_file",
        parameters=[
            *query,
            OpenApiParameter(
                "Content-Disposition", location=OpenApiParameter.HEADER, required=True,
                description="attachment; filename=NAME.jsonl",
            ),
        ],
        request={"application/octet-stream": OpenApiTypes.BINARY},
        responses={202: ImportJobSerializer, **REFUSED},
    )  # fmt: skip
    def post(self, request: Request, slug: str) -> Response:
        """Take a file in, in a known format or by what its columns mean, as on the page.

        The file is the body. A small one is in before the answer; of a large one read the data job until it has
        finished. `result` counts what was made and names the first rows that were left out.
        """
        asked = request.query_params
        name = _name_in(request.headers.get("Content-Disposition", ""))
        if not name:
            raise DomainError("Send the file as the body, and its name as Content-Disposition: attachment; filename=…")
        is_dry, leave_out = read_flag(asked, "dry_run"), read_flag(asked, "leave_out")
        upload = keep_stream(self.project, name, request._request, size=_length(request))
        try:
            table = open_table(upload.path, name)
            reading = _reading(table, {key: asked[key] for key in asked})
            shown = preview(table, reading, PREVIEW_ROWS) if is_dry else []
            job = self._start(upload, reading, is_dry=bool(is_dry), leave_out=leave_out is not False)
        except DomainError as refused:
            upload.delete()
            raise type(refused)(f"{name}: {refused}") from refused
        if job.is_finished:
            upload.delete()
        answer = DataJobSerializer(job).data | {
            "read_as": reading.format_name or COLUMNS,
            "mapping": {} if reading.format_name else reading.mapping,
            "columns": table.columns,
            "formats": table.formats,
            "preview": [_shown(*row) for row in shown],
        }
        return Response(answer, status=status.HTTP_202_ACCEPTED)

    def _start(self, upload: KeptUpload, reading: Reading, *, is_dry: bool, leave_out: bool) -> Any:
        user = person(self.request)
        if is_dry:
            return start_check(self.project, upload, reading, user=user)
        return start_import_of(self.project, upload, reading, leave_out=leave_out, user=user)


def _name_in(disposition: str) -> str:
    """The file's name without folders, also as `filename*` gives it (RFC 6266); "" where it says none."""
    try:
        name = parse_header_parameters(disposition)[1].get("filename", "")
    except (LookupError, ValueError):  # an encoding that nobody knows, or more than a name
        return ""
    return name.strip().rpartition("/")[2]


def _length(request: Request) -> int:
    given = request.headers.get("Content-Length", "")
    return int(given) if given.isdecimal() else 0


def _reading(table: Table, asked: dict[str, str]) -> Reading:
    """How the address says that the table is to be read; where it says nothing, the likeliest way."""
    mapping = {name: asked[name] for name in Meaning.values if name in asked}
    for name, column in mapping.items():
        if column not in table.columns:
            raise DomainError(f"{name}: it has no column {column!r}; it has {', '.join(table.columns)}.")
    chosen = asked.get("format", COLUMNS if mapping else "auto")
    known = ["auto", COLUMNS, *importers.FORMATS]
    if chosen not in known:
        raise DomainError(f"format: {chosen!r} is unknown; choose among {', '.join(known)}.")
    if mapping and chosen != COLUMNS:
        raise DomainError(f"A file is read by its columns or in a format: leave out {next(iter(mapping))} or format.")
    if chosen == "auto" and table.likeliest:
        return Reading(table.likeliest)
    if chosen in ("auto", COLUMNS):
        mapping = mapping or guess_mapping(table.columns)
        try:
            check_mapping(mapping)
        except DomainError as refused:
            raise DomainError(f"{refused} Its columns are {', '.join(table.columns)}.") from None
        return Reading("", mapping)
    if chosen not in table.formats:
        fits = f"its first rows fit {', '.join(table.formats)}" if table.formats else "its first rows fit none"
        raise DomainError(f"Its rows are not in the format {chosen}; {fits}.")
    return Reading(chosen)


def _shown(line: int, row: MappedRow | Row | Talk | None, problem: str) -> dict[str, Any]:
    if row is None:
        return {"line": line, "problem": problem}
    if isinstance(row, Talk):
        return {"line": line, "turns": len(row.turns), "messages": row.turns[-1].messages}
    sides = (row.row.sides if row.row else []) if isinstance(row, MappedRow) else row.sides
    shown = {
        "line": line,
        "messages": row.messages,
        "responses": [{"source": side.source, "text": side.text} for side in sides],
        "lang": row.lang,
        "group": row.group,
    }
    if isinstance(row, MappedRow):
        return shown | {"task": row.task, "skill": row.skill, "topic": row.topic, "tags": row.tags}
    return shown | {"judgments": len(row.verdicts), "ratings": len(row.scores)}
