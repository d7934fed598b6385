"""Workers announcing themselves, and which training job each takes next.

A message only wakes a worker; which job it takes is decided here: the most urgent, then the oldest, of those that its
labels and its GPUs allow. A job that needs more GPUs than are free now is not overtaken on that machine, or small
ones would keep it waiting for ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Count, QuerySet
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext

from rlhf.hardware import Hardware
from rlhf.models import GPUSlot, JobStatus, LaunchCheck, TrainingJob, Worker, queue_of
from rlhf.services import leases

_CLAIM_LOCK = 0x636C6169  # any number of our own: one claim at a time


def announce_worker(name: str, host: str, queues: list[str], hardware: Hardware, code_version: str) -> Worker:
    """Store what a worker that has just started is, and the GPUs of its machine."""
    facts: dict[str, Any] = {
        "host": host,
        "queues": queues,
        "cpu_cores": hardware.cpu_cores,
        "memory_gb": hardware.memory_gb,
        "code_version": code_version,
        "started_at": Now(),
        "seen_at": Now(),
        "left_at": None,
    }
    with transaction.atomic():
        worker, _ = Worker.objects.update_or_create(name=name, defaults=facts)
        if worker.labels:
            for gpu in hardware.gpus:
                known = {"host": host, "index": gpu.index, "name": gpu.name, "memory_gb": gpu.memory_gb}
                GPUSlot.objects.update_or_create(uuid=gpu.uuid, defaults=known | {"seen_at": Now()})
            # A GPU that was taken out of the machine, or given to another.
            gone = GPUSlot.objects.filter(host=host).exclude(uuid__in=[gpu.uuid for gpu in hardware.gpus])
            gone.free().delete()
    return worker


def see_worker(name: str) -> bool:
    """Note that the worker lives; False where its row is gone."""
    return Worker.objects.filter(name=name).update(seen_at=Now(), left_at=None) == 1


def leave_worker(name: str) -> None:
    """Note that the worker stops."""
    Worker.objects.filter(name=name).update(left_at=Now())


@dataclass(frozen=True)
class Claim:
    job: TrainingJob
    gpus: list[int] | None
    """Indices of the GPUs that the job may use; None where the machine has none."""


def claim_next_job(worker: Worker, owner: str) -> Claim | None:
    """Take the next job that this worker can run, with its GPUs, or None where there is none."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_CLAIM_LOCK])
        slots = GPUSlot.objects.filter(host=worker.host)
        total, free = slots.count(), list(slots.free().order_by("index"))
        for job in waiting_jobs(worker.labels):
            needed = gpus_needed(job, total)
            if needed > total:
                continue
            if needed > len(free):
                return None
            claimed = leases.claim_job(TrainingJob, job.pk, owner)
            if claimed is None:  # cancelled or paused in this moment
                continue
            TrainingJob.objects.filter(pk=job.pk).update(worker=worker)
            claimed.worker = worker
            for slot in free[:needed]:
                slot.job, slot.attempt, slot.measured_for = claimed, claimed.attempt, None
                slot.save(update_fields=["job", "attempt", "measured_for"])
            return Claim(claimed, [slot.index for slot in free[:needed]] if total else None)
    return None


class NoFreeGPUError(Exception):
    """Jobs have the GPUs that a measurement needs."""


def take_gpus_to_measure(worker: Worker, check: LaunchCheck) -> list[int] | None:
    """Indices of the GPUs that are this measurement's until it ends; None where the machine has none.

    Raises NoFreeGPUError.
    """
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_CLAIM_LOCK])
        slots = GPUSlot.objects.filter(host=worker.host)
        total = slots.count()
        if not total:
            return None
        check.gpu_slots.update(measured_for=None)
        free = list(slots.free().order_by("index")[: gpus_needed(check, total)])
        if len(free) < gpus_needed(check, total):
            raise NoFreeGPUError
        for slot in free:
            slot.job, slot.measured_for = None, check
            slot.save(update_fields=["job", "measured_for"])
        return [slot.index for slot in free]


def gpus_needed(job: TrainingJob | LaunchCheck, total: int) -> int:
    """GPUs that the job takes on a machine that has `total`: one a process, and none where there are none."""
    if not total:
        return job.gpus
    return max(job.gpus, int(job.options.get("processes", 1)))


def waiting_jobs(labels: list[str]) -> QuerySet[TrainingJob]:
    """Queued jobs with these labels in the order of their turn, without those of people who have their share."""
    waiting = TrainingJob.objects.filter(leases.IS_READY, status=JobStatus.QUEUED, label__in=labels)
    return waiting.exclude(created_by__in=people_at_their_limit()).order_by("-priority", "queued_at", "pk")


def people_at_their_limit() -> list[int]:
    if not settings.JOBS_PER_PERSON:
        return []
    running = TrainingJob.objects.filter(status=JobStatus.RUNNING, created_by__isnull=False).values("created_by")
    return list(
        running.annotate(count=Count("pk"))
        .filter(count__gte=settings.JOBS_PER_PERSON)
        .values_list("created_by", flat=True)
    )


@dataclass
class Queue:
    """The state of the queue at one moment, to say of each waiting job when its turn comes."""

    waiting: list[TrainingJob]
    workers: list[Worker]
    busy: set[int]
    """Workers that run a job."""
    gpus: dict[str, int]
    """By host."""
    free_gpus: dict[str, int]
    at_their_limit: set[int]

    @classmethod
    def now(cls) -> Queue:
        return cls(
            waiting=list(TrainingJob.objects.filter(status=JobStatus.QUEUED).order_by("-priority", "queued_at", "pk")),
            workers=[worker for worker in Worker.objects.present() if worker.labels],
            busy=set(
                TrainingJob.objects.filter(status=JobStatus.RUNNING, worker__isnull=False).values_list(
                    "worker", flat=True
                )
            ),
            gpus=_by_host(GPUSlot.objects.all()),
            free_gpus=_by_host(GPUSlot.objects.free()),
            at_their_limit=set(people_at_their_limit()),
        )

    def jobs_before(self, job: TrainingJob) -> int:
        """Waiting jobs of the same label whose turn is earlier."""
        same = [other.pk for other in self.waiting if other.label == job.label]
        return same.index(job.pk) if job.pk in same else 0

    def reason(self, job: TrainingJob) -> str:
        """Why the job waits, as a sentence."""
        if job.not_before is not None and (rest := (job.not_before - timezone.now()).total_seconds()) > 0:
            words = gettext("Its machine failed, so it rests before the next try: %(seconds)s s more.")
            return words % {"seconds": math.ceil(rest)}
        serving = [worker for worker in self.workers if job.label in worker.labels]
        if not serving:
            if job.label:
                words = gettext("No worker with the label %(label)s is running; start one for the queue %(queue)s.")
                return words % {"label": job.label, "queue": f"train.{job.label}"}
            return gettext("No worker that trains is running.")
        fitting = [w for w in serving if gpus_needed(job, self.gpus.get(w.host, 0)) <= self.gpus.get(w.host, 0)]
        if not fitting:
            most = max(self.gpus.get(worker.host, 0) for worker in serving)
            words = gettext("It needs %(needed)s GPUs, and no worker that is running has more than %(most)s.")
            return words % {"needed": gpus_needed(job, most), "most": most}
        if job.created_by_id in self.at_their_limit:
            words = gettext("Whoever started it has %(limit)s jobs running, as many as one person may have at once.")
            return words % {"limit": settings.JOBS_PER_PERSON}
        if before := self.jobs_before(job):
            return gettext("Others come first: %(count)s.") % {"count": before}
        idle = [worker for worker in fitting if worker.pk not in self.busy]
        if not idle:
            return gettext("Every worker that can run it is busy.")
        if all(self.free_gpus.get(w.host, 0) < gpus_needed(job, self.gpus.get(w.host, 0)) for w in idle):
            return gettext("It waits for GPUs to become free.")
        return gettext("A worker is about to take it.")


def most_gpus(label: str) -> int:
    """GPUs of the best-equipped machine on which a worker with this label is running."""
    hosts = Worker.objects.present().filter(queues__contains=[queue_of(label)]).values("host")
    return max(_by_host(GPUSlot.objects.filter(host__in=hosts)).values(), default=0)


def _by_host(slots: QuerySet[GPUSlot]) -> dict[str, int]:
    return dict(slots.order_by().values("host").annotate(count=Count("pk")).values_list("host", "count"))
