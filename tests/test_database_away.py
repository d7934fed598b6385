"""What happens while Postgres cannot be reached: a sentence on the page, and nothing lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from django.db import connection
from django.test import Client

from rlhf.models import TrainingJob
from tests.factories import make_user
from tests.test_training_jobs import SHORT, in_thread, losses, make_job, wait_for

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def database_away() -> Iterator[None]:
    """Cut every connection to the test database and let none in, as a failover does."""
    settings = connection.settings_dict
    name = settings["NAME"]
    connection.close()
    with psycopg.connect(
        host=settings["HOST"] or settings["OPTIONS"].get("host"),
        user=settings["USER"],
        password=settings["PASSWORD"] or None,
        dbname="postgres",
        autocommit=True,
    ) as server:
        server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        try:
            server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            yield
        finally:
            server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


def test_a_page_says_so_and_works_again_afterwards(client: Client) -> None:
    client.force_login(make_user("ann"))
    assert client.get("/").status_code == 200
    with database_away():
        answer = client.get("/")
        assert answer.status_code == 503
        assert answer["Retry-After"]
        assert "database" in answer.content.decode()
    assert client.get("/").status_code == 200


@pytest.mark.training
@pytest.mark.slow
def test_a_training_job_goes_on_and_its_curve_has_no_hole(tiny_model: Path, data_dir: Path) -> None:
    job = make_job(tiny_model, {**SHORT, "max_steps": 80, "checkpoint_every_steps": 40})
    thread = in_thread(job)
    wait_for(job, lambda j: j.step >= 3)
    with database_away():
        written = (job.directory / "metrics.jsonl").stat().st_size
        ends = time.monotonic() + 60
        while (job.directory / "metrics.jsonl").stat().st_size < written + 2000:
            assert time.monotonic() < ends, "training stopped with the database"
            time.sleep(0.1)
    thread.join(90)
    job = TrainingJob.objects.get(pk=job.pk)
    assert (job.status, job.attempt, job.step) == ("succeeded", 1, 80)
    assert len(losses(job)) == 80
