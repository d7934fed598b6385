"""CFBench's and SysBench's figures as tables and bars for the page of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from rlhf.benchmark_charts import Bars, bars_of
from rlhf.models import Benchmark

RATES: dict[str, tuple[str, ...]] = {
    Benchmark.CFBENCH: ("csr", "isr", "psr"),
    Benchmark.SYSBENCH: ("csr", "isr", "ssr"),
}
RATE_WORDS: dict[str, str | Promise] = {
    "csr": _("constraints satisfied"),
    "isr": _("all of an instruction’s constraints"),
    "psr": _("what matters most satisfied"),
    "ssr": _("turns before the first miss"),
}
WORDS: dict[str, str | Promise] = {
    "easy": _("easy"),
    "hard": _("hard"),
    "primary": pgettext_lazy("constraint", "primary"),
    "secondary": pgettext_lazy("constraint", "secondary"),
    "align": _("the user asks in line with the system message"),
    "misalign": _("the user asks against the system message"),
    "dependent": _("turns build on each other"),
    "parallel": _("turns stand alone"),
    "action": pgettext_lazy("constraint", "action"),
    "content": pgettext_lazy("constraint", "content"),
    "background": pgettext_lazy("constraint", "background"),
    "role": pgettext_lazy("constraint", "role"),
    "format": pgettext_lazy("constraint", "format"),
    "style": pgettext_lazy("constraint", "style"),
    "": pgettext_lazy("constraint", "not named"),
}
ROWS_SHOWN = 20
LONGEST_LABEL = 10
"""Letters of a class beside its bar, where they are wide ones."""


def word(key: str) -> str:
    """What a page calls a slice; what the data set names itself stays."""
    return str(WORDS.get(key, key))


@dataclass(frozen=True, slots=True)
class Rate:
    name: str
    word: str
    value: str
    bounds: str
    """What it would be, whatever the exercises without a verdict are worth; empty where all have one."""


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    columns: list[str]
    rows: list[tuple[str, list[str]]]
    note: str = ""
    is_wide: bool = False
    is_drawn: bool = False
    """Whether the page has bars in its place."""

    @property
    def shown_rows(self) -> list[tuple[str, list[str]]]:
        return self.rows[:ROWS_SHOWN]

    @property
    def left_out(self) -> int:
        """How many rows only the files have."""
        return max(0, len(self.rows) - ROWS_SHOWN)


def rates_of(kind: str, figures: dict[str, Any]) -> list[Rate]:
    is_open = figures["failed"] or figures["missing"]
    return [
        Rate(
            name.upper(),
            str(RATE_WORDS[name]),
            shown(figures[name]),
            gettext("%(worst)s to %(best)s whatever the rest is worth")
            % {"worst": shown(figures["at_worst"][name]), "best": shown(figures["at_best"][name])}
            if is_open
            else "",
        )
        for name in RATES[kind]
    ]


def shown(share: float | None) -> str:
    """In percent. CFBench's authors round to two decimals of a share, SysBench's to two of a percentage."""
    return "–" if share is None else f"{100 * share:.2f}".removesuffix(".00")


def tables_of(kind: str, figures: dict[str, Any]) -> list[Table]:
    if kind == Benchmark.CFBENCH:
        return [
            _by_rates(gettext("By split"), kind, figures["by_split"]),
            _by_share(gettext("By priority"), figures["by_priority"]),
            _by_share(gettext("By class of constraint"), figures["by_type"], is_drawn=True),
            _domains(kind, figures),
        ]
    alignment = {name: {"isr": value} for name, value in figures["isr_by_alignment"].items()}
    return [
        _by_share(gettext("By class of constraint"), figures["by_type"], is_drawn=True),
        _by_rates(gettext("By alignment of the turn"), kind, alignment, ["isr"]),
        _rounds(figures),
        _domains(kind, figures),
    ]


def _by_rates(title: str, kind: str, found: dict[str, dict[str, Any]], names: Sequence[str] | None = None) -> Table:
    names = names or RATES[kind]
    rows = [(word(key), [shown(values[name]) for name in names]) for key, values in found.items()]
    return Table(title, [name.upper() for name in names], rows)


def _by_share(title: str, found: dict[str, dict[str, Any]], *, is_drawn: bool = False) -> Table:
    rows = [(word(key), [shown(values["share"]), f"{values['count']:,}"]) for key, values in found.items()]
    return Table(title, [gettext("satisfied"), gettext("constraints")], rows, is_drawn=is_drawn)


def _domains(kind: str, figures: dict[str, Any]) -> Table:
    counted = "items" if kind == Benchmark.CFBENCH else "sessions"
    found: Iterable[tuple[str, dict[str, Any]]] = figures["by_domain"].items()
    rows = [
        (word(key), [*(shown(values[name]) for name in RATES[kind]), f"{values[counted]:,}"]) for key, values in found
    ]
    heads = [*(name.upper() for name in RATES[kind]), gettext("items") if counted == "items" else gettext("sessions")]
    return Table(gettext("By domain"), heads, rows, is_wide=True)


def _rounds(figures: dict[str, Any]) -> Table:
    """The share of sessions whose first 1, 2, … turns are all right."""
    columns = [gettext("first %(count)s") % {"count": turn} for turn in range(1, len(figures["rounds"]) + 1)]
    rows = [(gettext("all sessions"), [shown(share) for share in figures["rounds"]] + [shown(figures["ssr"])])]
    for key, values in sorted(figures["by_sessions"].items()):
        shares = [shown(share) for share in values["rounds"]]
        shares += [""] * (len(columns) - len(shares))
        rows.append((f"{word(key)} ({values['sessions']:,})", [*shares, shown(values["ssr"])]))
    return Table(
        gettext("Turns all right from the first"), [*columns, "SSR"], rows,
        gettext("The share of sessions whose first turns are all right, and SSR, their mean length."), is_wide=True,
    )  # fmt: skip


def bars(figures: dict[str, Any]) -> Bars:
    """Each class with how many constraints it has."""
    values = {
        f"{_short(word(key))} ({found['count']:,})": {"share": 100 * found["share"]}
        for key, found in figures["by_type"].items()
    }
    return bars_of(gettext("Satisfied by class of constraint"), values)


def _short(label: str) -> str:
    return label if label.isascii() or len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…"
