from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from annotation.management.script import ScriptCommand, find_project
from annotation.services import DomainError
from rlhf.services import find_checkpoint
from rlhf.services.uncertainty import MOST_SCORED, rate_uncertainties


class Command(ScriptCommand):
    help = (
        "Score a project's open comparisons with a reward model, here: people judge first what it cannot tell apart."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--reward-model", required=True, metavar="NAME")
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument("--limit", type=int, default=MOST_SCORED, metavar="N", help=f"default {MOST_SCORED}")

    def run(self, **options: Any) -> dict[str, Any]:
        if options["limit"] < 1:
            raise DomainError("--limit must be at least 1")
        project, reward_model = find_project(options["project"]), find_checkpoint(options["reward_model"])
        found = rate_uncertainties(project, reward_model, limit=options["limit"])
        return {"project": project.slug, "reward_model": reward_model.name, **found}
