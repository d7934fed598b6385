from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from annotation.management.script import ScriptCommand
from annotation.services import DomainError
from rlhf.evaluation.cfbench import score_file
from rlhf.evaluation.fb_bench import UnusableFileError


class Command(ScriptCommand):
    help = "CFBench: score judged items in the authors' shape."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        score = actions.add_parser("score", help="score a file of judged items")
        super().add_arguments(score)
        score.add_argument("file", type=Path, metavar="FILE")

    def run(self, **options: Any) -> dict[str, Any]:
        try:
            return score_file(options["file"])
        except UnusableFileError as error:
            raise DomainError(str(error)) from None
