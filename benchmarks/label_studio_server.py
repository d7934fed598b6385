"""Label Studio of a stated version on a PostgreSQL of Debian, with a project of pairwise items, for comparison.

It is installed into a virtual environment of its own, never into this project's. It is served as its own files advise
(WSGI, Postgres, no debugging), by the same gunicorn with the same workers and threads as this project; what would call
the internet is off. Its static files come from Django, as its nginx would send them: as they are.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg

from benchmarks.people import PASSWORD, Client, Item
from benchmarks.servers import ROOT, Served, free_port, gunicorn
from config.embedded.process import child_setup

VERSION = "1.23.0"
LABEL_CONFIG = """<View>
  <Text name="prompt" value="$prompt"/>
  <Pairwise name="choice" toName="a,b"/>
  <Text name="a" value="$a"/>
  <Text name="b" value="$b"/>
</View>"""
# Run by Label Studio's Python: the accounts and the project as its sign-up and project pages make them.
FILL = """
import json, sys, django
django.setup()
from organizations.models import Organization
from projects.models import Project
from users.models import User
options = json.load(sys.stdin)
people = [User.objects.create_user(f"annotator{n}@example.org", options["password"]) for n in range(options["people"])]
organization = Organization.create_organization(created_by=people[0], title="Benchmark")
for person in people:
    organization.add_user(person)
    person.active_organization = organization
    person.save(update_fields=["active_organization"])
project = Project.objects.create(
    title="Benchmark", created_by=people[0], organization=organization, label_config=options["label_config"]
)
print(project.pk)
"""


# Label Studio opens a connection to the database for every request and has no setting for it. These settings, its own
# but for that, keep connections as this project does. What comes first is read while its settings are still loading.
KEPT_CONNECTIONS = """
from core.settings.base import *
SENTRY_DSN = FRONTEND_SENTRY_DSN = ""
from core.settings.label_studio import *
DATABASES["default"]["CONN_MAX_AGE"] = 60
"""


def default_folder() -> Path:
    return Path(os.environ.get("TOUCHSTONE_DATA") or ROOT / "var") / f"label-studio-{VERSION}"


def install(folder: Path) -> Path:
    """The Python of an environment that holds Label Studio, made on first use; gives its path."""
    python = folder / "venv" / "bin" / "python"
    if not (folder / "installed").exists():
        print(f"installing Label Studio {VERSION} into {folder} …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder / "venv"], check=True)
        wanted = [f"label-studio=={VERSION}", "gunicorn>=27"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
        (folder / "installed").touch()
    return python


@contextlib.contextmanager
def debian_postgres(folder: Path) -> Iterator[tuple[int, int]]:
    """Debian's PostgreSQL with its default settings over a new cluster in the folder; gives its port and pid.

    Both sides of a comparison use it, since Label Studio needs extensions that the embedded one has not.
    """
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not programs:
        raise SystemExit("Debian's PostgreSQL is needed for this: apt-get install postgresql")
    cluster, port = folder / "postgres", free_port()
    log = (folder / "postgres.log").open("wb")
    subprocess.run(
        [programs[-1] / "initdb", "-D", cluster, "-U", "postgres", "--auth=trust", "--encoding=UTF8"],
        check=True,
        stdout=log,
        stderr=log,
        preexec_fn=child_setup(drop_root=True),
    )
    server = subprocess.Popen(
        [programs[-1] / "postgres", "-D", cluster, "-p", str(port), "-k", str(folder), "-c", "max_connections=200"],
        stdout=log,
        stderr=log,
        start_new_session=True,
        preexec_fn=child_setup(drop_root=True, signal_number=signal.SIGINT),
    )
    try:
        while True:
            try:
                with psycopg.connect(database_url(port, "postgres"), autocommit=True) as connection:
                    connection.execute("CREATE DATABASE label_studio")
                    connection.execute("CREATE DATABASE touchstone")
                break
            except psycopg.OperationalError:
                if server.poll() is not None:
                    raise SystemExit(f"PostgreSQL ended at its start; see {log.name}") from None
                time.sleep(0.1)
        yield port, server.pid
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


def database_url(port: int, name: str) -> str:
    return f"postgres://postgres@127.0.0.1:{port}/{name}"


@dataclass(frozen=True)
class LabelStudio(Served):
    project_id: int = 0


@contextlib.contextmanager
def label_studio(
    python: Path,
    folder: Path,
    *,
    postgres: tuple[int, int],
    items: Sequence[Item],
    people: int,
    keep_connections: bool = False,
) -> Iterator[LabelStudio]:
    """A project with the items as tasks, and its people, served. keep_connections: kinder than it is (see above)."""
    package = next((python.parents[1] / "lib").glob("python3*/site-packages/label_studio"))
    port, database_pid = postgres
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "DEBUG")},
        "DJANGO_SETTINGS_MODULE": "core.settings.label_studio",
        "BASE_DATA_DIR": str(folder / "label-studio-data"),
        "DJANGO_DB": "default",
        "POSTGRE_NAME": "label_studio",
        "POSTGRE_USER": "postgres",
        "POSTGRE_PASSWORD": "",
        "POSTGRE_HOST": "127.0.0.1",
        "POSTGRE_PORT": str(port),
        "DEBUG": "false",
        "LOG_LEVEL": "ERROR",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
    }
    if keep_connections:
        (folder / "kept_connections.py").write_text(KEPT_CONNECTIONS)
        environment |= {"DJANGO_SETTINGS_MODULE": "kept_connections", "PYTHONPATH": str(folder)}
    with (folder / "label-studio.log").open("wb") as log:
        manage = [str(python), str(package / "manage.py")]
        subprocess.run(
            [*manage, "migrate", "--verbosity=0"], check=True, cwd=package, env=environment, stdout=log, stderr=log
        )
        options = {"people": people, "password": PASSWORD, "label_config": LABEL_CONFIG}
        made = subprocess.run(
            [str(python), "-c", FILL],
            input=json.dumps(options).encode(),
            check=True,
            cwd=package,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        project_id = int(made.stdout.split()[-1])
        arguments = ["-c", _gunicorn_settings(folder), "core.wsgi"]
        served = gunicorn(arguments, python=str(python), cwd=package, environment=environment, log=log)
        with served as (web_port, web_pid):
            _import(web_port, project_id, items)
            yield LabelStudio(port=web_port, web_pid=web_pid, database_pid=database_pid, project_id=project_id)


def _gunicorn_settings(folder: Path) -> str:
    """This project's settings of workers and threads without its imports, which that environment has not."""
    from config.embedded import gunicorn_hooks as ours

    names = ("worker_class", "workers", "threads", "timeout", "keepalive", "control_socket_disable", "worker_tmp_dir")
    path = folder / "gunicorn_settings.py"
    path.write_text("".join(f"{name} = {getattr(ours, name)!r}\n" for name in names))
    return str(path)


def _import(port: int, project_id: int, items: Sequence[Item]) -> None:
    person = LabelStudioAnnotator(port, "annotator0", project_id, claim=False)
    for first in range(0, len(items), 500):
        status, answer = person.post(f"/api/projects/{project_id}/import", [asdict(i) for i in items[first:][:500]])
        assert status == 201, (status, answer[:300])


class LabelStudioAnnotator:
    """Does what the page's script does: asks for the next task, and posts an annotation of it."""

    def __init__(self, port: int, username: str, project_id: int, *, claim: bool = True) -> None:
        self.project_id = project_id
        self.client = Client(port)
        self.client.request("GET", "/user/login/")
        token = self.client.cookies["csrftoken"]
        fields = {"email": f"{username}@example.org", "password": PASSWORD, "csrfmiddlewaretoken": token}
        status, answer = self.client.post_form("/user/login/", {**fields, "persist_session": "on"})
        assert status == 302, (status, answer[:300])
        self.task = self._next() if claim else 0

    def post(self, path: str, data: object) -> tuple[int, str]:
        return self.client.request("POST", path, json.dumps(data), {"Content-Type": "application/json"})

    def _next(self) -> int:
        status, answer = self.client.request("GET", f"/api/projects/{self.project_id}/next")
        assert status == 200, (status, answer[:300])
        return int(json.loads(answer)["id"])

    def judge(self) -> float:
        region = {"id": uuid.uuid4().hex[:10], "from_name": "choice", "to_name": "a,b", "type": "pairwise"}
        annotation = {
            "result": [region | {"value": {"selected": "left"}}],
            "lead_time": 4.0,
            "project": self.project_id,
        }
        began = time.perf_counter()
        status, answer = self.post(f"/api/tasks/{self.task}/annotations?project={self.project_id}", annotation)
        assert status == 201, (status, answer[:300])
        self.task = self._next()
        return time.perf_counter() - began
