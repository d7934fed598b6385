"""What an answer becomes: content order, the protocol's demands, and what is stored with the spans and edits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from uuid import uuid4

import pytest
from django.db import connections

from annotation import services
from annotation.answer import Answer, MarkedSpan
from annotation.content_order import read_verdict
from annotation.models import Edit, ErrorSpan, Event, Judgment, Project, Response
from annotation.protocol import Aspect, Axis, Demand, Protocol, Scale
from tests.factories import make_annotator, make_comparison, make_project, make_prompt, make_response, make_source
from tests.leases import judge, lease, project_with

SWAPPED, STRAIGHT = [1, 0], [0, 1]
RICH = Protocol(
    aspects=(Aspect("helpfulness", "Helpfulness"), Aspect("safety", "Safety", 0, 2)),
    axes=(Axis("harmless", "Which is less harmful?"),),
    chips=("clearer", "shorter"),
    spans=True,
    edit_demand=Demand.OPTIONAL,
)
RANKING = Protocol(scale=Scale.RANKING)
RATINGS = {"helpfulness": [4, 2], "safety": [2, 0]}


# ── Content order and the protocol (no database) ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "protocol,choice,order,expected",
    [
        (Protocol(), "-3", STRAIGHT, ("a", -3)),
        (Protocol(), "-3", SWAPPED, ("b", 3)),
        (Protocol(), "0", SWAPPED, ("tie", 0)),
        (Protocol(), "neither", SWAPPED, ("neither", None)),
        (Protocol(scale=Scale.FOUR), "4", SWAPPED, ("a", -4)),
        (Protocol(scale=Scale.BINARY), "left", STRAIGHT, ("a", None)),
        (Protocol(scale=Scale.BINARY), "left", SWAPPED, ("b", None)),
        (Protocol(scale=Scale.BINARY), "0", SWAPPED, ("tie", None)),
    ],
)
def test_a_choice_is_turned_to_content_order(
    protocol: Protocol, choice: str, order: list[int], expected: tuple[str, int | None]
) -> None:
    verdict = read_verdict(Answer(choice=choice), protocol, order)
    assert (verdict.preference, verdict.strength) == expected


def test_ranks_scores_and_axes_are_turned_with_the_sides() -> None:
    verdict = read_verdict(Answer(choice="ranked", ranking=[3, 1, 2]), RANKING, [2, 0, 1])
    assert (verdict.preference, verdict.ranking) == ("ranked", [1, 2, 3])
    assert read_verdict(Answer(choice="ranked", ranking=[1, 3, 3]), RANKING, [0, 1, 2]).ranking == [1, 2, 2]
    verdict = read_verdict(Answer(choice="1", ratings=RATINGS, axes={"harmless": -2}), RICH, SWAPPED)
    assert verdict.ratings == {"helpfulness": [2, 4], "safety": [0, 2]}
    assert verdict.axes == {"harmless": 2}


@pytest.mark.parametrize(
    "protocol,answer,order,field",
    [
        (Protocol(), Answer(choice="4"), STRAIGHT, "choice"),
        (Protocol(), Answer(choice="left"), STRAIGHT, "choice"),
        (Protocol(allow_neither=False), Answer(choice="neither"), STRAIGHT, "choice"),
        (Protocol(scale=Scale.FOUR), Answer(choice="0"), STRAIGHT, "choice"),
        (Protocol(scale=Scale.BINARY, allow_tie=False), Answer(choice="0"), STRAIGHT, "choice"),
        (Protocol(), Answer(choice="1", ranking=[1, 2]), STRAIGHT, "ranking"),
        (Protocol(), Answer(choice="1"), [0, 1, 2], "choice"),
        (RANKING, Answer(choice="ranked"), [0, 1, 2], "ranking"),
        (RANKING, Answer(choice="ranked", ranking=[1, 2]), [0, 1, 2], "ranking"),
        (RANKING, Answer(choice="ranked", ranking=[0, 1, 2]), [0, 1, 2], "ranking"),
        (RANKING, Answer(choice="ranked", ranking=[1, 2, 4]), [0, 1, 2], "ranking"),
        (
            Protocol(scale=Scale.RANKING, allow_tie=False),
            Answer(choice="ranked", ranking=[1, 1, 2]),
            [0, 1, 2],
            "ranking",
        ),
        (RICH, Answer(choice="1", axes={"harmless": 1}), STRAIGHT, "helpfulness"),
        (RICH, Answer(choice="1", ratings=RATINGS | {"safety": [3, 0]}, axes={"harmless": 1}), STRAIGHT, "safety"),
        (RICH, Answer(choice="1", ratings=RATINGS | {"style": [1, 1]}, axes={"harmless": 1}), STRAIGHT, "ratings"),
        (RICH, Answer(choice="1", ratings=RATINGS), STRAIGHT, "harmless"),
        (RICH, Answer(choice="1", ratings=RATINGS, axes={"harmless": 4}), STRAIGHT, "harmless"),
        (RICH, Answer(choice="1", ratings=RATINGS, axes={"harmless": 1, "x": 1}), STRAIGHT, "axes"),
        (RICH, Answer(choice="1", chips=["longer"]), STRAIGHT, "chips"),
        (Protocol(), Answer(choice="1", chips=["clearer"]), STRAIGHT, "chips"),
        (Protocol(chips=("x",), chips_demand=Demand.REQUIRED), Answer(choice="1"), STRAIGHT, "chips"),
        (Protocol(note_demand=Demand.REQUIRED), Answer(choice="1", note="  "), STRAIGHT, "note"),
        (Protocol(), Answer(choice="1", note="x" * 10_001), STRAIGHT, "note"),
        (Protocol(), Answer(choice="1", note="a\0b"), STRAIGHT, "note"),
        (Protocol(), Answer(choice="1", note="\ud800"), STRAIGHT, "note"),
        (Protocol(), Answer(choice="1", spans=[MarkedSpan(0, 0, 1, "factual")]), STRAIGHT, "spans"),
        (RICH, Answer(choice="1", spans=[MarkedSpan(2, 0, 1, "factual")]), STRAIGHT, "spans"),
        (RICH, Answer(choice="1", spans=[MarkedSpan(0, 3, 3, "factual")]), STRAIGHT, "spans"),
        (RICH, Answer(choice="1", spans=[MarkedSpan(0, 0, 3, "ugly")]), STRAIGHT, "spans"),
        (Protocol(), Answer(choice="1", edited_text="Better."), STRAIGHT, "edited_text"),
        (RICH, Answer(choice="0", ratings=RATINGS, axes={"harmless": 1}, edited_text="x"), STRAIGHT, "edited_text"),
        (Protocol(edit_demand=Demand.REQUIRED), Answer(choice="1"), STRAIGHT, "edited_text"),
        (Protocol(), Answer(choice="1", decided_in_ms=-1), STRAIGHT, "decided_in_ms"),
        (Protocol(), Answer(choice="1", first_key_ms=2**31), STRAIGHT, "first_key_ms"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_field_s_name(
    protocol: Protocol, answer: Answer, order: list[int], field: str
) -> None:
    with pytest.raises(services.DomainError, match=f"^{field}: "):
        read_verdict(answer, protocol, order)


# ── What is stored ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.django_db
class TestStoring:
    def test_an_answer_is_stored_whole(self) -> None:
        project = project_with(RICH, guideline_version=3)
        comparison = make_comparison(project, a_text="It is round.", b_text="It is flat, my friend.")
        held = lease(project)
        left = 0 if held.a_shown_on_left else 1
        judgment = judge(
            held,
            "2",
            ratings={"helpfulness": [5, 5], "safety": [1, 1]},
            axes={"harmless": 0},
            chips=["shorter"],
            note="See the edit.",
            spans=[MarkedSpan(1 - left, 6, 10, "factual", "no")],
            edited_text="It is round, my friend.",
            edit_seconds=40,
            guideline_version=2,
            decided_in_ms=4000,
            first_key_ms=900,
        )
        judgment.refresh_from_db()
        assert (judgment.preference, judgment.strength, judgment.chips) == ("b", 2, ["shorter"])
        assert (judgment.guideline_version, judgment.decided_in_ms, judgment.first_key_ms) == (2, 4000, 900)
        span = ErrorSpan.objects.get(judgment=judgment)
        assert (span.response, span.start, span.end, span.kind) == (comparison.response_b, 6, 10, "factual")
        edit = Edit.objects.get(judgment=judgment)
        assert edit.original == comparison.response_b
        assert (edit.edited.text, edit.seconds_spent, edit.edit_distance) == ("It is round, my friend.", 40, 5)
        written = edit.edited
        assert (written.source.name, written.source.kind) == (f"people: {project.slug}", "person")
        assert (written.author, written.sample_index, written.prompt) == (held.annotator, 0, comparison.prompt)

    def test_a_correction_has_spans_and_an_edit_of_its_own(self) -> None:
        project = project_with(Protocol(spans=True, edit_demand=Demand.OPTIONAL))
        make_comparison(project, a_text="One two three.", b_text="Four five six.")
        held = lease(project)
        first = judge(held, "-1", spans=[MarkedSpan(0, 0, 3, "other")], edited_text="One, two, three.")
        second = judge(held, "-2", edited_text="One, two, three.")
        assert first.error_spans.count() == 1
        assert second.error_spans.count() == 0
        # The same text by the same person is one response.
        assert first.edit.edited == second.edit.edited
        third = judge(held, "-2", edited_text="One and two and three.")
        assert third.edit.edited.sample_index == 1
        assert third.supersedes == second

    def test_an_unchanged_text_is_no_edit(self) -> None:
        project = project_with(Protocol(edit_demand=Demand.OPTIONAL))
        make_comparison(project, a_text="Same.")
        held = lease(project)
        judge(held, "-1", edited_text="Same. ")
        assert not Edit.objects.exists()
        Project.objects.update(protocol=Protocol(edit_demand=Demand.REQUIRED).to_json())
        with pytest.raises(services.DomainError, match=r"^edited_text: "):
            judge(held, "-2", edited_text="Same. ")

    def test_a_passage_outside_the_text_is_refused_and_nothing_stored(self) -> None:
        project = project_with(Protocol(spans=True))
        make_comparison(project, a_text="123", b_text="456")
        held = lease(project)
        with pytest.raises(services.DomainError, match=r"^spans: .* response B"):
            judge(held, "-1", spans=[MarkedSpan(0, 0, 3, "other"), MarkedSpan(1, 0, 4, "other")])
        with pytest.raises(services.DomainError, match=r"^guideline_version: "):
            judge(held, "-1", guideline_version=1)
        held.refresh_from_db()
        assert held.status == "leased"
        assert not Judgment.objects.exists()

    def test_a_ranking_is_stored_in_content_order_as_it_was_shown(self) -> None:
        project = project_with(RANKING)
        prompt = make_prompt(project)
        responses = [make_response(prompt) for _ in range(5)]
        assert services.create_rankings(project, [responses, responses]) == 1
        assert services.create_rankings(project, [responses]) == 0
        held = lease(project)
        assert sorted(held.display_order) == [0, 1, 2, 3, 4]
        assert held.a_shown_on_left == (held.display_order.index(0) < held.display_order.index(1))
        texts = [r.response.text for r in held.comparison.further_responses.all()]
        assert texts == [response.text for response in responses[2:]]
        # The person likes them in content order, wherever they stand.
        judgment = judge(held, "ranked", ranking=[position + 1 for position in held.display_order])
        judgment.refresh_from_db()
        assert (judgment.preference, judgment.strength) == ("ranked", None)
        assert judgment.ranking == [1, 2, 3, 4, 5]

    def test_groups_that_cannot_be_ranked_are_left_out_or_refused(self) -> None:
        project = make_project()
        prompt = make_prompt(project)
        same = [make_response(prompt, text="same") for _ in range(2)]
        assert services.create_rankings(project, [[*same, make_response(prompt)]]) == 0
        with pytest.raises(services.DomainError):
            services.create_rankings(project, [[make_response(prompt) for _ in range(10)]])
        with pytest.raises(services.DomainError):
            services.create_rankings(project, [[*same, make_response(make_prompt(project))]])

    def test_a_repeated_vote_stands_when_the_protocol_has_changed(self) -> None:
        project = make_project()
        make_comparison(project)
        held = lease(project)
        vote = uuid4()
        first = judge(held, "-2", judgment_id=vote)
        Project.objects.update(protocol=Protocol(scale=Scale.FOUR, note_demand=Demand.REQUIRED).to_json())
        assert judge(held, "-2", judgment_id=vote) == first

    def test_an_id_of_another_vote_is_refused_and_nothing_changed(self) -> None:
        project = make_project()
        make_comparison(project)
        make_comparison(project)
        one, two = services.claim_assignments(annotator=make_annotator(project=project), project=project)
        vote = judge(one)
        with pytest.raises(services.ConflictError):
            judge(two, judgment_id=vote.public_id)
        two.refresh_from_db()
        assert two.status == "leased"

    def test_a_removed_member_s_vote_is_stored_and_nothing_more_is_handed_out(self) -> None:
        project = make_project()
        for _ in range(3):
            make_comparison(project)
        held = lease(project)
        services.remove_member(project, held.annotator.user)
        judgment, shown = services.judge_and_claim(
            assignment_id=held.public_id, annotator=held.annotator, judgment_id=uuid4(), answer=Answer(choice="1")
        )
        assert judgment.is_late
        assert shown == []
        assert services.claim_assignments(annotator=held.annotator, project=project) == []


@pytest.mark.django_db(transaction=True)
def test_one_vote_sent_from_two_tabs_at_once_is_stored_once() -> None:
    project = make_project()
    make_comparison(project)
    held = lease(project)
    vote = uuid4()
    start = Barrier(4)

    def send(_: int) -> int:
        try:
            start.wait()
            return judge(held, judgment_id=vote).pk
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(send, range(4)))) == 1
    assert Judgment.objects.count() == 1
    assert Event.objects.filter(kind="vote").count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_people_who_write_for_one_prompt_at_once_get_indexes_of_their_own() -> None:
    project = project_with(Protocol(edit_demand=Demand.OPTIONAL), judgments_per_comparison=4)
    make_comparison(project, a_text="A text.")
    held = [lease(project) for _ in range(4)]
    start = Barrier(4)

    def edit(number: int) -> None:
        try:
            start.wait()
            judge(held[number], "-1", edited_text=f"A better text, number {number}.")
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(edit, range(4)))
    assert sorted(Response.objects.filter(source__kind="person").values_list("sample_index", flat=True)) == [
        0,
        1,
        2,
        3,
    ]


@pytest.mark.django_db
def test_nobody_judges_what_they_wrote_themselves() -> None:
    project = make_project()
    author, other = make_annotator(project=project), make_annotator(project=project)
    prompt = make_prompt(project)
    written = [
        services.add_written_response(prompt.pk, project, f"My own words, {number}.", author=author)
        for number in range(3)
    ]
    services.create_comparisons(project, [(make_response(prompt), written[0]), (written[1], make_response(prompt))])
    services.create_rankings(project, [[make_response(prompt), make_response(prompt, make_source()), written[2]]])
    assert services.claim_assignments(annotator=author, project=project) == []
    judged = 0
    while held := services.claim_assignments(annotator=other, project=project):
        services.skip_assignment(assignment_id=held[0].public_id, annotator=other)
        judged += 1
    assert judged == 3
