"""While a job trains: each complete checkpoint goes to the shared storage, so that any machine can go on from it."""

from __future__ import annotations

import logging
import threading
import time

from django.db import DatabaseError, close_old_connections, connections

from rlhf import artifacts
from rlhf.jobspec import CHECKPOINTS_DIR, LOG_FILE, MODEL_DIR, complete_checkpoints
from rlhf.models import TrainingJob
from rlhf.services import jobs

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
# How long what a finished process has left is kept trying, before the attempt counts as failed.
_PATIENCE_SECONDS = 600
_RETRY_SECONDS = 5


class KeptCheckpoints:
    """Stores in a thread of its own; without a shared storage it does nothing."""

    def __init__(self, job: TrainingJob) -> None:
        self.job = job
        self._stored: set[str] = set()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"keep-{job.pk}", daemon=True)

    def __enter__(self) -> KeptCheckpoints:
        if artifacts.is_shared():
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(_LOOK_SECONDS):
            try:
                self._store_checkpoints()
            except (OSError, DatabaseError) as error:
                logger.warning("checkpoint not stored, will try again: job=%s error=%s", self.job.pk, error)
                close_old_connections()
        connections.close_all()

    def _store_checkpoints(self) -> None:
        for name in complete_checkpoints(self.job.directory):
            if name in self._stored:
                continue
            try:
                sha256 = artifacts.store_directory(self.job.directory / CHECKPOINTS_DIR / name)
            except FileNotFoundError:  # its process made room for newer ones meanwhile
                continue
            if jobs.record_stored_checkpoint(self.job, int(name.removeprefix("step-")), sha256):
                self._stored.add(name)

    def store_all(self) -> None:
        """Store what the process has left when it ended: checkpoints, model and log. Raises StorageError."""
        if not artifacts.is_shared():
            return
        self._done.set()
        self._thread.join()
        ends = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                self._store_checkpoints()
                if (self.job.directory / MODEL_DIR).is_dir():
                    artifacts.store_directory(self.job.directory / MODEL_DIR)
                artifacts.store_log(self.job.pk, self.job.directory / LOG_FILE)
            except artifacts.StorageError as error:
                if time.monotonic() > ends:
                    raise
                logger.warning("storage away, will try again: job=%s error=%s", self.job.pk, error)
                time.sleep(_RETRY_SECONDS)
            else:
                return
