"""What commands share that queue a job: following it, and doing its work where no worker takes it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from django.db import connections
from django.utils import timezone

from rlhf.models import JobStatus, TrainingJob
from rlhf.models.leased import LeasedJob
from rlhf.services.jobs import reconcile, seconds_left
from rlhf.supervisor import worker_is_stopping

WORKER_WAIT_SECONDS = 3
"""How long a queued job waits for a worker before a command does its work."""

Job = TypeVar("Job", bound=LeasedJob)


def watch(
    job: Job,
    work: Callable[[int], object],
    state: Callable[[Job], str],
    say: Callable[[str], None],
    *,
    after_stop: str = "run the same command to go on",
) -> None:
    """Say how far the job is until it ends, is paused or interrupted; do its work here where no worker takes it.

    work: from the job's id. state: one line.
    """
    queued_since = time.monotonic()
    worker: threading.Thread | None = None
    said = ""
    try:
        while not job.is_finished and job.status != JobStatus.PAUSED:
            if worker is not None and not worker.is_alive():
                worker = None
            has_waited = time.monotonic() - queued_since > WORKER_WAIT_SECONDS
            if worker is None and job.status == JobStatus.QUEUED and has_waited and not job.is_resting:
                say("no worker has taken it, working here")
                worker = threading.Thread(target=_work, args=[work, job.pk])
                worker.start()
                queued_since = time.monotonic()
            elif worker is None and job.lease_expires_at and job.lease_expires_at < timezone.now():
                reconcile()  # whoever had it is gone
                queued_since = time.monotonic()
            if (line := state(job)) != said:
                say(line)
                said = line
            if worker is None:
                time.sleep(1)
            else:
                worker.join(1)
            job.refresh_from_db()
    except KeyboardInterrupt:
        worker_is_stopping.set()
        say(f"stopping; {after_stop}")
    finally:
        if worker is not None:
            worker.join()
        job.refresh_from_db()


def follow(job: TrainingJob, say: Callable[[str], None]) -> None:
    """Say how far a job is until it ends or is paused; whoever runs it runs it elsewhere."""
    said = ""
    while not job.is_finished and job.status != JobStatus.PAUSED:
        if job.lease_expires_at and job.lease_expires_at < timezone.now():
            reconcile()  # whoever had it is gone
        if (line := training_state(job)) != said:
            say(line)
            said = line
        time.sleep(1)
        job.refresh_from_db()


def training_state(job: TrainingJob) -> str:
    line = f"job {job.pk}: {job.status}, step {job.step} of {job.total_steps or '?'}"
    return f"{line}, {time_left(seconds_left(job))}" if job.status == JobStatus.RUNNING else line


def _work(work: Callable[[int], object], job_id: int) -> None:
    try:
        work(job_id)
    finally:
        connections.close_all()


def time_left(seconds: float | None) -> str:
    if seconds is None:
        return "time left not known yet"
    minutes = round(seconds / 60)
    return f"about {minutes // 60} h {minutes % 60:02} min left" if minutes >= 60 else f"about {minutes} min left"
