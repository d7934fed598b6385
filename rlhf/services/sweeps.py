"""Sweeps: one job again and again, with every combination of some options' values."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.utils.translation import gettext

from annotation.services import DomainError
from rlhf import preflight
from rlhf.models import TrainingJob
from rlhf.option_words import format_number
from rlhf.options import SpecError, build_options
from rlhf.services.checkpoints import find_reward_model
from rlhf.services.jobs import checked_options, queue_training_job, refusing_unusable_data

JOBS_IN_SWEEP = 32

Axis = tuple[str, Sequence[str]]
"""An option and the values that it takes, as typed."""


def combinations(job: TrainingJob, axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """Every combination of the values, checked as options of the job's method. Raises DomainError or SpecError."""
    if not axes:
        raise DomainError(gettext("name an option and the values that it shall take"))
    names = [name for name, _ in axes]
    for name, values in axes:
        if not name or not values:
            raise DomainError(
                gettext("%(name)s has no values; write them with commas between") % {"name": name}
                if name
                else gettext("choose the option that takes the values %(values)s") % {"values": ", ".join(values)}
            )
        if names.count(name) > 1:
            raise DomainError(gettext("%(name)s is named twice") % {"name": name})
    planned: list[dict[str, Any]] = []
    for values in itertools.islice(itertools.product(*(values for _, values in axes)), JOBS_IN_SWEEP + 1):
        given = dict(zip(names, values, strict=True))
        built = build_options(job.method, {**job.options, **given})
        typed = {name: getattr(built, name) for name in names}
        if typed in planned:
            raise SpecError(gettext("%(values)s stands there twice") % {"values": said(typed)})
        planned.append(typed)
    if len(planned) > JOBS_IN_SWEEP:
        raise DomainError(
            gettext("these are more than %(most)s jobs; a sweep may have so many") % {"most": JOBS_IN_SWEEP}
        )
    return planned


def check_sweep(job: TrainingJob, planned: Sequence[dict[str, Any]]) -> list[preflight.Outcome]:
    """What is found before the start of each combination. Raises DomainError."""
    assert job.snapshot is not None
    built = [checked_options(job.method, job.base, {**job.options, **values}) for values in planned]
    variants = [(options, find_reward_model(options, job.base)) for options in built]
    with refusing_unusable_data():
        return preflight.run_checks_of_each(
            job.snapshot, job.method, job.base, variants, label=job.label, gpus=job.gpus
        )


def queue_sweep(
    job: TrainingJob, planned: Sequence[dict[str, Any]], created_by: User | None = None, *, proceed: bool = False
) -> list[TrainingJob]:
    """Queue a job for each combination, all or none. Raises DomainError, which names the combination.

    proceed: start over what warns and against what blocks of any of them.
    """
    assert job.snapshot is not None
    outcomes = check_sweep(job, planned)
    made = []
    with transaction.atomic():
        for values, outcome in zip(planned, outcomes, strict=True):
            try:
                one = queue_training_job(
                    snapshot=job.snapshot,
                    method=job.method,
                    base=job.base,
                    options={**job.options, **values},
                    name=_name(job, values),
                    **job.placement,
                    created_by=created_by,
                    proceed=proceed,
                    found=outcome.as_json(),
                )
            except DomainError as error:
                problem = gettext("with %(values)s: %(problem)s") % {"values": said(values), "problem": error}
                raise DomainError(problem) from None
            made.append(one)
    return made


def said(values: dict[str, Any]) -> str:
    """A combination as people read it."""
    return ", ".join(f"{name} {format_number(value)}" for name, value in values.items())


def _name(job: TrainingJob, values: dict[str, Any]) -> str:
    named = "-".join(f"{name}-{format_number(value)}" for name, value in values.items())
    return re.sub(r"[^\w-]", "_", f"{job}-{named}")[:100]
