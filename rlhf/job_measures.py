"""What was measured of finished jobs, and of the base that they share: the numbers of the comparison of jobs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from django.db.models import FloatField, Sum
from django.db.models.fields.json import KT
from django.db.models.functions import Cast
from django.utils.translation import gettext_lazy as _

from annotation.leaderboard import head_to_head
from annotation.models import Project, Prompt, ResponseSource
from rlhf.comparison import BASE, Column, Value
from rlhf.costs import Cost, cost_of, hardware_of
from rlhf.models import BenchmarkRun, InsightKind, JobInsight, JobMetric, JobStatus, Point, TrainingJob
from rlhf.scored_samples import ScoredSamples
from rlhf.shares import held_out_accuracy

LAST_LOGS = 10
"""What training itself measures is the mean of so many of its last logs."""
SLICES = 4
"""Kinds of task, the most frequent ones, by which the win rate is cut."""

WINS = Column("wins", _("Win rate against its parent"), "higher", "people", is_share=True)
HELD_OUT = (
    Column("accuracy", _("Held-out accuracy"), "higher", is_share=True),
    Column("eval_margin", _("Held-out margin"), "higher"),
    Column("eval_loss", _("Held-out loss"), "lower", decimals=3),
    Column("eval_reward", _("Held-out reward"), "higher", decimals=3),
    Column("sample_length", _("Length of samples"), unit=_("tokens"), decimals=0),
)
IN_TRAINING = (
    Column("reward", _("Reward in training"), "higher", "training", decimals=3),
    Column("kl", _("KL from the reference"), "lower", "training", unit=_("nats"), decimals=3),
    Column("length", _("Length of completions"), "", "training", unit=_("tokens"), decimals=0),
)
COSTS = (
    Column("seconds", _("Wall time"), "lower", "cost", is_seconds=True),
    Column("tokens", _("Tokens"), "lower", "cost", decimals=0),
    Column("memory", _("Peak memory"), "lower", "cost", unit=_("GB"), decimals=1),
)
EVEN = Value(0.5)
"""How often a model is preferred to itself."""

Measured = dict[str, Value]


def measure(
    jobs: Sequence[TrainingJob], scored: Sequence[ScoredSamples] = ()
) -> tuple[list[Column], dict[int, Measured]]:
    """Every evaluation and cost of these jobs that there is, by pk; what was measured of a base that all share too."""
    hardware = hardware_of(list(jobs))
    costs = {job.pk: cost_of(job, hardware.get(job.pk)) for job in jobs}
    logged = JobMetric.objects.curves([job.pk for job in jobs], 240)
    tokens = _tokens([job.pk for job in jobs])
    samples = _samples([job.pk for job in jobs])
    slices: dict[str, Column] = {}
    benches: dict[str, Column] = {}
    measured: dict[int, Measured] = {}
    for job in jobs:
        row = _held_out(job) | _in_training(logged[job.pk]) | _wins(job, slices)
        if source := _source(job):
            row |= _benchmarks(source, benches)
        if job.pk in samples:
            row |= _of_samples(samples[job.pk][-1])
        row["hours"] = Value(costs[job.pk].hours)
        row["seconds"] = Value(job.process_seconds)
        if tokens.get(job.pk):
            row["tokens"] = Value(tokens[job.pk])
        if memory := job.metrics.get("peak_memory_gb") or _last(logged[job.pk].get("peak_memory_gb", ()), 1):
            row["memory"] = Value(float(memory))
        for by_model in scored:
            row |= by_model.measured(job)
        measured[job.pk] = row
    if base := _of_base(jobs, measured, samples, scored, benches):
        measured[BASE] = base
    by_reward_models = [column for by_model in scored for column in by_model.columns()]
    evaluations = [WINS, *slices.values(), *benches.values(), *by_reward_models, *HELD_OUT]
    return [*evaluations, *IN_TRAINING, _hours_of(costs.values()), *COSTS], measured


def _hours_of(costs: Iterable[Cost]) -> Column:
    """GPU-hours or process-hours, or what stands for both where jobs differ in it."""
    labels = {str(cost.label): cost.label for cost in costs}
    label, unit = (next(iter(labels.values())), "") if len(labels) == 1 else (_("Hours of processes"), _("h"))
    return Column("hours", label, "lower", "cost", unit=unit, decimals=3)


def _source(job: TrainingJob) -> ResponseSource | None:
    """Who writes with what the job made, once it is published."""
    checkpoint = getattr(job, "checkpoint", None)
    return checkpoint.source if checkpoint else None


def _of_base(
    jobs: Sequence[TrainingJob],
    measured: Mapping[int, Mapping[str, Value]],
    samples: Mapping[int, list[list[dict[str, Any]]]],
    scored: Sequence[ScoredSamples],
    benches: dict[str, Column],
) -> Measured:
    """What is known of the base that all of these jobs share, in columns that some job has."""
    base = jobs[0].base
    if any(job.base_id != base.pk for job in jobs):
        return {}
    row = _benchmarks(base.source, benches) if base.source else {}
    for name in {name for others in measured.values() for name in others if name.partition(":")[0] == WINS.name}:
        row[name] = EVEN
    # Step 0 of any of them is the base, and the same, where the prompts are.
    first = [steps[0] for steps in samples.values()]
    prompts = [[sample["prompt"] for sample in step] for step in first]
    if prompts and prompts.count(prompts[0]) == len(prompts):
        row |= _of_samples(first[0])
    for by_model in scored:
        row |= by_model.measured_base()
    return {name: value for name, value in row.items() if any(name in others for others in measured.values())}


def _held_out(job: TrainingJob) -> Measured:
    row: Measured = {}
    if share := held_out_accuracy(job.metrics):
        row["accuracy"] = Value(share.value, share.lower, share.upper, share.count)
    keys = {"eval_margin": ("eval_rewards/margins", "eval_margin"), "eval_reward": ("eval_reward",)}
    if "eval_reward" not in job.metrics:  # what is learnt from samples has a loss that says nothing
        keys["eval_loss"] = ("eval_loss",)
    for name, candidates in keys.items():
        value = next((job.metrics[key] for key in candidates if job.metrics.get(key) is not None), None)
        if value is not None:
            row[name] = Value(float(value))
    return row


def _in_training(logged: Mapping[str, Sequence[Point]]) -> Measured:
    names = {"reward": "reward", "kl": "kl", "length": "completions/mean_length"}
    found = {name: _last(logged.get(key, ()), LAST_LOGS) for name, key in names.items()}
    return {name: Value(value) for name, value in found.items() if value is not None}


def _last(points: Sequence[Point], count: int) -> float | None:
    return fmean(point.mean for point in points[-count:]) if points else None


def _tokens(job_ids: Sequence[int]) -> dict[int, float]:
    """How many tokens each job computed in its steps: their speed times their seconds."""

    def number(name: str) -> Cast:
        return Cast(KT(f"values__{name}"), FloatField())

    rows = JobMetric.objects.filter(job__in=job_ids).values_list("job")
    return dict(rows.annotate(tokens=Sum(number("tokens_per_second") * number("seconds"))))


def _samples(job_ids: Sequence[int]) -> dict[int, list[list[dict[str, Any]]]]:
    """What each job's model wrote to its fixed prompts at step 0 and at the last step that showed any."""
    shown: dict[int, list[list[dict[str, Any]]]] = {}
    insights = JobInsight.objects.filter(job__in=job_ids, kind=InsightKind.SAMPLES).order_by("job", "step")
    for job_id, step, values in insights.values_list("job", "step", "values"):
        rows = values.get("rows", [])
        if rows and "text" in rows[0] and (step == 0 or job_id in shown):
            shown[job_id] = [*shown.get(job_id, [])[:1], rows]
    return {job_id: steps for job_id, steps in shown.items() if len(steps) == 2}


def _of_samples(rows: Sequence[Mapping[str, Any]]) -> Measured:
    return {"sample_length": Value(fmean(row["tokens"] for row in rows))}


def _wins(job: TrainingJob, slices: dict[str, Column]) -> Measured:
    """How often people prefer the job's checkpoint to its parent, altogether and by kind of task."""
    source = _source(job)
    if source is None or job.base.source is None or job.snapshot is None:
        return {}
    project, pair = job.snapshot.project, (source, job.base.source)
    whole = _win_rate(head_to_head(project, *pair, humans_only=True))
    if whole is None:
        return {}
    row: Measured = {WINS.name: whole}
    for task, groups in _groups_by_task(project).items():
        share = _win_rate(head_to_head(project, *pair, humans_only=True, groups=groups))
        if share is not None:
            column = Column(f"{WINS.name}:{task}", f"… {task}", "higher", "people", is_share=True)
            slices.setdefault(column.name, column)
            row[column.name] = share
    return row


def _groups_by_task(project: Project) -> dict[str, set[str]]:
    groups: dict[str, set[str]] = {}
    for task, group in Prompt.objects.filter(project=project).exclude(task="").values_list("task", "group"):
        groups.setdefault(task, set()).add(group)
    return {task: groups[task] for task in sorted(groups, key=lambda task: (-len(groups[task]), task))[:SLICES]}


def _win_rate(record: Mapping[str, Any]) -> Value | None:
    if record["win_rate"] is None:
        return None
    return Value(record["win_rate"], record["lower"], record["upper"], record["judgments"])


def _benchmarks(source: ResponseSource, benches: dict[str, Column]) -> Measured:
    """The overall score of the newest finished run on each benchmark, by each judge, language and token cap."""
    row: Measured = {}
    runs = BenchmarkRun.objects.filter(source=source, status=JobStatus.SUCCEEDED)
    for run in runs.select_related("data_set", "judge", "answers_from").order_by("finished_at"):
        overall = run.report.get("overall")
        if overall is not None:
            asked = f" ({run.judge.name}, {run.conditions_shown})" if run.judge else ""
            label = f"{run.data_set.name}{asked}"
            key = ":".join(map(str, ("bench", run.data_set_id, *run.conditions)))
            column = Column(key, label, "higher", "benchmarks")
            benches.setdefault(column.name, column)
            row[column.name] = Value(float(overall))
    return row
