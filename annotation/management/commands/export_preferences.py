from __future__ import annotations

import dataclasses
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from annotation.export import Kind, Rules, export_preferences
from annotation.management.script import ScriptCommand, find_project


class Command(ScriptCommand):
    help = "Write judged comparisons as rows that TRL loads unchanged, or all that was said (.jsonl or .parquet)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument("--kind", required=True, choices=Kind.values)
        parser.add_argument("--out", required=True, type=Path, metavar="FILE")
        parser.add_argument("--humans-only", action="store_true", help="leave out judgments by models")
        parser.add_argument("--axis", default="", help="judge by this separate question of the protocol")
        rules = parser.add_argument_group("leave out, and count")
        rules.add_argument("--max-spread", type=float, metavar="STEPS", help="people's strengths lie further apart")
        rules.add_argument(
            "--min-strength", type=float, default=0.0, metavar="STEPS", help="the mean strength is weaker"
        )
        rules.add_argument("--drop-near-identical", action="store_true", help="texts that agree in 95 %%")
        rules.add_argument("--drop-unfinished", action="store_true", help="responses cut off, or blank")
        rules.add_argument("--drop-model-names", action="store_true", help="responses that say who wrote them")

    def run(self, **options: Any) -> dict[str, Any]:
        project = find_project(options["project"])
        rules = Rules(
            max_spread=options["max_spread"],
            min_strength=options["min_strength"],
            near_identical=options["drop_near_identical"],
            unfinished=options["drop_unfinished"],
            names_model=options["drop_model_names"],
        )
        done = export_preferences(
            project,
            options["kind"],
            options["out"],
            humans_only=options["humans_only"],
            rules=rules,
            axis=options["axis"],
        )
        return dataclasses.asdict(done)
