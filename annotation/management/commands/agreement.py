from __future__ import annotations

import dataclasses
from argparse import ArgumentParser
from typing import Any

from annotation.agreement import measure_agreement
from annotation.management.script import ScriptCommand, find_project


class Command(ScriptCommand):
    help = "How far the people who judged the same comparisons agree. An undefined number is null."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument("--humans-only", action="store_true", help="leave out judgments by models")

    def run(self, **options: Any) -> dict[str, Any]:
        project = find_project(options["project"])
        return dataclasses.asdict(measure_agreement(project, humans_only=options["humans_only"]))
