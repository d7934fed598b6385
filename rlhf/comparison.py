"""Jobs side by side: one row each, a column for every evaluation, and how far each lies from one of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean, stdev
from typing import Any, Literal

from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from scipy import stats

from annotation.leaderboard import head_to_head
from annotation.models import Prompt
from rlhf.costs import cost_of, hardware_of
from rlhf.models import (
    BenchmarkRun,
    Checkpoint,
    DatasetSnapshot,
    JobMetric,
    JobStatus,
    Point,
    SampleScores,
    TrainingJob,
)
from rlhf.shares import held_out_accuracy
from rlhf.snapshots import SPLITS, snapshot_rows

Text = str | Promise
LAST_LOGS = 10
"""What training itself measures is the mean of so many of its last logs."""
SLICES = 4
"""Kinds of task, the most frequent ones, by which the win rate is cut."""


@dataclass(frozen=True)
class Column:
    name: str
    label: Text
    better: Literal["higher", "lower", ""] = ""
    is_share: bool = False
    unit: Text = ""
    decimals: int = 2


@dataclass(frozen=True)
class Value:
    """A measurement; its interval where it has one."""

    value: float
    lower: float | None = None
    upper: float | None = None
    count: int | None = None


@dataclass(frozen=True)
class Cell:
    column: Column
    value: Value | None
    delta: float | None = None
    """From the reference row's value; None in that row and where either is missing."""
    verdict: Literal["better", "worse", ""] = ""
    """Only where the difference is larger than the doubt of both values allows."""


HELD_OUT = (
    Column("accuracy", _("Held-out accuracy"), "higher", is_share=True),
    Column("eval_margin", _("Held-out margin"), "higher"),
    Column("eval_loss", _("Held-out loss"), "lower", decimals=3),
    Column("reward", _("Reward in training"), "higher", decimals=3),
    Column("kl", _("KL from the reference"), "lower", unit=_("nats"), decimals=3),
    Column("length", _("Length of completions"), unit=_("tokens"), decimals=0),
    Column("wins", _("Win rate against its parent"), "higher", is_share=True),
)
COSTS = (
    Column("hours", _("Hours of processes"), "lower", unit=_("h"), decimals=3),
    Column("memory", _("Peak memory"), "lower", unit=_("GB"), decimals=1),
)

Measured = dict[str, Value]


def tabulate(
    columns: Sequence[Column], measured: Mapping[int, Mapping[str, Value]], against: int
) -> dict[int, list[Cell]]:
    """The cells of each row, with deltas from the row `against`; columns that no row has are left out."""
    kept = [column for column in columns if any(column.name in row for row in measured.values())]
    reference = measured.get(against, {})
    cells: dict[int, list[Cell]] = {}
    for key, row in measured.items():
        base = {} if key == against else reference
        cells[key] = [_cell(column, row.get(column.name), base.get(column.name)) for column in kept]
    return cells


def _cell(column: Column, value: Value | None, reference: Value | None) -> Cell:
    if value is None or reference is None:
        return Cell(column, value)
    delta = value.value - reference.value
    doubt = math.hypot(_half_width(value), _half_width(reference))
    if not column.better or not doubt or abs(delta) <= doubt:
        return Cell(column, value, delta)
    return Cell(column, value, delta, "better" if (delta > 0) == (column.better == "higher") else "worse")


def _half_width(value: Value) -> float:
    return 0.0 if value.lower is None or value.upper is None else (value.upper - value.lower) / 2


def measure(
    jobs: Sequence[TrainingJob], scored: Sequence[ScoredSamples] = ()
) -> tuple[list[Column], dict[int, Measured]]:
    """Every evaluation and cost of these jobs that there is."""
    hardware = hardware_of(list(jobs))
    logged = JobMetric.objects.curves([job.pk for job in jobs], 240)
    slices: dict[str, Column] = {}
    benches: dict[str, Column] = {}
    measured: dict[int, Measured] = {}
    for job in jobs:
        row = _held_out(job) | _in_training(logged[job.pk])
        row |= _wins(job, slices)
        row |= _benchmarks(job, benches)
        row["hours"] = Value(cost_of(job, hardware.get(job.pk)).hours)
        if memory := job.metrics.get("peak_memory_gb") or _last(logged[job.pk].get("peak_memory_gb", ()), 1):
            row["memory"] = Value(float(memory))
        for samples in scored:
            row |= samples.measured(job)
        measured[job.pk] = row
    by_reward_models = [column for samples in scored for column in samples.columns()]
    return [*HELD_OUT, *by_reward_models, *slices.values(), *benches.values(), *COSTS], measured


def _held_out(job: TrainingJob) -> Measured:
    row: Measured = {}
    if share := held_out_accuracy(job.metrics):
        row["accuracy"] = Value(share.value, share.lower, share.upper, share.count)
    for name, keys in (("eval_margin", ("eval_rewards/margins", "eval_margin")), ("eval_loss", ("eval_loss",))):
        if (value := next((job.metrics[key] for key in keys if job.metrics.get(key) is not None), None)) is not None:
            row[name] = Value(float(value))
    return row


def _in_training(logged: Mapping[str, Sequence[Point]]) -> Measured:
    names = {"reward": "reward", "kl": "kl", "length": "completions/mean_length"}
    found = {name: _last(logged.get(key, ()), LAST_LOGS) for name, key in names.items()}
    return {name: Value(value) for name, value in found.items() if value is not None}


def _last(points: Sequence[Point], count: int) -> float | None:
    return fmean(point.mean for point in points[-count:]) if points else None


def _wins(job: TrainingJob, slices: dict[str, Column]) -> Measured:
    """How often people prefer the job's checkpoint to its parent, altogether and by kind of task."""
    checkpoint = getattr(job, "checkpoint", None)
    if checkpoint is None or checkpoint.source is None or job.base.source is None or job.snapshot is None:
        return {}
    project, pair = job.snapshot.project, (checkpoint.source, job.base.source)
    row: Measured = {}
    whole = _win_rate(head_to_head(project, *pair, humans_only=True))
    if whole is None:
        return {}
    row["wins"] = whole
    groups: dict[str, set[str]] = {}
    for task, group in Prompt.objects.filter(project=project).exclude(task="").values_list("task", "group"):
        groups.setdefault(task, set()).add(group)
    for task in sorted(groups, key=lambda task: (-len(groups[task]), task))[:SLICES]:
        share = _win_rate(head_to_head(project, *pair, humans_only=True, groups=groups[task]))
        if share is not None:
            column = Column(f"wins:{task}", f"… {task}", "higher", is_share=True)
            slices.setdefault(column.name, column)
            row[column.name] = share
    return row


def _win_rate(record: Mapping[str, Any]) -> Value | None:
    if record["win_rate"] is None:
        return None
    return Value(record["win_rate"], record["lower"], record["upper"], record["judgments"])


def _benchmarks(job: TrainingJob, benches: dict[str, Column]) -> Measured:
    """The overall score of the newest finished run on each benchmark."""
    checkpoint = getattr(job, "checkpoint", None)
    if checkpoint is None or checkpoint.source is None:
        return {}
    row: Measured = {}
    runs = BenchmarkRun.objects.filter(source=checkpoint.source, status=JobStatus.SUCCEEDED)
    for run in runs.select_related("data_set").order_by("finished_at"):
        overall = run.report.get("overall")
        if overall is not None:
            column = Column(f"bench:{run.data_set_id}:{run.judge_id}", run.data_set.name, "higher")
            benches.setdefault(column.name, column)
            row[column.name] = Value(float(overall))
    return row


# ── Samples, scored by a reward model ────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class ScoredSamples:
    """What one reward model says of the samples of several jobs, on the prompts that all of them answered."""

    reward_model: Checkpoint
    by_job: dict[int, list[dict[str, Any]]]
    """Rows of SampleScores.values, of the same prompts in the same order."""
    steps: list[int]
    left_out: int
    scored_at: datetime

    @property
    def prompts(self) -> int:
        return max(map(len, self.by_job.values()))

    @property
    def answers(self) -> int:
        return sum(map(len, self.by_job.values()))

    @property
    def cut(self) -> int:
        return sum(row["is_cut"] for rows in self.by_job.values() for row in rows)

    def columns(self) -> list[Column]:
        name = {"name": self.reward_model.name}
        return [
            Column(f"samples:{self.reward_model.pk}", gettext("Samples, scored by %(name)s") % name, "higher"),
            Column(f"gain:{self.reward_model.pk}", gettext("… more than at step 0"), "higher"),
        ]

    def measured(self, job: TrainingJob) -> Measured:
        rows = self.by_job.get(job.pk)
        if not rows:
            return {}
        samples, gain = self.columns()
        return {
            samples.name: mean_value([row["after"] for row in rows]),
            gain.name: mean_value([row["after"] - row["before"] for row in rows]),
        }


def scored_samples(jobs: Sequence[TrainingJob]) -> list[ScoredSamples]:
    """By reward model, of those that have scored samples of these jobs."""
    by_model: dict[Checkpoint, list[SampleScores]] = {}
    stored = SampleScores.objects.filter(job__in=jobs, scored_at__isnull=False, error="")
    for scores in stored.select_related("reward_model").order_by("reward_model__name", "job"):
        by_model.setdefault(scores.reward_model, []).append(scores)
    found = []
    for reward_model, of_jobs in by_model.items():
        rows = {scores.job_id: {row["prompt"]: row for row in scores.values} for scores in of_jobs}
        common = sorted(set.intersection(*map(set, rows.values())))
        found.append(
            ScoredSamples(
                reward_model,
                {job: [by_prompt[prompt] for prompt in common] for job, by_prompt in rows.items()},
                steps=sorted({scores.step for scores in of_jobs}),
                left_out=sum(scores.left_out for scores in of_jobs),
                scored_at=max(scores.scored_at for scores in of_jobs if scores.scored_at),
            )
        )
    return found


def mean_value(values: Sequence[float]) -> Value:
    """The mean with its 95 % interval by Student's t, which few values need; one value has none."""
    mean, count = fmean(values), len(values)
    if count < 2:
        return Value(mean, count=count)
    half = float(stats.t.ppf(0.975, count - 1)) * stdev(values) / math.sqrt(count)
    return Value(mean, mean - half, mean + half, count)


# ── What was different ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Difference:
    name: str
    values: list[Any]


def differing_options(jobs: Sequence[TrainingJob]) -> list[Difference]:
    """The settings in which these jobs differ, with each one's value; None where its method has no such option."""
    described = [
        {"method": job.get_method_display(), "base": job.base.name, "code version": job.code_version} | job.options
        for job in jobs
    ]
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
