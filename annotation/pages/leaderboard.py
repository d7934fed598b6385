"""Who is preferred, by what the reader chooses: ties, style, category, language, and who votes."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.http import HttpResponse
from django.shortcuts import render
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET

from annotation import browse
from annotation.access import MemberRequest, require_role
from annotation.charts import line_chart
from annotation.leaderboard import (
    KNOWN_CHOICES,
    Choices,
    Leaderboard,
    Standing,
    StyleEffect,
    follow_ratings,
    make_leaderboard,
)
from annotation.models import Project, Role, Tally
from annotation.ratings.gaming import Flag
from annotation.stored_figures import stored_figures

LINES_SHOWN = 8
WORDS: dict[str, tuple[str | Promise, dict[str, str | Promise]]] = {
    "voters": (_("Votes by"), {"people": _("people"), "judges": _("judges (models)"), "all": _("both")}),
    "ties": (
        _("A tie is"),
        {"half": _("half a win"), "drop": _("left out"), "davidson": _("an outcome (Davidson)")},
    ),
    "method": (_("Ratings"), {"bradley-terry": _("Bradley–Terry"), "elo": _("Elo, vote by vote")}),
    "intervals": (_("Intervals"), {"sandwich": _("sandwich"), "bootstrap": _("bootstrap")}),
}
WITHOUT_EFFECT_ON_ELO = {"ties": ("davidson",), "intervals": ("sandwich",)}
STYLE_WORDS = {"length": _("length"), "headings": _("headings"), "lists": _("list items"), "bold": _("bold")}


@dataclass(frozen=True)
class ScaledStanding:
    """A leaderboard's row with its place on an axis that all rows share, in percent of the width."""

    standing: Standing
    at: float | None = None
    start: float = 0.0
    width: float = 0.0

    @property
    def flags(self) -> list[str | Promise]:
        return [Flag(flag).label for flag in self.standing.flags]


def scaled(standings: list[Standing]) -> list[ScaledStanding]:
    """Every row's interval on one axis that holds them all."""
    ends = [end for row in standings for end in (row.lower, row.upper, row.rating) if end is not None]
    low, high = min(ends, default=0.0), max(ends, default=0.0)
    scale = 100 / ((high - low) or 1.0)
    rows = []
    for row in standings:
        if row.rating is None:
            rows.append(ScaledStanding(row))
            continue
        at = round((row.rating - low) * scale, 2)
        if row.lower is None or row.upper is None:
            rows.append(ScaledStanding(row, at, at))
        else:
            rows.append(
                ScaledStanding(row, at, round((row.lower - low) * scale, 2), round((row.upper - row.lower) * scale, 2))
            )
    return rows


def measure_board(project: Project, **chosen: Any) -> dict[str, Any]:
    """One leaderboard with its flags and its history; for `stored_figures`."""
    choices = Choices(**chosen)
    return {
        "board": asdict(make_leaderboard(project, choices, with_flags=True)),
        "history": follow_ratings(project, choices),
    }


def stored_board(project: Project, choices: Choices) -> tuple[Leaderboard, dict[str, Any], datetime]:
    """The leaderboard as its page shows it, its history, and the time that both are of."""
    chosen = asdict(choices)
    digest = hashlib.sha256(repr(sorted(chosen.items())).encode()).hexdigest()[:24]
    data, as_of = stored_figures(project, f"board {digest}", partial(measure_board, **chosen))
    stored = data["board"]
    parts = {
        "standings": [Standing(**row) for row in stored["standings"]],
        "style": [StyleEffect(**row) for row in stored["style"]],
    }
    return Leaderboard(**stored | parts), data["history"], as_of


@require_role(Role.REVIEWER)
@require_GET
def leaderboard(request: MemberRequest, project: Project) -> HttpResponse:
    choices, passed_over = _chosen(request)
    board, past, as_of = stored_board(project, choices)
    values = browse.tallied_values(project, Tally.Scope.PROMPT)
    names = [standing.source for standing in board.standings if standing.rating is not None][:LINES_SHOWN]
    chart = line_chart(past["at"], {name: past["ratings"][name] for name in names if name in past["ratings"]})
    impossible = WITHOUT_EFFECT_ON_ELO if choices.method == "elo" else {}
    context = {
        "project": project,
        "choices": choices,
        "passed_over": passed_over,
        "board": board,
        "rows": scaled(board.standings),
        "style": [(STYLE_WORDS[effect.feature], effect) for effect in board.style],
        "fields": [
            (name, label, options, getattr(choices, name), impossible.get(name, ()))
            for name, (label, options) in WORDS.items()
        ],
        "marks": [
            ("category", _("Category"), [value for value, _count in values["task"] if value], choices.category),
            ("lang", _("Language"), [value for value, _count in values["lang"] if value], choices.lang),
        ],
        "chart": chart,
        "chart_days": [
            (tick.at, datetime.fromtimestamp(tick.value, UTC)) for tick in (chart.x_ticks if chart else [])
        ],
        "lines_shown": LINES_SHOWN,
        "as_of": as_of,
    }
    return render(request, "people/leaderboard.html", context)


def _chosen(request: MemberRequest) -> tuple[Choices, str]:
    """Out of the address, and what had to be passed over of it because it has no effect beside the rest."""
    given = {name: request.GET[name] for name, known in KNOWN_CHOICES.items() if request.GET.get(name) in known}
    marks = {name: request.GET[name][:200] for name in ("category", "lang") if request.GET.get(name)}
    held = bool(request.GET.get("control"))
    passed_over = ""
    if given.get("method") == "elo":
        without = [name for name, values in WITHOUT_EFFECT_ON_ELO.items() if given.get(name) in values]
        if held or "ties" in without:
            passed_over = gettext("Elo counts a tie as half a win or leaves it out, and cannot hold style equal.")
        given, held = {name: value for name, value in given.items() if name not in without}, False
    elif held and given.get("intervals") == "bootstrap":
        passed_over = gettext("With style held equal the intervals are those of the sandwich estimate.")
        del given["intervals"]
    return Choices(**({"voters": "people"} | given | marks), control=held), passed_over
