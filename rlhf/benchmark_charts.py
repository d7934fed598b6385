"""Where the marks of the benchmarks' charts lie; the templates draw them as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlhf.benchmark_figures import Row

BAR_KINDS = ("error_correction", "response_maintenance", "share")
BAR_HEIGHT, GROUP_GAP, BAR_WIDTH = 15, 11, 240


@dataclass(frozen=True, slots=True)
class Bar:
    kind: str
    value: float | None
    y: float
    width: float


@dataclass(frozen=True, slots=True)
class Group:
    label: str
    y: float
    bars: list[Bar]


@dataclass(frozen=True, slots=True)
class Bars:
    """Horizontal bars from 0 to 100, one or two to a label."""

    title: str
    groups: list[Group]
    height: float
    summary: str

    @property
    def has_both(self) -> bool:
        """Whether a key is needed to tell the scenarios apart."""
        return len({bar.kind for group in self.groups for bar in group.bars}) > 1


def bars_of(title: str, figures: dict[str, dict[str, Any]]) -> Bars:
    groups: list[Group] = []
    y = 0.0
    said = []
    for label, values in figures.items():
        bars = []
        top = y
        for kind in BAR_KINDS:
            if kind in values:
                value = values[kind]
                bars.append(Bar(kind, value, y, BAR_WIDTH * (value or 0) / 100))
                y += BAR_HEIGHT
        said.append(f"{label}: " + ", ".join("–" if bar.value is None else f"{bar.value:.2f}" for bar in bars))
        groups.append(Group(label, (top + y) / 2, bars))
        y += GROUP_GAP
    return Bars(title, groups, max(0.0, y - GROUP_GAP), "; ".join(said))


@dataclass(frozen=True, slots=True)
class Point:
    label: str
    judge: str
    x: float
    y: float
    correction: float
    maintenance: float
    anchor: str
    label_x: float


def scatter_of(rows: Sequence[Row]) -> list[Point]:
    """Every model of a leaderboard in a square of 300: correction to the right, maintenance upwards."""
    points = []
    for row in rows:
        correction, maintenance = (row.figures.get(key) for key in ("error_correction", "response_maintenance"))
        if correction is None or maintenance is None:
            continue
        x, y = 3 * correction, 300 - 3 * maintenance
        is_right = x > 180
        points.append(
            Point(
                row.run.source.name,
                row.run.judge.name if row.run.judge else "",
                x,
                y,
                correction,
                maintenance,
                "end" if is_right else "start",
                x - 8 if is_right else x + 8,
            )
        )
    return points
