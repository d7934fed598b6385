"""The list of jobs: pages, filters, and what is ticked on the way to the comparison."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from rlhf.models import Checkpoint
from rlhf.services import request_cancel
from tests.pages.training import make_job

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]


def shown(text: str) -> list[int]:
    return [int(number) for number in re.findall(r'<a href="/training/(\d+)/">', text)]


def test_older_jobs_are_reached_and_ticks_go_along(
    page: Client, base: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlhf.views.job_list.JOBS_SHOWN", 2)
    first, second, third = (make_job(base) for _ in range(3))
    text = page.get("/training/").content.decode()
    assert shown(text) == [third.pk, second.pk]
    assert f'name="before" value="{second.pk}"' in text
    assert "Newest" not in text
    older = page.get(f"/training/?before={second.pk}&job={third.pk}&job={first.pk}").content.decode()
    assert shown(older) == [first.pk]
    assert 'name="before"' not in older
    assert f'<input type="hidden" name="job" value="{third.pk}" form="compare">' in older
    assert "1 job that is not on this page is ticked, too." in older
    assert re.search(rf'value="{first.pk}" id="compare-{first.pk}" checked', older)
    assert f"/training/rows/?before={second.pk}" in older  # what it polls is this page
    assert shown(page.get(f"/training/rows/?before={second.pk}").content.decode()) == [first.pk]


def test_the_list_is_narrowed(page: Client, base: Checkpoint) -> None:
    cancelled, reward, dpo = make_job(base), make_job(base, "reward"), make_job(base)
    request_cancel(cancelled)
    assert dpo.snapshot is not None
    for query, jobs in (
        ("status=cancelled", [cancelled]),
        ("method=dpo", [dpo, cancelled]),
        ("method=reward&status=queued", [reward]),
        (f"project={dpo.snapshot.project.slug}", [dpo]),
        ("before=much", [dpo, reward, cancelled]),
    ):
        text = page.get(f"/training/?{query}").content.decode()
        assert shown(text) == [job.pk for job in jobs], query
    nothing = page.get("/training/?method=ppo").content.decode()
    assert "No job is like that." in nothing
    assert '<option value="ppo" selected>' in nothing
    assert "Nothing has been trained yet" not in nothing
