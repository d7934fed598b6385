"""Judges against a real HTTP endpoint that behaves as a test tells it to, and their cards against people's votes."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction

from annotation.leaderboard import Choices, make_leaderboard
from annotation.models import Annotator, Comparison, Judgment, Project
from annotation.services import DomainError, add_written_response
from rlhf import asking
from rlhf.judges.card import Standard, Verdicts, families_of, family_of, make_card
from rlhf.judges.verdicts import of_this, progress_of, verdicts_of_annotator, verdicts_of_run
from rlhf.models import Checkpoint, JudgePrompt
from rlhf.services.judging import edit_prompt, prompts_in_force, reopen_judge_run, take_votes
from tests.chat_server import ChatServer, Exchange, chat_server
from tests.factories import (
    make_annotator,
    make_comparison,
    make_judgment,
    make_project,
    make_prompt,
    make_response,
    make_source,
)
from tests.judging import asked, finish, make_run, make_votes, prefer_kind, say, sides_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]
LENIENT = Standard(margin=0.6, comparisons=3, prompts=3, people_pairs=3)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as server:
        server.reply = prefer_kind
        yield server


# ── What is asked ────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_judges_are_asked_is_versioned_and_never_changed() -> None:
    (general,) = [prompt for task, prompt in prompts_in_force("pair", "en").items() if not task]
    assert (general.version, general.created_by) == (1, None)
    text = general.text.replace("briefly", "at length")
    newer = edit_prompt("pair", "", "en", text, based_on=1, by=None)
    assert (newer.version, edit_prompt("pair", "", "en", text + "\n", based_on=1, by=None)) == (2, newer)
    with pytest.raises(DomainError, match="Somebody saved version 2 meanwhile"):
        edit_prompt("pair", "", "en", general.text, based_on=1, by=None)
    with pytest.raises(DomainError, match=re.escape("lacks {response_b}, {form}")):
        edit_prompt("pair", "", "en", "{conversation} {response_a}", based_on=2, by=None)
    for statement in ("UPDATE rlhf_judgeprompt SET text = ''", "DELETE FROM rlhf_judgeprompt"):
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
    assert JudgePrompt.objects.filter(kind="pair", task="", language="en").count() == 2


def test_each_task_is_asked_in_its_own_words(server: ChatServer) -> None:
    project = make_project()
    sums, poem = make_votes(project, 2)
    for comparison, task in ((sums, "mathematics"), (poem, "Poems")):
        comparison.prompt.task = task
        comparison.prompt.save()
    text = "Poetry! {conversation} A ===\n{response_a}\n=== and B ===\n{response_b}\n=== {form}"
    edit_prompt("pair", "Poems", "en", text, based_on=0, by=None)

    def reply(exchange: Exchange) -> None:
        same = {"same result": "yes", "same reasoning": "no"} if "same result" in asked(exchange) else {}
        say(exchange, json.dumps({"reason": "So.", **same, "verdict": "tie"}))

    server.reply = reply
    run = finish(make_run(server, project))
    assert (run.report["usable"], run.report["asked_for_sameness"]) == (4, 2)
    assert (run.report["same_result"], run.report["same_reasoning"]) == (2, 0)
    questions = [body["messages"][0]["content"] for body in server.requests]
    assert sum(question.startswith("Poetry! [User]\nQuestion 1?") for question in questions) == 2
    assert sum("Solve the problem yourself" in question for question in questions) == 2
    # A run keeps the versions that were in force when it was queued.
    edit_prompt("pair", "Poems", "en", "Rhymes! " + text, based_on=1, by=None)
    assert make_run(server, project).prompt_ids != run.prompt_ids
    assert {verdict.prompt.version for verdict in run.verdicts.select_related("prompt")} == {1}


@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_judge_is_asked_in_both_orders_in_its_language(language: str, server: ChatServer) -> None:
    form = {"理由": "因为。", "结论": "A"} if language == "zh" else {"reason": "So.", "verdict": "A"}
    server.reply = lambda exchange: say(exchange, json.dumps(form, ensure_ascii=False))
    run = finish(make_run(server, language=language))
    assert (run.status, run.report["asked"], run.report["usable"]) == ("succeeded", 6, 6)
    # It always takes the first: no comparison is decided, and none is lost.
    assert (run.report["comparisons"], run.report["decided"], run.report["position_dependent"]) == (3, 0, 3)
    assert run.report["position_consistency"] == 0.0
    card = make_card(run.project, verdicts_of_run(run), standard=LENIENT)
    assert (card.agreement and card.agreement.value, card.agreement_no_ties) == (0.0, None)
    assert (card.depends, card.undecided_votes, card.first_share) == (3, 6, 1.0)
    assert not card.may_stand_in and "position" in card.cautions
    assert {body["temperature"] for body in server.requests} == {0.0}


# ── Bad answers ──────────────────────────────────────────────────────────────────────────────────────────────────


BAD_VERDICTS = [
    ("Response A is the better one, I would say.", "prose"),
    ('{"reason": "Because", "verdi', "half_json"),
    ('{"reason": {"a": ]}, "verdict": "A"}', "wrong_shape"),
    ('{"reason": "x", "verdict": "A", "verdict": "B"}', "wrong_shape"),
    ('{"理由": "x", "结论": "A"}', "invented_key"),
    ('{"reason": "x", "verdict": "A", "confidence": 0.9}', "invented_key"),
    ('{"reason": "x"}', "missing_key"),
    ('{"reason": "x", "verdict": "相当"}', "other_word"),
    ('{"reason": "x", "verdict": "A, B or tie"}', "other_word"),
    ('{"reason": "x", "verdict": "partly A"}', "partial_credit"),
    ('{"reason": "x", "verdict": 0.5}', "partial_credit"),
    ('{"reason": " ", "verdict": "A"}', "no_reason"),
    ("", "nothing"),
    (None, "refused"),
]
BAD_SCORES = [("7", "usable"), ("7.5", "partial_credit"), ("0", "off_scale"), ("NaN", "off_scale"),
              ('"seven"', "other_word"), ("[7]", "wrong_shape"), ("true", "wrong_shape")]  # fmt: skip


def test_every_verdict_that_cannot_be_used_is_kept_and_counted(server: ChatServer) -> None:
    project = make_project()
    make_votes(project, len(BAD_VERDICTS) + 1)

    def reply(exchange: Exchange) -> None:
        number = int(re.search(r"Question (\d+)\?", asked(exchange))[1])  # type: ignore[index]
        if number == len(BAD_VERDICTS):
            prefer_kind(exchange)
        elif (text := BAD_VERDICTS[number][0]) is None:
            exchange.refuse(400, "too long")
        else:
            say(exchange, text)

    server.reply = reply
    run = finish(make_run(server, project, attempts=2))
    count = len(BAD_VERDICTS)
    assert (run.status, run.report["asked"], run.report["usable"]) == ("succeeded", 2 * count + 2, 2)
    kept = {str(verdict.comparison.prompt): verdict for verdict in run.verdicts.all() if verdict.comparison}
    outcomes = [kept[f"Question {number}?"].outcome for number in range(count)]
    assert outcomes == [outcome for _, outcome in BAD_VERDICTS]
    assert run.report["failures"] == {outcome: 2 * outcomes.count(outcome) for outcome in outcomes}
    assert {verdict.tries for verdict in kept.values()} == {1, 2}
    assert kept["Question 0?"].raw == BAD_VERDICTS[0][0]
    assert (run.report["comparisons"], run.report["decided"], run.report["unusable"]) == (count + 1, 1, count)
    # What could not be used agrees with nobody; it does not leave the denominator.
    card = make_card(run.project, verdicts_of_run(run), standard=LENIENT)
    assert card.agreement and (card.agreement.value, card.agreement.count) == (1 / (count + 1), 2 * count + 2)
    assert card.agreement_no_ties and (card.agreement_no_ties.value, card.agreement_no_ties.count) == (1.0, 2)
    assert (card.unusable, card.undecided_votes, "unusable" in card.cautions) == (count, 2 * count, True)
    server.reply = prefer_kind
    assert reopen_judge_run(run, retry_failures=True)
    assert finish(run).report["usable"] == 2 * count + 2


def test_a_score_is_whole_and_on_the_scale(server: ChatServer) -> None:
    project = make_project()
    for said, _outcome in BAD_SCORES:
        comparison = make_comparison(project, a_text=f"said {said} here", b_text=f"also said {said} here")
        make_judgment(comparison)

    def reply(exchange: Exchange) -> None:
        said = re.search(r"said (.*) here", asked(exchange))
        assert said
        say(exchange, '{"reason": "x", "score": ' + said[1] + "}")

    server.reply = reply
    run = finish(make_run(server, project, kind="absolute", attempts=1))
    kept = {verdict.response.text: verdict.outcome for verdict in run.verdicts.all() if verdict.response}
    assert kept == {f"{also}said {said} here": outcome for said, outcome in BAD_SCORES for also in ("", "also ")}


def test_a_judge_may_speak_in_fences_and_thoughts(server: ChatServer) -> None:
    def reply(exchange: Exchange) -> None:
        first, _ = sides_of(exchange)
        form = json.dumps({"reason": "ü", "verdict": "A" if "kind" in first else "B"}, indent=2)
        say(exchange, f"<think>Hm {{}}</think>\n```json\n{form}\n```")

    server.reply = reply
    assert finish(make_run(server)).report["position_consistency"] == 1.0


# ── Scores and golden answers ────────────────────────────────────────────────────────────────────────────────────


def test_scores_make_verdicts_and_each_response_is_scored_once(server: ChatServer) -> None:
    server.reply = lambda exchange: say(
        exchange, json.dumps({"reason": "x", "score": 8 if "kind" in asked(exchange) else 3})
    )
    run = finish(make_run(server, kind="absolute"))
    assert (run.report["asked"], run.report["scores"]["8"], run.report["scores"]["3"]) == (6, 3, 3)
    card = make_card(run.project, verdicts_of_run(run), standard=LENIENT)
    assert card.agreement and card.agreement.value == 1.0 and card.may_stand_in
    assert card.position_consistency is None


def test_golden_answers_come_from_people_or_from_the_file(server: ChatServer) -> None:
    project = make_project()
    written, filed, without = make_votes(project, 3)
    with transaction.atomic():
        add_written_response(written.prompt_id, project, "What a person wrote.", author=make_annotator())
    filed.meta = {"reference": " What the file gave. "}
    filed.save()
    server.reply = lambda exchange: say(exchange, '{"reason": "x", "score": 5}')
    run = finish(make_run(server, project, kind="golden"))
    assert run.report["asked"] == 4
    questions = "\n".join(body["messages"][0]["content"] for body in server.requests)
    shown = set(re.findall(r"Golden answer ===\n(.*?)\n===", questions))
    assert shown == {"What a person wrote.", "What the file gave."}
    assert not run.verdicts.filter(response__prompt=without.prompt_id).exists()
    nobody = make_project()
    make_votes(nobody, 1)
    with pytest.raises(DomainError, match="has a golden answer: let somebody write one"):
        make_run(server, nobody, kind="golden")


# ── Stopping, and going on ───────────────────────────────────────────────────────────────────────────────────────


def test_a_server_that_stays_away_ends_the_run_and_nothing_is_asked_twice(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PATIENCE_SECONDS", 0.0)
    run = make_run(server, parallel=1)
    answered: list[str] = []

    def work_for(count: int) -> Callable[[Exchange], None]:
        def reply(exchange: Exchange) -> None:
            if len(answered) >= count:
                exchange.refuse(503)
            else:
                answered.append(asked(exchange))
                prefer_kind(exchange)

        return reply

    for count, status in ((2, "failed"), (99, "succeeded")):
        server.reply = work_for(count)
        finish(run)
        assert (run.status, progress_of(run).done) == (status, len(answered))
        if status == "failed":
            assert "judge has given nothing for 0 minutes" in run.error
            assert reopen_judge_run(run)
    assert len(answered) == len(set(answered)) == 6
    assert run.report["decided"] == 3


# ── The card ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_gpt4_against_experts_and_experts_against_each_other(shared_data: Path) -> None:
    call_command(
        "import_preferences", shared_data / "preferences/mt_bench_human.jsonl", project="mt", stderr=io.StringIO()
    )
    project = Project.objects.get(slug="mt")
    judge = verdicts_of_annotator(Annotator.objects.get(project=project, name="gpt4_pair"))
    card = make_card(project, judge, is_counted=lambda name: name.startswith("expert"))
    found = [card.agreement, card.agreement_no_ties]
    assert [(round(share.value * share.count), share.count) for share in found if share] == [(886, 1343), (727, 859)]
    people = [card.human, card.human_no_ties]
    assert all(share and share.lower < share.value < share.upper for share in (*found, *people))  # type: ignore[operator]
    # The published 63 % and 81 % are over all experts; these are over the comparisons that GPT-4 judged, too.
    assert [round(share.value, 2) for share in people if share] == [0.63, 0.81]
    assert card.may_stand_in and card.own_sources == ["gpt-3.5-turbo", "gpt-4"]
    assert card.own and card.length and card.own.people.count > card.own.judge.count > 100
    strict = make_card(project, judge, standard=Standard(comparisons=10_000))
    assert strict.reasons == ["few_comparisons"]


def test_a_judge_that_people_contradict_may_not_stand_in(shared_data: Path) -> None:
    call_command("import_preferences", shared_data / "preferences/pandalm.jsonl", project="lm", stderr=io.StringIO())
    out = io.StringIO()
    call_command("judge", "card", "--project", "lm", "--annotator", "pandalm-7b", "--json", stdout=out)
    found = json.loads(out.getvalue())
    assert found["may_stand_in"] is False
    assert set(found["reasons"]) == {"below_people", "below_people_no_ties"}
    assert found["comparisons"] <= 456 and found["people"] == 3
    assert found["agreement"]["upper"] < found["human"]["value"]
    with pytest.raises(CommandError, match=r"known: gpt-3\.5-turbo, pandalm-7b"):
        call_command("judge", "card", "--project", "lm", "--annotator", "gpt-5", "--json")


def test_partiality_to_length_and_to_its_own_family() -> None:
    """Counted by hand: people take the short one of the other family in 3 of 4, the judge the long one of its own."""
    project = make_project()
    own, other = make_source("alpha-7b"), make_source("beta-7b")
    person = make_annotator()
    codes = {}
    for number in range(4):
        prompt = make_prompt(project)
        a, b = make_response(prompt, own, "x" * 50), make_response(prompt, other, "x" * 10)
        comparison = Comparison.objects.create(project=project, prompt=prompt, response_a=a, response_b=b)
        make_judgment(comparison, "a" if number == 0 else "b", annotator=person)
        codes[comparison.pk] = 0
    card = make_card(project, Verdicts(codes, name="Alpha-13B judge"))
    for partiality in (card.length, card.own):
        assert partiality and (partiality.judge.value, partiality.people.value) == (1.0, 0.25)
        assert partiality.difference.value == 0.75
        assert partiality.difference.lower is not None and partiality.difference.lower > 0
    assert {"length", "own"} <= set(card.cautions)
    assert "no_ceiling" in card.reasons and not card.may_stand_in
    assert [family_of(name) for name in ("GPT-4", "gpt4_pair", "org/Qwen2.5-7B", "零一-34b")] == [
        "gpt", "gpt", "qwen", "零一",
    ]  # fmt: skip


def test_a_checkpoint_is_of_its_bases_family() -> None:
    facts = {"kind": "policy", "directory": "x", "manifest_sha256": "0" * 64}
    base = Checkpoint.objects.create(name="smollm2-135m-instruct", **facts)
    middle = Checkpoint.objects.create(name="round-1", parent=base, **facts)
    Checkpoint.objects.create(name="round-2", parent=middle, source=make_source("helpful-round-2"), **facts)
    found = families_of({"helpful-round-2", "SmolLM2-1.7B", "helpful-other"})
    assert found == {"helpful-round-2": "smollm", "SmolLM2-1.7B": "smollm", "helpful-other": "helpful"}


def test_without_votes_there_is_nothing_to_hold_a_judge_against(server: ChatServer) -> None:
    project = make_project()
    make_votes(project, 2, people=0)
    with pytest.raises(DomainError, match="no such comparisons"):
        make_run(server, project)
    run = finish(make_run(server, project, scope="unvoted"))
    card = make_card(project, verdicts_of_run(run))
    assert (card.agreement, card.human, card.reasons) == (None, None, ["no_votes"])


# ── Votes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_votes_are_taken_only_of_a_judge_that_may_stand_in(server: ChatServer) -> None:
    run = finish(make_run(server))
    make_comparison(run.project, a_text="rude", b_text="a kind one")
    more = finish(make_run(server, run.project, scope="unvoted"))
    codes = of_this(more)[0]
    card = make_card(run.project, verdicts_of_run(more))
    with pytest.raises(DomainError, match="judge may not stand in for people: too few comparisons"):
        take_votes(more, card, codes)
    assert not Judgment.objects.filter(annotator__is_human=False).exists()
    # Its card is made of all runs that asked the same way.
    card = make_card(run.project, verdicts_of_run(more), standard=LENIENT)
    assert take_votes(more, card, codes) == {
        "votes": 1, "already_there": 0, "position_dependent": 0, "unusable": 0,
    }  # fmt: skip
    assert take_votes(more, card, codes)["already_there"] == 1
    vote = Judgment.objects.get(annotator__is_human=False)
    assert (vote.preference, vote.annotator.name) == ("b", more.voter_name)
    people, judges = (make_leaderboard(run.project, Choices(voters=voters)).votes for voters in ("people", "judges"))
    assert (people, judges) == (6, 1)


# ── The command ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_runs_and_does_nothing_twice(server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    run = finish(make_run(server))
    server.requests.clear()
    arguments = ["judge", "run", "--project", run.project.slug, "--judge", "judge", "--prompt-language", "en"]
    call_command(*arguments, "--json")
    said = json.loads(capsys.readouterr().out)
    assert (said["run"], said["usable"], said["position_consistency"], server.requests) == (run.pk, 6, 1.0, [])
    call_command("judge", "card", "--run", str(run.pk), "--min-comparisons", "2")
    assert "may not stand in for people:\n  the comparisons are about too few prompts" in capsys.readouterr().out
    with pytest.raises(CommandError, match="may not stand in"):
        call_command("judge", "votes", "--run", str(run.pk))
    with pytest.raises(CommandError, match="attempts: "):
        call_command(*arguments, "--attempts", "0")


@pytest.mark.slow
def test_a_run_killed_twice_has_every_verdict_once(server: ChatServer, tmp_path: Path) -> None:
    rows = [
        {"id": f"q{n}", "prompt": f"Question {n}?",
         "responses": [{"model": "x", "text": f"a kind answer {n}"}, {"model": "y", "text": f"a rude answer {n}"}],
         "annotations": [{"annotator": "ann", "human": True, "preferred_index": 0, "tie": False}]}
        for n in range(15)
    ]  # fmt: skip
    file = tmp_path / "votes.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    environment = {
        **os.environ,
        "TOUCHSTONE_DATA": str(tmp_path / "data"),
        "TOUCHSTONE_MODEL_SERVER_URL": server.url,
        "TOUCHSTONE_JOB_LEASE_SECONDS": "3",
        "TOUCHSTONE_JOB_HEARTBEAT_SECONDS": "1",
    }
    environment.pop("DATABASE_URL", None)
    manage = [sys.executable, "manage.py"]
    root = Path(__file__).parents[1]
    subprocess.run([*manage, "import_preferences", str(file), "--project", "p"], cwd=root, env=environment, check=True)
    make = (
        "from annotation.models import ResponseSource as R; R.objects.create(name='j', kind='model', served_model='j')"
    )
    subprocess.run([*manage, "shell", "-c", make], cwd=root, env=environment, check=True)
    command = [
        *manage,
        "judge",
        "run",
        "--project",
        "p",
        "--judge",
        "j",
        "--prompt-language",
        "en",
        "--parallel",
        "2",
        "--json",
    ]
    for allowed in (6, 18):
        is_dead, is_waiting = threading.Event(), threading.Event()

        def reply(exchange: Exchange) -> None:
            if len(exchange.server.requests) > allowed:  # noqa: B023
                is_waiting.set()  # noqa: B023
                is_dead.wait(60)  # noqa: B023
            prefer_kind(exchange)

        server.reply = reply
        process = subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.DEVNULL)
        assert is_waiting.wait(120)
        process.kill()
        process.wait()
        is_dead.set()
    server.reply = prefer_kind
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, check=True)
    figures = json.loads(done.stdout)
    assert [figures[key] for key in ("asked", "usable", "open", "comparisons", "decided")] == [30, 30, 0, 15, 15]
    assert len(server.requests) <= 30 + 2 * 2  # what was under way when it was killed is asked for once more
