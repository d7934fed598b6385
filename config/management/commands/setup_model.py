from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings

from annotation.management.script import ScriptCommand
from config.embedded.starter_model import set_up_starter_model


class Command(ScriptCommand):
    help = "Fetch and convert the starter model, once, and register it as a checkpoint to train from."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("name", nargs="?", default=settings.STARTER_MODEL)

    def run(self, **options: Any) -> dict[str, Any]:
        from rlhf.services import register_base_checkpoint

        directory = set_up_starter_model(options["name"], self.progress)
        checkpoint = register_base_checkpoint(options["name"], directory)
        return {"name": checkpoint.name, "directory": str(directory), "sha256": checkpoint.manifest_sha256}
