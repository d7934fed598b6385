"""FB-Bench's data sets and items: browsing, checklists, and what people tick."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, Q, QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation.chat import ChatError
from annotation.markdown import render_markdown
from annotation.models import DeficiencyType, FeedbackType, ResponseSource, Scenario, SourceKind
from annotation.services import DomainError, annotator_for
from rlhf.benchmark_drafts import draft_checklist
from rlhf.models import BenchmarkAnswer, BenchmarkItem, BenchmarkJudgment, BenchmarkSet, Checklist
from rlhf.services.benchmarks import revise_checklist, store_ticks
from rlhf.views.access import StaffRequest, as_sentence, staff_required
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
    items = _filtered(data_set.items.with_checklist(), request.GET)
    page = Paginator(items, ITEMS_A_PAGE).get_page(request.GET.get("page"))
    kept = request.GET.copy()
    kept.pop("page", None)
    context = {
        "data_set": data_set,
        "page": page,
        "filters": _filters(data_set, request.GET),
        "text": request.GET.get("text", ""),
        "kept": kept.urlencode(),
        "file_form": FileForm(),
        "to_tick": BenchmarkAnswer.objects.filter(item__data_set=data_set, error="").exists(),
    }
    return render(request, "rlhf/benchmark_set.html", context)


def _filtered(items: QuerySet[BenchmarkItem], asked: Any) -> QuerySet[BenchmarkItem]:
    for name in ("scenario", "task", "sub_task"):
        if value := asked.get(name):
            items = items.filter(**{name: value})
    for name in ("deficiency_types", "feedback_types"):
        if value := asked.get(name):
            items = items.filter(**{f"{name}__contains": [value]})
    if text := asked.get("text", "").strip():
        items = items.filter(
            Q(query__icontains=text) | Q(first_response__icontains=text) | Q(feedback__icontains=text)
        )
    return items


def _filters(data_set: BenchmarkSet, asked: Any) -> list[dict[str, Any]]:
    """What the filters offer, with the number of items that each choice leaves."""
    shown = []
    for name, label in (("scenario", _("Scenario")), ("task", _("Task")), ("sub_task", _("Sub-task"))):
        rest = asked.copy()
        rest.pop(name, None)
        counts = _filtered(data_set.items.all(), rest).order_by().values_list(name).annotate(count=Count("pk"))
        names = dict(Scenario.choices) if name == "scenario" else {}
        options = [(value, names.get(value, value), count) for value, count in sorted(counts) if value]
        shown.append({"name": name, "label": label, "value": asked.get(name, ""), "options": options})
    for name, label, choices in (
        ("deficiency_types", _("Deficiency"), DeficiencyType),
        ("feedback_types", _("Feedback"), FeedbackType),
    ):
        rest = asked.copy()
        rest.pop(name, None)
        items = _filtered(data_set.items.all(), rest)
        counted = items.order_by().aggregate(
            **{value: Count("pk", filter=Q(**{f"{name}__contains": [value]})) for value in choices.values}
        )
        options = [(value, text, counted[value]) for value, text in choices.choices if counted[value]]
        shown.append({"name": name, "label": label, "value": asked.get(name, ""), "options": options})
    return shown


def _said(judgment: BenchmarkJudgment) -> Iterator[tuple[Any, bool, str]]:
    """(criterion, whether it is met, why) in the checklist's order; nothing where the judgment failed."""
    return zip(judgment.checklist.criteria, judgment.met, judgment.reasons or [""] * len(judgment.met), strict=False)


class DraftForm(forms.Form):
    source = forms.ModelChoiceField(
        ResponseSource.objects.filter(kind=SourceKind.MODEL).order_by("name"), label=_("Who drafts")
    )


@staff_required
@require_http_methods(["GET", "POST"])
def benchmark_item(request: StaffRequest, pk: int) -> HttpResponse:
    item = get_object_or_404(BenchmarkItem.objects.select_related("data_set"), pk=pk)
    newest = item.checklists.select_related("created_by", "drafted_by").last()
    criteria: list[tuple[str, Any]] = [(text, weight) for text, weight in (newest.criteria if newest else [])]
    error = ""
    drafter = None
    if request.method == "POST":
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
    criteria: list[tuple[str, Any]],
    error: str = "",
    drafter: ResponseSource | None = None,
) -> HttpResponse:
    answers = []
    for answer in (
        item.answers.select_related("run__source")
        .prefetch_related("judgments__run__judge", "judgments__checklist", "ticks__annotator", "ticks__checklist")
        .order_by("run__source__name", "pk")
    ):
        columns = [
            (judgment, [(criterion[0], met, reason) for criterion, met, reason in _said(judgment)])
            for judgment in answer.judgments.all()
        ]
        ticks = [(given, list(given.met)) for given in answer.ticks.all()]
        answers.append((answer, _text(answer.text), columns, ticks))
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
    return render(request, "rlhf/benchmark_item.html", context, status=422 if error else 200)


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
    item = get_object_or_404(BenchmarkItem.objects.select_related("data_set"), pk=pk)
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


@staff_required
@require_http_methods(["GET", "POST"])
def benchmark_tick(request: StaffRequest, pk: int) -> HttpResponse:
    """One answer after the other, in an order of the person's own, without a word about who wrote it."""
    data_set = get_object_or_404(BenchmarkSet, pk=pk)
    annotator = annotator_for(request.user)
    waiting = BenchmarkAnswer.objects.filter(item__data_set=data_set, error="").exclude(ticks__annotator=annotator)
    error = ""
    if request.method == "POST":
        answer = get_object_or_404(BenchmarkAnswer, pk=number_of(request.POST.get("answer")), item__data_set=data_set)
        checklist = get_object_or_404(Checklist, pk=number_of(request.POST.get("checklist")), item_id=answer.item_id)
        met = [request.POST.get(f"met-{number}") for number in range(len(checklist.criteria))]
        if all(value in ("yes", "no") for value in met):
            store_ticks(answer, checklist, annotator, [value == "yes" for value in met], request.POST.get("note", ""))
            return redirect("benchmark_tick", pk=pk)
        error = gettext("Say yes or no to every criterion.")
        shown: BenchmarkAnswer | None = answer
    else:
        shown = _next_of(waiting, annotator.pk)
    item = shown and BenchmarkItem.objects.with_checklist().get(pk=shown.item_id)
    context = {
        "data_set": data_set,
        "left": waiting.count(),
        "done": BenchmarkAnswer.objects.filter(item__data_set=data_set, ticks__annotator=annotator).count(),
        "error": error,
    }
    if shown and item:
        context |= {
            "answer": shown,
            "item": item,
            "query": _text(item.query),
            "first_response": _text(item.first_response),
            "second_response": _text(shown.text),
            "criteria": [(number, text) for number, (text, _weight) in enumerate(item.criteria)],  # type: ignore[attr-defined]
        }
    return render(request, "rlhf/benchmark_tick.html", context, status=422 if error else 200)


def _next_of(waiting: QuerySet[BenchmarkAnswer], annotator_id: int) -> BenchmarkAnswer | None:
    """The same order whenever this person comes, another one for others, and models mixed."""
    ids = list(waiting.values_list("pk", flat=True))
    if not ids:
        return None
    chosen = min(ids, key=lambda pk: hashlib.sha256(f"{annotator_id}:{pk}".encode()).digest())
    return BenchmarkAnswer.objects.get(pk=chosen)
