"""Touchstone as it runs in production, in a temporary folder: Postgres, collected static files and gunicorn."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Served:
    """Something that answers on a port of this machine, with the parents of its web and its database processes."""

    port: int
    web_pid: int
    database_pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def prepared_django(*, database_url: str = "", environment: dict[str, str] | None = None) -> Iterator[int | None]:
    """Django set up in this process over a migrated, empty database; gives the pid of the Postgres started for it.

    Without database_url that is the embedded one. Call once a process, before anything imports the settings.
    """
    with tempfile.TemporaryDirectory(prefix="touchstone-benchmark-") as folder:
        os.environ |= {"TOUCHSTONE_DATA": folder, "DJANGO_SETTINGS_MODULE": "config.settings", "LOG_LEVEL": "ERROR"}
        os.environ |= {"DATABASE_URL": database_url} | (environment or {})
        import django

        django.setup()
        from django.conf import settings
        from django.core.management import call_command
        from django.db import connections

        from config.embedded import postgres

        database = None
        try:
            if settings.EMBEDDED_POSTGRES:
                database = postgres.start(settings.DATA_DIR, settings.SOCKET_DIR, settings.LOG_DIR / "postgres.log")
            call_command("migrate", verbosity=0)
            call_command("collectstatic", "--noinput", verbosity=0)
            yield database.pid if database else None
        finally:
            connections.close_all()
            if database:
                postgres.stop(database)


@contextlib.contextmanager
def gunicorn(
    arguments: list[str],
    *,
    python: str = sys.executable,
    cwd: Path = ROOT,
    environment: dict[str, str] | None = None,
    log: IO[bytes] | None = None,
) -> Iterator[tuple[int, int]]:
    """A gunicorn on a free port, with this project's settings of workers and threads; gives its port and pid."""
    port = free_port()
    server = subprocess.Popen(
        [python, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "--log-level", "error", *arguments],
        cwd=cwd,
        env=environment,
        stdout=log,
        stderr=log,
    )
    try:
        while True:
            if server.poll() is not None:
                raise SystemExit("gunicorn ended at its start")
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            time.sleep(0.05)
        yield port, server.pid
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@contextlib.contextmanager
def touchstone(database_pid: int, *, log: IO[bytes] | None = None) -> Iterator[Served]:
    """This project's web processes over the database of `prepared_django`."""
    from django.db import connections

    connections.close_all()
    with gunicorn(["-c", "python:config.embedded.gunicorn_hooks", "config.wsgi"], log=log) as (port, pid):
        yield Served(port=port, web_pid=pid, database_pid=database_pid)
