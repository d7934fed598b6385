"""Rows that contradict, repeat or leak: what is wrong with a data set whatever model learns from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from annotation.duplicates import find_alike
from rlhf.preflight.findings import Finding, by_share, passed, refused, warned
from rlhf.preflight.rows import Row

# Near-duplicates are looked for among at most this many prompts at once: a launch must not wait for minutes.
PROMPTS_COMPARED = 20_000
_CONTRADICTIONS_BLOCK_ABOVE = 0.05
_LEAKS_BLOCK_ABOVE = 0.01
_EXAMPLES = 3


class Content:
    """What is seen of the rows of both splits, one after another."""

    def __init__(self) -> None:
        self.rows = 0
        self.repeated: list[int] = []
        self.contradicting: list[int] = []
        self.labels: set[bool] = set()
        self._seen: set[bytes] = set()
        self._prompts: dict[str, dict[bytes, tuple[int, str]]] = {"train": {}, "eval": {}}

    def add(self, split: str, row: Row) -> None:
        prompt = _digest(row["prompt"])
        self._prompts[split].setdefault(prompt, (row["id"], _text(row["prompt"])))
        if split != "train":
            return
        self.rows += 1
        if "chosen" not in row and "completion" not in row:  # a prompt to sample from
            return
        if "chosen" in row:
            sides = _digest(row["chosen"]), _digest(row["rejected"])
            itself, opposite = prompt + sides[0] + sides[1], prompt + sides[1] + sides[0]
        else:
            label = row.get("label", True)
            self.labels.add(label)
            said = prompt + _digest(row["completion"])
            itself, opposite = said + bytes([label]), said + bytes([not label])
        if opposite in self._seen:
            self.contradicting.append(row["id"])
        if itself in self._seen:
            self.repeated.append(row["id"])
        self._seen.add(itself)

    def check(self, method: str) -> Iterator[Finding]:
        if method == "kto" and len(self.labels) == 1:
            yield refused("all_desirable" if True in self.labels else "all_undesirable", count=self.rows)
        clean = True
        for code, ids, share in (
            ("contradicting", self.contradicting, _CONTRADICTIONS_BLOCK_ABOVE),
            ("repeated", self.repeated, 1.0),
        ):
            if ids:
                clean = False
                yield by_share(code, len(ids), self.rows, share, examples=ids[:_EXAMPLES])
        if clean and self.rows:
            yield passed("no_contradiction", count=self.rows)
        yield from self._check_leaks()

    def _check_leaks(self) -> Iterator[Finding]:
        train, held_out = self._prompts["train"], self._prompts["eval"]
        if not train or not held_out:
            return
        same = [held_out[prompt][0] for prompt in held_out if prompt in train]
        if same:
            yield by_share("leaked", len(same), len(held_out), _LEAKS_BLOCK_ABOVE, examples=same[:_EXAMPLES])
        others = [text for prompt, (_, text) in held_out.items() if prompt not in train]
        if len(train) + len(others) > PROMPTS_COMPARED:
            yield warned("alike_not_compared", count=len(train) + len(others), limit=PROMPTS_COMPARED)
            return
        ids = [pk for prompt, (pk, _) in held_out.items() if prompt not in train]
        texts = dict(enumerate([text for _, text in train.values()] + others))
        alike = sorted(
            ids[later - len(train)]
            for later, first, _ in find_alike(texts.items(), lambda wanted: {place: texts[place] for place in wanted})
            if first < len(train) <= later
        )
        if alike:
            yield warned("alike", count=len(alike), total=len(held_out), examples=alike[:_EXAMPLES])
        elif not same:
            yield passed("no_leak", count=len(held_out))


def _digest(messages: list[dict[str, Any]]) -> bytes:
    return hashlib.blake2b(json.dumps(messages, sort_keys=True).encode(), digest_size=16).digest()


def _text(messages: list[dict[str, Any]]) -> str:
    return "\n".join(str(message["content"]) for message in messages)
