from __future__ import annotations

import dataclasses
from argparse import ArgumentParser
from typing import Any

from annotation.errors import DomainError
from annotation.leaderboard import KNOWN_CHOICES, Choices, make_leaderboard
from annotation.management.script import ScriptCommand, find_project
from annotation.ratings.bradley_terry import TIES
from annotation.ratings.gaming import Flag


class Command(ScriptCommand):
    help = "Bradley–Terry ratings of a project's sources with 95 % intervals; an undefined number is null."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument(
            "--ties", choices=TIES, default="half", help="a tie is half a win, left out, or an outcome of its own"
        )
        parser.add_argument("--humans-only", action="store_true", help="leave out judgments by models")
        parser.add_argument("--judges-only", action="store_true", help="leave out judgments by people")
        parser.add_argument("--category", metavar="TASK", help="prompts of this task only")
        parser.add_argument("--lang", help="prompts in this language only")
        parser.add_argument("--method", choices=KNOWN_CHOICES["method"], default="bradley-terry")
        parser.add_argument("--intervals", choices=KNOWN_CHOICES["intervals"], default="")
        parser.add_argument("--control-style", action="store_true", help="hold length, headings, lists and bold equal")

    def run(self, **options: Any) -> dict[str, Any]:
        project = find_project(options["project"])
        if options["humans_only"] and options["judges_only"]:
            raise DomainError("--humans-only and --judges-only leave nobody")
        try:
            choices = Choices(
                ties=options["ties"],
                voters="people" if options["humans_only"] else "judges" if options["judges_only"] else "all",
                category=options["category"],
                lang=options["lang"],
                method=options["method"],
                intervals=options["intervals"],
                control=options["control_style"],
            )
        except ValueError as error:
            raise DomainError(str(error)) from None
        board = dataclasses.asdict(make_leaderboard(project, choices, with_flags=True))
        return {"rows": board.pop("standings")} | board

    def print_for_people(self, result: dict[str, Any]) -> None:
        self.stdout.write(f"{'rank':>4}  {'rating':>7}  {'95 % interval':>17}  {'judgments':>9}  source")
        for row in result["rows"]:
            rank, rating = row["rank"] or "–", "–" if row["rating"] is None else f"{row['rating']:.1f}"
            interval = "–" if row["lower"] is None else f"{row['lower']:.1f} … {row['upper']:.1f}"
            remarks = "; ".join([*(str(Flag(flag).label) for flag in row["flags"]), *filter(None, [row["note"]])])
            note = f" ({remarks})" if remarks else ""
            self.stdout.write(f"{rank:>4}  {rating:>7}  {interval:>17}  {row['judgments']:>9}  {row['source']}{note}")
        if not result["rows"]:
            self.stdout.write("No comparison between two sources has been judged yet.")
