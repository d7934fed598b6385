"""Workers: who they are, on what hardware, and what they run."""

from __future__ import annotations

from datetime import timedelta

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from rlhf.models import GPUSlot, JobStatus, TrainingJob, Worker
from rlhf.views.access import staff_required

# A worker that has been away for longer is not shown.
_DAYS_SHOWN = 7


@staff_required
@require_GET
def worker_list(request: HttpRequest) -> HttpResponse:
    known = Worker.objects.filter(seen_at__gt=timezone.now() - timedelta(days=_DAYS_SHOWN))
    running: dict[int | None, list[TrainingJob]] = {}
    for job in TrainingJob.objects.filter(status=JobStatus.RUNNING, worker__isnull=False).order_by("pk"):
        running.setdefault(job.worker_id, []).append(job)
    ordered = sorted(known, key=lambda worker: (not worker.is_present, worker.name))
    gpus: dict[str, list[tuple[GPUSlot, TrainingJob | None, bool]]] = {}
    taken = set(GPUSlot.objects.taken().values_list("pk", flat=True))
    for slot in GPUSlot.objects.select_related("job"):
        gpus.setdefault(slot.host, []).append((slot, slot.job if slot.pk in taken else None, slot.pk in taken))
    waiting = TrainingJob.objects.filter(status=JobStatus.QUEUED).count()
    rows = [(worker, running.get(worker.pk, [])) for worker in ordered]
    return render(request, "rlhf/worker_list.html", {"rows": rows, "gpus": sorted(gpus.items()), "waiting": waiting})
