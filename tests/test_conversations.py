"""Conversations: the rules of turns, picks and typed feedback, and what files are made of them."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from annotation import export, services
from annotation.answer import Answer
from annotation.blind import previous_assignment_id
from annotation.errors import ConflictError, DomainError
from annotation.feedback import Feedback, _label, fb_bench_items, feedback_records
from annotation.models import (
    FEEDBACK_ALLOWED,
    Comparison,
    Conversation,
    DeficiencyType,
    Edit,
    Event,
    Judgment,
    Membership,
    Project,
    Rating,
    RewriteTask,
    SideStatus,
    Turn,
)
from annotation.services import rating_conversations, turns
from annotation.services.conversations import end_conversation, reopen_conversation, start_conversation
from tests.factories import make_annotator, make_user
from tests.importing import import_lines, reasons
from tests.talks import last_turn, make_talk, make_talk_project, pick, write

pytestmark = pytest.mark.django_db
CORRECTION = Feedback("error_correction", ["logical_error"], ["pointing_out_errors", "hinting_guidance"])
CHALLENGE = Feedback("response_maintenance", [], ["misinformation"])


def answer(talk: Conversation, text: str = "No: think again.", feedback: Feedback = CORRECTION, **more: Any) -> Turn:
    return turns.send_feedback(talk, last_turn(talk).position, text=text, feedback=feedback, **more)


def better(turn: Turn, which: str) -> str:
    """The step that calls the given response (a or b, in content order) better, on the person's screen."""
    is_left = (which == "a") == turn.a_shown_on_left
    return "-2" if is_left else "2"


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
    talks = [make_talk(project) for _ in range(40)]
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


# ── Feedback ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_feedback_is_the_next_message_and_the_history_grows() -> None:
    talk = make_talk(text="What is 6 × 7?")
    write(talk, "41.", "43.")
    pick(talk, better(last_turn(talk), "b"))
    turn = answer(talk, "Count again.")
    assert [message["content"] for message in turn.prompt.messages] == ["What is 6 × 7?", "43.", "Count again."]
    assert turn.prompt.group == f"conversation-{talk.public_id}"
    assert answer_again(talk, 0, "Count again.") == turn
    with pytest.raises(ConflictError, match="another window"):
        answer_again(talk, 0, "Something else.")
    with pytest.raises(ConflictError, match="another window"):
        turns.pick_response(talk, 0, judgment_id=uuid4(), answer=Answer(choice="1"))
    with pytest.raises(DomainError, match="Choose between"):
        answer(talk)
    first = talk.turns.get(position=0)
    assert (first.scenario, first.deficiency_types, first.feedback) == (
        "error_correction",
        ["logical_error"],
        "Count again.",
    )
    assert list(Event.objects.filter(kind="converse").values_list("data__action", flat=True)) == [
        "started",
        "picked",
        "feedback",
    ]


def answer_again(talk: Conversation, position: int, text: str) -> Turn:
    return turns.send_feedback(talk, position, text=text, feedback=CORRECTION)


@pytest.mark.parametrize(
    ("feedback", "sentence"),
    [
        (Feedback("error_correction", ["logical_error"], ["misinformation"]), "“misinformation” is no feedback of"),
        (Feedback("response_maintenance", [], ["pointing_out_errors"]), "no feedback of response maintenance"),
        (Feedback("response_maintenance", ["factual_error"], ["simple_questioning"]), "error correction only"),
        (Feedback("error_correction", [], ["simple_questioning"]), "choose one deficiency or more"),
        (Feedback("error_correction", ["logical_error"], []), "what kind of feedback"),
        (Feedback("error_correction", ["bad_taste"], ["simple_questioning"]), "no deficiency “bad_taste”"),
        (Feedback("error_correction", ["logical_error"], ["praise"]), "no kind of feedback “praise”"),
        (Feedback("quarrel", [], []), "no scenario “quarrel”"),
        (Feedback("", ["logical_error"], []), "Say first"),
    ],
)
def test_types_that_do_not_fit_are_refused_with_a_sentence(feedback: Feedback, sentence: str) -> None:
    talk = make_talk()
    write(talk, "a", "b")
    pick(talk, "1")
    with pytest.raises(DomainError, match=sentence):
        answer(talk, feedback=feedback)
    assert talk.turns.count() == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"scenario": "error_correction", "feedback_types": ["misinformation"]},
        {"scenario": "response_maintenance", "deficiency_types": ["logical_error"]},
        {"scenario": "", "feedback_types": ["simple_questioning"]},
        {"scenario": "quarrel"},
        {"scenario": "error_correction", "deficiency_types": ["bad_taste"]},
    ],
)
def test_postgres_refuses_them_too(fields: dict[str, Any]) -> None:
    turn = last_turn(make_talk())
    with pytest.raises(IntegrityError), transaction.atomic():
        Turn.objects.filter(pk=turn.pk).update(**fields)


def test_simple_questioning_fits_both_scenarios_and_a_question_needs_no_type() -> None:
    talk = make_talk()
    for feedback in (
        Feedback("error_correction", ["incomplete_answer"], ["simple_questioning"]),
        Feedback("response_maintenance", [], ["simple_questioning"]),
        Feedback(),
    ):
        write(talk, "a", "b")
        pick(talk, "1")
        answer(talk, feedback=feedback)
    assert talk.turns.count() == 4


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


# ── Imported conversations ───────────────────────────────────────────────────────────────────────────────────────


def messages(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)]


def imported(tmp_path: Path, *rows: Any, **more: Any) -> Project:
    import_lines(tmp_path, list(rows), project="talks", **more)
    return Project.objects.get(slug="talks")


def test_message_lists_become_conversations_to_rate(tmp_path: Path) -> None:
    row = {"id": "t1", "messages": messages("One?", "1", "Two?", "2"), "model": "m", "lang": "zh"}
    done = import_lines(
        tmp_path,
        [
            row,
            {"messages": messages("Three?")},
            {"messages": [{"role": "user", "content": 3}]},
            {"messages": [*messages("Four?", "4"), {"role": "tool", "content": "x"}]},
            row,
        ],
    )
    assert (done["format"], done["conversations"], done["already_there"]) == ("messages", 1, 2)
    assert reasons(done) == [
        (2, "it holds no answer to anything that the user says"),
        (3, 'message 1 of "messages" has a content that is not text'),
        (4, 'message 3 of "messages" has the role "tool": known are system, user, assistant'),
    ]
    talk = Conversation.objects.get()
    assert (talk.lang, talk.annotator, talk.ended_at) == ("zh", None, None)
    first, second = talk.turns.all()
    assert (first.kept_response.text, first.kept_response.source.name) == ("1", "m")
    assert [message["content"] for message in second.prompt.messages] == ["One?", "1", "Two?"]
    assert not services.claim_assignments(annotator=make_annotator(), project=talk.project)


def test_one_person_rates_a_conversation_turn_by_turn(tmp_path: Path) -> None:
    project = imported(
        tmp_path, {"messages": messages("One?", "1", "No, two.", "2")}, {"messages": messages("A?", "B")}
    )
    ann, bob = make_annotator(), make_annotator()
    talk = rating_conversations.take_conversation(project, ann)
    assert talk is not None
    assert rating_conversations.take_conversation(project, ann) == talk, "until it is finished or given back"
    other = rating_conversations.take_conversation(project, bob)
    assert other not in (None, talk)
    assert rating_conversations.take_conversation(project, make_annotator()) is None
    scores: dict[str, int | None] = {"helpfulness": 2, "fluency": 5, "safety": 5}
    rating_conversations.rate_turn(talk, 0, ratings=scores, feedback=CORRECTION, note="Too short.")
    rating_conversations.rate_turn(talk, 0, ratings={**scores, "helpfulness": 3}, feedback=CORRECTION)
    rating_conversations.rate_turn(talk, 1, ratings=scores)
    turn = talk.turns.get(position=0)
    assert (turn.feedback, turn.scenario) == ("No, two.", "error_correction")
    given = Rating.objects.filter(annotator=ann, response=turn.kept_response)
    assert dict(given.values_list("aspect", "value")) == {"helpfulness": 3, "fluency": 5, "safety": 5}
    [record] = feedback_records(project)
    assert (record["feedback"], record["second_responses"][0]["text"]) == ("No, two.", "2")
    [item] = fb_bench_items(project)
    assert "reference_second_response" not in item, "nobody preferred it"
    end_conversation(talk)
    rating_conversations.give_back_conversation(other)
    assert rating_conversations.take_conversation(project, ann) == other
    assert ann.user is not None
    assert services.remove_member(project, ann.user) == 1, "who leaves holds nothing"
    other.refresh_from_db()
    assert other.annotator is None


def test_a_taken_conversation_goes_to_others_when_its_lease_runs_out(tmp_path: Path) -> None:
    project = imported(tmp_path, {"messages": messages("One?", "1")})
    ann, bob = make_annotator(project=project), make_annotator(project=project)
    talk = rating_conversations.take_conversation(project, ann)
    assert talk is not None
    assert rating_conversations.take_conversation(project, bob) is None
    Conversation.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    scores: dict[str, int | None] = {"helpfulness": 2, "fluency": 5, "safety": 5}
    rating_conversations.rate_turn(talk, 0, ratings=scores)  # nobody took it: the score counts, and holds it
    assert rating_conversations.take_conversation(project, bob) is None
    Conversation.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    assert rating_conversations.take_conversation(project, bob) == talk
    with pytest.raises(ConflictError, match="Somebody else rates"):
        rating_conversations.rate_turn(talk, 0, ratings=scores)
    actions = Event.objects.filter(kind="converse").order_by("pk").values_list("data__action", flat=True)
    assert list(actions) == ["taken", "rated", "lease ran out", "taken"]
    assert rating_conversations.take_conversation(project, ann) is None


def test_a_failed_qualification_holds_no_conversations(tmp_path: Path) -> None:
    project = imported(tmp_path, {"messages": messages("One?", "1")})
    talks = make_talk_project()
    ann = make_annotator(project=project)
    services.add_member(talks, ann.user)  # type: ignore[arg-type]
    for state, sentence in (("failed", "was not passed"), ("running", "comes first")):
        Membership.objects.update(qualification=state)
        with pytest.raises(DomainError, match=sentence):
            make_talk(talks, annotator=ann)
        with pytest.raises(DomainError, match=sentence):
            rating_conversations.take_conversation(project, ann)


def test_what_cannot_be_rated_is_refused(tmp_path: Path) -> None:
    project = imported(tmp_path, {"messages": messages("One?", "1", "No, two.", "2")})
    talk = rating_conversations.take_conversation(project, make_annotator())
    assert talk is not None
    scores: dict[str, int | None] = {"helpfulness": 2, "fluency": 5, "safety": 5}
    for position, ratings, feedback, sentence in (
        (0, {**scores, "safety": None}, CORRECTION, "Give a score for Safety"),
        (0, {**scores, "fluency": 6}, CORRECTION, "Fluency is scored from 1 to 5"),
        (1, scores, CORRECTION, "Nobody answered this response"),
        (0, scores, Feedback("error_correction", [], []), "choose one deficiency"),
        (2, scores, None, "no response to rate"),
    ):
        with pytest.raises(DomainError, match=sentence):
            rating_conversations.rate_turn(talk, position, ratings=ratings, feedback=feedback)
    assert not Rating.objects.exists()
    with pytest.raises(ConflictError, match="was imported"):
        turns.send_feedback(talk, 1, text="And?", feedback=CORRECTION)


def test_conversations_are_routed_by_language(tmp_path: Path) -> None:
    project = imported(tmp_path, {"messages": messages("一?", "二"), "lang": "zh"}, {"messages": messages("A?", "B")})
    user = make_user()
    services.add_member(project, user, languages=["en"])
    talk = rating_conversations.take_conversation(project, make_annotator(user))
    assert talk is not None and talk.lang == ""
    end_conversation(talk)
    assert rating_conversations.take_conversation(project, make_annotator(user)) is None


# ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────────


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


def test_feedback_becomes_records_and_fb_bench_items(django_assert_num_queries: Any) -> None:
    project = make_talk_project()
    talk = make_talk(project, text="What is 6 × 7?")
    write(talk, "41.", "43.")
    pick(talk, better(last_turn(talk), "b"))
    answer(talk, "Count again.")
    write(talk, "It is 42.", "It is 43, believe me.")
    sides = "AB" if last_turn(talk).a_shown_on_left else "BA"
    pick(talk, better(last_turn(talk), "a"))
    answer(talk, "My teacher says 41.", CHALLENGE, uptake=dict(zip(sides, ("yes", "no"), strict=True)))
    with django_assert_num_queries(7):
        first, second = feedback_records(project)
    assert first["response"] == {
        "source": talk.source_b.name,
        "text": "43.",
        "kept_at_random": False,
        "written_here": False,
    }
    assert first["second_responses"] == [
        {
            "source": talk.source_a.name,
            "text": "It is 42.",
            "goes_on": True,
            "written_here": False,
            "takes_up_feedback": 1.0,
        },
        {
            "source": talk.source_b.name,
            "text": "It is 43, believe me.",
            "goes_on": False,
            "written_here": False,
            "takes_up_feedback": 0.0,
        },
    ]
    assert (first["preference"], first["strength"], first["turn"]) == ("a", -2, 0)
    assert (second["scenario"], second["second_responses"], second["preference"]) == (
        "response_maintenance",
        [],
        None,
    )
    assert list(fb_bench_items(project)) == [
        {
            "bench_type": "Error Correction",
            "task_type": "",
            "sub_task_type": "",
            "user_query": "What is 6 × 7?",
            "origin_first_response": "43.",
            "feedback": "Count again.",
            "error_type": ["Logical Error"],
            "feedback_type": ["Pointing Out Errors", "Hinting Guidance"],
            "checklist": [],
            "second_responses": [
                {"model": talk.source_a.name, "text": "It is 42."},
                {"model": talk.source_b.name, "text": "It is 43, believe me."},
            ],
            "reference_second_response": "It is 42.",
        }
    ]


def test_labels_are_those_of_the_published_benchmark(shared_data: Path) -> None:
    items = json.loads((shared_data / "fb_bench" / "dataset_v3.json").read_text())
    for scenario, allowed in FEEDBACK_ALLOWED.items():
        mine = [item for item in items if item["bench_type"] == _label(scenario)]
        assert {kind for item in mine for kind in item["feedback_type"]} == {_label(kind) for kind in allowed}
    given = {kind for item in items for kind in item["error_type"] or []}
    assert given == {_label(kind) for kind in DeficiencyType}
