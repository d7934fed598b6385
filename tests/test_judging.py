"""What an answer becomes: content order, the protocol's demands, spans, edits, and what a vote brings about."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connections

from annotation import services
from annotation.answer import Answer, MarkedSpan
from annotation.content_order import read_verdict
from annotation.models import (
    Annotator,
    Assignment,
    Comparison,
    Edit,
    ErrorSpan,
    Event,
    Flag,
    Judgment,
    Project,
    QueueTier,
    Response,
    RewriteTask,
)
from annotation.protocol import Aspect, Axis, Demand, Protocol, Scale
from annotation.reasons import FlagReason, SkipReason
from tests.factories import make_annotator, make_comparison, make_project, make_prompt, make_response, make_source

SWAPPED, STRAIGHT = [1, 0], [0, 1]


def lease(project: Project, annotator: Annotator | None = None) -> Assignment:
    annotator = annotator or make_annotator(project=project)
    return services.claim_assignments(annotator=annotator, project=project)[0]


def judge(assignment: Assignment, choice: str = "-1", *, judgment_id: UUID | None = None, **more: Any) -> Judgment:
    """The answer as in content order, whatever side was drawn."""
    if not assignment.a_shown_on_left and choice.lstrip("-").isdigit():
        choice = str(-int(choice))
    return services.submit_judgment(
        assignment_id=assignment.public_id,
        annotator=assignment.annotator,
        judgment_id=judgment_id or uuid4(),
        answer=Answer(choice=choice, **more),
    )


def project_with(protocol: Protocol, **fields: Any) -> Project:
    project = make_project()
    Project.objects.filter(pk=project.pk).update(protocol=protocol.to_json(), **fields)
    project.refresh_from_db()
    return project


# ── Content order and the protocol (no database) ─────────────────────────────────────────────────────────────────

RICH = Protocol(
    aspects=(Aspect("helpfulness", "Helpfulness"), Aspect("safety", "Safety", 0, 2)),
    axes=(Axis("harmless", "Which is less harmful?"),),
    chips=("clearer", "shorter"),
    spans=True,
    edit_demand=Demand.OPTIONAL,
)
RANKING = Protocol(scale=Scale.RANKING)
RATINGS = {"helpfulness": [4, 2], "safety": [2, 0]}


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


# ── What a vote brings about ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.django_db
class TestEscalation:
    def votes(self, choices: list[str], *, escalate_to: int = 5, **fields: Any) -> Comparison:
        project = project_with(Protocol(), judgments_per_comparison=3, escalate_to=escalate_to, **fields)
        comparison = make_comparison(project)
        for choice in choices:
            judge(lease(project), choice)
        comparison.refresh_from_db()
        return comparison

    @pytest.mark.parametrize(
        "choices,required",
        [
            (["-1", "-1", "-3"], 3),
            (["-1", "0", "-2"], 3),
            (["0", "0", "-3"], 4),
            (["-1", "-1", "1"], 4),
            (["-1", "-1"], 3),
            (["-1", "neither", "-3"], 3),
            (["-1", "-1", "1", "-1"], 5),
            (["-1", "-1", "1", "-1", "-1"], 5),
        ],
    )
    def test_more_people_judge_where_the_first_three_disagree(self, choices: list[str], required: int) -> None:
        comparison = self.votes(choices)
        assert comparison.required_count == required
        assert comparison.assigned_count == len(choices)
        assert comparison.tier == QueueTier.PARTLY_JUDGED

    def test_nobody_more_judges_where_the_project_does_not_escalate(self) -> None:
        assert self.votes(["-3", "3", "3"], escalate_to=0).required_count == 3

    def test_a_correction_that_settles_the_matter_asks_for_nobody_more(self) -> None:
        comparison = self.votes(["-1", "-1", "1"])
        last = Assignment.objects.order_by("-pk").first()
        judge(last, "-1")
        judge(lease(comparison.project), "3")
        comparison.refresh_from_db()
        assert comparison.required_count == 4

    def test_votes_that_disagree_wait_for_a_reviewer(self) -> None:
        assert self.votes(["-1", "-1", "1"]).review_since is not None
        assert self.votes(["-1", "-1", "-2"]).review_since is None

    def test_rankings_are_disputed_where_they_share_no_first(self) -> None:
        project = project_with(RANKING, judgments_per_comparison=3, escalate_to=4)
        prompt = make_prompt(project)
        services.create_rankings(project, [[make_response(prompt) for _ in range(3)]])
        for first in (0, 0, 1):
            held = lease(project)
            judge(held, "ranked", ranking=[1 if position == first else 2 for position in held.display_order])
        assert Comparison.objects.get().required_count == 4


@pytest.mark.django_db(transaction=True)
def test_three_votes_at_once_escalate_exactly_once() -> None:
    project = project_with(Protocol(), judgments_per_comparison=3, escalate_to=5)
    comparison = make_comparison(project)
    held = [lease(project) for _ in range(3)]
    start = Barrier(3)

    def vote(number: int) -> None:
        try:
            start.wait()
            judge(held[number], ["-3", "3", "1"][number])
        finally:
            connections.close_all()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(vote, range(3)))
    comparison.refresh_from_db()
    assert comparison.required_count == 4


@pytest.mark.django_db
class TestRewrites:
    def test_neither_by_most_asks_for_a_rewrite_once_all_have_judged(self) -> None:
        project = project_with(Protocol(rewrite_neither=True), judgments_per_comparison=3)
        comparison = make_comparison(project)
        judge(lease(project), "neither")
        judge(lease(project), "neither")
        assert not RewriteTask.objects.exists()
        judge(lease(project), "1")
        task = RewriteTask.objects.get()
        assert (task.comparison, task.prompt, task.cause) == (comparison, comparison.prompt, "neither")

    def test_a_prompt_that_is_wanting_no_more_is_asked_of_nobody(self) -> None:
        project = project_with(Protocol(rewrite_neither=True))
        make_comparison(project)
        held = lease(project)
        judge(held, "neither")
        assert RewriteTask.objects.exists()
        judge(held, "1")  # the wrong key: they went back
        assert not RewriteTask.objects.exists()
        judge(held, "neither")
        services.skip_assignment(assignment_id=held.public_id, annotator=held.annotator)
        assert not RewriteTask.objects.exists()

    def test_what_somebody_has_begun_to_rewrite_stays_theirs(self) -> None:
        project = project_with(Protocol(rewrite_neither=True))
        make_comparison(project)
        held = lease(project)
        judge(held, "neither")
        assert services.claim_rewrite(annotator=make_annotator(project=project), project=project)
        judge(held, "1")
        assert RewriteTask.objects.get().status == "leased"

    @pytest.mark.parametrize("shown,asks", [([2, 2], True), ([2, 3], False)])
    def test_low_scores_for_every_response_ask_for_a_rewrite(self, shown: list[int], asks: bool) -> None:
        project = project_with(Protocol(aspects=(Aspect("helpfulness", "Helpfulness"),), rewrite_below=0.5))
        make_comparison(project)
        judge(lease(project), "1", ratings={"helpfulness": shown})
        assert RewriteTask.objects.filter(cause="all_low").exists() == asks


# ── Skips and flags ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.django_db
class TestSkipsAndFlags:
    def skip(self, held: Assignment, reason: str = SkipReason.TOO_HARD) -> None:
        services.skip_assignment(assignment_id=held.public_id, annotator=held.annotator, reason=reason)

    def test_what_three_people_skip_goes_to_the_reviewers_and_to_nobody_else(self) -> None:
        project = make_project(judgments_per_comparison=5)
        comparison = make_comparison(project)
        for number in range(3):
            comparison.refresh_from_db()
            assert (comparison.is_withdrawn, comparison.review_since) == (False, None), number
            held = lease(project)
            self.skip(held)
        comparison.refresh_from_db()
        assert comparison.is_withdrawn
        assert comparison.review_since is not None
        assert services.claim_assignments(annotator=make_annotator(project=project), project=project) == []
        services.undo_assignment(assignment_id=held.public_id, annotator=held.annotator)
        comparison.refresh_from_db()
        assert (comparison.is_withdrawn, comparison.review_since) == (False, None)

    def test_one_person_s_skips_of_one_comparison_count_once(self) -> None:
        project = make_project()
        comparison = make_comparison(project)
        held = lease(project)
        for _ in range(3):
            self.skip(held)
            services.undo_assignment(assignment_id=held.public_id, annotator=held.annotator)
        comparison.refresh_from_db()
        assert not comparison.is_withdrawn

    def test_a_comparison_whose_only_vote_is_withdrawn_is_new_again(self) -> None:
        project = make_project(judgments_per_comparison=2)
        comparison = make_comparison(project)
        held = lease(project)
        judge(held)
        comparison.refresh_from_db()
        assert comparison.tier == QueueTier.PARTLY_JUDGED
        self.skip(held)
        comparison.refresh_from_db()
        assert (comparison.tier, comparison.assigned_count) == (QueueTier.NEW, 0)

    def test_an_unknown_reason_is_refused(self) -> None:
        project = make_project()
        make_comparison(project)
        held = lease(project)
        with pytest.raises(services.DomainError, match=r"^reason: .*too_hard"):
            self.skip(held, "boring")
        with pytest.raises(services.DomainError, match=r"^reason: "):
            services.flag_comparison(assignment_id=held.public_id, annotator=held.annotator, reason="")

    def test_a_flag_goes_to_the_reviewers_and_the_comparison_stays(self) -> None:
        project = make_project()
        comparison = make_comparison(project)
        held = lease(project)
        for reason in (FlagReason.BROKEN, FlagReason.PERSONAL_DATA):
            services.flag_comparison(
                assignment_id=held.public_id, annotator=held.annotator, reason=reason, note="A phone number."
            )
        flag = Flag.objects.get()
        assert (flag.reason, flag.note, flag.annotator) == ("personal_data", "A phone number.", held.annotator)
        held.refresh_from_db()
        comparison.refresh_from_db()
        assert held.status == "leased"
        assert comparison.review_since is not None


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
