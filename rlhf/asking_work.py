"""Long work that asks a source for many texts: in threads, under a lease, each answer stored as it comes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from rlhf.asking import Endpoint, EndpointAwayError, StoppedError
from rlhf.models import AskingJob, JobStatus
from rlhf.services import leases
from rlhf.supervisor import LeaseKeeper, worker_is_stopping, worker_name

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""How often the main thread looks whether the work was cancelled while nothing comes."""

Job = TypeVar("Job", bound=AskingJob)


def see_through(
    model: type[Job],
    job_id: int,
    work: Callable[[Job, AskingWork], None],
    report_of: Callable[[Job], dict[str, Any]],
) -> bool:
    """Claim a queued job, do its work and end it with its report; False where there was nothing to claim.

    The work may raise EndpointAwayError, which fails the job, and StoppedError.
    """
    job = leases.claim_job(model, job_id, worker_name())
    if job is None:
        return False
    logger.info("asking job claimed: kind=%s job=%s attempt=%s", model.__name__, job.pk, job.attempt)
    error = ""
    with LeaseKeeper(job) as lease:
        try:
            work(job, AskingWork(job, lease))
        except EndpointAwayError as away:
            error = str(away)
        except StoppedError:
            pass
        if lease.is_lost:
            return True
        job.refresh_from_db(fields=["cancel_requested_at"])
        if job.cancel_requested_at is None and worker_is_stopping.is_set():
            leases.requeue_job(job, waiting_for="")
            return True
        status = JobStatus.CANCELLED if job.cancel_requested_at else JobStatus.FAILED if error else JobStatus.SUCCEEDED
        error = error if status == JobStatus.FAILED else ""
        leases.finish_job(job, status, report=report_of(job), error=error, waiting_for="")
    return True


class AskingWork:
    """What is asked under one lease; `stop` is set when the threads are to let go."""

    def __init__(self, job: AskingJob, lease: LeaseKeeper) -> None:
        self.job = job
        self.lease = lease
        self.stop = threading.Event()

    def do_all(
        self,
        endpoint: Endpoint,
        ask: Callable[[Any], Callable[[], object]],
        things: Iterable[Any],
        follow: Callable[[Any], Any] = lambda stored: None,
    ) -> None:
        """Ask in threads; what each gives back stores, and is called in this one.

        follow: from what storing returned, what is to be asked next because of it, or None. Raises
        EndpointAwayError, StoppedError.
        """
        pool = ThreadPoolExecutor(self.job.parallel)
        pending: set[Future[Callable[[], object]]] = {pool.submit(ask, thing) for thing in things}
        looked_at = time.monotonic()
        try:
            while pending:
                done, pending = wait(pending, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
                if self.lease.is_lost:
                    raise StoppedError
                # What came is stored before the one that failed is heard.
                for future in sorted(done, key=lambda future: future.exception() is not None):
                    following = follow(future.result()())
                    if following is not None:
                        pending.add(pool.submit(ask, following))
                if time.monotonic() - looked_at > LOOK_SECONDS or not done:
                    looked_at = time.monotonic()
                    self._look(endpoint)
        except BaseException as error:
            self.stop.set()
            # Who wants to stop does not wait: a server that reads a long prompt says nothing for minutes.
            pool.shutdown(wait=isinstance(error, EndpointAwayError), cancel_futures=True)
            raise
        pool.shutdown()
        leases.held(self.job).update(waiting_for="")

    def _look(self, endpoint: Endpoint) -> None:
        """Say why nothing comes, and stop where somebody wants that."""
        if self.lease.is_lost or worker_is_stopping.is_set():
            raise StoppedError
        rows = leases.held(self.job)
        if endpoint.waiting_for != self.job.waiting_for:
            self.job.waiting_for = endpoint.waiting_for
            rows.update(waiting_for=endpoint.waiting_for)
        if rows.filter(cancel_requested_at__isnull=False).exists():
            raise StoppedError
