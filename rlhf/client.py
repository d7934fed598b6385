"""Training and evaluation for `annotation/client.py`: the same site, also what those who run it may do.

    from rlhf.client import TrainingSite

    with TrainingSite("https://touchstone.example.org", token="…") as site:
        job = site.launch(method="dpo", snapshot="helpful-r2", base="champion", options={"epochs": 2}).wait()
        site.move_alias("champion", job.state["checkpoint"], why="more than half of the votes")

Needs httpx and annotation/client.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from annotation.client import Touchstone

ENDED = ("succeeded", "failed", "cancelled")


class TrainingSite(Touchstone):
    """A site, as somebody who runs it sees it."""

    # ── Jobs ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def launch(
        self,
        *,
        method: str,
        base: str,
        snapshot: str = "",
        options: dict[str, Any] | None = None,
        name: str = "",
        **more: Any,
    ) -> Job:
        """Check a launch and start it; `more`: label, gpus, priority, proceed.

        Raises RefusedError where a check blocks; `findings` are in its `body`. Each call starts a job of its own, so a
        lost connection is not tried again: look at `jobs()`.
        """
        config = {"method": method, "base": base, "snapshot": snapshot, "name": name, "options": options or {}}
        return Job(self, self.call("POST", "jobs/", attempts=1, json={**config, **more}).json())

    def jobs(self, **filters: str) -> Iterator[dict[str, Any]]:
        """Newest first; filters: status, method, project, snapshot."""
        return self.pages("jobs/", **filters)

    def job(self, number: int) -> Job:
        return Job(self, self.call("GET", f"jobs/{number}/").json())

    def compare_jobs(self, jobs: Sequence[int], *, against: str = "") -> str:
        """Evaluations, deltas and cost as CSV."""
        asked = {"job": list(jobs), **({"against": against} if against else {})}
        return self.call("GET", "jobs/compare/", params=asked).text

    def snapshots(self, **filters: str) -> Iterator[dict[str, Any]]:
        """Data sets for training; filter: project."""
        return self.pages("snapshots/", **filters)

    def create_snapshot(self, project: str, name: str, **more: Any) -> dict[str, Any]:
        """Freeze what a project judged; `more`: eval_share, humans_only."""
        return self.call("POST", "snapshots/", json={"project": project, "name": name, **more}).json()

    def workers(self, *, is_present: bool = False) -> Iterator[dict[str, Any]]:
        return self.pages("workers/", is_present=str(is_present).lower())

    # ── Checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────

    def checkpoints(self, **filters: str) -> Iterator[dict[str, Any]]:
        """Newest first; filters: name (or an alias), kind, project."""
        return self.pages("checkpoints/", **filters)

    def checkpoint(self, number: int) -> dict[str, Any]:
        """With its lineage, its aliases and what gates say of it."""
        return self.call("GET", f"checkpoints/{number}/").json()

    def checkpoint_report(self, number: int) -> dict[str, Any]:
        return self.call("GET", f"checkpoints/{number}/report/").json()

    def model_card(self, number: int) -> str:
        """Markdown."""
        return self.call("GET", f"checkpoints/{number}/card.md").text

    def download(self, number: int, out: Path) -> int:
        """Write the model to a tar file, piece by piece; gives its size in bytes."""
        with self.stream(f"checkpoints/{number}/model.tar") as answer, out.open("wb") as file:
            for piece in answer.iter_bytes():
                file.write(piece)
        return out.stat().st_size

    def publish(self, number: int) -> dict[str, Any]:
        """Let it write responses that people judge."""
        return self.call("POST", f"checkpoints/{number}/publish/").json()

    def aliases(self) -> list[dict[str, Any]]:
        return self.call("GET", "aliases/").json()

    def move_alias(self, alias: str, checkpoint: str | None, *, why: str, **more: Any) -> dict[str, Any]:
        """Let it stand for a checkpoint, or for nothing; `more`: project, despite_gate."""
        return self.call(
            "POST", "aliases/", json={"alias": alias, "checkpoint": checkpoint, "why": why, **more}
        ).json()

    def roll_back_alias(self, alias: str, **more: Any) -> dict[str, Any]:
        """Undo its newest move; `more`: project. Each call goes one step, so a lost connection is not tried again."""
        return self.call("POST", "aliases/back/", attempts=1, json={"alias": alias, **more}).json()

    # ── Evaluation ───────────────────────────────────────────────────────────────────────────────────────────────

    def benchmark_sets(self, **filters: str) -> Iterator[dict[str, Any]]:
        """Newest first; filter: kind."""
        return self.pages("benchmarks/sets/", **filters)

    def benchmark_runs(self, **filters: Any) -> Iterator[dict[str, Any]]:
        """Newest first; filters: data_set, source, judge, status."""
        return self.pages("benchmarks/runs/", **filters)

    def start_benchmark_run(self, data_set: int, source: str, judge: str | None, **more: Any) -> dict[str, Any]:
        """`judge`: None for answers only; `more`: answers_from, prompt_language, max_tokens, judge_max_tokens,
        judge_attempts, parallel."""
        body = {"data_set": data_set, "source": source, "judge": judge, **more}
        return self.call("POST", "benchmarks/runs/", attempts=1, json=body).json()

    def benchmark_run(self, number: int) -> dict[str, Any]:
        """With its progress."""
        return self.call("GET", f"benchmarks/runs/{number}/").json()

    def benchmark_figures(self, number: int) -> dict[str, Any]:
        """Scores by slice, with counts of what failed."""
        return self.call("GET", f"benchmarks/runs/{number}/figures/").json()

    def start_judge_run(self, project: str, judge: str, **more: Any) -> dict[str, Any]:
        """`more`: kind, scope, language, limit, max_tokens, attempts, parallel."""
        body = {"project": project, "judge": judge, **more}
        return self.call("POST", "judges/runs/", attempts=1, json=body).json()

    def judge_card(self, number: int, *, people: str = "*") -> dict[str, Any]:
        """Of a judge's run: whether it may stand in for people."""
        return self.call("GET", f"judges/runs/{number}/card/", params={"people": people}).json()


class Job:
    """One training job; `state` is how it stood when it was last asked for."""

    def __init__(self, site: TrainingSite, state: dict[str, Any]) -> None:
        self.site, self.state = site, state

    @property
    def id(self) -> int:
        return self.state["id"]

    @property
    def status(self) -> str:
        return self.state["status"]

    def refresh(self) -> Job:
        self.state = self.site.call("GET", f"jobs/{self.id}/").json()
        return self

    def wait(self, *, poll_seconds: float = 5.0, wait_seconds: float = float("inf")) -> Job:
        """Until it ends, is paused, or the time is over."""
        end = time.monotonic() + wait_seconds
        while self.status not in (*ENDED, "paused") and time.monotonic() < end:
            time.sleep(poll_seconds)
            self.refresh()
        return self

    def metrics(self, *, after: int = -1) -> Iterator[dict[str, Any]]:
        """What it logged beyond a step, a row for each."""
        more = True
        while more:
            answer = self.site.call("GET", f"jobs/{self.id}/metrics/", params={"after": after}).json()
            yield from answer["rows"]
            more = answer["more"]
            after = answer["rows"][-1]["step"] if answer["rows"] else after

    def config(self) -> dict[str, Any]:
        """To launch the same again: `site.launch(**config)` without its `format`."""
        return self.site.call("GET", f"jobs/{self.id}/config/").json()

    def log(self) -> str:
        return self.site.call("GET", f"jobs/{self.id}/log/").text

    def stop(self, mode: str) -> Job:
        """mode: keep or discard what was learnt."""
        return self._send("stop/", mode=mode)

    def pause(self) -> Job:
        return self._send("pause/")

    def resume(self) -> Job:
        return self._send("resume/")

    def retry(self) -> Job:
        """After running out of memory: the job with half as many rows at once."""
        return Job(self.site, self.site.call("POST", f"jobs/{self.id}/retry/").json())

    def sweep(self, options: dict[str, Sequence[Any]], *, count: int | None = None) -> dict[str, Any]:
        """What these values would make, or with their count confirmed, the jobs."""
        body = {"options": options} if count is None else {"options": options, "count": count}
        return self.site.call("POST", f"jobs/{self.id}/sweep/", attempts=1, json=body).json()

    def _send(self, path: str, **body: Any) -> Job:
        self.state = self.site.call("POST", f"jobs/{self.id}/{path}", json=body or None).json()
        return self
