"""What a reward model cannot tell apart among a project's open comparisons: people judge that first."""

from __future__ import annotations

import logging
from math import exp
from typing import Any

from celery import current_app
from django.contrib.auth.models import User
from django.utils.translation import gettext

from annotation.models import Comparison, EventKind, Project, QueueTier
from annotation.models.comparing import IS_OPEN
from annotation.services import DomainError, record_event, set_uncertainties
from rlhf.models import Checkpoint, CheckpointKind, queue_of
from rlhf.scorer import score_rows
from rlhf.services.leases import broker_is_up

logger = logging.getLogger(__name__)

MOST_SCORED = 2000
"""Comparisons that one run scores, those that come next first."""
PATIENCE_SECONDS = 6 * 3600


def request_uncertainties(project: Project, reward_model: Checkpoint, *, user: User) -> None:
    """Have a worker rate them. Raises DomainError where this cannot be, or no message can be sent."""
    _open_pairs(project, reward_model)
    if not broker_is_up():
        raise DomainError(
            gettext("the message broker is away, so no worker can be asked; ask again, or use rate_uncertainty")
        )
    current_app.send_task(
        "rlhf.tasks.rate_uncertainties",
        args=[project.pk, reward_model.pk, user.pk],
        queue=queue_of(""),
        expires=PATIENCE_SECONDS,
    )


def rate_uncertainties(
    project: Project, reward_model: Checkpoint, *, limit: int = MOST_SCORED, by: User | None = None
) -> dict[str, int]:
    """Score the open comparisons that nobody has judged and put what the model cannot tell apart first.

    The uncertainty is 1 − 2·|p − ½| with p = σ(score a − score b), as Bradley–Terry reads scores. Gives how many were
    scored, how many of them are now first, and how many were too long for the model. Raises DomainError where there
    is nothing to score, or scoring fails.
    """
    pairs = _open_pairs(project, reward_model)[:limit]
    rows: list[dict[str, Any]] = [
        {"id": pair.pk, "prompt": pair.prompt.messages, "responses": [pair.response_a.text, pair.response_b.text]}
        for pair in pairs.select_related("prompt", "response_a", "response_b")
    ]
    scored = [row for row in score_rows(reward_model.path, rows)[0] if row["scores"] is not None]
    uncertainties = {row["id"]: _uncertainty(*row["scores"]) for row in scored}
    set_uncertainties(project, uncertainties, by=by, reward_model=reward_model.name)
    first = Comparison.objects.filter(pk__in=uncertainties, tier=QueueTier.UNCERTAIN).count()
    return {"scored": len(scored), "first": first, "left_out": len(rows) - len(scored)}


def _open_pairs(project: Project, reward_model: Checkpoint):  # type: ignore[no-untyped-def]
    if reward_model.kind != CheckpointKind.REWARD:
        raise DomainError(gettext("%(name)s writes responses; choose a reward model") % {"name": reward_model.name})
    pairs = Comparison.objects.filter(
        IS_OPEN,
        project=project,
        response_count=2,
        tier__in=[QueueTier.UNCERTAIN, QueueTier.NEW],
        # One that answers another history than its prompt's has nothing to be held against.
        response_a__messages__isnull=True,
        response_b__messages__isnull=True,
    ).order_by("queue_key", "pk")
    if not pairs.exists():
        raise DomainError(
            gettext("%(name)s has no open pair of responses that nobody has judged") % {"name": project.name}
        )
    return pairs


def _uncertainty(a: float, b: float) -> float:
    gap = min(abs(a - b), 500.0)  # beyond, exp overflows
    return 1 - abs(2 / (1 + exp(-gap)) - 1)


def run_request(project_id: int, checkpoint_id: int, user_id: int) -> None:
    """What a worker does with a message: whatever becomes of it stands in the project's journal."""
    project = Project.objects.get(pk=project_id)
    reward_model = Checkpoint.objects.get(pk=checkpoint_id)
    user = User.objects.get(pk=user_id)
    try:
        rate_uncertainties(project, reward_model, by=user)
    except DomainError as refused:
        logger.warning(
            "uncertainties not rated: project=%s reward_model=%s error=%s", project_id, checkpoint_id, refused
        )
        record_event(
            EventKind.EDIT,
            project=project,
            user=user,
            action="uncertainties",
            reward_model=reward_model.name,
            error=str(refused),
        )
