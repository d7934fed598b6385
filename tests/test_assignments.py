"""Claiming, judging, skipping and expiring comparisons, also by many people at once."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from uuid import uuid4

import pytest
from django.db import IntegrityError, connections, transaction
from django.db.models import Count, F, Q
from django.utils import timezone

from annotation import services
from annotation.answer import Answer
from annotation.models import Annotator, Assignment, Comparison, Judgment, Project
from tests.factories import make_annotator, make_comparison, make_project, make_prompt, make_response


def assert_counters_match() -> None:
    counted = Comparison.objects.annotate(places=Count("assignments", filter=Q(assignments__holds_place=True)))
    assert not counted.exclude(assigned_count=F("places")).exists()


def fill(project: Project, count: int) -> None:
    prompt = make_prompt(project)
    pairs = [(make_response(prompt), make_response(prompt)) for _ in range(count)]
    assert services.create_comparisons(project, pairs) == count


def lease(comparison: Comparison) -> Assignment:
    """The project's only comparison in the hands of a new member."""
    project = comparison.project
    [held] = services.claim_assignments(annotator=make_annotator(project=project), project=project)
    return held


def judge(assignment: Assignment, strength: int | None = -1, **more: object) -> Judgment:
    return services.submit_judgment(
        **{
            "assignment_id": assignment.public_id,
            "annotator": assignment.annotator,
            "judgment_id": uuid4(),
            "answer": Answer(choice="neither" if strength is None else str(strength)),
            **more,
        }
    )


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("per_comparison", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_32_people_claiming_at_once_never_share_a_place_and_leave_none_behind(per_comparison: int) -> None:
    project = make_project(judgments_per_comparison=per_comparison)
    fill(project, 200)
    people = [make_annotator(project=project) for _ in range(32)]
    start = Barrier(len(people))

    def work(person: Annotator) -> list[int]:
        try:
            start.wait()
            judged = []
            while held := services.claim_assignments(annotator=person, project=project):
                assert len(held) <= 2
                judge(held[0])
                judged.append(held[0].comparison_id)
            return judged
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(people)) as pool:
        judged_by_person = list(pool.map(work, people))
    times = Counter(comparison for judged in judged_by_person for comparison in judged)
    assert len(times) == 200
    assert set(times.values()) == {per_comparison}
    for judged in judged_by_person:
        assert len(judged) == len(set(judged))
    assert_counters_match()


@pytest.mark.django_db(transaction=True)
def test_a_locked_comparison_is_passed_over_not_waited_for() -> None:
    project = make_project()
    fill(project, 2)
    first, *others = Comparison.objects.order_by("queue_key", "id")
    with transaction.atomic():
        Comparison.objects.select_for_update().get(pk=first.pk)

        def claim() -> list[Assignment]:
            try:
                with connections["default"].cursor() as cursor:
                    cursor.execute("SET lock_timeout = '2s'")
                return services.claim_assignments(annotator=make_annotator(project=project), project=project)
            finally:
                connections.close_all()

        with ThreadPoolExecutor(1) as pool:
            claimed = pool.submit(claim).result(timeout=10)
    assert [a.comparison_id for a in claimed] == [comparison.pk for comparison in others]


@pytest.mark.django_db(transaction=True)
def test_one_person_in_two_tabs_holds_the_same_two_comparisons() -> None:
    project = make_project()
    fill(project, 10)
    person = make_annotator(project=project)
    start = Barrier(2)

    def claim(_: int) -> list[int]:
        try:
            start.wait()
            return [a.pk for a in services.claim_assignments(annotator=person, project=project)]
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(claim, range(2))
    assert one == two
    assert len(one) == 2


@pytest.mark.django_db
class TestVerdicts:
    def test_strength_is_stored_in_content_order_whatever_side_was_shown(self) -> None:
        for on_left, expected in [(True, -2), (False, 2)]:
            comparison = make_comparison()
            [held] = services.claim_assignments(
                annotator=make_annotator(project=comparison.project), project=comparison.project
            )
            Assignment.objects.filter(pk=held.pk).update(a_shown_on_left=on_left)
            judgment = judge(held, strength=-2)
            assert judgment.strength == expected
            assert judgment.preference == ("a" if on_left else "b")

    def test_the_same_vote_twice_is_stored_once(self) -> None:
        comparison = make_comparison()
        [held] = services.claim_assignments(
            annotator=make_annotator(project=comparison.project), project=comparison.project
        )
        vote = uuid4()
        first, second = judge(held, 1, judgment_id=vote), judge(held, 1, judgment_id=vote)
        assert first == second
        assert Judgment.objects.count() == 1
        with pytest.raises(services.ConflictError):
            judge(held, 2, judgment_id=vote)

    def test_a_correction_supersedes_and_keeps_the_first_verdict(self) -> None:
        comparison = make_comparison()
        [held] = services.claim_assignments(
            annotator=make_annotator(project=comparison.project), project=comparison.project
        )
        first, second = judge(held, 3), judge(held, None)
        first.refresh_from_db()
        assert first.superseded_at is not None
        assert second.supersedes == first
        assert second.preference == "neither"
        assert second.strength is None
        assert comparison.judgments.count() == 2
        assert_counters_match()

    def test_somebody_elses_assignment_is_refused(self) -> None:
        comparison = make_comparison()
        [held] = services.claim_assignments(
            annotator=make_annotator(project=comparison.project), project=comparison.project
        )
        with pytest.raises(services.AssignmentNotFoundError):
            judge(held, annotator=make_annotator())

    @pytest.mark.parametrize(
        "answer", [Answer(choice=""), Answer(choice="neither", ranking=[1, 2]), Answer(choice="4"), Answer(choice="x")]
    )
    def test_a_verdict_that_says_nothing_or_two_things_is_refused(self, answer: Answer) -> None:
        comparison = make_comparison()
        [held] = services.claim_assignments(
            annotator=make_annotator(project=comparison.project), project=comparison.project
        )
        with pytest.raises(services.DomainError):
            judge(held, answer=answer)
        assert not Judgment.objects.exists()

    @pytest.mark.parametrize("preference,strength", [("a", 1), ("b", -1), ("tie", 2), ("neither", 0), ("best", None)])
    def test_postgres_refuses_a_strength_that_contradicts_the_preference(
        self, preference: str, strength: int | None
    ) -> None:
        comparison = make_comparison()
        with pytest.raises(IntegrityError), transaction.atomic():
            Judgment.objects.create(
                comparison=comparison, annotator=make_annotator(), preference=preference, strength=strength
            )


@pytest.mark.django_db
class TestLeases:
    def expire(self, *assignments: Assignment) -> None:
        ids = [a.pk for a in assignments]
        Assignment.objects.filter(pk__in=ids).update(lease_expires_at=timezone.now() - timedelta(seconds=1))
        assert services.expire_assignments() == len(ids)
        assert_counters_match()

    def test_an_expired_place_goes_to_somebody_else_and_a_late_vote_still_counts(self) -> None:
        comparison = make_comparison()
        one, two = make_annotator(project=comparison.project), make_annotator(project=comparison.project)
        [held] = services.claim_assignments(annotator=one, project=comparison.project)
        assert services.claim_assignments(annotator=two, project=comparison.project) == []
        self.expire(held)
        [taken] = services.claim_assignments(annotator=two, project=comparison.project)
        judge(taken)
        late = judge(held)
        assert late.is_late
        assert comparison.judgments.count() == 2
        assert_counters_match()

    def test_an_expired_comparison_comes_back_to_the_same_person_with_the_same_sides(self) -> None:
        comparison = make_comparison()
        person = make_annotator(project=comparison.project)
        [held] = services.claim_assignments(annotator=person, project=comparison.project)
        self.expire(held)
        [again] = services.claim_assignments(annotator=person, project=comparison.project)
        assert (again.pk, again.a_shown_on_left) == (held.pk, held.a_shown_on_left)
        assert_counters_match()

    def test_a_skipped_comparison_goes_to_others_and_can_be_called_back(self) -> None:
        comparison = make_comparison()
        one, two = make_annotator(project=comparison.project), make_annotator(project=comparison.project)
        [held] = services.claim_assignments(annotator=one, project=comparison.project)
        services.skip_assignment(assignment_id=held.public_id, annotator=one, reason="language")
        assert services.claim_assignments(annotator=one, project=comparison.project) == []
        back = services.undo_assignment(assignment_id=held.public_id, annotator=one)
        assert back.status == "leased"
        services.skip_assignment(assignment_id=held.public_id, annotator=one)
        [taken] = services.claim_assignments(annotator=two, project=comparison.project)
        with pytest.raises(services.ConflictError):
            services.undo_assignment(assignment_id=held.public_id, annotator=one)
        judge(taken)
        assert_counters_match()

    def test_skipping_a_judged_comparison_withdraws_the_verdict(self) -> None:
        comparison = make_comparison()
        [held] = services.claim_assignments(
            annotator=make_annotator(project=comparison.project), project=comparison.project
        )
        judgment = judge(held)
        services.skip_assignment(assignment_id=held.public_id, annotator=held.annotator)
        judgment.refresh_from_db()
        assert judgment.superseded_at is not None
        assert_counters_match()

    def test_signing_out_gives_everything_back(self) -> None:
        project = make_project()
        fill(project, 2)
        person = make_annotator(project=project)
        assert len(services.claim_assignments(annotator=person, project=project)) == 2
        assert services.release_assignments(annotator=person) == 2
        assert len(services.claim_assignments(annotator=make_annotator(project=project), project=project)) == 2
        assert_counters_match()

    def test_postgres_refuses_more_assignments_than_places(self) -> None:
        comparison = make_comparison()
        with pytest.raises(IntegrityError), transaction.atomic():
            Comparison.objects.filter(pk=comparison.pk).update(assigned_count=2)


@pytest.mark.django_db
def test_responses_to_different_prompts_are_not_compared() -> None:
    project = make_project()
    with pytest.raises(services.DomainError):
        services.create_comparisons(
            project, [(make_response(make_prompt(project)), make_response(make_prompt(project)))]
        )


@pytest.mark.django_db
def test_equal_texts_are_not_put_before_anybody_and_a_pair_only_once() -> None:
    project = make_project()
    prompt = make_prompt(project)
    a, b, same = make_response(prompt, text="x"), make_response(prompt, text="y"), make_response(prompt, text="x ")
    assert services.create_comparisons(project, [(a, b), (a, same)]) == 1
    assert services.create_comparisons(project, [(a, b)]) == 0
