from __future__ import annotations

import dataclasses
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from annotation.export import Kind, export_preferences
from annotation.management.script import ScriptCommand, find_project
from annotation.services import DomainError


class Command(ScriptCommand):
    help = "Write judged comparisons as training rows that TRL loads unchanged (.jsonl or .parquet)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument("--kind", required=True, choices=[*Kind.values, "ranking"])
        parser.add_argument("--out", required=True, type=Path, metavar="FILE")
        parser.add_argument("--humans-only", action="store_true", help="leave out judgments by models")

    def run(self, **options: Any) -> dict[str, Any]:
        if options["kind"] == "ranking":
            raise DomainError(f"the kind ranking is not supported yet; supported: {', '.join(Kind.values)}")
        project = find_project(options["project"])
        done = export_preferences(project, options["kind"], options["out"], humans_only=options["humans_only"])
        return dataclasses.asdict(done)
