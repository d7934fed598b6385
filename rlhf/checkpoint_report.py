"""What was measured of checkpoints, each figure with its interval and the address of its rows; and where two differ.

One function gives the measurements of one checkpoint; the report shows them, and the comparison puts those of several
beside each other, so that both pages say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from django.db.models import Count, Q
from django.urls import reverse
from django.utils.translation import gettext, ngettext

from annotation.leaderboard import Choices
from annotation.models import Comparison, Preference, Project, ProjectSource, Study, StudyKind
from annotation.pages.leaderboard import stored_board
from annotation.shares import Share
from annotation.stored_figures import FiguresNotReadyError
from annotation.study_figures import MEASURES, gsb_whole, rubric_whole
from rlhf.benchmark_figures import figures_of, newest_runs
from rlhf.costs import cost_of, hardware_of
from rlhf.models import Benchmark, BenchmarkJudgment, BenchmarkRun, Checkpoint, RewardCard
from rlhf.shares import held_out_accuracy
from rlhf.win_rates import checkpoint_win_rate

EXAMPLES_SHOWN = 5


@dataclass(frozen=True)
class Measurement:
    """A figure; shares and points of 100 lie in 0 … 100."""

    key: str
    """The same for the same measurement of another checkpoint."""
    name: str
    value: float | None
    lower: float | None = None
    upper: float | None = None
    count: int | None = None
    """Items, pairs, rows or votes that it rests on."""
    url: str = ""
    unit: str = "%"
    digits: int = 1
    axis: tuple[float, float] | None = (0.0, 100.0)
    """From where to where it is drawn; None for what is not."""

    def placed(self, value: float) -> float:
        """Where a value lies on its axis, from 0 to 100."""
        low, high = self.axis or (0.0, 100.0)
        return min(100.0, max(0.0, 100 * (value - low) / ((high - low) or 1.0)))

    @property
    def place(self) -> str:
        """For `.interval`."""
        if self.axis is None or self.value is None or self.lower is None or self.upper is None:
            return ""
        at, low, high = (self.placed(value) for value in (self.value, self.lower, self.upper))
        return f"--at: {at:.2f}%; --start: {low:.2f}%; --width: {high - low:.2f}%"

    @property
    def shown(self) -> str:
        return "–" if self.value is None else f"{self.value:,.{self.digits}f}{f' {self.unit}' if self.unit else ''}"

    @property
    def shown_interval(self) -> str:
        if self.lower is None or self.upper is None:
            return ""
        return gettext("%(lower)s to %(upper)s") % {
            "lower": f"{self.lower:.{self.digits}f}", "upper": f"{self.upper:.{self.digits}f}"
        }  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Measurements of one kind, from one place."""

    key: str
    title: str
    rows: list[Measurement]
    url: str = ""
    note: str = ""


def groups_of(checkpoint: Checkpoint, rivals: Iterable[Checkpoint] = ()) -> list[Group]:
    """All that was measured of a checkpoint; `rivals`: against whom the votes are counted."""
    groups = [_held_out(checkpoint), *_benchmarks(checkpoint), *_reward_cards(checkpoint)]
    groups += [_votes(checkpoint, rival) for rival in rivals]
    groups += [*_studies(checkpoint), *_leaderboards(checkpoint)]
    groups.append(_cost(checkpoint))
    return [group for group in groups if group.rows]


def _held_out(checkpoint: Checkpoint) -> Group:
    job = checkpoint.job
    title = gettext("On the pairs that its training held out")
    if job is None:
        return Group("held_out", title, [])
    url = reverse("job_detail", args=[job.pk])
    rows = []
    if accuracy := held_out_accuracy(job.metrics):
        bounds = 100 * accuracy.lower, 100 * accuracy.upper
        rows.append(
            Measurement("accuracy", gettext("accuracy"), 100 * accuracy.value, *bounds, accuracy.count, url=url)
        )
    for name in ("eval_loss", "eval_rewards/margins", "eval_margin", "eval_mean_token_accuracy", "eval_reward"):
        if isinstance(value := job.metrics.get(name), int | float):
            rows.append(Measurement(name, name, float(value), url=url, unit="", digits=4, axis=None))
    return Group("held_out", title, rows, url)


def _benchmarks(checkpoint: Checkpoint) -> list[Group]:
    """The newest finished run of each data set and conditions."""
    if checkpoint.source_id is None:
        return []
    newest = newest_runs(BenchmarkRun.objects.filter(source=checkpoint.source_id))
    scores = _scores_by_task(newest)
    return [_benchmark(run, scores.get(run.pk, {})) for run in newest]


def _scores_by_task(runs: Sequence[BenchmarkRun]) -> dict[int, dict[str, list[float]]]:
    found: dict[int, dict[str, list[float]]] = {}
    rows = BenchmarkJudgment.objects.filter(run__in=runs, score__isnull=False)
    for run, task, score in rows.order_by("item__task").values_list("run", "item__task", "score"):
        found.setdefault(run, {}).setdefault(task, []).append(100 * float(score or 0.0))
    return found


def _benchmark(run: BenchmarkRun, by_task: dict[str, list[float]]) -> Group:
    figures = figures_of(run)
    url, items = reverse("benchmark_run", args=[run.pk]), reverse("benchmark_run_items", args=[run.pk])
    labels = {"overall": gettext("overall")}
    if run.data_set.kind == Benchmark.FB_BENCH:
        labels |= {
            "error_correction": gettext("error correction"),
            "response_maintenance": gettext("response maintenance"),
        }
    rows = [
        Measurement(
            name,
            label,
            figures[name],
            count=figures["scored"] if name == "overall" else None,
            url=url if name == "overall" else f"{items}?scenario={name}",
            unit="",
            digits=2,
        )
        for name, label in labels.items()
    ]
    for name in ("csr", "isr", "psr", "ssr"):
        if isinstance(value := figures.get(name), int | float):
            rows.append(Measurement(name, name.upper(), 100 * value, url=url, unit="", digits=2))
    every = [score for scores in by_task.values() for score in scores]
    rows.append(_mean("items", gettext("mean over items"), every, items))
    rows += [
        _mean(f"task:{task}", task, scores, f"{items}?task={quote(task)}") for task, scores in by_task.items() if task
    ]
    judge = run.judge.name if run.judge else ""
    note = gettext("%(scored)s of %(items)s items have a score.") % {
        "scored": f"{figures['scored']:,}", "items": f"{figures['items']:,}"
    }  # fmt: skip
    title = gettext("%(data_set)s, judged by %(judge)s") % {"data_set": run.data_set.name, "judge": judge}
    key = ":".join(map(str, ("benchmark", run.data_set_id, *run.conditions)))
    return Group(key, f"{title} ({run.conditions_shown})", rows, url, note)


def _mean(key: str, name: str, scores: Sequence[float], url: str) -> Measurement:
    """The interval is Wilson's, with as many independent items as would vary as much: it never claims certainty."""
    found = Share.clustered([score / 100 for score in scores], [1] * len(scores))
    if found is None:
        return Measurement(key, name, None, url=url, unit="")
    ends = (100 * found.value, 100 * found.lower, 100 * found.upper)
    return Measurement(key, name, *ends, len(scores), url, unit="")


def _reward_cards(checkpoint: Checkpoint) -> list[Group]:
    groups = []
    for card in RewardCard.objects.filter(checkpoint=checkpoint).order_by("pk"):
        if not card.values.get("pairs"):
            continue
        url = f"{reverse('reward_card', args=[checkpoint.pk])}?card={card.pk}"
        values = card.values
        named = [("accuracy", gettext("accuracy"), values["accuracy"] | {"count": values["pairs"]})]
        if values["people"]:
            named.append(("people", gettext("two people agree"), values["people"]))
        named += [(f"category:{row['name']}", row["name"] or gettext("none"), row) for row in values["by_category"]]
        rows = []
        for key, name, found in named:
            ends = (100 * found["value"], 100 * found["lower"], 100 * found["upper"])
            rows.append(Measurement(key, name, *ends, found.get("count"), url))
        ece = values["calibration"]["ece"]
        rows.append(Measurement("ece", gettext("calibration error"), ece, url=url, unit="", digits=3, axis=None))
        title = gettext("Reward card: %(name)s") % {"name": card.data_name or gettext("held-out pairs")}
        groups.append(Group(f"reward:{card.data_sha256}", title, rows, url))
    return groups


def _votes(checkpoint: Checkpoint, rival: Checkpoint) -> Group:
    title = gettext("Votes of people against %(name)s") % {"name": rival.name}
    found = checkpoint_win_rate(checkpoint, rival)
    url = reverse("checkpoint_votes", args=[checkpoint.pk, rival.pk])
    rows = []
    for key, name, share in (
        ("win_rate", gettext("preferred to it"), found.rate if found else None),
        ("at_equal_length", gettext("… at equal length"), found.at_equal_length if found else None),
    ):
        if share and found:
            ends = (100 * share.value, 100 * share.lower, 100 * share.upper)
            rows.append(Measurement(key, name, *ends, found.judgments, url))
    return Group(f"votes:{rival.pk}", title, rows, url)


def _studies(checkpoint: Checkpoint) -> list[Group]:
    """The human evaluations that it took part in, each seen from its side."""
    if checkpoint.source is None:
        return []
    about = Study.objects.filter(Q(source=checkpoint.source_id) | Q(against=checkpoint.source_id))
    found = about.select_related("project", "source", "against").order_by("pk")
    return [_pairs(study, checkpoint) if study.kind == StudyKind.GSB else _marks(study, checkpoint) for study in found]


def _pairs(study: Study, checkpoint: Checkpoint) -> Group:
    assert study.against is not None
    url = reverse("project_study", args=[study.project.slug, study.pk])
    names = {"study": study.name, "new": study.source.name, "old": study.against.name}
    title = gettext("Human evaluation %(study)s: %(new)s against %(old)s, blind") % names
    whole, is_new = gsb_whole(study), study.source_id == checkpoint.source_id
    rows = []
    for key, name, share in (
        ("win_rate", gettext("preferred, a tie as half"), whole.rate),
        ("at_equal_length", gettext("… at equal length"), whole.at_equal_length),
    ):
        if share:
            ends = (share.value, share.lower, share.upper)
            value, lower, upper = ends if is_new else (1 - share.value, 1 - share.upper, 1 - share.lower)
            rows.append(Measurement(key, name, 100 * value, 100 * lower, 100 * upper, whole.judgments, url))
    if whole.judgments:
        good, bad = (whole.wins, whole.losses) if is_new else (whole.losses, whole.wins)
        for key, name, votes in (
            ("good", gettext("good"), good),
            ("same", gettext("same"), whole.ties),
            ("bad", gettext("bad"), bad),
        ):
            rows.append(Measurement(key, name, votes, count=whole.judgments, url=url, unit="", digits=0, axis=None))
    return Group(f"study:{study.pk}", title, rows, url)


def _marks(study: Study, checkpoint: Checkpoint) -> Group:
    assert checkpoint.source is not None
    url = reverse("project_study", args=[study.project.slug, study.pk])
    found = rubric_whole(study, checkpoint.source)
    rows = [
        Measurement(key, str(MEASURES[key]), 100 * share.value, 100 * share.lower, 100 * share.upper, share.count, url)
        for key, share in found.shares.items()
    ]
    title = gettext("Human evaluation %(study)s: four marks, blind") % {"study": study.name}
    return Group(f"study:{study.pk}", title, rows, url)


def _leaderboards(checkpoint: Checkpoint) -> list[Group]:
    """Its rating by people's votes in each project that holds responses of it, among all that were rated there."""
    if checkpoint.source is None:
        return []
    held = ProjectSource.objects.filter(source=checkpoint.source_id)
    groups = []
    for project in Project.objects.filter(pk__in=held.values("project")).order_by("pk"):
        url = f"{reverse('project_leaderboard', args=[project.slug])}?voters=people"
        title = gettext("Leaderboard of %(project)s, by votes of people") % {"project": project.name}
        key = f"leaderboard:{project.pk}"
        try:
            board, _history, _as_of = stored_board(project, Choices(voters="people"))
        except FiguresNotReadyError:
            waiting = [Measurement("rating", gettext("rating"), None, url=url, axis=None)]
            groups.append(Group(key, title, waiting, url, gettext("It is being counted; look again in a minute.")))
            continue
        mine = next((one for one in board.standings if one.source == checkpoint.source.name), None)
        if mine is None or not mine.judgments:
            continue
        rated = [one for one in board.standings if one.rating is not None]
        ends = [end for one in rated for end in (one.rating, one.lower, one.upper) if end is not None]
        axis = (min(ends), max(ends)) if ends else None
        rows = [
            Measurement("rating", gettext("rating"), mine.rating, mine.lower, mine.upper, mine.judgments, url,
                        unit="", digits=0, axis=axis)
        ]  # fmt: skip
        if mine.rank is not None:
            rows.append(
                Measurement(
                    "rank", gettext("rank"), mine.rank, count=len(rated), url=url, unit="", digits=0, axis=None
                )
            )
        groups.append(Group(key, title, rows, url, mine.note))
    return groups


def _cost(checkpoint: Checkpoint) -> Group:
    job = checkpoint.job
    if job is None or not job.process_seconds:
        return Group("cost", gettext("What it took"), [])
    cost = cost_of(job, hardware_of([job]).get(job.pk))
    url = reverse("job_detail", args=[job.pk])
    rows = [Measurement("hours", str(cost.label), cost.hours, url=url, unit="", digits=2, axis=None)]
    if isinstance(peak := job.metrics.get("peak_memory_gb"), int | float):
        rows.append(Measurement("memory", gettext("peak memory"), float(peak), url=url, unit="GB", axis=None))
    return Group("cost", gettext("What it took"), rows, url)


# ── Several beside each other ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Line:
    key: str
    name: str
    cells: list[Measurement | None]
    """One for each checkpoint."""


@dataclass(frozen=True)
class Beside:
    """One kind of measurement of all checkpoints."""

    title: str
    lines: list[Line]


def compare(checkpoints: Sequence[Checkpoint]) -> list[Beside]:
    """Every measurement that any of them has; votes are against the first."""
    rival = checkpoints[0]
    measured = [groups_of(one, [rival] if one.pk != rival.pk else []) for one in checkpoints]
    found: list[Beside] = []
    for key, title in {group.key: group.title for groups in measured for group in groups}.items():
        of_all: list[dict[str, Measurement]] = []
        for groups in measured:
            group = next((one for one in groups if one.key == key), None)
            of_all.append({row.key: row for row in group.rows} if group else {})
        names = {row: cell.name for cells in of_all for row, cell in cells.items()}
        lines = [Line(row, name, [cells.get(row) for cells in of_all]) for row, name in names.items()]
        found.append(Beside(title, lines))
    return found


@dataclass(frozen=True)
class Side:
    checkpoint: Checkpoint
    text: str
    said: str
    """Its score, or its votes."""


@dataclass(frozen=True)
class Example:
    """Something that the checkpoints were asked, and what each wrote."""

    title: str
    url: str
    asked: list[dict[str, Any]]
    sides: list[Side]
    difference: float


def benchmark_examples(checkpoints: Sequence[Checkpoint]) -> list[Example]:
    """The items on which the highest and the lowest score lie furthest apart, of runs under the same conditions."""
    by_source = {one.source_id: one for one in checkpoints if one.source_id}
    newest = {run.pk: run for run in newest_runs(BenchmarkRun.objects.filter(source__in=by_source))}
    judged = BenchmarkJudgment.objects.filter(run__in=newest, score__isnull=False)
    scores: dict[tuple[int, tuple[Any, ...]], dict[int, float]] = {}
    for item, run, score in judged.values_list("item", "run", "score"):
        scores.setdefault((item, newest[run].conditions), {})[run] = float(score or 0.0)
    apart = sorted(
        ((max(of.values()) - min(of.values()), key) for key, of in scores.items() if len(of) > 1),
        key=lambda pair: (-pair[0], pair[1][0], str(pair[1])),
    )
    examples = []
    for difference, (item, conditions) in apart[:EXAMPLES_SHOWN]:
        if difference <= 0:
            break
        rows = judged.filter(item=item, run__in=scores[item, conditions]).select_related(
            "item", "answer", "run__judge"
        )
        sides = [
            Side(by_source[row.run.source_id], row.answer.text, f"{100 * (row.score or 0.0):.0f}")
            for row in sorted(rows, key=lambda row: -(row.score or 0.0))
        ]
        one = rows[0].item
        said = (("user", one.query), ("assistant", one.first_response), ("user", one.feedback))
        asked = [{"role": role, "content": text} for role, text in said if text]
        title = gettext("item %(number)s, %(task)s") % {"number": one.position, "task": one.task or one.sub_task}
        examples.append(Example(title, reverse("benchmark_item", args=[item]), asked, sides, 100 * difference))
    return examples


def vote_examples(one: Checkpoint, other: Checkpoint) -> list[Example]:
    """The comparisons of two checkpoints on which the votes were most one-sided, those with more votes first."""
    if one.source_id is None or other.source_id is None:
        return []
    live = Q(judgments__superseded_at=None, judgments__round=0, judgments__annotator__is_human=True)
    pair = Q(response_a__source=one.source_id, response_b__source=other.source_id)
    pair |= Q(response_a__source=other.source_id, response_b__source=one.source_id)
    found = (
        Comparison.objects.filter(pair, is_gold=False)
        .annotate(
            for_a=Count("judgments", filter=live & Q(judgments__preference=Preference.A)),
            for_b=Count("judgments", filter=live & Q(judgments__preference=Preference.B)),
        )
        .filter(Q(for_a__gt=0) | Q(for_b__gt=0))
        .select_related("prompt", "response_a", "response_b", "project")
    )
    ranked = sorted(found, key=lambda row: (-abs(row.for_a - row.for_b), -(row.for_a + row.for_b), row.pk))
    examples = []
    for comparison in ranked[:EXAMPLES_SHOWN]:
        responses = [(comparison.response_a, comparison.for_a), (comparison.response_b, comparison.for_b)]
        sides = [
            Side(
                one if response.source_id == one.source_id else other,
                response.text,
                ngettext("%(count)s vote", "%(count)s votes", votes) % {"count": votes},
            )
            for response, votes in sorted(responses, key=lambda pair: -pair[1])
        ]
        examples.append(
            Example(
                comparison.project.name,
                _prompt_url(comparison.project, comparison.prompt_id),
                comparison.prompt.messages,
                sides,
                abs(comparison.for_a - comparison.for_b),
            )
        )
    return examples


def _prompt_url(project: Project, prompt_id: int) -> str:
    return reverse("prompt_detail", args=[project.slug, prompt_id])
