"""Ratings beyond Bradley–Terry with ties as half: Davidson, Elo, style, weights, bootstrap, history and flags."""

from __future__ import annotations

import io
import itertools
import json
import math
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone
from scipy.optimize import minimize

from annotation.charts import line_chart
from annotation.leaderboard import POINTS_PER_NAT, Choices, board_of, follow_ratings, make_leaderboard
from annotation.models import Comparison, Judgment, Prompt, SourceKind
from annotation.ratings import bradley_terry
from annotation.ratings.battles import LOST, TIED, WON, Battles, inverse_probability_weights, load_battles
from annotation.ratings.bradley_terry import Rows, fit_strengths, rows_of_votes
from annotation.ratings.elo import rate_in_order, resampled_errors
from annotation.ratings.history import history_of
from annotation.ratings.style import style_differences
from annotation.services.conversations import set_conversation_sources
from tests.factories import make_project, make_source, make_user
from tests.talks import make_talk, make_talk_project, pick, write
from tests.test_leaderboard import by_source, result

_numbers = itertools.count()


def drawn(
    count: int, *, votes: int, seed: int = 0, people: int = 40, prompts: int = 200, tie: float = 0.0
) -> tuple[Battles, np.ndarray]:
    """Votes from known strengths, each by somebody on some prompt, and the strengths."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 0.7, count)
    truth -= truth.mean()
    one = rng.integers(0, count, votes)
    other = (one + rng.integers(1, count, votes)) % count
    chance = 1 / (1 + np.exp(truth[other] - truth[one]))
    verdict = np.where(rng.random(votes) < tie, TIED, np.where(rng.random(votes) < chance, WON, LOST))
    return (
        Battles(one, other, verdict, rng.integers(0, people, votes), rng.integers(0, prompts, votes), np.ones(votes)),
        truth,
    )


def test_davidson_maximises_its_likelihood() -> None:
    battles, _ = drawn(4, votes=300, tie=0.25)

    def loss(parameters: np.ndarray) -> float:
        gap = (parameters[battles.one] - parameters[battles.other]) / 2
        terms = np.stack([gap, np.full_like(gap, parameters[4]), -gap])
        said = np.choose(battles.verdict, terms)
        return float(np.sum(np.log(np.exp(terms).sum(axis=0)) - said) + parameters[:4].mean() ** 2)

    best = minimize(loss, np.zeros(5), tol=1e-12).x
    fit = fit_strengths(rows_of_votes(battles, 4, "davidson"), "davidson")
    assert fit.parameters == pytest.approx(best, abs=1e-4)
    one_by_one = fit_strengths(rows_of_votes(battles, 4, "davidson", np.zeros((300, 0))), "davidson")
    assert one_by_one.parameters == pytest.approx(fit.parameters, abs=1e-9)
    assert one_by_one.covariance == pytest.approx(fit.covariance, abs=1e-9)


@pytest.mark.parametrize("ties", ["half", "drop", "davidson"])
def test_bootstrap_and_sandwich_agree(ties: str) -> None:
    battles, _ = drawn(5, votes=4000, tie=0.15)
    names = list("abcde")
    widths = {
        kind: np.array(
            [row.upper - row.lower for row in board_of(battles, names, Choices(ties=ties, intervals=kind)).standings]  # type: ignore[operator]
        )
        for kind in ("sandwich", "bootstrap")
    }
    assert widths["bootstrap"] == pytest.approx(widths["sandwich"], rel=0.3)
    assert widths["bootstrap"].mean() == pytest.approx(widths["sandwich"].mean(), rel=0.12)


def test_people_who_lean_widen_the_interval_as_prompts_do() -> None:
    """Every person votes five times the same way on a pair: a fifth of the votes would say as much."""
    once, _ = drawn(3, votes=600, people=600, prompts=600)
    one, other, verdict = (np.repeat(column, 5) for column in (once.one, once.other, once.verdict))
    often = Battles(one, other, verdict, np.repeat(np.arange(600), 5), np.arange(3000), np.ones(3000))
    alone = Battles(once.one, once.other, once.verdict, np.arange(600), np.arange(600), np.ones(600))
    wide, narrow = (board_of(battles, list("abc"), Choices()).standings[0] for battles in (often, alone))
    assert wide.rating == pytest.approx(narrow.rating)
    assert wide.upper - wide.lower == pytest.approx(narrow.upper - narrow.lower, rel=0.05)  # type: ignore[operator]


def test_elos_intervals_know_prompts_people_and_the_order_also_of_many_votes() -> None:
    # Six labels, each of which always says the same: of no account, or six people's tastes, or six prompts' lean.
    label, alone = np.arange(1200) % 6, np.arange(1200)
    zeros = np.zeros(1200, dtype=int)
    widths = [
        resampled_errors(
            Battles(zeros, zeros + 1, np.where(label < 3, WON, LOST), person, group, np.ones(1200)), 2, ties="half"
        ).half_widths[0]
        for person, group in ((alone, alone), (label, alone), (alone, label))
    ]
    assert widths[1] > 2 * widths[0] and widths[2] > 2 * widths[0]
    many, _ = drawn(4, votes=120_000, people=500, prompts=500)
    board = board_of(many, list("abcd"), Choices(method="elo", voters="people"))
    assert board.people_counted
    for row in board.standings:
        assert row.lower is not None and row.upper is not None and row.rank is not None
        # What a rating remembers is a few hundred votes, however many there were.
        assert 30 < row.upper - row.lower < 120


@pytest.mark.parametrize(("people", "least"), [(5, 0.93), (3, 0.9)])
def test_intervals_hold_the_truth_with_few_voters(people: int, least: float) -> None:
    hits = []
    for number in range(100):
        rng = np.random.default_rng(number)
        truth = np.array([0.5, 0.0, -0.5])
        one, other = np.triu_indices(3, 1)
        pair, person, prompt = rng.integers(0, 3, 600), rng.integers(0, people, 600), rng.integers(0, 60, 600)
        leans = rng.random((people, 3))[person, pair]  # a third of the votes on a pair is one draw of their person
        decides = np.where(rng.random(600) < 0.3, leans, rng.random(600))
        chance = 1 / (1 + np.exp(truth[other] - truth[one]))
        verdict = np.where(decides < chance[pair], WON, LOST)
        battles = Battles(one[pair], other[pair], verdict, person, prompt, np.ones(600))
        board = board_of(battles, ["0", "1", "2"], Choices())
        assert board.people_counted
        for row in board.standings:
            hits.append(row.lower <= 1000 + POINTS_PER_NAT * truth[int(row.source)] <= row.upper)
    assert least <= np.mean(hits) <= 0.99


def test_style_held_equal_finds_strength_and_the_worth_of_length() -> None:
    rng = np.random.default_rng(3)
    votes, truth = 20_000, np.array([0.5, 0.0, -0.5])
    one = rng.integers(0, 3, votes)
    other = (one + rng.integers(1, 3, votes)) % 3
    # The third source writes twice as long, and length is worth 0.8 nats a standard deviation.
    length = np.array([300, 300, 600])[:, None] * rng.uniform(0.5, 1.5, (3, 1000))
    place = rng.integers(0, 1000, votes)
    ids = np.arange(3000)
    looks = np.zeros((3000, 4), dtype=int)
    looks[:, 0] = length.ravel().astype(int)
    looks[:, 3] = 7  # never differs
    battles = Battles(
        one, other, np.zeros(votes, dtype=int), np.arange(votes), np.arange(votes), np.ones(votes),
        None, one * 1000 + place, other * 1000 + place,
    )  # fmt: skip
    differences, features = style_differences(battles, ids, looks)
    assert features == ["length"]
    gap = truth[one] - truth[other] + 0.8 * differences[:, 0]
    verdict = np.where(rng.random(votes) < 1 / (1 + np.exp(-gap)), WON, LOST)
    battles = replace(battles, verdict=verdict)
    plain, equal = (
        board_of(battles, ["good", "plain", "long"], choices, (ids, looks))
        for choices in (Choices(), Choices(control=True))
    )
    assert by_source(plain.standings)["long"].rating > by_source(equal.standings)["long"].rating + 60  # type: ignore[operator]
    for name, strength in zip(("good", "plain", "long"), truth, strict=True):
        row = by_source(equal.standings)[name]
        assert row.rating == pytest.approx(1000 + POINTS_PER_NAT * strength, abs=10)
    (effect,) = equal.style
    assert effect.points / POINTS_PER_NAT == pytest.approx(0.8, abs=0.06)
    for without in ({"control": True}, {"ties": "davidson"}, {"intervals": "sandwich"}):
        with pytest.raises(ValueError, match="Elo"):
            Choices(method="elo", **without)


@pytest.mark.parametrize("ties", ["half", "davidson"])
def test_what_few_votes_tell_of_style_leaves_the_ratings_standing(ties: str) -> None:
    """A single response in bold, which won, and a source that is longer than the other by the same share always."""
    rng = np.random.default_rng(1)
    votes = 200
    one, other = np.zeros(votes, dtype=int), np.ones(votes, dtype=int)
    verdict = np.where(rng.random(votes) < 0.6, WON, LOST)
    verdict[0] = WON
    battles = Battles(
        one, other, verdict, np.arange(votes), np.arange(votes), np.ones(votes), None,
        np.arange(votes), votes + np.arange(votes),
    )  # fmt: skip
    looks = np.zeros((2 * votes, 4), dtype=int)
    looks[:, 0] = rng.integers(100, 300, 2 * votes)
    looks[0, 3] = 1
    names, choices = ["left", "right"], Choices(control=True, ties=ties)
    plain = board_of(battles, names, Choices(ties=ties))
    board = board_of(battles, names, choices, (np.arange(2 * votes), looks))
    for before, after in zip(plain.standings, board.standings, strict=True):
        assert after.rating == pytest.approx(before.rating, abs=10) and after.lower is not None
    worth = {effect.feature: effect for effect in board.style}
    assert worth["length"].lower is not None
    assert worth["bold"].points > 0 and worth["bold"].lower is None  # one vote gives no interval

    looks[:, 0] = 100 + 100 * (np.arange(2 * votes) < votes)
    looks[:2, 0] += 1
    board = board_of(battles, names, choices, (np.arange(2 * votes), looks))
    assert all(math.isfinite(row.rating or math.nan) for row in board.standings)


def test_rounding_near_the_maximum_of_many_votes_does_not_hold_the_fit_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def counted(*given: Any) -> float:
        asked.append(likelihood(*given))
        return asked[-1]

    likelihood = bradley_terry._log_likelihood
    monkeypatch.setattr(bradley_terry, "_log_likelihood", counted)
    one, other = np.triu_indices(8, 1)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        strengths, longer = rng.normal(0, 0.7, 8), rng.normal(size=(len(one), 1))
        share = 1 / (1 + np.exp(strengths[other] - strengths[one] - 0.3 * longer[:, 0]))
        won, tied, lost = (np.round(1e6 * part) for part in (0.75 * share, np.full(28, 0.25), 0.75 * (1 - share)))
        asked.clear()
        fit = fit_strengths(Rows(8, one, other, won, tied, lost, longer), "davidson")
        assert len(asked) < 15, "each step is taken about once; halved for ever, some of these asked 50 times and more"
        assert np.corrcoef(fit.strengths, strengths)[0, 1] > 0.99


def test_nothing_but_ties_has_ratings_under_davidson() -> None:
    battles, _ = drawn(3, votes=60, tie=1.0)
    board = board_of(battles, list("abc"), Choices(ties="davidson"))
    assert [row.rating for row in board.standings] == pytest.approx([1000] * 3)


def test_votes_weigh_by_the_inverse_of_their_pairs_probability() -> None:
    assert inverse_probability_weights(np.array([0.5, 0.25, 0.0, 0.25])) == pytest.approx([0.6, 1.2, 1.0, 1.2])
    assert inverse_probability_weights(np.array([1e-9, *[0.5] * 99])).max() == 20
    # x beats y on easy prompts, which were drawn nine times as often; over all prompts they are equals.
    easy, hard = 900, 100
    verdict = np.concatenate([np.zeros(easy), np.full(hard, LOST)]).astype(int)
    verdict[:90] = LOST
    verdict[easy : easy + 10] = WON
    probability = np.concatenate([np.full(easy, 0.9), np.full(hard, 0.1)])
    ones = np.zeros(1000, dtype=int)
    for weight, gap in ((np.ones(1000), 2 * math.log(820 / 180)), (inverse_probability_weights(probability), 0.0)):
        battles = Battles(ones, ones + 1, verdict, np.arange(1000), np.arange(1000), weight)
        fit = fit_strengths(rows_of_votes(battles, 2, "half"), "half")
        assert 2 * (fit.strengths[0] - fit.strengths[1]) == pytest.approx(gap, abs=1e-6)


@pytest.mark.django_db
def test_pairs_drawn_for_conversations_keep_their_probability_and_weigh_by_it() -> None:
    """Two models met in every talk until a third came; then each pair in a third of them, and its votes make up."""
    project = make_talk_project(models=2)
    for number in range(9):
        if number == 6:
            third = make_source("third-model", kind=SourceKind.MODEL, served_model="third")
            set_conversation_sources(project, [row.source for row in project.conversation_sources.all()] + [third])
        talk = make_talk(project)
        write(talk, f"One answer, {number}.", f"Another answer, {number}.")
        pick(talk, "2" if number % 2 else "-2")
    probabilities = list(Comparison.objects.order_by("pk").values_list("sampling_probability", flat=True))
    assert probabilities == pytest.approx([1.0] * 6 + [1 / 3] * 3)
    board = make_leaderboard(project, Choices())
    assert (board.votes, board.is_weighted) == (9, True)
    battles, _ids = load_battles(project)
    late = battles.weight > 1
    assert battles.weight[late].sum() == pytest.approx(1.5 * battles.weight[~late].sum())


def test_elo_is_computed_by_hand() -> None:
    order = np.array([3, 1, 2])
    battles = Battles(
        np.array([0, 0, 1]), np.array([1, 1, 0]), np.array([WON, TIED, WON]), np.arange(3), np.arange(3), np.ones(3),
        at=order,
    )  # fmt: skip
    # In time: a tie between equals, then 1 beats 0 (+2), then 0 beats 1, who leads by 4.
    last = 4 * (1 - 1 / (1 + 10 ** (4 / 400)))
    assert rate_in_order(battles, 2) == pytest.approx([998 + last, 1002 - last])
    assert rate_in_order(battles, 2, ties="drop") == pytest.approx([998 + last, 1002 - last])


def test_history_ends_with_todays_ratings_and_begins_without_the_late_ones() -> None:
    battles, _ = drawn(3, votes=400)
    late = np.where((battles.one == 2) | (battles.other == 2), 10_000, 0) + np.arange(400)
    dated = Battles(battles.one, battles.other, battles.verdict, battles.person, battles.group, battles.weight, late)
    found = history_of(dated, 3, ties="half", points=8)
    assert found.strengths[-1] == pytest.approx(fit_strengths(rows_of_votes(battles, 3, "half"), "half").strengths)
    assert np.isnan(found.strengths[0, 2])
    assert not np.isnan(found.strengths[0, :2]).any()
    chart = line_chart(found.at.tolist(), {"x": [None, 1.0, 2.0, None, 3.0, 3.0, 3.0, 4.0][: len(found.at)]})
    assert chart is not None
    assert len(chart.lines[0].paths) == 2
    assert line_chart([1.0], {"x": [1.0]}) is None


@pytest.mark.slow
@pytest.mark.django_db
def test_the_published_figures_of_mt_bench(shared_data: Path) -> None:
    project = make_project("mt")
    call_command(
        "import_preferences",
        str(shared_data / "preferences" / "mt_bench_human.jsonl"),
        project="mt",
        stdout=io.StringIO(),
    )
    expected = {
        "gpt-4": 1175.10, "claude-v1": 1090.39, "gpt-3.5-turbo": 1087.02,
        "vicuna-13b-v1.2": 1015.54, "alpaca-13b": 866.27, "llama-13b": 765.69,
    }  # fmt: skip
    for kind in ("sandwich", "bootstrap"):
        standings = by_source(make_leaderboard(project, Choices(voters="people", intervals=kind)).standings)
        assert {name: row.rating for name, row in standings.items()} == pytest.approx(expected, abs=0.5)
        assert standings["claude-v1"].rank == standings["gpt-3.5-turbo"].rank == 2
        assert standings["gpt-4"].rank == 1
    judges = make_leaderboard(project, Choices(voters="judges"))
    assert judges.standings[0].source == "gpt-4"


@pytest.mark.django_db
def test_the_page_and_the_command_make_the_board_that_is_asked_for() -> None:
    project = make_project("helpful")
    now = timezone.now()
    for number in range(24):
        comparison = result(project, "polite", "rude", "b" if number % 4 == 0 else "a", group=number)
        Prompt.objects.filter(pk=comparison.prompt_id).update(task="math" if number % 2 else "chat", lang="en")
        Judgment.objects.filter(comparison=comparison).update(created_at=now - timedelta(days=24 - number))
    Comparison.objects.filter(project=project).update(sampling_probability=0.5)
    client = Client()
    client.force_login(make_user(is_staff=True))
    address = f"/projects/{project.slug}/leaderboard/"
    text = client.get(address).content.decode()
    assert text.count("<polyline") == 2
    assert "24 votes on 24 prompts by 24 voters" in text
    assert "what other prompts and other people would change" in text
    chat = client.get(address, {"category": "chat", "ties": "davidson", "lang": "en"}).content.decode()
    assert "12 votes on 12 prompts" in chat
    assert '<option value="davidson" selected>' in chat
    for given in ({"method": "elo"}, {"control": "1"}, {"intervals": "bootstrap"}, {"ties": "nonsense"}):
        answer = client.get(address, given)
        assert answer.status_code == 200 and "passed over" not in answer.content.decode()
    by_elo = client.get(address, {"method": "elo", "ties": "davidson", "control": "1"}).content.decode()
    assert "passed over" in by_elo and '<option value="bootstrap" selected>' in by_elo
    for without in ('<option value="davidson" disabled>', '<option value="sandwich" disabled>'):
        assert without in by_elo
    assert "passed over" in client.get(address, {"control": "1", "intervals": "bootstrap"}).content.decode()
    assert "No vote between two sources" in client.get(address, {"voters": "judges"}).content.decode()
    assert "No vote between two sources" in client.get(address, {"category": "a'b\\c\N{SNOWMAN}"}).content.decode()
    assert run_board(category="math")["votes"] == 12
    # chat holds the six votes for the other side; what differs is who won, not how many voted
    assert {row["source"] for row in run_board(method="elo")["rows"]} == {"polite", "rude"}
    assert set(run_board()["rows"][0]) >= {"source", "rating", "lower", "upper", "rank", "judgments"}
    with pytest.raises(CommandError, match="cannot hold style equal"):
        run_board(method="elo", control_style=True)
    api = f"/api/v1/projects/{project.slug}/leaderboard/"
    for given, votes in (
        ({"ties": "davidson", "category": "chat", "language": "en", "interval": "bootstrap"}, 12),
        ({"style": "equal"}, 24),
        ({"voters": "judges"}, 0),
        ({"humans_only": "true", "method": "elo", "interval": "bootstrap"}, 24),
    ):
        answer = client.get(api, given).json()
        assert answer["votes"] == votes
        assert {row["source"] for row in answer["rows"]} == ({"polite", "rude"} if votes else set())
    for given, sentence in (
        ({"ties": "coin"}, "ties is 'coin'; it is one of half, drop, davidson."),
        ({"style": "equal", "interval": "bootstrap"}, "those of the sandwich estimate."),
        ({"method": "elo", "ties": "davidson"}, "use half or drop, or bradley-terry."),
        ({"method": "elo", "interval": "sandwich"}, "use bootstrap, or bradley-terry."),
        ({"style": "loud"}, "style: 'loud' is neither as_is nor equal."),
        ({"tie": "half"}, "'tie' is no parameter of this address; known are "),
    ):
        refused = client.get(api, given)
        assert refused.status_code == 422 and sentence in refused.json()["detail"]
    followed = follow_ratings(project, Choices())
    assert len(followed["at"]) == len(followed["ratings"]["polite"])


def run_board(**options: Any) -> dict[str, Any]:
    out = io.StringIO()
    call_command("leaderboard", project="helpful", json=True, stdout=out, **options)
    return json.loads(out.getvalue())


@pytest.mark.django_db
def test_who_says_the_same_to_everything_and_who_wins_by_length_is_flagged() -> None:
    project = make_project("helpful")
    rng = np.random.default_rng(5)
    for number in range(60):
        wins_longer = rng.random() < 0.9
        comparison = result(project, "long", "short", "a" if wins_longer else "b", group=number)
        a, b = comparison.response_a, comparison.response_b
        a.text, b.text = "word " * (60 if wins_longer else 12), "word " * int(20 + rng.integers(0, 10))
        a.save(update_fields=["text"])
        b.save(update_fields=["text"])
        b.text_sha256 = "0" * 64
        b.save(update_fields=["text_sha256"])
    flags = {row["source"]: row["flags"] for row in run_board()["rows"]}
    assert flags["short"] == ["constant"]
    assert flags["long"] == ["length"]
