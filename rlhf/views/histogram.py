"""The lengths of rows as bars, drawn on the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

WIDTH, HEIGHT = 320, 96
_GAP = 1

SIDES: dict[str, str | Promise] = {
    "prompt": _("prompt"),
    "completion": _("response"),
    "chosen": _("chosen"),
    "rejected": _("rejected"),
}


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    is_over: bool
    """Longer than the window: left out."""
    count: int
    from_tokens: int
    to_tokens: int


@dataclass(frozen=True)
class SideBars:
    name: str
    bars: list[Bar]
    median: int
    p95: int
    longest: int
    window: int
    window_x: float
    last: int
    """Tokens at the right end."""


def draw_histogram(histogram: dict[str, Any]) -> list[SideBars]:
    """One row of bars for each side, all on the same scale."""
    sides = histogram.get("sides", {})
    if not sides:
        return []
    width, window = histogram["width"], histogram["window"]
    bins = len(next(iter(sides.values()))["bars"])
    highest = max(max(side["bars"]) for side in sides.values())
    step = WIDTH / bins
    drawn = []
    for name in SIDES:
        if name not in sides:
            continue
        side = sides[name]
        bars = [
            # A bar of one row among thousands must still be seen.
            Bar(
                x=round(place * step, 2),
                y=round(HEIGHT - (height := max(2.0, HEIGHT * count / highest)), 2),
                width=round(step - _GAP, 2),
                height=round(height, 2),
                is_over=place * width > window,
                count=count,
                from_tokens=place * width,
                to_tokens=(place + 1) * width - 1,
            )
            for place, count in enumerate(side["bars"])
            if count
        ]
        drawn.append(
            SideBars(
                name=str(SIDES[name]),
                bars=bars,
                median=side["median"],
                p95=side["p95"],
                longest=side["longest"],
                window=window,
                window_x=round(min(WIDTH, (window + 1) / width * step), 2),
                last=bins * width,
            )
        )
    return drawn
