"""Long work on the rows of a project: asking for it, doing it once, saying how far it is, and stopping it.

    queued ──claim──▶ running ──finish──▶ done | failed | stopped
      ▲                  │
      └──lost worker─────┘

Each transition is one conditional UPDATE. The work itself can be repeated from its start without harm.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from celery import current_app
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.utils import timezone
from django.utils.translation import get_language, override
from django.utils.translation import gettext as _
from kombu.exceptions import OperationalError as BrokerError

from annotation.errors import ConflictError, DomainError
from annotation.models import DataJob, DataJobKind, DataJobStatus, Project

logger = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
LOST_AFTER = timedelta(seconds=60)
MAX_ATTEMPTS = 3
# A message that no worker has taken by then is thrown away, and `resume_data_jobs` sends another.
MESSAGE_LIFE_SECONDS = 60


class StoppedError(Exception):
    """Somebody asked the work to stop."""


class Progress:
    """How far the work is. `at` raises StoppedError where somebody asked for it."""

    def __init__(self, total: int = 0) -> None:
        self.done = 0
        self.total = total
        self.is_stopping = False

    def at(self, done: int) -> None:
        self.done = done
        if self.is_stopping:
            raise StoppedError


Work = Callable[[DataJob, Progress], dict[str, Any]]
"""Does a job and gives its result; raises DomainError with a sentence where it cannot be done."""


def start_data_job(
    project: Project, kind: DataJobKind, params: dict[str, Any], *, user: User, total: int = 0, at_once: bool
) -> DataJob:
    """Ask for work, to be done before this returns (`at_once`) or by a worker.

    Raises ConflictError while other work on the project runs.
    """
    try:
        with transaction.atomic():
            # What a worker says of it is for whoever asked.
            params = params | {"language": get_language()}
            job = DataJob.objects.create(project=project, kind=kind, params=params, total=total, created_by=user)
    except IntegrityError:
        raise ConflictError(
            _("Other work on this project’s prompts is still going on. Wait for its end, or stop it, and try again.")
        ) from None
    if at_once:
        run_data_job(job.pk, beats=False)
        job.refresh_from_db()
    else:
        transaction.on_commit(lambda: _dispatch(job.pk))
    return job


def _dispatch(job_id: int) -> None:
    try:
        current_app.send_task("annotation.tasks.run_data_job", args=[job_id], expires=MESSAGE_LIFE_SECONDS)
    except (BrokerError, ConnectionError, OSError) as error:
        logger.warning("broker away, work waits for the beat: data job=%s error=%s", job_id, error)


def run_data_job(job_id: int, *, beats: bool = True) -> None:
    """Do a queued job; nothing where another worker has it or it was stopped."""
    claimed = DataJob.objects.filter(pk=job_id, status=DataJobStatus.QUEUED).update(
        status=DataJobStatus.RUNNING, attempt=F("attempt") + 1, heartbeat_at=timezone.now()
    )
    if not claimed:
        return
    job = DataJob.objects.select_related("project", "created_by").get(pk=job_id)
    progress = Progress(job.total)
    with override(job.params.get("language")):
        _do(job, progress, beats=beats)


def _do(job: DataJob, progress: Progress, *, beats: bool) -> None:
    try:
        with _heartbeat(job, progress) if beats else contextlib.nullcontext():
            result = _work_of(job)(job, progress)
    except StoppedError:
        _finish(job, DataJobStatus.STOPPED, progress)
    except DomainError as refused:
        _finish(job, DataJobStatus.FAILED, progress, error=str(refused))
    except Exception:
        logger.exception("data job %s failed", job.pk)
        _finish(
            job,
            DataJobStatus.FAILED,
            progress,
            error=_("An error that nobody foresaw ended this; the server’s log says which. Try again, or report it."),
        )
    else:
        _finish(job, DataJobStatus.DONE, progress, result=result)


def _work_of(job: DataJob) -> Work:
    # The kinds' modules use this one.
    from annotation.services import duplicates, masking, prompts, uploads

    works: dict[str, Work] = {
        DataJobKind.EDIT: prompts.edit_prompts,
        DataJobKind.UNDO: prompts.undo_edit,
        DataJobKind.CHECK: uploads.check_upload,
        DataJobKind.IMPORT: uploads.import_upload,
        DataJobKind.SCAN: masking.count_personal_data,
        DataJobKind.MASK: masking.mask_personal_data,
        DataJobKind.DUPLICATES: duplicates.find_duplicates,
    }
    return works[job.kind]


def _finish(
    job: DataJob, status: DataJobStatus, progress: Progress, *, result: dict[str, Any] | None = None, error: str = ""
) -> None:
    held = DataJob.objects.filter(pk=job.pk, status=DataJobStatus.RUNNING, attempt=job.attempt)
    total = max(progress.total, progress.done)
    held.update(
        status=status,
        result=result or {},
        error=error,
        done=total if status == DataJobStatus.DONE else progress.done,  # totals are sometimes an upper bound
        total=total,
        finished_at=timezone.now(),
    )


@contextlib.contextmanager
def _heartbeat(job: DataJob, progress: Progress) -> Iterator[None]:
    """Within, a thread says every second how far the work is, whatever transaction the work itself is in."""
    is_over = threading.Event()

    def beat() -> None:
        held = DataJob.objects.filter(pk=job.pk, status=DataJobStatus.RUNNING, attempt=job.attempt)
        while not is_over.wait(BEAT_SECONDS):
            try:
                held.update(heartbeat_at=timezone.now(), done=progress.done, total=progress.total)
                # Also where another worker was given the job meanwhile.
                progress.is_stopping = not held.filter(stop_requested=False).exists()
            except Exception as error:
                logger.warning("heartbeat of data job %s: %s", job.pk, error)
        connection.close()

    thread = threading.Thread(target=beat, name=f"data-job-{job.pk}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def stop_data_job(job: DataJob) -> bool:
    """Ask the work to stop at its next step; False where it had ended before."""
    jobs = DataJob.objects.filter(pk=job.pk)
    if jobs.filter(status=DataJobStatus.QUEUED).update(status=DataJobStatus.STOPPED, finished_at=timezone.now()):
        return True
    return bool(jobs.filter(status=DataJobStatus.RUNNING).update(stop_requested=True))


def resume_data_jobs() -> None:
    """Give lost work back to the workers, three times at most, and tell them again what waits."""
    now = timezone.now()
    lost = DataJob.objects.filter(status=DataJobStatus.RUNNING, heartbeat_at__lt=now - LOST_AFTER)
    lost.filter(attempt__gte=MAX_ATTEMPTS).update(
        status=DataJobStatus.FAILED,
        finished_at=now,
        error=_(
            "The worker was lost three times while it was at this. Look at its log and its memory, then try again."
        ),
    )
    lost.update(status=DataJobStatus.QUEUED)
    waiting = DataJob.objects.filter(status=DataJobStatus.QUEUED, created_at__lt=now - timedelta(seconds=20))
    for job_id in waiting.values_list("pk", flat=True):
        _dispatch(job_id)
