"""A real HTTP server that speaks OpenAI's streaming chat completions as a test tells it to."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Exchange(BaseHTTPRequestHandler):
    """One request and what is said to it; a test's reply function gets it."""

    protocol_version = "HTTP/1.1"
    server: ChatServer
    body: dict[str, Any]

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(self.body)
        try:
            self.server.reply(self)
        except OSError:
            self.server.lost_clients += 1
        self.close_connection = True

    def start(self, content_type: str = "text/event-stream") -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send(self, data: bytes) -> None:
        """One chunk, exactly these bytes."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def say(self, text: str) -> None:
        self.send(b"data: " + event({"content": text}) + b"\n\n")

    def complete(self, reason: str = "stop") -> None:
        self.send(b"data: " + event({}, reason) + b"\n\ndata: [DONE]\n\n")
        self.send(b"")

    def drop(self) -> None:
        """Cut the line in the middle of a stream."""
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def refuse(self, status: int, text: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


def event(delta: dict[str, Any], reason: str | None = None) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}).encode()


def answer_at_once(exchange: Exchange) -> None:
    """Two sentences that tell the model and the seed, so that two sides differ and a repeated seed repeats."""
    exchange.start()
    exchange.say(f"Answer {exchange.body['seed']} ")
    exchange.say(f"to “{exchange.body['messages'][-1]['content']}”.")
    exchange.complete()


class ChatServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.reply: Callable[[Exchange], None] = answer_at_once
        self.requests: list[dict[str, Any]] = []
        self.lost_clients = 0
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Cut lines are what the tests are about."""


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    server = ChatServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
