"""What waits for a reviewer, and what their word changes."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError
from django.utils import timezone

from annotation.errors import ConflictError, DomainError
from annotation.models import (
    Adjudication,
    Annotator,
    Assignment,
    AssignmentKind,
    AssignmentStatus,
    Comparison,
    Event,
    EventKind,
    Flag,
    Judgment,
)
from annotation.services import quality as services
from tests.factories import make_annotator, make_comparison, make_judgment, make_project, make_ranking
from tests.votes import disputed, make_vote, waits

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("strengths", "expected"),
    [
        ([-1, 1], True),  # both sides
        ([-1, 0, 2, -1], True),
        ([-3, 0], True),  # more than two steps apart
        ([-3, -1, -2], False),
        ([-1, 0], True),  # no verdict has more votes than the other
        ([-1, 0, -2], False),
        ([None, -1, -1], False),
        ([None, -1], True),
        ([-2], False),
        ([], False),
    ],
)
def test_which_votes_disagree(strengths: list[int | None], expected: bool) -> None:
    comparison = make_comparison()
    for strength in strengths:
        make_vote(comparison, make_annotator(), strength)
    assert waits(comparison) == expected


def test_models_repeats_and_gold_start_no_dispute() -> None:
    project = make_project()
    comparison = make_comparison(project)
    make_vote(comparison, make_annotator(), -2)
    model = Annotator.objects.create(project=project, name="gpt", is_human=False)
    make_vote(comparison, model, 3)
    assert not waits(comparison)
    other = make_vote(comparison, make_annotator(), 2)
    assert waits(comparison)
    Judgment.objects.filter(pk=other.pk).update(round=1)
    assert not waits(comparison)
    Judgment.objects.filter(pk=other.pk).update(round=0)
    gold = services.add_gold(comparison, preference="a")
    assert not waits(comparison)
    Judgment.objects.filter(pk=other.pk).update(superseded_at=timezone.now())
    make_vote(comparison, make_annotator(), 2, kind=AssignmentKind.GOLD)
    services.retire_gold(gold)
    assert not waits(comparison)  # what somebody said of it as gold measures them


def skip(comparison: Comparison) -> None:
    Assignment.objects.create(
        comparison=comparison,
        annotator=make_annotator(),
        project=comparison.project,
        status=AssignmentStatus.SKIPPED,
        holds_place=False,
        a_shown_on_left=True,
        skip_reason="unclear",
        lease_expires_at=timezone.now(),
    )


def test_flags_and_three_skips_wait_until_a_reviewer_deals_with_them() -> None:
    comparison, reviewer = make_comparison(), make_annotator()
    skip(comparison)
    skip(comparison)
    assert not waits(comparison)
    skip(comparison)
    assert waits(comparison)
    services.leave_undecided(comparison, reviewer=reviewer)
    assert not waits(comparison)
    Flag.objects.create(comparison=comparison, annotator=make_annotator(), reason="personal data")
    assert waits(comparison)
    services.leave_undecided(comparison, reviewer=reviewer)
    flag = Flag.objects.get()
    assert flag.resolved_at and flag.resolved_by == reviewer.user
    assert not waits(comparison)
    skip(comparison)  # something new
    assert waits(comparison)


def test_a_verdict_settles_and_a_later_one_supersedes() -> None:
    comparison, reviewer = disputed(), make_annotator()
    Flag.objects.create(comparison=comparison, annotator=make_annotator(), reason="broken")
    first = services.adjudicate(comparison, reviewer=reviewer, preference="a", strength=-1, note="B invents a source.")
    assert not waits(comparison) and not Flag.objects.filter(resolved_at=None).exists()
    again = services.adjudicate(comparison, reviewer=reviewer, preference="a", strength=-1, note="B invents a source.")
    assert again == first
    second = services.adjudicate(comparison, reviewer=reviewer, preference="tie", strength=0, based_on=first.pk)
    first.refresh_from_db()
    assert first.superseded_at and Adjudication.objects.get(superseded_at=None) == second
    make_vote(comparison, make_annotator(), 3)
    assert not waits(comparison)  # settled is settled, unless somebody flags it
    events = Event.objects.filter(kind=EventKind.ADJUDICATE, comparison_id=comparison.pk)
    assert [event.data["action"] for event in events] == ["settled", "settled"]


def test_what_somebody_else_settled_meanwhile_is_not_overwritten() -> None:
    comparison = disputed()
    services.adjudicate(comparison, reviewer=make_annotator(), preference="b", strength=2)
    with pytest.raises(ConflictError, match="meanwhile"):
        services.adjudicate(comparison, reviewer=make_annotator(), preference="a", strength=-2)
    assert Adjudication.objects.get().preference == "b"


@pytest.mark.parametrize(
    ("verdict", "changes", "reason"),
    [
        ({"preference": "a", "strength": 1}, {}, "does not fit"),
        ({"preference": "ranked"}, {}, "a side, about the same, or neither"),
        ({"preference": "a"}, {"response_count": 3}, "settled by a ranking"),
        ({"preference": "ranked", "ranking": [1, 2]}, {"response_count": 3}, "every one of the 3"),
        ({"preference": "neither", "ranking": [1, 2, 3]}, {"response_count": 3}, "settled by a ranking"),
        ({"preference": "ranked", "strength": 1, "ranking": [1, 2, 3]}, {"response_count": 3}, "settled by a rank"),
        ({"preference": "a", "ranking": [1, 2]}, {}, "Only three responses or more"),
    ],
)
def test_an_impossible_verdict_is_refused(verdict: dict[str, Any], changes: dict[str, Any], reason: str) -> None:
    comparison = disputed()
    Comparison.objects.filter(pk=comparison.pk).update(**changes)
    with pytest.raises(DomainError, match=reason):
        services.adjudicate(comparison, reviewer=make_annotator(), **verdict)
    assert not Adjudication.objects.exists()


def test_rankings_disagree_where_no_response_is_first_in_all() -> None:
    comparison = make_ranking()
    make_judgment(comparison, "ranked", ranking=[1, 1, 2])
    assert not waits(comparison)
    make_judgment(comparison, "ranked", ranking=[2, 1, 3])
    assert not waits(comparison)  # the second one is first in both
    third = make_judgment(comparison, "ranked", ranking=[1, 2, 2])
    assert waits(comparison)
    Judgment.objects.filter(pk=third.pk).update(preference="neither", ranking=None)
    assert not waits(comparison)  # two rankings against one that found none good
    make_judgment(comparison, "neither")
    assert waits(comparison)
    services.adjudicate(comparison, reviewer=make_annotator(), preference="ranked", ranking=[1, 3, 3])
    assert not waits(comparison)
    assert Adjudication.objects.get().ranking == [1, 2, 2]  # without gaps, as votes are stored
    with pytest.raises(IntegrityError):
        Adjudication.objects.update(ranking=None)


def test_a_withdrawn_comparison_waits_no_more_until_it_is_restored() -> None:
    comparison, reviewer = disputed(), make_annotator()
    services.withdraw_comparison(comparison, reviewer=reviewer)
    make_vote(comparison, make_annotator(), 1)
    assert not waits(comparison) and comparison.is_withdrawn
    services.restore_comparison(comparison, reviewer=reviewer)
    assert not waits(comparison) and not comparison.is_withdrawn
    make_vote(comparison, make_annotator(), 1)
    assert waits(comparison)


def test_a_whole_project_is_looked_through_for_imported_votes() -> None:
    project, other = make_project(), make_project()
    comparisons = [make_comparison(project) for _ in range(3)]
    make_comparison(other)
    for comparison in (*comparisons[:2], other.comparisons.get()):
        make_vote(comparison, make_annotator(), -2)
        make_vote(comparison, make_annotator(), 2)
    assert services.mark_for_review(project=project) == 2
    assert services.mark_for_review(project=project) == 0
    assert set(Comparison.objects.exclude(review_since=None)) == set(comparisons[:2])


def test_rankings_are_flagged_and_dealt_with_without_a_verdict() -> None:
    comparison = make_comparison()
    Comparison.objects.filter(pk=comparison.pk).update(response_count=3)
    Flag.objects.create(comparison=comparison, annotator=make_annotator(), reason="broken")
    assert waits(comparison)
