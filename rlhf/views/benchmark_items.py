"""The benchmarks' data sets and items: browsing, checklists, and what judges and people ticked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpResponse, HttpResponseNotAllowed
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation.chat import ChatError
from annotation.markdown import render_markdown
from annotation.models import DeficiencyType, FeedbackType, Project, ResponseSource, Scenario, SourceKind
from annotation.services import DomainError
from rlhf.benchmark_drafts import draft_checklist
from rlhf.models import (
    Benchmark,
    BenchmarkAnswer,
    BenchmarkItem,
    BenchmarkJudgment,
    BenchmarkSet,
    BenchmarkTicks,
    Checklist,
)
from rlhf.services.benchmarks import assign_set, revise_checklist
from rlhf.views.access import StaffRequest, as_sentence, staff_required
from rlhf.views.benchmark_filters import filtered, filters_of, item_label, kinds_of
from rlhf.views.constraint_words import word
from rlhf.views.evaluation import FileForm

ITEMS_A_PAGE = 50
EMPTY_ROWS = 3
"""Blank lines at the end of the checklist's form."""


def _text(text: str) -> str:
    return render_markdown(text).html


@staff_required
@require_GET
def benchmark_set(request: StaffRequest, pk: int) -> HttpResponse:
    data_set = get_object_or_404(BenchmarkSet.objects.select_related("project"), pk=pk)
    items = filtered(data_set.kind, data_set.items.with_checklist(), request.GET)
    page = Paginator(items, ITEMS_A_PAGE).get_page(request.GET.get("page"))
    kept = request.GET.copy()
    kept.pop("page", None)
    context = {
        "data_set": data_set,
        "page": page,
        "filters": filters_of(data_set, request.GET),
        "rows": [(item, item_label(item)) for item in page.object_list],
        "text": request.GET.get("text", ""),
        "kept": kept.urlencode(),
        "file_form": FileForm(),
        "dropped": data_set.items.exclude(dropped_at=None).count(),
        "items_file": "items.jsonl" if data_set.kind == Benchmark.FB_BENCH else "items.json",
        "to_tick": BenchmarkAnswer.objects.filter(item__data_set=data_set, error="").exists(),
        "ticking": TickingForm(initial={"project": data_set.ticked_in_id}),
    }
    return render(request, "rlhf/benchmark_set.html", context)


class TickingForm(forms.Form):
    project = forms.ModelChoiceField(
        Project.objects.order_by("name"), required=False, label=_("Whose people tick"), empty_label=_("nobody’s")
    )


@staff_required
@require_POST
def benchmark_set_assign(request: StaffRequest, pk: int) -> HttpResponse:
    """Let a project's people tick the answers to a data set."""
    data_set = get_object_or_404(BenchmarkSet, pk=pk)
    form = TickingForm(request.POST)
    if form.is_valid():
        project = form.cleaned_data["project"]
        assign_set(data_set, project, by=request.user)
        said = gettext("The people of %(name)s tick these answers now.") % {"name": project.name} if project else ""
        messages.success(request, said or gettext("Only staff tick these answers now."))
    else:
        messages.error(request, gettext("Choose a project that is there."))
    return redirect("benchmark_set", pk=pk)


class DraftForm(forms.Form):
    source = forms.ModelChoiceField(
        ResponseSource.objects.filter(kind=SourceKind.MODEL).order_by("name"), label=_("Who drafts")
    )


@staff_required
@require_http_methods(["GET", "POST"])
def benchmark_item(request: StaffRequest, pk: int) -> HttpResponse:
    item = get_object_or_404(BenchmarkItem.objects.select_related("data_set"), pk=pk)
    newest = item.checklists.select_related("created_by", "drafted_by").last()
    criteria: list[Any] = [tuple(entry) for entry in (newest.criteria if newest else [])]
    error = ""
    drafter = None
    if request.method == "POST":
        if item.data_set.kind != Benchmark.FB_BENCH:
            return HttpResponseNotAllowed(["GET"])  # constraints are the data set's own
        drafter = ResponseSource.objects.filter(pk=number_of(request.POST.get("drafted_by"))).first()
        criteria = posted_criteria(request.POST)
        try:
            revise_checklist(
                item,
                weighed(criteria, item.scenario == Scenario.ERROR_CORRECTION),
                based_on=number_of(request.POST.get("based_on")),
                by=request.user,
                drafted_by=drafter,
            )
        except DomainError as refusal:
            error = as_sentence(refusal)
        else:
            messages.success(request, gettext("The checklist is saved. Judgments so far keep the one they used."))
            return redirect("benchmark_item", pk=pk)
    return _item_page(request, item, newest, criteria, error, drafter)


def _item_page(
    request: StaffRequest,
    item: BenchmarkItem,
    newest: Checklist | None,
    criteria: list[Any],
    error: str = "",
    drafter: ResponseSource | None = None,
) -> HttpResponse:
    answers = [
        (answer, _text(answer.text), side_by_side(answer))
        for answer in item.answers.select_related("run__source")
        .prefetch_related("judgments__run__judge", "judgments__checklist", "ticks__annotator", "ticks__checklist")
        .order_by("run__source__name", "pk")
    ]
    context = {
        "item": item,
        "query": _text(item.query),
        "first_response": _text(item.first_response),
        "reference": _text(item.reference) if item.reference else None,
        "deficiencies": [DeficiencyType(name).label for name in item.deficiency_types],
        "feedback_types": [FeedbackType(name).label for name in item.feedback_types],
        "checklist": newest,
        "version": newest.version if newest else 0,
        "is_weighted": item.scenario == Scenario.ERROR_CORRECTION,
        "rows": [*criteria, *[("", "")] * EMPTY_ROWS],
        "error": error,
        "drafter": drafter,
        "draft_form": DraftForm(),
        "answers": answers,
        "before": item.data_set.items.filter(position__lt=item.position).last(),
        "after": item.data_set.items.filter(position__gt=item.position).first(),
    }
    if item.data_set.kind != Benchmark.FB_BENCH:
        context |= {
            "system": _text(item.details.get("system", "")),
            "turns": _turns_of(item),
            "label": item_label(item),
            "criteria": [(entry[0], [word(kind) for kind in kinds_of(entry)]) for entry in criteria],
        }
        return render(request, "rlhf/constraint_item.html", context)
    return render(request, "rlhf/benchmark_item.html", context, status=422 if error else 200)


@dataclass(frozen=True, slots=True)
class SideBySide:
    """What judges and people said of one answer by one version of its checklist."""

    checklist: Checklist
    judgments: list[BenchmarkJudgment]
    people: list[BenchmarkTicks]

    @property
    def rows(self) -> list[tuple[str, list[tuple[bool, str]], list[bool]]]:
        """(criterion, (met, why) by judge, met by person); a judge whose bits are in no order has no column."""
        return [
            (
                entry[0],
                [(one.met[index], one.reasons[index] if one.reasons else "") for one in self.read],
                [given.met[index] for given in self.people],
            )
            for index, entry in enumerate(self.checklist.criteria)
        ]

    @property
    def read(self) -> list[BenchmarkJudgment]:
        return [one for one in self.judgments if not one.failure and not one.is_lenient]


def side_by_side(answer: BenchmarkAnswer) -> list[SideBySide]:
    """Newest checklist first."""
    judgments, people = list(answer.judgments.all()), list(answer.ticks.all())
    both: list[BenchmarkJudgment | BenchmarkTicks] = [*judgments, *people]
    checklists = {one.checklist_id: one.checklist for one in both}
    return [
        SideBySide(
            checklist,
            [one for one in judgments if one.checklist_id == pk],
            [given for given in people if given.checklist_id == pk],
        )
        for pk, checklist in sorted(checklists.items(), reverse=True)
    ]


def _turns_of(item: BenchmarkItem) -> QuerySet[BenchmarkItem]:
    """The session that a turn is of."""
    if item.session is None:
        return BenchmarkItem.objects.none()
    return BenchmarkItem.objects.filter(data_set=item.data_set_id, session=item.session)


def number_of(value: str | None) -> int:
    return int(value) if value and value.isdecimal() and len(value) < 10 else 0


def posted_criteria(posted: Any) -> list[tuple[str, str]]:
    texts, weights = posted.getlist("text"), posted.getlist("weight")
    weights += [""] * (len(texts) - len(weights))
    return [(text.strip(), weight.strip()) for text, weight in zip(texts, weights, strict=False) if text.strip()]


def weighed(criteria: list[tuple[str, Any]], is_weighted: bool) -> list[tuple[str, float | None]]:
    if not is_weighted:
        return [(text, None) for text, _weight in criteria]
    weighed = []
    for number, (text, weight) in enumerate(criteria, 1):
        try:
            weighed.append((text, float(str(weight).replace(",", "."))))
        except ValueError:
            raise DomainError(gettext("Give criterion %(number)s a weight.") % {"number": number}) from None
    return weighed  # type: ignore[return-value]


@staff_required
@require_POST
def benchmark_draft(request: StaffRequest, pk: int) -> HttpResponse:
    """Fill the checklist's form with a model's draft; nothing is stored before a person saves it."""
    item = get_object_or_404(
        BenchmarkItem.objects.select_related("data_set"), pk=pk, data_set__kind=Benchmark.FB_BENCH
    )
    form = DraftForm(request.POST)
    newest = item.checklists.last()
    kept = [(text, weight) for text, weight in (newest.criteria if newest else [])]
    if not form.is_valid():
        return _item_page(request, item, newest, kept, gettext("Choose who drafts."))
    drafter = form.cleaned_data["source"]
    try:
        drafted = draft_checklist(drafter, item.as_item([]))
    except (ChatError, DomainError) as error:
        sentence = str(error.trouble.label) if isinstance(error, ChatError) else as_sentence(error)
        return _item_page(request, item, newest, kept, sentence)
    messages.info(request, gettext("This is a draft. Check every line, then save it."))
    return _item_page(request, item, newest, list(drafted), "", drafter)
