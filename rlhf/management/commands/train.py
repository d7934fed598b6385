from __future__ import annotations

import shlex
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings

from annotation.management.script import ScriptCommand
from annotation.services import DomainError
from rlhf import launcher, preflight, supervisor
from rlhf.launch_config import PRIORITIES, LaunchConfig, parse_config
from rlhf.management.following import training_state, watch
from rlhf.management.starter import find_or_fetch_checkpoint
from rlhf.models import Checkpoint, DatasetSnapshot, JobStatus, LaunchCheck, Method, Priority, TrainingJob
from rlhf.options import OPTIONS, SpecError
from rlhf.preflight.probe import run_probe
from rlhf.services import check_launch, queue_merge_job, start_checked_job
from rlhf.services.imports import prepare_job_directory
from rlhf.services.launching import findings_of, measure_launch


class Command(ScriptCommand):
    help = "Launch a training job on a frozen data set."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--config",
            type=Path,
            metavar="FILE",
            help="as a job's page gives it; what else is given wins over it",
        )
        parser.add_argument("--method", default="", choices=["", *sorted(OPTIONS)])
        parser.add_argument("--snapshot", default="", metavar="NAME", help="needed by every method but merge")
        parser.add_argument("--base", default="", metavar="NAME", help="checkpoint, alias or directory")
        parser.add_argument(
            "--set", nargs="+", action="extend", default=[], metavar="key=value", dest="settings_given"
        )
        parser.add_argument("--name", default="", help="name of the job and of its checkpoint")
        parser.add_argument("--label", help="of the workers that may take it; any without")
        parser.add_argument("--gpus", type=int, help="how many the worker must have free")
        parser.add_argument("--priority", choices=PRIORITIES)
        parser.add_argument(
            "--measure", action="store_true", help="load the model here first and take one step on the longest rows"
        )
        parser.add_argument(
            "--prepare",
            type=Path,
            metavar="DIR",
            help="start nothing: write the job's directory for a run by hand, which import_job brings in",
        )
        parser.add_argument("--proceed", action="store_true", help="start even where a check blocks")
        parser.add_argument(
            "--wait", action="store_true", help="stay until the job ends; runs it here if no worker does"
        )

    def run(self, **options: Any) -> dict[str, Any]:
        findings: list[preflight.Finding] = []
        config = _merged(_read_config(options["config"]), options)
        if config.method == Method.MERGE:
            job = _queue_merge(config, options)
        else:
            check, findings = self._check(config, options)
            if options["prepare"]:
                prepare_job_directory(check, options["prepare"], proceed=options["proceed"])
                commands = [shlex.join(command) for _, command in launcher.host_commands(options["prepare"])]
                return {"directory": str(options["prepare"]), "commands": commands}
            job = start_checked_job(check, proceed=options["proceed"])
        if options["wait"]:
            watch(
                job, supervisor.run_training_job, training_state, self.progress, after_stop="it goes back to the queue"
            )
            if job.status == JobStatus.PAUSED:
                why = f" itself for an alarm, {job.paused_for}" if job.paused_for else ""
                raise DomainError(
                    f"job {job.pk} paused{why}; its page says more, and `manage.py job resume {job.pk}` goes on"
                )
            if not job.is_finished:
                raise DomainError(f"job {job.pk} has not ended; a worker goes on with it from its last checkpoint")
        job.refresh_from_db()
        if job.status == JobStatus.FAILED:
            raise DomainError(f"job {job.pk} failed: {job.error}")
        checkpoint = Checkpoint.objects.filter(job=job).first()
        return {
            "job": job.pk,
            "status": job.status,
            "checkpoint": checkpoint.name if checkpoint else None,
            "metrics": job.metrics,
            "checks": [finding.as_json() | {"text": preflight.sentence(finding)} for finding in findings],
        }

    def _check(self, config: LaunchConfig, options: dict[str, Any]) -> tuple[LaunchCheck, list[preflight.Finding]]:
        snapshot = _find_snapshot(config.snapshot)
        check = check_launch(
            snapshot=snapshot,
            method=config.method,
            base=find_or_fetch_checkpoint(config.base, snapshot.project),
            options=config.options,
            name=config.name,
            **_placement(config),
        )
        if options["measure"]:
            measure_launch(check, run_probe)
        findings = findings_of(check)
        for finding in findings:
            self.progress(f"{finding.level.name.lower()}: {preflight.sentence(finding)}")
        return check, findings


def _queue_merge(config: LaunchConfig, options: dict[str, Any]) -> TrainingJob:
    if config.snapshot:
        raise DomainError("merge takes no data set: leave --snapshot out")
    if options["prepare"]:
        raise DomainError(
            "a merge cannot be prepared for a run by hand, because import_job knows a run by its data set: leave "
            "--prepare out. Nothing was started"
        )
    if options["measure"]:
        raise DomainError("a merge has no step that could be measured: leave --measure out. Nothing was started")
    base = find_or_fetch_checkpoint(config.base)
    return queue_merge_job(base=base, options=config.options, name=config.name, **_placement(config))


def _placement(config: LaunchConfig) -> dict[str, Any]:
    return {"label": config.label, "gpus": config.gpus, "priority": Priority[config.priority.upper()]}


def _find_snapshot(name: str) -> DatasetSnapshot:
    snapshot = DatasetSnapshot.objects.filter(name=name).first()
    if snapshot is None:
        known = ", ".join(DatasetSnapshot.objects.values_list("name", flat=True)) or "none yet"
        problem = f"there is no data set {name!r}" if name else "name a data set with --snapshot"
        raise DomainError(f"{problem}; known: {known}")
    return snapshot


def _read_config(path: Path | None) -> LaunchConfig:
    if path is None:
        return LaunchConfig(method="")
    try:
        return parse_config(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DomainError(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DomainError(f"{path} is not a text in UTF-8") from None
    except SpecError as error:
        raise DomainError(f"{path}: {error}") from None


def _merged(config: LaunchConfig, options: dict[str, Any]) -> LaunchConfig:
    """The file's launch with what the command line names in its place."""
    method = options["method"] or config.method
    if not method:
        raise DomainError("name a --method, or a --config that holds one")
    given = dict(_key_value(text) for text in options["settings_given"])
    return LaunchConfig(
        method=method,
        snapshot=options["snapshot"] or config.snapshot,
        base=options["base"] or config.base or settings.STARTER_MODEL,
        name=options["name"] or config.name,
        label=config.label if options["label"] is None else options["label"],
        gpus=config.gpus if options["gpus"] is None else options["gpus"],
        priority=options["priority"] or config.priority,
        options=(config.options if method == config.method else {}) | given,
    )


def _key_value(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise DomainError(f"--set {text!r} is not of the form key=value")
    return key, value
