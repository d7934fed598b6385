"""Gold items, and the qualification round that is made of them."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from annotation.agreement import load_votes
from annotation.errors import ConflictError, DomainError
from annotation.models import (
    Annotator,
    Assignment,
    AssignmentKind,
    Comparison,
    Event,
    EventKind,
    Gold,
    Judgment,
    Membership,
    Project,
    QualificationState,
)
from annotation.quality import is_right, measure_annotators
from annotation.services import quality as services
from tests.factories import make_annotator, make_comparison, make_project, make_user
from tests.votes import make_vote

pytestmark = pytest.mark.django_db

# ── Gold ─────────────────────────────────────────────────────────────────────────────────────────────────────────

VERDICTS_GIVEN = [("a", -3), ("a", -2), ("a", -1), ("a", None), ("tie", 0), ("b", 1), ("b", 3), ("neither", None)]


def test_gold_is_scored_alike_in_python_and_in_sql() -> None:
    project = make_project()
    expected: dict[Annotator, tuple[int, int]] = {}
    comparisons = []
    for preference, strength in VERDICTS_GIVEN:
        comparison = make_comparison(project)
        services.add_gold(comparison, preference=preference, strength=strength)
        comparisons.append((comparison, preference, strength))
    for given, given_strength in VERDICTS_GIVEN:
        annotator = make_annotator()
        for comparison, _preference, _strength in comparisons:
            judgment = make_vote(comparison, annotator, 0, kind=AssignmentKind.GOLD)
            Judgment.objects.filter(pk=judgment.pk).update(preference=given, strength=given_strength)
        right = sum(is_right(wanted, degree, given, given_strength) for _, wanted, degree in comparisons)
        expected[annotator] = (len(comparisons), right)
    found = {
        figures.annotator: (figures.counts.gold, figures.counts.gold_right)
        for figures in measure_annotators(project, load_votes(project))
    }
    assert found == expected
    assert is_right("a", -3, "a", -2) and not is_right("a", -3, "a", -1) and not is_right("tie", 0, "a", -1)


def test_gold_is_added_retired_and_added_again() -> None:
    project, admin = make_project(), make_user()
    comparison = make_comparison(project)
    gold = services.add_gold(comparison, preference="a", strength=-2, reason="B is empty.", by=admin)
    assert Comparison.objects.get().is_gold
    make_vote(comparison, make_annotator(), -2, kind=AssignmentKind.GOLD)
    services.retire_gold(gold, by=admin)
    assert not Comparison.objects.get().is_gold
    assert measure_annotators(project, load_votes(project))[0].counts.gold_right == 1  # what it measured stays
    with pytest.raises(ConflictError, match="another verdict"):
        services.add_gold(comparison, preference="b", by=admin)
    services.add_gold(comparison, preference="a", strength=-2, by=admin)
    assert Comparison.objects.get().is_gold and Gold.objects.get().retired_at is None
    actions = (
        Event.objects.filter(kind=EventKind.EDIT, user=admin).order_by("pk").values_list("data__action", flat=True)
    )
    assert list(actions) == ["gold added", "gold retired", "gold added"]


@pytest.mark.parametrize(
    ("changes", "preference", "strength", "reason"),
    [
        ({}, "a", 2, "does not fit"),
        ({}, "ranked", None, "a side, about the same, or neither"),
        ({}, "neither", 1, "does not fit"),
        ({"is_withdrawn": True}, "a", -1, "withdrawn"),
        ({"response_count": 3}, "a", -1, "ranking"),
    ],
)
def test_what_cannot_be_gold_is_refused(
    changes: dict[str, Any], preference: str, strength: int | None, reason: str
) -> None:
    comparison = make_comparison()
    Comparison.objects.filter(pk=comparison.pk).update(**changes)
    with pytest.raises(DomainError, match=reason):
        services.add_gold(comparison, preference=preference, strength=strength)
    assert not Gold.objects.exists() and not Comparison.objects.get().is_gold


def test_unanimous_comparisons_become_gold_once() -> None:
    project = make_project()
    people = [make_annotator() for _ in range(4)]

    def judged(*strengths: int | None) -> Comparison:
        comparison = make_comparison(project)
        for annotator, strength in zip(people, strengths, strict=False):
            make_vote(comparison, annotator, strength)
        return comparison

    sure = judged(-3, -2, -2)
    for strengths in [(-3, -1, -2), (-2, -2), (-2, -2, 1), (0, 0, 0), (None, None, None)]:
        judged(*strengths)
    flagged = judged(3, 3, 3)
    Comparison.objects.filter(pk=flagged.pk).update(review_since=timezone.now())
    surest = judged(2, 3, 2, 3)
    assert services.promote_unanimous(project) == 2
    found = {gold.comparison: (gold.preference, gold.strength) for gold in Gold.objects.all()}
    assert found == {sure: ("a", -2), surest: ("b", 2)}
    assert set(Comparison.objects.filter(is_gold=True)) == {sure, surest}
    services.retire_gold(Gold.objects.get(comparison=sure))
    assert services.promote_unanimous(project) == 0


def test_gold_goes_to_people_who_never_had_it() -> None:
    project = make_project()
    ann, bob = make_annotator(), make_annotator()
    had, judged, fresh, round_item = (make_comparison(project) for _ in range(4))
    for comparison in (had, judged, fresh):
        services.add_gold(comparison, preference="a")
    services.add_gold(round_item, preference="a", is_for_qualification=True)
    make_vote(had, ann, -1, kind=AssignmentKind.GOLD)
    make_vote(judged, ann, -1)  # as ordinary work, before it became gold
    assert services.gold_item(ann, project) == fresh.pk
    assert {services.gold_item(bob, project) for _ in range(40)} == {had.pk, judged.pk, fresh.pk}
    services.retire_gold(Gold.objects.get(comparison=fresh))
    assert services.gold_item(ann, project) is None
    assert services.gold_item(ann, make_project()) is None


# ── The qualification round ──────────────────────────────────────────────────────────────────────────────────────


def round_of(items: int, *, pool: int, pass_mark: float = 0.75) -> tuple[Project, Annotator, Membership]:
    project = make_project()
    Project.objects.filter(pk=project.pk).update(qualification_count=items, qualification_pass_mark=pass_mark)
    project.refresh_from_db()
    for _ in range(pool):
        services.add_gold(make_comparison(project), preference="a", strength=-2, is_for_qualification=True)
    user = make_user()
    membership = Membership.objects.create(project=project, user=user, qualification=QualificationState.RUNNING)
    return project, make_annotator(user), membership


def take(project: Project, annotator: Annotator, right: bool) -> QualificationState | None:
    """Judge the next item of the round, as the queue and the judging code do it."""
    item = services.qualification_item(annotator, project)
    assert item
    judgment = make_vote(
        Comparison.objects.get(pk=item), annotator, -2 if right else 2, kind=AssignmentKind.QUALIFICATION
    )
    assert judgment.assignment
    return services.score_qualification(judgment.assignment)


def test_the_round_is_passed_at_the_mark() -> None:
    project, annotator, membership = round_of(4, pool=10)
    states = [take(project, annotator, right) for right in (True, False, True, True)]
    assert states == [QualificationState.RUNNING] * 3 + [QualificationState.PASSED]
    assert services.qualification_item(annotator, project) is None
    membership.refresh_from_db()
    assert (membership.qualification, membership.qualification_tries) == (QualificationState.PASSED, 1)
    event = Event.objects.filter(kind=EventKind.MEMBER).last()
    assert event and (event.data["right"], event.data["items"], event.data["state"]) == (3, 4, "passed")


def test_a_second_try_has_other_items_and_is_the_last() -> None:
    project, annotator, membership = round_of(2, pool=10)
    assert [take(project, annotator, False) for _ in range(2)] == [QualificationState.RUNNING] * 2
    membership.refresh_from_db()
    assert membership.qualification_tries == 1
    assert take(project, annotator, True) == QualificationState.RUNNING
    assert take(project, annotator, False) == QualificationState.FAILED
    assert Assignment.objects.filter(annotator=annotator).values("comparison").distinct().count() == 4
    assert services.qualification_item(annotator, project) is None


def test_a_correction_changes_a_running_try_and_no_finished_one() -> None:
    project, annotator, membership = round_of(2, pool=10)
    take(project, annotator, False)
    wrong = Judgment.objects.get()
    Judgment.objects.filter(pk=wrong.pk).update(superseded_at=timezone.now())
    assert wrong.assignment
    Judgment.objects.create(
        comparison=wrong.comparison,
        annotator=annotator,
        assignment=wrong.assignment,
        preference="a",
        strength=-2,
        supersedes=wrong,
    )
    services.score_qualification(wrong.assignment)
    membership.refresh_from_db()
    assert membership.qualification_tries == 0
    assert take(project, annotator, True) == QualificationState.PASSED


def test_a_round_without_items_stops_nobody() -> None:
    project, annotator, membership = round_of(5, pool=0)
    assert services.qualification_item(annotator, project) is None
    membership.refresh_from_db()
    assert membership.qualification == QualificationState.NOT_NEEDED


def test_a_pool_that_runs_out_ends_the_try_with_what_there_was() -> None:
    project, annotator, membership = round_of(5, pool=3, pass_mark=0.6)
    for right in (True, False, True):
        assert take(project, annotator, right) == QualificationState.RUNNING
    assert services.qualification_item(annotator, project) is None
    membership.refresh_from_db()
    assert membership.qualification == QualificationState.PASSED


def test_held_items_count_towards_a_try() -> None:
    project, annotator, _membership = round_of(2, pool=10)
    for slot in range(2):
        item = services.qualification_item(annotator, project)
        assert item
        Assignment.objects.create(
            comparison_id=item,
            annotator=annotator,
            project=project,
            kind=AssignmentKind.QUALIFICATION,
            holds_place=False,
            slot=slot,
            a_shown_on_left=True,
            lease_expires_at=timezone.now(),
        )
    assert services.qualification_item(annotator, project) is None
