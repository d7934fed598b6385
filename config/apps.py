from django.apps import AppConfig


class ConfigConfig(AppConfig):
    """Only here so that `manage.py up` and `setup_model` are found."""

    name = "config"
