"""How many queries the pages cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from django.test import Client

from annotation import services, stored_figures
from rlhf.models import Checkpoint, DatasetSnapshot, TrainingJob
from rlhf.services import (
    create_snapshot,
    publish_checkpoint,
    queue_generation_job,
    queue_training_job,
)
from tests.factories import (
    make_judged_project,
    make_user,
)
from tests.pages.training import finish, log_steps

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]


def test_every_page_takes_as_many_queries_for_many_rows_as_for_few(
    page: Client,
    base: Checkpoint,
    tiny_model: Path,
    django_assert_max_num_queries: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stored_figures, "PATIENCE_SECONDS", 3600)  # or a slow machine keeps some of them
    project = make_judged_project(4)
    publish_checkpoint(base)

    def add_more() -> None:
        snapshot = create_snapshot(project, f"set-{uuid4().hex[:8]}", eval_share=0.25)
        for _ in range(2):
            done = queue_training_job(snapshot=snapshot, method="dpo", base=base, options={})
            finish(log_steps(done, 3), tiny_model, **{"eval_rewards/accuracies": 1.0, "eval_rows_used": 1})
            log_steps(queue_training_job(snapshot=snapshot, method="sft", base=base, options={}), 3)
            queue_generation_job(project=project, source=base.source)  # type: ignore[arg-type]
            services.add_member(project, make_user())
            services.edit_guidelines(project, f"Text {uuid4()}.", member)

    member = make_user()
    services.add_member(project, member)
    base.refresh_from_db()
    add_more()
    snapshot = DatasetSnapshot.objects.latest("pk")
    job = TrainingJob.objects.filter(status="running").latest("pk")
    checkpoint = Checkpoint.objects.latest("pk")
    pages = {
        "/projects/": 6,
        f"/projects/{project.slug}/": 60,
        f"/projects/{project.slug}/strip/": 26,
        f"/projects/{project.slug}/people/": 20,
        f"/projects/{project.slug}/people/{member.pk}/": 20,
        f"/projects/{project.slug}/progress/": 27,
        f"/projects/{project.slug}/settings/": 4,
        f"/projects/{project.slug}/guidelines/": 4,
        f"/projects/{project.slug}/journal/": 4,
        "/journal/": 3,
        f"/projects/{project.slug}/prompts/": 12,
        f"/projects/{project.slug}/prompts/?query=weather&state=3": 14,
        f"/projects/{project.slug}/prompts/comparisons/": 10,
        f"/projects/{project.slug}/prompts/duplicates/": 8,
        f"/projects/{project.slug}/prompts/personal-data/": 6,
        f"/projects/{project.slug}/generate/": 9,
        f"/projects/{project.slug}/generate/jobs/": 5,
        "/data-sets/": 6,
        f"/data-sets/{snapshot.pk}/": 5,
        "/training/": 6,
        "/training/rows/": 6,
        "/training/new/": 9,
        f"/training/{job.pk}/": 15,
        f"/training/{job.pk}/?tab=log": 10,
        f"/training/{job.pk}/?tab=options": 10,
        f"/training/{job.pk}/progress/": 9,
        "/checkpoints/": 4,
        f"/checkpoints/{checkpoint.pk}/": 14,
        f"/api/jobs/{job.pk}/metrics": 6,
    }
    costs = {}
    for address, most in pages.items():
        with django_assert_max_num_queries(most, info=f"{address} costs more") as queries:
            assert page.get(address).status_code == 200
        costs[address] = len(queries)
    add_more()
    for address in pages:
        with django_assert_max_num_queries(costs[address], info=f"{address} costs more"):
            assert page.get(address).status_code == 200
