"""Checkpoints: publishing, and how they are judged against their parents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.test import Client

from annotation import services
from annotation.models import ResponseSource
from rlhf.models import Checkpoint
from rlhf.services import move_alias, publish_checkpoint
from tests.factories import (
    make_judgment,
    make_prompt,
    make_response,
)
from tests.pages.training import finish, log_steps, make_job

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]


def test_a_checkpoint_is_published_and_offers_the_comparison_with_its_parent(
    page: Client, base: Checkpoint, tiny_model: Path
) -> None:
    job = log_steps(make_job(base), 2)
    project, parent_source = job.snapshot.project, publish_checkpoint(base)
    new = finish(job, tiny_model)
    make_response(project.prompts.first(), parent_source)  # type: ignore[arg-type]
    assert "Publish" in page.get("/checkpoints/").content.decode()
    text = page.post(f"/checkpoints/{new.pk}/publish/", follow=True).content.decode()
    new.refresh_from_db()
    assert new.source is not None
    assert f"source={new.source.pk}&amp;against={parent_source.pk}" in text
    opened = page.get(f"/projects/{project.slug}/generate/", {"source": new.source.pk, "against": parent_source.pk})
    assert f'<option value="{new.source.pk}" selected>' in opened.content.decode()
    assert f'<option value="{parent_source.pk}" selected>' in opened.content.decode()


def test_a_checkpoint_shows_how_it_is_judged_against_its_parent(
    page: Client, base: Checkpoint, tiny_model: Path
) -> None:
    job = log_steps(make_job(base), 2)
    project, old = job.snapshot.project, publish_checkpoint(base)
    checkpoint = finish(job, tiny_model)
    new = publish_checkpoint(checkpoint)
    for number in range(10):
        prompt = make_prompt(project)
        services.create_comparisons(project, [(make_response(prompt, old), make_response(prompt, new))])
        make_judgment(prompt.comparisons.get(), "b" if number < 7 else "a")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.get(f"/checkpoints/{checkpoint.pk}/").content.decode()))
    assert re.search(r"tiny its parent 70 % \(3\d % to 9\d %\) of 10", text)
    assert "10 responses in 10 comparisons; 10 judgments on 10 of them" in text
    # The same votes over all projects, the length held equal, and their rows.
    assert re.search(r"tiny its parent 70\.0 % \(3\d–9\d\) 70\.0 % \(\d+–\d+\) 10 10 10 as CSV", text)
    rows = page.get(f"/checkpoints/{checkpoint.pk}/votes/{base.pk}.csv").getvalue().decode().splitlines()
    assert len(rows) == 11 and sum("good" in row for row in rows) == 7
    base.refresh_from_db()
    move_alias("champion", base, why="It is the first.")
    assert "tiny champion" in re.sub(
        r"\s+", " ", re.sub(r"<[^>]*>", " ", page.get(f"/checkpoints/{checkpoint.pk}/").content.decode())
    )


def test_a_reward_model_is_not_published(page: Client, base: Checkpoint, tiny_model: Path) -> None:
    job = log_steps(make_job(base, "reward"), 2)
    checkpoint = finish(job, tiny_model, eval_accuracy=0.75, eval_pairs=100)
    assert "75.0 %" in page.get("/checkpoints/").content.decode()
    answer = page.post(f"/checkpoints/{checkpoint.pk}/publish/", follow=True)
    assert "is a reward model" in answer.content.decode()
    assert not ResponseSource.objects.filter(name=checkpoint.name).exists()
