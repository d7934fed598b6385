"""Gunicorn's settings: `gunicorn -c python:config.embedded.gunicorn_hooks config.wsgi`."""

from __future__ import annotations

import gc
import os
from typing import Any

from config.embedded.process import die_with_parent

worker_class = "gthread"
workers = 2
threads = 4
timeout = 60
# Browsers send a vote every few seconds: keep their connection.
keepalive = 30
control_socket_disable = True
# The heartbeat file of each worker; on a disk it would stall when the disk does.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None


def post_fork(server: Any, worker: Any) -> None:
    die_with_parent(server.pid)


def post_worker_init(worker: Any) -> None:
    """Load every page before the first request, and spare the garbage collector what stays for good."""
    from django.urls import reverse

    reverse("home")
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
