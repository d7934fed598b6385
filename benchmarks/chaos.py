"""Whether a vote can be lost or counted twice while web processes are killed and connections break off.

    python -m benchmarks.chaos [--minutes 10] [--annotators 64] [--kill-every 5]

Scripted annotators judge over HTTP as the compare page's outbox does: one vote at a time and in order, sent again
under the same id until the server has answered. Meanwhile gunicorn's workers are killed (SIGKILL) one after another.
Annotators also hang up before the answer, send votes twice at the same time, correct, skip, reload, and leave for
longer than a lease lasts and then vote all the same. What Celery does every few seconds is done here in a thread.

When the time is up, what waits is still delivered, and the leases run out. Then the database is looked at: every
acknowledged vote is there exactly once and as it was meant, the last word on each comparison stands, no comparison has
more places taken than it has, its counter agrees with its assignments, nothing is leased any more and what is free is
handed out again, and the journal tells of every vote once. The command fails where any of this does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx

from benchmarks.measure import add_json_option, child_pids, machine, write_json
from benchmarks.people import PROJECT, assignments_in, fill, make_items
from benchmarks.servers import prepared_django, touchstone

PLACES = 3  # of each comparison
HANGS_UP, SENDS_TWICE, CORRECTS, SKIPS, RELOADS, LEAVES = 0.05, 0.03, 0.05, 0.02, 0.03, 0.01
THINK_SECONDS = (0.3, 1.5)
TIMEOUT_SECONDS = 20
LAST_DELIVERY_SECONDS = 120
LONGEST_WAIT_SECONDS = 5.0
CHOICES = ("-3", "-2", "-1", "0", "1", "2", "3", "neither")


@dataclass
class Vote:
    id: UUID
    assignment: str
    choice: str
    username: str


@dataclass
class Log:
    """What annotators saw: acknowledged votes in their order, and how often something happened."""

    acknowledged: list[Vote] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    undelivered: int = 0


class Annotator:
    """One person at the compare page; keeps cookies, the assignments that are held, and those that are done."""

    def __init__(self, url: str, username: str, session: str, lease_seconds: int, log: Log) -> None:
        self.username = username
        self.lease_seconds = lease_seconds
        self.log = log
        self.rng = random.Random(username)
        token = "c" * 32
        self.client = httpx.AsyncClient(
            base_url=url,
            timeout=TIMEOUT_SECONDS,
            cookies={"sessionid": session, "csrftoken": token},
            headers={"X-Requested-With": "fetch", "X-CSRFToken": token},
        )
        self.held: list[str] = []
        self.done: list[str] = []

    async def work(self, end: float) -> None:
        async with self.client:
            while time.monotonic() < end:
                await self.step(end)

    async def step(self, end: float) -> None:
        if not self.held or self.rng.random() < RELOADS:
            await self.reload()
            if not self.held:
                await asyncio.sleep(self.rng.uniform(0.5, 1.5))
            return
        await asyncio.sleep(self.rng.uniform(*THINK_SECONDS))
        if self.rng.random() < LEAVES and time.monotonic() + self.lease_seconds < end:
            self.log.counts["absences"] += 1
            await asyncio.sleep(self.lease_seconds + 5)
        if self.done and self.rng.random() < CORRECTS:
            self.log.counts["corrections"] += 1
            await self.vote(self.rng.choice(self.done[-5:]))
        elif self.rng.random() < SKIPS:
            self.log.counts["skips"] += 1
            await self.deliver(f"/assignments/{self.held.pop(0)}/skip", {"reason": "too_hard"})
        else:
            voted = self.held.pop(0)
            if await self.vote(voted):
                self.done.append(voted)

    async def reload(self) -> None:
        """The page as it comes: what the server says is held, is held."""
        self.log.counts["page loads"] += 1
        try:
            response = await self.client.get(f"/projects/{PROJECT}/compare/", headers={"X-Requested-With": ""})
        except httpx.HTTPError:
            return
        if response.status_code == 200:
            self.held = assignments_in(response.text)

    async def vote(self, assignment: str) -> bool:
        vote = Vote(uuid4(), assignment, self.rng.choice(CHOICES), self.username)
        fields = {"judgment_id": str(vote.id), "choice": vote.choice, "decided_in_ms": "1500", "note": ""}
        is_stored = await self.deliver(f"/assignments/{assignment}/judgment", fields)
        if is_stored:
            self.log.acknowledged.append(vote)
        return is_stored

    async def deliver(self, path: str, fields: dict[str, str]) -> bool:
        """Send until it is answered; gives whether it was accepted."""
        wait, give_up = 0.25, time.monotonic() + LAST_DELIVERY_SECONDS
        while time.monotonic() < give_up:
            response = await self.send(path, fields)
            if response is not None and response.is_success:
                new = assignments_in(response.text)
                self.held += [assignment for assignment in new if assignment not in self.held]
                return True
            is_sentence = response is not None and response.headers["Content-Type"].startswith("text/plain")
            if response is not None and is_sentence and response.status_code < 500:
                self.log.refusals[f"{response.status_code} {response.text}"] += 1
                return False
            wait = min(LONGEST_WAIT_SECONDS, wait * 2)
            self.log.counts["repeats"] += 1
            await asyncio.sleep(wait * self.rng.uniform(0.75, 1.25))
        self.log.undelivered += 1
        return False

    async def send(self, path: str, fields: dict[str, str]) -> httpx.Response | None:
        """One try. None: there was no answer, or nobody waited for it."""
        data = {**fields, "held": self.held}
        kind = self.rng.random()
        try:
            if kind < HANGS_UP:
                self.log.counts["hung up"] += 1
                async with asyncio.timeout(self.rng.uniform(0, 0.1)):
                    await self.client.post(path, data=data)
                return None
            if kind < HANGS_UP + SENDS_TWICE:
                self.log.counts["sent twice at once"] += 1
                tries = [self.client.post(path, data=data) for _ in range(2)]
                for answer in await asyncio.gather(*tries, return_exceptions=True):
                    if isinstance(answer, httpx.Response):
                        return answer
                return None
            response = await self.client.post(path, data=data)
        except TimeoutError:
            return None
        except httpx.HTTPError as error:
            self.log.counts[f"failed: {type(error).__name__}"] += 1
            return None
        if response.status_code >= 500:
            self.log.counts[f"failed: {response.status_code}"] += 1
        return response


async def kill_workers(web_pid: int, every_seconds: float, end: float, log: Log) -> None:
    """SIGKILL for one of this gunicorn's own workers, now and then."""
    rng = random.Random(1)
    while time.monotonic() < end:
        await asyncio.sleep(rng.uniform(0.5, 1.5) * every_seconds)
        workers = child_pids(web_pid)
        if workers:
            os.kill(rng.choice(workers), signal.SIGKILL)
            log.counts["workers killed"] += 1


async def run(url: str, web_pid: int, sessions: dict[str, str], options: argparse.Namespace) -> Log:
    log = Log()
    end = time.monotonic() + options.minutes * 60
    people = [Annotator(url, username, session, options.lease_seconds, log) for username, session in sessions.items()]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(kill_workers(web_pid, options.kill_every, end, log))
        for person in people:
            tasks.create_task(person.work(end))
    return log


class Beat(threading.Thread):
    """What Celery's clock starts: leases run out, and the lists of the browse pages follow."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.stopped = threading.Event()
        self.expired = 0

    def run(self) -> None:
        from django.db import connection

        from annotation import services

        while not self.stopped.wait(2):
            self.expired += services.expire_assignments()
            services.refresh_browse_index(seconds=1)
        connection.close()


def sign_in(annotators: int) -> dict[str, str]:
    """A session of everybody, by name."""
    from django.contrib.auth.models import User
    from django.test import Client

    sessions = {}
    for number in range(annotators):
        client = Client()
        client.force_login(User.objects.get(username=f"annotator{number}"))
        sessions[f"annotator{number}"] = client.cookies["sessionid"].value
    return sessions


# ── What must hold ───────────────────────────────────────────────────────────────────────────────────────────────


def check_votes(log: Log) -> dict[str, int]:
    from annotation.models import Judgment

    stored: dict[UUID, list[Judgment]] = {}
    for judgment in Judgment.objects.select_related("assignment", "annotator"):
        stored.setdefault(judgment.public_id, []).append(judgment)
    last = {vote.assignment: vote for vote in log.acknowledged}
    wrong: Counter[str] = Counter({"missing": 0, "stored twice": 0, "not as meant": 0, "last word does not stand": 0})
    for vote in log.acknowledged:
        found = stored.get(vote.id, [])
        wrong["missing"] += not found
        wrong["stored twice"] += len(found) > 1
        for judgment in found:
            assert judgment.assignment is not None
            meant = None if vote.choice == "neither" else int(vote.choice)
            if meant is not None and not judgment.assignment.a_shown_on_left:
                meant = -meant
            wrong["not as meant"] += not (
                str(judgment.assignment.public_id) == vote.assignment
                and judgment.annotator.name == vote.username
                and judgment.strength == meant
                and (judgment.preference == "neither") == (vote.choice == "neither")
            )
            wrong["last word does not stand"] += last[vote.assignment] is vote and judgment.superseded_at is not None
    return dict(wrong)


_COUNTS = {
    "comparisons with more places taken than they have": """
        SELECT count(*) FROM annotation_comparison c WHERE c.required_count < (
            SELECT count(*) FROM annotation_judgment j JOIN annotation_assignment a ON a.id = j.assignment_id
            WHERE j.comparison_id = c.id AND j.superseded_at IS NULL AND a.holds_place)""",
    "comparisons whose counter disagrees": """
        SELECT count(*) FROM annotation_comparison c WHERE c.assigned_count <> (
            SELECT count(*) FROM annotation_assignment a WHERE a.comparison_id = c.id AND a.holds_place)""",
    "verdicts of one person on one comparison beyond one": """
        SELECT coalesce(sum(votes - 1), 0) FROM (
            SELECT count(*) AS votes FROM annotation_judgment WHERE superseded_at IS NULL
            GROUP BY comparison_id, annotator_id, round) given""",
    "leases that did not run out": "SELECT count(*) FROM annotation_assignment WHERE status = 'leased'",
    "submitted assignments without a verdict": """
        SELECT count(*) FROM annotation_assignment a WHERE a.status = 'submitted' AND NOT EXISTS (
            SELECT 1 FROM annotation_judgment j WHERE j.assignment_id = a.id AND j.superseded_at IS NULL)""",
    "votes that the journal does not tell of once": """
        SELECT abs((SELECT count(*) FROM annotation_judgment)
                   - (SELECT count(*) FROM annotation_event WHERE kind IN ('vote', 'change')))""",
}


def check_database() -> dict[str, int]:
    from django.db import connection

    found = {}
    with connection.cursor() as cursor:
        for name, statement in _COUNTS.items():
            cursor.execute(statement)
            found[name] = int(cursor.fetchone()[0])
    return found


def check_free_places() -> dict[str, int]:
    """A newcomer gets what is free: as many as there are places for, up to what they may hold."""
    from django.contrib.auth.models import User

    from annotation import services
    from annotation.models import Project

    project = Project.objects.get(slug=PROJECT)
    user = User.objects.create_user("newcomer")
    services.add_member(project, user)
    there_are = min(free_comparisons(), services.LEASE_SLOTS)
    got = len(services.claim_assignments(annotator=services.annotator_for(user), project=project))
    return {"free comparisons that a newcomer does not get": there_are - got}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    environment = {"TOUCHSTONE_ASSIGNMENT_LEASE_SECONDS": str(options.lease_seconds)}
    with prepared_django(environment=environment) as database_pid:
        assert database_pid is not None
        from django.conf import settings

        from annotation.models import Judgment

        fill(make_items(options.comparisons), options.annotators, judgments_per_comparison=PLACES)
        sessions = sign_in(options.annotators)
        beat = Beat()
        with (
            (Path(settings.DATA_DIR) / "gunicorn.log").open("wb") as gunicorn_log,
            touchstone(database_pid, log=gunicorn_log) as site,
        ):
            beat.start()
            log = asyncio.run(run(site.url, site.web_pid, sessions, options))
        # Nobody renews a lease any more.
        wait_until(lambda: not leased(), options.lease_seconds + 30)
        beat.stopped.set()
        beat.join()
        violations = check_votes(log) | check_database() | check_free_places()
        violations["not delivered in two minutes"] = log.undelivered
        judgments = Judgment.objects.all()
        return {
            "acknowledged votes": len(log.acknowledged),
            "stored votes": judgments.count(),
            "late votes": judgments.filter(is_late=True).count(),
            "leases that ran out": beat.expired,
            "free comparisons at the end": free_comparisons(),
            "happened": dict(sorted(log.counts.items())),
            "refused": dict(log.refusals),
            "violations": violations,
        }


def leased() -> int:
    from annotation.models import Assignment

    return Assignment.objects.filter(status="leased").count()


def free_comparisons() -> int:
    from django.db.models import F

    from annotation.models import Comparison

    return Comparison.objects.filter(assigned_count__lt=F("required_count")).count()


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--annotators", type=int, default=64)
    parser.add_argument("--comparisons", type=int, default=10_000, help=f"each with {PLACES} places")
    parser.add_argument("--kill-every", type=float, default=5.0, help="seconds between two kills, on average")
    parser.add_argument("--lease-seconds", type=int, default=20)
    add_json_option(parser)
    options = parser.parse_args()
    report = measure(options) | {"machine": machine()}
    for name, value in report.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, count in value.items():
                print(f"    {key}: {count}")
        else:
            print(f"{name}: {value}")
    write_json(options.json, report)
    if any(report["violations"].values()):
        raise SystemExit("something that must hold does not")


if __name__ == "__main__":
    main()
