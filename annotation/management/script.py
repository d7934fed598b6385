"""What every scriptable command shares: --json, sentences for refusals, progress on stderr (docs/commands.md)."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.models import Project
from annotation.services import DomainError


class ScriptCommand(BaseCommand):
    """A command whose `run` gives the JSON object to print. Exit 0 done, 1 refused with a sentence, 2 wrong usage."""

    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print exactly one JSON object on stdout")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            result = self.run(**options)
        except DomainError as error:
            raise CommandError(str(error)) from None
        if options["json"]:
            self.stdout.write(json.dumps(result, ensure_ascii=False))
        else:
            self.print_for_people(result)

    def run(self, **options: Any) -> dict[str, Any]:
        raise NotImplementedError

    def print_for_people(self, result: dict[str, Any]) -> None:
        """One `key: value` line each; commands with more to show override it."""
        for key, value in result.items():
            self.stdout.write(f"{key.replace('_', ' ')}: {value}")

    def progress(self, text: str) -> None:
        self.stderr.write(text)


def find_project(slug: str) -> Project:
    """The project with this slug. Raises DomainError that names the known ones."""
    project = Project.objects.filter(slug=slug).first()
    if project is None:
        known = ", ".join(Project.objects.order_by("slug").values_list("slug", flat=True)) or "none yet"
        raise DomainError(f"there is no project {slug!r}; known: {known}")
    return project
