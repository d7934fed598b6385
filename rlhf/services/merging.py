"""Merging checkpoints: a job like any other, without data."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

from django.contrib.auth.models import User
from django.db import transaction
from django.utils.translation import gettext

from annotation.services import DomainError
from rlhf import jobspec
from rlhf.model_match import check_mergeable
from rlhf.models import Checkpoint, MergeInput, Method, Priority, TrainingJob
from rlhf.options import MergeOptions, SpecError, TrainingOptions, build_options
from rlhf.services import leases
from rlhf.services.checkpoints import find_checkpoint
from rlhf.services.jobs import code_version


def queue_merge_job(
    *,
    base: Checkpoint,
    options: dict[str, Any],
    name: str = "",
    label: str = "",
    gpus: int = 0,
    priority: int = Priority.NORMAL,
    created_by: User | None = None,
) -> TrainingJob:
    """Check that the checkpoints fit each other, store the job and tell the workers.

    `options` name the models as people do: by name, alias or directory. Raises DomainError that names the option, the
    file or the tensor that is wrong.
    """
    try:
        models = [find_checkpoint(name) for name in _built(options).model_names]
        for checkpoint in (base, *models):
            jobspec.check_manifest(checkpoint.path)
            if checkpoint.kind != base.kind:
                raise DomainError(
                    gettext("%(name)s and %(base)s are not of one kind: one writes responses, the other scores them")
                    % {"name": checkpoint.name, "base": base.name}
                )
        # By name, so that an alias which moves does not change what the job says of itself.
        built = _built(options | {"models": ",".join(model.name for model in models)})
        check_mergeable(base.path, {model.name: model.path for model in models})
    except SpecError as error:
        raise DomainError(str(error)) from None
    with transaction.atomic():
        job = TrainingJob.objects.create(
            name=name,
            method=Method.MERGE,
            base=base,
            options=dataclasses.asdict(built),
            code_version=code_version(),
            label=label,
            gpus=gpus,
            priority=priority,
            created_by=created_by,
        )
        MergeInput.objects.bulk_create(
            MergeInput(job=job, checkpoint=model, position=position, weight=weight)
            for position, (model, weight) in enumerate(zip(models, built.model_weights, strict=True))
        )
        transaction.on_commit(lambda: leases.dispatch_job(job))
    return job


def _built(options: dict[str, Any]) -> MergeOptions:
    built: Any = build_options(Method.MERGE, options)
    return cast(MergeOptions, built)


def options_with_paths(job: TrainingJob) -> TrainingOptions:
    """The job's options with directories for names, as its process reads them. Raises SpecError."""
    paths = [str(merged.checkpoint.path) for merged in job.merge_inputs.select_related("checkpoint")]
    if with_comma := [path for path in paths if "," in path]:
        raise SpecError(f"{with_comma[0]} has a comma in its path: move the model to a directory without one")
    return build_options(job.method, {**job.options, "models": ",".join(paths)})
