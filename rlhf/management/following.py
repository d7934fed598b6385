"""What commands that ask sources share: following a run, and doing its work where no worker takes it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from django.db import connections
from django.utils import timezone

from rlhf.models import AskingJob, JobStatus
from rlhf.services.jobs import reconcile
from rlhf.supervisor import worker_is_stopping

WORKER_WAIT_SECONDS = 3
"""How long a queued run waits for a worker before a command does its work."""

Run = TypeVar("Run", bound=AskingJob)


def watch(run: Run, work: Callable[[int], object], state: Callable[[Run], str], say: Callable[[str], None]) -> None:
    """Say how far the run is until it ends; do its work here where no worker takes it.

    work: from the run's id. state: one line.
    """
    queued_since = time.monotonic()
    worker: threading.Thread | None = None
    said = ""
    try:
        while not run.is_finished:
            if run.status == JobStatus.QUEUED and time.monotonic() - queued_since > WORKER_WAIT_SECONDS:
                if worker is None or not worker.is_alive():
                    say("no worker has taken it, working here")
                    worker = threading.Thread(target=_work, args=[work, run.pk])
                    worker.start()
                    queued_since = time.monotonic()
            elif worker is None and run.lease_expires_at and run.lease_expires_at < timezone.now():
                reconcile()  # whoever had it is gone
                queued_since = time.monotonic()
            if (line := state(run)) != said:
                say(line)
                said = line
            time.sleep(1)
            run.refresh_from_db()
    except KeyboardInterrupt:
        worker_is_stopping.set()
        say("stopping; run the same command to go on")
    finally:
        if worker is not None:
            worker.join()
            run.refresh_from_db()


def _work(work: Callable[[int], object], run_id: int) -> None:
    try:
        work(run_id)
    finally:
        connections.close_all()


def time_left(seconds: float | None) -> str:
    if seconds is None:
        return "time left not known yet"
    minutes = round(seconds / 60)
    return f"about {minutes // 60} h {minutes % 60:02} min left" if minutes >= 60 else f"about {minutes} min left"
