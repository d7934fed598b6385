from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path
from typing import Any

from annotation.errors import DomainError
from annotation.management.script import ScriptCommand
from rlhf.evaluation.alpaca_eval import PreferenceFileError, read_preferences, win_rates


class Command(ScriptCommand):
    help = "AlpacaEval's win rates with standard errors, from a CSV file of a judge's preferences."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("file", type=Path, metavar="PREFERENCES.csv")

    def run(self, **options: Any) -> dict[str, Any]:
        try:
            return {"rows": [asdict(row) for row in win_rates(read_preferences(options["file"]))]}
        except PreferenceFileError as error:
            raise DomainError(str(error)) from None

    def print_for_people(self, result: dict[str, Any]) -> None:
        self.stdout.write(f"{'win rate':>8}  {'std. error':>10}  {'answers':>7}  model")
        for row in result["rows"]:
            error = "–" if row["standard_error"] is None else f"{row['standard_error']:.2f}"
            lost = f" ({row['unusable']} without a verdict)" if row["unusable"] else ""
            self.stdout.write(f"{row['win_rate']:8.2f}  {error:>10}  {row['count']:>7}  {row['model']}{lost}")
