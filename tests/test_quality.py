"""What is known about single annotators, votes weighed by who cast them, and the pages that show it."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from annotation import quality
from annotation.aggregation import NO_MAJORITY, aggregate, dawid_skene, majorities
from annotation.agreement import VERDICTS, Votes, load_votes
from annotation.models import (
    Annotator,
    AssignmentKind,
    Comparison,
    Gold,
    Judgment,
    Project,
    StoredFigures,
)
from annotation.quality import Bins, Concern, measure_annotator, measure_annotators, own_figures
from annotation.services import quality as services
from annotation.shares import Share
from tests.factories import (
    make_annotator,
    make_comparison,
    make_project,
    make_prompt,
    make_ranking,
    make_response,
    make_source,
    make_user,
)
from tests.votes import make_vote

# ── Aggregation ──────────────────────────────────────────────────────────────────────────────────────────────────


def noisy_votes(
    rng: np.random.Generator, accuracies: list[float], items: int, share_judged: float = 0.8
) -> tuple[Votes, np.ndarray]:
    """Votes of people who are right with given chances, and the truth: (items,) indexes of a, tie and b."""
    truth = rng.integers(0, 3, items)
    is_right = rng.random((items, len(accuracies))) < accuracies
    wrong = (truth[:, None] + rng.integers(1, 3, is_right.shape)) % 3
    verdict = np.where(is_right, truth[:, None], wrong)
    judged = rng.random(is_right.shape) < share_judged
    judged[:, :2] = True  # two votes at least
    item, person = np.nonzero(judged)
    return Votes(item + 1, person + 1, np.zeros_like(item), 9 + verdict[item, person]), truth


def test_the_estimate_beats_the_majority_where_some_are_careless() -> None:
    rng = np.random.default_rng(11)
    accuracies = [0.9, 0.85, 0.85, 0.4, 0.35, 0.34]
    votes, truth = noisy_votes(rng, accuracies, 400)
    majority, _ = majorities(votes)
    found = aggregate(votes)
    estimate = majority.copy()
    for difference in found.differences:
        estimate[difference.comparison_id - 1] = difference.estimate
    by_majority, by_estimate = (majority == truth).mean(), (estimate == truth).mean()
    assert by_estimate > by_majority + 0.08
    # Whom to trust is told by the votes alone, to a few points.
    told = [found.people[person + 1].estimated for person in range(len(accuracies))]
    assert told == pytest.approx(accuracies, abs=0.08)
    assert found.items == found.same + found.contrary + found.decided == 400
    assert len(found.differences) == found.contrary + found.decided


def test_without_smoothing_the_estimate_is_crowd_kits() -> None:
    """Reference: crowdkit.aggregation.DawidSkene(n_iter=5, tol=0) of crowd-kit 1.4.2 on the same votes."""
    rng = np.random.default_rng(3)
    rows = []
    for item, right in enumerate(rng.integers(0, 3, 40)):
        for person, accuracy in enumerate([0.85, 0.8, 0.7, 0.5]):
            rows.append((item, person, right if rng.random() < accuracy else (right + rng.integers(1, 3)) % 3))
    item, person, verdict = np.array(rows).T
    after_five = dawid_skene(item, person, verdict, verdicts=3, smoothing=0, rounds=5, tolerance=0)
    assert after_five.shares == pytest.approx([0.363895, 0.319839, 0.316265], abs=1e-6)
    at_the_end = dawid_skene(item, person, verdict, verdicts=3, smoothing=0, rounds=500, tolerance=0)
    assert at_the_end.shares == pytest.approx([0.349918, 0.325082, 0.325], abs=1e-6)
    assert at_the_end.errors[0] == pytest.approx(
        np.array([[0.92654, 0.07346, 0], [0.156229, 0.843771, 0], [0, 0, 1]]), abs=1e-6
    )


def test_nothing_shared_gives_nothing() -> None:
    nobody = np.zeros(0, dtype=np.int64)
    assert aggregate(Votes(nobody, nobody, nobody, nobody)).items == 0
    alone = aggregate(Votes(np.array([1, 2]), np.array([1, 1]), np.array([0, 0]), np.array([9, 11])))
    assert (alone.items, alone.people) == (0, {})


def test_a_majority_needs_more_votes_than_each_other_verdict() -> None:
    # a a b | a b | neither | tie tie
    votes = Votes(
        np.array([1, 1, 1, 2, 2, 3, 4, 4]),
        np.array([1, 2, 3, 1, 2, 1, 1, 2]),
        np.zeros(8, dtype=int),
        np.array([1, 9, 11, 9, 11, 12, 4, 10]),
    )
    majority, counts = majorities(votes)
    assert majority.tolist() == [0, NO_MAJORITY, VERDICTS.index("neither"), VERDICTS.index("tie")]
    assert counts[0].tolist() == [2, 0, 1, 0]


# ── Shares ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_share_of_alike_clusters_is_as_sure_as_their_number() -> None:
    # Ten comparisons with four meetings each, all alike inside: no surer than ten trials.
    wide = Share.clustered([4, 0] * 5, [4] * 10)
    trials = Share.of(20, 40)
    assert wide and trials and wide.value == trials.value == 0.5 and wide.count == 40
    assert wide.upper - wide.lower > 1.8 * (trials.upper - trials.lower)
    assert Share.of(0, 0) is None and Share.clustered([], []) is None
    certain = Share.clustered([1] * 10, [1] * 10)
    assert certain and certain.value == 1 and 0.5 < certain.lower < 0.8


# ── Figures ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.django_db
def test_figures_of_a_person_are_their_counts() -> None:
    project = make_project()
    ann, bob = make_annotator(make_user("ann")), make_annotator(make_user("bob"))
    long, short = "many words " * 20, "few"
    first, second, third, fourth = (make_comparison(project, a_text=long + str(n), b_text=short) for n in range(4))
    make_vote(first, ann, -2, a_left=True, milliseconds=2_000)  # left, longer, fast
    make_vote(second, ann, 1, a_left=True, milliseconds=10_000)
    make_vote(third, ann, -1, a_left=False, milliseconds=300_000)  # longer; an idle minute and more
    make_vote(fourth, ann, 0, milliseconds=20_000)
    make_vote(first, bob, -1)
    make_vote(second, bob, -1)
    make_vote(third, bob, -3)
    make_vote(fourth, bob, None)
    make_vote(third, ann, 2, kind=AssignmentKind.REPEAT, a_left=True)  # the right side of the screen again
    found = {figures.annotator: figures for figures in measure_annotators(project, load_votes(project))}
    counts = found[ann].counts
    assert (counts.votes, counts.undecided) == (4, 1)
    assert (counts.shown, counts.left) == (4, 1)  # the repeat counts: what sways a person sways them again
    assert (counts.unequal, counts.longer) == (4, 2)
    assert (counts.timed, counts.median_seconds, counts.active_seconds, counts.fast) == (4, 15, 92, 1)
    met = found[ann].with_others
    assert met and met.value == 2 / 4
    repeats = found[ann].repeats
    assert repeats and repeats.consistent.value == 0 and repeats.screen_side and repeats.screen_side.value == 1
    assert found[bob].repeats is None and found[bob].counts.median_seconds is None
    alone = measure_annotator(project, ann)
    assert alone and alone[0] == found[ann]
    assert measure_annotator(project, make_annotator()) is None


@pytest.mark.django_db
def test_repeated_rankings_are_compared_pair_by_pair() -> None:
    project = make_project()
    turncoat, steady, mixed = make_annotator(), make_annotator(), make_annotator()
    for _ in range(6):
        ranking = make_ranking(project)
        for person, again in ((turncoat, [3, 2, 1]), (steady, [1, 2, 3]), (mixed, [1, 3, 3])):
            for kind, ranks in ((AssignmentKind.WORK, [1, 2, 3]), (AssignmentKind.REPEAT, again)):
                vote = make_vote(ranking, person, None, kind=kind)
                Judgment.objects.filter(pk=vote.pk).update(preference="ranked", ranking=ranks)
    found = {figures.annotator: figures.repeats for figures in measure_annotators(project, load_votes(project))}
    shares = {
        person: repeats and (repeats.consistent.value, repeats.consistent.count) for person, repeats in found.items()
    }
    # Of (1, 3, 3) the second and third tie, where they stood apart.
    assert shares == {turncoat: (0, 18), steady: (1, 18), mixed: (2 / 3, 18)}
    alone = measure_annotator(project, turncoat)
    assert alone and Concern.INCONSISTENT in alone[0].concerns


@pytest.mark.django_db
def test_reading_speed_is_told_by_words_and_by_language() -> None:
    project = make_project()
    ann = make_annotator()
    comparison = make_comparison(project, a_text="word " * 600, b_text="and " * 600)  # 900 words of six characters
    make_vote(comparison, ann, 1, milliseconds=53_000)  # 1019 a minute
    other = make_comparison(project, a_text="word " * 601, b_text="and " * 600)
    make_vote(other, ann, 1, milliseconds=56_000)
    chinese = make_comparison(project, a_text="字" * 500, b_text="词" * 500)
    Comparison.objects.filter(pk=chinese.pk).update(lang="zh")
    make_vote(chinese, ann, 1, milliseconds=20_000)  # 500 words of two characters in 20 s
    (figures,) = measure_annotators(project, load_votes(project))
    assert figures.counts.fast == 2


@pytest.mark.django_db
def test_drift_is_told_by_weeks_and_by_hundreds() -> None:
    project = make_project()
    ann, bob = make_annotator(), make_annotator()
    now = timezone.now()
    start = now - timedelta(weeks=5, days=now.weekday())  # a Monday: hours added stay in its week
    comparisons = [make_comparison(project) for _ in range(6)]
    for number, comparison in enumerate(comparisons):
        agrees = number < 3
        at = start + timedelta(weeks=0 if agrees else 3, hours=number)
        make_vote(comparison, ann, -1, at=at, milliseconds=4000 if agrees else 9000)
        make_vote(comparison, bob, -1 if agrees else 1, at=at)
    found = measure_annotator(project, ann, Bins.WEEKS)
    assert found
    weeks = found[1]
    assert [(week.counts.votes, week.votes_so_far, week.counts.median_seconds) for week in weeks] == [
        (3, 3, 4),
        (3, 6, 9),
    ]
    assert [week.with_others and week.with_others.value for week in weeks] == [1, 0]
    hundreds = measure_annotator(project, ann, Bins.HUNDREDS)
    assert hundreds and len(hundreds[1]) == 1 and hundreds[1][0].with_others == found[0].with_others


@pytest.mark.django_db
def test_votes_against_clear_preferences_are_flagged_in_sequence() -> None:
    project = make_project()
    strong, weak = make_source(), make_source()
    crowd, honest, contrary = make_annotator(), make_annotator(), make_annotator()
    for number in range(40):
        prompt = make_prompt(project)
        good, bad = make_response(prompt, strong), make_response(prompt, weak)
        # Content order turns round: what counts is the source, not the side.
        pair = (good, bad) if number % 2 else (bad, good)
        comparison = Comparison.objects.create(project=project, prompt=prompt, response_a=pair[0], response_b=pair[1])
        right = -1 if number % 2 else 1
        make_vote(comparison, crowd, right if number % 10 else -right)
        if number < 20:
            make_vote(comparison, honest, right if number % 10 else -right)
        if number < 6:
            make_vote(comparison, contrary, -right)
    found = {figures.annotator: figures for figures in measure_annotators(project, load_votes(project))}
    surprise = found[contrary].surprise
    assert surprise and surprise.is_flagged and surprise.votes == 6
    # 54 of the others' 60 votes were for the strong one; each vote for the weak one is worth 1 / (2 · 7/61), but the
    # first, where the others voted so too, only 1/2.
    assert surprise.factor == pytest.approx((61 / 14) ** 5 / 2)
    assert Concern.SURPRISE in found[contrary].concerns
    steady = found[honest].surprise
    assert steady and not steady.is_flagged and found[honest].concerns == []


@pytest.mark.django_db
def test_own_figures_tell_days_in_a_row_and_hide_few_gold_items() -> None:
    project = make_project()
    ann = make_annotator()
    now = timezone.localtime().replace(hour=12)
    for days in (0, 1, 2, 4):
        make_vote(make_comparison(project), ann, 1, at=now - timedelta(days=days), milliseconds=5000)
    own = own_figures(ann, project)
    assert (own.votes, own.votes_today, own.streak_days, own.median_seconds) == (4, 1, 3, 5)
    assert own.with_others is None and own.gold is None
    for number in range(10):
        comparison = make_comparison(project)
        services.add_gold(comparison, preference="b", strength=1)
        make_vote(comparison, ann, 1 if number else -1, kind=AssignmentKind.GOLD)
        assert (own_figures(ann, project).gold is None) == (number < 9)
    shown = own_figures(ann, project).gold
    assert shown and shown.value == 0.9


@pytest.mark.django_db
def test_figures_take_a_fixed_number_of_queries(django_assert_num_queries: Any) -> None:
    project = make_project()
    people = [make_annotator() for _ in range(5)]
    for _, annotator in itertools.product(range(3), people):
        make_vote(make_comparison(project), annotator, 1)
    votes = load_votes(project)
    with django_assert_num_queries(4):
        measure_annotators(project, votes)
    with django_assert_num_queries(5):
        measure_annotator(project, people[0])
    with django_assert_num_queries(3):
        quality.own_figures(people[0], project)


# ── Pages ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def page(client: Client) -> Client:
    client.force_login(make_user(is_staff=True))
    return client


def judged_project(people: int = 3, comparisons: int = 4) -> Project:
    project = make_project()
    annotators = [make_annotator() for _ in range(people)]
    for number in range(comparisons):
        comparison = make_comparison(project)
        for annotator in annotators:
            make_vote(comparison, annotator, -2 if number % 2 else 1, milliseconds=8000)
    make_vote(make_comparison(project), annotators[0], 3)
    return project


@pytest.mark.django_db
def test_the_quality_page_shows_figures_with_their_doubt(page: Client) -> None:
    project = judged_project()
    odd = make_comparison(project)
    people = list(Annotator.objects.filter(judgments__comparison__project=project).distinct().order_by("pk"))
    for annotator, strength in zip(people, (-2, -1, 3), strict=True):
        make_vote(odd, annotator, strength)
    answer = page.get(reverse("project_quality", args=[project.slug]))
    text = answer.content.decode()
    report = answer.context["report"]
    raw = report.figures[0]
    assert raw.value == pytest.approx(13 / 15) and raw.interval and raw.shown in text and raw.shown_interval in text
    assert [line.name for line in report.people] == [annotator.name for annotator in people]
    assert all(reverse("annotator_quality", args=[project.slug, line.pk]) in text for line in report.people)
    assert len(report.people_pairs) == 3
    assert (report.weighed.items, report.weighed.same) == (5, 5)


@pytest.mark.django_db
def test_pages_say_what_is_not_defined(page: Client) -> None:
    project = make_project()
    assert "Nothing to measure yet" in page.get(reverse("project_quality", args=[project.slug])).content.decode()
    annotator = make_annotator()
    assert page.get(reverse("annotator_quality", args=[project.slug, annotator.pk])).status_code == 404
    StoredFigures.objects.all().delete()
    make_vote(make_comparison(project), annotator, 1)
    text = page.get(reverse("project_quality", args=[project.slug])).content.decode()
    assert "not defined: fewer than two people have judged here" in text
    text = page.get(reverse("annotator_quality", args=[project.slug, annotator.pk])).content.decode()
    assert "nobody else judged the same comparisons" in text and "met no gold item yet" in text


@pytest.mark.django_db
def test_pages_take_as_many_queries_for_many_rows_as_for_few(page: Client) -> None:
    small, large = judged_project(2, 2), judged_project(5, 9)
    for project in (small, large):
        for comparison in project.comparisons.all()[: 2 if project == small else 7]:
            services.add_gold(comparison, preference="a")

    def queries(name: str, project: Project, *more: int) -> int:
        StoredFigures.objects.all().delete()
        with CaptureQueriesContext(connection) as captured:
            assert page.get(reverse(name, args=[project.slug, *more])).status_code == 200
        return len(captured)

    def first_person(project: Project) -> int:
        return Annotator.objects.filter(judgments__comparison__project=project).earliest("pk").pk

    queries("project_quality", small)  # what Django looks up once and keeps
    for name in ("project_quality", "project_gold"):
        assert queries(name, small) == queries(name, large)
    assert queries("annotator_quality", small, first_person(small)) == queries(
        "annotator_quality", large, first_person(large)
    )


@pytest.mark.django_db
def test_a_person_is_shown_over_time(page: Client) -> None:
    project = judged_project()
    annotator = Annotator.objects.filter(judgments__comparison__project=project).earliest("pk")
    for by in ("week", "hundred", "nonsense"):
        answer = page.get(reverse("annotator_quality", args=[project.slug, annotator.pk]), {"by": by})
        assert [row["step"] for row in answer.context["chart"]["rows"]] == [5]
        assert answer.context["chart"]["rows"][0]["agreement"] == 100
    assert answer.context["others"].value == 1


@pytest.mark.django_db
def test_gold_is_kept_on_its_page(page: Client) -> None:
    project = judged_project()
    url = reverse("project_gold", args=[project.slug])
    assert "There is no gold yet" in page.get(url).content.decode()
    page.post(reverse("promote_gold", args=[project.slug]))
    assert Gold.objects.count() == 4
    gold = Gold.objects.order_by("-pk").first()
    assert gold
    make_vote(gold.comparison, make_annotator(), gold.strength, kind=AssignmentKind.GOLD)
    answer = page.get(url)
    assert [share and (share.value, share.count) for _, _, share in answer.context["rows"]] == [
        (1, 1),
        None,
        None,
        None,
    ]
    change = reverse("change_gold", args=[project.slug, gold.pk])
    page.post(change, {"action": "qualification"})
    gold.refresh_from_db()
    assert gold.is_for_qualification
    page.post(change, {"action": "retire"})
    gold.refresh_from_db()
    assert gold.retired_at and len(page.get(url).context["rows"]) == 3
    assert [item for item, _, _ in page.get(url, {"show": "retired"}).context["rows"]] == [gold]
    assert page.post(change, {"action": "explode"}).status_code == 403
    elsewhere = reverse("change_gold", args=[make_project().slug, gold.pk])
    assert page.post(elsewhere, {"action": "retire"}).status_code == 404
    assert page.get(change).status_code == 405
