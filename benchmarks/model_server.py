"""Tokens a second of the model server, and of plain transformers `generate` with the same model and threads.

    python -m benchmarks.model_server [--model DIR] [--rows 1 8 32] [--words 30] [--tokens 64] [--prompt-tokens 2000]

The server runs in a process of its own and is asked over HTTP by so many clients at a time; `generate` gets the same
prompts as one batch in this process, while the server has nothing to do. The two take turns. Both sample, and neither
ends before it has written all tokens. Reading is one prompt with a single token as the answer. Where other work shares
the machine, the tokens of a second of CPU say more than those of a second.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.measure import add_json_option, cpu_seconds, machine, median
from benchmarks.servers import free_port

ROOT = Path(__file__).resolve().parents[1]
WORDS = ("the", "answer", "is", "short", "and", "polite", "because", "people", "asked", "for", "it", "today")


def endless(model: Path, folder: Path) -> Path:
    """The same model with an end token that it never says."""
    for file in model.iterdir():
        (folder / file.name).symlink_to(file)
    config = json.loads((model / "generation_config.json").read_text())
    (folder / "generation_config.json").unlink()
    (folder / "generation_config.json").write_text(json.dumps(config | {"eos_token_id": 1}))
    return folder


def words(count: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count))


class Server:
    def __init__(self, model: Path) -> None:
        self.model = model
        port = free_port()
        command = [sys.executable, "-m", "rlhf.training.serve", "--port", str(port), "--root", str(model)]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600)
        while self.process.poll() is None:
            try:
                self.client.get("/health").raise_for_status()
                return
            except httpx.TransportError:
                time.sleep(0.2)
        sys.exit("the model server ended at its start")

    def ask(self, prompt: str, tokens: int) -> dict[str, int]:
        """The usage of one answer."""
        messages = [{"role": "user", "content": prompt}]
        body = {"model": str(self.model), "messages": messages, "max_tokens": tokens, "top_p": 0.95, "seed": 1}
        answer = self.client.post("/v1/chat/completions", json=body)
        answer.raise_for_status()
        return dict(answer.json()["usage"])

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.process.pid)

    def write(self, prompts: list[str], tokens: int) -> int:
        with ThreadPoolExecutor(len(prompts)) as pool:
            return sum(usage["completion_tokens"] for usage in pool.map(lambda text: self.ask(text, tokens), prompts))

    def read(self, prompt: str) -> int:
        return self.ask(prompt, 1)["prompt_tokens"]


class Plain:
    def __init__(self, model: Path) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")

    def cpu_seconds(self) -> float:
        return time.process_time()

    def encode(self, prompts: list[str]) -> Any:
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        texts = self.tokenizer.apply_chat_template(chats, add_generation_prompt=True, tokenize=False)
        return self.tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")

    def write(self, prompts: list[str], tokens: int) -> int:
        asked = self.encode(prompts)
        written = self.model.generate(
            **asked, do_sample=True, temperature=1.0, top_p=0.95, max_new_tokens=tokens, min_new_tokens=tokens
        )
        return int(written[:, asked["input_ids"].shape[1] :].numel())

    def read(self, prompt: str) -> int:
        asked = self.encode([prompt])
        with torch.inference_mode():
            self.model(**asked, use_cache=True, logits_to_keep=1)
        return int(asked["input_ids"].shape[1])


class Paces:
    """Tokens a second and a second of CPU, by what was done and by whom."""

    def __init__(self) -> None:
        self.measured: dict[str, dict[str, list[tuple[float, float]]]] = {}

    def measure(self, what: str, name: str, side: Server | Plain, work: Callable[..., int], *arguments: Any) -> None:
        began, cpu_began = time.monotonic(), side.cpu_seconds()
        tokens = work(*arguments)
        paces = tokens / (time.monotonic() - began), tokens / (side.cpu_seconds() - cpu_began)
        self.measured.setdefault(what, {}).setdefault(name, []).append(paces)
        print(f"  {what:<26}{name:<10}{paces[0]:8.0f} tokens/s{paces[1]:8.0f} tokens/CPU s", flush=True)

    def medians(self) -> dict[str, dict[str, list[float]]]:
        return {
            what: {name: [median(values) for values in zip(*paces, strict=True)] for name, paces in by.items()}
            for what, by in self.measured.items()
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "var" / "models" / "smollm2-135m-instruct")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32], help="answers at a time")
    parser.add_argument("--tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--words", type=int, default=30, help="of the prompts that are answered")
    parser.add_argument("--prompt-tokens", type=int, default=2000, help="of the prompt that is read, about")
    parser.add_argument("--rounds", type=int, default=2)
    add_json_option(parser)
    arguments = parser.parse_args()
    if not arguments.model.is_dir():
        sys.exit(f"{arguments.model} does not exist: run `python manage.py setup_model`, or name a --model")
    print(f"{arguments.model.name}, {torch.get_num_threads()} threads, {machine()}")
    folder = Path(tempfile.mkdtemp(prefix="touchstone-bench-"))
    server = None
    try:
        model = endless(arguments.model.resolve(), folder)
        server, plain = Server(model), Plain(model)
        sides: dict[str, Server | Plain] = {"server": server, "generate": plain}
        for side in sides.values():
            side.write([words(20, seed=0)] * 2, 4)
        paces = Paces()
        for number in range(arguments.rounds):
            for name, side in sides.items():
                for rows in arguments.rows:
                    prompts = [words(arguments.words, seed=row) for row in range(rows)]
                    paces.measure(f"written, {rows} at a time", name, side, side.write, prompts, arguments.tokens)
                paces.measure("read", name, side, side.read, words(arguments.prompt_tokens, seed=number))
    finally:
        if server:
            server.process.terminate()
            server.process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{'':26}{'server':>10}{'generate':>10}{'ratio':>8}{'ratio by CPU':>14}")
    figures = paces.medians()
    for what, by in figures.items():
        (ours, ours_cpu), (plain_pace, plain_cpu) = by["server"], by["generate"]
        print(f"{what:<26}{ours:10.0f}{plain_pace:10.0f}{ours / plain_pace:8.2f}{ours_cpu / plain_cpu:14.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"tokens_per_second_and_cpu_second": figures, **machine()}, indent=1))


if __name__ == "__main__":
    main()
