"""The Celery worker that this process is: it announces itself and its hardware, and looks for work by itself, too.

Messages wake it at once. But a broker can be away, and a message can be handed to a machine that sleeps or to a
connection that is dead, so every few seconds a thread looks into the queue itself.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable

from django.conf import settings
from django.db import DatabaseError, close_old_connections, connections

from rlhf.hardware import hardware
from rlhf.models import Worker
from rlhf.models.workers import TRAIN_QUEUE
from rlhf.services import workers
from rlhf.services.jobs import code_version

logger = logging.getLogger(__name__)

# A job that was told to stop may need this long to save.
_STOP_SECONDS = 300

_name = ""
_queues: list[str] = []
_stopping = threading.Event()
_taker: threading.Thread | None = None
places = threading.BoundedSemaphore(1)
"""One for each job that this worker may run at once."""


def start_announcing(name: str, queues: list[str], jobs_at_once: int, take: Callable[[], object]) -> None:
    """Announce this process under Celery's name for it, and call `take` every few seconds if it serves training."""
    global _name, _queues, _taker, places
    _name, _queues, places = name, sorted(queues), threading.BoundedSemaphore(jobs_at_once)
    threading.Thread(target=_announce, name="announcer", daemon=True).start()
    if any(queue.partition(".")[0] == TRAIN_QUEUE for queue in queues):
        # Not a daemon's child: what it starts dies with the thread, which must last as long as the job.
        _taker = threading.Thread(target=_take, args=[take], name="taker", daemon=True)
        _taker.start()


def stop() -> None:
    """Wait for the job that the taker runs to be given back, and say that this worker leaves."""
    if not _name:
        return
    _stopping.set()
    if _taker is not None:
        _taker.join(_STOP_SECONDS)
    try:
        workers.leave_worker(_name)
    except DatabaseError as error:
        logger.warning("database away, the worker leaves without a word: %s", error)


def _take(take: Callable[[], object]) -> None:
    while not _stopping.wait(settings.RECONCILE_SECONDS):
        try:
            take()
        except DatabaseError as error:
            logger.warning("database away, nothing can be taken: %s", error)
        # A job may have run for hours, and its connection may be gone.
        connections.close_all()


def announced() -> Worker | None:
    """This process's row; None where it is no Celery worker, but a command or a test."""
    if not _name:
        return None
    known = Worker.objects.filter(name=_name).first()
    return known or workers.announce_worker(_name, socket.gethostname(), _queues, hardware(), code_version())


def _announce() -> None:
    is_known = False
    while not _stopping.is_set():
        try:
            if is_known:
                is_known = workers.see_worker(_name)
            if not is_known:
                workers.announce_worker(_name, socket.gethostname(), _queues, hardware(), code_version())
                is_known = True
        except DatabaseError as error:
            logger.warning("database away, the worker is not announced: %s", error)
            close_old_connections()
        _stopping.wait(settings.JOB_HEARTBEAT_SECONDS)
    connections.close_all()
