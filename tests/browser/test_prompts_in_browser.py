"""Prompts in a real browser: ticking and editing by keyboard, undo, and a table from the file to the list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from annotation.models import Comparison, DataJobKind, Prompt
from annotation.services import data_jobs, refresh_browse_index
from tests.factories import make_project, make_prompt, make_user

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]
Open = Callable[..., Page]


def test_prompts_are_ticked_edited_and_brought_back_and_a_table_comes_in(
    open_page: Open, settings: Any, tmp_path: Path
) -> None:
    settings.UPLOADS_DIR = tmp_path / "uploads"
    settings.UPLOAD_MAX_BYTES = 5_000
    boss = make_user("boss", is_staff=True)
    project = make_project("p")
    for number in range(6):
        make_prompt(project, f"What is rain, part {number}?")
    refresh_browse_index()
    page = open_page("/projects/p/prompts/?query=rain", user="boss")
    expect(page.locator("mark").first).to_have_text("rain")

    # Shift marks everything between two ticks; the line below says how many.
    page.get_by_label("Prompt", exact=False).first.focus()
    boxes = page.locator("input[name=ids]")
    boxes.nth(1).press("Space")
    boxes.nth(3).click(modifiers=["Shift"])
    expect(page.locator("[data-ticked]")).to_have_text("3 ticked")
    page.get_by_text("Edit prompts").press("Enter")
    page.get_by_label("Task", exact=True).last.fill("weather")
    page.get_by_label("Add tags").fill("wet, cold")
    page.get_by_label("Add tags").press("Enter")
    expect(page.get_by_text("3 prompts changed.")).to_be_visible()
    assert Prompt.objects.filter(task="weather", tags=["cold", "wet"]).count() == 3
    page.get_by_role("button", name="Undo it").click()
    expect(page.get_by_text("3 prompts are as they were before.")).to_be_visible()
    assert not Prompt.objects.filter(task="weather").exists()

    page.get_by_role("link", name="Add prompts").click()
    page.get_by_label("File").set_input_files(
        {"name": "large.csv", "mimeType": "text/csv", "buffer": b"prompt\n" + b"x" * 6000}
    )
    expect(page.get_by_role("alert")).to_contain_text("The file is larger than")  # before anything is sent
    table = "question,one,two\nWhy?,Because.,No.\n什么是雪？,冻结的水。,不知道。\nbroken\n"
    page.get_by_label("File").set_input_files({"name": "t.csv", "mimeType": "text/csv", "buffer": table.encode()})
    expect(page.get_by_role("alert")).to_be_hidden()
    page.get_by_role("button", name="Look at it").click()
    page.get_by_label("Response A").select_option("one")
    page.get_by_label("Response B").select_option("two")
    page.get_by_role("button", name="Show the rows like this").click()
    expect(page.get_by_text("冻结的水。")).to_be_visible()
    page.get_by_role("button", name="Check the whole file").click()
    expect(page.get_by_text("it has 1 fields and the header has 3")).to_be_visible()
    page.get_by_label("Import the others without this 1 row").check()
    page.get_by_role("button", name="Import").click()
    expect(page.get_by_text("Imported: 2 prompts, 2 comparisons.")).to_be_visible()
    expect(page.get_by_role("heading", name="8 prompts")).to_be_visible()
    assert Comparison.objects.count() == 2

    # Long work: its page follows it to the end without being asked to.
    job = data_jobs.start_data_job(project, DataJobKind.SCAN, {}, user=boss, at_once=False)
    page.goto(f"/projects/p/prompts/work/{job.pk}/")
    expect(page.get_by_text("waiting for a worker")).to_be_visible()
    data_jobs.run_data_job(job.pk, beats=False)
    expect(page.get_by_role("link", name="Go on")).to_be_visible()
