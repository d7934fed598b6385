"""What a worker does with a generation job: ask the model server for each missing response and store it.

The server is anything that speaks OpenAI's chat completions. A response is stored as soon as it arrives, so a crash
loses only what was under way, and people judge the first pairs while the last are being written.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import httpx
from django.conf import settings

from annotation import services as annotation
from annotation.chat import whole_characters
from annotation.models import Comparison, Prompt, ResponseSource
from rlhf.models import Checkpoint, GenerationJob, JobStatus
from rlhf.options import SpecError
from rlhf.services import generation, leases
from rlhf.supervisor import LeaseKeeper, worker_is_stopping, worker_name
from rlhf.token_lengths import chat_template_sha256

logger = logging.getLogger(__name__)

CONCURRENT_REQUESTS = 32
# A server that is away for longer than this fails the job; what is stored stays, and a new job goes on from there.
SERVER_PATIENCE_SECONDS = 120


class ModelServerError(Exception):
    """The model server refused, or stayed away; the sentence says which and what to do."""


@dataclass(frozen=True)
class Completion:
    text: str
    finish_reason: str


def complete(
    client: httpx.Client, base_url: str, model: str, messages: list[dict[str, str]], sampling: dict[str, Any]
) -> Completion:
    """One chat completion; waits for a server that is starting. Raises ModelServerError."""
    body = {"model": model, "messages": messages, "stream": False, **sampling}
    patience_ends = time.monotonic() + SERVER_PATIENCE_SECONDS
    pause = 0.5
    while True:
        try:
            answer = client.post(f"{base_url}/chat/completions", json=body)
        except httpx.TransportError as error:
            problem = f"the model server at {base_url} cannot be reached ({type(error).__name__})"
        else:
            if answer.status_code == 200:
                choice = answer.json()["choices"][0]
                text = whole_characters(choice["message"]["content"] or "")
                return Completion(text, choice.get("finish_reason") or "")
            problem = f"the model server at {base_url} answered {answer.status_code}: {answer.text[:300]}"
            if answer.status_code not in (429, 502, 503, 504):
                raise ModelServerError(problem)
        if time.monotonic() > patience_ends or worker_is_stopping.is_set():
            raise ModelServerError(f"{problem}; start it and generate again: what was stored is kept")
        time.sleep(pause)
        pause = min(pause * 2, 10)


def served_model(source: ResponseSource) -> str:
    """What to send as `model`: our own checkpoints are named by directory to the local server."""
    checkpoint = Checkpoint.objects.filter(source=source).first()
    return str(checkpoint.path) if checkpoint and not source.base_url else source.served_model


def template_sha256(source: ResponseSource) -> str:
    """The hash of the chat template that a local checkpoint's server renders with, or empty for a remote model."""
    checkpoint = Checkpoint.objects.filter(source=source).first()
    if checkpoint is None:
        return ""
    try:
        return chat_template_sha256(checkpoint.path)
    except SpecError:
        return ""


def run_generation_job(job_id: int) -> bool:
    """Run a queued job to its end; False where there was nothing to claim."""
    job = leases.claim_job(GenerationJob, job_id, worker_name())
    if job is None:
        return False
    with LeaseKeeper(job) as lease:
        error = _sample_missing(job, lease)
        if lease.is_lost:
            return True
        job.refresh_from_db(fields=["cancel_requested_at"])
        made = Comparison.objects.filter(project=job.project, response_b__source=job.source)
        comparisons = made.count() if job.prompt_ids is None else 0
        if job.cancel_requested_at:
            generation.finish_generation_job(job, JobStatus.CANCELLED, comparisons=comparisons)
        elif worker_is_stopping.is_set():
            leases.requeue_job(job)
        elif error:
            generation.finish_generation_job(job, JobStatus.FAILED, comparisons=comparisons, error=error)
        else:
            generation.finish_generation_job(job, JobStatus.SUCCEEDED, comparisons=comparisons)
    return True


def _sample_missing(job: GenerationJob, lease: LeaseKeeper) -> str:
    """Sample and store what is missing; gives the sentence of what stopped it early, or an empty one."""
    stop = threading.Event()
    sha256 = template_sha256(job.source)
    base_url, model = job.source.base_url or settings.MODEL_SERVER_URL, served_model(job.source)
    missing = generation.missing_samples(job)
    awaited: dict[int, int] = {}
    for prompt, _ in missing:
        awaited[prompt.pk] = awaited.get(prompt.pk, 0) + 1
    if job.prompt_ids is None:
        for prompt in job.project.prompts.filter(archived_at=None).exclude(pk__in=awaited).iterator():
            generation.compare_new_responses(job, prompt)  # a crash may have come between the response and its pair

    with (
        httpx.Client(timeout=httpx.Timeout(600, connect=5)) as client,
        ThreadPoolExecutor(CONCURRENT_REQUESTS) as pool,
    ):

        def sample(prompt: Prompt, index: int) -> tuple[Prompt, int, dict[str, Any], Completion] | None:
            if stop.is_set():
                return None
            seed = generation.sample_seed(job.source, prompt, index, job.sampling["seed"])
            sampling = {**job.sampling, "seed": seed}
            return prompt, index, sampling, complete(client, base_url, model, prompt.messages, sampling)

        futures: list[Future] = [pool.submit(sample, prompt, index) for prompt, index in missing]
        error = ""
        try:
            for future in as_completed(futures):
                sampled = future.result()
                if sampled is None:
                    continue
                prompt, index, sampling, completion = sampled
                seed = sampling.pop("seed")
                annotation.add_response(
                    prompt,
                    job.source,
                    index,
                    completion.text,
                    seed=seed,
                    sampling=sampling,
                    template_sha256=sha256,
                    finish_reason=completion.finish_reason,
                )
                awaited[prompt.pk] -= 1
                if not awaited[prompt.pk]:
                    generation.compare_new_responses(job, prompt)
                    if not generation.record_response_count(job):
                        lease.is_lost = True
                if lease.is_lost or worker_is_stopping.is_set() or _is_cancelled(job):
                    break
        except ModelServerError as failure:
            error = str(failure)
        finally:
            stop.set()
            for future in futures:
                future.cancel()
    generation.record_response_count(job)
    return error


def _is_cancelled(job: GenerationJob) -> bool:
    return GenerationJob.objects.filter(pk=job.pk, cancel_requested_at__isnull=False).exists()
