"""Every test runs on a real Postgres: the one that DATABASE_URL names, or an embedded one in a temporary folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # this file is read before Django's applications are
    from django.contrib.auth.models import User
    from django.test import Client

    from rlhf.models import Checkpoint
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

# Examples are drawn as slowly as the machine is busy with other work.
hypothesis_settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("any machine")

# Before Django reads its settings: tests never touch the developer's own data folder.
_DATA = Path(tempfile.mkdtemp(prefix="touchstone-tests-"))
os.environ["TOUCHSTONE_DATA"] = str(_DATA)
# A job whose machine failed would rest before it is tried again; tests/test_jobs.py has that.
os.environ["TOUCHSTONE_JOB_RETRY_PAUSES"] = "0"
# Named here and not in pyproject.toml: pytest-django would read the settings before this file sets the folder, and
# every test run on the machine would then share the developer's sockets.
os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
# Test processes side by side would each take all cores for torch, and wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Playwright's synchronous API runs an event loop in the test's thread, which Django takes for asynchronous code.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    from django.conf import settings

    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    # WhiteNoise warns once per client where nothing is collected yet.
    (_DATA / "static").mkdir(exist_ok=True)
    # Pages are tested without a collectstatic before; tests/test_frontend_files.py runs the real storage.
    settings.STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    # Without pytest's cache (-p no:cacheprovider) nothing is kept for the next run.
    config.stash[_cache] = config.cache.mkdir("touchstone") if getattr(config, "cache", None) else _DATA / "cache"
    only_hands_out = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if settings.EMBEDDED_POSTGRES and not only_hands_out:
        from tests import database

        config.stash[_server] = database.start(config.stash[_cache], _DATA, settings.SOCKET_DIR)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    # With it pytest-django would read the settings in each process before this file has set that process's folder.
    del os.environ["DJANGO_SETTINGS_MODULE"]


_server = pytest.StashKey()  # type: ignore[var-annotated]
_cache = pytest.StashKey[Path]()


def pytest_unconfigure(config: pytest.Config) -> None:
    from config.embedded import postgres

    if _server in config.stash:
        from django.db import connections

        connections.close_all()
        postgres.stop(config.stash[_server])
    shutil.rmtree(_DATA, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On a shared machine a browser or a worker may stand still for longer than any patience; the summary names it."""
    if os.environ.get("CI"):
        for item in items:
            alone = item.path.parent.name == "training"  # in one process, with a seed
            if item.get_closest_marker("browser") or (item.get_closest_marker("slow") and not alone):
                item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(scope="session")
def django_db_modify_db_settings(request: pytest.FixtureRequest) -> None:
    """Test processes on one server need databases of different names; each embedded server has one such process."""
    if _server not in request.config.stash:
        request.getfixturevalue("django_db_modify_db_settings_parallel_suffix")


@pytest.fixture(scope="session")
def django_db_keepdb(request: pytest.FixtureRequest) -> bool:
    """The embedded server comes with its test database, and goes with it."""
    return _server in request.config.stash or bool(request.config.getoption("reuse_db"))


@pytest.fixture(autouse=True)
def english() -> None:
    """A page that was asked for in another language leaves it to the thread, and so to the next test."""
    from django.utils import translation

    translation.activate("en")


@pytest.fixture
def data_dir(settings, tmp_path: Path) -> Iterator[Path]:  # type: ignore[no-untyped-def]
    """A data folder of the test's own."""
    settings.DATA_DIR = tmp_path
    settings.JOBS_DIR = tmp_path / "jobs"
    settings.MODELS_DIR = tmp_path / "models"
    settings.UPLOADS_DIR = tmp_path / "uploads"
    settings.STORAGES = {
        **settings.STORAGES,
        "snapshots": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": tmp_path / "snapshots"},
        },
    }
    yield tmp_path


@pytest.fixture
def shared_data() -> Path:
    """Public human data kept beside the project (see docs/data.md); continuous integration has it."""
    if not SHARED_DATA.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{SHARED_DATA} is missing; continuous integration must have it")
        pytest.skip(f"{SHARED_DATA} is missing: tests on real human data are skipped")
    return SHARED_DATA


@pytest.fixture(scope="session")
def tiny_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete model directory that trains in seconds, built outside this process so that torch stays out of it."""
    from tests.kept import ROOT, kept

    code = (
        "from pathlib import Path; import sys; from tests.tiny_model import build_tiny_model; "
        "from rlhf.jobspec import write_manifest; write_manifest(build_tiny_model(Path(sys.argv[1])))"
    )
    folder = kept(
        request.config.stash[_cache],
        "tiny-model",
        lambda folder: subprocess.run([sys.executable, "-c", code, str(folder)], check=True, cwd=ROOT),
        sources=[ROOT / "tests" / "tiny_model.py", ROOT / "rlhf" / "jobspec.py"],
        packages=("torch", "transformers", "tokenizers", "safetensors"),
    )
    return Path(shutil.copytree(folder, tmp_path_factory.mktemp("tiny") / "tiny-model"))


@pytest.fixture
def base(tiny_model: Path) -> Checkpoint:
    from rlhf.services import register_base_checkpoint

    return register_base_checkpoint("tiny", tiny_model)


@pytest.fixture
def staff() -> User:
    from tests.factories import make_user

    return make_user("boss", is_staff=True)


@pytest.fixture
def here(staff: User) -> Client:
    """The programs' interface, called by that person."""
    from tests.test_api import caller

    return caller(staff)
