"""What a reward model says of the answers that jobs wrote to their fixed sample prompts."""

from __future__ import annotations

from datetime import timedelta

from django.db import models
from django.utils import timezone

from rlhf.models.checkpoints import Checkpoint
from rlhf.models.training import TrainingJob

PATIENCE = timedelta(minutes=15)
"""What was asked of a worker longer ago is not coming."""


class SampleScores(models.Model):
    """One reward model's scores of one job's samples: asked for, then measured by a worker or a command."""

    job = models.ForeignKey(TrainingJob, on_delete=models.CASCADE, related_name="sample_scores")
    reward_model = models.ForeignKey(Checkpoint, on_delete=models.CASCADE, related_name="scores_of_samples")
    step = models.PositiveIntegerField(default=0, db_default=0, help_text="Of the samples; those of step 0 go along.")
    # [{"prompt", "before", "after", "is_cut"}]: scores at step 0 and at `step`; the prompt by its sha256.
    values = models.JSONField(default=list)
    left_out = models.PositiveIntegerField(default=0, db_default=0, help_text="Samples too long to be scored whole.")
    error = models.TextField(blank=True, db_default="")
    asked_at = models.DateTimeField(default=timezone.now)
    scored_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["job", "reward_model"], name="samplescores_once")]

    def __str__(self) -> str:
        return f"samples of {self.job_id} by {self.reward_model_id}"

    @property
    def is_awaited(self) -> bool:
        return not self.error and self.scored_at is None and timezone.now() < self.asked_at + PATIENCE
