"""Imported conversations: who is given which, and what they say of each response."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from annotation import services
from annotation.errors import ConflictError, DomainError
from annotation.feedback import Feedback, fb_bench_items, feedback_records
from annotation.models import Conversation, Event, Membership, Project, Rating
from annotation.services import rating_conversations, turns
from annotation.services.conversations import end_conversation
from tests.factories import make_annotator, make_user
from tests.importing import import_lines, reasons
from tests.talks import CORRECTION, make_talk, make_talk_project

pytestmark = pytest.mark.django_db


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
