"""The model server's one thread that owns the models: it loads them and lets requests join the running batch."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf.training.running_batch import ROWS_ATTENTION, Batch, LoadedModel, Request

logger = logging.getLogger("serve")

MAX_LOADED_MODELS = 2
PATIENCE_SECONDS = 5.0
"""How long requests for another model wait before the running batch takes in no more of its own."""


class RequestError(Exception):
    """A request that cannot be answered: HTTP status and a sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Engine(threading.Thread):
    """Owns the models; turns waiting requests into tokens."""

    def __init__(self, *, read_in_bfloat16: bool) -> None:
        super().__init__(daemon=True, name="engine")
        self.read_in_bfloat16 = read_in_bfloat16
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
                        self.batch.advance()
                except Exception as error:  # out of memory, a broken model: this batch is lost, the server is not
                    logger.exception("a batch failed")
                    for row in self.batch.rows if self.batch else []:
                        row.request.events.put(RequestError(500, f"the model failed: {error}"))
                    self.batch = None

    def admit(self) -> None:
        """Let waiting requests join; choose the model of the oldest when no row is left."""
        while request := self.next_request():
            if request.abandoned:
                continue
            try:
                if self.batch is None or self.directory != request.directory:
                    loaded = self.load(request.directory)
                    self.batch = Batch(loaded, read_in_bfloat16=self.read_in_bfloat16)
                    self.directory = request.directory
                if not request.prompt:
                    tokenise(request, self.batch.loaded)
            except RequestError as error:
                request.events.put(error)
                continue
            except Exception as error:
                logger.exception("a request failed")
                request.events.put(RequestError(500, f"{request.directory} cannot be used: {error}"))
                continue
            if not self.batch.fits(len(request.prompt) + request.max_tokens):
                with self.arrival:
                    self.waiting.insert(0, request)
                return
            self.batch.join(request)

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
        model = AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, attn_implementation=ROWS_ATTENTION
        ).eval()
        if not model._supports_sdpa:
            raise RequestError(400, f"{directory} computes attention in a way of its own, which is not served here")
        ends = model.generation_config.eos_token_id
        ends = {tokenizer.eos_token_id} if ends is None else {ends} if isinstance(ends, int) else set(ends)
        context = getattr(model.config, "max_position_embeddings", None) or 1 << 20
        self.models[directory] = LoadedModel(model, tokenizer, ends - {None}, context)
        logger.info("loaded %s seconds=%.1f", directory, time.monotonic() - started)
        return self.models[directory]


def tokenise(request: Request, loaded: LoadedModel) -> None:
    """Give the request its prompt's tokens. Raises RequestError where they cannot fit."""
    try:
        text = loaded.tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, tokenize=False)
    except ValueError as error:
        raise RequestError(400, f"the model's chat template refuses these messages: {error}") from None
    prompt = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    if not prompt:
        raise RequestError(400, "the model's chat template makes nothing of these messages")
    room = loaded.context - len(prompt)
    if room < 1:
        raise RequestError(400, f"the messages are {len(prompt)} tokens; the model reads {loaded.context}")
    request.tokenizer, request.prompt = loaded.tokenizer, prompt
    request.max_tokens = min(request.max_tokens, room)
