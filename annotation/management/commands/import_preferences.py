from __future__ import annotations

import dataclasses
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError

from annotation.importers import FORMATS, import_file
from annotation.management.script import ScriptCommand
from annotation.models import Project
from annotation.services import DomainError


class Command(ScriptCommand):
    help = (
        "Import comparisons, rankings, ratings or conversations from a file. "
        "A second run of the same file adds nothing."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("file", type=Path)
        parser.add_argument("--project", required=True, metavar="SLUG", help="made if there is none")
        parser.add_argument("--format", default="auto", choices=["auto", *FORMATS])

    def run(self, **options: Any) -> dict[str, Any]:
        slug = options["project"]
        try:
            Project._meta.get_field("slug").clean(slug, None)
        except ValidationError as error:
            raise DomainError(f"--project {slug}: {' '.join(error.messages)}") from None
        done = import_file(options["file"], slug, format_name=options["format"], progress=self.progress)
        return dataclasses.asdict(done)

    def print_for_people(self, result: dict[str, Any]) -> None:
        skipped = result.pop("skipped")
        super().print_for_people(result)
        self.stdout.write(f"skipped: {len(skipped)}")
        for entry in skipped:
            where = f"line {entry['line']}" + (f", item {entry['item']}" if "item" in entry else "")
            who = f"{entry['annotator']}: " if "annotator" in entry else ""
            self.stdout.write(f"  {where}: {who}{entry['reason']}")
