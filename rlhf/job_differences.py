"""How compared jobs were set up differently: their settings, and the rows that they learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlhf.models import DatasetSnapshot, TrainingJob
from rlhf.snapshots import SPLITS, snapshot_rows


@dataclass(frozen=True)
class Difference:
    name: str
    values: list[Any]

    @property
    def is_of_all(self) -> bool:
        """Whether every job's method has this option."""
        return None not in self.values


def differing_options(jobs: Sequence[TrainingJob]) -> list[Difference]:
    """The settings in which these jobs differ, with each one's value; None where its method has no such option."""
    described = [{"base": job.base.name, "code version": job.code_version} | job.options for job in jobs]
    names = list(dict.fromkeys(name for settings in described for name in settings))
    columns = [Difference(name, [settings.get(name) for settings in described]) for name in names]
    return [column for column in columns if any(value != column.values[0] for value in column.values)]


@dataclass(frozen=True)
class DataDifference:
    """A job's data set beside the reference's."""

    job: TrainingJob
    is_same: bool
    both: int = 0
    only_here: int = 0
    only_there: int = 0
    trained_on_held_out: int = 0
    """Rows that this job trained on and that the reference holds out: its accuracy there means nothing."""


def differing_data(jobs: Sequence[TrainingJob], against: TrainingJob) -> list[DataDifference]:
    """How each job's rows differ from those of one of them, by the comparisons that they were made of."""
    ids: dict[int, dict[str, set[Any]]] = {}

    def ids_of(snapshot: DatasetSnapshot) -> dict[str, set[Any]]:
        if snapshot.pk not in ids:
            ids[snapshot.pk] = {split: {row.get("id") for row in snapshot_rows(snapshot, split)} for split in SPLITS}
        return ids[snapshot.pk]

    found = []
    for job in jobs:
        if job.pk == against.pk or job.snapshot is None or against.snapshot is None:
            continue
        if job.snapshot.sha256 == against.snapshot.sha256:
            found.append(DataDifference(job, is_same=True))
            continue
        here, there = ids_of(job.snapshot), ids_of(against.snapshot)
        found.append(
            DataDifference(
                job,
                is_same=False,
                both=len(here["train"] & there["train"]),
                only_here=len(here["train"] - there["train"]),
                only_there=len(there["train"] - here["train"]),
                trained_on_held_out=len(here["train"] & there["eval"]),
            )
        )
    return found
