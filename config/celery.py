"""The Celery application: a dispatcher of job ids. What is true about a job stands in Postgres, not in the broker."""

from __future__ import annotations

import os

from celery import Celery
from celery.signals import beat_embedded_init
from django.conf import settings

from config.embedded.process import die_with_parent

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("touchstone")
# The current application is kept per thread: without this the threads of gunicorn would not find it.
app.set_default()
app.conf.update(
    broker_url=settings.CELERY_BROKER_URL,
    task_ignore_result=True,
    # Acknowledged before the work starts: both brokers hand an unacknowledged hours-long task to a second worker.
    task_acks_late=False,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    # A publish must fail within a request's patience (3 seconds); the reconciler publishes again. Workers ask the
    # broker for messages in calls of one second, which the socket's limit must exceed; a hung one is asked twice.
    # Without an interval of 0 kombu sleeps two seconds before it gives up.
    broker_transport_options={
        "socket_connect_timeout": 2,
        "socket_timeout": 1.4,
        "max_retries": 1,
        "interval_start": 0,
        "interval_step": 0,
    },
    task_publish_retry=False,
    task_default_queue="default",
    task_routes={
        "rlhf.tasks.run_training_job": {"queue": "train"},
        "rlhf.tasks.run_probe": {"queue": "train"},
        "rlhf.tasks.run_generation_job": {"queue": "generate"},
    },
    beat_schedule={
        "reconcile": {"task": "rlhf.tasks.reconcile", "schedule": settings.RECONCILE_SECONDS},
        "expire-assignments": {"task": "annotation.tasks.expire_assignments", "schedule": 30},
        "refresh-browse-index": {
            "task": "annotation.tasks.refresh_browse_index",
            "schedule": 10,
            "options": {"expires": 30},  # a worker that was away needs only one of them
        },
        "resume-data-jobs": {
            "task": "annotation.tasks.resume_data_jobs",
            "schedule": 20,
            "options": {"expires": 20},
        },
        "deliver-webhooks": {"task": "annotation.tasks.deliver_webhooks", "schedule": 5},
    },
)


@beat_embedded_init.connect
def end_with_the_worker(**_: object) -> None:
    """`worker --beat` runs the beat in a process of its own, which would outlive a worker that is killed."""
    die_with_parent(os.getppid())


app.autodiscover_tasks(["annotation", "rlhf"])
