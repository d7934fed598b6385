"""Where the marks of a judge's charts lie; the templates draw them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from django.utils.translation import gettext

from rlhf.judges.card import Card, Share

BAR_WIDTH, BAR_GAP, BAR_HEIGHT = 24.0, 6.0, 90.0


@dataclass(frozen=True)
class Dot:
    """A share on an axis from 0 to 100 %, with its interval; `needed` is where its lower end must lie."""

    label: str
    share: Share
    is_people: bool = False
    needed: float | None = None

    @property
    def place(self) -> str:
        lower, upper = self.share.lower, self.share.upper
        start, end = (lower, upper) if lower is not None and upper is not None else (self.share.value,) * 2
        return f"--at: {100 * self.share.value:.2f}%; --start: {100 * start:.2f}%; --width: {100 * (end - start):.2f}%"

    @property
    def needed_place(self) -> str:
        return f"--needed: {100 * max(self.needed or 0.0, 0.0):.2f}%"


def agreement_dots(card: Card) -> list[tuple[str, list[Dot]]]:
    """With ties and without: the judge with people, and people with each other."""
    groups = []
    for title, judge, people in (
        (gettext("Ties counted"), card.agreement, card.human),
        (gettext("Where both took a side"), card.agreement_no_ties, card.human_no_ties),
    ):
        needed = people.value - card.standard.margin if people else None
        dots = [Dot(gettext("judge and a person"), judge, needed=needed)] if judge else []
        dots += [Dot(gettext("two people"), people, is_people=True)] if people else []
        groups.append((title, dots))
    return groups


def partiality_dots(card: Card) -> list[tuple[str, list[Dot]]]:
    groups = []
    for title, found in (
        (gettext("Prefers the longer response"), card.length),
        (gettext("Prefers its own family’s response"), card.own),
    ):
        if found:
            dots = [Dot(gettext("judge"), found.judge), Dot(gettext("people"), found.people, is_people=True)]
            groups.append((title, dots))
    return groups


def task_dots(card: Card) -> list[tuple[str, list[Dot]]]:
    """By task of the prompts: the judge with people, and people with each other."""
    groups = []
    for one in card.by_task:
        dots = [Dot(gettext("judge and a person"), one.agreement)]
        dots += [Dot(gettext("two people"), one.people, is_people=True)] if one.people else []
        groups.append((one.name or gettext("no task"), dots))
    return groups


@dataclass(frozen=True)
class Column:
    score: str
    count: int
    x: float
    y: float
    height: float


def histogram_of(scores: Mapping[str, int]) -> list[Column]:
    """Columns of an SVG of 300 by 120: how often each score was given; none where none was."""
    most = max(scores.values(), default=0)
    if not most:
        return []
    columns = []
    for place, (score, count) in enumerate(sorted(scores.items(), key=lambda one: int(one[0]))):
        height = BAR_HEIGHT * count / most
        columns.append(Column(score, count, place * (BAR_WIDTH + BAR_GAP), 15 + BAR_HEIGHT - height, height))
    return columns
