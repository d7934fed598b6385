"""Celery entry points."""

from __future__ import annotations

from functools import partial
from typing import Any

from celery import shared_task
from django.utils.module_loading import import_string

from annotation import services, stored_figures, upload_files
from annotation.models import Project
from annotation.services import data_jobs, webhooks
from annotation.services.projects import change_required_counts as change_counts


@shared_task
def expire_assignments() -> None:
    services.expire_assignments()


@shared_task
def deliver_webhooks() -> None:
    webhooks.deliver_webhooks()


@shared_task
def refresh_browse_index() -> None:
    services.refresh_browse_index()


@shared_task
def run_data_job(job_id: int) -> None:
    data_jobs.run_data_job(job_id)


@shared_task
def resume_data_jobs() -> None:
    data_jobs.resume_data_jobs()
    upload_files.delete_old_uploads()


@shared_task
def refresh_figures(project_id: int, name: str, function: str, **options: Any) -> None:
    compute = partial(import_string(function), **options)
    stored_figures.refresh_figures(Project.objects.get(pk=project_id), name, compute)


@shared_task
def reorder_queue(project_id: int) -> None:
    services.reorder_queue(Project.objects.get(pk=project_id))


@shared_task
def change_required_counts(project_id: int, *, before: int, count: int) -> None:
    change_counts(Project.objects.get(pk=project_id), before=before, count=count)
