"""Everything on one machine: starts the servers and the processes in order, watches them, stops them in reverse.

Every child ends with this process, whatever ends it: PR_SET_PDEATHSIG, which is why they are all started from the
main thread. Grandchildren see to themselves (config/embedded/gunicorn_hooks.py, config/celery.py, rlhf/launcher.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management import call_command
from django.db import connections

from config.embedded import postgres, sign_ins, valkey
from config.embedded.process import EmbeddedServerError, child_setup, last_lines
from config.embedded.starter_model import model_environment, require_training_extra, set_up_starter_model

logger = logging.getLogger(__name__)

Process = subprocess.Popen[bytes]
HOST = "127.0.0.1"
# A training process may need this long to reach the end of a step and save.
STOP_SECONDS = 90
LOG_BYTES_KEPT = 10_000_000


class RefusedError(RuntimeError):
    """`up` cannot start; the sentence says why and what to do."""


class InterruptedStartError(Exception):
    """Somebody asked to stop while things were still starting."""


@dataclasses.dataclass
class Service:
    """One child process, how it is started and stopped, and how we know that it serves."""

    name: str
    start: Callable[[], Process]
    stop: Callable[[Process], None]
    is_ready: Callable[[], bool] = lambda: True
    process: Process | None = None
    started: float = 0.0
    crashes: int = 0
    """In a row; a minute of life forgives them."""
    restart_at: float | None = None


class Runner:
    """What `manage.py up` runs."""

    def __init__(self, *, port: int, is_demo: bool, say: Callable[[str], None]) -> None:
        self.port = port
        self.is_demo = is_demo
        self.say = say
        self.stopping = threading.Event()
        self.services: list[Service] = []

    def run(self) -> None:
        """Start everything, watch it until SIGINT, SIGTERM or SIGHUP, stop everything. Raises RefusedError."""
        settings.DATA_DIR.mkdir(parents=True, exist_ok=True)
        with hold_data_folder(settings.DATA_DIR):
            # Explicitly: a shell's `&` hands on SIGINT as ignored.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, lambda *_: self.stopping.set())
            roll_logs()
            try:
                self.start_all()
                self.watch()
            except InterruptedStartError:
                pass
            finally:
                self.stop_all()

    def start_all(self) -> None:
        refuse_taken_port(self.port, "--port")
        model_port = urlsplit(settings.MODEL_SERVER_URL).port or 80
        if settings.EMBEDDED_MODEL_SERVER:
            require_training_extra()
            refuse_taken_port(model_port, "TOUCHSTONE_MODEL_SERVER_PORT")
        if settings.EMBEDDED_POSTGRES:
            self.say("Starting Postgres")
            self.add("postgres", self.start_postgres, postgres.stop)
        if settings.EMBEDDED_BROKER:
            self.say("Starting Valkey")
            self.add("valkey", self.start_valkey, valkey.stop)
        self.say("Preparing the database and the pages")
        call_command("migrate", verbosity=0)
        call_command("collectstatic", verbosity=0, interactive=False)
        new_sign_ins = self.prepare_content()
        self.say("Starting the web server, the workers and the model server")
        self.add_command("web", web_command(self.port), is_ready=lambda: answers(f"http://{HOST}:{self.port}/healthz"))
        host = socket.gethostname()
        for queue in ("default", "generate", "train"):
            is_ready = functools.partial(worker_answers, f"{queue}@{host}")
            self.add_command(f"worker-{queue}", worker_command(queue), is_ready=is_ready)
        if settings.EMBEDDED_MODEL_SERVER:
            health = f"{settings.MODEL_SERVER_URL}/health"
            self.add_command("model-server", model_server_command(model_port), is_ready=lambda: answers(health))
        for service in self.services:
            self.await_ready(service)
        self.announce(new_sign_ins)

    def prepare_content(self) -> dict[str, str]:
        """The accounts, the starter model and the demo; gives the passwords of the accounts made just now."""
        from rlhf.services import register_base_checkpoint, seed_demo

        usernames = [sign_ins.ADMIN, *(sign_ins.DEMO_ANNOTATORS if self.is_demo else [])]
        made = sign_ins.create_sign_ins(usernames, settings.DATA_DIR / "sign-ins.txt")
        if settings.EMBEDDED_MODEL_SERVER or self.is_demo:
            directory = set_up_starter_model(settings.STARTER_MODEL, self.say)
            register_base_checkpoint(settings.STARTER_MODEL, directory)
        if self.is_demo:
            seed_demo(sign_ins.DEMO_ANNOTATORS)
        # An open connection here would keep Postgres busy and be stale after its restart.
        connections.close_all()
        return made

    def announce(self, new_sign_ins: dict[str, str]) -> None:
        path = settings.DATA_DIR / "sign-ins.txt"
        self.say(f"\nTouchstone is running at http://{HOST}:{self.port}\n")
        for username, password in new_sign_ins.items():
            self.say(f"  {username:6} {password}")
        if new_sign_ins:
            self.say(f"\nThese passwords are shown once and kept in {path}.")
        else:
            self.say(f"The sign-ins are in {path}.")
        self.say(f"Logs are in {settings.LOG_DIR}. Ctrl-C stops everything.")

    def start_postgres(self) -> Process:
        return postgres.start(settings.DATA_DIR, settings.SOCKET_DIR, log_path("postgres"))

    def start_valkey(self) -> Process:
        return valkey.start(settings.DATA_DIR, settings.SOCKET_DIR, log_path("valkey"))

    def add(
        self,
        name: str,
        start: Callable[[], Process],
        stop: Callable[[Process], None],
        is_ready: Callable[[], bool] = lambda: True,
    ) -> None:
        if self.stopping.is_set():
            raise InterruptedStartError
        service = Service(name, start, stop, is_ready)
        self.services.append(service)
        service.process, service.started = service.start(), time.monotonic()

    def add_command(self, name: str, command: list[str], *, is_ready: Callable[[], bool]) -> None:
        environment = model_environment() if name == "model-server" else None

        def start() -> Process:
            with log_path(name).open("ab") as log:
                return subprocess.Popen(
                    command,
                    cwd=settings.BASE_DIR,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=child_setup(),
                )

        self.add(name, start, terminate, is_ready)

    def await_ready(self, service: Service) -> None:
        while not service.is_ready():
            if self.stopping.is_set():
                raise InterruptedStartError
            for started in self.services:
                if started.process is not None and started.process.poll() is not None:
                    path = log_path(started.name)
                    raise RefusedError(
                        f"{started.name} ended at its start. Its log ({path}) says:\n{last_lines(path)}"
                    )
            self.stopping.wait(0.1)

    def watch(self) -> None:
        """Restart what ends, after 1, 2, 4 … 60 seconds."""
        while not self.stopping.wait(0.5):
            now = time.monotonic()
            for service in self.services:
                assert service.process is not None
                if service.restart_at is not None:
                    if now >= service.restart_at:
                        self.restart(service)
                elif service.process.poll() is not None:
                    service.crashes = 0 if now - service.started > 60 else service.crashes + 1
                    pause = min(2**service.crashes, 60)
                    service.restart_at = now + pause
                    self.say(
                        f"{service.name} ended with code {service.process.returncode}; starting it again in {pause} s "
                        f"(its log: {log_path(service.name)})"
                    )

    def restart(self, service: Service) -> None:
        service.restart_at = None
        service.started = time.monotonic()
        try:
            service.process = service.start()
        except EmbeddedServerError as error:
            service.crashes += 1
            service.restart_at = time.monotonic() + min(2**service.crashes, 60)
            self.say(str(error))

    def stop_all(self) -> None:
        """Programs first, all at once; then the broker, then the database. A second Ctrl-C kills instead."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if self.services:
            self.say("Stopping (a training job saves a checkpoint first; Ctrl-C again stops at once)")
        started = [service for service in reversed(self.services) if service.process is not None]
        for service in started:
            if service.stop is terminate and service.process is not None and service.process.poll() is None:
                service.process.terminate()
        for service in started:
            if service.process is not None:
                service.stop(service.process)


@contextlib.contextmanager
def hold_data_folder(data_dir: Path) -> Iterator[None]:
    """Keep a second `up` off the folder. Raises RefusedError."""
    descriptor = os.open(data_dir / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(
                f"Another `up` (process {os.pread(descriptor, 20, 0).decode() or 'unknown'}) runs on {data_dir}: "
                "stop it first, or set TOUCHSTONE_DATA to another folder."
            ) from None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def refuse_taken_port(port: int, setting: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise RefusedError(
                f"Port {port} cannot be used ({error.strerror}): stop the program that has it, "
                f"or choose another with {setting}."
            ) from None


def log_path(name: str) -> Path:
    settings.LOG_DIR.mkdir(parents=True, exist_ok=True)
    path: Path = settings.LOG_DIR / f"{name}.log"
    return path


def roll_logs() -> None:
    """Keep one old log of each service, and begin a new one where it has grown long."""
    for path in settings.LOG_DIR.glob("*.log"):
        if path.stat().st_size > LOG_BYTES_KEPT:
            shutil.move(path, path.with_suffix(".log.1"))


def web_command(port: int) -> list[str]:
    bind = f"{HOST}:{port}"
    return [sys.executable, "-m", "gunicorn", "-c", "python:config.embedded.gunicorn_hooks", "-b", bind, "config.wsgi"]


def worker_command(queue: str) -> list[str]:
    # Threads: a job's supervisor must live in the process that is told to stop, and there is nothing to inherit.
    command = [sys.executable, "-m", "celery", "-A", "config.celery", "worker", "-Q", queue, "-n", f"{queue}@%h"]
    command += ["--pool", "threads", "--concurrency", "2" if queue == "default" else "1"]
    command += ["--without-gossip", "--without-mingle", "--loglevel", "INFO"]
    if queue == "default":
        command += ["--beat", "--schedule", str(settings.DATA_DIR / "beat-schedule")]
    return command


def model_server_command(port: int) -> list[str]:
    roots = [f"--root={folder}" for folder in (settings.MODELS_DIR, settings.JOBS_DIR)]
    return [sys.executable, "-m", "rlhf.training.serve", "--host", HOST, "--port", str(port), *roots]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def worker_answers(name: str) -> bool:
    from config.celery import app

    return bool(app.control.ping(destination=[name], timeout=0.5))


def terminate(process: Process) -> None:
    """SIGTERM, and SIGKILL to the whole group when that was not enough."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
