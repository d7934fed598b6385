"""People tick the criteria of answers, one after the other, without a word about who wrote them."""

from __future__ import annotations

import hashlib

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods

from annotation.access import MemberRequest, require_role
from annotation.markdown import render_markdown
from annotation.models import Annotator, Project, Role
from annotation.services import annotator_for
from rlhf.benchmark_questions import Histories
from rlhf.models import BenchmarkAnswer, BenchmarkItem, BenchmarkSet, BenchmarkTicks, Checklist
from rlhf.services.benchmarks import store_ticks
from rlhf.views.access import StaffRequest, staff_required
from rlhf.views.benchmark_items import number_of


@staff_required
@require_http_methods(["GET", "POST"])
def benchmark_tick(request: StaffRequest, pk: int) -> HttpResponse:
    data_set = get_object_or_404(BenchmarkSet, pk=pk)
    answers = BenchmarkAnswer.objects.filter(item__data_set=data_set)
    back = (data_set.name, reverse("benchmark_set", args=[pk]))
    return _tick(request, annotator_for(request.user), answers, back)


@require_role(Role.ANNOTATOR)
@require_http_methods(["GET", "POST"])
def project_tick(request: MemberRequest, project: Project) -> HttpResponse:
    """The answers to the data sets that this project's people tick."""
    answers = BenchmarkAnswer.objects.filter(item__data_set__ticked_in=project)
    if not project.is_open:
        answers = answers.none()
    return _tick(request, annotator_for(request.user), answers, (project.name, reverse("home")))


def _tick(
    request: HttpRequest, annotator: Annotator, answers: QuerySet[BenchmarkAnswer], back: tuple[str, str]
) -> HttpResponse:
    """One answer after the other, in an order of the person's own, models mixed; their own ticks can be corrected."""
    answers = answers.filter(error="", item__dropped_at=None)
    own = BenchmarkTicks.objects.filter(annotator=annotator, answer__in=answers)
    ticked = own.by_newest_checklist().order_by("-pk")
    waiting = answers.exclude(pk__in=ticked.values("answer"))
    error, corrected = "", None
    if request.method == "POST":
        answer = get_object_or_404(answers, pk=number_of(request.POST.get("answer")))
        checklist = get_object_or_404(Checklist, pk=number_of(request.POST.get("checklist")), item_id=answer.item_id)
        met = [request.POST.get(f"met-{number}") for number in range(len(checklist.criteria))]
        if all(value in ("yes", "no") for value in met):
            store_ticks(answer, checklist, annotator, [value == "yes" for value in met], request.POST.get("note", ""))
            return redirect(request.path)
        error = gettext("Say yes or no to every criterion.")
        shown: BenchmarkAnswer | None = answer
    elif asked := number_of(request.GET.get("answer")):
        corrected = get_object_or_404(ticked.select_related("answer__run"), answer=asked)
        shown = corrected.answer
    else:
        shown = _next_of(waiting, annotator.pk)
    item = shown and BenchmarkItem.objects.with_checklist().get(pk=shown.item_id)
    context = {
        "place": back[0],
        "back": back[1],
        "left": waiting.count(),
        "done": ticked.count(),
        "error": error,
        "corrected": corrected,
        "before_this": (ticked.filter(pk__lt=corrected.pk) if corrected else ticked).first(),
    }
    if shown and item:
        said = (
            {number: request.POST.get(f"met-{number}") for number in range(len(item.criteria))}  # type: ignore[attr-defined]
            if error
            else {number: "yes" if met else "no" for number, met in enumerate(corrected.met)}
            if corrected
            else {}
        )
        context |= {
            "answer": shown,
            "item": item,
            "query": _text(item.query),
            "first_response": _text(item.first_response),
            "system": _text(item.details.get("system", "")),
            "before": [(question, _text(text)) for question, text in Histories(shown.run, item.session).before(item)],
            "answer_text": _text(shown.text),
            "criteria": [
                (number, entry[0], said.get(number, ""))
                for number, entry in enumerate(item.criteria)  # type: ignore[attr-defined]
            ],
            "note": request.POST.get("note", "") if error else corrected.note if corrected else "",
            "is_changed": not corrected and own.filter(answer=shown).exclude(checklist=item.checklist_id).exists(),  # type: ignore[attr-defined]
        }
    return render(request, "rlhf/benchmark_tick.html", context, status=422 if error else 200)


def _text(text: str) -> str:
    return render_markdown(text).html


def _next_of(waiting: QuerySet[BenchmarkAnswer], annotator_id: int) -> BenchmarkAnswer | None:
    """The same order whenever this person comes, another one for others, and models mixed."""
    ids = list(waiting.values_list("pk", flat=True))
    if not ids:
        return None
    chosen = min(ids, key=lambda pk: hashlib.sha256(f"{annotator_id}:{pk}".encode()).digest())
    return BenchmarkAnswer.objects.select_related("run").get(pk=chosen)
