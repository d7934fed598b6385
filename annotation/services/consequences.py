"""What a verdict or a skip brings about for its comparison: its place in the queue, more votes, a rewrite, a review.

Only work counts: votes on gold items measure who gives them, and repeats measure how steady they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import Q

from annotation.models import (
    Assignment,
    AssignmentKind,
    AssignmentStatus,
    Comparison,
    Judgment,
    Preference,
    Project,
    QueueTier,
    RewriteCause,
)
from annotation.protocol import Protocol
from annotation.services.quality import SKIPS_FOR_REVIEW, mark_for_review
from annotation.services.rewriting import queue_rewrite, withdraw_rewrite

ESCALATION_VOTES = 3
"""The first votes, whose disagreement calls for more."""
ESCALATION_SPREAD = 2
"""Steps that these may lie apart."""


def follow_up_vote(comparison: Comparison, protocol: Protocol, project: Project, judgment: Judgment) -> None:
    """Whatever a vote on work changes beside itself. Call it in the vote's transaction, after the vote is stored."""
    is_only_vote = (
        comparison.required_count == 1 and not judgment.is_late and comparison.tier != QueueTier.PARTLY_JUDGED
    )
    may_be_rewritten = protocol.rewrite_below is not None or (
        protocol.rewrite_neither and judgment.preference == Preference.NEITHER
    )
    if is_only_vote and not may_be_rewritten and comparison.review_since is None and judgment.supersedes_id is None:
        return
    # Votes on one comparison take turns here, so that the last of them sees all.
    locked = Comparison.objects.select_for_update(no_key=True).only("required_count", "tier").get(pk=comparison.pk)
    votes = live_votes(comparison.pk)
    changes: dict[str, Any] = {}
    if locked.tier != QueueTier.PARTLY_JUDGED:
        changes["tier"] = QueueTier.PARTLY_JUDGED
    is_complete = len(votes) >= locked.required_count
    if is_complete and len(votes) < project.escalate_to > locked.required_count and is_disputed(votes):
        changes["required_count"] = locked.required_count + 1
    if changes:
        Comparison.objects.filter(pk=comparison.pk).update(**changes)
    if is_complete and protocol.asks_for_rewrites:
        if cause := rewrite_cause(votes, protocol, comparison.response_count):
            queue_rewrite(comparison.pk, cause=cause)
        else:
            withdraw_rewrite(comparison.pk)
    mark_for_review([comparison.pk])


def follow_up_skip(comparison: Comparison, *, is_verdict_withdrawn: bool) -> None:
    """After a skip: what several people skipped goes to the reviewers, and to nobody else until they restore it."""
    if is_verdict_withdrawn:
        votes = live_votes(comparison.pk)
        if len(votes) < comparison.required_count:
            withdraw_rewrite(comparison.pk)  # who votes in this person's place may ask for it again
        if not votes:
            Comparison.objects.filter(pk=comparison.pk, tier=QueueTier.PARTLY_JUDGED).update(tier=QueueTier.NEW)
    mark_for_review([comparison.pk])
    if _count_skips(comparison.pk) >= SKIPS_FOR_REVIEW:
        Comparison.objects.filter(pk=comparison.pk).update(is_withdrawn=True)


def follow_up_unskip(comparison: Comparison) -> None:
    """After a skip was undone: where it was the one too many, the comparison is handed out again."""
    if _count_skips(comparison.pk) == SKIPS_FOR_REVIEW - 1:
        Comparison.objects.filter(pk=comparison.pk).update(is_withdrawn=False)
    mark_for_review([comparison.pk])


def live_votes(comparison_id: int) -> list[Judgment]:
    """The votes that stand, first to last; without gold, repeats and what superseded ones said."""
    is_work = Q(assignment=None) | Q(assignment__kind=AssignmentKind.WORK)
    votes = Judgment.objects.filter(is_work, comparison=comparison_id, superseded_at=None, round=0)
    return list(votes.only("preference", "strength", "ranking", "ratings").order_by("created_at", "pk"))


def is_disputed(votes: Sequence[Judgment]) -> bool:
    """Whether the first three lie more than two steps apart or on both sides. "Neither" takes no side.

    Ungraded votes count as one step; rankings are disputed where no response is first for all three.
    """
    first = votes[:ESCALATION_VOTES]
    if len(first) < ESCALATION_VOTES:
        return False
    winners = [
        {position for position, rank in enumerate(vote.ranking) if rank == 1}
        for vote in first
        if vote.ranking is not None
    ]
    if winners and not set.intersection(*winners):
        return True
    sides = {Preference.A: -1, Preference.TIE: 0, Preference.B: 1}
    steps = [
        sides[Preference(vote.preference)] if vote.strength is None else vote.strength
        for vote in first
        if vote.preference in sides
    ]
    return bool(steps) and (max(steps) - min(steps) > ESCALATION_SPREAD or min(steps) < 0 < max(steps))


def rewrite_cause(votes: Sequence[Judgment], protocol: Protocol, response_count: int) -> RewriteCause | None:
    """Why a comparison needs a response that somebody writes, if it does."""
    neither = sum(vote.preference == Preference.NEITHER for vote in votes)
    if protocol.rewrite_neither and 2 * neither > len(votes):
        return RewriteCause.NEITHER
    if protocol.rewrite_below is not None:
        means = [_mean_score(votes, protocol, position) for position in range(response_count)]
        if all(mean is not None and mean < protocol.rewrite_below for mean in means):
            return RewriteCause.ALL_LOW
    return None


def _mean_score(votes: Sequence[Judgment], protocol: Protocol, position: int) -> float | None:
    """A response's scores on all aspects, scaled to 0 … 1, over all votes; None where nobody scored it."""
    scores = [
        (vote.ratings[aspect.name][position] - aspect.low) / (aspect.high - aspect.low)
        for vote in votes
        for aspect in protocol.aspects
        if aspect.name in vote.ratings and vote.ratings[aspect.name][position] is not None
    ]
    return sum(scores) / len(scores) if scores else None


def _count_skips(comparison_id: int) -> int:
    """By different people: nobody has two assignments of one round."""
    return Assignment.objects.filter(comparison=comparison_id, status=AssignmentStatus.SKIPPED, round=0).count()
