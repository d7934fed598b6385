from __future__ import annotations

from django.apps import AppConfig


class ConfigConfig(AppConfig):
    """Makes `manage.py up` and `setup_model` known, and the Celery application in every process."""

    name = "config"

    def ready(self) -> None:
        # Otherwise a web process would publish to Celery's built-in default, an AMQP server on localhost.
        import config.celery  # noqa: F401
