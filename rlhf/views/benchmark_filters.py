"""What a data set's items can be filtered by, and how lists call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Count, Q, QuerySet
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from annotation.models import DeficiencyType, FeedbackType, Scenario
from rlhf.evaluation.cfbench import PRIMARY
from rlhf.models import Benchmark, BenchmarkItem, BenchmarkSet
from rlhf.views.constraint_words import word

Items = QuerySet[BenchmarkItem]


@dataclass(frozen=True, slots=True)
class Filter:
    """A choice among the values of a column, or (`values`) among what a list of the item may hold."""

    name: str
    label: str | Promise
    lookup: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    """By value: its label."""
    holds: str = ""
    """A lookup `…__contains`; the value is wrapped in lists as deep as `depth`."""
    depth: int = 1
    is_number: bool = False

    def condition(self, value: str) -> Q:
        if self.is_number and not value.isdecimal():
            return Q(pk__in=[])
        if not self.holds:
            return Q(**{self.lookup or self.name: int(value) if self.is_number else value})
        wrapped: Any = value
        for _level in range(self.depth):
            wrapped = [wrapped]
        return Q(**{self.holds: wrapped})


_DOMAIN, _SCENARIO = Filter("task", _("Domain")), Filter("sub_task", _("Scenario"))
_CLASS = Filter("kind", _("Class of constraint"), holds="checklists__criteria__contains", depth=2)
FILTERS: dict[str, tuple[Filter, ...]] = {
    Benchmark.FB_BENCH: (
        Filter("scenario", _("Scenario"), values=dict(Scenario.choices)),
        Filter("task", _("Task")),
        Filter("sub_task", _("Sub-task")),
        Filter(
            "deficiency_types",
            _("Deficiency"),
            values=dict(DeficiencyType.choices),
            holds="deficiency_types__contains",
        ),
        Filter("feedback_types", _("Feedback"), values=dict(FeedbackType.choices), holds="feedback_types__contains"),
    ),
    Benchmark.CFBENCH: (Filter("split", _("Split"), "details__split"), _DOMAIN, _SCENARIO, _CLASS),
    Benchmark.SYSBENCH: (
        Filter("turn", _("Turn"), is_number=True),
        Filter("alignment", _("Alignment"), "details__alignment"),
        _DOMAIN,
        _SCENARIO,
        _CLASS,
    ),
}


def filtered(kind: str, items: Items, asked: Mapping[str, Any]) -> Items:
    for one in FILTERS[kind]:
        if value := asked.get(one.name, "").replace("\0", ""):
            items = items.filter(one.condition(value))
    if text := asked.get("text", "").replace("\0", "").strip():
        items = items.filter(
            Q(query__icontains=text) | Q(first_response__icontains=text) | Q(feedback__icontains=text)
        )
    return items


def filters_of(data_set: BenchmarkSet, asked: Any) -> list[dict[str, Any]]:
    """What the filters offer, with the number of items that each choice leaves."""
    shown = []
    for one in FILTERS[data_set.kind]:
        rest = asked.copy()
        rest.pop(one.name, None)
        items = filtered(data_set.kind, data_set.items.all(), rest).order_by()
        options = _held(one, items) if one.holds else _valued(one, items)
        shown.append({"name": one.name, "label": one.label, "value": asked.get(one.name, ""), "options": options})
    return shown


def _valued(one: Filter, items: Items) -> list[tuple[str, Any, int]]:
    lookup = one.lookup or one.name
    counts = items.values_list(lookup).annotate(count=Count("pk"))
    found = [(value, one.values.get(value, word(str(value))), count) for value, count in counts if value]
    return [(str(value), label, count) for value, label, count in sorted(found, key=lambda option: option[0])]


def _held(one: Filter, items: Items) -> list[tuple[str, Any, int]]:
    if one.values:
        counted = items.aggregate(**{value: Count("pk", filter=one.condition(value)) for value in one.values})
        return [(value, label, counted[value]) for value, label in one.values.items() if counted[value]]
    counts: dict[str, int] = {}
    for criteria in items.values_list("checklists__criteria", flat=True):
        for kind in {kinds_of(entry)[-1] for entry in criteria or []} - {""}:
            counts[kind] = counts.get(kind, 0) + 1
    return [(kind, word(kind), counts[kind]) for kind in sorted(counts, key=lambda kind: (-counts[kind], kind))]


def kinds_of(entry: Sequence[str]) -> list[str]:
    """What stands beside a constraint's text: priority and class, or SysBench's class."""
    if len(entry) > 3:
        return ["primary" if entry[1] == PRIMARY else "secondary", entry[2]]
    return [entry[1]]


def item_label(item: BenchmarkItem) -> str:
    """Where a constraint's item belongs, in a few words."""
    if item.session is not None:
        return gettext("session %(session)s, turn %(turn)s") % {"session": item.session, "turn": item.turn}
    return word(str(item.details.get("split", ""))) if item.details.get("split") else ""
