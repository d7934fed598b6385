"""A small OpenAI-compatible model server: `python -m rlhf.training.serve --port 8017 --root var/models`.

Ready-made servers draw from one random state for all requests, so a seed repeats a text only while nobody else asks.
Here every request has its own generator, weights are float32 and each prompt is read alone: the same model, messages,
parameters and seed give the same text whatever else is running. (In bfloat16 the size of the batch shifts the logits
enough to change every second text.) On GPU nodes vLLM takes this place.

One thread owns the models and decodes one running batch, which requests join and leave at any token. It binds to the
loopback address and opens only directories under --root.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import queue
import random
import secrets
import sys
import threading
import time
import uuid
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

logger = logging.getLogger("serve")

MAX_ROWS = 32
MAX_CACHED_TOKENS = 65_536
"""Rows times the longest row: bounds the key-value cache (3 GB for a model of 135 million parameters)."""
MAX_LOADED_MODELS = 2
PATIENCE_SECONDS = 5.0
"""How long requests for another model wait before the running batch takes in no more of its own."""
DEFAULT_MAX_TOKENS = 256
UNDERSTOOD = {
    "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stream", "n", "user",
}  # fmt: skip


class RequestError(Exception):
    """A request that cannot be answered: HTTP status and a sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclasses.dataclass(eq=False)
class Request:
    """One answer being written. The handler's thread reads `events`; all else belongs to the engine's thread."""

    directory: Path
    messages: list[dict[str, str]]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    stream: bool = False
    arrived: float = dataclasses.field(default_factory=time.monotonic)
    events: queue.SimpleQueue[Any] = dataclasses.field(default_factory=queue.SimpleQueue)
    """Token ids (int), then "stop", "length" or an exception."""
    abandoned: bool = False
    """Set by the handler when its client has gone."""
    tokenizer: PreTrainedTokenizerBase | None = None
    prompt_tokens: int = 0
    written: int = 0

    def __post_init__(self) -> None:
        # Python documents that this generator's random() repeats over versions; torch's does not promise that.
        self.draws = random.Random(self.seed)


@dataclasses.dataclass
class LoadedModel:
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    end_tokens: set[int]
    context: int


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


def sample_token(logits: torch.Tensor, temperature: float, top_p: float, draw: float) -> int:
    """The token at the quantile `draw` (0 … 1) of the tempered, top-p-truncated distribution; 0 temperature: greedy.

    logits: (vocabulary,). The distribution is accumulated in the vocabulary's order, not sorted by probability: tokens
    of nearly equal probability would change places with the last bit of a logit, and with them the text.
    """
    if temperature == 0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits.double() / temperature, dim=-1)
    if top_p < 1:
        # All tokens below this bound together weigh less than 1 - top_p, so the nucleus holds none of them: sorting
        # a thousand tokens instead of the vocabulary saves a tenth of the whole step.
        likely = probabilities[probabilities >= (1 - top_p) / len(probabilities)].sort(descending=True).values
        kept = int((likely.cumsum(0) < top_p).sum()) + 1
        smallest = likely[min(kept, len(likely)) - 1]
        probabilities = torch.where(probabilities >= smallest, probabilities, 0.0)
    cumulated = probabilities.cumsum(0)
    token = int(torch.searchsorted(cumulated, draw * cumulated[-1], right=True))
    return min(token, len(probabilities) - 1)


class Batch:
    """The rows being decoded for one model: their cache and mask, left-padded to a common length."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self.rows: list[Request] = []
        self.cache = DynamicCache()
        self.mask = torch.zeros((0, 0), dtype=torch.long)  # (rows, cached tokens); 0 is padding
        self.last = torch.zeros((0, 1), dtype=torch.long)  # (rows, 1): the token that each row said last

    def fits(self, tokens: int) -> bool:
        """Whether one more row of so many tokens keeps the cache within its bound. An empty batch takes any row."""
        if not self.rows:
            return True
        longest = max(tokens, *(row.prompt_tokens + row.max_tokens for row in self.rows))
        return len(self.rows) < MAX_ROWS and (len(self.rows) + 1) * longest <= MAX_CACHED_TOKENS

    def join(self, request: Request, prompt: torch.Tensor) -> None:
        """Read the prompt, shape (1, tokens), say the first token and add the row."""
        # Alone, not with other prompts: nothing that runs beside it then touches its numbers.
        output = self.loaded.model(prompt, past_key_values=DynamicCache(), use_cache=True, logits_to_keep=1)
        alone: DynamicCache = output.past_key_values
        width = max(self.mask.shape[1], prompt.shape[1])
        if self.rows:
            pairs: list[Any] = list(zip(self.cache.layers, alone.layers, strict=True))
            for ours, new in pairs:
                ours.keys = torch.cat([pad_left(ours.keys, width), pad_left(new.keys, width)])
                ours.values = torch.cat([pad_left(ours.values, width), pad_left(new.values, width)])
            self.mask = torch.nn.functional.pad(self.mask, (width - self.mask.shape[1], 0))
            row_mask = torch.nn.functional.pad(torch.ones_like(prompt), (width - prompt.shape[1], 0))
            self.mask = torch.cat([self.mask, row_mask])
        else:
            self.cache, self.mask = alone, torch.ones_like(prompt)
        self.rows.append(request)
        token = self.say(request, output.logits[0, -1])
        self.last = torch.cat([self.last, torch.tensor([[token]])])

    def step(self) -> None:
        """One token for every row."""
        self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)
        output = self.loaded.model(
            self.last,
            attention_mask=self.mask,
            position_ids=self.mask.sum(dim=1, keepdim=True) - 1,
            past_key_values=self.cache,
            use_cache=True,
        )
        tokens = [self.say(row, logits) for row, logits in zip(self.rows, output.logits[:, -1], strict=True)]
        self.last = torch.tensor(tokens)[:, None]

    def say(self, request: Request, logits: torch.Tensor) -> int:
        """Draw the row's next token and tell its handler."""
        token = sample_token(logits, request.temperature, request.top_p, request.draws.random())
        request.written += 1
        if token in self.loaded.end_tokens:
            request.events.put("stop")
            request.max_tokens = 0
        else:
            request.events.put(token)
            if request.written >= request.max_tokens:
                request.events.put("length")
        return token

    def drop_finished(self) -> None:
        """Forget the rows that have ended and the padding that no row needs any more."""
        kept = [i for i, row in enumerate(self.rows) if row.written < row.max_tokens and not row.abandoned]
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[i] for i in kept]
        indices = torch.tensor(kept, dtype=torch.long)
        self.mask, self.last = self.mask[indices], self.last[indices]
        padding = int((self.mask.sum(dim=0) == 0).sum())  # left columns only: a row has no holes
        self.mask = self.mask[:, padding:]
        layers: list[Any] = self.cache.layers
        for layer in layers:
            layer.keys = layer.keys[indices, :, padding:]
            layer.values = layer.values[indices, :, padding:]


def pad_left(cached: torch.Tensor, width: int) -> torch.Tensor:
    """cached: (rows, heads, tokens, size); gives (rows, heads, width, size)."""
    return torch.nn.functional.pad(cached, (0, 0, width - cached.shape[2], 0))


class Engine(threading.Thread):
    """Owns the models; turns waiting requests into tokens."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name="engine")
        self.models: OrderedDict[Path, LoadedModel] = OrderedDict()  # the most recently used last
        self.waiting: list[Request] = []
        self.arrival = threading.Condition()
        self.batch: Batch | None = None
        self.directory: Path | None = None

    def submit(self, request: Request) -> None:
        with self.arrival:
            self.waiting.append(request)
            self.arrival.notify()

    def run(self) -> None:
        with torch.inference_mode():
            while True:
                with self.arrival:
                    while not self.waiting and not (self.batch and self.batch.rows):
                        self.arrival.wait()
                try:
                    self.admit()
                    if self.batch and self.batch.rows:
                        self.batch.step()
                        self.batch.drop_finished()
                except Exception as error:  # out of memory, a broken model: this batch is lost, the server is not
                    logger.exception("a batch failed")
                    for row in self.batch.rows if self.batch else []:
                        row.events.put(RequestError(500, f"the model failed: {error}"))
                    self.batch = None

    def admit(self) -> None:
        """Let waiting requests join; choose the model of the oldest when no row is being decoded."""
        while request := self.next_request():
            if request.abandoned:
                continue
            try:
                if self.batch is None or self.directory != request.directory:
                    self.batch, self.directory = Batch(self.load(request.directory)), request.directory
                prompt = self.tokenise(request, self.batch.loaded)
            except RequestError as error:
                request.events.put(error)
                continue
            except Exception as error:
                logger.exception("a request failed")
                request.events.put(RequestError(500, f"{request.directory} cannot be used: {error}"))
                continue
            if not self.batch.fits(request.prompt_tokens + request.max_tokens):
                with self.arrival:
                    self.waiting.insert(0, request)
                return
            self.batch.join(request, prompt)
            self.batch.drop_finished()

    def next_request(self) -> Request | None:
        """Take the request that may join now, if any."""
        with self.arrival:
            if not self.waiting:
                return None
            oldest = self.waiting[0]
            if self.batch is None or not self.batch.rows or oldest.directory == self.directory:
                return self.waiting.pop(0)
            if time.monotonic() - oldest.arrived < PATIENCE_SECONDS:
                for index, request in enumerate(self.waiting):
                    if request.directory == self.directory:
                        return self.waiting.pop(index)
            return None

    def load(self, directory: Path) -> LoadedModel:
        if directory in self.models:
            self.models.move_to_end(directory)
            return self.models[directory]
        self.batch = None
        while len(self.models) >= MAX_LOADED_MODELS:
            self.models.popitem(last=False)
        started = time.monotonic()
        tokenizer = AutoTokenizer.from_pretrained(directory)
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        ends = model.generation_config.eos_token_id
        ends = {tokenizer.eos_token_id} if ends is None else {ends} if isinstance(ends, int) else set(ends)
        context = getattr(model.config, "max_position_embeddings", None) or 1 << 20
        self.models[directory] = LoadedModel(model, tokenizer, ends - {None}, context)
        logger.info("loaded %s seconds=%.1f", directory, time.monotonic() - started)
        return self.models[directory]

    def tokenise(self, request: Request, loaded: LoadedModel) -> torch.Tensor:
        """The prompt's token ids, shape (1, tokens). Raises RequestError where it cannot fit."""
        try:
            text = loaded.tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, tokenize=False)
        except ValueError as error:
            raise RequestError(400, f"the model's chat template refuses these messages: {error}") from None
        prompt = loaded.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        room = loaded.context - prompt.shape[1]
        if room < 1:
            raise RequestError(400, f"the messages are {prompt.shape[1]} tokens; the model reads {loaded.context}")
        request.tokenizer, request.prompt_tokens = loaded.tokenizer, prompt.shape[1]
        request.max_tokens = min(request.max_tokens, room)
        return prompt


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
            "prompt_tokens": request.prompt_tokens,
            "completion_tokens": request.written,
            "total_tokens": request.prompt_tokens + request.written,
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

    def __init__(self, address: tuple[str, int], roots: list[Path]) -> None:
        self.roots = [root.resolve() for root in roots]
        self.engine = Engine()
        super().__init__(address, Handler)
        self.engine.start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8017)
    parser.add_argument("--root", type=Path, action="append", required=True, help="folder of models; may be repeated")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        server = ModelServer((arguments.host, arguments.port), arguments.root)
    except OSError as error:
        sys.exit(f"The model server cannot listen on {arguments.host}:{arguments.port}: {error.strerror}.")
    logger.info("listening on http://%s:%s/v1", arguments.host, server.server_port)
    server.serve_forever()


if __name__ == "__main__":
    main()
