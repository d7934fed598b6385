"""Real Celery workers on a real broker and the test's own database, to be killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from django.conf import settings
from django.db import connection

from config.embedded import valkey

ROOT = Path(__file__).resolve().parents[1]
Process = subprocess.Popen[bytes]


class Broker:
    """The broker that settings.CELERY_BROKER_URL names; this process publishes to it. It can hang, die and return."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.start()

    def start(self) -> None:
        self.process = valkey.start(self.folder, settings.SOCKET_DIR, self.folder / "valkey.log")

    def hang(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def running_broker(folder: Path) -> Iterator[Broker]:
    broker = Broker(folder)
    try:
        yield broker
    finally:
        broker.wake()
        valkey.stop(broker.process)


class Workers:
    """Starts workers, one job at a time each, and kills what is left at the end.

    Leases last three seconds and are renewed every one: what takes minutes in earnest takes seconds here, by the same
    code.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.processes: list[Process] = []

    def start(self, *, queues: str = "train", data_dir: Path | None = None, **environment: str) -> Process:
        """A worker on this test's database, with a data folder of its own where one is given."""
        database = settings.DATABASES["default"]
        host = environment.pop("database_host", database["HOST"])
        folder = data_dir or self.data_dir
        number = len(self.processes)
        with (self.data_dir / f"worker-{number}.log").open("ab") as log:
            worker = subprocess.Popen(
                [
                    *(sys.executable, "-m", "celery", "-A", "config.celery", "worker", "-Q", queues),
                    *("--pool", "threads", "-c", "1", "-n", f"worker{number}@test"),
                    *("--without-gossip", "--without-mingle", "--loglevel", "INFO"),
                ],
                cwd=ROOT,
                env={
                    **os.environ,
                    "DATABASE_URL": f"postgres://{database['USER']}@/{connection.settings_dict['NAME']}?host={host}",
                    "CELERY_BROKER_URL": settings.CELERY_BROKER_URL,
                    "TOUCHSTONE_DATA": str(folder),
                    "TOUCHSTONE_JOB_LEASE_SECONDS": "3",
                    "TOUCHSTONE_JOB_HEARTBEAT_SECONDS": "1",
                    "TOUCHSTONE_RECONCILE_SECONDS": "2",
                    **environment,
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(worker)
        return worker

    def log(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.data_dir.glob("worker-*.log")))

    def kill_all(self) -> None:
        for worker in self.processes:
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
                worker.kill()
            worker.wait()


def trainers_of(worker: Process) -> list[psutil.Process]:
    """The training processes that a worker has started."""
    children = psutil.Process(worker.pid).children(recursive=True)
    return [child for child in children if "rlhf.training" in " ".join(child.cmdline())]


def trainers_in(directory: Path) -> list[psutil.Process]:
    """Every living process, whoever started it, that trains in a job directory."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if str(directory) in (process.info["cmdline"] or []) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found
