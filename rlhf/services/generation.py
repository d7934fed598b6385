"""Generation jobs: queueing them and storing what they sample."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max, QuerySet
from django.utils.translation import gettext

from annotation import services as annotation
from annotation.models import Project, Prompt, Response, ResponseSource, SourceKind
from annotation.protocol import Protocol, Scale
from annotation.services import DomainError
from annotation.services.texts import MOST_RANKED
from rlhf.models import GenerationJob, JobStatus
from rlhf.services import leases

# T = 0.7 reads better to people than 1.0 with a small model; top_k is left to the server's default.
DEFAULT_SAMPLING = {"temperature": 0.7, "top_p": 0.95, "max_tokens": 160, "seed": 17}


def queue_generation_job(
    *,
    project: Project,
    source: ResponseSource,
    per_prompt: int = 2,
    against: ResponseSource | None = None,
    sampling: dict[str, Any] | None = None,
    created_by: User | None = None,
) -> GenerationJob:
    """Ask a source for `per_prompt` responses to each prompt of a project.

    The comparisons that follow pair its responses with those of `against`, or with each other where that is None; in a
    project of rankings people rank all of them together. Raises DomainError for a source that cannot be asked, an
    unknown sampling option, more responses than can be ranked, or a project without prompts.
    """
    if source.kind != SourceKind.MODEL:
        raise DomainError(
            gettext("%(name)s is a name in imported data, not a model that can be asked") % {"name": source.name}
        )
    if against is None and per_prompt < 2:
        raise DomainError(gettext("one response to a prompt cannot be compared with itself; ask for at least 2"))
    ranked = per_prompt * (1 if against is None else 2)
    if ranks_responses(project) and ranked > MOST_RANKED:
        raise DomainError(
            gettext(
                "%(count)s responses to a prompt would be ranked together, and the most is %(most)s; ask for fewer"
            )
            % {"count": ranked, "most": MOST_RANKED}
        )
    if unknown := set(sampling or {}) - set(DEFAULT_SAMPLING):
        known = ", ".join(DEFAULT_SAMPLING)
        raise DomainError(f"unknown sampling option {sorted(unknown)[0]!r}; known: {known}")
    prompt_count = project.prompts.filter(archived_at=None).count()
    if not prompt_count:
        raise DomainError(gettext("%(name)s has no prompts yet; add some first") % {"name": project.name})
    with transaction.atomic():
        job = GenerationJob.objects.create(
            project=project,
            source=source,
            against=against,
            per_prompt=per_prompt,
            sampling={**DEFAULT_SAMPLING, **(sampling or {})},
            response_total=prompt_count * per_prompt,
            response_count=Response.objects.filter(
                prompt__project=project, prompt__archived_at=None, source=source, sample_index__lt=per_prompt
            ).count(),
            created_by=created_by,
        )
        transaction.on_commit(lambda: leases.dispatch_job(job))
    return job


def queue_evaluation_responses(
    *,
    project: Project,
    source: ResponseSource,
    prompt_ids: Sequence[int],
    sampling: Mapping[str, Any],
    created_by: User | None = None,
) -> GenerationJob:
    """Ask a source for one response to each of these prompts, with just this sampling; nobody compares them.

    Call it inside a transaction.
    """
    job = GenerationJob(
        project=project,
        source=source,
        prompt_ids=list(prompt_ids),
        per_prompt=1,
        sampling=dict(sampling),
        response_total=len(prompt_ids),
        created_by=created_by,
    )
    job.response_count = _stored(job)
    job.save()
    transaction.on_commit(lambda: leases.dispatch_job(job))
    return job


def sampled_alike(
    source: ResponseSource, prompt_ids: Collection[int], sampling: Mapping[str, Any]
) -> QuerySet[Response]:
    """The responses of a source to these prompts that were drawn with this sampling, whatever the seed."""
    return Response.objects.filter(prompt__in=prompt_ids, source=source, sampling=without_seed(sampling))


def without_seed(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Sampling as a response keeps it: its seed stands beside it."""
    return {name: value for name, value in sampling.items() if name != "seed"}


def ranks_responses(project: Project) -> bool:
    """Whether people order the responses to a prompt, instead of comparing two."""
    return Protocol.of(project).scale == Scale.RANKING


def sample_seed(source: ResponseSource, prompt: Prompt, sample_index: int, base_seed: int) -> int:
    """The seed of one response: the same for the same source, prompt and index, and different for any other."""
    name = f"{source.name}\n{prompt.content_sha256}\n{sample_index}\n{base_seed}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") >> 1


def missing_samples(job: GenerationJob) -> list[tuple[Prompt, int]]:
    """What the job has still to sample, prompt by prompt, so that the first prompts can be judged early."""
    if job.prompt_ids is not None:
        return _missing_of_evaluation(job, job.prompt_ids)
    done = set(
        Response.objects.filter(
            prompt__project=job.project, source=job.source, sample_index__lt=job.per_prompt
        ).values_list("prompt_id", "sample_index")
    )
    prompts = Prompt.objects.filter(project=job.project, archived_at=None).order_by("id")
    return [
        (prompt, index)
        for prompt in prompts.iterator()
        for index in range(job.per_prompt)
        if (prompt.pk, index) not in done
    ]


def _missing_of_evaluation(job: GenerationJob, prompt_ids: Collection[int]) -> list[tuple[Prompt, int]]:
    """Beside what the source wrote with another sampling, which is no answer to this question."""
    done = set(sampled_alike(job.source, prompt_ids, job.sampling).values_list("prompt", flat=True))
    written = Response.objects.filter(prompt__in=prompt_ids, source=job.source)
    newest = dict(written.values_list("prompt").annotate(newest=Max("sample_index")))
    prompts = Prompt.objects.filter(pk__in=prompt_ids, archived_at=None).exclude(pk__in=done).order_by("pk")
    return [(prompt, newest.get(prompt.pk, -1) + 1) for prompt in prompts]


def record_response_count(job: GenerationJob) -> bool:
    """Bring the job's progress up to date; False where the lease was lost."""
    return leases.held(job).update(response_count=_stored(job)) == 1


def _stored(job: GenerationJob) -> int:
    if job.prompt_ids is not None:
        return sampled_alike(job.source, job.prompt_ids, job.sampling).values("prompt").distinct().count()
    return Response.objects.filter(
        prompt__project=job.project,
        prompt__archived_at=None,
        source=job.source,
        sample_index__lt=job.per_prompt,
    ).count()


def compare_new_responses(job: GenerationJob, prompt: Prompt) -> int:
    """Put the prompt's new responses before the annotators, as far as they are there; gives how much is new.

    Those of an evaluation are for its judge, or for its study, which puts them there itself.
    """
    if job.prompt_ids is not None:
        return 0
    new = list(
        Response.objects.filter(prompt=prompt, source=job.source, sample_index__lt=job.per_prompt).order_by(
            "sample_index"
        )
    )
    if job.against_id is None:
        pairs = list(zip(new[0::2], new[1::2], strict=False))
        together = new
    else:
        old = Response.objects.filter(prompt=prompt, source=job.against, sample_index__lt=job.per_prompt)
        by_index = {response.sample_index: response for response in old}
        pairs = [(by_index[r.sample_index], r) for r in new if r.sample_index in by_index]
        together = [response for pair in pairs for response in pair]
    if len(together) > 2 and ranks_responses(job.project):
        return annotation.create_rankings(job.project, [together[:MOST_RANKED]])
    return annotation.create_comparisons(job.project, pairs)


def finish_generation_job(job: GenerationJob, status: JobStatus, *, comparisons: int, error: str = "") -> bool:
    """End the job; False where its lease was lost."""
    return leases.finish_job(job, status, error=error, comparison_count=comparisons)
