"""Places on small line charts that the server draws as SVG; the words stay in the templates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 760.0, 280.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 150.0, 14.0, 28.0
_LABEL_STEP = 15.0


@dataclass(frozen=True)
class Tick:
    at: float
    value: float


@dataclass(frozen=True)
class Line:
    label: str
    paths: list[str]
    """Of `<polyline points>`; a line breaks where a value is missing."""
    end: tuple[float, float]
    label_y: float
    """Beside its end, moved so that labels do not cover each other."""


@dataclass(frozen=True)
class LineChart:
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


def line_chart(x: Sequence[float], series: dict[str, Sequence[float | None]], *, ticks: int = 4) -> LineChart | None:
    """A line for each series over common x values; None where no line has two points."""
    drawn = {name: values for name, values in series.items() if sum(value is not None for value in values) >= 2}
    if len(x) < 2 or not drawn:
        return None
    every = [value for values in drawn.values() for value in values if value is not None]
    y_ticks = _round_ticks(min(every), max(every), ticks)
    low, high = min(*y_ticks, *every), max(*y_ticks, *every)

    def x_at(value: float) -> float:
        return round(LEFT + (WIDTH - RIGHT - LEFT) * (value - x[0]) / ((x[-1] - x[0]) or 1), 1)

    def y_at(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (value - low) / ((high - low) or 1), 1)

    lines = []
    for name, values in drawn.items():
        paths: list[list[str]] = [[]]
        end = (0.0, 0.0)
        for place, value in zip(x, values, strict=True):
            if value is None:
                paths.append([])
            else:
                end = (x_at(place), y_at(value))
                paths[-1].append(f"{end[0]},{end[1]}")
        lines.append(Line(name, [" ".join(path) for path in paths if path], end, end[1]))
    lines.sort(key=lambda line: line.end[1])
    placed, last = [], -math.inf
    for line in lines:
        last = max(line.end[1], last + _LABEL_STEP)
        placed.append(Line(line.label, line.paths, line.end, last))
    steps = range(ticks)
    return LineChart(
        placed,
        [Tick(x_at(value), value) for step in steps for value in [x[0] + (x[-1] - x[0]) * step / (ticks - 1)]],
        [Tick(y_at(value), value) for value in y_ticks],
    )


def _round_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers that hold low … high."""
    span = (high - low) or 1.0
    size = 10 ** math.floor(math.log10(span / count))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor * count >= span)
    first = math.floor(low / step)
    return [(first + number) * step for number in range(math.ceil(high / step) - first + 1)]
