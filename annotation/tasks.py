"""Celery entry points."""

from __future__ import annotations

from celery import shared_task

from annotation import services
from annotation.services import webhooks


@shared_task
def expire_assignments() -> None:
    services.expire_assignments()


@shared_task
def deliver_webhooks() -> None:
    webhooks.deliver_webhooks()


@shared_task
def refresh_browse_index() -> None:
    services.refresh_browse_index()
