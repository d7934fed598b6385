"""Where reviewers settle what people disagree about, flagged or skipped: the texts blind, the votes without names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
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
from annotation.blind import blind_comparison
from annotation.content_order import MAX_NOTE_CHARS, check_text, read_verdict
from annotation.models import (
    Adjudication,
    Annotator,
    Assignment,
    AssignmentStatus,
    Comparison,
    Flag,
    Gold,
    Judgment,
    Preference,
    Project,
    Role,
)
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
class ShownVote:
    """Somebody's vote as the reviewer sees it: no name, sides as on the reviewer's screen."""

    number: int
    verdict: str | Promise
    value: str
    note: str
    chips: list[str]
    is_own: bool


@require_role(Role.REVIEWER)
@require_GET
def waiting(request: MemberRequest, project: Project) -> HttpResponse:
    page = list(_older(project, request.GET.get("before", "")).select_related("prompt")[: SHOWN + 1])
    lines = {comparison.pk: Waiting(comparison) for comparison in page[:SHOWN]}
    for vote in _live_votes(list(lines)):
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
    choice, note = request.POST.get("choice", ""), request.POST.get("note", "").strip()
    based_on = request.POST.get("based_on", "")
    try:
        check_text("note", note, MAX_NOTE_CHARS)
        preference, strength = _in_content_order(choice, Protocol.of(project), _a_first(reviewer, comparison))
        adjudicate(
            comparison,
            reviewer=reviewer,
            preference=preference,
            strength=strength,
            note=note,
            based_on=int(based_on) if based_on.isdigit() else None,
        )
        if make_gold:
            add_gold(comparison, preference=preference, strength=strength, reason=note, by=request.user)
    except DomainError as refused:
        messages.error(request, str(refused))
        status = 409 if isinstance(refused, ConflictError) else 422
        return _settle_page(request, project, _comparison(project, comparison_id), reviewer, choice, note, status)
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
    choice: str = "",
    note: str = "",
    status: int = 200,
) -> HttpResponse:
    a_first = _a_first(reviewer, comparison)
    protocol = Protocol.of(project)
    standing = (
        Adjudication.objects.filter(comparison=comparison, superseded_at=None).select_related("reviewer").first()
    )
    labels = {verdict.value: verdict.label for verdict in protocol.verdicts}
    context: dict[str, Any] = {
        "project": project,
        "comparison": comparison,
        "shown": _blind(comparison, reviewer, a_first),
        "verdicts": protocol.verdicts,
        "graded": sum(verdict.value != "neither" for verdict in protocol.verdicts),
        "can_settle": comparison.response_count == 2 and bool(protocol.verdicts),
        "votes": _shown_votes(comparison, reviewer, labels, a_first),
        "flags": Flag.objects.filter(comparison=comparison, resolved_at=None).order_by("pk"),
        "skips": Assignment.objects.filter(comparison=comparison, status=AssignmentStatus.SKIPPED).order_by("pk"),
        "standing": standing,
        "standing_label": labels.get(_as_shown(standing, a_first, labels), standing.preference) if standing else "",
        "chosen": choice or (_as_shown(standing, a_first, labels) if standing else ""),
        "note": note or (standing.note if standing else ""),
        "following": _after(project, comparison),
        "gold": Gold.objects.filter(comparison=comparison, retired_at=None).first(),
        "may_make_gold": is_at_least(request.role, Role.ADMIN),
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


def _a_first(reviewer: Annotator, comparison: Comparison) -> bool:
    """Which side comes first, drawn for the reviewer and the comparison, and the same whenever they look."""
    return hashlib.sha256(f"{reviewer.pk}:{comparison.pk}".encode()).digest()[0] % 2 == 0


def _blind(comparison: Comparison, reviewer: Annotator, a_first: bool):  # type: ignore[no-untyped-def]
    """What an annotator would see: an assignment that is never stored goes the same road to the page."""
    return blind_comparison(
        Assignment(
            comparison=comparison,
            annotator=reviewer,
            project_id=comparison.project_id,
            a_shown_on_left=a_first,
            display_order=list(range(comparison.response_count)) if comparison.response_count > 2 else None,
        )
    )


def _live_votes(comparisons: list[int]) -> QuerySet[Judgment]:
    return Judgment.objects.filter(
        comparison__in=comparisons, superseded_at=None, round=0, annotator__is_human=True
    ).order_by("comparison", "strength", "preference", "pk")


def _shown_votes(
    comparison: Comparison, reviewer: Annotator, labels: dict[str, str | Promise], a_first: bool
) -> list[ShownVote]:
    shown = []
    for vote in _live_votes([comparison.pk]):
        value = _as_shown(vote, a_first, labels)
        shown.append((int(value) if value.lstrip("-").isdigit() else 9, value, vote))
    shown.sort(key=lambda entry: entry[0])
    return [
        ShownVote(
            number=number,
            verdict=labels.get(value, vote.get_preference_display()),
            value=value,
            note=vote.note,
            chips=vote.chips,
            is_own=vote.annotator_id == reviewer.pk,
        )
        for number, (_order, value, vote) in enumerate(shown, 1)
    ]


def _as_shown(said: Judgment | Adjudication, a_first: bool, labels: dict[str, str | Promise]) -> str:
    """The value of the verdict, among those of the protocol, as it looks with the sides on the reviewer's screen."""
    if said.preference not in (Preference.A, Preference.B):
        return "0" if said.preference == Preference.TIE else said.preference
    if said.strength is not None:
        return str(said.strength if a_first else -said.strength)
    side = "left" if (said.preference == Preference.A) == a_first else "right"
    # A side without a grade on a graded scale lies in the middle of its half.
    return side if side in labels else ("-2" if side == "left" else "2")


def _in_content_order(choice: str, protocol: Protocol, a_first: bool) -> tuple[str, int | None]:
    """Preference and strength of a choice on the screen. Raises DomainError where it is none of the protocol's.

    A reviewer is asked for the verdict alone, whatever else the annotators are asked for.
    """
    if not choice:
        raise DomainError(_("Choose a verdict first; nothing was stored."))
    question = Protocol(scale=protocol.scale, allow_tie=protocol.allow_tie, allow_neither=protocol.allow_neither)
    verdict = read_verdict(Answer(choice=choice), question, [0, 1] if a_first else [1, 0])
    return verdict.preference, verdict.strength
