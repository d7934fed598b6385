"""Celery entry points."""

from __future__ import annotations

from celery import shared_task

from annotation import services


@shared_task
def expire_assignments() -> None:
    services.expire_assignments()
