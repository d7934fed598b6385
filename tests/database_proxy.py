"""A database that can go away: a Unix socket that passes everything on to the real one, until it is told not to."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
from pathlib import Path

SOCKET_NAME = ".s.PGSQL.5432"


class DatabaseProxy:
    """Its `folder` stands in for the database's host."""

    def __init__(self, real_folder: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ts-proxy-"))  # a socket's path must be short
        self._real = f"{real_folder}/{SOCKET_NAME}"
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._is_away = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / SOCKET_NAME))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def go_away(self) -> None:
        """Cut every connection and accept no other."""
        with self._lock:
            self._is_away = True
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def come_back(self) -> None:
        with self._lock:
            self._is_away = False

    def close(self) -> None:
        self.go_away()
        self._listener.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._is_away:
                    client.close()
                    continue
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._real)
                self._open += [client, server]
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=_pass_on, args=(source, target), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for one in (source, target):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
