"""Celery entry points. A message is a hint to look at a row; what is true stands there."""

from __future__ import annotations

from celery import shared_task
from celery.signals import worker_ready, worker_shutdown, worker_shutting_down
from celery.worker.consumer import Consumer

from rlhf import benchmarking, generation, supervisor, this_worker
from rlhf.judges import work as judge_work
from rlhf.preflight import probe
from rlhf.services import jobs, launching, periodic, sample_scores, uncertainty

# Other tasks of this worker may wait behind it.
_PATIENCE_SECONDS = 30


@shared_task
def run_training_job(job_id: int) -> None:
    supervisor.run_training_job(job_id)


@shared_task
def run_probe(check_id: int) -> None:
    # In the place of a job, which would take part of the memory that is measured.
    if not this_worker.places.acquire(timeout=_PATIENCE_SECONDS):
        return
    try:
        launching.take_probe(check_id, probe.run_probe, this_worker.announced())
    finally:
        this_worker.places.release()


@shared_task
def run_generation_job(job_id: int) -> None:
    generation.run_generation_job(job_id)


@shared_task
def run_benchmark(run_id: int) -> None:
    benchmarking.run_benchmark(run_id)


@shared_task
def score_samples(score_ids: list[int]) -> None:
    sample_scores.score_samples(score_ids)


@shared_task
def rate_uncertainties(project_id: int, checkpoint_id: int, user_id: int) -> None:
    uncertainty.run_request(project_id, checkpoint_id, user_id)


@shared_task
def run_judge(run_id: int) -> None:
    judge_work.run_judge(run_id)


@shared_task
def reconcile() -> None:
    jobs.reconcile()
    periodic.queue_due_evaluations()


@worker_shutting_down.connect
def interrupt_jobs(**_: object) -> None:
    supervisor.worker_is_stopping.set()


@worker_ready.connect
def announce(sender: Consumer, **_: object) -> None:
    queues = list(sender.app.amqp.queues.consume_from)
    this_worker.start_announcing(sender.hostname, queues, sender.pool.limit, lambda: supervisor.run_training_job(0))


@worker_shutdown.connect
def leave(**_: object) -> None:
    this_worker.stop()
