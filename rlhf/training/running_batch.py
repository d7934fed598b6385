"""The rows that one model decodes together. Each has a key-value cache of its own, so none is padded for the others.

Prompts are read alone and in pieces, in bfloat16 where the processor computes with it (2.4 times as fast); every token
is decoded in float32. What is read is then a matter of the prompt alone, and what is decoded nearly so: only the size
of the matrix products still depends on the company, and in float32 that moves the last bits of a logit.
"""

from __future__ import annotations

import dataclasses
import queue
import random
import time
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

MAX_ROWS = 32
MAX_CACHED_TOKENS = 65_536
"""Of all rows together: bounds the key-value caches (3 GB for a model of 135 million parameters)."""
PIECE_TOKENS = 512
"""How much of a prompt is read at once. The others wait that long for their next token."""
ROWS_ATTENTION = "rows"
"""The attn_implementation that a model in a batch is loaded with."""


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
    prompt: list[int] = dataclasses.field(default_factory=list)
    """Token ids, once the engine has taken it in hand."""
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


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 numbers; elsewhere reading in it would be slower."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class RowLayer(CacheLayerMixin):
    """One row's keys and values of one layer, (1, heads, capacity, size), written in place."""

    is_sliding = False

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.length = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        # The memory costs nothing before it is written, so all that the row may need is asked for at once.
        self.keys, self.values = (
            torch.empty(1, states.shape[1], self.capacity, states.shape[3], dtype=torch.float32)
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        start, self.length = self.length, self.length + key_states.shape[2]
        self.keys[:, :, start : self.length] = key_states
        self.values[:, :, start : self.length] = value_states
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def copy_first(self, other: RowLayer, tokens: int) -> None:
        """Take over what another row has read."""
        assert other.keys is not None and other.values is not None
        self.length = 0
        self.update(other.keys[:, :, :tokens], other.values[:, :, :tokens])

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1


class BatchLayer(CacheLayerMixin):
    """The same layer of several rows, each of its own length; `attend_by_row` takes what `update` gives."""

    is_sliding = False

    def __init__(self, rows: list[RowLayer]) -> None:
        super().__init__()
        self.rows = rows

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        pass

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """key_states, value_states: (rows, heads, 1, size). Gives a (1, heads, tokens, size) of each for every row."""
        pairs = zip(self.rows, key_states.split(1), value_states.split(1), strict=True)
        return tuple(zip(*(row.update(key, value) for row, key, value in pairs), strict=True))

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0  # one new token sees all of its row: no mask is needed

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return -1


def attend_by_row(
    module: torch.nn.Module, query: torch.Tensor, key: Any, value: Any, attention_mask: Any, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """Attention for `AttentionInterface`: transformers' own while a prompt is read, row by row in a batch.

    query: (rows, heads, 1, size); key and value: one (1, key heads, tokens, size) a row. Gives (rows, 1, heads, size).
    """
    if isinstance(key, torch.Tensor):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    window = kwargs.get("sliding_window") or 0
    outputs = []
    for row, keys, values in zip(query.split(1), key, value, strict=True):
        # Query heads that share a key head stand as its queries, so that no key is copied for them.
        grouped = row.reshape(1, keys.shape[1], -1, row.shape[3])
        seen = slice(-window, None) if window else slice(None)
        attended = scaled_dot_product_attention(
            grouped, keys[:, :, seen], values[:, :, seen], scale=kwargs.get("scaling")
        )
        outputs.append(attended.reshape(1, 1, -1, values.shape[3]))
    return torch.cat(outputs), None


AttentionInterface.register(ROWS_ATTENTION, attend_by_row)
AttentionMaskInterface.register(ROWS_ATTENTION, sdpa_mask)


def sample_token(logits: torch.Tensor, temperature: float, top_p: float, draw: float) -> int:
    """The token at the quantile `draw` (0 … 1) of the tempered, top-p-truncated distribution; 0 temperature: greedy.

    logits: (vocabulary,). The distribution is accumulated in the vocabulary's order, not sorted by probability: tokens
    of nearly equal probability would change places with the last bit of a logit, and with them the text.
    """
    highest = logits.max()
    if not torch.isfinite(highest):
        raise FloatingPointError("its logits are not numbers: it is damaged, or its training diverged")
    if temperature == 0:
        return int(logits.argmax())
    probabilities = torch.softmax((logits - highest) / temperature, dim=-1)
    # All tokens below this bound together weigh less than 1 - top_p, so the nucleus holds none of them: a thousand
    # tokens are sorted and summed up instead of the vocabulary.
    tokens = (probabilities >= (1 - top_p) / len(probabilities)).nonzero()[:, 0]
    likely = probabilities[tokens].double()
    if top_p < 1:
        ordered = likely.sort(descending=True).values
        kept = int((ordered.cumsum(0) < top_p).sum()) + 1
        inside = likely >= ordered[min(kept, len(ordered)) - 1]
        tokens, likely = tokens[inside], likely[inside]
    cumulated = likely.cumsum(0)
    position = int(torch.searchsorted(cumulated, draw * cumulated[-1], right=True))
    return int(tokens[min(position, len(tokens) - 1)])


class Row:
    """A request's prompt and cache. The last token that it has, of the prompt or said, is not in the cache yet."""

    def __init__(self, request: Request, layers: int) -> None:
        self.request = request
        self.prompt = request.prompt
        self.layers = [RowLayer(len(self.prompt) + request.max_tokens) for _ in range(layers)]
        self.last = self.prompt[-1]

    @property
    def cached(self) -> int:
        return self.layers[0].length

    @property
    def is_read(self) -> bool:
        return self.cached >= len(self.prompt) - 1

    @property
    def has_ended(self) -> bool:
        return self.request.written >= self.request.max_tokens or self.request.abandoned

    def shared_with(self, other: Row) -> int:
        """How many tokens another row has read of the same beginning, and in the same pieces."""
        pairs = zip(self.prompt[:-1], other.prompt[:-1][: other.cached], strict=False)
        alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        is_all = alike == len(self.prompt) - 1 == len(other.prompt) - 1
        return alike if is_all else alike - alike % PIECE_TOKENS


class Batch:
    """The rows of one model: those whose prompt is being read, oldest first, and those that are being decoded."""

    def __init__(self, loaded: LoadedModel, *, read_in_bfloat16: bool) -> None:
        self.loaded = loaded
        self.read_in_bfloat16 = read_in_bfloat16
        self.rows: list[Row] = []

    def fits(self, tokens: int) -> bool:
        """Whether one more row of so many tokens keeps the caches within their bound. An empty batch takes any row."""
        if not self.rows:
            return True
        taken = sum(row.layers[0].capacity for row in self.rows)
        return len(self.rows) < MAX_ROWS and taken + tokens <= MAX_CACHED_TOKENS

    def join(self, request: Request) -> None:
        self.rows.append(Row(request, self.loaded.model.config.get_text_config().num_hidden_layers))

    def advance(self) -> None:
        """Read a piece of the prompts that wait and say one token for every row whose prompt is read."""
        self.rows = [row for row in self.rows if not row.has_ended]
        budget = PIECE_TOKENS
        for row in self.rows:
            while budget > 0 and not row.is_read:
                budget -= self.read(row)
        if speaking := [row for row in self.rows if row.is_read]:
            self.step(speaking)
        self.rows = [row for row in self.rows if not row.has_ended]

    def read(self, row: Row) -> int:
        """Read the row's next piece, or copy what another row has read alike. Gives the number of tokens computed."""
        if row.cached == 0:
            giver = max(self.rows, key=lambda other: 0 if other is row else row.shared_with(other))
            if giver is not row and (shared := row.shared_with(giver)):
                for mine, theirs in zip(row.layers, giver.layers, strict=True):
                    mine.copy_first(theirs, shared)
                return 0
        # Pieces begin and end at the same tokens whatever else there is: the last bits depend on their sizes.
        end = min(row.cached + PIECE_TOKENS, len(row.prompt) - 1)
        piece = torch.tensor([row.prompt[row.cached : end]])
        # Alone, not with other prompts: nothing that runs beside it then touches its numbers.
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.read_in_bfloat16):
            self.loaded.model.base_model(piece, past_key_values=Cache(layers=list(row.layers)), use_cache=True)
        return piece.shape[1]

    def step(self, rows: list[Row]) -> None:
        """One token for every row."""
        layers = zip(*(row.layers for row in rows), strict=True)
        output = self.loaded.model(
            torch.tensor([[row.last] for row in rows]),
            position_ids=torch.tensor([[row.cached] for row in rows]),
            past_key_values=Cache(layers=[BatchLayer(list(layer)) for layer in layers]),
            use_cache=True,
        )
        for row, logits in zip(rows, output.logits[:, -1], strict=True):
            row.last = self.say(row.request, logits)

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
