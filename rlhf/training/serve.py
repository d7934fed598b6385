"""A small OpenAI-compatible model server: `python -m rlhf.training.serve --port 8017 --root var/models`.

Ready-made servers draw from one random state for all requests, so a seed repeats a text only while nobody else asks.
Here every request has its own generator, each prompt is read alone and tokens are decoded in float32: the same model,
messages, parameters and seed give the same text whatever else is running. (Decoded in bfloat16, the size of the batch
shifts the logits enough to change every second text.) On GPU nodes vLLM takes this place.

One thread owns the models (engine.py) and decodes one running batch (running_batch.py), which requests join and leave
at any token. It binds to the loopback address and opens only directories under --root.
"""

from __future__ import annotations

import argparse
import json
import logging
import secrets
import sys
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rlhf.training.engine import Engine, RequestError
from rlhf.training.running_batch import Request, has_bfloat16

logger = logging.getLogger("serve")

DEFAULT_MAX_TOKENS = 256
UNDERSTOOD = {
    "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stream", "n", "user",
}  # fmt: skip


def parse_request(body: Any, roots: list[Path]) -> Request:
    """A checked request. Raises RequestError that names the field; what is not understood is refused, not ignored."""
    if not isinstance(body, dict):
        raise RequestError(400, "the body is not a JSON object")
    if unknown := set(body) - UNDERSTOOD:
        known = ", ".join(sorted(UNDERSTOOD))
        raise RequestError(400, f"{sorted(unknown)[0]!r} is not supported; supported: {known}")
    if body.get("n", 1) != 1:
        raise RequestError(400, "n must be 1: send one request for each answer")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError(400, "messages must be a list that is not empty")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise RequestError(400, f"messages[{index}] must hold a role and a content, both strings")
    max_tokens = body.get("max_completion_tokens", body.get("max_tokens")) or DEFAULT_MAX_TOKENS
    temperature, top_p, seed = body.get("temperature"), body.get("top_p"), body.get("seed")
    temperature = 1.0 if temperature is None else temperature
    top_p = 1.0 if top_p is None else top_p
    seed = secrets.randbits(31) if seed is None else seed
    if not isinstance(max_tokens, int) or max_tokens < 1:
        raise RequestError(400, f"max_tokens: {max_tokens!r} is not a positive whole number")
    if not isinstance(temperature, int | float) or not 0 <= temperature <= 10:
        raise RequestError(400, f"temperature: {temperature!r} is not a number from 0 to 10")
    if not isinstance(top_p, int | float) or not 0 < top_p <= 1:
        raise RequestError(400, f"top_p: {top_p!r} is not a number above 0 and at most 1")
    if not isinstance(seed, int):
        raise RequestError(400, f"seed: {seed!r} is not a whole number")
    return Request(
        directory=find_model(body.get("model"), roots),
        messages=[{"role": message["role"], "content": message["content"]} for message in messages],
        max_tokens=max_tokens,
        temperature=float(temperature),
        top_p=float(top_p),
        seed=seed,
        stream=bool(body.get("stream")),
    )


def find_model(name: Any, roots: list[Path]) -> Path:
    """The model directory that `name` means: an absolute path under a root, or a path relative to one."""
    if not isinstance(name, str) or not name:
        raise RequestError(400, "model must name a model directory")
    for root in roots:
        directory = (root / name).resolve()
        if directory.is_relative_to(root) and (directory / "config.json").is_file():
            return directory
    raise RequestError(404, f"there is no model directory {name} under {', '.join(map(str, roots))}")


def list_models(roots: list[Path]) -> list[str]:
    return sorted(str(path.parent) for root in roots for path in root.rglob("config.json"))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ModelServer

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)

    def do_GET(self) -> None:
        if self.path in ("/health", "/v1/health"):
            self.reply(200, {"status": "ok"})
        elif self.path == "/v1/models":
            models = [{"id": name, "object": "model"} for name in list_models(self.server.roots)]
            self.reply(200, {"object": "list", "data": models})
        else:
            self.reply(404, {"error": {"message": f"there is no {self.path}"}})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if self.path != "/v1/chat/completions":
                raise RequestError(404, f"there is no {self.path}")
            try:
                parsed = json.loads(body)
            except ValueError as error:
                raise RequestError(400, f"the body is not JSON: {error}") from None
            request = parse_request(parsed, self.server.roots)
            self.server.engine.submit(request)
            if request.stream:
                self.stream(request)
            else:
                self.complete(request)
        except RequestError as error:
            self.reply(error.status, {"error": {"message": str(error)}})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def complete(self, request: Request) -> None:
        tokens: list[int] = []
        while isinstance(event := request.events.get(), int):
            tokens.append(event)
        if isinstance(event, RequestError):
            raise event
        text = decode(request, tokens)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": event}
        usage = {
            "prompt_tokens": len(request.prompt),
            "completion_tokens": request.written,
            "total_tokens": len(request.prompt) + request.written,
        }
        self.reply(200, envelope(request, "chat.completion") | {"choices": [choice], "usage": usage})

    def stream(self, request: Request) -> None:
        """Server-sent events, one a token; a character of several tokens is sent when it is whole."""
        first = request.events.get()  # before the headers: an error still has its own status
        if isinstance(first, RequestError):
            raise first
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        head = envelope(request, "chat.completion.chunk")
        tokens: list[int] = []
        sent = ""
        event = first
        try:
            self.send_event(head | {"choices": [chunk({"role": "assistant"})]})
            while isinstance(event, int):
                tokens.append(event)
                text = decode(request, tokens)
                if len(text) > len(sent) and not text.endswith("�"):
                    self.send_event(head | {"choices": [chunk({"content": text[len(sent) :]})]})
                    sent = text
                event = request.events.get()
            if isinstance(event, RequestError):
                self.send_event({"error": {"message": str(event)}})
                return
            text = decode(request, tokens)
            if text != sent:
                self.send_event(head | {"choices": [chunk({"content": text[len(sent) :]})]})
            self.send_event(head | {"choices": [chunk({}, event)]})
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            request.abandoned = True

    def send_event(self, value: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")

    def reply(self, status: int, value: dict[str, Any]) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def decode(request: Request, tokens: list[int]) -> str:
    assert request.tokenizer is not None  # set before the first token
    return str(request.tokenizer.decode(tokens, skip_special_tokens=True))


def envelope(request: Request, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": str(request.directory),
        "seed": request.seed,
    }


def chunk(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason}


class ModelServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], roots: list[Path], *, read_in_bfloat16: bool) -> None:
        self.roots = [root.resolve() for root in roots]
        self.engine = Engine(read_in_bfloat16=read_in_bfloat16)
        super().__init__(address, Handler)
        self.engine.start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8017)
    parser.add_argument("--root", type=Path, action="append", required=True, help="folder of models; may be repeated")
    parser.add_argument(
        "--float32",
        action="store_true",
        help="read prompts in float32 even where the processor has bfloat16: slower, and the same on every processor",
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        reads = not arguments.float32 and has_bfloat16()
        server = ModelServer((arguments.host, arguments.port), arguments.root, read_in_bfloat16=reads)
    except OSError as error:
        sys.exit(f"The model server cannot listen on {arguments.host}:{arguments.port}: {error.strerror}.")
    logger.info("listening on http://%s:%s/v1 read_in_bfloat16=%s", arguments.host, server.server_port, reads)
    server.serve_forever()


if __name__ == "__main__":
    main()
