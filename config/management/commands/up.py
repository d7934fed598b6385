from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.services import DomainError
from config.embedded.process import EmbeddedServerError
from config.embedded.runner import RefusedError, Runner


class Command(BaseCommand):
    help = "Run everything on this machine until Ctrl-C: database, broker, web server, workers and model server."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--no-demo", action="store_true", help="no demo project and no demo annotators")

    def handle(self, *args: Any, **options: Any) -> None:
        def say(text: str) -> None:
            self.stdout.write(text)
            self.stdout.flush()

        try:
            Runner(port=options["port"], is_demo=not options["no_demo"], say=say).run()
        except (RefusedError, EmbeddedServerError, DomainError) as error:
            raise CommandError(str(error)) from None
