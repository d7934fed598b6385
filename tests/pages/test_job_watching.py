"""What a job's page shows while it runs: alarms, samples, the first batch, best and worst rows, and its controls."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from rlhf import jobspec
from rlhf.alarms import Alarm
from rlhf.models import Checkpoint, TrainingJob
from rlhf.services import jobs, leases, watching
from tests.pages.training import log_steps, make_job

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]

PROMPT = [{"role": "user", "content": "Is <b>this</b> bold?"}]


def text_of(page: Client, address: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.get(address).content.decode()))


def complete_checkpoint(job: TrainingJob, step: int) -> None:
    saved = job.directory / "checkpoints" / f"step-{step}"
    saved.mkdir(parents=True)
    jobspec.write_manifest(saved)


def show(job: TrainingJob, kind: str, step: int, **values: Any) -> None:
    watching.record_insights(job, [{"kind": kind, "step": step, **values}])


def test_curves_come_anew_only_when_something_was_logged(page: Client, base: Checkpoint) -> None:
    job = log_steps(make_job(base), 3)
    text = page.get(f"/training/{job.pk}/").content.decode()
    assert 'aria-label="Loss: 0.67 at the last logged step"' in text
    (address,) = re.findall(r'hx-get="(/training/\d+/curves/[^"]*)"', text)
    assert page.get(address).status_code == 204
    jobs.record_progress(job, [{"step": 3, "eval_loss": 0.5}])  # a measurement that is added to a step
    text = page.get(address).content.decode()
    assert 'aria-label="Loss: train 0.67, held-out 0.50 at the last logged step"' in text


def test_curves_of_a_long_run_are_drawn_from_few_points(page: Client, base: Checkpoint) -> None:
    job = log_steps(make_job(base), 1)
    lines = [{"step": step, "total_steps": 3000, "loss": 1.0 + step % 2} for step in range(1, 3001)]
    jobs.record_progress(job, lines)
    logged = job.job_metrics.curves([job.pk], 240)[job.pk]["loss"]
    assert len(logged) <= 240
    assert (logged[-1].step, logged[-1].low, logged[-1].high) == (3000, 1.0, 2.0)
    assert logged[-1].mean == pytest.approx(1.5, abs=0.05)
    assert len(page.get(f"/training/{job.pk}/curves/").content) < 60_000


def test_an_alarm_says_what_it_means_and_what_to_do(page: Client, base: Checkpoint) -> None:
    job = log_steps(make_job(base), 3)
    assert "alarm" not in text_of(page, "/training/")
    watching.raise_alarms(job, [Alarm("kl_high", 3, 12.5), Alarm("stalled", 3, 1500.0)])
    text = text_of(page, f"/training/{job.pk}/")
    assert "KL above 10 nats a completion since step 3 · 12.50" in text
    assert "No sign of life for too long since step 3 · 25 min" in text
    assert "What to do:" in text and "An alarm stops nothing" in text
    assert "2 alarms" in text_of(page, "/training/")
    job.refresh_from_db()
    assert job.status == "running"


def test_a_job_that_paused_itself_says_why_and_how_it_goes_on(page: Client, base: Checkpoint) -> None:
    job = log_steps(make_job(base, method="grpo", rule="length", rule_argument="20"), 5)
    watching.raise_alarms(job, [Alarm("kl_high", 5, 12.5)])
    text = text_of(page, f"/training/{job.pk}/")
    assert "for an alarm: KL above 10 nats a completion" in text and "An alarm stops nothing" not in text
    complete_checkpoint(job, 6)
    jobs.pause_training_job(job)
    text = text_of(page, f"/training/{job.pk}/")
    assert "It paused itself for an alarm: KL above 10 nats a completion" in text
    assert "safe in step-6 . Resume goes on from there" in text
    page.post(f"/training/{job.pk}/resume/")
    assert "paused itself" not in text_of(page, f"/training/{job.pk}/")


def test_samples_stand_beside_those_of_step_0(page: Client, base: Checkpoint) -> None:
    job = log_steps(make_job(base), 3)
    assert "just before the first step" in text_of(page, f"/training/{job.pk}/?tab=samples")
    for step, text in ((0, "No <i>idea</i>."), (10, "Later."), (20, "Yes.")):
        row = {"prompt": PROMPT, "text": text, "tokens": 3, "is_cut": step == 0}
        show(job, "samples", step, seconds=1.25, rows=[row])
    html = page.get(f"/training/{job.pk}/?tab=samples").content.decode()
    assert "Is &lt;b&gt;this&lt;/b&gt; bold?" in html and "No &lt;i&gt;idea&lt;/i&gt;." in html
    assert "Yes." in html and "Later." not in html and "s of the run" in html
    html = page.get(f"/training/{job.pk}/?tab=samples&step=10").content.decode()
    assert "Later." in html and "Yes." not in html
    assert page.get(f"/training/{job.pk}/?tab=samples&step=99999999999999999999").status_code == 200


def test_a_reward_model_shows_its_scores_of_the_same_pairs(page: Client, base: Checkpoint) -> None:
    job = log_steps(make_job(base, method="reward"), 3)
    sides = {side: [{"role": "assistant", "content": side.upper()}] for side in ("chosen", "rejected")}
    for step, scores in ((0, [0.1, 0.2]), (20, [1.5, -0.5])):
        show(job, "samples", step, seconds=1, rows=[{"prompt": PROMPT, **sides, "scores": scores}])
    text = text_of(page, f"/training/{job.pk}/?tab=samples")
    assert "chosen CHOSEN 0.10 1.50 rejected REJECTED 0.20 -0.50" in text


def test_the_first_batch_shows_what_is_learnt(page: Client, base: Checkpoint) -> None:
    job = log_steps(make_job(base), 1)
    assert "as soon as the first step begins" in text_of(page, f"/training/{job.pk}/?tab=batch")
    parts = [
        ["<|im_start|>", False, True],
        ["user\nHi", False, False],
        ["Yes", True, False],
        ["<|im_end|>", True, True],
    ]
    rows = [{"side": "chosen", "tokens": 9, "in_loss": 2, "padding": 3, "cut": 0, "parts": parts}]
    show(job, "first_batch", 0, rows=rows, row_count=1)
    html = page.get(f"/training/{job.pk}/?tab=batch").content.decode()
    assert "9 tokens, 2 of them learnt, 3 padding" in html
    assert '<span class="token-special">&lt;|im_start|&gt;</span>' in html
    assert "<mark>Yes</mark>" in html
    assert '<mark class="token-special">&lt;|im_end|&gt;</mark>' in html


def test_the_best_and_worst_rows_are_those_of_the_last_step(page: Client, base: Checkpoint) -> None:
    job = log_steps(make_job(base), 1)
    show(job, "extremes", 0, reference=[[-3.0, -4.0]])
    assert "sought among the held-out rows when the job ends" in text_of(page, f"/training/{job.pk}/?tab=extremes")
    row = {"prompt": PROMPT, "chosen": [{"role": "assistant", "content": "Good"}], "rejected": []}
    show(
        job, "extremes", 40, measure="margin", counted=7, worst=[{"value": -0.75, **row}], best=[{"value": 2.5, **row}]
    )
    text = text_of(page, f"/training/{job.pk}/?tab=extremes")
    assert "Among 7 held-out rows at step 40" in text
    assert "Worst -0.75 user Is" in text and "Best 2.5 user Is" in text


def test_hours_are_those_of_the_processes(page: Client, base: Checkpoint) -> None:
    job = log_steps(make_job(base), 1)
    jobs.record_progress(job, [], process_seconds=1800)
    assert "process-hours 0.5" in text_of(page, f"/training/{job.pk}/")
    show(job, "hardware", 0, processes=4, device="NVIDIA A100")
    assert "GPU-hours 2 NVIDIA A100" in text_of(page, f"/training/{job.pk}/")


def test_a_job_is_paused_and_resumed_by_one_click_each(page: Client, base: Checkpoint) -> None:
    job = log_steps(make_job(base), 3)
    text = page.post(f"/training/{job.pk}/pause/", follow=True).content.decode()
    assert "Asked to pause" in text and "Stop and keep" not in text
    assert (
        "only a paused job, or one that failed with a checkpoint"
        in page.post(f"/training/{job.pk}/resume/", follow=True).content.decode()
    )
    job.refresh_from_db()
    jobs.pause_training_job(job)
    text = text_of(page, f"/training/{job.pk}/")
    assert "paused" in text and "begins anew when you resume it" in text
    text = text_of(page, f"/training/{job.pk}/stop/")
    assert "no checkpoint yet, so there is nothing to keep" in text and "Stop and keep" not in text
    page.post(f"/training/{job.pk}/resume/")
    job.refresh_from_db()
    assert job.status == "queued"
    assert page.get(f"/training/{job.pk}/pause/").status_code == 405


def test_after_running_out_of_memory_one_click_tries_with_half(page: Client, base: Checkpoint) -> None:
    job = log_steps(make_job(base), 1)
    jobs.fail_or_retry(job, "out_of_memory", "Training ran out of memory.")
    assert "Try again with 2 at once" in text_of(page, f"/training/{job.pk}/")
    answer = page.post(f"/training/{job.pk}/retry/", follow=True)
    retry = TrainingJob.objects.get(retry_of=job)
    assert answer.redirect_chain[-1][0] == f"/training/{retry.pk}/"
    text = answer.content.decode()
    assert "each step still learns from 8" in text
    assert f'Another try of <a href="/training/{job.pk}/">job {job.pk}</a>' in text
    again = log_steps(make_job(base), 8)
    complete_checkpoint(again, 5)
    jobs.fail_or_retry(again, "out_of_memory", "Training ran out of memory.")
    text = text_of(page, f"/training/{again.pk}/")
    assert "Go on with 2 at once" in text and "up to step-5 is safe" in text
    answer = page.post(f"/training/{again.pk}/retry/", follow=True)
    assert answer.redirect_chain[-1][0] == f"/training/{again.pk}/"
    assert "goes on from step-5 with 2 rows at once" in answer.content.decode()
    other = log_steps(make_job(base), 1)
    leases.finish_job(other, "failed", error="why")
    assert "did not run out of memory" in page.post(f"/training/{other.pk}/retry/", follow=True).content.decode()


def test_a_failed_job_with_a_checkpoint_is_resumed_from_its_page(page: Client, base: Checkpoint) -> None:
    job = log_steps(make_job(base), 8)
    complete_checkpoint(job, 5)
    TrainingJob.objects.filter(pk=job.pk).update(unknown_failures=1)
    jobs.fail_or_retry(job, "unknown", "the training process was killed")
    text = text_of(page, f"/training/{job.pk}/")
    assert "It failed" in text and "up to step-5 is safe" in text
    page.post(f"/training/{job.pk}/resume/")
    job.refresh_from_db()
    assert (job.status, job.resume_from) == ("queued", "step-5")


def test_what_a_waiting_job_has_learnt_can_be_kept(page: Client, base: Checkpoint) -> None:
    job = log_steps(make_job(base), 7)
    complete_checkpoint(job, 5)
    jobs.fail_or_retry(job, "infrastructure", "the worker was lost")
    text = text_of(page, f"/training/{job.pk}/stop/?mode=keep")
    assert "No worker has taken it yet" not in text
    assert "takes one more step from step-5" in text
    page.post(f"/training/{job.pk}/stop/", {"mode": "keep"})
    job.refresh_from_db()
    assert (job.status, job.cancel_mode) == ("queued", "keep")
    text = text_of(page, f"/training/{job.pk}/")
    assert "A worker goes on from step-5" in text and "Stop and keep" not in text


@pytest.mark.parametrize("tab", ["samples", "batch", "extremes"])
def test_tabs_without_anything_say_why(page: Client, base: Checkpoint, tiny_model: Path, tab: str) -> None:
    job = make_job(base, sample_prompts=0)
    leases.request_cancel(job)
    text = text_of(page, f"/training/{job.pk}/?tab={tab}")
    assert ("sample_prompts is 0" in text) == (tab != "batch")
