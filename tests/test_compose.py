"""docker-compose.yml: that it is valid, and that its own commands work on Debian's PostgreSQL and Redis."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from compose_spec import PyCompose

from config.embedded.process import child_setup
from tests.test_embedded import wait_for
from tests.test_up import free_port

ROOT = Path(__file__).resolve().parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


def test_the_compose_file_follows_the_specification() -> None:
    PyCompose.from_json(json.dumps(COMPOSE)).validate()
    broken = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    broken["services"]["web"]["comand"] = "gunicorn"
    with pytest.raises(ValueError, match="comand"):
        PyCompose.from_json(json.dumps(broken))


def test_every_service_that_others_wait_for_has_a_health_check() -> None:
    unchecked = {name for name, service in SERVICES.items() if "healthcheck" not in service}
    assert unchecked == {"migrate", "setup-model", "trainer"}


def test_the_images_are_the_stages_of_the_dockerfile() -> None:
    stages = {line.split()[-1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("FROM")}
    assert {service["build"]["target"] for service in SERVICES.values() if "build" in service} < stages


def test_the_settings_that_compose_sets_exist() -> None:
    example = (ROOT / ".env.example").read_text()
    for name in SERVICES["web"]["environment"]:
        assert f"# {name}=" in example


def programs() -> dict[str, str]:
    """Debian's server programs, or a skip."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    redis = shutil.which("redis-server")
    if not folders or not redis:
        message = "Debian's packages postgresql and redis-server are not installed"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return {"initdb": str(folders[-1] / "initdb"), "postgres": str(folders[-1] / "postgres"), "redis": redis}


class Deployment:
    """The compose file's services as plain processes, with their names of hosts and folders translated."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.data.mkdir()
        self.ports = {"postgres": free_port(), "redis": free_port(), "web": free_port()}
        (folder / "database_url").write_text(
            f"postgres://touchstone:secret@127.0.0.1:{self.ports['postgres']}/touchstone"
        )
        environment = {name: value for name, value in SERVICES["web"]["environment"].items() if "$" not in value}
        environment |= {
            "TOUCHSTONE_DATA": str(self.data),
            "DATABASE_URL_FILE": str(folder / "database_url"),
            "CELERY_BROKER_URL": environment["CELERY_BROKER_URL"].replace(
                "redis:6379", f"127.0.0.1:{self.ports['redis']}"
            ),
            "DJANGO_SECRET_KEY": "x" * 50,
            "TOUCHSTONE_RECONCILE_SECONDS": "1",
            "TOUCHSTONE_MODEL_SERVER_URL": "http://127.0.0.1:9/v1",
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TOUCHSTONE_")}
        inherited.pop("DATABASE_URL", None)
        self.environment = inherited | environment
        self.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        with self.log(name).open("wb") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True, **options
            )
        self.processes.append(process)
        return process

    def start_service(self, name: str) -> subprocess.Popen[bytes]:
        """The service's own command, with /data and the published port in their places here."""
        words = [word.replace("/data", str(self.data)) for word in SERVICES[name]["command"]]
        return self.start(name, [word.replace("0.0.0.0:8000", f"127.0.0.1:{self.ports['web']}") for word in words])

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def said(self, name: str) -> str:
        return self.log(name).read_text(errors="replace")

    def start_servers(self) -> None:
        found = programs()
        cluster, port = self.folder / "postgres", str(self.ports["postgres"])
        ordinary = child_setup(drop_root=True, signal_number=signal.SIGINT)
        subprocess.run(
            [found["initdb"], "-D", cluster, "-U", "postgres", "--auth-host=scram-sha-256", "--auth-local=trust"],
            check=True, capture_output=True, preexec_fn=child_setup(drop_root=True),
        )  # fmt: skip
        self.start("postgres", [found["postgres"], "-D", str(cluster), "-p", port, "-k", str(self.folder)],
                   preexec_fn=ordinary)  # fmt: skip
        admin = {"host": str(self.folder), "port": port, "user": "postgres", "dbname": "postgres"}

        def is_up() -> bool:
            try:
                psycopg.connect(**admin).close()  # type: ignore[arg-type]
            except psycopg.OperationalError:
                return False
            return True

        assert wait_for(is_up), self.said("postgres")
        with psycopg.connect(**admin, autocommit=True) as connection:  # type: ignore[arg-type]
            connection.execute("CREATE ROLE touchstone LOGIN PASSWORD 'secret'")
            connection.execute("CREATE DATABASE touchstone OWNER touchstone")
        redis = [found["redis"], *SERVICES["redis"]["command"][1:], "--port", str(self.ports["redis"])]
        self.start("redis", [*redis, "--dir", str(self.folder), "--bind", "127.0.0.1"])

    def is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['web']}/healthz") as answer:
                return bool(answer.read() == b'{"database": "ok", "broker": "ok"}')
        except OSError:
            return False


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path)
    yield deployment
    for process in reversed(deployment.processes):
        if process.poll() is None:
            # SIGTERM would have Postgres wait for its clients, SIGINT ends them; the others take it as SIGTERM.
            process.send_signal(signal.SIGINT)
            process.wait(60)


@pytest.mark.slow
def test_the_commands_work_on_debians_servers(deployment: Deployment) -> None:
    deployment.start_servers()
    assert deployment.start_service("migrate").wait() == 0, deployment.said("migrate")
    assert (deployment.data / "static" / "staticfiles.json").is_file()

    deployment.start_service("web")
    assert wait_for(deployment.is_healthy), deployment.said("web")

    deployment.start_service("worker")
    assert wait_for(lambda: "Task rlhf.tasks.reconcile" in deployment.said("worker")), deployment.said("worker")
    assert wait_for(lambda: "reconcile" in deployment.said("worker") and "succeeded" in deployment.said("worker"))

    deployment.start_service("trainer")
    publish = "import django; django.setup(); from rlhf.tasks import run_training_job as job; "
    publish += "job.apply_async([0], queue='train')"
    environment = deployment.environment | {"DJANGO_SETTINGS_MODULE": "config.settings"}
    subprocess.run([sys.executable, "-c", publish], cwd=ROOT, env=environment, check=True)
    assert wait_for(lambda: "Task rlhf.tasks.run_training_job" in deployment.said("trainer")), deployment.said(
        "trainer"
    )
    assert wait_for(lambda: "succeeded" in deployment.said("trainer")), deployment.said("trainer")
    for name in ("web", "worker", "trainer"):
        assert "Traceback" not in deployment.said(name), deployment.said(name)
