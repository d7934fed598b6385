"""The model server: the same request gives the same text whatever else is running, and bad ones are named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from config.embedded.process import child_setup
from config.embedded.starter_model import model_environment
from tests.test_embedded import wait_for
from tests.test_up import free_port
from tests.tiny_model import build_tiny_model

pytestmark = [pytest.mark.training, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("first", "second", "third")):
        build_tiny_model(folder / name, seed=seed)
    build_tiny_model(folder.parent / "outside")
    return folder


@pytest.fixture(scope="module")
def client(models: Path) -> Iterator[httpx.Client]:
    port = free_port()
    command = [sys.executable, "-m", "rlhf.training.serve", "--port", str(port), "--root", str(models)]
    server = subprocess.Popen(command, cwd=ROOT, env=model_environment(), preexec_fn=child_setup())
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/v1", timeout=120) as client:

        def is_up() -> bool:
            try:
                return client.get("/health").status_code == 200
            except httpx.TransportError:
                return False

        assert wait_for(is_up, 120)
        yield client
    server.kill()
    server.wait()


def body(models: Path, name: str = "first", prompt: str = "What is the answer?", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"model": str(models / name), "messages": messages, "max_tokens": 24, "seed": 1} | more


def ask(client: httpx.Client, request: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/chat/completions", json=request)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def text_of(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])


def test_a_seed_repeats_its_text_whatever_else_is_running(client: httpx.Client, models: Path) -> None:
    # Prompts and answers of many lengths, so that rows join and leave the batch at different tokens.
    requests = [
        body(models, prompt="Please tell me. " * (1 + i % 5), seed=i // 2, max_tokens=5 + 7 * (i % 4), top_p=0.9)
        for i in range(24)
    ]
    alone = [text_of(ask(client, request)) for request in requests]
    with ThreadPoolExecutor(24) as pool:
        together = list(pool.map(lambda request: text_of(ask(client, request)), requests))
        with_another_model = pool.map(
            lambda request: text_of(ask(client, request)),
            [
                request
                for pair in zip(requests, requests, strict=True)
                for request in (pair[0], body(models, "second"))
            ],
        )
        mixed = list(with_another_model)[::2]
    assert together == alone
    assert mixed == alone
    same_prompt = {text_of(ask(client, body(models, seed=seed))) for seed in range(8)}
    assert len(same_prompt) == 8


def test_greedy_answers_equal_those_of_transformers(client: httpx.Client, models: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

    from rlhf.training.running_batch import has_bfloat16

    model: Any = AutoModelForCausalLM.from_pretrained(models / "first", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(models / "first")
    prompts = ["Thank you.", "How do I write a letter to my neighbour?", "Stop asking me things, please. " * 4]
    requests = [body(models, prompt=prompt, temperature=0, max_tokens=40) for prompt in prompts]
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda request: ask(client, request), requests))
    for request, answer in zip(requests, answers, strict=True):
        text = tokenizer.apply_chat_template(request["messages"], add_generation_prompt=True, tokenize=False)
        prompt = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        cache = DynamicCache()
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_bfloat16()):
            model(prompt["input_ids"][:, :-1], past_key_values=cache)
        layers: list[Any] = cache.layers
        for layer in layers:
            layer.keys, layer.values = layer.keys.float(), layer.values.float()
        written = model.generate(**prompt, past_key_values=cache, do_sample=False, max_new_tokens=40)
        written = written[0, prompt["input_ids"].shape[1] :]
        assert text_of(answer) == tokenizer.decode(written, skip_special_tokens=True)
        ended = tokenizer.eos_token_id in written
        assert answer["choices"][0]["finish_reason"] == ("stop" if ended else "length")
        assert answer["usage"]["completion_tokens"] == len(written)


def test_a_stream_says_the_same_as_a_whole_answer(client: httpx.Client, models: Path) -> None:
    whole = ask(client, body(models, seed=5))
    events = []
    with client.stream("POST", "/chat/completions", json=body(models, seed=5, stream=True)) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        for line in answer.iter_lines():
            if line:
                events.append(line.removeprefix("data: "))
    assert events[-1] == "[DONE]"
    choices = [json.loads(event)["choices"][0] for event in events[:-1]]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == text_of(whole)
    assert choices[-1]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert len(choices) > 5


def test_more_models_than_it_keeps_are_served_in_turn(client: httpx.Client, models: Path) -> None:
    texts = [text_of(ask(client, body(models, name))) for name in ("first", "second", "third") * 2]
    assert texts[:3] == texts[3:]
    assert len(set(texts)) == 3
    listed = [model["id"] for model in client.get("/models").json()["data"]]
    assert listed == [str(models / name) for name in ("first", "second", "third")]


@pytest.mark.parametrize(
    ("change", "status", "sentence"),
    [
        ({"model": "../outside"}, 404, "../outside"),
        ({"model": "/etc"}, 404, "/etc"),
        ({"model": None}, 400, "model"),
        ({"temprature": 1}, 400, "'temprature' is not supported"),
        ({"n": 2}, 400, "n must be 1"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "user"}]}, 400, "messages[1]"),
        ({"messages": [{"role": "user", "content": "word " * 2000}]}, 400, "tokens; the model reads"),
        ({"temperature": -1}, 400, "temperature: -1"),
        ({"top_p": 0}, 400, "top_p: 0"),
        ({"max_tokens": "many"}, 400, "max_tokens: 'many'"),
        ({"seed": 1.5}, 400, "seed: 1.5"),
    ],
)
def test_a_request_that_cannot_be_answered_is_named(
    client: httpx.Client, models: Path, change: dict[str, Any], status: int, sentence: str
) -> None:
    answer = client.post("/chat/completions", json=body(models) | change)
    assert answer.status_code == status, answer.text
    assert sentence in answer.json()["error"]["message"]


def test_a_broken_model_directory_costs_one_request(client: httpx.Client, models: Path) -> None:
    broken = models / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    answer = client.post("/chat/completions", json=body(models, "broken"))
    assert answer.status_code == 500
    assert "broken cannot be used" in answer.json()["error"]["message"]
    assert text_of(ask(client, body(models)))
    (broken / "config.json").unlink()
