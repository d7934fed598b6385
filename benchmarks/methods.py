"""GRPO, PPO, DPO and KTO on the same data, from votes to votes, in the table of the page that compares jobs.

    python -m benchmarks.methods [--methods grpo grpo_token_kl ppo dpo kto] [--prompts 64] [--steps 30]

Everything goes the way that it goes for people: the base writes four responses to each prompt through the model
server, somebody judges them blind, the votes are frozen, a reward model learns from them, a Celery worker trains each
method on them from the same base, what came of it writes for the same prompts, and is judged blind against the base's
responses.

The base is a model of 60,000 random weights, which writes bytes at random. The scripted person prefers the response
with more legible characters (printable ASCII), with every tenth vote the opposite of what was meant. The on-policy
methods see the reward model alone. One seed, and small data: this is about the table and the cost, not about which
method wins.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmarks.measure import machine
from benchmarks.servers import ROOT, free_port, prepared_django

if TYPE_CHECKING:
    from annotation.models import Annotator, Project
    from rlhf.models import Checkpoint, DatasetSnapshot, GenerationJob, TrainingJob

METHODS = ("grpo", "grpo_token_kl", "ppo", "dpo", "kto")
ON_POLICY = ("grpo", "grpo_token_kl", "ppo")
NOISE = 0.1
SAMPLING = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 24}
COMMON = {
    "use_lora": False,
    "bf16": False,
    "scheduler": "constant",
    "learning_rate": 3e-3,
    "max_tokens": 256,
    "sample_prompts": 16,
    "sample_tokens": 24,
}
REWARD = {**COMMON, "epochs": 4, "batch_size": 8}
OFF_POLICY = {**COMMON, "batch_size": 16, "micro_batch_size": 8}
SAMPLED = {**COMMON, "batch_size": 48, "micro_batch_size": 24, "max_completion_tokens": 24}


def legible(text: str) -> float:
    """The share of characters that are printable ASCII."""
    return sum(" " <= letter <= "~" for letter in text) / max(1, len(text))


def options_of(method: str, steps: int, reward: dict[str, Any]) -> dict[str, Any]:
    """Steps are those of the on-policy methods; the others make as many with a third of the rows."""
    if method not in ON_POLICY:
        return {**OFF_POLICY, "max_steps": steps}
    samples = {"grpo": 4, "grpo_token_kl": 3, "ppo": 1}[method]
    # Nobody is there to resume one.
    return {**SAMPLED, "max_steps": steps, "samples_per_prompt": samples, "pause_on_alarm": False, **reward}


def queue_methods(
    methods: Sequence[str], snapshot: DatasetSnapshot, base: Checkpoint, *, steps: int, reward: dict[str, Any]
) -> list[TrainingJob]:
    """A job for each method on one data set from one base; `reward` is what scores the samples of on-policy ones."""
    from rlhf.services import queue_training_job

    return [
        queue_training_job(
            snapshot=snapshot,
            method=method,
            base=base,
            options=options_of(method, steps, reward),
            name=method.replace("_", "-"),
            proceed=True,
        )
        for method in methods
    ]


def table(jobs: Sequence[TrainingJob]) -> str:
    """What the page shows of finished jobs, as Markdown."""
    from rlhf.comparison import compare
    from rlhf.comparison_files import as_markdown
    from rlhf.job_measures import measure
    from rlhf.models import TrainingJob
    from rlhf.scored_samples import scored_samples

    related = TrainingJob.objects.select_related("snapshot__project", "base__source", "checkpoint__source")
    fresh = related.in_bulk([job.pk for job in jobs])
    found = [fresh[job.pk] for job in jobs]
    return as_markdown(compare(found, *measure(found, scored_samples(found))))


# ── The whole way, with servers ──────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def servers() -> Iterator[None]:
    """A broker, a worker for training and one for sampling, and the model server, beside the database."""
    from django.conf import settings

    from config.embedded import runner, valkey
    from config.embedded.starter_model import model_environment

    port = int(os.environ["TOUCHSTONE_MODEL_SERVER_PORT"])
    settings.LOG_DIR.mkdir(parents=True, exist_ok=True)
    commands = {
        "train": (runner.worker_command("train"), None),
        "generate": (runner.worker_command("generate"), None),
        "model-server": (runner.model_server_command(port), model_environment()),
    }
    broker = valkey.start(settings.DATA_DIR, settings.SOCKET_DIR, settings.LOG_DIR / "valkey.log")
    started = []
    try:
        for name, (command, environment) in commands.items():
            with (settings.LOG_DIR / f"{name}.log").open("ab") as log:
                started.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log))
        yield
    finally:
        for process in reversed(started):
            runner.terminate(process)
        valkey.stop(broker)


def finished(job: TrainingJob | GenerationJob) -> None:
    while not job.is_finished:
        time.sleep(0.5)
        job.refresh_from_db()
    say(f"{job}: {job.status}")
    if job.status != "succeeded":
        sys.exit(f"{job}: {job.error}")


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def judge_everything(project: Project, annotator: Annotator, rng: random.Random) -> int:
    """Claim and judge until nothing is left; gives the number of votes."""
    from annotation import services
    from annotation.answer import Answer
    from annotation.models import Comparison

    votes = 0
    while assignments := services.claim_assignments(annotator=annotator, project=project):
        for assignment in assignments:
            comparison = Comparison.objects.select_related("response_a", "response_b").get(pk=assignment.comparison_id)
            gap = legible(comparison.response_b.text) - legible(comparison.response_a.text)
            strength = 0 if abs(gap) < 0.02 else 1 if abs(gap) < 0.1 else 2 if abs(gap) < 0.3 else 3
            sign = (1 if gap > 0 else -1) * (-1 if rng.random() < NOISE else 1)
            shown = sign * strength if assignment.a_shown_on_left else -sign * strength
            services.submit_judgment(
                assignment_id=assignment.public_id,
                annotator=annotator,
                judgment_id=uuid4(),
                answer=Answer(choice=str(shown)),
            )
            votes += 1
    return votes


def run(methods: Sequence[str], prompts: int, steps: int) -> str:
    from django.conf import settings
    from django.contrib.auth.models import User

    from annotation import services
    from rlhf.jobspec import write_manifest
    from rlhf.models import Checkpoint, SampleScores
    from rlhf.services import (
        create_snapshot,
        publish_checkpoint,
        queue_generation_job,
        queue_training_job,
        register_base_checkpoint,
        request_sample_scores,
    )
    from tests.tiny_model import build_tiny_model

    rng = random.Random(1)
    project = services.create_project(slug="methods", name="Methods")
    for number in range(prompts):
        services.add_prompt(project, [{"role": "user", "content": f"What is the answer to question {number}?"}])
    reader = User.objects.create_user("reader")
    services.add_member(project, reader)
    annotator = services.annotator_for(reader)
    model = build_tiny_model(settings.MODELS_DIR / "tiny")
    write_manifest(model)
    base = register_base_checkpoint("tiny", model)
    of_base = publish_checkpoint(base)
    finished(queue_generation_job(project=project, source=of_base, per_prompt=4, sampling=SAMPLING))
    say(f"{judge_everything(project, annotator, rng)} votes")
    snapshot = create_snapshot(project, "methods", eval_share=0.25)

    taste = queue_training_job(
        snapshot=snapshot, method="reward", base=base, options=REWARD, name="taste", proceed=True
    )
    finished(taste)
    accuracy, pairs = taste.metrics["eval_accuracy"], taste.metrics["eval_pairs"]
    say(f"the reward model is right on {accuracy:.1%} of {pairs:.0f} held-out pairs")

    jobs = queue_methods(methods, snapshot, base, steps=steps, reward={"reward_model": "taste"})
    for job in jobs:
        finished(job)
        job = type(job).objects.select_related("checkpoint").get(pk=job.pk)
        source = publish_checkpoint(job.checkpoint)
        finished(
            queue_generation_job(project=project, source=source, against=of_base, per_prompt=2, sampling=SAMPLING)
        )
        say(f"{judge_everything(project, annotator, rng)} votes")
    asked = request_sample_scores(jobs, Checkpoint.objects.get(name="taste"))
    while SampleScores.objects.filter(pk__in=[scores.pk for scores in asked], scored_at=None, error="").exists():
        time.sleep(0.5)
    return table(jobs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--prompts", type=int, default=64, help="a quarter of them are held out")
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    with prepared_django(environment={"TOUCHSTONE_MODEL_SERVER_PORT": str(free_port())}), servers():
        print(run(arguments.methods, arguments.prompts, arguments.steps))
    print(f"machine: {machine()}")


if __name__ == "__main__":
    main()
