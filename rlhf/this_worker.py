"""The Celery worker that this process is: it announces itself and its hardware for as long as it lives."""

from __future__ import annotations

import logging
import socket
import threading

from django.conf import settings
from django.db import DatabaseError, close_old_connections, connections

from rlhf.hardware import hardware
from rlhf.models import Worker
from rlhf.services import workers
from rlhf.services.jobs import code_version

logger = logging.getLogger(__name__)

_name = ""
_queues: list[str] = []
_stopping = threading.Event()


def start_announcing(name: str, queues: list[str]) -> None:
    """Announce this process under Celery's name for it, now and every few seconds, from a thread of its own."""
    global _name, _queues
    _name, _queues = name, sorted(queues)
    threading.Thread(target=_announce, name="announcer", daemon=True).start()


def stop_announcing() -> None:
    if not _name:
        return
    _stopping.set()
    try:
        workers.leave_worker(_name)
    except DatabaseError as error:
        logger.warning("database away, the worker leaves without a word: %s", error)


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
