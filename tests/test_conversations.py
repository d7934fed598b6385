"""Conversations: how they begin and end, and which response goes on."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from annotation import export, services
from annotation.blind import previous_assignment_id
from annotation.errors import ConflictError, DomainError
from annotation.models import Comparison, Conversation, Edit, Event, Judgment, Rating, RewriteTask, SideStatus, Turn
from annotation.services import turns
from annotation.services.conversations import end_conversation, reopen_conversation, start_conversation
from tests.factories import make_annotator, make_user
from tests.talks import answer, better, last_turn, make_talk, make_talk_project, pick, write

pytestmark = pytest.mark.django_db


# ── Starting ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_conversation_begins_with_two_sides_to_be_written() -> None:
    project, annotator, conversation_id = make_talk_project(), make_annotator(), uuid4()
    given: dict[str, Any] = {"project": project, "annotator": annotator, "conversation_id": conversation_id}
    talk = start_conversation(**given, text=" Why? ", task="Reasoning", lang="en")
    assert start_conversation(**given, text="Why?") == talk, "a double click"
    turn = last_turn(talk)
    assert turn.prompt.messages == [{"role": "user", "content": "Why?"}]
    assert (turn.prompt.group, turn.prompt.task, turn.prompt.lang) == (
        f"conversation-{talk.public_id}",
        "Reasoning",
        "en",
    )
    sides = list(turn.sides.all())
    assert {side.source.name for side in sides} == {row.source.name for row in project.conversation_sources.all()}
    assert sides[0].seed != sides[1].seed
    with pytest.raises(ConflictError):
        start_conversation(**{**given, "annotator": make_annotator()}, text="Why?")
    assert make_talk(project, text="Why?").turns.get().prompt != turn.prompt, (
        "each conversation has prompts of its own"
    )


def test_sides_and_sources_are_drawn() -> None:
    project = make_talk_project(models=3)
    talks = [make_talk(project) for _ in range(100)]
    assert len({(talk.source_a_id, talk.source_b_id) for talk in talks}) == 6
    assert {turn.a_shown_on_left for turn in Turn.objects.all()} == {True, False}
    one = make_talk(make_talk_project(models=1))
    assert one.source_a == one.source_b, "two samples of the only model"
    write(one, "First.", "Second.")
    assert [side.response.sample_index for side in last_turn(one).sides.all()] == [0, 1]


@pytest.mark.parametrize(
    ("change", "text", "sentence"),
    [
        ({"is_open": False}, "Why?", "is closed"),
        ({"protocol": {}}, "Why?", "holds no conversations"),
        ({"sources": 0}, "Why?", "No model is chosen"),
        ({}, "  ", "Write a message first"),
        ({}, "x" * 20_001, "20001 characters; at most 20000"),
    ],
)
def test_what_cannot_begin_is_refused_with_a_sentence(change: dict[str, Any], text: str, sentence: str) -> None:
    project = make_talk_project(models=change.pop("sources", 2))
    for field, value in change.items():
        setattr(project, field, value)
    with pytest.raises(DomainError, match=sentence):
        make_talk(project, text=text)
    assert not Conversation.objects.exists()


# ── Picking ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("a_is_left", [True, False])
def test_a_pick_is_an_ordinary_judgment_that_the_queue_never_sees(a_is_left: bool) -> None:
    user = make_user()
    annotator = make_annotator(user)
    talk = make_talk(annotator=annotator)
    services.add_member(talk.project, user)
    Turn.objects.update(a_shown_on_left=a_is_left)
    write(talk, "Response a.", "Response b.")
    turn = pick(talk, "2", decided_in_ms=900)
    judgment = Judgment.objects.get()
    assert (judgment.preference, judgment.strength) == (("b", 2) if a_is_left else ("a", -2))
    assert (judgment.annotator, judgment.decided_in_ms, judgment.is_partial) == (annotator, 900, False)
    assert turn.kept_response.text == ("Response b." if a_is_left else "Response a.")
    assert not services.claim_assignments(annotator=annotator, project=talk.project)
    assert previous_assignment_id(annotator_id=annotator.pk, project_id=talk.project_id) is None, "nor its Undo"
    pick(talk, "-3")
    assert last_turn(talk).kept_response != turn.kept_response, "another pick replaces the first"
    assert (Judgment.objects.count(), Judgment.objects.filter(superseded_at=None).count()) == (2, 1)
    [row] = export.judged_rows(talk.project)
    assert (row["group"], row["verdict"]) == (f"conversation-{talk.public_id}", "a" if a_is_left else "b")


def test_the_same_keeps_one_by_chance_and_says_so() -> None:
    kept = set()
    for _ in range(24):
        talk = make_talk()
        write(talk, "Response a.", "Response b.")
        turn = pick(talk, "0")
        assert turn.kept_at_random
        first = turn.kept_response
        kept.add(first.text)
        pick(talk, "2")
        assert pick(talk, "0").kept_response == first, "voting again is no second draw"
        if len(kept) == 2:
            break
    assert kept == {"Response a.", "Response b."}


def test_neither_asks_for_the_persons_own_response() -> None:
    talk = make_talk()
    write(talk, "Response a.", "Response b.")
    assert pick(talk, "neither").kept_response is None
    with pytest.raises(DomainError, match="write the response that should go on"):
        answer(talk)
    turn = answer(talk, own_text="My own.", edit_seconds=40)
    own = talk.turns.get(position=0).kept_response
    assert (own.text, own.author, own.source.kind) == ("My own.", talk.annotator, "person")
    assert turn.prompt.messages[1] == {"role": "assistant", "content": "My own."}
    task = RewriteTask.objects.get()
    assert (task.status, task.written, task.seconds_spent) == ("done", own, 40)


def test_the_chosen_response_can_be_edited_before_it_goes_on() -> None:
    talk = make_talk()
    write(talk, "It is forty-two.", "Go away.")
    chosen = pick(talk, better(last_turn(talk), "a")).kept_response
    turn = answer(talk, own_text="It is 42.", edit_seconds=9)
    assert turn.prompt.messages[1]["content"] == "It is 42."
    edit = Edit.objects.get()
    assert (edit.original, edit.edited.text, edit.seconds_spent) == (chosen, "It is 42.", 9)
    assert edit.edit_distance > 0
    assert edit.judgment.superseded_at is None
    write(talk, "x", "y")
    pick(talk, better(last_turn(talk), "b"))
    answer(talk, own_text=" y ")
    assert Edit.objects.count() == 1, "what is not changed is no edit"


def test_an_early_vote_waits_for_the_responses_and_counts_as_partial() -> None:
    talk = make_talk()
    first, second = last_turn(talk).sides.all()
    turns.finish_side(first.pk, "Response a.", "stop", sampling={})
    turn = pick(talk, better(last_turn(talk), "b"), first_key_ms=5)
    assert (turn.kept_response, Judgment.objects.count()) == (None, 0)
    pick(talk, better(last_turn(talk), "a"))
    turns.finish_side(second.pk, "Response b.", "length", sampling={})
    turns.finish_side(second.pk, "Response c.", "stop", sampling={})  # nothing happens twice
    turn = last_turn(talk)
    assert (turn.kept_response.text, turn.early_vote) == ("Response a.", {})
    judgment = Judgment.objects.get()
    assert (judgment.preference, judgment.strength, judgment.is_partial) == ("a", -2, True)
    assert turn.sides.get(position=1).response.finish_reason == "length"


def test_equal_responses_and_single_ones_go_on_without_a_question() -> None:
    talk = make_talk()
    pick(talk, "-1")
    write(talk, "The same.", "The same. ")
    turn = last_turn(talk)
    assert (turn.kept_response.text, turn.comparison, turn.early_vote) == ("The same.", None, {})
    with pytest.raises(DomainError, match="read the same"):
        pick(talk, "-1")
    single = make_talk(make_talk_project(responses_per_turn=1))
    with pytest.raises(DomainError, match="Choose between"):
        answer(single)
    write(single, "The only one.")
    assert answer(single).prompt.messages[1]["content"] == "The only one."
    assert not Comparison.objects.exists()


def test_a_broken_response_is_asked_again_with_its_seed_or_left_out() -> None:
    talk = make_talk()
    first, second = last_turn(talk).sides.all()
    turns.finish_side(first.pk, "Response a.", "stop", sampling={})
    turns.break_side(second.pk, "Half of", "broken: x\0y")
    with pytest.raises(DomainError, match="broke off"):
        pick(talk, "1")
    turns.retry_broken_sides(talk, 0)
    again = last_turn(talk).sides.get(position=1)
    assert (again.status, again.seed, again.text) == (SideStatus.OPEN, second.seed, "")
    with pytest.raises(ConflictError, match="Reload"):
        turns.keep_the_complete_one(talk, 0)
    turns.break_side(second.pk, "Half of", "away: z")
    assert turns.keep_the_complete_one(talk, 0).kept_response.text == "Response a."
    with pytest.raises(ConflictError, match="went on"):
        turns.retry_broken_sides(talk, 0)
    assert answer(talk).position == 1


@pytest.mark.parametrize(
    ("scale", "choice", "verdict"),
    [("four", "-4", ("a", -4)), ("eight", "3", ("b", 3)), ("binary", "right", ("b", None))],
)
def test_every_scale_of_two_works(scale: str, choice: str, verdict: tuple[str, int | None]) -> None:
    talk = make_talk(make_talk_project(scale=scale))
    Turn.objects.update(a_shown_on_left=True)
    write(talk, "Response a.", "Response b.")
    for wrong in ("9", "ranked", "0" if scale != "binary" else "1"):
        with pytest.raises(DomainError, match="Choose one of the answers"):
            pick(talk, wrong)
    pick(talk, choice)
    judgment = Judgment.objects.get()
    assert (judgment.preference, judgment.strength) == verdict


def test_compared_turns_are_preference_rows_with_their_history() -> None:
    talk = make_talk(text="One?")
    for step in ("b", "a"):
        write(talk, f"first {step}", f"second {step}")
        pick(talk, better(last_turn(talk), step))
        answer(talk, f"Not {step}.")
    rows = list(export.training_rows("dpo", export.judged_rows(talk.project)))
    assert [[message["content"] for message in row["prompt"]] for row in rows] == [
        ["One?"],
        ["One?", "second b", "Not b."],
    ]
    assert [row["chosen"][0]["content"] for row in rows] == ["second b", "first a"]
    assert len({row["group"] for row in rows}) == 1


# ── Ending ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_conversation_has_as_many_turns_as_the_protocol_says_and_can_be_ended_and_opened() -> None:
    talk = make_talk(make_talk_project(max_turns=2))
    write(talk, "a", "b")
    pick(talk, "1")
    answer(talk)
    write(talk, "c", "d")
    pick(talk, "1")
    with pytest.raises(DomainError, match="at most 2 turns"):
        answer(talk)
    sides = last_turn(talk).sides.all()
    shown = sides if last_turn(talk).a_shown_on_left else sides[::-1]
    end_conversation(talk, uptake={"A": "yes", "B": "no"})
    end_conversation(talk)
    assert {rating.response: rating.value for rating in Rating.objects.all()} == {
        shown[0].response: 1.0,
        shown[1].response: 0.0,
    }
    talk.refresh_from_db()
    with pytest.raises(ConflictError, match="has ended"):
        pick(talk, "2")
    reopen_conversation(talk)
    pick(talk, "2")
    assert Event.objects.filter(data__action="ended").count() == 1


def test_a_closed_project_takes_nothing_more() -> None:
    talk = make_talk()
    write(talk, "a", "b")
    talk.project.is_open = False
    talk.project.save()
    with pytest.raises(DomainError, match="is closed"):
        pick(talk, "1")
