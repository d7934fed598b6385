"""What a merge is made of."""

from __future__ import annotations

from django.db import models

from rlhf.models.training import TrainingJob


class MergeInput(models.Model):
    """A checkpoint that a merging job takes, beside its base: a further parent of the checkpoint that it makes."""

    job = models.ForeignKey(TrainingJob, on_delete=models.CASCADE, related_name="merge_inputs")
    checkpoint = models.ForeignKey("Checkpoint", on_delete=models.PROTECT, related_name="merged_into")
    position = models.PositiveSmallIntegerField(help_text="Order in which the options name it.")
    weight = models.FloatField()

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["job", "checkpoint"], name="mergeinput_checkpoint_once"),
            models.UniqueConstraint(fields=["job", "position"], name="mergeinput_position_once"),
        ]

    def __str__(self) -> str:
        return f"{self.checkpoint_id} in {self.job_id}"
