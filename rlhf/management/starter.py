"""The starter model, fetched when a command first needs it."""

from __future__ import annotations

import io

from django.conf import settings
from django.core.management import call_command

from annotation.models import Project
from rlhf.models import Checkpoint
from rlhf.services import find_checkpoint


def find_or_fetch_checkpoint(name: str, project: Project | None = None) -> Checkpoint:
    """The checkpoint of that name, alias or directory; the starter model is fetched and converted on first need."""
    if name == settings.STARTER_MODEL and not Checkpoint.objects.filter(name=name).exists():
        call_command("setup_model", name, stdout=io.StringIO())
    return find_checkpoint(name, project)
