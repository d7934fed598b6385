from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from annotation.management.script import ScriptCommand
from rlhf.services import find_checkpoint, publish_checkpoint


class Command(ScriptCommand):
    help = "Let a checkpoint write responses that people judge."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("checkpoint", help="name of a checkpoint, or a model directory")

    def run(self, **options: Any) -> dict[str, Any]:
        return {"source": publish_checkpoint(find_checkpoint(options["checkpoint"])).name}
