from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from annotation.management.script import ScriptCommand
from rlhf.services.imports import import_job


class Command(ScriptCommand):
    help = "Bring in a run that was made by hand on another machine, in a directory of train --prepare."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("job_dir", type=Path, metavar="JOB_DIR")
        parser.add_argument("--name", default="", help="name of the job and of its checkpoint")

    def run(self, **options: Any) -> dict[str, Any]:
        job = import_job(options["job_dir"], options["name"])
        return {"job": job.pk, "status": job.status, "checkpoint": job.checkpoint.name, "metrics": job.metrics}
