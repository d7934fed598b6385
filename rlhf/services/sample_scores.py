"""Reward-model scores of what jobs wrote to their sample prompts: the same judge for jobs of every method."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from typing import Any

from celery import current_app
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext

from annotation.services import DomainError
from rlhf.jobspec import SHOWN_CHARACTERS
from rlhf.models import Checkpoint, CheckpointKind, InsightKind, SampleScores, TrainingJob, queue_of
from rlhf.models.sample_scores import PATIENCE
from rlhf.scorer import score_rows
from rlhf.services.leases import broker_is_up

logger = logging.getLogger(__name__)

Row = dict[str, Any]


def request_sample_scores(jobs: Sequence[TrainingJob], reward_model: Checkpoint) -> list[SampleScores]:
    """Ask a worker for the scores. Raises DomainError where no job has samples or no message can be sent."""
    with transaction.atomic():  # where nobody can be asked, what was scored last time stays
        asked = prepare_sample_scores(jobs, reward_model)
        if not broker_is_up():
            raise DomainError(
                gettext("the message broker is away, so no worker can be asked; ask again, or use score_samples")
            )
    current_app.send_task(
        "rlhf.tasks.score_samples",
        args=[[scores.pk for scores in asked]],
        queue=queue_of(""),
        expires=PATIENCE.total_seconds(),
    )
    return asked


def prepare_sample_scores(jobs: Sequence[TrainingJob], reward_model: Checkpoint) -> list[SampleScores]:
    """Rows that wait for scores, of those jobs that have samples. Raises DomainError where none has."""
    if reward_model.kind != CheckpointKind.REWARD:
        raise DomainError(gettext("%(name)s writes responses; choose a reward model") % {"name": reward_model.name})
    asked = []
    for job in jobs:
        if _samples(job):
            scores, _ = SampleScores.objects.update_or_create(
                job=job,
                reward_model=reward_model,
                defaults={"asked_at": timezone.now(), "scored_at": None, "error": "", "values": [], "left_out": 0},
            )
            asked.append(scores)
    if not asked:
        raise DomainError(gettext("none of these jobs has written samples, so there is nothing to score"))
    return asked


def score_samples(pks: Sequence[int]) -> None:
    """Score what waits among these rows, with one process for each reward model; what goes wrong is stored."""
    waiting = SampleScores.objects.filter(pk__in=pks, scored_at=None, error="").select_related("job", "reward_model")
    by_model: dict[Checkpoint, list[SampleScores]] = {}
    for scores in waiting:
        by_model.setdefault(scores.reward_model, []).append(scores)
    for reward_model, asked in by_model.items():
        try:
            _score(reward_model, asked)
        except DomainError as error:
            logger.warning("samples not scored: reward_model=%s error=%s", reward_model.pk, error)
            SampleScores.objects.filter(pk__in=[scores.pk for scores in asked]).update(error=str(error))


def _score(reward_model: Checkpoint, asked: Sequence[SampleScores]) -> None:
    rows: list[Row] = []
    for scores in asked:
        steps = _samples(scores.job)
        scores.step = max(steps, default=0)
        before = {_key(row): row for row in steps.get(0, [])}
        for row in steps.get(scores.step, []):
            first = before.get(_key(row))
            if first is not None and not _is_cut_for_show(row, first):
                responses = [first["text"], row["text"]]
                rows.append({"of": scores.pk, "prompt": row["prompt"], "responses": responses, "cut": row["is_cut"]})
            else:
                scores.left_out += 1
    scored = score_rows(reward_model.path, rows, exact=True)[0] if rows else []
    for scores in asked:
        mine = [row for row in scored if row["of"] == scores.pk]
        scores.values = [
            {"prompt": _key(row), "before": row["scores"][0], "after": row["scores"][1], "is_cut": row["cut"]}
            for row in mine
            if row["scores"] is not None
        ]
        scores.left_out += len(mine) - len(scores.values)
        scores.scored_at = timezone.now()
        scores.save(update_fields=["step", "values", "left_out", "scored_at"])


def _samples(job: TrainingJob) -> dict[int, list[Row]]:
    """Step → what was written then to the fixed prompts; nothing of a reward model, which writes nothing."""
    shown = job.insights.filter(kind=InsightKind.SAMPLES).values_list("step", "values")
    by_step = {step: [row for row in values.get("rows", []) if "text" in row] for step, values in shown}
    return {step: rows for step, rows in by_step.items() if rows}


def _key(row: Row) -> str:
    return hashlib.sha256(json.dumps(row["prompt"], sort_keys=True).encode()).hexdigest()


def _is_cut_for_show(*rows: Row) -> bool:
    texts = [row["text"] for row in rows] + [message["content"] for row in rows for message in row["prompt"]]
    return any(len(text) > SHOWN_CHARACTERS for text in texts)
