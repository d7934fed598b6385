"""Rows as a file that spreadsheet programs open, streamed."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from django.http import StreamingHttpResponse


class _Echo:
    def write(self, line: str) -> str:
        return line


def csv_response(rows: Iterator[dict[str, Any]]) -> StreamingHttpResponse:
    """Rows with one set of columns, streamed; texts that a spreadsheet would take for a formula get an apostrophe."""
    first = list(islice(rows, 1))
    writer = csv.writer(_Echo())
    lines = chain(
        [writer.writerow(list(first[0]))] if first else [],
        (writer.writerow([_plain(value) for value in row.values()]) for row in chain(first, rows)),
    )
    return StreamingHttpResponse(lines, content_type="text/csv; charset=utf-8")


def _plain(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
