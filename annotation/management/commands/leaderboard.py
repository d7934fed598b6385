from __future__ import annotations

import dataclasses
from argparse import ArgumentParser
from typing import Any

from annotation.leaderboard import rank_sources
from annotation.management.script import ScriptCommand, find_project


class Command(ScriptCommand):
    help = "Bradley–Terry ratings of a project's sources with 95 % intervals; an undefined number is null."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument(
            "--ties", choices=["half", "drop"], default="half", help="a tie is half a win, or left out"
        )
        parser.add_argument("--humans-only", action="store_true", help="leave out judgments by models")

    def run(self, **options: Any) -> dict[str, Any]:
        project = find_project(options["project"])
        standings = rank_sources(project, ties=options["ties"], humans_only=options["humans_only"])
        return {"rows": [dataclasses.asdict(standing) for standing in standings]}

    def print_for_people(self, result: dict[str, Any]) -> None:
        self.stdout.write(f"{'rank':>4}  {'rating':>7}  {'95 % interval':>17}  {'judgments':>9}  source")
        for row in result["rows"]:
            rank, rating = row["rank"] or "–", "–" if row["rating"] is None else f"{row['rating']:.1f}"
            interval = "–" if row["lower"] is None else f"{row['lower']:.1f} … {row['upper']:.1f}"
            note = f" ({row['note']})" if row["note"] else ""
            self.stdout.write(f"{rank:>4}  {rating:>7}  {interval:>17}  {row['judgments']:>9}  {row['source']}{note}")
        if not result["rows"]:
            self.stdout.write("No comparison between two sources has been judged yet.")
