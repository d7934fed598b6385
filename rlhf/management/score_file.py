"""Commands that score one file of a benchmark's verdicts: `NAME score FILE`."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from annotation.management.script import ScriptCommand
from annotation.services import DomainError
from rlhf.evaluation.fb_bench import UnusableFileError


class ScoreFileCommand(ScriptCommand):
    """A subclass sets `score_file`, which takes the path and raises UnusableFileError, and what the file holds."""

    score_file: Callable[[Path], dict[str, Any]]
    holds: str

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        score = actions.add_parser("score", help=f"score a file of {self.holds}")
        super().add_arguments(score)
        score.add_argument("file", type=Path, metavar="FILE")

    def run(self, **options: Any) -> dict[str, Any]:
        try:
            return self.score_file(options["file"])
        except UnusableFileError as error:
            raise DomainError(str(error)) from None
