"""A training job's page: waiting, running, ended, its log and its metrics."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.test import Client

from rlhf.models import Checkpoint, JobMetric
from rlhf.services import (
    jobs,
)
from tests.pages.training import finish, log_steps, make_job

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]


def test_a_queued_job_waits_for_the_broker_and_is_cancelled(page: Client, base: Checkpoint) -> None:
    first, job = make_job(base), make_job(base)
    text = page.get(f"/training/{job.pk}/").content.decode()
    assert "The message broker is away" in text  # tests run without one
    assert "it starts when the broker is back" in text
    assert "1 before it" in text
    assert 'hx-trigger="every 2s"' in text
    assert "Cancel the job" in page.get(f"/training/{job.pk}/stop/").content.decode()
    answer = page.post(f"/training/{job.pk}/stop/", {"mode": "discard"}, follow=True)
    job.refresh_from_db()
    assert job.status == "cancelled"
    text = answer.content.decode()
    assert 'hx-trigger="every 2s"' not in text
    assert "The message broker is away" not in text
    answer = page.post(f"/training/{job.pk}/stop/", {"mode": "keep"}, follow=True)
    assert "there is nothing to cancel" in answer.content.decode()
    first.refresh_from_db()
    assert first.status == "queued"


def test_a_running_job_is_stopped_in_the_mode_that_was_chosen(page: Client, base: Checkpoint) -> None:
    job = log_steps(make_job(base), 3)
    assert "Stop and keep" in page.get(f"/training/{job.pk}/").content.decode()
    assert page.post(f"/training/{job.pk}/stop/", {"mode": "later"}, follow=True).status_code == 200
    job.refresh_from_db()
    assert job.cancel_mode == ""
    page.post(f"/training/{job.pk}/stop/", {"mode": "keep"})
    job.refresh_from_db()
    assert (job.status, job.cancel_mode) == ("running", "keep")
    assert "keep what was learnt" in page.get(f"/training/{job.pk}/progress/").content.decode()


def test_a_running_job_shows_where_it_stands(page: Client, base: Checkpoint) -> None:
    job = log_steps(make_job(base), 10)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.get(f"/training/{job.pk}/").content.decode()))
    assert "step 10 / 40" in text
    assert "trained on 9 of 9" in text
    assert "231 tok/s" in text
    assert "peak memory 2.1 GB" in text
    assert "this job on node-3" in text
    assert "9 of 9 judged comparisons become rows" in text
    text = page.get(f"/training/{job.pk}/?tab=options").content.decode()
    assert "node-3:42:abc" in text
    assert job.code_version in text


def test_an_ended_job_tells_a_watching_page_to_load_anew(page: Client, base: Checkpoint, tiny_model: Path) -> None:
    job = log_steps(make_job(base), 2)
    assert "HX-Refresh" not in page.get(f"/training/{job.pk}/progress/")
    finish(job, tiny_model, **{"eval_rewards/accuracies": 2 / 3, "eval_rows_used": 3})
    assert page.get(f"/training/{job.pk}/progress/")["HX-Refresh"] == "true"
    text = page.get(f"/training/{job.pk}/").content.decode()
    assert "66.7 %" in text
    assert "(21–94) of 3" in text


def test_a_failed_job_says_in_full_what_happened_and_what_to_do(page: Client, base: Checkpoint) -> None:
    job = log_steps(make_job(base), 1)
    long_error = "Training ran out of memory. " + "x" * 500
    jobs.fail_or_retry(job, "out_of_memory", long_error)
    text = page.get(f"/training/{job.pk}/").content.decode()
    assert long_error in text
    assert "Clone the job and change one of these" in text


def test_the_log_is_the_end_of_the_file_as_plain_text(page: Client, base: Checkpoint) -> None:
    job = make_job(base)
    assert "The log begins when a worker starts" in page.get(f"/training/{job.pk}/?tab=log").content.decode()
    job.directory.mkdir(parents=True)
    lines = [f"line {number}" for number in range(1000)]
    (job.directory / "stdout.log").write_bytes(
        "\n".join([*lines, "<b>bold</b> \x1b[31mred\x00 \xff"]).encode("latin-1")
    )
    for address in (f"/training/{job.pk}/?tab=log", f"/training/{job.pk}/log/"):
        text = page.get(address).content.decode()
        assert "&lt;b&gt;bold&lt;/b&gt; [31mred" in text
        assert "line 999" in text
        assert "line 799" not in text
    (job.directory / "stdout.log").write_bytes(b"y" * 1_000_000)
    assert len(page.get(f"/training/{job.pk}/log/").content) < 70_000


def test_metrics_come_from_where_the_page_left_off(page: Client, base: Checkpoint) -> None:
    job = log_steps(make_job(base), 5)
    answer = page.get(f"/api/jobs/{job.pk}/metrics").json()
    assert [row["step"] for row in answer["rows"]] == [1, 2, 3, 4, 5]
    assert answer["rows"][0]["loss"] == pytest.approx(0.69)
    assert (answer["status"], answer["step"], answer["total_steps"], answer["attempt"]) == ("running", 5, 40, 1)
    assert answer["seconds_left"] is not None
    jobs.record_progress(job, [{"step": 5, "eval_loss": 0.5}])
    rows = page.get(f"/api/jobs/{job.pk}/metrics?after=4").json()["rows"]
    assert [(row["step"], row["loss"], row["eval_loss"]) for row in rows] == [(5, pytest.approx(0.65), 0.5)]
    assert page.get(f"/api/jobs/{job.pk}/metrics?after=x").status_code == 400
    assert page.get("/api/jobs/999999/metrics").status_code == 404


def test_many_metrics_come_in_parts(page: Client, base: Checkpoint) -> None:
    job = make_job(base)
    JobMetric.objects.bulk_create(JobMetric(job=job, step=step, values={"loss": 1.0}) for step in range(2500))
    answer = page.get(f"/api/jobs/{job.pk}/metrics").json()
    assert (len(answer["rows"]), answer["more"]) == (2000, True)
    answer = page.get(f"/api/jobs/{job.pk}/metrics?after=1999").json()
    assert (len(answer["rows"]), answer["more"]) == (500, False)
