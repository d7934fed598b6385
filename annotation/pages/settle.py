"""Where reviewers settle what people disagree about, flagged or skipped: the texts blind, the votes without names."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.dateparse import parse_datetime
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation.access import MemberRequest, is_at_least, require_role
from annotation.answer import Answer
from annotation.blind import blind_comparison, shown_responses
from annotation.content_order import MAX_NOTE_CHARS, check_text, is_ranked, read_verdict
from annotation.models import (
    Adjudication,
    Annotator,
    Assignment,
    AssignmentStatus,
    Comparison,
    Flag,
    Gold,
    Preference,
    Project,
    Role,
)
from annotation.pages.answers import read_ranks
from annotation.pages.compare_form import ranking_context
from annotation.pages.said import as_shown, in_words, live_votes, shown_votes
from annotation.protocol import Protocol
from annotation.services import ConflictError, DomainError, annotator_for
from annotation.services.quality import (
    add_gold,
    adjudicate,
    leave_undecided,
    mark_for_review,
    restore_comparison,
    withdraw_comparison,
)

SHOWN = 25
SETTLED_SHOWN = 10


@dataclass
class Waiting:
    """One line of the list: why a comparison waits."""

    comparison: Comparison
    votes: list[str] = field(default_factory=list)
    """The verdicts in content order of strength, a's side first."""
    flags: list[Flag] = field(default_factory=list)
    skips: int = 0

    @property
    def question(self) -> str:
        return self.comparison.prompt.messages[-1]["content"]


@dataclass(frozen=True)
class Typed:
    """What stands in the form: a choice, or ranks from left to right."""

    choice: str = ""
    ranks: Sequence[str] = ()
    note: str = ""

    @classmethod
    def of(cls, request: MemberRequest) -> Typed:
        return cls(request.POST.get("choice", ""), request.POST.getlist("rank"), request.POST.get("note", "").strip())


@require_role(Role.REVIEWER)
@require_GET
def waiting(request: MemberRequest, project: Project) -> HttpResponse:
    page = list(_older(project, request.GET.get("before", "")).select_related("prompt")[: SHOWN + 1])
    lines = {comparison.pk: Waiting(comparison) for comparison in page[:SHOWN]}
    for vote in live_votes(list(lines)):
        lines[vote.comparison_id].votes.append(vote.preference)
    for flag in Flag.objects.filter(comparison__in=lines, resolved_at=None).order_by("pk"):
        lines[flag.comparison_id].flags.append(flag)
    for pk in Assignment.objects.filter(comparison__in=lines, status=AssignmentStatus.SKIPPED).values_list(
        "comparison", flat=True
    ):
        lines[pk].skips += 1
    settled = (
        Adjudication.objects.filter(comparison__project=project, superseded_at=None)
        .select_related("comparison__prompt", "reviewer")
        .order_by("-pk")[:SETTLED_SHOWN]
    )
    context = {
        "project": project,
        "lines": list(lines.values()),
        "next": _cursor(page[SHOWN - 1]) if len(page) > SHOWN else None,
        "is_first": "before" not in request.GET,
        "settled": settled,
    }
    return render(request, "quality/waiting.html", context)


@require_role(Role.REVIEWER)
@require_POST
def look_again(request: MemberRequest, project: Project) -> HttpResponse:
    changed = mark_for_review(project=project)
    if changed:
        messages.success(request, _("The list is up to date."))
    else:
        messages.info(request, _("The list was up to date: no votes disagree that are not on it."))
    return redirect("adjudicate", project.slug)


@require_role(Role.REVIEWER)
@require_http_methods(["GET", "POST"])
def settle(request: MemberRequest, project: Project, comparison_id: int) -> HttpResponse:
    comparison = _comparison(project, comparison_id)
    reviewer = annotator_for(request.user)
    if request.method == "GET":
        return _settle_page(request, project, comparison, reviewer)
    make_gold = bool(request.POST.get("make_gold"))
    if make_gold and not is_at_least(request.role, Role.ADMIN):
        raise PermissionDenied(_("Only admins of a project add gold items. Nothing was stored."))
    following = _after(project, comparison)
    typed = Typed.of(request)
    based_on = request.POST.get("based_on", "")
    try:
        check_text("note", typed.note, MAX_NOTE_CHARS)
        answer = Answer(choice=typed.choice, ranking=read_ranks(request.POST))
        preference, strength, ranking = _in_content_order(answer, Protocol.of(project), _order(reviewer, comparison))
        adjudicate(
            comparison,
            reviewer=reviewer,
            preference=preference,
            strength=strength,
            ranking=ranking,
            note=typed.note,
            based_on=int(based_on) if based_on.isdigit() else None,
        )
        if make_gold:
            add_gold(comparison, preference=preference, strength=strength, reason=typed.note, by=request.user)
    except DomainError as refused:
        messages.error(request, str(refused))
        status = 409 if isinstance(refused, ConflictError) else 422
        return _settle_page(request, project, _comparison(project, comparison_id), reviewer, typed, status)
    return _go_on(request, project, following, _("The verdict is stored."))


@require_role(Role.REVIEWER)
@require_POST
def settle_without_verdict(request: MemberRequest, project: Project, comparison_id: int) -> HttpResponse:
    comparison, reviewer = _comparison(project, comparison_id), annotator_for(request.user)
    following = _after(project, comparison)
    match request.POST.get("action"):
        case "leave":
            leave_undecided(comparison, reviewer=reviewer)
            return _go_on(request, project, following, _("Left as it is: the votes count as they are."))
        case "withdraw":
            withdraw_comparison(comparison, reviewer=reviewer)
            return _go_on(
                request, project, following, _("Withdrawn: nobody gets it any more, and its votes are kept.")
            )
        case "restore":
            restore_comparison(comparison, reviewer=reviewer)
            messages.success(request, _("It is handed out again."))
    return redirect("settle", project.slug, comparison.pk)


def _go_on(request: MemberRequest, project: Project, following: Comparison | None, sentence: str) -> HttpResponse:
    messages.success(request, sentence)
    return redirect("settle", project.slug, following.pk) if following else redirect("adjudicate", project.slug)


def _settle_page(
    request: MemberRequest,
    project: Project,
    comparison: Comparison,
    reviewer: Annotator,
    typed: Typed | None = None,
    status: int = 200,
) -> HttpResponse:
    order = _order(reviewer, comparison)
    protocol = Protocol.of(project)
    standing = (
        Adjudication.objects.filter(comparison=comparison, superseded_at=None).select_related("reviewer").first()
    )
    labels = {verdict.value: verdict.label for verdict in protocol.verdicts}
    filled = typed or (_as_typed(standing, order, labels) if standing else Typed())
    given = _assignment(comparison, reviewer, order)
    shown = blind_comparison(given)
    context: dict[str, Any] = {
        "project": project,
        "comparison": comparison,
        "shown": shown,
        "verdicts": protocol.verdicts,
        "graded": sum(verdict.value != "neither" for verdict in protocol.verdicts),
        "votes": shown_votes(comparison, reviewer, protocol, order, shown_responses(given)),
        "flags": Flag.objects.filter(comparison=comparison, resolved_at=None).order_by("pk"),
        "skips": Assignment.objects.filter(comparison=comparison, status=AssignmentStatus.SKIPPED).order_by("pk"),
        "standing": standing,
        "standing_label": in_words(standing, order, labels) if standing else "",
        "chosen": filled.choice,
        "note": filled.note,
        "following": _after(project, comparison),
        "gold": Gold.objects.filter(comparison=comparison, retired_at=None).first(),
        "may_make_gold": is_at_least(request.role, Role.ADMIN) and comparison.response_count == 2,
        **ranking_context(protocol, shown, ranks=filled.ranks, is_neither=filled.choice == "neither"),
    }
    return render(request, "quality/settle.html", context, status=status)


# ── The list ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _older(project: Project, cursor: str) -> QuerySet[Comparison]:
    """What waits, newest first, from behind the cursor on."""
    rows = Comparison.objects.filter(project=project, review_since__isnull=False).order_by("-review_since", "-pk")
    since, _separator, pk = cursor.rpartition("_")
    moment = parse_datetime(since) if since else None
    if moment is None or not pk.isdigit():
        return rows
    return _behind(rows, moment, int(pk))


def _behind(rows: QuerySet[Comparison], moment: datetime, pk: int) -> QuerySet[Comparison]:
    return rows.filter(review_since__lte=moment).filter(Q(review_since__lt=moment) | Q(pk__lt=pk))


def _cursor(comparison: Comparison) -> str:
    assert comparison.review_since is not None
    return f"{comparison.review_since.isoformat()}_{comparison.pk}"


def _after(project: Project, comparison: Comparison) -> Comparison | None:
    """The next one on the list, or its first where this one is not on it or the last."""
    rows = Comparison.objects.filter(project=project, review_since__isnull=False).exclude(pk=comparison.pk)
    rows = rows.order_by("-review_since", "-pk")
    behind = _behind(rows, comparison.review_since, comparison.pk).first() if comparison.review_since else None
    return behind or rows.first()


# ── One comparison ───────────────────────────────────────────────────────────────────────────────────────────────


def _comparison(project: Project, pk: int) -> Comparison:
    rows = Comparison.objects.filter(project=project).select_related("prompt", "response_a", "response_b")
    return get_object_or_404(rows, pk=pk)


def _order(reviewer: Annotator, comparison: Comparison) -> list[int]:
    """The content positions from left to right, drawn for the reviewer and the comparison: always the same."""
    order = list(range(comparison.response_count))
    random.Random(f"{reviewer.pk}:{comparison.pk}").shuffle(order)
    return order


def _assignment(comparison: Comparison, reviewer: Annotator, order: list[int]) -> Assignment:
    """Never stored: it goes to the page by the same road as an annotator's."""
    return Assignment(
        comparison=comparison,
        annotator=reviewer,
        project_id=comparison.project_id,
        a_shown_on_left=order.index(0) < order.index(1),
        display_order=order if comparison.response_count > 2 else None,
    )


def _as_typed(standing: Adjudication, order: list[int], labels: dict[str, str | Promise]) -> Typed:
    ranking = standing.ranking
    if ranking is None and not labels.keys() - {"neither"} and standing.preference != Preference.NEITHER:
        # In a project of rankings, a pair is settled by ranks, too.
        ranking = {Preference.A: [1, 2], Preference.B: [2, 1]}.get(Preference(standing.preference), [1, 1])
    ranks = [str(ranking[position]) for position in order] if ranking else []
    return Typed("" if ranking else as_shown(standing, order, labels), ranks, standing.note)


def _in_content_order(
    answer: Answer, protocol: Protocol, order: list[int]
) -> tuple[str, int | None, list[int] | None]:
    """Preference, strength and ranks of a choice on the screen. Raises DomainError where the protocol has it not.

    A reviewer is asked for the verdict alone, whatever else the annotators are asked for.
    """
    question = Protocol(scale=protocol.scale, allow_tie=protocol.allow_tie, allow_neither=protocol.allow_neither)
    if is_ranked(protocol, len(order)) and answer.ranking is not None:
        answer = replace(answer, choice="ranked")
    if not answer.choice:
        raise DomainError(_("Choose a verdict first; nothing was stored."))
    verdict = read_verdict(answer, question, order)
    if verdict.ranking is None or len(order) > 2:
        return verdict.preference, verdict.strength, verdict.ranking
    first, second = verdict.ranking
    return (Preference.TIE if first == second else Preference.A if first < second else Preference.B), None, None
