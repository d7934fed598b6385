"""`manage.py up` as people meet it: started, refused, stopped, killed and started again."""

from __future__ import annotations

import functools
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.embedded.process import last_lines
from tests.test_embedded import is_alive, wait_for

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def descendants(pid: int) -> set[int]:
    """Process ids of children, grandchildren and so on."""
    found: set[int] = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except FileNotFoundError:
            continue
        if parent == pid:
            child = int(path.parent.name)
            found |= {child} | descendants(child)
    return found


class Site:
    """One data folder on which `up` can run."""

    def __init__(self, data: Path, *, python: str = sys.executable, user: str | None = None) -> None:
        self.data, self.python, self.user = data, python, user
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.output = data.with_suffix(".out")
        # No database or broker of the surroundings; a model server that nobody calls spares its start.
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("DATABASE_URL", "CELERY_BROKER_URL") and not name.startswith("TOUCHSTONE_")
        } | {"TOUCHSTONE_DATA": str(data), "TOUCHSTONE_MODEL_SERVER_URL": "http://127.0.0.1:9/v1"}

    def command(self) -> list[str]:
        return [self.python, str(ROOT / "manage.py"), "up", "--no-demo", "--port", str(self.port)]

    def start(self) -> None:
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                self.command(), cwd=ROOT, env=self.environment, stdout=output, stderr=output, user=self.user,
                group=None if self.user is None else pwd.getpwnam(self.user).pw_gid,
                extra_groups=None if self.user is None else [],
            )  # fmt: skip
        process = self.process
        assert wait_for(lambda: "is running at" in self.said() or process.poll() is not None, 240), self.said()
        assert process.poll() is None, self.said()

    def said(self) -> str:
        return last_lines(self.output, 100)

    def family(self) -> set[int]:
        assert self.process is not None
        return descendants(self.process.pid)

    def health(self) -> dict[str, str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz") as answer:
            assert answer.status == 200
            return dict(json.load(answer))

    def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "data")
    yield site
    if site.process and site.process.poll() is None:
        site.end(signal.SIGKILL)


def count_of(names: list[str], family: set[int]) -> list[int]:
    lines = []
    for pid in family:
        try:
            lines.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
        except FileNotFoundError:
            continue
    return [sum(name in line for line in lines) for name in names]


def test_up_runs_refuses_a_second_and_leaves_nothing_behind(site: Site) -> None:
    site.start()
    assert site.health() == {"database": "ok", "broker": "ok"}
    family = site.family()
    # two web workers under their master; three workers, and the beat of the first
    assert count_of(["gunicorn", "celery", "valkey-server"], family) == [3, 4, 1]

    password = (site.data / "sign-ins.txt").read_text().split()[1]
    assert password in site.said()

    second = subprocess.run(site.command(), cwd=ROOT, env=site.environment, capture_output=True, text=True)
    assert second.returncode == 1
    assert "runs on" in second.stderr and "stop it first" in second.stderr
    assert "Traceback" not in second.stderr

    assert site.end(signal.SIGINT) == 0, site.said()
    assert not [pid for pid in family if is_alive(pid)]

    # The next one finds the account, so it makes no new password, and dies without a chance to clean up.
    site.start()
    assert password not in site.said()
    assert (site.data / "sign-ins.txt").read_text().split()[1] == password
    family = site.family()
    assert len(family) > 10
    site.end(signal.SIGKILL)
    assert wait_for(lambda: not any(map(is_alive, family)), 15), [pid for pid in family if is_alive(pid)]

    site.start()
    assert site.health() == {"database": "ok", "broker": "ok"}
    assert site.end(signal.SIGTERM) == 0


def test_what_crashes_is_started_again(site: Site) -> None:
    site.start()

    def pids_of(name: str) -> list[int]:
        return [pid for pid in site.family() if count_of([name], {pid}) == [1]]

    def is_restarted(name: str, before: list[int]) -> bool:
        return bool(set(pids_of(name)) - set(before))

    def is_healthy() -> bool:
        try:
            return site.health() == {"database": "ok", "broker": "ok"}
        except OSError:
            return False

    for name in ("valkey-server", "gunicorn", "-Q train", "bin/postgres"):
        before = pids_of(name)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        assert wait_for(functools.partial(is_restarted, name, before)), site.said()
        assert wait_for(is_healthy), site.said()
    assert site.end(signal.SIGINT) == 0


def test_a_taken_port_is_named(site: Site) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", site.port))
        other.listen()
        done = subprocess.run(site.command(), cwd=ROOT, env=site.environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"Port {site.port} cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs the other tests as itself")
def test_up_works_for_an_ordinary_user(tmp_path: Path) -> None:
    # A folder that the user can reach: pytest keeps its own to their owner.
    folder = Path("/tmp") / f"touchstone-user-{os.getpid()}"
    folder.mkdir()
    shutil.chown(folder, "nobody", "nogroup")
    site = Site(folder / "data", python=readable_python(folder), user="nobody")
    site.environment |= {
        "HOME": str(folder),
        "PYTHONPATH": os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")]),
    }
    site.environment |= {"PYTHONDONTWRITEBYTECODE": "1", "LD_LIBRARY_PATH": str(folder / "python" / "lib")}
    try:
        site.start()
        assert site.health() == {"database": "ok", "broker": "ok"}
        owners = {Path(f"/proc/{pid}").stat().st_uid for pid in site.family()}
        assert owners == {pwd.getpwnam("nobody").pw_uid}
        assert site.end(signal.SIGINT) == 0
    finally:
        if site.process and site.process.poll() is None:
            site.end(signal.SIGKILL)
        shutil.rmtree(folder)


def readable_python(folder: Path) -> str:
    """An interpreter that the user nobody may run: this one, or a copy of it where it lies in root's home."""
    try:
        subprocess.run([sys.executable, "-c", ""], user="nobody", check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        base = Path(sys.base_prefix)
        skipped = shutil.ignore_patterns(
            "site-packages", "test", "tests", "__pycache__", "config-*", "idlelib", "ensurepip"
        )
        shutil.copytree(base / "lib" / version, folder / "python" / "lib" / version, ignore=skipped)
        for library in (base / "lib").glob("libpython*.so*"):
            shutil.copy(library, folder / "python" / "lib")
        (folder / "python" / "bin").mkdir()
        return str(shutil.copy(base / "bin" / version, folder / "python" / "bin"))
    return sys.executable
