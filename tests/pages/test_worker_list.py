"""The page of workers, and what a waiting job says of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.test import Client

from rlhf.hardware import GPU, Hardware
from rlhf.models import Checkpoint, Priority, TrainingJob, Worker
from rlhf.services import create_snapshot, workers
from tests.factories import make_judged_project
from tests.pages.training import launch_form, make_job

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]


def announce(name: str, gpus: int = 0) -> Worker:
    found = tuple(GPU(index, f"GPU-{index}", "NVIDIA H100", 85.9) for index in range(gpus))
    return workers.announce_worker(name, name.partition("@")[2], ["train"], Hardware(16, 128.0, found), "1.0")


def test_workers_say_what_they_are_and_what_they_run(page: Client, base: Checkpoint) -> None:
    assert "No worker is running" in page.get("/training/workers/").content.decode()
    busy = announce("train@node-1", gpus=2)
    announce("train@node-2")
    workers.leave_worker("train@node-2")
    job = make_job(base)
    assert workers.claim_next_job(busy, "owner") is not None
    text = page.get("/training/workers/").content.decode()
    assert text.index("train@node-1") < text.index("train@node-2"), "who is there comes first"
    assert f'<a href="/training/{job.pk}/">round-1</a>' in text
    for words in ("busy", "stopped", "NVIDIA H100", "86 GB", "128 GB", "free"):
        assert words in text


def test_a_launch_asks_for_its_place_and_the_job_says_why_it_waits(page: Client, base: Checkpoint) -> None:
    snapshot = create_snapshot(make_judged_project(), "set", eval_share=0.25)
    form = launch_form(snapshot, base, label="h100", gpus="2", priority="1")
    checked = page.post("/training/new/", form)
    assert "--label h100 --gpus 2 --priority high" in page.get(checked["Location"]).content.decode()
    page.post(checked["Location"], {"step": "start", "proceed": "on"})
    job = TrainingJob.objects.get()
    assert (job.label, job.gpus, job.priority) == ("h100", 2, Priority.HIGH)
    reason = "No worker with the label h100 is running; start one for the queue train.h100."
    assert reason in page.get(f"/training/{job.pk}/").content.decode()
    assert reason in page.get("/training/").content.decode()
    shown = page.get(f"/training/{job.pk}/?tab=options").content.decode()
    assert "label h100" in shown and "priority high" in shown
    clone = page.get(f"/training/new/?clone={job.pk}").context["launch"].initial
    assert (clone["label"], clone["gpus"], clone["priority"]) == ("h100", 2, 1)


def test_each_machine_of_a_job_has_its_command_on_the_page(page: Client, base: Checkpoint, data_dir: Path) -> None:
    from rlhf.job_directory import write_job_directory

    job = make_job(base, launcher="torchrun", hosts="node-1,node-2", micro_batch_size=2)
    write_job_directory(job, job.directory)
    text = page.get(f"/training/{job.pk}/?tab=options").content.decode()
    assert "--node_rank 0 --master_addr node-1" in text
    assert "--node_rank 1 --master_addr node-1" in text
    assert "Start the others by hand" in text
