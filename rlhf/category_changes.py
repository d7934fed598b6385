"""How a job's models do by category from evaluation to evaluation, which category fell, and what to do about it.

Two kinds of evaluation: FB-Bench runs, of which two models answered the same items, so that their difference has a
paired interval; and the held-out rows that the trainer measures, of which only shares and counts are known.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import fmean, stdev
from typing import Any

from django.db.models import Q
from django.utils.translation import gettext
from scipy import special

from annotation.models import Prompt
from annotation.shares import Share
from rlhf.benchmark_figures import figures_of
from rlhf.models import (
    BenchmarkJudgment,
    BenchmarkSet,
    DatasetSnapshot,
    JobEvaluation,
    JobMetric,
    JobStatus,
    TrainingJob,
)
from rlhf.snapshots import snapshot_rows

FEWEST_PAIRED = 5
"""Items that two models must share before a fall of their category is spoken of."""
RAISE_BY, RAISE_AT_MOST = 1.5, 0.10
"""The rule for the prompt mix: half as much again of the fallen category, and no more than ten points of the whole."""
PREFIX = "eval_category/"


@dataclass(frozen=True)
class Change:
    """From an earlier model to a later one; all in points of 100."""

    value: float
    lower: float | None
    upper: float | None
    count: int

    @property
    def is_fall(self) -> bool:
        """Whether the whole 95 % interval lies below 0."""
        return self.upper is not None and self.upper < 0


@dataclass(frozen=True)
class Cell:
    """A category at one step."""

    value: float | None
    count: int
    since_first: Change | None = None
    since_last: Change | None = None
    ends: tuple[float, float] | None = None
    """Of the value's own 95 % interval, where it is not a change that matters."""

    @property
    def fall(self) -> Change | None:
        """The larger of its falls, if there is one."""
        falls = [change for change in (self.since_first, self.since_last) if change and change.is_fall]
        return min(falls, key=lambda change: change.value, default=None)


@dataclass(frozen=True)
class Row:
    step: int
    cells: list[Cell]
    """In the order of the table's categories."""
    evaluation: JobEvaluation | None = None
    overall: float | None = None
    whole: Cell | None = None
    """Of all categories together, where that is measured."""
    url: str = ""
    """Where the rows are."""
    note: str = ""
    """What is not in the figures, and why."""


@dataclass(frozen=True)
class Table:
    """One data set, or one held-out measure, over the steps of a job."""

    title: str
    unit: str
    categories: list[str]
    rows: list[Row]
    pending: list[JobEvaluation] = field(default_factory=list)
    """Runs that have no result, or will never have one."""
    data_set: BenchmarkSet | None = None
    is_against_base: bool = False
    """Values are win rates against the job's base, in percent; their changes are from 50."""


@dataclass(frozen=True)
class Fall:
    """A category that is worse than it was, with the advice that the rule gives."""

    category: str
    measured_by: str
    step: int
    since: int
    change: Change
    advice: str
    is_against_base: bool = False

    @property
    def words(self) -> str:
        change = self.change
        if self.is_against_base:
            return gettext(
                "%(category)s: the base is preferred, its win rate is %(share)s %% (95 %%: %(lower)s to %(upper)s, "
                "n = %(count)s)"
            ) % {
                "category": self.category,
                "share": f"{50 - change.value:.1f}",
                "lower": f"{50 - (change.upper or 0.0):.1f}",
                "upper": f"{50 - (change.lower or 0.0):.1f}",
                "count": f"{change.count:,}",
            }
        said = {
            "category": self.category,
            "points": f"{-change.value:.1f}",
            "lower": f"{change.lower:+.1f}".replace("-", "−"),
            "upper": f"{change.upper:+.1f}".replace("-", "−"),
            "count": f"{change.count:,}",
            "since": self.since,
        }
        return (
            gettext(
                "%(category)s fell by %(points)s points since step %(since)s "
                "(95 %%: %(lower)s to %(upper)s, n = %(count)s)"
            )
            % said
        )


def paired_change(before: Mapping[int, float], after: Mapping[int, float], scale: float = 100) -> Change | None:
    """Mean difference, times scale, of the items that both scored, with Student's interval; scores by item.

    None where they share no item; without an interval where they share too few.
    """
    differences = [scale * (after[item] - before[item]) for item in after if item in before]
    if not differences:
        return None
    mean, count = fmean(differences), len(differences)
    if count < FEWEST_PAIRED:
        return Change(mean, None, None, count)
    half = float(special.stdtrit(count - 1, 0.975)) * stdev(differences) / math.sqrt(count)
    return Change(mean, mean - half, mean + half, count)


def share_change(before: Share, after: Share) -> Change:
    """The difference of two shares of the same rows as if they were different ones, which is wider: Newcombe's hybrid
    of the two Wilson intervals (1998, method 10)."""
    value = after.value - before.value
    down = math.hypot(after.value - after.lower, before.upper - before.value)
    up = math.hypot(after.upper - after.value, before.value - before.lower)
    return Change(100 * value, 100 * (value - down), 100 * (value + up), after.count)


def tables_of(job: TrainingJob) -> list[Table]:
    """Every evaluation of the job by category."""
    return [*_benchmark_tables(job), *_held_out_tables(job)]


def _benchmark_tables(job: TrainingJob) -> list[Table]:
    found = job.evaluations.select_related(
        "run__data_set", "run__judge", "run__answers_from", "data_set", "checkpoint"
    )
    by_set: dict[int, list[JobEvaluation]] = {}
    for evaluation in found:
        by_set.setdefault(evaluation.data_set_id, []).append(evaluation)
    return [_benchmark_table(evaluations) for evaluations in by_set.values()]


def _benchmark_table(evaluations: Sequence[JobEvaluation]) -> Table:
    done = [one for one in evaluations if one.run and one.run.status == JobStatus.SUCCEEDED]
    scores: dict[int, dict[str, dict[int, float]]] = {}
    judged = BenchmarkJudgment.objects.filter(run__in=[one.run_id for one in done], score__isnull=False)
    for run, task, item, score in judged.values_list("run", "item__task", "item", "score"):
        scores.setdefault(run, {}).setdefault(task or gettext("all"), {})[item] = float(score or 0.0)
    categories = sorted({task for of_run in scores.values() for task in of_run})
    rows: list[Row] = []
    for place, evaluation in enumerate(done):
        assert evaluation.run is not None
        own = scores.get(evaluation.run.pk, {})
        before = [one.run_id for one in done[:place] if one.run and one.run.conditions == evaluation.run.conditions]
        cells = []
        for category in categories:
            items = own.get(category, {})
            earlier = [scores.get(run or 0, {}).get(category, {}) for run in before]
            cells.append(
                Cell(
                    100 * fmean(items.values()) if items else None,
                    len(items),
                    paired_change(earlier[0], items) if earlier else None,
                    paired_change(earlier[-1], items) if len(earlier) > 1 else None,
                )
            )
        rows.append(Row(evaluation.step, cells, evaluation, figures_of(evaluation.run)["overall"]))
    first = evaluations[0]
    pending = [one for one in evaluations if one not in done]
    return Table(first.data_set.name, gettext("points of 100"), categories, rows, pending, first.data_set)


def _held_out_tables(job: TrainingJob) -> list[Table]:
    """Accuracies with intervals by their counts; a loss or a margin is shown, and nothing is concluded from it."""
    is_measured = Q(values__has_key="eval_loss") | Q(values__has_key="eval_accuracy")
    measured = JobMetric.objects.filter(is_measured, job=job).order_by("step")
    steps = [(metric.step, _by_category(metric.values)) for metric in measured]
    steps = [(step, found) for step, found in steps if found]
    titles = {
        "accuracy": gettext("Held-out accuracy"),
        "loss": gettext("Held-out loss"),
        "margin": gettext("Held-out margin"),
    }
    tables = []
    for measure, title in titles.items():
        categories = sorted({name for _, found in steps for name, values in found.items() if measure in values})
        if not categories:
            continue
        rows = []
        for place, (step, found) in enumerate(steps):
            earlier = [values for _, values in steps[:place]]
            rows.append(Row(step, [_held_out_cell(name, measure, found, earlier) for name in categories]))
        unit = gettext("points of 100") if measure == "accuracy" else ""
        tables.append(Table(title, unit, categories, rows))
    return tables


def _by_category(values: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        if name.startswith(PREFIX) and isinstance(value, int | float):
            category, _, measure = name.removeprefix(PREFIX).rpartition("/")
            found.setdefault(category, {})[measure] = float(value)
    return found


def _held_out_cell(
    category: str, measure: str, found: Mapping[str, Mapping[str, float]], earlier: Sequence[Mapping[str, Any]]
) -> Cell:
    values = found.get(category, {})
    count = int(values.get("rows", 0))
    if measure not in values:
        return Cell(None, count)
    if measure != "accuracy":
        return Cell(values[measure], count)
    own = Share.of(values[measure] * count, count)
    shares = [_share(before.get(category, {})) for before in earlier]
    known = [share for share in shares if share]
    if own is None or not known:
        return Cell(100 * values[measure], count)
    last = share_change(known[-1], own) if len(known) > 1 else None
    return Cell(100 * values[measure], count, share_change(known[0], own), last)


def _share(values: Mapping[str, float]) -> Share | None:
    count = int(values.get("rows", 0))
    return Share.of(values["accuracy"] * count, count) if "accuracy" in values else None


def falls_of(job: TrainingJob, tables: Sequence[Table]) -> list[Fall]:
    """The categories that the newest evaluation found to have fallen, the largest fall first."""
    falls = []
    for table in tables:
        if len(table.rows) < (1 if table.is_against_base else 2):
            continue
        newest = table.rows[-1]
        for category, cell in zip(table.categories, newest.cells, strict=True):
            if (change := cell.fall) is not None:
                since = table.rows[0].step if change is cell.since_first else table.rows[-2].step
                todo = _advice_of(job, category)
                falls.append(
                    Fall(
                        category, table.title, newest.step, since, change, todo, is_against_base=table.is_against_base
                    )
                )
    return sorted(falls, key=lambda fall: fall.change.value)


def _advice_of(job: TrainingJob, category: str) -> str:
    if job.snapshot is None:
        return gettext("Give more weight to the parent that does better there, or leave out one that does worse.")
    return advice(category, mix_of(job.snapshot))


def advice(category: str, mix: Mapping[str, float]) -> str:
    """What the prompt mix should become, by a rule: half as much again, and at most ten points more."""
    named = {name.casefold(): (name, share) for name, share in mix.items() if name}
    if not named:
        return gettext("The prompts of the data set have no categories; give them some to see which to add.")
    found = named.get(category.casefold())
    if found is None:
        return gettext("No prompt that it was trained on is of this category: add some.")
    share = found[1]
    wanted = min(share * RAISE_BY, share + RAISE_AT_MOST)
    return gettext("Raise its share of the prompts from %(now)s %% to about %(wanted)s %%.") % {
        "now": f"{100 * share:.0f}", "wanted": f"{100 * wanted:.0f}"
    }  # fmt: skip


def mix_of(snapshot: DatasetSnapshot) -> dict[str, float]:
    """The share of each category among the prompts that are trained on; "" where they have none."""
    return dict(_mix_of(snapshot.pk, snapshot.sha256))


@lru_cache(maxsize=256)  # data sets never change, and the labels of their prompts hardly
def _mix_of(pk: int, sha256: str) -> tuple[tuple[str, float], ...]:
    snapshot = DatasetSnapshot.objects.get(pk=pk)
    prompts = {row["prompt_id"] for row in snapshot_rows(snapshot, "train")}
    tasks = dict(Prompt.objects.filter(project=snapshot.project_id).exclude(task="").values_list("pk", "task"))
    counts = Counter(tasks.get(prompt, "") for prompt in prompts)
    return tuple((task, count / len(prompts)) for task, count in counts.most_common())
