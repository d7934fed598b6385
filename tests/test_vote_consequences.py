"""What votes, skips and flags bring about: more votes, rewrites, and comparisons that wait for a reviewer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.db import connections

from annotation import services
from annotation.models import Assignment, Comparison, Flag, QueueTier, RewriteTask
from annotation.protocol import Aspect, Protocol, Scale
from annotation.reasons import FlagReason, SkipReason
from tests.factories import make_annotator, make_comparison, make_project, make_prompt, make_response
from tests.leases import judge, lease, project_with

RANKING = Protocol(scale=Scale.RANKING)


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
