"""What a Celery worker does with a training job: claim it, run the child process, report, and end it.

The worker never imports torch. Everything it writes is fenced by its lease; when the lease is lost, it kills its own
child and leaves without a word, because somebody else has the job now.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import threading
import time
import uuid
from typing import Any, cast

from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connections

from annotation.services import DomainError
from rlhf import artifacts, launcher, this_worker
from rlhf.alarms import RESUME_LOGS, Alarm, Watch
from rlhf.job_directory import write_job_directory
from rlhf.jobspec import CHECKPOINTS_DIR, INSIGHTS_FILE, CancelMode, Result
from rlhf.kept_checkpoints import KeptCheckpoints
from rlhf.models import FailureClass, LeasedJob, TrainingJob
from rlhf.options import SpecError
from rlhf.services import jobs, leases, periodic, watching, workers

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
_GUARD_SECONDS = 0.1
# How long a child may take to reach the end of a step, after it was asked to discard what it learnt or to pause. One
# that is to keep it has all the time that it needs to measure and save.
CANCEL_GRACE_SECONDS = 120
TERMINATE_GRACE_SECONDS = 60

worker_is_stopping = threading.Event()
"""Set when the Celery worker was told to stop: jobs are interrupted and go back to the queue."""


def worker_name() -> str:
    """A name that no other claim shares: host, process, and a random part."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def run_training_job(job_id: int) -> bool:
    """Run a queued job to its end; False where there was nothing to claim.

    A Celery worker takes what its turn is, which may be another job than the message names, and goes on until nothing
    waits for it.
    """
    worker = this_worker.announced()
    if worker is None:
        job = leases.claim_job(TrainingJob, job_id, worker_name())
        if job is not None:
            _run(workers.Claim(job, gpus=None))
        return job is not None
    if not this_worker.places.acquire(blocking=False):
        return False
    has_run = False
    try:
        while not worker_is_stopping.is_set():
            claim = workers.claim_next_job(worker, worker_name())
            if claim is None:
                break
            _run(claim)
            has_run = True
    finally:
        this_worker.places.release()
    return has_run


def _run(claim: workers.Claim) -> None:
    job = claim.job
    logger.info("job claimed: job=%s attempt=%s resume_from=%s", job.pk, job.attempt, job.resume_from)
    try:
        with LeaseKeeper(job) as lease, KeptCheckpoints(job) as kept:
            finished = Result.read(job.directory)
            if finished is not None and finished.status != "failed":
                # The child had ended well before its supervisor could say so, or could store what it logged last.
                Reports(job).store()
                kept.store_all()
                jobs.finish_training_job(job, finished)
                return
            _prepare(job)
            if lease.is_lost:
                return
            reports = Reports(job)
            reports.store_what_stood()
            process = lease.process = launcher.start(job.directory, claim.gpus)
            try:
                _supervise(job, process, lease, kept, reports)
            finally:
                launcher.terminate(process, 0)
    except (SpecError, DomainError) as error:
        jobs.fail_or_retry(job, FailureClass.BAD_DATA, str(error))
    except OSError as error:
        jobs.fail_or_retry(job, FailureClass.INFRASTRUCTURE, f"{job.directory}: {error.strerror or error}")


def _prepare(job: TrainingJob) -> None:
    if job.resume_from and artifacts.is_shared():
        stored = job.stored_checkpoints.get(step=int(job.resume_from.removeprefix("step-")))
        artifacts.fetch_directory(stored.manifest_sha256, job.directory / CHECKPOINTS_DIR / job.resume_from)
    write_job_directory(job, job.directory)


class LeaseKeeper:
    """Renews the lease in a thread of its own, so that slow work elsewhere never costs the job.

    A second thread, which waits for nobody, kills the child shortly before the lease would end unrenewed: while the
    database is away or a call to it hangs, another worker may be given the job the moment that it ends.
    """

    def __init__(self, job: LeasedJob) -> None:
        self.job = job
        self.is_lost = False
        self.process: subprocess.Popen[bytes] | None = None
        """The child to kill with the lease."""
        self._renewed_at = time.monotonic()
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=run, name=f"lease-{job.pk}", daemon=True) for run in (self._renew, self._guard)
        ]

    def __enter__(self) -> LeaseKeeper:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _renew(self) -> None:
        while not self._done.wait(settings.JOB_HEARTBEAT_SECONDS):
            began = time.monotonic()  # the database counts from a moment after it
            try:
                if not leases.renew_lease(self.job):
                    self._lose()
                    break
                self._renewed_at = began
            except (OperationalError, InterfaceError) as error:
                logger.warning("database away, lease not renewed: job=%s error=%s", self.job.pk, error)
                close_old_connections()
        connections.close_all()

    def _guard(self) -> None:
        # Time to kill and to be gone before somebody else begins.
        ends_after = settings.JOB_LEASE_SECONDS - min(5.0, settings.JOB_LEASE_SECONDS / 5)
        while not self._done.wait(_GUARD_SECONDS):
            if time.monotonic() - self._renewed_at > ends_after:
                logger.warning("lease not renewed in time: job=%s attempt=%s", self.job.pk, self.job.attempt)
                self._lose()
                break

    def _lose(self) -> None:
        self.is_lost = True
        if self.process is not None:
            launcher.terminate(self.process, 0)


class Reports:
    """What the child writes, on its way to the database; nothing is forgotten before it is stored."""

    def __init__(self, job: TrainingJob) -> None:
        self.job = job
        self.lines: list[dict[str, Any]] = []
        """Metrics that are not stored yet."""
        self._shown: list[dict[str, Any]] = []
        self._alarms: list[Alarm] = []
        self._metrics = launcher.MetricsTail(job.directory)
        self._insights = launcher.MetricsTail(job.directory, name=INSIGHTS_FILE)
        self._watch = Watch(job.method, beta=job.options.get("beta"))
        self._is_stepping = False
        self._heartbeat = 0.0
        self._alive_at = time.monotonic()
        self.hanging_seconds = 0.0
        """For how long the process has been silent, once that is too long."""

    def read(self) -> None:
        now, heartbeat = time.monotonic(), launcher.last_heartbeat(self.job.directory)
        lines = self._metrics.read_new()
        if lines or heartbeat != self._heartbeat:
            self._alive_at, self._heartbeat = now, heartbeat
        self._is_stepping |= bool(lines)
        self.lines += lines
        self._shown += self._insights.read_new()
        self._alarms += [alarm for line in lines for alarm in self._watch.see(line)]
        self._look_at_pace(now - self._alive_at)

    def _look_at_pace(self, silent: float) -> None:
        self._alarms += self._watch.look_at_pace(silent, is_stepping=self._is_stepping)
        bound = settings.JOB_SILENT_SECONDS
        if silent > self._watch.patience(bound, 2 * bound, is_stepping=self._is_stepping):
            self._alarms += self._watch.stalled(silent)
            self.hanging_seconds = silent

    def store_what_stood(self) -> None:
        """Store what earlier attempts have logged, before the process starts that does some of its steps again."""
        self.store(is_new=False)
        self._is_stepping = False
        if self.job.resume_from:
            checkpoint = jobs.step_of(self.job.resume_from)
            self._watch.resume_at(checkpoint, watching.losses_around(self.job, checkpoint, RESUME_LOGS))

    def store(self, process_seconds: float = 0.0, *, is_new: bool = True) -> bool:
        """Read and store all there is; False where the lease was lost."""
        self.read()
        if not jobs.record_progress(self.job, self.lines, process_seconds=process_seconds, is_new=is_new):
            return False
        self.lines = []
        watching.raise_alarms(self.job, self._alarms)
        self._alarms = []
        watching.record_insights(self.job, self._shown)
        self._shown = []
        if self.job.options.get("model_every_steps"):
            periodic.record_step_models(self.job)
        return True


def _supervise(
    job: TrainingJob, process: subprocess.Popen[bytes], lease: LeaseKeeper, kept: KeptCheckpoints, reports: Reports
) -> None:
    charged_at = time.monotonic()
    asked, asked_at = "", 0.0
    while True:
        is_over = process.poll() is not None
        if lease.is_lost:
            logger.warning("lease lost, leaving: job=%s attempt=%s", job.pk, job.attempt)
            launcher.terminate(process, 0)
            return
        try:
            now = time.monotonic()
            reports.read()
            due = bool(reports.lines) or is_over or now - charged_at > settings.JOB_HEARTBEAT_SECONDS
            if due and not reports.store(process_seconds=now - charged_at):
                lease.is_lost = True
                continue
            charged_at = now if due else charged_at
            if is_over:
                kept.store_all()
                _conclude(job, process.returncode, reports.hanging_seconds)
                return
            mode = TrainingJob.objects.values_list("cancel_mode", flat=True).get(pk=job.pk)
            if mode and mode != asked:
                launcher.request_cancel(job.directory, cast(CancelMode, mode))
                asked, asked_at = mode, time.monotonic()
        except (OperationalError, InterfaceError) as error:
            # The child goes on; what it logs is kept in its directory and stored when the database is back.
            logger.warning("database away, will try again: job=%s error=%s", job.pk, error)
            close_old_connections()
        if asked in ("discard", "pause") and time.monotonic() - asked_at > CANCEL_GRACE_SECONDS:
            launcher.terminate(process, TERMINATE_GRACE_SECONDS)
        if reports.hanging_seconds and not is_over:
            launcher.write_stacks(process)
            launcher.terminate(process, 0)
            continue
        if worker_is_stopping.is_set() and not is_over:
            launcher.interrupt(job.directory, process, TERMINATE_GRACE_SECONDS)
            continue
        time.sleep(POLL_SECONDS)


def _conclude(job: TrainingJob, exit_code: int, hanging_seconds: float) -> None:
    job.refresh_from_db(fields=["cancel_mode"])
    result = Result.read(job.directory)
    logger.info("child ended: job=%s exit=%s result=%s", job.pk, exit_code, result and result.status)
    if result is not None:
        jobs.finish_training_job(job, result)
    elif job.cancel_mode == "pause":
        jobs.pause_training_job(job)
    elif job.cancel_mode == "discard":
        jobs.finish_training_job(job, Result(status="cancelled"))
    elif worker_is_stopping.is_set():
        # An interruption says nothing about the job: no budget is spent.
        jobs.requeue_training_job(job)
    elif hanging_seconds:
        silent = f"{hanging_seconds / 60:.0f} min" if hanging_seconds >= 120 else f"{hanging_seconds:.0f} s"
        error = f"the training process gave no sign of life for {silent} and was ended; the log says where it stood"
        jobs.fail_or_retry(job, FailureClass.STALLED, error, crashed=True)
    else:
        how = f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
        hint = "; signal 9 often means that the machine ran out of memory" if exit_code == -9 else ""
        error = f"the training process {how} before it could say why{hint}"
        jobs.fail_or_retry(job, FailureClass.UNKNOWN, error, crashed=True)
