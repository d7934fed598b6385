from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from annotation.management.script import ScriptCommand
from annotation.services import DomainError
from rlhf.evaluation.fb_bench import UnusableFileError, read_dataset
from rlhf.evaluation.fb_bench_scores import score_file


class Command(ScriptCommand):
    help = "FB-Bench: score judgments, or have a model answer the data set and a judge tick the checklists."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        score = actions.add_parser("score", help="score a file of judgments in the authors' shape")
        super().add_arguments(score)
        score.add_argument("judgments", type=Path, metavar="JUDGMENTS.jsonl")
        score.add_argument("--dataset", type=Path, required=True, metavar="FILE")

    def run(self, **options: Any) -> dict[str, Any]:
        try:
            return score_file(options["judgments"], read_dataset(options["dataset"]))
        except UnusableFileError as error:
            raise DomainError(str(error)) from None
