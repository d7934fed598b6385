"""Conversations for tests, with every argument optional."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from annotation.answer import Answer
from annotation.feedback import Feedback
from annotation.models import Annotator, Conversation, Project, SideStatus, SourceKind, Turn
from annotation.protocol import Protocol
from annotation.services.conversations import set_conversation_sources, start_conversation
from annotation.services.turns import finish_side, pick_response, send_feedback
from tests.factories import make_annotator, make_project, make_source, make_user

CORRECTION = Feedback("error_correction", ["logical_error"], ["pointing_out_errors", "hinting_guidance"])


def make_talk_project(
    slug: str = "", *, url: str = "", models: int = 2, person: str = "", **protocol: object
) -> Project:
    """A project whose people talk to models of the names left-hand, right-hand …, behind the server at `url`."""
    project = make_project(slug, members=[make_user(person)] if person else None)
    project.protocol = Protocol(conversations=True, **protocol).to_json()  # type: ignore[arg-type]
    project.save()
    sources = []
    for number in range(models):
        name = f"secret-model-{number}-of-{project.slug}"
        source = make_source(name, kind=SourceKind.MODEL, served_model=f"served-{name}")
        source.base_url = url
        source.save()
        sources.append(source)
    set_conversation_sources(project, sources)
    return project


def make_talk(
    project: Project | None = None, *, annotator: Annotator | None = None, text: str = "Why?"
) -> Conversation:
    return start_conversation(
        project=project or make_talk_project(),
        annotator=annotator or make_annotator(),
        conversation_id=uuid4(),
        text=text,
    )


def last_turn(talk: Conversation) -> Turn:
    return talk.turns.latest("position")


def write(talk: Conversation, *texts: str, finish_reason: str = "stop") -> None:
    """What the models write to the last turn, in content order."""
    for side, text in zip(last_turn(talk).sides.filter(status=SideStatus.OPEN), texts, strict=True):
        finish_side(side.pk, text, finish_reason, sampling={"temperature": 0.7})


def pick(talk: Conversation, choice: str, **more: object) -> Turn:
    return pick_response(
        talk,
        last_turn(talk).position,
        judgment_id=uuid4(),
        answer=Answer(choice=choice, **more),  # type: ignore[arg-type]
    )


def better(turn: Turn, which: str) -> str:
    """The step that calls the given response (a or b, in content order) better, on the person's screen."""
    is_left = (which == "a") == turn.a_shown_on_left
    return "-2" if is_left else "2"


def answer(talk: Conversation, text: str = "No: think again.", feedback: Feedback = CORRECTION, **more: Any) -> Turn:
    return send_feedback(talk, last_turn(talk).position, text=text, feedback=feedback, **more)
