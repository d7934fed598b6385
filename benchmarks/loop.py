"""The whole loop without a browser: people judge, models learn, the same people judge again. `make loop` runs it.

Everything is real: `manage.py up` in a folder of its own, the starter model, Celery workers, Postgres. Eight scripted
annotators read and vote through the same HTML pages as people. Their taste is stated (`taste`: shorter and polite),
and one vote in ten is the opposite of what they meant. The report compares the new checkpoint with its parent, on all
prompts and on the held-out ones, each with an interval.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
NOISE = 0.1
PEOPLE = 8
"""Of two people nothing can be said about others: the interval of the win rate would reach from 0.4 to 0.9."""
PASSWORD = "only-for-this-run"
PROJECT = "loop"
POLITE = re.compile(
    r"\b(please|thank(s| you)|sorry|glad|happy to|of course|certainly|you're welcome|kind(ly)?|I hope)\b",
    re.IGNORECASE,
)
DPO_OPTIONS = {"epochs": 1, "learning_rate": 5e-4, "beta": 0.1, "batch_size": 8, "micro_batch_size": 4}
REWARD_OPTIONS = {"epochs": 1, "learning_rate": 5e-5, "batch_size": 8, "micro_batch_size": 4}


def taste(text: str) -> float:
    """What the scripted annotators like: one point for a polite word, and a point off for every 20 words."""
    return (1.0 if POLITE.search(text) else 0.0) - len(text.split()) / 20


def choose(left: str, right: str, rng: random.Random) -> int:
    """A strength as shown, −3 (left) … +3 (right), by taste; with probability NOISE its opposite."""
    gap = taste(right) - taste(left)
    size = 0 if abs(gap) < 0.05 else 1 if abs(gap) < 0.5 else 2 if abs(gap) < 1.5 else 3
    strength = size if gap > 0 else -size
    return -strength if rng.random() < NOISE else strength


class ComparePage(HTMLParser):
    """What a person reads on the compare page: the texts of the two panels, and the form that votes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self.panels: list[str] = []
        self._panel_depth = 0
        self._in_form = False
        self._is_done = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag == "template":
            self._is_done = True  # the prefetched comparison, not yet on the screen
        if self._is_done:
            return
        if self._panel_depth:
            self._panel_depth += tag == "div"
        elif tag == "div" and "panel-text" in attributes.get("class", ""):
            self._panel_depth = 1
            self.panels.append("")
        if tag == "form" and "vote" in attributes.get("class", "").split():
            self.action, self._in_form = attributes["action"], True
        if tag == "input" and self._in_form and attributes.get("type") == "hidden":
            self.fields[attributes["name"]] = attributes["value"]

    def handle_endtag(self, tag: str) -> None:
        if tag == "div" and self._panel_depth:
            self._panel_depth -= 1
        if tag == "form":
            self._in_form = False

    def handle_data(self, data: str) -> None:
        if self._panel_depth and not self._is_done:
            self.panels[-1] += data


def judge_everything(address: str, username: str, seed: int) -> int:
    """Sign in, and vote through the page until it has nothing left; gives the number of votes."""
    rng = random.Random(seed)
    votes = 0
    with httpx.Client(base_url=address, timeout=60, follow_redirects=True) as client:
        form = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', client.get("/login/").text)
        assert form, "the sign-in page has no form"
        signed_in = client.post(
            "/login/", data={"username": username, "password": PASSWORD, "csrfmiddlewaretoken": form.group(1)}
        )
        assert signed_in.status_code == 200, signed_in.text
        while True:
            page = ComparePage(client.get(f"/projects/{PROJECT}/compare/").text)
            if not page.action:
                return votes
            left, right = page.panels
            answer = client.post(
                page.action, data={**page.fields, "choice": str(choose(left, right, rng)), "decided_in_ms": "1500"}
            )
            answer.raise_for_status()
            votes += 1


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def manage(*arguments: str) -> dict[str, Any]:
    """A manage.py command with --json; its progress goes to our stderr."""
    done = subprocess.run([sys.executable, "manage.py", *arguments, "--json"], cwd=ROOT, stdout=subprocess.PIPE)
    if done.returncode:
        raise SystemExit(f"manage.py {' '.join(arguments)} ended with exit code {done.returncode}")
    return json.loads(done.stdout)


@contextmanager
def site(data_dir: Path) -> Iterator[str]:
    """`manage.py up` on the data folder; gives its address once it answers, and stops it at the end."""
    port = free_port()
    log_path = data_dir / "up.log"
    with log_path.open("ab") as log:
        up = subprocess.Popen(
            [sys.executable, "manage.py", "up", "--no-demo", "--port", str(port)], cwd=ROOT, stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    try:
        ends = time.monotonic() + 300
        while True:
            try:
                if httpx.get(f"{address}/healthz", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            if up.poll() is not None or time.monotonic() > ends:
                raise SystemExit(f"`manage.py up` did not come up:\n{log_path.read_text()[-3000:]}")
            time.sleep(0.3)
        yield address
    finally:
        up.terminate()
        up.wait(60)


def run(data_dir: Path, *, prompts: int, per_prompt: int, eval_per_prompt: int) -> dict[str, Any]:
    """One turn of the loop in `data_dir`; gives the report as a dict."""
    os.environ["TOUCHSTONE_DATA"] = str(data_dir)
    os.environ["TOUCHSTONE_MODEL_SERVER_PORT"] = str(free_port())
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    started = time.monotonic()
    seconds: dict[str, float] = {}

    def lap(name: str) -> None:
        seconds[name] = round(time.monotonic() - started - sum(seconds.values()), 1)
        say(f"{name}: {seconds[name]} s")

    with site(data_dir) as address:
        import django

        django.setup()
        from django.conf import settings

        names = _seed(prompts)
        lap("start")
        parent = settings.STARTER_MODEL
        manage("generate", "--source", parent, "--project", PROJECT, "--per-prompt", str(per_prompt), *SAMPLING)
        lap("sample the parent")
        with ThreadPoolExecutor(len(names)) as pool:
            first_votes = sum(pool.map(judge_everything, [address] * PEOPLE, names, range(PEOPLE)))
        lap("judge")
        snapshot = manage("snapshot", "--project", PROJECT, "--name", "loop-1", "--eval-share", "0.25")
        reward = _train("reward", "loop-reward", REWARD_OPTIONS)
        lap("train the reward model")
        dpo = _train("dpo", "loop-dpo", DPO_OPTIONS)
        lap("train DPO")
        manage("publish", dpo["checkpoint"])
        manage(
            *("generate", "--source", dpo["checkpoint"], "--project", PROJECT),
            *("--per-prompt", str(eval_per_prompt), *SAMPLING),
        )
        lap("sample the new checkpoint")
        with ThreadPoolExecutor(len(names)) as pool:
            second_votes = sum(pool.map(judge_everything, [address] * PEOPLE, names, range(PEOPLE, 2 * PEOPLE)))
        lap("judge again")
        board = manage("leaderboard", "--project", PROJECT)
        report = _report(parent, dpo["checkpoint"], eval_per_prompt)
    return {
        **report,
        "judgments": first_votes + second_votes,
        "snapshot": snapshot,
        "reward": reward["metrics"],
        "leaderboard": board["rows"],
        "seconds": seconds,
        "total_seconds": round(time.monotonic() - started, 1),
    }


SAMPLING = ("--max-tokens", "80", "--temperature", "0.8")


def _seed(count: int) -> list[str]:
    """A project with our demo prompts and its annotators; gives their names."""
    from django.contrib.auth.models import User

    from annotation import services
    from annotation.demo_prompts import DEMO_PROMPTS

    project = services.create_project(slug=PROJECT, name="Shorter and polite")
    for task, messages in DEMO_PROMPTS[:count]:
        services.add_prompt(project, messages, task=task)
    names = [f"annotator-{number}" for number in range(PEOPLE)]
    project.members.set(User.objects.create_user(name, password=PASSWORD) for name in names)
    return names


def _train(method: str, name: str, options: dict[str, Any]) -> dict[str, Any]:
    given = [f"{key}={value}" for key, value in options.items()]
    return manage(
        *("train", "--method", method, "--snapshot", "loop-1", "--name", name, "--wait", "--set", *given),
    )


def _report(parent: str, new: str, eval_per_prompt: int) -> dict[str, Any]:
    """Win rate of new over parent, and what the two write, on all prompts and on the held-out ones."""
    from annotation.leaderboard import head_to_head
    from annotation.models import Project, Response, ResponseSource
    from rlhf.models import DatasetSnapshot
    from rlhf.snapshots import snapshot_rows

    project = Project.objects.get(slug=PROJECT)
    snapshot = DatasetSnapshot.objects.get(name="loop-1")
    held_out = {row["group"] for row in snapshot_rows(snapshot, "eval")}
    report: dict[str, Any] = {"parent": parent, "new": new, "held_out_prompts": len(held_out)}
    new_source, old_source = (ResponseSource.objects.get(name=name) for name in (new, parent))
    report["win_rate"] = head_to_head(project, new_source, old_source)
    report["win_rate_held_out"] = head_to_head(project, new_source, old_source, groups=held_out)
    for name in (parent, new):
        texts = list(
            Response.objects.filter(
                prompt__project=project, source__name=name, sample_index__lt=eval_per_prompt
            ).values_list("text", flat=True)
        )
        report[name] = {
            "responses": len(texts),
            "words": sum(len(text.split()) for text in texts) / len(texts),
            "taste": sum(map(taste, texts)) / len(texts),
        }
    return report


def print_table(report: dict[str, Any]) -> None:
    reward, win = report["reward"], report["win_rate"]
    parent, new = report[report["parent"]], report[report["new"]]
    print(f"\njudgments               {report['judgments']}")
    print(
        f"reward accuracy         {reward['eval_accuracy']:.1%} of {reward['eval_pairs']:.0f} held-out pairs"
        f" (95 % interval {reward['eval_accuracy_lower']:.1%} – {reward['eval_accuracy_upper']:.1%})"
    )
    print(f"{'':24}{'parent':>10}{'new':>10}")
    print(f"{'mean length, words':24}{parent['words']:10.1f}{new['words']:10.1f}")
    print(f"{'taste score':24}{parent['taste']:10.2f}{new['taste']:10.2f}")
    for where, rate in [("all prompts", win), ("held-out prompts", report["win_rate_held_out"])]:
        print(
            f"new over parent, {where}: {rate['win_rate']:.1%} of {rate['judgments']} judgments"
            f" (95 % interval {rate['lower']:.1%} – {rate['upper']:.1%})"
        )
    print(f"time                    {report['total_seconds'] / 60:.1f} min: ", end="")
    print(", ".join(f"{name} {value:.0f} s" for name, value in report["seconds"].items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--per-prompt", type=int, default=4, help="responses of the parent to each prompt (even)")
    parser.add_argument("--eval-per-prompt", type=int, default=4, help="responses of the new checkpoint, judged again")
    parser.add_argument("--data", type=Path, help="keep the data in this folder (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="write the report here too")
    options = parser.parse_args()
    data_dir = options.data or Path(tempfile.mkdtemp(prefix="touchstone-loop-"))
    data_dir.mkdir(parents=True, exist_ok=True)
    try:
        report = run(
            data_dir, prompts=options.prompts, per_prompt=options.per_prompt, eval_per_prompt=options.eval_per_prompt
        )
    finally:
        if options.data is None:
            shutil.rmtree(data_dir, ignore_errors=True)
    print_table(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    if report["win_rate"]["lower"] <= 0.5:
        raise SystemExit("the interval of the win rate reaches down to 50 %: the loop did not show an improvement")


if __name__ == "__main__":
    main()
