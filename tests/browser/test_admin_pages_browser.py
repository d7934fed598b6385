"""The staff pages in a real browser: from judgments to a queued job and its cancellation, and the curves of a job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from annotation.models import Project
from rlhf.models import Checkpoint, DatasetSnapshot, TrainingJob
from rlhf.services import create_snapshot, jobs, leases, queue_training_job, register_base_checkpoint
from tests.factories import make_judged_project, make_user

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("data_dir"),
]
Open = Callable[..., Page]
PATIENCE_MS = 20_000  # pages ask for news every two seconds


@pytest.fixture
def open_staff_page(open_page: Open) -> Iterator[Open]:
    def open_one(path: str, **options: object) -> Page:
        page = open_page(path, user="boss", **options)
        page.set_default_timeout(PATIENCE_MS)
        return page

    expect.set_options(timeout=PATIENCE_MS)
    yield open_one
    expect.set_options(timeout=None)


@pytest.fixture
def base(tiny_model: Path) -> Checkpoint:
    make_user("boss", is_staff=True)
    return register_base_checkpoint("tiny", tiny_model)


@pytest.fixture
def project() -> Project:
    return make_judged_project(slug="helpful")


@pytest.fixture
def running_job(base: Checkpoint, project: Project) -> TrainingJob:
    snapshot = create_snapshot(project, "helpful-r1", eval_share=0.25)
    job = queue_training_job(snapshot=snapshot, method="dpo", base=base, options={}, name="round-1")
    claimed = leases.claim_job(TrainingJob, job.pk, "node:1:a")
    assert claimed is not None
    return claimed


def log(job: TrainingJob, *steps: int, **more: float) -> None:
    for step in steps:
        values = {"loss": 0.69 - step / 100, "logps/chosen": -100.0 - step, "logps/rejected": -100.0 - 2 * step}
        assert jobs.record_progress(job, [{"step": step, "total_steps": 40, **values, **more}])


def test_from_judgments_to_a_queued_job_and_its_cancellation(
    open_staff_page: Open, base: Checkpoint, project: Project
) -> None:
    page = open_staff_page("/projects/helpful/")
    page.get_by_role("link", name="Freeze a data set").click()
    expect(page.get_by_label("Name", exact=True)).to_have_value("helpful-r1")
    page.get_by_role("button", name="Freeze").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("helpful-r1")

    page.get_by_role("link", name="Train on it", exact=True).click()
    page.get_by_label("Starting from").select_option("tiny")
    page.get_by_role("radio", name="Reward model").check()
    expect(page.locator("[name=center_rewards_coefficient]")).to_be_attached()
    expect(page.get_by_label("Learning rate")).to_have_value("2e-5")
    page.get_by_role("radio", name="Direct preference optimisation").check()
    expect(page.get_by_label("Beta")).to_have_value("0.1")
    page.get_by_label("Learning rate").fill("fast")
    page.get_by_role("button", name="Check").click()
    expect(page.locator(".field", has=page.get_by_label("Learning rate"))).to_contain_text("'fast' is not a number.")
    page.get_by_label("Learning rate").fill("5e-5")
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Before the start")
    expect(page.get_by_text("11 of 11 judged comparisons become rows")).to_be_attached()  # folded with what passed
    assert not TrainingJob.objects.exists()

    page.get_by_role("button", name="Start").click()
    expect(page.locator(".page-head .badge")).to_have_text("queued")
    job = TrainingJob.objects.get()
    assert job.options["learning_rate"] == 5e-5
    page.get_by_role("link", name="Cancel").click()
    page.get_by_role("button", name="Cancel the job").click()
    expect(page.locator(".page-head .badge")).to_have_text("cancelled")
    job.refresh_from_db()
    assert job.status == "cancelled"


def test_the_page_of_a_job_draws_its_curves_follows_it_and_ends_with_it(
    open_staff_page: Open, running_job: TrainingJob
) -> None:
    log(running_job, *range(1, 6))
    page = open_staff_page(f"/training/{running_job.pk}/")
    loss = page.get_by_role("img", name="Loss: ")
    expect(loss).to_have_attribute("aria-label", "Loss: 0.64 at the last logged step")
    expect(
        page.get_by_role("img", name="Log-probability: chosen, rejected: chosen −105, rejected −110")
    ).to_be_visible()
    expect(page.locator(".chart")).to_have_count(2)  # only what was logged is drawn
    plot = page.locator("#plot-loss")
    plot.press("Home")
    expect(page.locator("#plot-loss ~ [data-reading]")).to_have_text("step 1: 0.68")
    plot.press("ArrowRight")
    reading = page.locator("#plot-loss ~ [data-reading]")
    expect(reading).to_have_text("step 2: 0.67")
    log(running_job, 6, 7)
    log(running_job, 7, eval_loss=0.5)  # a measurement that is added to a step which is there already
    expect(loss).to_have_attribute("aria-label", "Loss: train 0.62, held-out 0.50 at the last logged step")
    expect(plot).to_be_focused()  # what was read stays, though the figure was drawn anew
    expect(reading).to_have_text("step 2: train 0.67")
    box = plot.locator("svg").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 7 / 40, box["y"] + box["height"] / 2)
    expect(reading).to_have_text("step 7: train 0.62, held-out 0.50")
    expect(page.locator(".progress-figures")).to_contain_text("7 / 40")
    leases.finish_job(running_job, "succeeded", metrics={"steps": 40})
    expect(page.locator(".page-head .badge")).to_have_text("succeeded")
    expect(page.get_by_text("Measured on the held-out rows when the job ends.")).to_have_count(0)


def test_curves_start_anew_with_another_attempt(open_staff_page: Open, running_job: TrainingJob) -> None:
    log(running_job, *range(1, 9))
    page = open_staff_page(f"/training/{running_job.pk}/")
    loss = page.get_by_role("img", name="Loss: ")
    expect(loss).to_have_attribute("aria-label", "Loss: 0.61 at the last logged step")
    leases.requeue_job(running_job)
    again = leases.claim_job(TrainingJob, running_job.pk, "node:2:b")
    assert again is not None
    for step in range(1, 9):
        jobs.record_progress(again, [{"step": step, "total_steps": 40, "loss": 0.3}])
    expect(loss).to_have_attribute("aria-label", "Loss: 0.30 at the last logged step")


def test_a_job_is_launched_and_watched_without_scripts(
    open_staff_page: Open, base: Checkpoint, project: Project
) -> None:
    snapshot = create_snapshot(project, "helpful-r1", eval_share=0.25)
    page = open_staff_page(f"/training/new/?snapshot={snapshot.pk}&base={base.pk}", java_script_enabled=False)
    page.get_by_role("radio", name="Supervised fine-tuning").check()
    page.get_by_role("button", name="Show this method’s options").click()
    page.get_by_text("More options").click()
    expect(page.get_by_label("Packing")).to_be_visible()
    page.get_by_role("button", name="Check").click()
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".page-head .badge")).to_have_text("queued")
    job = TrainingJob.objects.get()
    assert (job.method, job.snapshot) == ("sft", DatasetSnapshot.objects.get())
    claimed = leases.claim_job(TrainingJob, job.pk, "node:1:a")
    assert claimed is not None
    log(claimed, 1, 2)
    page.reload()
    expect(page.get_by_role("img", name="Loss: 0.67 at the last logged step")).to_be_visible()
    page.get_by_text("The numbers behind the curves").click()
    expect(page.get_by_role("row", name="2 loss 0.67")).to_be_visible()
    page.get_by_role("link", name="Stop and keep").click()
    page.get_by_role("button", name="Stop and keep").click()
    expect(page.get_by_text("to keep what was learnt")).to_be_visible()
