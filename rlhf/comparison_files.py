"""The comparison of jobs as files: numbers for spreadsheets, and a Markdown table for reports."""

from __future__ import annotations

from rlhf.comparison import Cell, Column, Comparison
from rlhf.spreadsheets import comma_separated
from rlhf.templatetags.figures import cell_delta, cell_interval, cell_value


def as_csv(comparison: Comparison) -> str:
    """A line for each row; each column with its bounds, count and delta where any row has them. Shares from 0 to 1."""
    parts = [
        (index, part)
        for index in range(len(comparison.columns))
        for part in _PARTS
        if part == "" or any(_part(row.cells[index], part) is not None for row in comparison.rows)
    ]
    head = ["job", "method", *(f"{_title(comparison.columns[index])}{part}" for index, part in parts)]
    lines = [
        [row.name, str(row.method), *(_part(row.cells[index], part) for index, part in parts)]
        for row in comparison.rows
    ]
    return comma_separated([head, *lines])


_PARTS = {"": "value", " lower": "lower", " upper": "upper", " count": "count", " delta": "delta", " times": "times"}


def _part(cell: Cell, part: str) -> float | int | None:
    holder = cell if part in (" delta", " times") else cell.value
    value: float | int | None = getattr(holder, _PARTS[part], None)
    return value


def _title(column: Column) -> str:
    unit = "s" if column.is_seconds else column.unit
    return f"{column.label} ({unit})" if unit else str(column.label)


def as_markdown(comparison: Comparison) -> str:
    """The table as the page shows it; deltas that are beyond doubt in bold."""
    head = ["", "", *(_title(column) for column in comparison.columns)]
    lines = [f"| {' | '.join(map(_plain, head))} |", f"|---|---|{'---:|' * len(comparison.columns)}"]
    lines += [
        f"| {' | '.join([_plain(row.name), _plain(str(row.method)), *map(_cell, row.cells)])} |"
        for row in comparison.rows
    ]
    return "\n".join(lines) + "\n"


def _cell(cell: Cell) -> str:
    if cell.value is None:
        return "–"
    text = cell_value(cell) if cell.value.lower is None else f"{cell_value(cell)} {cell_interval(cell)}"
    delta = cell_delta(cell)
    if not delta:
        return text
    return f"{text}; **{delta}**" if cell.verdict else f"{text}; {delta}"


def _plain(text: str) -> str:
    """A name that people typed, so that nothing in it is markup."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>#|!" else letter for letter in text).replace("\n", " ")
