"""What reward models say of the answers that jobs wrote to their sample prompts: one judge for every method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean, stdev
from typing import Any

from django.utils.translation import gettext
from scipy import special

from rlhf.comparison import Column, Value
from rlhf.models import Checkpoint, SampleScores, TrainingJob

Measured = dict[str, Value]


@dataclass(frozen=True)
class ScoredSamples:
    """What one reward model says of the samples of several jobs, on the prompts that all of them answered."""

    reward_model: Checkpoint
    by_job: dict[int, list[dict[str, Any]]]
    """Rows of SampleScores.values, of the same prompts in the same order."""
    steps: list[int]
    left_out: int
    scored_at: datetime

    @property
    def prompts(self) -> int:
        return max(map(len, self.by_job.values()))

    @property
    def answers(self) -> int:
        return sum(map(len, self.by_job.values()))

    @property
    def cut(self) -> int:
        return sum(row["is_cut"] for rows in self.by_job.values() for row in rows)

    def columns(self) -> list[Column]:
        name = {"name": self.reward_model.name}
        return [
            Column(f"samples:{self.reward_model.pk}", gettext("Samples, scored by %(name)s") % name, "higher"),
            Column(f"gain:{self.reward_model.pk}", gettext("… more than at step 0"), "higher"),
        ]

    def measured_base(self) -> Measured:
        """Where all jobs began at the same model: what it had at step 0."""
        rows = next(iter(self.by_job.values()))
        if not rows:
            return {}
        samples, _ = self.columns()
        return {samples.name: mean_value([row["before"] for row in rows])}

    def measured(self, job: TrainingJob) -> Measured:
        rows = self.by_job.get(job.pk)
        if not rows:
            return {}
        samples, gain = self.columns()
        return {
            samples.name: mean_value([row["after"] for row in rows]),
            gain.name: mean_value([row["after"] - row["before"] for row in rows]),
        }


def scored_samples(jobs: Sequence[TrainingJob]) -> list[ScoredSamples]:
    """By reward model, of those that have scored samples of these jobs."""
    by_model: dict[Checkpoint, list[SampleScores]] = {}
    stored = SampleScores.objects.filter(job__in=jobs, scored_at__isnull=False, error="")
    for scores in stored.select_related("reward_model").order_by("reward_model__name", "job"):
        by_model.setdefault(scores.reward_model, []).append(scores)
    found = []
    for reward_model, of_jobs in by_model.items():
        rows = {scores.job_id: {row["prompt"]: row for row in scores.values} for scores in of_jobs}
        common = sorted(set.intersection(*map(set, rows.values())))
        found.append(
            ScoredSamples(
                reward_model,
                {job: [by_prompt[prompt] for prompt in common] for job, by_prompt in rows.items()},
                steps=sorted({scores.step for scores in of_jobs}),
                left_out=sum(scores.left_out for scores in of_jobs),
                scored_at=max(scores.scored_at for scores in of_jobs if scores.scored_at),
            )
        )
    return found


def mean_value(values: Sequence[float]) -> Value:
    """The mean with its 95 % interval by Student's t, which few values need; one value has none."""
    mean, count = fmean(values), len(values)
    if count < 2:
        return Value(mean, count=count)
    half = float(special.stdtrit(count - 1, 0.975)) * stdev(values) / math.sqrt(count)
    return Value(mean, mean - half, mean + half, count)
