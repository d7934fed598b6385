"""The servers that come inside wheels: they start, answer, keep their data and end with their parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from config.embedded import postgres, sign_ins, valkey
from config.embedded.process import EmbeddedServerError

ROOT = Path(__file__).resolve().parents[1]


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> bool:
    """Whether the condition came true; the limit is only there so that a failure ends."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def is_alive(pid: int) -> bool:
    """Whether the process runs: a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def waits_for_a_lock(pid: int) -> bool:
    return any("-> FLOCK" in line and f" {pid} " in line for line in Path("/proc/locks").read_text().splitlines())


def ask_valkey(socket_dir: Path, *words: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(socket_dir / "valkey.sock"))
        connection.sendall(" ".join(words).encode() + b"\r\n")
        return connection.recv(4096)


def test_valkey_keeps_its_messages_over_a_kill(tmp_path: Path) -> None:
    log = tmp_path / "valkey.log"
    server = valkey.start(tmp_path, tmp_path, log)
    assert ask_valkey(tmp_path, "SET", "message", "kept") == b"+OK\r\n"
    assert b"noeviction" in ask_valkey(tmp_path, "CONFIG", "GET", "maxmemory-policy")
    # The file is flushed every second.
    assert wait_for(lambda: b"aof_pending_bio_fsync:0" in ask_valkey(tmp_path, "INFO", "persistence"))
    server.kill()
    server.wait()
    assert not valkey.is_answering(tmp_path)
    server = valkey.start(tmp_path, tmp_path, log)
    assert ask_valkey(tmp_path, "GET", "message") == b"$4\r\nkept\r\n"
    valkey.stop(server)
    assert server.returncode == 0


def test_a_server_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    (tmp_path / "valkey").mkdir()
    (tmp_path / "valkey" / "appendonlydir").write_text("in the way")
    with pytest.raises(EmbeddedServerError, match="appendonlydir"):
        valkey.start(tmp_path, tmp_path, tmp_path / "valkey.log")


@pytest.mark.slow
def test_postgres_keeps_its_rows_and_ends_with_a_killed_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(f"""
            from pathlib import Path
            from config.embedded import postgres, valkey
            here = Path({str(tmp_path)!r})
            servers = [module.start(here, here, here / "servers.log") for module in (postgres, valkey)]
            print(*(server.pid for server in servers), flush=True)
            input()
        """)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    with psycopg.connect(host=str(tmp_path), user="app", dbname="touchstone", autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 17 AS number")
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert wait_for(lambda: not any(map(is_alive, pids)))

    with (
        postgres.running(tmp_path, tmp_path) as started_here,
        psycopg.connect(host=str(tmp_path), user="app", dbname="touchstone") as connection,
    ):
        assert started_here
        assert connection.execute("SELECT number FROM kept").fetchone() == (17,)
    assert not postgres.is_answering(tmp_path)


@pytest.mark.slow
def test_the_one_who_started_postgres_waits_for_the_others(tmp_path: Path) -> None:
    """Two commands share a server; the first to end must not take it from the second."""
    command = [sys.executable, "-c", textwrap.dedent(f"""
        from pathlib import Path
        from config.embedded import postgres
        with postgres.running(Path({str(tmp_path)!r}), Path({str(tmp_path)!r})) as started_here:
            print(started_here, flush=True)
            input()
        print("ended", flush=True)
    """)]  # fmt: skip

    def begin() -> subprocess.Popen[str]:
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def read(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def end(process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()

    first = begin()
    assert read(first) == "True"
    second = begin()
    assert read(second) == "False"
    end(first)
    assert wait_for(lambda: waits_for_a_lock(first.pid))
    with psycopg.connect(host=str(tmp_path), user="app", dbname="touchstone") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert first.poll() is None
    end(second)
    assert read(second) == "ended"
    assert read(first) == "ended"
    assert first.wait() == second.wait() == 0
    assert not postgres.is_answering(tmp_path)


@pytest.mark.django_db
def test_passwords_are_made_once_and_kept_for_their_owner(tmp_path: Path) -> None:
    from django.contrib.auth.models import User

    path = tmp_path / "sign-ins.txt"
    made = sign_ins.create_sign_ins(["admin", "ann"], path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == f"admin {made['admin']}\nann {made['ann']}\n"
    admin, ann = User.objects.get(username="admin"), User.objects.get(username="ann")
    assert admin.check_password(made["admin"]) and admin.is_superuser
    assert ann.check_password(made["ann"]) and not ann.is_staff

    assert list(sign_ins.create_sign_ins(["admin", "ann", "ben"], path)) == ["ben"]
    assert len(path.read_text().splitlines()) == 3


@pytest.mark.django_db
def test_an_account_whose_password_cannot_be_kept_is_not_made(tmp_path: Path) -> None:
    from django.contrib.auth.models import User

    with pytest.raises(OSError):
        sign_ins.create_sign_ins(["admin"], tmp_path / "missing" / "sign-ins.txt")
    assert not User.objects.filter(username="admin").exists()


@pytest.mark.slow
def test_a_stopped_broker_is_noticed_before_a_page_gives_up(tmp_path: Path) -> None:
    """Publishing to a broker that is not there raises at once; the page then says that the job waits."""
    environment = os.environ | {"TOUCHSTONE_DATA": str(tmp_path), "DJANGO_SETTINGS_MODULE": "config.settings"}
    environment.pop("CELERY_BROKER_URL", None)
    code = """
        import threading, django
        django.setup()
        from celery import current_app
        from kombu.exceptions import OperationalError
        def publish():
            try:
                current_app.send_task("rlhf.tasks.reconcile")
            except OperationalError as error:
                print("refused", error)
        # as gunicorn does, in a thread that is not the main one
        thread = threading.Thread(target=publish)
        thread.start()
        thread.join(3)
        print("still trying" if thread.is_alive() else "done", flush=True)
    """
    for url in ("", "redis://127.0.0.1:9/0"):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            cwd=ROOT, env=environment | {"CELERY_BROKER_URL": url}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert "refused" in done.stdout, done.stderr
        assert done.stdout.strip().endswith("done")
