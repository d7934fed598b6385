"""Scripted annotators: what they read, and how they vote over HTTP as the compare page's script does."""

from __future__ import annotations

import http.client
import random
import re
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

PROJECT = "bench"
PASSWORD = "only-for-this-run"
IDLE_SECONDS = 20  # the servers close connections that rest for 30 s
WORDS = (
    *("the", "model", "answers", "tides", "rise", "and", "fall", "because", "moon", "pulls", "water", "towards", "it"),
    *("earth", "turns", "below", "so", "that", "most", "coasts", "see", "two", "high", "waters", "a", "day"),
)


@dataclass(frozen=True)
class Item:
    """A prompt and two responses to it."""

    prompt: str
    a: str
    b: str


def make_items(count: int, *, latex: bool = True) -> list[Item]:
    """Items that are all different, so that no rendered Markdown comes out of a cache."""
    rng = random.Random(0)
    return [Item(*(text(rng, words, latex=latex) for words in (30, 150, 150))) for _ in range(count)]


def text(rng: random.Random, words: int, *, latex: bool) -> str:
    """Markdown as models write it: paragraphs, a list, a line of code, now and then a formula."""
    parts = []
    while words > 0:
        sentence = " ".join(rng.choices(WORDS, k=24)) + f" ({rng.random():.6f})."
        kind = rng.random()
        if kind < 0.2:
            parts.append("\n".join(f"- **{item}** " + sentence[:60] for item in rng.sample(WORDS, 3)))
        elif kind < 0.3:
            parts.append("```python\nfor tide in range(10):\n    print(tide * 6.2)  # hours\n```")
        elif kind < 0.4 and latex:
            parts.append(f"{sentence} So $h = {rng.random():.3f} \\cdot t$.")
        else:
            parts.append(sentence)
        words -= 24
    return "\n\n".join(parts)


def fill(items: Sequence[Item], annotators: int, **project_fields: Any) -> None:
    """A project whose comparisons are the items, with its annotators, straight into the tables."""
    from django.contrib.auth.models import User

    from annotation import services
    from annotation.models import Prompt, Response, ResponseSource

    project = services.create_project(slug=PROJECT, name="Benchmark", **project_fields)
    sources = [ResponseSource.objects.create(name=f"source {i}", kind="imported") for i in range(2)]
    prompts = [
        Prompt(
            project=project,
            messages=[{"role": "user", "content": item.prompt}],
            group=str(number),
            content_sha256=f"{number:064d}",
        )
        for number, item in enumerate(items)
    ]
    Prompt.objects.bulk_create(prompts, batch_size=500)
    pairs = [
        tuple(
            Response(
                prompt=prompt, source=source, sample_index=0, text=text, text_sha256=services.content_sha256(text)
            )
            for source, text in zip(sources, (item.a, item.b), strict=True)
        )
        for prompt, item in zip(prompts, items, strict=True)
    ]
    Response.objects.bulk_create([response for pair in pairs for response in pair], batch_size=500)
    services.create_comparisons(project, [(a, b) for a, b in pairs])
    for number in range(annotators):
        services.add_member(project, User.objects.create_user(f"annotator{number}", password=PASSWORD))


class Client:
    """An HTTP/1.1 connection that is kept, with its cookies."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.cookies: dict[str, str] = {}
        self.used_at = 0.0

    def request(
        self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        sent = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())} | (headers or {})
        if time.monotonic() - self.used_at > IDLE_SECONDS:
            self.connection.close()  # the next request opens it again
        self.connection.request(method, path, body, sent)
        response = self.connection.getresponse()
        for cookie in response.headers.get_all("Set-Cookie") or []:
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        answer = response.read().decode()
        self.used_at = time.monotonic()
        return response.status, answer

    def post_form(self, path: str, fields: dict[str, str], headers: dict[str, str] | None = None) -> tuple[int, str]:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.request("POST", path, urllib.parse.urlencode(fields), form | (headers or {}))


class Annotator(Protocol):
    def judge(self) -> float:
        """Judge one item and have the next one; gives the seconds that it took."""
        ...


class TouchstoneAnnotator:
    """Holds two assignments as the compare page does: the one on the screen and the one behind it."""

    def __init__(self, port: int, username: str) -> None:
        self.client = Client(port)
        self.client.request("GET", "/login/")
        token = self.client.cookies["csrftoken"]
        fields = {"username": username, "password": PASSWORD, "csrfmiddlewaretoken": token}
        status, _ = self.client.post_form("/login/", fields)
        assert status == 302, status
        _, page = self.client.request("GET", f"/projects/{PROJECT}/compare/")
        self.held = assignments_in(page)
        assert len(self.held) == 2, page[:500]

    def judge(self) -> float:
        voted, ahead = self.held
        fields = {"judgment_id": str(uuid.uuid4()), "choice": "-2", "decided_in_ms": "4000", "note": "", "held": ahead}
        headers = {"X-Requested-With": "fetch", "X-CSRFToken": self.client.cookies["csrftoken"]}
        began = time.perf_counter()
        status, answer = self.client.post_form(f"/assignments/{voted}/judgment", fields, headers)
        took = time.perf_counter() - began
        found = assignments_in(answer)
        assert status == 200 and found, (status, answer[:300])
        self.held = [ahead, found[0]]
        return took


def assignments_in(html: str) -> list[str]:
    return re.findall(r'data-assignment="([^"]+)"', html)


def at_once(
    annotators: Sequence[Annotator],
    each: int,
    *,
    think_seconds: float = 0.0,
    on_start: Callable[[], None] = lambda: None,
    warm_up: int = 0,
) -> tuple[list[float], float]:
    """Everybody judges `each` items at the same time; gives the seconds of every round trip, and of the whole.

    think_seconds: the mean pause before a vote, drawn evenly from half to one and a half of it. The first `warm_up`
    items of each are not counted; `on_start` is called when they are done.
    """
    times: list[float] = []
    failures: list[BaseException] = []
    warm = threading.Barrier(len(annotators) + 1)
    start = threading.Barrier(len(annotators) + 1)

    def work(annotator: Annotator, rng: random.Random) -> None:
        try:
            for _ in range(warm_up):
                annotator.judge()
            warm.wait()
            start.wait()
            if think_seconds:  # people do not begin in step
                time.sleep(rng.uniform(0, think_seconds))
            for _ in range(each):
                if think_seconds:
                    time.sleep(rng.uniform(0.5, 1.5) * think_seconds)
                times.append(annotator.judge())
        except BaseException as failure:
            failures.append(failure)
            warm.abort()
            start.abort()

    threads = [
        threading.Thread(target=work, args=[annotator, random.Random(number)], daemon=True)
        for number, annotator in enumerate(annotators)
    ]
    for thread in threads:
        thread.start()
    try:
        warm.wait()
        on_start()
        began = time.perf_counter()
        start.wait()
    except threading.BrokenBarrierError:
        raise SystemExit(f"an annotator failed: {failures[0]!r}") from failures[0]
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(f"an annotator failed: {failures[0]!r}")
    return times, time.perf_counter() - began
