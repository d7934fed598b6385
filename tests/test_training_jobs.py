"""Jobs with their real training process: run to the end, cancelled, interrupted, killed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from safetensors.torch import load_file, save_file

from rlhf import jobspec, supervisor
from rlhf.models import Checkpoint, JobMetric, TrainingJob
from rlhf.services import create_snapshot, jobs, leases, queue_training_job, register_base_checkpoint
from tests.celery_workers import trainers_in
from tests.factories import make_judged_project

pytestmark = [pytest.mark.training, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("data_dir")]

# Enough steps that there is a middle to interrupt; a checkpoint every 10.
LONG = {"max_steps": 400, "checkpoint_every_steps": 10, "batch_size": 4, "micro_batch_size": 4, "use_lora": False}
SHORT = {**LONG, "max_steps": 6, "checkpoint_every_steps": 2}


def make_job(tiny_model: Path, options: dict, method: str = "dpo") -> TrainingJob:
    base = register_base_checkpoint("tiny", tiny_model)
    project = make_judged_project()
    snapshot = create_snapshot(project, project.slug, eval_share=0.25)
    if method != "dpo":
        options = {key: value for key, value in options.items() if key != "beta"}
    return queue_training_job(snapshot=snapshot, method=method, base=base, options=options)


def wait_for(job: TrainingJob, condition: Callable[[TrainingJob], bool], seconds: float = 90) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        job.refresh_from_db()
        if condition(job):
            return
        time.sleep(0.1)
    log = job.directory / "stdout.log"
    pytest.fail(f"job stayed {job.status} at step {job.step}: {job.error}\n{log.read_text() if log.exists() else ''}")


def in_thread(job: TrainingJob) -> threading.Thread:
    def run() -> None:
        try:
            supervisor.run_training_job(job.pk)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def losses(job: TrainingJob) -> list[float]:
    rows = JobMetric.objects.filter(job=job).order_by("step").values_list("values", flat=True)
    return [row["loss"] for row in rows if "loss" in row]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "method,kind",
    [pytest.param("sft", "policy", marks=SLOW), pytest.param("reward", "reward", marks=SLOW), ("dpo", "policy")],
)
def test_a_job_trains_reports_and_leaves_a_checkpoint(tiny_model: Path, method: str, kind: str) -> None:
    job = make_job(tiny_model, SHORT, method)
    assert supervisor.run_training_job(job.pk)
    wait_for(job, lambda j: j.is_finished, 1)
    assert (job.status, job.error) == ("succeeded", "")
    assert (job.step, job.total_steps) == (6, 6)
    assert len(losses(job)) == 6
    checkpoint = Checkpoint.objects.get(job=job)
    assert (checkpoint.kind, checkpoint.parent) == (kind, job.base)
    jobspec.check_manifest(checkpoint.path)
    assert not supervisor.run_training_job(job.pk), "a duplicate message must find nothing to do"
    assert Checkpoint.objects.filter(parent=job.base).count() == 1


@pytest.mark.parametrize("mode", ["keep", "discard"])
@SLOW
def test_cancelling_a_running_job_keeps_or_discards(
    tiny_model: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "CANCEL_GRACE_SECONDS", 0)  # what is to be kept may take as long as it takes
    job = make_job(tiny_model, LONG)
    thread = in_thread(job)
    wait_for(job, lambda j: j.step >= 3)
    leases.request_cancel(job, mode)
    thread.join(60)
    job.refresh_from_db()
    assert job.status == "cancelled"
    assert job.step < 400
    assert Checkpoint.objects.filter(job=job).exists() == (mode == "keep")


@SLOW
def test_what_is_to_be_kept_is_kept_though_the_trainer_dies(tiny_model: Path) -> None:
    job = make_job(tiny_model, LONG)
    thread = in_thread(job)
    wait_for(job, lambda j: bool(jobspec.complete_checkpoints(j.directory)))
    [trainer] = trainers_in(job.directory)
    trainer.suspend()
    leases.request_cancel(job, "keep")
    wait_for(job, lambda j: (j.directory / jobspec.CANCEL_FILE).exists())
    trainer.kill()
    thread.join(60)
    job.refresh_from_db()
    assert (job.status, job.cancel_mode, job.unknown_failures) == ("queued", "keep", 1)
    saved = int(job.resume_from.removeprefix("step-"))

    assert supervisor.run_training_job(job.pk)
    job.refresh_from_db()
    assert (job.status, job.step) == ("cancelled", saved + 1)
    checkpoint = Checkpoint.objects.get(job=job)
    assert checkpoint.step == saved + 1
    jobspec.check_manifest(checkpoint.path)


@SLOW
def test_a_trainer_that_hangs_is_ended_and_tried_again_once(tiny_model: Path, settings) -> None:  # type: ignore[no-untyped-def]
    job = make_job(tiny_model, LONG)
    for attempt, status in ((1, "queued"), (2, "failed")):
        settings.JOB_SILENT_SECONDS = 3600
        thread = in_thread(job)
        wait_for(job, lambda j: bool(trainers_in(j.directory)))
        if attempt == 2:  # the first hangs before its first step
            wait_for(job, lambda j: bool(jobspec.complete_checkpoints(j.directory)))
        [trainer] = trainers_in(job.directory)
        if attempt == 2:
            trainer.send_signal(jobspec.STACKS_SIGNAL)
            wait_for(job, lambda j: "most recent call first" in (j.directory / "stdout.log").read_text())
        trainer.suspend()
        settings.JOB_SILENT_SECONDS = 1
        thread.join(60)
        job.refresh_from_db()
        assert (job.status, job.failure_class, job.unknown_failures) == (status, "stalled", attempt)
        assert "no sign of life" in job.error
        assert [(alarm.code, alarm.step) for alarm in job.alarms.all()] == [("stalled", 0)]
        assert not trainers_in(job.directory)
    assert jobs.checkpoint_to_go_on_from(job)


@SLOW
def test_a_job_whose_completions_are_all_cut_pauses_and_goes_on_when_asked(tiny_model: Path) -> None:
    """An untrained model does not end its turn within 4 tokens."""
    register_base_checkpoint("tiny", tiny_model)
    snapshot = create_snapshot(make_judged_project(), "votes", eval_share=0.25)
    shape = ["batch_size=4", "micro_batch_size=4", "max_completion_tokens=4", "max_steps=100000", "bf16=no"]
    rule = ["rule=vocabulary_half", "rule_argument=lower", "use_lora=no"]
    launch = {"method": "ppo", "snapshot": snapshot.name, "base": "tiny", "settings_given": [*shape, *rule]}
    with pytest.raises(CommandError, match="paused itself for an alarm, all_cut"):
        call_command("train", wait=True, proceed=True, **launch)
    job = TrainingJob.objects.get()
    assert (job.status, job.paused_for) == ("paused", "all_cut"), job.error
    paused_at = jobs.step_of(job.resume_from)
    assert 10 <= paused_at == job.step
    jobspec.check_manifest(job.directory / jobspec.CHECKPOINTS_DIR / job.resume_from)

    jobs.resume_training_job(job)
    thread = in_thread(job)
    wait_for(job, lambda j: j.step > paused_at + 12)  # what was seen before does not pause it again
    leases.request_cancel(job, "keep")
    thread.join(60)
    job.refresh_from_db()
    assert (job.status, job.attempt) == ("cancelled", 2), job.error
    assert "resume_suspect" not in {alarm.code for alarm in job.alarms.all()}
    assert Checkpoint.objects.get(job=job).step > paused_at + 12


@SLOW
def test_a_checkpoint_that_is_not_what_was_trained_makes_the_resume_suspect(tiny_model: Path) -> None:
    job = make_job(tiny_model, LONG, method="sft")
    thread = in_thread(job)
    wait_for(job, lambda j: bool(jobspec.complete_checkpoints(j.directory)))
    leases.request_pause(job)
    thread.join(60)
    job.refresh_from_db()
    assert job.status == "paused"
    saved = job.directory / jobspec.CHECKPOINTS_DIR / job.resume_from
    weights = load_file(saved / "model.safetensors")
    save_file({name: 3 * tensor for name, tensor in weights.items()}, saved / "model.safetensors", {"format": "pt"})
    jobspec.write_manifest(saved)

    jobs.resume_training_job(job)
    thread = in_thread(job)
    wait_for(job, lambda j: j.alarms.exists())
    leases.request_cancel(job, "discard")
    thread.join(60)
    [alarm] = job.alarms.all()
    assert (alarm.code, alarm.step) == ("resume_suspect", jobs.step_of(job.resume_from) + 1)


@SLOW
def test_a_worker_that_is_told_to_stop_gives_the_job_back(tiny_model: Path) -> None:
    job = make_job(tiny_model, LONG)
    thread = in_thread(job)
    wait_for(job, lambda j: j.step >= 3)
    supervisor.worker_is_stopping.set()
    try:
        thread.join(60)
    finally:
        supervisor.worker_is_stopping.clear()
    job.refresh_from_db()
    assert (job.status, job.infrastructure_failures, job.unknown_failures) == ("queued", 0, 0)
    assert job.resume_from.startswith("step-")


@SLOW
def test_a_fenced_worker_kills_its_child_and_leaves(tiny_model: Path, settings) -> None:  # type: ignore[no-untyped-def]
    settings.JOB_HEARTBEAT_SECONDS = 0.2
    job = make_job(tiny_model, LONG)
    thread = in_thread(job)
    wait_for(job, lambda j: j.step >= 3)
    TrainingJob.objects.filter(pk=job.pk).update(owner="somebody else", attempt=7)
    thread.join(30)
    assert not thread.is_alive()
    job.refresh_from_db()
    assert (job.status, job.owner, job.attempt) == ("running", "somebody else", 7)
    assert not Checkpoint.objects.filter(job=job).exists()


@SLOW
def test_a_duplicate_message_during_the_run_changes_nothing(tiny_model: Path) -> None:
    job = make_job(tiny_model, SHORT)
    with ThreadPoolExecutor(2) as pool:

        def run(_: int) -> bool:
            try:
                return supervisor.run_training_job(job.pk)
            finally:
                connections.close_all()

        assert sorted(pool.map(run, range(2))) == [False, True]
    job.refresh_from_db()
    assert (job.status, job.attempt) == ("succeeded", 1)
