"""What pages leave to a worker, done by a real one on a real broker."""

from __future__ import annotations

from datetime import timedelta
from itertools import groupby

import pytest
from django.utils import timezone

from annotation import services
from annotation.models import Comparison, Project, Prompt, StoredFigures
from rlhf.overview import project_overview
from tests.celery_workers import Workers
from tests.factories import make_comparison, make_judgment, make_project
from tests.test_embedded import wait_for
from tests.test_worker import broker, workers  # noqa: F401

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def topics_in_order(project: Project) -> list[str]:
    return list(project.comparisons.order_by("queue_key").values_list("prompt__topic", flat=True))


def test_a_worker_counts_reorders_and_changes_what_was_left_to_it(
    workers: Workers,  # noqa: F811
) -> None:
    project = make_project(judgments_per_comparison=2)
    for number in range(12):
        comparison = make_comparison(project)
        Prompt.objects.filter(pk=comparison.prompt_id).update(topic=f"topic {number % 2}")
    keys = {comparison.pk: number for number, comparison in enumerate(project.comparisons.order_by("pk"))}
    for pk, key in keys.items():  # the topics by turns
        Comparison.objects.filter(pk=pk).update(queue_key=key)
    make_judgment(project.comparisons.latest("pk"))
    Comparison.objects.filter(pk=min(keys)).update(required_count=5)  # drawn for more people

    # Figures that were dear and are old: shown as they are, and asked for.
    old = {"prompts": 1, "tasks": 0, "responses": 2, "sources": 2, "judgments": 0, "people": 0, "needed": 1}
    long_ago = timezone.now() - timedelta(hours=1)
    figures = StoredFigures.objects.create(project=project, name="loop", data=old, seconds=1.0, computed_at=long_ago)
    assert project_overview(project).prompts == 1
    services.update_settings(project, None, topic_batches=True)
    services.update_settings(project, None, judgments_per_comparison=3)
    services.ask_of_existing(project, before=2, by=None)
    assert topics_in_order(project)[:3] == ["topic 0", "topic 1", "topic 0"]
    assert set(project.comparisons.values_list("required_count", flat=True)) == {2, 5}

    worker = workers.start(queues="default")

    def is_done() -> bool:
        figures.refresh_from_db()
        return (
            figures.data["prompts"] == 12
            and len(list(groupby(topics_in_order(project)))) == 2
            and sorted(project.comparisons.values_list("required_count", flat=True)) == [*[3] * 11, 5]
        )

    assert wait_for(is_done, 120), f"{figures.data} {topics_in_order(project)}\n{workers.log()[-4000:]}"
    assert figures.data["judgments"] == 1 and figures.computed_at > long_ago
    assert project_overview(project).as_of >= figures.computed_at
    assert worker.poll() is None
