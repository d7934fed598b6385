from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from annotation.management.script import ScriptCommand
from annotation.services import DomainError
from rlhf.comparison import Value
from rlhf.models import SampleScores, TrainingJob
from rlhf.scored_samples import scored_samples
from rlhf.services import find_checkpoint, prepare_sample_scores, score_samples


class Command(ScriptCommand):
    help = "Score what jobs wrote to their sample prompts with one reward model, here, and compare the jobs by it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--reward-model", required=True, metavar="NAME")
        parser.add_argument("--job", required=True, type=int, nargs="+", metavar="N", dest="jobs")

    def run(self, **options: Any) -> dict[str, Any]:
        jobs = list(TrainingJob.objects.filter(pk__in=options["jobs"]).order_by("pk"))
        if missing := set(options["jobs"]) - {job.pk for job in jobs}:
            raise DomainError(f"there is no job {min(missing)}")
        reward_model = find_checkpoint(options["reward_model"])
        asked = [scores.pk for scores in prepare_sample_scores(jobs, reward_model)]
        self.progress(f"scoring the samples of {len(asked)} jobs with {reward_model.name}")
        score_samples(asked)
        if failed := SampleScores.objects.filter(pk__in=asked).exclude(error="").first():
            raise DomainError(f"scoring failed: {failed.error}")
        [found] = [found for found in scored_samples(jobs) if found.reward_model == reward_model]
        by_job = {job: list(found.measured(job).values()) for job in jobs}
        return {
            "reward_model": reward_model.name,
            "prompts": found.prompts,
            "cut": found.cut,
            "left_out": found.left_out,
            "jobs": [
                {"job": job.pk, "name": str(job), "score": _interval(score), "gain": _interval(gain)}
                for job, (score, gain) in ((job, values) for job, values in by_job.items() if values)
            ],
        }


def _interval(value: Value) -> dict[str, float | None]:
    return {"mean": value.value, "lower": value.lower, "upper": value.upper}
