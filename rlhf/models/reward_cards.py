"""What was measured of reward models."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone

from rlhf.models.checkpoints import Checkpoint


class RewardCard(models.Model):
    """A reward model's card on one set of judged pairs: those held out from its training, or a file's."""

    checkpoint = models.ForeignKey(Checkpoint, on_delete=models.PROTECT, related_name="reward_cards")
    data_name = models.CharField(max_length=200, blank=True, help_text="The file; empty: its own held-out pairs.")
    data_sha256 = models.CharField(max_length=64)
    values = models.JSONField(help_text="As rlhf/evaluation/reward_report.py makes it.")
    made_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(data_sha256__length=64), name="rewardcard_sha256_length"),
            # The same model on the same pairs has one card; measuring again replaces it.
            models.UniqueConstraint(fields=["checkpoint", "data_sha256"], name="rewardcard_once"),
        ]

    def __str__(self) -> str:
        return f"{self.checkpoint} on {self.data_name or 'its held-out pairs'}"
