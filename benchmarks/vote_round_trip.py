"""What a vote costs: the POST that stores it and answers with the next comparison, through real gunicorn and Postgres.

    python benchmarks/vote_round_trip.py [--annotators 1 8 32] [--votes 600] [--pause-seconds 0]

Every annotator has a session, holds two leases as a browser does, and votes without a pause unless one is given, so
the latencies of many annotators are those of a saturated machine (the scripted annotators run on it, too). CPU is what
the kernel charged to gunicorn's workers and to Postgres, divided by the votes. Each comparison is new, so that no
Markdown comes out of a cache. Everything happens in a temporary folder.
"""

from __future__ import annotations

import argparse
import http.client
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PASSWORD = "only-for-this-run"
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
WARM_UP_VOTES = 5  # of each annotator, not counted
WORDS = (
    *("the", "model", "answers", "tides", "rise", "and", "fall", "because", "moon", "pulls", "water", "towards", "it"),
    *("earth", "turns", "below", "so", "that", "most", "coasts", "see", "two", "high", "waters", "a", "day"),
)


def text(rng: random.Random, words: int) -> str:
    """Markdown as models write it: paragraphs, a list, a line of code, now and then a formula."""
    parts = []
    while words > 0:
        sentence = " ".join(rng.choices(WORDS, k=24)) + f" ({rng.random():.6f})."
        kind = rng.random()
        if kind < 0.2:
            parts.append("\n".join(f"- **{item}** " + sentence[:60] for item in rng.sample(WORDS, 3)))
        elif kind < 0.3:
            parts.append("```python\nfor tide in range(10):\n    print(tide * 6.2)  # hours\n```")
        elif kind < 0.4:
            parts.append(f"{sentence} So $h = {rng.random():.3f} \\cdot t$.")
        else:
            parts.append(sentence)
        words -= 24
    return "\n\n".join(parts)


def fill(annotators: int, comparisons: int) -> None:
    """A project with new comparisons and its members, straight into the tables."""
    from django.contrib.auth.models import User

    from annotation import services
    from annotation.models import Prompt, Response, ResponseSource

    rng = random.Random(0)
    project = services.create_project(slug="bench", name="Benchmark")
    sources = [ResponseSource.objects.create(name=f"source {i}", kind="imported") for i in range(2)]
    prompts = [
        Prompt(
            project=project,
            messages=[{"role": "user", "content": text(rng, 30)}],
            group=str(number),
            content_sha256=f"{number:064d}",
        )
        for number in range(comparisons)
    ]
    Prompt.objects.bulk_create(prompts, batch_size=500)
    responses = [
        [Response(prompt=prompt, source=source, sample_index=0, text=text(rng, 150)) for source in sources]
        for prompt in prompts
    ]
    for response in (response for pair in responses for response in pair):
        response.text_sha256 = services.content_sha256(response.text)
    Response.objects.bulk_create([response for pair in responses for response in pair], batch_size=500)
    services.create_comparisons(project, [(a, b) for a, b in responses])
    for number in range(annotators):
        project.members.add(User.objects.create_user(f"annotator{number}", password=PASSWORD))


class Browser:
    """One annotator: keeps its connection, cookies and the assignments it holds."""

    def __init__(self, port: int, username: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.cookies: dict[str, str] = {}
        self.request("GET", "/login/")
        token = self.cookies["csrftoken"]
        status, _ = self.request(
            "POST", "/login/", {"username": username, "password": PASSWORD, "csrfmiddlewaretoken": token}
        )
        assert status == 302, status
        _, page = self.request("GET", "/projects/bench/compare/")
        self.held = re.findall(r'data-assignment="([^"]+)"', page)
        assert len(self.held) == 2

    def request(self, method: str, path: str, fields: dict[str, str] | None = None) -> tuple[int, str]:
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        body = None
        if fields is not None:
            body = urllib.parse.urlencode(fields)
            headers |= {
                "Content-Type": "application/x-www-form-urlencoded",
                "X-Requested-With": "fetch",
                "X-CSRFToken": self.cookies["csrftoken"],
            }
        self.connection.request(method, path, body, headers)
        response = self.connection.getresponse()
        for cookie in response.headers.get_all("Set-Cookie") or []:
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        return response.status, response.read().decode()

    def vote(self) -> float:
        """Judge the first held assignment and take what comes next; gives the seconds that it took."""
        voted, ahead = self.held
        fields = {"judgment_id": str(uuid.uuid4()), "choice": "-2", "decided_in_ms": "4000", "note": "", "held": ahead}
        began = time.perf_counter()
        status, answer = self.request("POST", f"/assignments/{voted}/judgment", fields)
        took = time.perf_counter() - began
        found = re.search(r'data-assignment="([^"]+)"', answer)
        assert status == 200 and found, (status, answer[:300])
        self.held = [ahead, found[1]]
        return took


def cpu_seconds(pid: int) -> float:
    """CPU of all children of a process, those that have ended included."""
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The second field, a name in brackets, may hold spaces.
            values = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(stat.parent.name) == pid:
            total += int(values[13]) + int(values[14])
        elif int(values[1]) == pid:
            total += int(values[11]) + int(values[12])
    return total / TICKS_PER_SECOND


def measure(port: int, annotators: int, votes: int, pause_seconds: float, web: int, database: int) -> str:
    browsers = [Browser(port, f"annotator{number}") for number in range(annotators)]
    each = max(votes // annotators, 5)
    times: list[float] = []
    failures: list[BaseException] = []
    warm = threading.Barrier(annotators + 1)
    start = threading.Barrier(annotators + 1)

    def work(browser: Browser) -> None:
        try:
            for _ in range(WARM_UP_VOTES):
                browser.vote()
            warm.wait()
            start.wait()
            for _ in range(each):
                times.append(browser.vote())
                time.sleep(pause_seconds)
        except BaseException as failure:
            failures.append(failure)
            warm.abort()
            start.abort()

    threads = [threading.Thread(target=work, args=[browser]) for browser in browsers]
    for thread in threads:
        thread.start()
    try:
        warm.wait()
        web_before, database_before = cpu_seconds(web), cpu_seconds(database)
        began = time.perf_counter()
        start.wait()
    except threading.BrokenBarrierError:
        raise SystemExit(f"an annotator failed: {failures[0]!r}") from failures[0]
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(f"an annotator failed: {failures[0]!r}")
    wall = time.perf_counter() - began
    web_ms = (cpu_seconds(web) - web_before) / len(times) * 1000
    database_ms = (cpu_seconds(database) - database_before) / len(times) * 1000
    p50 = statistics.median(times) * 1000
    p95 = statistics.quantiles(times, n=20)[-1] * 1000
    return (
        f"{annotators:>10} {len(times):>6} {len(times) / wall:>8.0f} {web_ms:>10.2f} {database_ms:>10.2f} "
        f"{p50:>8.1f} {p95:>8.1f}"
    )


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("gunicorn ended at its start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotators", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--votes", type=int, default=600, help="counted votes a line, over all annotators")
    parser.add_argument("--pause-seconds", type=float, default=0.0, help="between two votes of one annotator")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="touchstone-votes-") as folder:
        os.environ.update(TOUCHSTONE_DATA=folder, DJANGO_SETTINGS_MODULE="config.settings", LOG_LEVEL="WARNING")
        os.environ.pop("DATABASE_URL", None)
        sys.path.insert(0, str(ROOT))
        import django

        django.setup()
        from django.conf import settings
        from django.core.management import call_command
        from django.db import connections

        from config.embedded import postgres

        database = postgres.start(settings.DATA_DIR, settings.SOCKET_DIR, settings.LOG_DIR / "postgres.log")
        server = None
        try:
            call_command("migrate", verbosity=0)
            call_command("collectstatic", "--noinput", verbosity=0)
            extra = sum(annotators * (WARM_UP_VOTES + 7) for annotators in options.annotators)
            fill(max(options.annotators), options.votes * len(options.annotators) + extra)
            connections.close_all()
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            server = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gunicorn", "-c", "python:config.embedded.gunicorn_hooks"),
                    *("-b", f"127.0.0.1:{port}", "--log-level", "warning", "config.wsgi"),
                ],
                cwd=ROOT,
            )
            wait_for(port, server)
            print("annotators  votes  votes/s web CPU ms  db CPU ms   p50 ms   p95 ms")
            for annotators in options.annotators:
                line = measure(port, annotators, options.votes, options.pause_seconds, server.pid, database.pid)
                print(line, flush=True)
        finally:
            if server:
                server.terminate()
                server.wait()
            postgres.stop(database)


if __name__ == "__main__":
    main()
