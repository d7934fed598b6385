"""Where the lines of a figure lie: numbers in, percentages and SVG paths out. A template draws them.

The plot is stretched to the width that it has, so places are in thousandths of its width and height, and texts are set
over it in HTML, at their own size.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from django.utils.translation import gettext

from rlhf.curves import Band, Figure, Mark
from rlhf.evaluation.reward_card import wilson_interval
from rlhf.models import Point

SMOOTH_FROM = 20
"""Points; fewer are drawn as they are."""
_LABEL_GAP = 75  # thousandths of the height, about a line of text

Placing = Callable[[float], float]
"""A step to thousandths from the left."""


@dataclass(frozen=True)
class Series:
    """One line to draw."""

    label: str
    tone: str
    points: Sequence[Point]
    is_held_out: bool = False
    rows: int | None = None
    """The values are shares of so many rows, and are shown with the doubt that this leaves."""


@dataclass
class Label:
    top: float
    text: str
    tone: str = ""
    left: float = 0.0


@dataclass
class Plot:
    """Everything that templates/rlhf/_plot.html needs; places in percent of the plot where nothing else is said."""

    slug: str
    title: str
    unit: str
    note: str
    summary: str
    """What the picture says, for those who do not see it."""
    band: tuple[float, float] | None = None
    """Top and height, in thousandths."""
    band_text: str = ""
    marks: list[Label] = field(default_factory=list)
    rows: list[Label] = field(default_factory=list)
    columns: list[Label] = field(default_factory=list)
    areas: list[tuple[str, str]] = field(default_factory=list)
    """Path and tone of the span between the lowest and highest where several steps share a point."""
    faint: list[tuple[str, str]] = field(default_factory=list)
    bold: list[tuple[str, str]] = field(default_factory=list)
    dots: list[tuple[str, str]] = field(default_factory=list)
    ends: list[Label] = field(default_factory=list)
    room: float = 0.0
    """What the labels need beyond the right edge, in widths of a digit."""
    marks_at_end: bool = False
    readings: str = ""
    """JSON: [place in thousandths, text] for each step, read by static/js/curves.js."""


def format_value(value: float) -> str:
    """Two decimals, or what matters of larger and smaller numbers."""
    size = abs(value)
    if value == 0:
        text = "0"
    elif size >= 100_000:
        text = f"{value:.3g}"
    elif size >= 100:
        text = f"{value:,.0f}"
    elif size >= 0.01:
        text = f"{value:.2f}"
    else:
        text = f"{value:.1e}".replace("e-0", "e-")
    return text.replace("-", "−")


def smoothed(values: Sequence[float], share: int = 12) -> list[float]:
    """A running mean that forgets over about a twelfth of the run."""
    weight = 2 / (max(5.0, len(values) / share) + 1)
    means: list[float] = []
    for value in values:
        means.append(value if not means else means[-1] + weight * (value - means[-1]))
    return means


def format_ticks(ticks: Sequence[float]) -> list[str]:
    """The values of an axis, all with as many decimals as the finest needs."""
    if any(0 < abs(tick) < 0.001 or abs(tick) >= 100_000 for tick in ticks):
        return [format_value(tick) for tick in ticks]
    decimals = next(n for n in range(5) if n == 4 or all(abs(round(tick, n) - tick) < 1e-9 for tick in ticks))
    return [f"{tick:,.{decimals}f}".replace("-", "−") for tick in ticks]


class Scale:
    """Values to thousandths from the top."""

    def __init__(self, low: float, high: float, log: bool) -> None:
        self.log = log and low > 0
        start, end = (math.log10(low), math.log10(high)) if self.log else (low, high)
        margin = (end - start or abs(end) or 1.0) * 0.07
        self.start = start if start == 0 and not self.log else start - margin
        self.end = end + margin

    def __call__(self, value: float) -> float:
        place = math.log10(max(value, 1e-300)) if self.log else value
        return 1000 * (1 - (place - self.start) / (self.end - self.start))

    def ticks(self) -> list[float]:
        if self.log:
            first, last = math.ceil(self.start), math.floor(self.end)
            if last > first:
                return [10.0**power for power in range(first, last + 1, max(1, (last - first) // 3))]
            return [10**self.start * 10 ** ((self.end - self.start) * share) for share in (0.15, 0.85)]
        return round_ticks(self.start, self.end, 4)


def round_ticks(low: float, high: float, about: int, whole: bool = False) -> list[float]:
    """Round numbers between two, `about` so many."""
    step = 10 ** math.floor(math.log10((high - low) / about))
    step = next((step * by for by in (1, 2, 2.5, 5, 10) if (high - low) / (step * by) <= about), step * 10)
    if whole:
        step = max(1, round(step))
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def draw(
    figure: Figure, series: Sequence[Series], *, last_step: int, method: str = "", marks: Sequence[Mark] = ()
) -> Plot:
    """The figure with these lines, its band and its yardsticks; `last_step` is where the axis ends."""
    band, all_marks = figure.band(method), [*figure.marks, *marks]
    scale = _scale(figure, series, band, all_marks)
    reach = max([last_step, 1, *(one.points[-1].step for one in series)])
    title, unit = str(figure.title), str(figure.unit)
    plot = Plot(figure.slug, title, unit, str(figure.note), "")

    def at(step: float) -> float:
        return 1000 * step / reach

    if band is not None:
        top = max(0.0, scale(band.high)) if band.high is not None else 0.0
        bottom = min(1000.0, scale(band.low)) if band.low is not None and not (scale.log and band.low <= 0) else 1000.0
        if bottom > top:
            plot.band = (top, bottom - top)
        plot.band_text = gettext("Healthy band %(band)s: %(source)s.") % {
            "band": _span(band),
            "source": band.source,
        }
    plot.marks = [
        Label(scale(mark.value) / 10, str(mark.text)) for mark in all_marks if 0 <= scale(mark.value) <= 1000
    ]
    ticks = scale.ticks()
    texts = [f"{tick:.2g}" for tick in ticks] if scale.log else format_ticks(ticks)
    plot.rows = [Label(scale(tick) / 10, text) for tick, text in zip(ticks, texts, strict=True)]
    plot.columns = [
        Label(0, f"{tick:,.0f}", left=at(tick) / 10) for tick in round_ticks(0, reach, 4, whole=True) if tick <= reach
    ]
    ends: list[Label] = []
    for one in series:
        last_mean = _lay_line(plot, one, scale, at, figure.exact)
        text = f"{one.label} {format_value(last_mean)}{_doubt(last_mean, one.rows)}".strip()
        ends.append(Label(scale(last_mean) / 10, text, one.tone, at(one.points[-1].step) / 10))
    plot.ends = _apart(ends)
    plot.room = max((1.0 + len(end.text)) * max(0.0, end.left - 50) / 50 for end in ends)
    plot.marks_at_end = all(end.left < 60 for end in ends)
    said = ", ".join(end.text for end in ends)
    plot.summary = gettext("%(title)s: %(values)s at the last logged step") % {"title": title, "values": said}
    plot.readings = json.dumps(_readings(series, at), ensure_ascii=False)
    return plot


def _doubt(share: float, rows: int | None) -> str:
    """The 95 % interval of a share of so many rows."""
    if not rows or not 0 <= share <= 1:
        return ""
    lower, upper = wilson_interval(share * rows, rows)
    return f" ({lower:.2f}–{upper:.2f})"


def _scale(figure: Figure, series: Sequence[Series], band: Band | None, marks: Sequence[Mark]) -> Scale:
    logged = [point for one in series for point in one.points]
    low, high = min(point.low for point in logged), max(point.high for point in logged)
    wanted = [mark.value for mark in marks]
    if band is not None:
        # The near edge of the band is always in view; the far one only where it does not flatten the line.
        reach = max(high - low, abs(high), 1e-9)
        wanted += [edge for edge in (band.low, band.high) if edge is not None and low - reach <= edge <= high + reach]
    return Scale(min([low, *wanted]), max([high, *wanted]), figure.log and low > 0)


def _span(band: Band) -> str:
    if band.high is None:
        return gettext("above %(low)s") % {"low": format_value(band.low or 0)}
    if band.low is None:
        return gettext("below %(high)s") % {"high": format_value(band.high)}
    return f"{format_value(band.low)}–{format_value(band.high)}"


def _lay_line(plot: Plot, one: Series, scale: Scale, at: Placing, exact: bool) -> float:
    """Add a line to the plot; gives the value that its end shows."""
    means = [point.mean for point in one.points]
    places = [at(point.step) for point in one.points]
    if one.is_held_out:
        dots = "".join(f"M{x:.0f} {scale(mean):.0f}h0" for x, mean in zip(places, means, strict=True))
        plot.dots.append((dots, one.tone))
        plot.bold.append((_path(places, [scale(mean) for mean in means]), one.tone))
        return means[-1]
    is_smoothed = len(means) >= SMOOTH_FROM and not exact
    if is_smoothed:
        if any(point.high > point.low for point in one.points):
            above = _path(places, [scale(point.high) for point in one.points])
            below = _path(places[::-1], [scale(point.low) for point in one.points[::-1]])
            plot.areas.append((f"{above}L{below[1:]}Z", one.tone))
        else:
            plot.faint.append((_path(places, [scale(mean) for mean in means]), one.tone))
        means = smoothed(means)
    plot.bold.append((_path(places, [scale(mean) for mean in means]), one.tone))
    if len(means) == 1:
        plot.dots.append((f"M{places[0]:.0f} {scale(means[0]):.0f}h0", one.tone))
    return means[-1]


def _path(xs: Sequence[float], ys: Sequence[float]) -> str:
    return "M" + "L".join(f"{x:.0f} {y:.0f}" for x, y in zip(xs, ys, strict=True))


def _apart(labels: list[Label]) -> list[Label]:
    """Move labels that would lie over each other apart, inside the plot."""
    placed = sorted(labels, key=lambda label: label.top)
    gap = _LABEL_GAP / 10
    for upper, lower in itertools.pairwise(placed):
        lower.top = max(lower.top, upper.top + gap)
    if placed and placed[-1].top > 100:
        placed[-1].top = 100.0
        for lower, upper in itertools.pairwise(placed[::-1]):
            upper.top = min(upper.top, lower.top - gap)
    return placed


def _readings(series: Sequence[Series], at: Placing) -> list[tuple[int, str]]:
    by_step: dict[int, list[str]] = {}
    for one in series:
        for point in one.points:
            by_step.setdefault(point.step, []).append(f"{one.label} {format_value(point.mean)}".strip())
    step_word = gettext("step %(step)s")
    return [
        (round(at(step)), f"{step_word % {'step': f'{step:,}'}}: {', '.join(values)}")
        for step, values in sorted(by_step.items())
    ]


def series_of(
    figure: Figure, logged: Mapping[str, Sequence[Point]], *, held_out_rows: int | None = None
) -> list[Series]:
    """The lines of a figure out of everything that one job logged, held-out ones as well."""
    rows = held_out_rows if figure.slug == "accuracy" else None
    found: list[Series] = []
    several = len(figure.lines) > 1
    for line in figure.lines:
        name = next((name for name in line.names if logged.get(name)), None)
        label = str(line.label)
        if name is not None:
            found.append(Series(label or gettext("train"), line.tone, logged[name]))
        held_out = next((logged[f"eval_{name}"] for name in line.names if logged.get(f"eval_{name}")), None)
        if held_out:
            named = gettext("%(side)s, held-out") % {"side": label} if several else gettext("held-out")
            found.append(Series(named, line.tone if several else "warning", held_out, is_held_out=True, rows=rows))
    if len(found) == 1 and not found[0].is_held_out and not several:
        found = [Series("", found[0].tone, found[0].points)]
    return found
