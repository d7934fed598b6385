"""Training by program: jobs from their launch to their end, over HTTP with a token."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.storage import storages
from django.core.management import CommandError, call_command
from django.test import Client

from annotation.client import RefusedError
from rlhf.client import TrainingSite
from rlhf.models import Checkpoint, JobAlarm, TrainingJob
from rlhf.services import create_snapshot, jobs, leases
from tests.factories import make_comparison, make_judged_project, make_judgment, make_user
from tests.pages.training import finish, log_steps, make_job
from tests.test_api import caller, token_for

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]
Answer = tuple[int, Any]


def get(here: Client, path: str) -> Any:
    answer = here.get(f"/api/v1/{path}")
    assert answer.status_code == 200, (path, answer.content[:300])
    return answer.json()


def post(here: Client, path: str, **body: object) -> Answer:
    answer = here.post(f"/api/v1/{path}", json.dumps(body), content_type="application/json")
    return answer.status_code, answer.json()


@pytest.mark.parametrize("path", ["jobs/", "snapshots/", "workers/", "gpus/"])
def test_training_is_for_those_who_run_the_site(path: str) -> None:
    assert caller(make_user()).get(f"/api/v1/{path}").status_code == 403
    assert Client().get(f"/api/v1/{path}").status_code == 401
    assert caller(make_user(is_staff=True)).get(f"/api/v1/{path}").status_code == 200


def test_the_list_is_narrowed_and_comes_in_pages_newest_first(here: Client, base: Checkpoint) -> None:
    made = [make_job(base), make_job(base, "reward"), make_job(base)]
    leases.request_cancel(made[0], "discard")
    numbers, url = [], "jobs/?page_size=2"
    while url:
        page = get(here, url)
        numbers += [row["id"] for row in page["results"]]
        url = (page["next"] or "").partition("/api/v1/")[2]
    assert numbers == [job.pk for job in reversed(made)]

    def listed(**asked: str) -> list[int]:
        query = "&".join(f"{name}={value}" for name, value in asked.items())
        return [row["id"] for row in get(here, f"jobs/?{query}")["results"]]

    assert made[2].snapshot is not None
    assert listed(status="cancelled") == [made[0].pk]
    assert listed(method="reward", status="queued") == [made[1].pk]
    assert listed(project=made[2].snapshot.project.slug) == [made[2].pk]
    answer = here.get("/api/v1/jobs/?status=asleep")
    assert (answer.status_code, list(answer.json())) == (400, ["status"])


def test_a_job_says_where_it_stands(here: Client, base: Checkpoint, tiny_model: Path) -> None:
    first, job = make_job(base), make_job(base)
    waiting = get(here, f"jobs/{job.pk}/")
    assert (waiting["status"], waiting["jobs_before"]) == ("queued", 1)
    assert "No worker" in waiting["waits_because"]
    assert {one["code"] for one in waiting["findings"]}
    assert all(one["text"] for one in waiting["findings"])
    job = log_steps(job, 3)
    JobAlarm.objects.create(job=job, code="zero_loss", step=2, value=0.0)
    running = get(here, f"jobs/{job.pk}/")
    assert (running["step"], running["total_steps"], running["jobs_before"]) == (3, 40, None)
    assert running["seconds_left"] is not None
    assert [alarm["code"] for alarm in running["alarms"]] == ["zero_loss"]
    metrics = get(here, running["links"]["metrics"].removeprefix("/api/v1/") + "?after=1")
    assert [row["step"] for row in metrics["rows"]] == [2, 3]
    checkpoint = finish(job, tiny_model, eval_loss=0.5)
    ended = get(here, f"jobs/{job.pk}/")
    assert (ended["status"], ended["checkpoint"], ended["metrics"]) == (
        "succeeded",
        checkpoint.name,
        {"eval_loss": 0.5},
    )
    assert here.get(f"/api/v1/jobs/{job.pk}/log/").content == b""
    compared = here.get(f"/api/v1/jobs/compare/?job={first.pk}&job={job.pk}").content.decode()
    assert compared.splitlines()[0].startswith("job,method")
    assert here.get(f"/api/v1/jobs/compare/?job={job.pk}").status_code == 422
    assert here.get("/api/v1/jobs/999999/").status_code == 404


def test_a_job_is_launched_by_the_config_that_a_page_gives(here: Client, base: Checkpoint, staff: User) -> None:
    job = make_job(base, learning_rate=2e-5)
    config = get(here, f"jobs/{job.pk}/config/")
    page = Client()
    page.force_login(staff)
    assert page.get(f"/training/{job.pk}/config.json").json() == config
    changed = config | {"name": "again", "options": {**config["options"], "learning_rate": 1e-5}}
    changed["priority"] = "high"
    status, started = post(here, "jobs/", **changed)
    assert (status, started["name"], started["status"], started["priority"]) == (201, "again", "queued", 1)
    assert (started["options"]["learning_rate"], started["created_by"]) == (1e-5, "boss")
    for body, code, word in (
        (changed | {"snapshot": "gone"}, 422, "gone"),
        (changed | {"base": "gone"}, 422, "gone"),
        (changed | {"baze": "tiny"}, 422, "baze"),
        (changed | {"options": {"learning_rat": 1}}, 422, "learning_rat"),
        (changed | {"method": "dopo"}, 400, "method"),
        (changed | {"name": "no good"}, 400, "name"),
    ):
        status, refusal = post(here, "jobs/", **body)
        assert status == code, refusal
        assert word in json.dumps(refusal)
    assert TrainingJob.objects.count() == 2


def test_a_check_that_blocks_is_answered_and_overridden_by_name(here: Client, base: Checkpoint, staff: User) -> None:
    project = make_judged_project()
    for _ in range(6):
        make_judgment(make_comparison(project, a_text="word " * 400), "a")
    create_snapshot(project, "set", eval_share=0)
    launch = {"method": "dpo", "snapshot": "set", "base": "tiny", "options": {"max_tokens": 256}}
    status, refusal = post(here, "jobs/", **launch)
    assert status == 422
    assert "uneven_loss" in [one["code"] for one in refusal["findings"] if one["level"] == "blocked"]
    assert not TrainingJob.objects.exists()
    status, started = post(here, "jobs/", **launch, proceed=True)
    assert (status, started["proceeded_by"]) == (201, "boss")
    assert TrainingJob.objects.get().proceeded_by == staff


def test_a_job_is_paused_resumed_and_stopped(here: Client, base: Checkpoint) -> None:
    job = make_job(base)
    url = f"jobs/{job.pk}/"
    assert post(here, url + "pause/")[1]["status"] == "paused"
    assert post(here, url + "pause/")[0] == 422
    assert post(here, url + "resume/")[1]["status"] == "queued"
    log_steps(job, 1)
    assert post(here, url + "stop/", mode="later")[0] == 400
    status, stopping = post(here, url + "stop/", mode="keep")
    assert (status, stopping["status"], stopping["stopping"]) == (200, "running", "keep")
    waiting = make_job(base)
    assert post(here, f"jobs/{waiting.pk}/stop/", mode="discard")[1]["status"] == "cancelled"
    status, refusal = post(here, f"jobs/{waiting.pk}/stop/", mode="discard")
    assert (status, "nothing to cancel" in refusal["detail"]) == (422, True)


def test_out_of_memory_is_tried_again_with_half_the_rows(here: Client, base: Checkpoint) -> None:
    job = log_steps(make_job(base, batch_size=4, micro_batch_size=4), 1)
    assert post(here, f"jobs/{job.pk}/retry/")[0] == 422
    jobs.fail_or_retry(job, "out_of_memory", "Training ran out of memory.")
    status, retry = post(here, f"jobs/{job.pk}/retry/")
    assert (status, retry["retry_of"], retry["options"]["micro_batch_size"]) == (201, job.pk, 2)
    assert post(here, f"jobs/{job.pk}/retry/")[1]["id"] == retry["id"]


def test_a_sweep_starts_when_its_count_is_confirmed(here: Client, base: Checkpoint) -> None:
    job = make_job(base)
    url, options = f"jobs/{job.pk}/sweep/", {"learning_rate": [1e-5, "2e-5"], "beta": [0.1, 0.2]}
    status, planned = post(here, url, options=options)
    assert (status, planned["count"], planned["jobs"]) == (200, 4, [])
    assert planned["planned"][0]["options"] == {"learning_rate": 1e-5, "beta": 0.1}
    assert all(one["findings"] for one in planned["planned"])
    assert post(here, url, options=options, count=3)[0] == 422
    assert TrainingJob.objects.count() == 1
    status, made = post(here, url, options=options, count=4)
    assert (status, len(made["jobs"])) == (201, 4)
    assert post(here, url, options={"max_tokens": [16]}, count=1)[1]["planned"][0]["findings"]  # refused, and why
    assert TrainingJob.objects.count() == 5
    assert post(here, url, options={"beta": ["x"]})[0] == 422
    assert job.snapshot is not None
    shutil.rmtree(Path(storages["snapshots"].path(job.snapshot.sha256)))
    for confirmed in ({}, {"count": 4}):
        status, refused = post(here, url, options=options, **confirmed)
        assert (status, "cannot be read" in refused["detail"]) == (422, True)
    ended = leases.claim_job(TrainingJob, job.pk, "worker")
    assert ended is not None
    jobs.fail_or_retry(ended, "out_of_memory", "Training ran out of memory.")
    status, refused = post(here, f"jobs/{job.pk}/retry/")
    assert (status, "cannot be read" in refused["detail"]) == (422, True)
    assert TrainingJob.objects.count() == 5


def run(*arguments: Any) -> dict[str, Any]:
    out = io.StringIO()
    call_command("job", *map(str, arguments), json=True, stdout=out, stderr=io.StringIO())
    return json.loads(out.getvalue())


def test_jobs_are_listed_followed_and_steered_by_command(base: Checkpoint, tiny_model: Path) -> None:
    first, second, third = (make_job(base, batch_size=4, micro_batch_size=4) for _ in range(3))
    page = run("list", "--limit", 2)
    assert ([row["id"] for row in page["jobs"]], page["older"]) == ([third.pk, second.pk], second.pk)
    page = run("list", "--before", second.pk, "--status", "queued")
    assert ([row["id"] for row in page["jobs"]], page["older"]) == ([first.pk], None)
    assert run("pause", first.pk)["status"] == "paused"
    assert run("follow", first.pk)["status"] == "paused"
    assert run("resume", first.pk)["status"] == "queued"
    assert run("stop", first.pk, "--discard")["status"] == "cancelled"
    log_steps(second, 2)
    assert run("stop", second.pk, "--keep")["stopping"] == "keep"
    running = log_steps(third, 2)
    jobs.fail_or_retry(running, "out_of_memory", "Training ran out of memory.")
    assert run("retry", third.pk)["retry_of"] == third.pk
    with pytest.raises(CommandError, match=r"failed: Training ran out of memory\."):
        run("follow", third.pk)
    finish(TrainingJob.objects.get(pk=second.pk), tiny_model, eval_loss=0.5)
    assert run("show", second.pk)["step"] == 2
    with pytest.raises(CommandError, match="there is no job 0"):
        run("show", 0)


def test_data_is_frozen_by_program(here: Client) -> None:
    project = make_judged_project()
    status, frozen = post(here, "snapshots/", project=project.slug, name="r1", eval_share=0.25)
    assert (status, frozen["train_rows"] + frozen["eval_rows"]) == (201, 12)
    assert post(here, "snapshots/", project=project.slug, name="r1")[0] == 422
    assert [row["name"] for row in get(here, f"snapshots/?project={project.slug}")["results"]] == ["r1"]


@pytest.mark.django_db(transaction=True)
def test_the_client_launches_watches_and_stops(live_server: Any, base: Checkpoint, staff: User) -> None:
    project = make_judged_project()
    with TrainingSite(live_server.url, token_for(staff)) as site:
        site.create_snapshot(project.slug, "r1")
        with pytest.raises(RefusedError, match="longer than 16 tokens") as refusal:
            site.launch(method="dpo", snapshot="r1", base="tiny", options={"max_tokens": 16})
        assert any(one["level"] == "refused" for one in refusal.value.body["findings"])
        job = site.launch(method="dpo", snapshot="r1", base="tiny", name="first", priority="low")
        assert job.pause().wait().status == "paused"
        assert job.resume().status == "queued"
        log_steps(TrainingJob.objects.get(), 3)
        assert [row["step"] for row in job.metrics(after=1)] == [2, 3]
        assert job.stop("keep").state["stopping"] == "keep"
        config = {name: value for name, value in job.config().items() if name != "format"}
        again = site.launch(**config | {"name": "second"})
        assert [row["name"] for row in site.jobs(status="queued")] == ["second"]
        assert again.sweep({"beta": [0.1, 0.3]})["count"] == 2
        assert again.log() == ""
        assert site.compare_jobs([job.id, again.id]).startswith("job,method")
        assert list(site.workers()) == []
