from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from annotation.management.script import ScriptCommand, find_project
from rlhf.services import create_snapshot


class Command(ScriptCommand):
    help = "Freeze the judged comparisons of a project as a data set that never changes, split by group."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument("--name", required=True)
        parser.add_argument("--eval-share", type=float, default=0.1, help="share of the groups held out (0.1)")
        parser.add_argument("--with-models", action="store_true", help="count judgments by models too")

    def run(self, **options: Any) -> dict[str, Any]:
        snapshot = create_snapshot(
            find_project(options["project"]),
            options["name"],
            eval_share=options["eval_share"],
            humans_only=not options["with_models"],
        )
        return {
            "name": snapshot.name,
            "sha256": snapshot.sha256,
            "train_rows": snapshot.train_rows,
            "eval_rows": snapshot.eval_rows,
            "prompts": snapshot.prompt_count,
        }
