from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from annotation.management.script import ScriptCommand, find_project
from annotation.models import Comparison, Project, Response, ResponseSource
from annotation.services import DomainError
from rlhf import generation
from rlhf.management.following import watch
from rlhf.management.starter import find_or_fetch_checkpoint
from rlhf.models import Checkpoint, GenerationJob, JobStatus
from rlhf.services import publish_checkpoint, queue_generation_job, resolve_alias


class Command(ScriptCommand):
    help = "Sample responses of a source for every prompt of a project and put them before the annotators."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--source", required=True, metavar="NAME", help="a published checkpoint, or one to publish"
        )
        parser.add_argument("--project", required=True, metavar="SLUG")
        parser.add_argument("--per-prompt", type=int, default=2)
        parser.add_argument(
            "--against",
            metavar="NAME",
            help="compare with this source's responses; default: the checkpoint's parent, where it has been published",
        )
        parser.add_argument("--temperature", type=float)
        parser.add_argument("--max-tokens", type=int)
        parser.add_argument("--seed", type=int)

    def run(self, **options: Any) -> dict[str, Any]:
        project = find_project(options["project"])
        source = ResponseSource.objects.filter(name=options["source"]).first()
        if source is None:
            source = publish_checkpoint(find_or_fetch_checkpoint(options["source"], project))
        responses, comparisons = _counts(project.pk, source)
        sampling = {key: options[key] for key in ("temperature", "max_tokens", "seed") if options[key] is not None}
        job = queue_generation_job(
            project=project,
            source=source,
            per_prompt=options["per_prompt"],
            against=_against(project, source, options["against"]),
            sampling=sampling,
        )
        watch(job, generation.run_generation_job, _state, self.progress)
        if job.status != JobStatus.SUCCEEDED:
            raise DomainError(f"generation {job.pk} {job.status}: {job.error or 'run the same command to go on'}")
        responses_now, comparisons_now = _counts(project.pk, source)
        return {
            "prompts": project.prompts.count(),
            "responses": responses_now - responses,
            "comparisons": comparisons_now - comparisons,
        }


def _state(job: GenerationJob) -> str:
    return f"{job.response_count} of {job.response_total} responses"


def _against(project: Project, source: ResponseSource, name: str | None) -> ResponseSource | None:
    if name:
        against = ResponseSource.objects.filter(name=name).first()
        if against is None and (checkpoint := resolve_alias(name, project)):
            against = publish_checkpoint(checkpoint)
        if against is None:
            raise DomainError(f"there is no source {name!r} to compare with")
        return against
    checkpoint = Checkpoint.objects.filter(source=source).select_related("parent__source").first()
    return checkpoint.parent.source if checkpoint and checkpoint.parent else None


def _counts(project_id: int, source: ResponseSource) -> tuple[int, int]:
    responses = Response.objects.filter(prompt__project=project_id, source=source).count()
    pairs = Comparison.objects.filter(project=project_id, response_b__source=source).count()
    return responses, pairs
