"""Promotion gates: whether an alias may move, what stands in the way, and what the log keeps."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils.html import escape

from annotation.errors import DomainError
from annotation.models import Project
from annotation.services import create_comparisons
from rlhf.benchmark_figures import leaderboard
from rlhf.evaluation.fb_bench import parse_dataset
from rlhf.models import AliasMove, BenchmarkSet, Checkpoint, CheckpointKind, PromotionGate
from rlhf.promotion import decide, decisions_about, kept_criteria
from rlhf.services import move_alias, publish_checkpoint, register_base_checkpoint, roll_back_alias
from rlhf.services.aliases import GateRefusedError, set_gate
from rlhf.services.benchmarks import import_benchmark_run, import_benchmark_set
from rlhf.services.checkpoints import register_checkpoint
from rlhf.services.reward_cards import store_card
from tests.factories import make_annotator, make_judgment, make_project, make_prompt, make_response, make_user
from tests.fb_bench_items import correction, maintenance, tick
from tests.pages.training import make_job
from tests.test_reward_cards import pair

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]


@pytest.fixture
def champion(tiny_model: Path) -> Checkpoint:
    checkpoint = register_base_checkpoint("tiny", tiny_model)
    publish_checkpoint(checkpoint)
    checkpoint.refresh_from_db()
    move_alias("champion", checkpoint, why="the first")
    return checkpoint


@pytest.fixture
def rival(tiny_model: Path) -> Checkpoint:
    checkpoint = register_checkpoint(name="round-1", kind=CheckpointKind.POLICY, directory=tiny_model)
    publish_checkpoint(checkpoint)
    checkpoint.refresh_from_db()
    return checkpoint


def gate(**values: Any) -> PromotionGate:
    given = {"alias": "champion", "least_win_rate": 0.5, "least_votes": 30, "least_people": 2}
    return set_gate(PromotionGate(**(given | values)))


def vote(project: Project, new: Checkpoint, old: Checkpoint, verdicts: str, *, people: int = 2) -> None:
    """One prompt for each letter: w, l or t for the new one; the people vote in turn, whatever is longer."""
    voters = itertools.cycle([make_annotator() for _ in range(people)])
    for number, verdict in enumerate(verdicts):
        prompt = make_prompt(project)
        a = make_response(prompt, new.source, f"New {number}" + " and more" * (number % 3))
        b = make_response(prompt, old.source, f"Old {number}" + " and more" * (number % 2))
        create_comparisons(project, [(a, b)])
        comparison = prompt.comparisons.get()
        ours = "a" if comparison.response_a_id == a.pk else "b"
        theirs = "b" if ours == "a" else "a"
        preference = {"w": ours, "l": theirs, "t": "tie"}[verdict]
        make_judgment(comparison, preference, annotator=next(voters))


def test_a_refusal_names_each_criterion_and_what_is_missing(champion: Checkpoint, rival: Checkpoint) -> None:
    gate()
    vote(make_project(), rival, champion, "w" * 14 + "l" * 11, people=1)
    with pytest.raises(GateRefusedError) as refused:
        move_alias("champion", rival, why="looks good")
    sentence = str(refused.value)
    assert "champion stays where it is: round-1 does not pass its gate" in sentence
    assert "votes against the champion: 25 of 30 votes, wanted at least 30" in sentence
    assert "different voters: 1 of 2 voters" in sentence
    assert "win rate against the champion: 56.0 % (" in sentence
    assert "wanted 95 % interval above 50.0 %" in sentence
    assert AliasMove.objects.count() == 1


def test_enough_votes_of_several_projects_pass_and_the_figures_are_kept(
    champion: Checkpoint, rival: Checkpoint
) -> None:
    gate()
    vote(make_project(), rival, champion, "w" * 18 + "t" * 2)
    vote(make_project(), rival, champion, "w" * 8 + "l" * 4)
    move = move_alias("champion", rival, why="won")
    vote(make_project(), rival, champion, "l" * 40)  # later votes change no decision
    move.refresh_from_db()
    assert move.gate["champion"] == "tiny"
    votes, people, rate = kept_criteria(move)
    assert (votes.found, people.found, rate.found) == (32, 4, pytest.approx((26 + 1) / 32))
    assert votes.is_met and people.is_met and rate.is_met and not move.despite_gate


def test_a_gate_of_a_project_counts_its_votes_only(champion: Checkpoint, rival: Checkpoint) -> None:
    here, there = make_project(), make_project()
    move_alias("champion", champion, why="the first here", project=here)
    own = gate(project=here)
    vote(there, rival, champion, "w" * 40)
    assert [criterion.found for criterion in decide(own, rival).criteria[:2]] == [0, 0]
    assert decide(own, rival).criteria[2].why == "no_interval"


def test_a_gate_of_its_project_is_shown_for_a_model_saved_on_the_way(champion: Checkpoint, tiny_model: Path) -> None:
    job = make_job(champion)
    assert job.snapshot
    own = gate(project=job.snapshot.project)
    step = register_checkpoint(
        name="half-way", kind=CheckpointKind.POLICY, directory=tiny_model, parent=champion, step=1, step_of=job
    )
    assert [decision.gate for decision in decisions_about(step)] == [own]


def test_length_can_be_held_equal(champion: Checkpoint, rival: Checkpoint) -> None:
    own = gate(hold_length_equal=True)
    vote(make_project(), rival, champion, "w" * 18 + "l" * 12)
    (rate,) = (criterion for criterion in decide(own, rival).criteria if criterion.code == "win_rate")
    assert rate.title == "win rate against the champion at equal length"
    assert rate.found == pytest.approx(0.6, abs=0.1) and not rate.is_met


def test_in_spite_of_the_gate_it_moves_with_that_in_the_log(champion: Checkpoint, rival: Checkpoint) -> None:
    gate()
    move = move_alias("champion", rival, why="the old one leaks", despite_gate=True)
    assert move.despite_gate and not kept_criteria(move)[0].is_met
    back = roll_back_alias("champion")
    assert back.checkpoint == champion and back.gate == {}  # the way back is open
    move_alias("champion", None, why="none is good")
    with pytest.raises(GateRefusedError):  # taking it away first is no way around
        move_alias("champion", rival, why="and now")
    free = move_alias("candidate", rival, why="has no gate", despite_gate=True)
    assert not free.despite_gate


def test_the_first_one_has_nothing_to_be_better_than(rival: Checkpoint) -> None:
    gate()
    move = move_alias("champion", rival, why="the first")
    assert [criterion.why for criterion in kept_criteria(move)] == ["first"]


def test_who_is_not_published_cannot_be_compared(champion: Checkpoint, tiny_model: Path) -> None:
    gate()
    new = register_checkpoint(name="round-2", kind=CheckpointKind.POLICY, directory=tiny_model)
    with pytest.raises(GateRefusedError, match="not published, so nobody can compare it"):
        move_alias("champion", new, why="new")


def data_set() -> tuple[BenchmarkSet, list[dict[str, Any]]]:
    items = [correction(), maintenance()]
    return import_benchmark_set(parse_dataset(json.dumps(items).encode(), "bench.json"), name="bench")[0], items


def bench(bench: BenchmarkSet, items: list[dict[str, Any]], model: Checkpoint, met: tuple[bool, bool]) -> None:
    named = {"infer_model": model.name, "judge_model": "a-judge"}
    rows = [tick(items[0], met, **named), tick(items[1], (True, False), **named)]
    import_benchmark_run(bench, json.dumps(rows).encode(), "judged.json")


def test_a_benchmark_may_not_fall_far(champion: Checkpoint, rival: Checkpoint) -> None:
    found, items = data_set()
    gate(least_win_rate=None, benchmark=found, most_benchmark_drop=10)
    with pytest.raises(GateRefusedError, match="no finished run of both with one judge"):
        move_alias("champion", rival, why="new")
    bench(found, items, champion, (True, True))
    bench(found, items, rival, (False, True))  # 70 of 100 in one of two cells
    with pytest.raises(GateRefusedError, match=r"bench \(a-judge, imported judgments\), overall: 85\.00, the"):
        move_alias("champion", rival, why="new")
    gate(least_win_rate=None, benchmark=found, most_benchmark_drop=15)
    assert move_alias("champion", rival, why="near enough").gate["criteria"][0]["rival"] == 100


def test_runs_with_other_token_caps_or_languages_are_not_held_against_each_other(
    champion: Checkpoint, rival: Checkpoint
) -> None:
    found, items = data_set()
    own = gate(least_win_rate=None, benchmark=found, most_benchmark_drop=20)
    bench(found, items, champion, (True, True))
    bench(found, items, rival, (False, True))
    assert decide(own, rival).is_passed
    runs = found.runs.all()
    runs.update(is_imported=False, max_tokens=4096)
    for other in ({"max_tokens": 1024}, {"prompt_language": "en"}):
        runs.filter(source=rival.source).update(**{"max_tokens": 4096, "prompt_language": "zh"} | other)
        (criterion,) = decide(own, rival).criteria
        assert (criterion.is_met, criterion.why) == (False, "unlike")
        assert [row.rank for row in leaderboard(found)] == [1, 1]
    bench(found, items, rival, (True, True))
    runs.filter(source=rival.source, is_imported=True).update(is_imported=False)  # at 4096 tokens, in Chinese
    (criterion,) = decide(own, rival).criteria
    assert (criterion.is_met, criterion.found) == (True, 100)
    assert "asked in Chinese, answers of at most 4096 tokens" in criterion.title
    assert [row.rank for row in leaderboard(found)] == [1, 2, 1]


def test_a_reward_model_is_asked_for_its_accuracy(tiny_model: Path) -> None:
    gate(alias="judge", least_win_rate=None, least_reward_accuracy=0.7)
    scorer = register_checkpoint(name="scorer", kind=CheckpointKind.REWARD, directory=tiny_model)
    with pytest.raises(GateRefusedError, match="no reward card"):
        move_alias("judge", scorer, why="the first")
    store_card(scorer, [pair(1.0)] * 3 + [pair(-1.0)], None, sha256="0" * 64)
    assert move_alias("judge", scorer, why="75 %").gate["criteria"][0]["found"] == 0.75


@pytest.mark.parametrize(
    ("values", "sentence"),
    [({"alias": "Champion!"}, "lower-case"), ({"least_win_rate": None}, "must ask for something")],
)
def test_an_impossible_gate_is_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DomainError, match=sentence):
        gate(**values)


def test_gates_are_set_in_the_browser_and_checkpoints_say_how_far_they_are(
    champion: Checkpoint, rival: Checkpoint
) -> None:
    boss, client = make_user("boss", is_staff=True), Client()
    client.force_login(boss)
    form = {"alias": "champion", "project": "", "least_win_rate": "52.5", "voters": "people", "least_votes": "200"}
    form |= {"least_people": "3", "benchmark": "", "most_benchmark_drop": "1", "least_reward_accuracy": ""}
    refused = client.post("/checkpoints/aliases/gates/new/", form | {"least_win_rate": ""})
    assert refused.status_code == 422
    assert "A gate must ask for something" in refused.content.decode()
    text = client.post("/checkpoints/aliases/gates/new/", form, follow=True).content.decode()
    assert "a win rate above 52.5 % with its whole interval, by at least 200 votes of at least 3 voters" in text
    vote(make_project(), rival, champion, "wwl")
    text = client.get(f"/checkpoints/{rival.pk}/").content.decode()
    assert "champion may not move here" in text
    assert "3 of 200 votes" in text
    asked = {"alias": "champion", "project": "", "why": "it leaks"}
    text = client.post(f"/checkpoints/{rival.pk}/alias/", asked, follow=True).content.decode()
    assert escape("champion stays where it is: round-1 does not pass its gate").capitalize() in text
    staff = make_user("colleague")
    staff.is_staff = True
    staff.save()
    client.force_login(staff)
    assert "despite_gate" not in client.get(f"/checkpoints/{rival.pk}/").content.decode()
    text = client.post(f"/checkpoints/{rival.pk}/alias/", asked | {"despite_gate": "on"}, follow=True).content.decode()
    assert "Only an administrator may move an alias in spite of its gate" in text
    client.force_login(boss)
    text = client.post(f"/checkpoints/{rival.pk}/alias/", asked | {"despite_gate": "on"}, follow=True).content.decode()
    assert "champion stands for round-1 now." in text
    assert "in spite of the gate" in text
    found = PromotionGate.objects.get()
    changed = client.post(f"/checkpoints/aliases/gates/{found.pk}/", form | {"least_votes": "10"}, follow=True)
    assert "at least 10 votes" in changed.content.decode()
    text = client.post(f"/checkpoints/aliases/gates/{found.pk}/", {"remove": "1"}, follow=True).content.decode()
    assert "champion moves without a gate from now on." in text
    assert "what the gate found" in text
