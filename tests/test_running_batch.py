"""Rows that are decoded together: the tokens of transformers' own generate, and numbers that no neighbour moves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.tiny_model import build_tiny_model

if TYPE_CHECKING:
    from rlhf.training.running_batch import Batch, LoadedModel, Request

pytestmark = [pytest.mark.training, pytest.mark.slow]
LENGTHS = (1, 2, 40, 17, 16, 33)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def loaded(directory: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    from rlhf.training import engine, running_batch

    monkeypatch.setattr(running_batch, "PIECE_TOKENS", 16)
    return engine.Engine(read_in_bfloat16=False).load(directory)


def request(prompt: list[int], max_tokens: int = 20, temperature: float = 0.0, seed: int = 0) -> Request:
    from rlhf.training.running_batch import Request

    return Request(Path(), [], max_tokens, temperature, 0.9, seed, prompt=prompt)


def prompt_of(length: int, seed: int = 0) -> list[int]:
    import torch

    return torch.randint(3, 400, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def decode(batch: Batch, *requests: Request) -> list[list[int]]:
    """What each says when one joins at every other step."""
    import torch

    waiting = list(requests)
    with torch.inference_mode():
        while waiting or batch.rows:
            if waiting:
                batch.join(waiting.pop(0))
            batch.advance()
            batch.advance()
    return [said_by(request) for request in requests]


def said_by(request: Request) -> list[int]:
    tokens = []
    while isinstance(event := request.events.get_nowait(), int):
        tokens.append(event)
    return tokens


def generated(model: Any, prompt: list[int]) -> list[int]:
    import torch

    asked = torch.tensor([prompt])
    said = model.generate(asked, attention_mask=torch.ones_like(asked), do_sample=False, max_new_tokens=20)
    return [token for token in said[0, len(prompt) :].tolist() if token != 2]


def test_greedy_rows_of_many_lengths_say_what_transformers_generates(directory: Path, loaded: LoadedModel) -> None:
    from transformers import AutoModelForCausalLM

    from rlhf.training.running_batch import Batch

    model: Any = AutoModelForCausalLM.from_pretrained(directory)
    prompts = [prompt_of(length, seed=length) for length in LENGTHS]
    said = decode(Batch(loaded, read_in_bfloat16=False), *(request(prompt) for prompt in prompts))
    assert said == [generated(model, prompt) for prompt in prompts]


def test_a_window_of_attention_slides_over_a_row(tmp_path: Path, loaded: LoadedModel) -> None:
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    from rlhf.training.running_batch import ROWS_ATTENTION, Batch, LoadedModel

    config = MistralConfig(
        vocab_size=500, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=8,
    )  # fmt: skip
    torch.manual_seed(0)
    model: Any = MistralForCausalLM(config).eval()
    prompts = [prompt_of(length, seed=length) for length in LENGTHS]
    expected = [generated(model, prompt) for prompt in prompts]
    model.set_attn_implementation(ROWS_ATTENTION)
    rows = Batch(LoadedModel(model, loaded.tokenizer, {2}, 512), read_in_bfloat16=False)
    assert decode(rows, *(request(prompt) for prompt in prompts)) == expected


@pytest.mark.parametrize("in_bfloat16", [False, True])
def test_what_a_neighbour_has_read_is_copied_to_the_bit(loaded: LoadedModel, in_bfloat16: bool) -> None:
    import torch

    from rlhf.training.running_batch import Batch

    beginning = prompt_of(35)
    prompts = [
        beginning + prompt_of(20, seed=1),
        beginning + prompt_of(20, seed=1),  # the same whole
        beginning + prompt_of(10, seed=2),  # two pieces in common
        prompt_of(20, seed=3),  # nothing in common
    ]

    def read(prompts: list[list[int]]) -> tuple[list[int], list[torch.Tensor]]:
        """How many tokens were computed for each, and each one's keys and values."""
        batch = Batch(loaded, read_in_bfloat16=in_bfloat16)
        for prompt in prompts:
            batch.join(request(prompt))
        computed = []
        with torch.inference_mode():
            for row in batch.rows:
                computed.append(0)
                while not row.is_read:
                    computed[-1] += batch.read(row)
        caches = [
            torch.stack([torch.cat([layer.keys, layer.values])[:, :, : row.cached] for layer in row.layers])  # type: ignore[list-item]
            for row in batch.rows
        ]
        return computed, caches

    computed, together = read(prompts)
    assert computed == [54, 0, 44 - 32, 19]
    for prompt, cache in zip(prompts, together, strict=True):
        assert torch.equal(cache, read([prompt])[1][0])


def test_a_long_prompt_is_read_between_the_tokens_of_others(loaded: LoadedModel) -> None:
    import torch

    from rlhf.training.running_batch import Batch

    batch = Batch(loaded, read_in_bfloat16=False)
    quick, slow = request(prompt_of(5), max_tokens=8), request(prompt_of(100), max_tokens=8)
    with torch.inference_mode():
        batch.join(quick)
        batch.advance()
        batch.join(slow)
        for _ in range(4):
            batch.advance()
    assert (quick.written, slow.written) == (5, 0)


def test_a_model_whose_numbers_are_not_numbers_says_so() -> None:
    import torch

    from rlhf.training.running_batch import sample_token

    for temperature in (0.0, 1.0):
        with pytest.raises(FloatingPointError, match="its training diverged"):
            sample_token(torch.full((10,), float("nan")), temperature, 0.9, 0.5)


def test_the_nucleus_is_the_smallest_set_that_weighs_enough() -> None:
    import torch

    from rlhf.training.running_batch import sample_token

    logits = torch.tensor([0.2, 0.5, 0.3]).log()
    # 0.5 + 0.3 >= 0.7, so token 0 is left out and the others are drawn 5 : 3.
    drawn = [sample_token(logits, 1.0, 0.7, draw) for draw in (0.0, 0.62, 0.63, 0.999)]
    assert drawn == [1, 1, 2, 2]
    assert [sample_token(logits, 1.0, 1.0, draw) for draw in (0.1, 0.3, 0.8)] == [0, 1, 2]
    assert sample_token(logits, 0.0, 1.0, 0.99) == 1
    # Of equals none can be left out.
    flat = torch.zeros(100)
    assert [sample_token(flat, 1.0, 0.5, (i + 0.5) / 100) for i in range(100)] == list(range(100))
