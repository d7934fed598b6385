"""What is handed out next: gold, repeats, partly judged, uncertain and new comparisons, by language and skill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, connections
from django.utils import timezone

from annotation import services
from annotation.answer import Answer
from annotation.models import (
    Annotator,
    Assignment,
    AssignmentKind,
    Comparison,
    Membership,
    Project,
    Prompt,
    QualificationState,
    QueueTier,
    Response,
)
from annotation.services import queue, serving
from annotation.services.quality import add_gold
from tests.factories import make_annotator, make_project, make_source

pytestmark = pytest.mark.django_db


def make_items(project: Project, count: int, **prompt_fields: Any) -> list[Comparison]:
    """Comparisons by few statements."""
    sources = make_source("one"), make_source("two")
    prompts = Prompt.objects.bulk_create(
        [
            Prompt(
                project=project,
                messages=[{"role": "user", "content": "?"}],
                group=(name := uuid4().hex),
                content_sha256=name * 2,
                **prompt_fields,
            )
            for _ in range(count)
        ]
    )
    pairs = [
        [
            Response(prompt=prompt, source=source, sample_index=0, text=source.name, text_sha256="0" * 64)
            for source in sources
        ]
        for prompt in prompts
    ]
    Response.objects.bulk_create([response for pair in pairs for response in pair])
    services.create_comparisons(project, pairs)
    return list(Comparison.objects.filter(prompt__in=prompts))


def make_gold(
    project: Project, count: int, *, is_for_qualification: bool = False, **prompt_fields: Any
) -> list[Comparison]:
    items = make_items(project, count, **prompt_fields)
    for item in items:
        add_gold(item, preference="a", is_for_qualification=is_for_qualification)
    return items


def judge(held: Assignment, choice: str = "-1") -> list[Assignment]:
    """Vote, and have the next ones that are not known yet."""
    _judgment, shown = services.judge_and_claim(
        assignment_id=held.public_id, annotator=held.annotator, judgment_id=uuid4(), answer=Answer(choice=choice)
    )
    return shown


def work(project: Project, annotator: Annotator, count: int) -> list[Assignment]:
    """Judge so many of what is handed out; gives the assignments in the order of handing out."""
    held = services.claim_assignments(annotator=annotator, project=project)
    served = list(held)
    while held and len(served) < count:
        held = judge(held[0])
        served += [new for new in held if new.pk not in {old.pk for old in served}]
    return served[:count]


def kinds(served: list[Assignment]) -> list[str]:
    return [assignment.kind for assignment in served]


# ── Gold and repeats ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("at_first,later,size", [(10, 20, 5), (15, 30, 4), (0, 10, 0)])
def test_gold_falls_once_in_every_block_at_places_that_differ(at_first: int, later: int, size: int) -> None:
    project = Project(pk=7, gold_every_at_first=at_first, gold_every=later)
    first = size * at_first or serving.FIRST_ITEMS
    places = Counter()
    for person in range(40):
        due = [serving.is_gold_due(project, person, position) for position in range(first + 4 * later)]
        for block in range(size):
            assert sum(due[block * at_first : (block + 1) * at_first]) == 1
        for block in range(4):
            start = first + block * later
            assert sum(due[start : start + later]) == 1
            places[due[start : start + later].index(True)] += 1
        assert sum(due[:first]) == size
    assert len(places) > later / 2


def test_no_gold_is_due_where_the_project_wants_none() -> None:
    project = Project(pk=7, gold_every_at_first=0, gold_every=0)
    assert not any(serving.is_gold_due(project, 1, position) for position in range(200))


def test_repeats_are_due_at_the_share_that_the_project_wants() -> None:
    project = Project(pk=7, repeat_share=0.03)
    due = sum(serving.is_repeat_due(project, person, position) for person in range(100) for position in range(1000))
    assert due == pytest.approx(3000, rel=0.1)


def test_gold_and_repeats_come_among_the_work_and_take_no_place() -> None:
    project = make_project()
    Project.objects.update(gold_every_at_first=5, gold_every=5, repeat_share=0.5)
    make_items(project, 110)
    gold = make_gold(project, 40)
    person = make_annotator(project=project)
    served = work(project, person, 100)
    counts = Counter(kinds(served))
    assert counts["gold"] == 20
    assert {a.comparison_id for a in served if a.kind == "gold"} < {item.pk for item in gold}
    assert [sum(kind == "gold" for kind in kinds(served[start : start + 5])) for start in range(0, 100, 5)] == [1] * 20
    # Nobody judged fifty items before the fiftieth.
    assert "repeat" not in kinds(served[:50])
    assert counts["repeat"] >= 3
    by_id = {(a.comparison_id, a.round): (at, a) for at, a in enumerate(served)}
    for repeat in (a for a in served if a.kind == "repeat"):
        (first_at, first), (again_at, again) = by_id[repeat.comparison_id, 0], by_id[repeat.comparison_id, 1]
        assert again.a_shown_on_left == (not first.a_shown_on_left)
        assert again_at - first_at >= serving.REPEAT_AFTER
    assert not any(a.holds_place for a in served if a.kind != "work")
    assert Membership.objects.get().served_count == 100
    judged = Comparison.objects.filter(assignments__kind="repeat", assignments__status="submitted").first()
    assert sorted(judged.judgments.values_list("round", flat=True)) == [0, 1]
    assert judged.assigned_count == 1


def test_nobody_gets_a_gold_item_twice_and_retired_ones_never() -> None:
    project = make_project()
    Project.objects.update(gold_every_at_first=1, gold_every=1)
    gold = make_gold(project, 3)
    type(gold[0].gold).objects.filter(comparison=gold[0]).update(retired_at=timezone.now())
    Comparison.objects.filter(pk=gold[0].pk).update(is_gold=False, is_withdrawn=True)
    person = make_annotator(project=project)
    assert {a.comparison_id for a in work(project, person, 10)} == {gold[1].pk, gold[2].pk}


def test_gold_is_routed_as_work_is() -> None:
    project = make_project()
    Project.objects.update(gold_every_at_first=1, gold_every=1)
    make_gold(project, 3, lang="en")
    readable = {item.pk for item in make_gold(project, 2, lang="zh") + make_gold(project, 1, skill="law")}
    person = make_annotator(project=project)
    Membership.objects.update(languages=["zh"])
    assert {a.comparison_id for a in work(project, person, 10)} == readable


# ── The qualification round ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("choice,state", [("-1", QualificationState.PASSED), ("1", QualificationState.RUNNING)])
def test_work_begins_when_the_round_is_passed(choice: str, state: str) -> None:
    project = make_project()
    Project.objects.update(qualification_count=4)
    project.refresh_from_db()
    make_items(project, 3)
    round_items = {item.pk for item in make_gold(project, 9, is_for_qualification=True)}
    person = make_annotator(project=project)
    held = services.claim_assignments(annotator=person, project=project)
    for number in range(4):
        assert all(a.kind == AssignmentKind.QUALIFICATION and a.comparison_id in round_items for a in held), number
        judge(held[0], choice if held[0].a_shown_on_left else str(-int(choice)))
        held = services.claim_assignments(annotator=person, project=project)
    membership = Membership.objects.get()
    assert membership.qualification == state
    assert membership.served_count == (2 if state == QualificationState.PASSED else 0)
    assert (
        kinds(held)
        == [AssignmentKind.WORK if state == QualificationState.PASSED else AssignmentKind.QUALIFICATION] * 2
    )


def test_whoever_failed_gets_nothing() -> None:
    project = make_project()
    make_items(project, 3)
    person = make_annotator(project=project)
    Membership.objects.update(qualification=QualificationState.FAILED)
    assert services.claim_assignments(annotator=person, project=project) == []


# ── The order of work ────────────────────────────────────────────────────────────────────────────────────────────


def test_what_others_have_begun_comes_first() -> None:
    project = make_project(judgments_per_comparison=2)
    make_items(project, 30)
    first = {a.comparison_id for a in work(project, make_annotator(project=project), 10)[:9]}
    second = {a.comparison_id for a in work(project, make_annotator(project=project), 9)}
    assert second == first


@pytest.mark.parametrize("languages", [[], ["en"]])
def test_somebody_who_has_had_all_of_the_window_goes_on_with_others(languages: list[str]) -> None:
    project = make_project(judgments_per_comparison=2)
    make_items(project, queue.PARTLY_JUDGED_WINDOW + 5)
    person = make_annotator(project=project)
    Membership.objects.update(languages=languages)
    served = work(project, person, queue.PARTLY_JUDGED_WINDOW + 10)
    assert len({a.comparison_id for a in served}) == queue.PARTLY_JUDGED_WINDOW + 5
    assert services.claim_assignments(annotator=person, project=project) == []
    # Begun by somebody else, behind a whole window that the person has had: found when there is nothing else.
    [late] = make_items(project, 1)
    Comparison.objects.filter(pk=late.pk).update(tier=QueueTier.PARTLY_JUDGED, queue_key=2.0)
    assert [a.comparison_id for a in services.claim_assignments(annotator=person, project=project)] == [late.pk]


def test_uncertain_ones_are_every_other_item_and_the_rest_is_random() -> None:
    project = make_project()
    items = make_items(project, 60)
    uncertain = {item.pk: 0.9 for item in items[:30]}
    assert services.set_uncertainties(project, uncertain | {items[30].pk: 0.1, 0: 0.9}) == 31
    assert Comparison.objects.filter(tier=QueueTier.UNCERTAIN).count() == 30
    served = [a.comparison_id for a in work(project, make_annotator(project=project), 20)]
    assert all(comparison in uncertain for comparison in served[1::2])
    # The random ones are drawn from all, in the order of the queue.
    left = [item.pk for item in sorted(items, key=lambda item: item.queue_key) if item.pk not in served[1::2]]
    assert served[::2] == left[:10]


def test_the_share_of_overlap_is_drawn_when_comparisons_are_made() -> None:
    project = make_project()
    Project.objects.update(overlap_share=0.2, overlap_count=3)
    project.refresh_from_db()
    counts = Counter(item.required_count for item in make_items(project, 1000))
    assert set(counts) == {1, 3}
    assert 130 < counts[3] < 270


def test_comparisons_of_one_topic_follow_each_other() -> None:
    project = make_project()
    Project.objects.update(topic_batches=True)
    project.refresh_from_db()
    topics = {}
    for topic in ("law", "cooking", "tides"):
        topics |= {item.pk: topic for item in make_items(project, 8, topic=topic)}
    served = [topics[a.comparison_id] for a in work(project, make_annotator(project=project), 24)]
    assert sum(one != two for one, two in pairwise(served)) == 2
    Project.objects.update(topic_batches=False)
    project.refresh_from_db()
    Comparison.objects.update(assigned_count=0)
    before = list(Comparison.objects.order_by("queue_key").values_list("pk", flat=True))
    services.reorder_queue(project)
    assert list(Comparison.objects.order_by("queue_key").values_list("pk", flat=True)) != before
    project.topic_batches = True
    services.reorder_queue(project)
    order = [topics[pk] for pk in Comparison.objects.order_by("queue_key").values_list("pk", flat=True)]
    assert sum(one != two for one, two in pairwise(order)) == 2


# ── Routing ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "languages,skills,expected",
    [
        ([], [], {"en", "zh", "", "law"}),
        (["zh"], [], {"zh", ""}),
        (["en"], [], {"en", "", "law"}),
        ([], ["law"], {"en", "zh", "", "law"}),
        ([], ["medicine"], {"en", "zh", ""}),
        (["en"], ["medicine", "law"], {"en", "", "law"}),
        (["ar"], [], {""}),
    ],
)
def test_people_get_their_languages_and_skills_and_what_names_none(
    languages: list[str], skills: list[str], expected: set[str]
) -> None:
    project = make_project()
    names = {}
    for lang, skill in [("en", ""), ("zh", ""), ("", ""), ("en", "law")]:
        names |= {item.pk: skill or lang for item in make_items(project, 2, lang=lang, skill=skill)}
    person = make_annotator(project=project)
    Membership.objects.update(languages=languages, skills=skills)
    served = work(project, person, 20)
    assert {names[a.comparison_id] for a in served} == expected
    assert len(served) == 2 * len(expected)


def test_a_rare_language_costs_as_much_as_a_common_one() -> None:
    """Of ten thousand comparisons only the heads of the routes are read, by the index that is made for it."""
    project = make_project()
    make_items(project, 1_000, lang="en")
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO annotation_comparison (
                project_id, prompt_id, response_a_id, response_b_id, external_id, meta, lang, required_count,
                assigned_count, queue_key, created_at)
            SELECT project_id, prompt_id, response_a_id, response_b_id, 'more-' || id || '-' || n, '{}',
                   CASE WHEN n = 1 AND id % 200 = 0 THEN 'ar' ELSE 'en' END, 1, 0, random(), now()
            FROM annotation_comparison, generate_series(1, 9) n
            """
        )
        cursor.execute("ANALYZE annotation_comparison")
        person = make_annotator(project=project)
        values = {"project": project.pk, "annotator": person.pk, "languages": ["ar"], "skills": [], "random": True}
        find = "WITH RECURSIVE" + queue._FROM_ROUTES.format(window=100, locked="SKIP LOCKED") + " SELECT id FROM free"
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {find}", values)
        plan = cursor.fetchone()[0][0]["Plan"]
    nodes = list(nodes_of(plan))
    scans = [node for node in nodes if node.get("Relation Name") == "annotation_comparison"]
    assert "comparison_route" in {node.get("Index Name") for node in scans}
    assert all(node["Node Type"].startswith("Index") for node in scans)
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 100
    Membership.objects.update(languages=["ar"])
    served = services.claim_assignments(annotator=person, project=project)
    assert [a.comparison.lang for a in served] == ["ar", "ar"]


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes_of(part)


# ── Leases ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_leases_are_renewed_by_a_claim_and_by_the_page() -> None:
    project = make_project()
    make_items(project, 1)
    person = make_annotator(project=project)
    [held] = services.claim_assignments(annotator=person, project=project)
    soon = timezone.now() + timedelta(minutes=2)
    for renew in (services.claim_assignments, services.renew_leases):
        Assignment.objects.filter(pk=held.pk).update(lease_expires_at=soon)
        assert renew(annotator=person, project=project)
        held.refresh_from_db()
        assert held.lease_expires_at > soon


@pytest.mark.parametrize("how", ["deactivated", "removed past the services"])
def test_what_somebody_holds_who_may_not_judge_any_more_is_given_back(how: str) -> None:
    project = make_project()
    [item] = make_items(project, 1)
    person = make_annotator(project=project)
    services.claim_assignments(annotator=person, project=project)
    if how == "deactivated":
        person.user.is_active = False
        person.user.save()
    else:
        Membership.objects.all().delete()
    assert services.expire_assignments() == 1
    item.refresh_from_db()
    assert item.assigned_count == 0
    assert len(services.claim_assignments(annotator=make_annotator(project=project), project=project)) == 1


def test_a_closed_project_hands_out_nothing_more() -> None:
    project = make_project()
    make_items(project, 3)
    person = make_annotator(project=project)
    held = services.claim_assignments(annotator=person, project=project)
    Project.objects.update(is_open=False)
    assert judge(held[0]) == [held[1]]


def test_what_the_browser_has_is_not_given_again() -> None:
    project = make_project()
    make_items(project, 4)
    person = make_annotator(project=project)
    one, two = services.claim_assignments(annotator=person, project=project)
    assert services.claim_assignments(annotator=person, project=project, known={one.public_id}) == [two]
    _judgment, shown = services.judge_and_claim(
        assignment_id=one.public_id,
        annotator=person,
        judgment_id=uuid4(),
        answer=Answer(choice="1"),
        known={two.public_id},
    )
    assert len(shown) == 1
    assert shown[0] not in (one, two)


def test_a_vote_and_the_next_claim_take_a_fixed_number_of_statements(
    django_assert_num_queries: Any,
) -> None:
    project = make_project(judgments_per_comparison=1)
    make_items(project, 6)
    Project.objects.update(gold_every_at_first=0)
    person = make_annotator(project=project)
    one, two = services.claim_assignments(annotator=person, project=project)
    with django_assert_num_queries(6):  # savepoint, seat, desk, vote, claim, release
        services.judge_and_claim(
            assignment_id=one.public_id,
            annotator=person,
            judgment_id=uuid4(),
            answer=Answer(choice="1"),
            known={two.public_id},
        )


# ── Everybody at once ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.django_db(transaction=True)
def test_many_people_at_once_get_their_gold_and_leave_no_place_behind() -> None:
    project = make_project(judgments_per_comparison=2)
    Project.objects.update(gold_every_at_first=5, gold_every=5, escalate_to=4)
    make_items(project, 30)
    make_gold(project, 20)
    people = [make_annotator(project=project) for _ in range(8)]
    start = Barrier(len(people))

    def labour(person: Annotator) -> list[str]:
        try:
            start.wait()
            served = []
            while held := services.claim_assignments(annotator=person, project=project):
                served.append(held[0].kind)
                judge(held[0], str((person.pk % 7) - 3))
            return served
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(people)) as pool:
        by_person = list(pool.map(labour, people))
    for served in by_person:
        # Gold at one place of each block of five.
        whole = len(served) // 5 * 5
        assert all(served[start : start + 5].count("gold") == 1 for start in range(0, whole, 5)), served
    work_items = Comparison.objects.filter(is_gold=False)
    assert all(item.assigned_count == item.required_count for item in work_items)
    assert Assignment.objects.filter(kind="gold", holds_place=True).count() == 0
    for item in work_items:
        assert item.judgments.count() == item.required_count


@pytest.mark.django_db(transaction=True)
def test_the_last_two_places_are_shared_without_waiting_in_a_circle() -> None:
    project = make_project(judgments_per_comparison=2)
    make_items(project, 2)
    people = [make_annotator(project=project) for _ in range(2)]
    start = Barrier(2)

    def claim(person: Annotator) -> int:
        try:
            start.wait()
            return len(services.claim_assignments(annotator=person, project=project))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        assert all(count >= 1 for count in pool.map(claim, people))
