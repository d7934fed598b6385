"""Dots and 95 % intervals of several checkpoints on the axis of each evaluation; the template draws them as SVG.

Places are in percent of the width, so that texts and dots keep their size however wide the plot is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.utils.translation import gettext

from rlhf.checkpoint_report import Beside, Line, Measurement
from rlhf.models import Checkpoint
from rlhf.plots import format_ticks, round_ticks

LANE = 14
"""Pixels of height of one checkpoint's dot."""


@dataclass(frozen=True, slots=True)
class Dot:
    tone: str
    said: str
    y: int
    at: str
    start: str = ""
    end: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    dots: list[Dot]
    height: int
    summary: str
    """What the picture says, for those who do not see it."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One evaluation; all of its rows share an axis."""

    anchor: str
    """The id of its table."""
    title: str
    rows: list[Row]
    ticks: list[tuple[str, str]]


def score_plot(checkpoints: Sequence[Checkpoint], parts: Sequence[Beside], tones: Sequence[str]) -> list[Panel]:
    """The figures of each evaluation as a whole; those of its tasks and categories stand in the tables only."""
    panels = []
    for number, part in enumerate(parts, start=1):
        lines = [line for line in part.lines if ":" not in line.key and any(_is_drawn(cell) for cell in line.cells)]
        if lines:
            axis = next(cell.axis for cell in lines[0].cells if cell and _is_drawn(cell))
            assert axis is not None
            rows = [_row(line, checkpoints, tones) for line in lines]
            panels.append(Panel(f"part-{number}", part.title, rows, _ticks(*axis)))
    return panels


def _is_drawn(cell: Measurement | None) -> bool:
    return cell is not None and cell.axis is not None and cell.value is not None


def _row(line: Line, checkpoints: Sequence[Checkpoint], tones: Sequence[str]) -> Row:
    dots: list[Dot] = []
    for cell, checkpoint, tone in zip(line.cells, checkpoints, tones, strict=False):
        if cell is None or cell.axis is None or cell.value is None:
            continue
        said = f"{checkpoint.name} {cell.shown}"
        at, y = f"{cell.placed(cell.value):.2f}%", LANE * len(dots) + LANE // 2
        if cell.lower is None or cell.upper is None:
            dots.append(Dot(tone, said, y, at))
        else:
            said = gettext("%(value)s (%(interval)s)") % {"value": said, "interval": cell.shown_interval}
            ends = (f"{cell.placed(end):.2f}%" for end in (cell.lower, cell.upper))
            dots.append(Dot(tone, said, y, at, *ends))
    return Row(line.name, dots, LANE * len(dots), f"{line.name}: {', '.join(dot.said for dot in dots)}")


def _ticks(low: float, high: float) -> list[tuple[str, str]]:
    """Place and text."""
    if high <= low:
        return []
    values = round_ticks(low, high, 4)
    places = (f"{100 * (value - low) / (high - low):.2f}%" for value in values)
    return list(zip(places, format_ticks(values), strict=True))
