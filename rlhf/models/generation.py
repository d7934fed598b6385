"""Bulk sampling of responses."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from annotation.models import Project, ResponseSource
from rlhf.models.leased import LeasedJob, leased_job_constraints


class GenerationJob(LeasedJob):
    """Sampling responses of one source for every prompt of a project, and the comparisons made of them.

    Idempotent by (prompt, source, sample_index): running it again fills what is missing. For an evaluation: one
    response to each of some prompts, which nobody compares, idempotent by (prompt, source, sampling).
    """

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="generation_jobs")
    source = models.ForeignKey(ResponseSource, on_delete=models.PROTECT, related_name="generation_jobs")
    # Compare each new response with this source's; empty compares the source's own samples with each other.
    against = models.ForeignKey(
        ResponseSource, on_delete=models.PROTECT, null=True, blank=True, related_name="generation_jobs_against"
    )
    prompt_ids = ArrayField(
        models.BigIntegerField(), null=True, blank=True, help_text="Of an evaluation's prompts; empty: of all."
    )
    per_prompt = models.PositiveSmallIntegerField(default=2)
    sampling = models.JSONField(default=dict, help_text="temperature, top_p, max_tokens, seed")
    response_total = models.PositiveIntegerField(default=0)
    response_count = models.PositiveIntegerField(default=0)
    comparison_count = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [
            *leased_job_constraints("generationjob"),
            models.CheckConstraint(condition=Q(per_prompt__gte=1), name="generationjob_per_prompt_positive"),
        ]

    def __str__(self) -> str:
        return f"generation {self.pk}"
