"""The client against a site that says what it received."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from django.utils.http import parse_header_parameters

from annotation.client import Touchstone

MEGABYTE = 2**20


class _Site(ThreadingHTTPServer):
    received: list[int]
    named: list[str]


class _BusyOnce(BaseHTTPRequestHandler):
    """Reads a body in pieces; is too busy for the first one."""

    server: _Site

    def do_POST(self) -> None:
        left = int(self.headers["Content-Length"])
        while left and (piece := self.rfile.read(min(left, 2**16))):
            left -= len(piece)
        self.server.received.append(int(self.headers["Content-Length"]) - left)
        self.server.named.append(self.headers["Content-Disposition"])
        is_first = len(self.server.received) == 1
        body = json.dumps({"id": 1, "status": "done", "result": {"prompts": 1}}).encode()
        self.send_response(503 if is_first else 202)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Says nothing: the tests' output is for what fails."""


@pytest.fixture
def site() -> Iterator[_Site]:
    server = _Site(("127.0.0.1", 0), _BusyOnce)
    server.received, server.named = [], []
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_file_is_sent_as_it_is_read_and_whole_again_at_the_next_attempt(site: _Site, tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    with path.open("wb") as file:
        file.truncate(4 * MEGABYTE)
    tracemalloc.start()
    try:
        with Touchstone(f"http://127.0.0.1:{site.server_port}", "x") as client:
            done = client.project("p").import_file(path)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert done == {"prompts": 1}
    assert site.received == [4 * MEGABYTE] * 2
    assert most < 2 * MEGABYTE


def test_a_file_may_be_named_in_any_script(site: _Site, tmp_path: Path) -> None:
    path = tmp_path / "判断 “2”; ü.jsonl"
    path.write_text('{"prompt": "Why?"}\n')
    with Touchstone(f"http://127.0.0.1:{site.server_port}", "x") as client:
        client.project("p").import_file(path)
    assert parse_header_parameters(site.named[-1]) == ("attachment", {"filename": path.name})
