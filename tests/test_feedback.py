"""Typed feedback in conversations: which types fit, and the records and FB-Bench items made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import IntegrityError, transaction

from annotation.answer import Answer
from annotation.errors import ConflictError, DomainError
from annotation.feedback import Feedback, _label, fb_bench_items, feedback_records
from annotation.models import FEEDBACK_ALLOWED, Conversation, DeficiencyType, Event, Turn
from annotation.services import turns
from tests.talks import CORRECTION, answer, better, last_turn, make_talk, make_talk_project, pick, write

pytestmark = pytest.mark.django_db
CHALLENGE = Feedback("response_maintenance", [], ["misinformation"])


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


# ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────────


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
