"""Numbers as people read them: shares in percent, durations in the unit that matters, thousands set apart."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import template
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from rlhf.models import AliasMove, JobStatus
from rlhf.option_words import format_number
from rlhf.promotion import Criterion, kept_criteria

register = template.Library()


@register.filter
def number(value: float | None) -> str:
    """1440 as 1,440."""
    return "–" if value is None else f"{value:,.0f}"


@register.filter
def unlocalised(value: float) -> str:
    """For attributes of drawings, which know no decimal comma."""
    return f"{value:g}"


@register.filter
def percent(share: float | None, digits: int = 0) -> str:
    """0.714 as 71 %."""
    return gettext("not defined") if share is None else f"{100 * share:.{digits}f} %"


@register.filter
def bounds(share: Any) -> str:
    """The interval of a share as (68–74)."""
    if share is None or share.lower is None:
        return ""
    return f"({100 * share.lower:.0f}–{100 * share.upper:.0f})"


@register.filter
def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 90:
        return gettext("%(count)s s") % {"count": f"{seconds:.0f}"}
    if seconds < 5400:
        return gettext("%(count)s min") % {"count": f"{seconds / 60:.0f}"}
    return gettext("%(count)s h") % {"count": f"{seconds / 3600:.1f}"}


@register.filter
def hours(value: float) -> str:
    """Hours in two digits, or whole."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


@register.filter
def lasted(start: datetime | None, end: datetime | None = None) -> str:
    """From the start to the end, or to now."""
    return duration(((end or timezone.now()) - start).total_seconds()) if start else "–"


@register.filter
def metric(value: Any) -> str:
    """A logged value in four digits; large counts whole."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return format_number(float(f"{value:.4g}"))


@register.filter
def tone(status: str) -> str:
    """The colour of a job's badge."""
    return {
        JobStatus.RUNNING: "accent",
        JobStatus.PAUSED: "warning",
        JobStatus.SUCCEEDED: "good",
        JobStatus.FAILED: "error",
    }.get(JobStatus(status), "")


_STATUS_WORDS: dict[str, str | Promise] = {
    JobStatus.QUEUED: _("queued"),
    JobStatus.RUNNING: _("running"),
    JobStatus.PAUSED: _("paused"),
    JobStatus.SUCCEEDED: _("succeeded"),
    JobStatus.FAILED: _("failed"),
    JobStatus.CANCELLED: _("cancelled"),
}


@register.filter
def status_word(status: str) -> str:
    """A job's status on its badge."""
    return str(_STATUS_WORDS[JobStatus(status)])


_VERDICT_WORDS: dict[str, str | Promise] = {"tie": _("tie"), "neither": _("neither")}


@register.filter
def verdict_word(verdict: str) -> str:
    """The verdict of a frozen row; other words than these are codes of the file."""
    return str(_VERDICT_WORDS.get(verdict, verdict))


@register.filter
def get(mapping: dict[str, Any], key: str) -> Any:
    """A value whose key is no template name, such as `rewards/chosen`."""
    return mapping.get(key)


@register.filter
def worker(owner: str) -> str:
    """The host out of host:pid:token."""
    return owner.split(":")[0]


@register.filter
def share_place(record: dict[str, Any]) -> str:
    """Where a share and its interval lie on an axis from 0 to 1, for `.interval`."""
    at, start, end = (100 * record[name] for name in ("win_rate", "lower", "upper"))
    return f"--at: {at:.2f}%; --start: {start:.2f}%; --width: {end - start:.2f}%"


@register.filter
def gate_criteria(move: AliasMove) -> list[Criterion]:
    """What its gate found when an alias moved."""
    return kept_criteria(move)


@register.filter
def points(difference: float) -> str:
    """A difference of shares: +3.7 or −0.5."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


@register.filter
def share_dot(share: Any) -> str:
    """The same for a Share."""
    return share_place({"win_rate": share.value, "lower": share.lower, "upper": share.upper})


@register.filter
def score(value: float, unit: str = "") -> str:
    """A category's figure: points in one decimal, anything else in three digits that matter."""
    return f"{value:.1f}" if unit else f"{value:.3g}".replace("-", "−")


@register.filter
def change(found: Any) -> str:
    """A change in points with its interval: −8.0 (−13.1 to −2.9)."""
    value, lower, upper = (points(number / 100) for number in (found.value, found.lower, found.upper))
    return gettext("%(value)s (%(lower)s to %(upper)s)") % {"value": value, "lower": lower, "upper": upper}


_SIDE_WORDS: dict[str, str | Promise] = {
    "chosen": _("chosen"),
    "rejected": _("rejected"),
    "desirable": _("desirable"),
    "undesirable": _("undesirable"),
}


@register.filter
def side_word(side: str) -> str:
    """Which side of a pair a row of a batch is."""
    return str(_SIDE_WORDS.get(side, side))


@register.filter
def ends(extremes: dict[str, Any]) -> list[tuple[str, list[Any]]]:
    """The worst and the best rows with their titles, the worst first: they say more."""
    return [(gettext("Worst"), extremes["worst"]), (gettext("Best"), extremes["best"])]


@register.filter
def cell_value(cell: Any) -> str:
    """A measurement of the comparison of jobs: shares in percent, else with the decimals of its column."""
    value = cell.value.value
    if cell.column.is_seconds:
        return duration(value)
    return f"{100 * value:.1f} %" if cell.column.is_share else _fixed(value, cell.column.decimals)


@register.filter
def cell_interval(cell: Any) -> str:
    """(68–74) of 120, or (−0.31 … 0.74) of 8"""
    lower, upper = cell.value.lower, cell.value.upper
    if cell.column.is_share:
        bounds = f"({100 * lower:.0f}–{100 * upper:.0f})"
    else:
        bounds = f"({_fixed(lower, cell.column.decimals)} … {_fixed(upper, cell.column.decimals)})"
    return bounds if cell.value.count is None else gettext("%(bounds)s of %(count)s") % {
        "bounds": bounds, "count": f"{cell.value.count:,}"
    }  # fmt: skip


@register.filter
def cell_delta(cell: Any) -> str:
    """+3.7 or −0.5, shares in points; of costs × 0.53."""
    if cell.times is not None:
        return f"× {cell.times:.2f}"
    if cell.delta is None:
        return ""
    value = 100 * cell.delta if cell.column.is_share else cell.delta
    digits = 1 if cell.column.is_share else cell.column.decimals
    sign = "±" if round(value, digits) == 0 else "+" if value > 0 else ""
    return sign + _fixed(value, digits)


def _fixed(value: float, digits: int) -> str:
    text = f"{value:,.{digits}f}"
    text = text.lstrip("-") if float(text.replace(",", "")) == 0 else text
    return text.replace("-", "−")


@register.filter
def setting(value: Any) -> str:
    """An option's value in the comparison of jobs; a dash where the method has none."""
    return "–" if value is None else format_number(value)
