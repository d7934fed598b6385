"""Jobs side by side: one row each, a column for every evaluation, and how far each lies from one of them.

The row that the others are held against is the base that all were trained from, where something was measured of it, or
one of the jobs. rlhf/job_measures.py says what was measured, rlhf/job_differences.py what else was different.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from rlhf.models import Checkpoint, TrainingJob

Text = str | Promise
Group = Literal["people", "benchmarks", "held_out", "training", "cost"]
GROUPS: dict[Group, Text] = {
    "people": _("People’s votes"),
    "benchmarks": _("Benchmarks"),
    "held_out": _("Held-out rows"),
    "training": _("In training"),
    "cost": _("Cost"),
}
BASE = 0
"""The key of the base's row, where jobs have their own."""


@dataclass(frozen=True)
class Column:
    name: str
    label: Text
    better: Literal["higher", "lower", ""] = ""
    group: Group = "held_out"
    is_share: bool = False
    is_seconds: bool = False
    unit: Text = ""
    decimals: int = 2


@dataclass(frozen=True)
class Value:
    """A measurement; its interval where it has one."""

    value: float
    lower: float | None = None
    upper: float | None = None
    count: int | None = None


@dataclass(frozen=True)
class Cell:
    column: Column
    value: Value | None
    delta: float | None = None
    """From the reference row's value; None in that row and where either is missing."""
    times: float | None = None
    """For costs instead: so many times what the reference row cost."""
    verdict: Literal["better", "worse", ""] = ""
    """Only where the difference is larger than the doubt of both values allows."""


Measured = Mapping[int, Mapping[str, Value]]
"""By key of the row and name of the column."""


@dataclass(frozen=True)
class Row:
    key: int
    name: str
    method: Text
    cells: list[Cell]
    job: TrainingJob | None = None
    base: Checkpoint | None = None

    @property
    def groups(self) -> list[tuple[Text, list[Cell]]]:
        """The cells under the headings that their columns share."""
        found = itertools.groupby(self.cells, key=lambda cell: cell.column.group)
        return [(GROUPS[group], list(cells)) for group, cells in found]


@dataclass(frozen=True)
class Comparison:
    rows: list[Row]
    reference: Row

    @property
    def columns(self) -> list[Column]:
        return [cell.column for cell in self.reference.cells]


def compare(
    jobs: Sequence[TrainingJob], columns: Sequence[Column], measured: Measured, against: int | None = None
) -> Comparison:
    """`against` is the key of a row; without one it is the base's, else the first job's."""
    keys = [*([BASE] if BASE in measured else []), *(job.pk for job in jobs)]
    reference = against if against in keys else keys[0]
    cells = tabulate(columns, {key: measured[key] for key in keys}, reference)
    rows = [Row(job.pk, str(job), job.get_method_display(), cells[job.pk], job=job) for job in jobs]
    if BASE in measured:
        base = jobs[0].base
        rows.insert(0, Row(BASE, base.name, _("base"), cells[BASE], base=base))
    return Comparison(rows, next(row for row in rows if row.key == reference))


def tabulate(columns: Sequence[Column], measured: Measured, against: int) -> dict[int, list[Cell]]:
    """The cells of each row, with deltas from the row `against`; columns that no row has are left out."""
    order = list(GROUPS)
    kept = [column for column in columns if any(column.name in row for row in measured.values())]
    kept.sort(key=lambda column: order.index(column.group))
    reference = measured.get(against, {})
    cells: dict[int, list[Cell]] = {}
    for key, row in measured.items():
        held_against = {} if key == against else reference
        cells[key] = [_cell(column, row.get(column.name), held_against.get(column.name)) for column in kept]
    return cells


def _cell(column: Column, value: Value | None, reference: Value | None) -> Cell:
    if value is None or reference is None:
        return Cell(column, value)
    if column.group == "cost":
        return Cell(column, value, times=value.value / reference.value if reference.value else None)
    delta = value.value - reference.value
    doubt = math.hypot(_half_width(value), _half_width(reference))
    if not column.better or not doubt or abs(delta) <= doubt:
        return Cell(column, value, delta)
    verdict: Literal["better", "worse"] = "better" if (delta > 0) == (column.better == "higher") else "worse"
    return Cell(column, value, delta, verdict=verdict)


def _half_width(value: Value) -> float:
    return 0.0 if value.lower is None or value.upper is None else (value.upper - value.lower) / 2
