"""The streaming client against a server that behaves, one that does not, and the project's own."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from annotation import chat
from annotation.chat import ChatError, Piece, Trouble, stream_chat
from annotation.models import ResponseSource
from benchmarks.loop import free_port
from rlhf.services import publish_checkpoint, register_base_checkpoint
from tests.chat_server import ChatServer, Exchange, chat_server, event
from tests.test_generation import server as model_server  # noqa: F401

QUESTION = [{"role": "user", "content": "Why?"}]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as server:
        yield server


@pytest.fixture(autouse=True)
def _names(settings) -> None:  # type: ignore[no-untyped-def]
    settings.SERVED_MODEL = "tests.test_chat.served_model"


def served_model(source: ResponseSource) -> str:
    return source.served_model


def ask(server: ChatServer, reply: Callable[[Exchange], None] | None = None) -> list[Piece]:
    if reply:
        server.reply = reply
    source = ResponseSource(name="x", served_model="the-model", base_url=server.url)
    return list(stream_chat(source, QUESTION, seed=7))


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def stream(*chunks: bytes, done: bool = True) -> Callable[[Exchange], None]:
    """A reply of exactly these chunks."""

    def reply(exchange: Exchange) -> None:
        exchange.start()
        for part in chunks:
            exchange.send(part)
        exchange.complete() if done else exchange.send(b"")

    return reply


def line(text: str) -> bytes:
    return b"data: " + event({"content": text}) + b"\n\n"


def test_pieces_come_as_they_are_said_and_the_reason_last(server: ChatServer) -> None:
    pieces = ask(server)
    assert [piece.text for piece in pieces] == ["Answer 7 ", "to “Why?”.", ""]
    assert [piece.finish_reason for piece in pieces] == ["", "", "stop"]
    assert server.requests == [
        {"model": "the-model", "messages": QUESTION, "stream": True, "seed": 7, **chat.SAMPLING},
    ]


def test_the_first_piece_is_there_before_the_second_is_said(server: ChatServer) -> None:
    go_on = threading.Event()

    def reply(exchange: Exchange) -> None:
        exchange.start()
        exchange.say("One")
        assert go_on.wait(20)
        exchange.say(" two.")
        exchange.complete()

    server.reply = reply
    pieces = stream_chat(ResponseSource(served_model="m", base_url=server.url), QUESTION, seed=1)
    assert next(pieces).text == "One"
    go_on.set()
    assert text_of(list(pieces)) == " two."


def test_odd_but_lawful_streams_are_read(server: ChatServer) -> None:
    whole = line("Grüße 🙂\u2028second\x85third")
    assert text_of(ask(server, stream(*[whole[i : i + 1] for i in range(len(whole))]))) == (
        "Grüße 🙂\u2028second\x85third"
    ), "bytes that come one by one"
    raw = b'data: {"choices":[{"delta":{"content":"a\xe2\x80\xa8b"}}]}\r\n\r\n'
    assert text_of(ask(server, stream(b": keep-alive\n\n", b"event: x\nid: 3\n", raw))) == "a\u2028b"
    usage = b'data: {"choices": [], "usage": {"total_tokens": 3}}\n\n'
    role = b"data: " + event({"role": "assistant", "content": None}) + b"\n\n"
    assert text_of(ask(server, stream(role, line("x"), usage))) == "x"
    halves = (
        b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n',
        b'data: {"choices":[{"delta":{"content":"\\ude42"}}]}\n',
    )
    assert text_of(ask(server, stream(*halves))) == "🙂"
    lone = b'data: {"choices":[{"delta":{"content":"a\\ude42\\u0000"}}]}\n'
    assert text_of(ask(server, stream(lone))) == "a\ufffd\ufffd", "what Postgres cannot hold"
    assert ask(server, stream(line("x"), b"data: [DONE]\n", done=False))[-1].finish_reason == "stop"
    with_reason = b"data: " + event({"content": "end"}, "length") + b"\n"
    pieces = ask(server, stream(with_reason, done=False))
    assert (text_of(pieces), pieces[-1].finish_reason) == ("end", "length"), "a reason is an end without [DONE]"


def test_a_server_that_does_not_stream_is_read_whole(server: ChatServer) -> None:
    choice = {"message": {"role": "assistant", "content": "All at once."}, "finish_reason": "length"}

    def reply(exchange: Exchange) -> None:
        exchange.start("application/json")
        exchange.send(json.dumps({"choices": [choice]}).encode())
        exchange.send(b"")

    pieces = ask(server, reply)
    assert (text_of(pieces), pieces[-1].finish_reason) == ("All at once.", "length")


@pytest.mark.parametrize(
    ("reply", "trouble", "detail"),
    [
        (lambda x: (x.start(), x.say("Half a"), x.drop()), Trouble.BROKEN, "RemoteProtocolError"),
        (stream(line("x"), done=False), Trouble.BROKEN, "without a finish reason"),
        (stream(b"data: <html>\n\n"), Trouble.UNREADABLE, "<html>"),
        (stream(b'data: "text"\n\n'), Trouble.UNREADABLE, "not an object"),
        (stream(b'data: {"choices": [7]}\n\n'), Trouble.UNREADABLE, "no choice"),
        (stream(b'data: {"choices": [{"delta": {"content": 7}}]}\n\n'), Trouble.UNREADABLE, "not a text"),
        (stream(b'data: {"error": {"message": "out of memory"}}\n\n'), Trouble.BROKEN, "out of memory"),
        (stream(b"data: " + b"[" * 100_000 + b"\n\n"), Trouble.UNREADABLE, "\\[\\[\\["),
        (stream(*[b"x" * 600_000] * 2), Trouble.UNREADABLE, "a line of more than"),
        (lambda x: x.refuse(404, "no model the-model"), Trouble.REFUSED, "404: no model the-model"),
        (lambda x: x.refuse(400), Trouble.REFUSED, "400"),
        (lambda x: x.refuse(429), Trouble.BUSY, "429"),
        (lambda x: x.refuse(503), Trouble.BUSY, "503"),
        (lambda x: x.refuse(500), Trouble.BROKEN, "500"),
    ],
)  # fmt: skip
def test_whatever_goes_wrong_is_named(
    server: ChatServer, reply: Callable[[Exchange], None], trouble: Trouble, detail: str
) -> None:
    with pytest.raises(ChatError, match=detail) as caught:
        ask(server, reply)
    assert caught.value.trouble == trouble
    assert "the-model" not in trouble.label and "127.0.0.1" not in trouble.label


def test_silence_and_absence(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = threading.Event()
    monkeypatch.setattr(chat, "SILENCE_SECONDS", 0.2)
    with pytest.raises(ChatError) as caught:
        ask(server, lambda exchange: (exchange.start(), exchange.say("A"), silent.wait(20)))
    silent.set()
    assert caught.value.trouble == Trouble.SILENT
    away = ResponseSource(served_model="m", base_url=f"http://127.0.0.1:{free_port()}/v1")
    with pytest.raises(ChatError) as caught:
        list(stream_chat(away, QUESTION, seed=1))
    assert caught.value.trouble == Trouble.AWAY


def test_a_text_without_end_is_cut(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "MAX_CHARS", 10)

    def reply(exchange: Exchange) -> None:
        exchange.start()
        while True:
            exchange.say("word ")

    pieces = ask(server, reply)
    assert (text_of(pieces), pieces[-1].finish_reason) == ("word word ", "length")


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir")
def test_a_published_checkpoint_streams_what_its_seed_says(
    model_server: str,  # noqa: F811
    tiny_model: Path,
    settings: Any,
) -> None:
    settings.MODEL_SERVER_URL = model_server
    settings.SERVED_MODEL = "rlhf.generation.served_model"
    source = publish_checkpoint(register_base_checkpoint("tiny", tiny_model))
    once = list(stream_chat(source, QUESTION, seed=3))
    again = list(stream_chat(source, QUESTION, seed=3))
    other = list(stream_chat(source, QUESTION, seed=4))
    assert text_of(once) == text_of(again) != text_of(other)
    assert len(once) > 2 and once[-1].finish_reason in ("stop", "length")
