"""What the tables say about a run: its progress, its report, and FB-Bench's rows in the authors' shapes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from django.db.models import Count, Q, QuerySet

from rlhf.constraint_figures import (
    constraint_answer_rows,
    constraint_item_rows,
    constraint_judgment_rows,
    constraint_report,
    constraint_table,
)
from rlhf.evaluation import fb_bench
from rlhf.evaluation.fb_bench_scores import report
from rlhf.models import (
    Benchmark,
    BenchmarkAnswer,
    BenchmarkItem,
    BenchmarkJudgment,
    BenchmarkRun,
    BenchmarkSet,
    BenchmarkTicks,
    JobStatus,
)
from rlhf.models.evaluation import BenchmarkItemQuerySet

PACE_ROWS = 40
"""An estimate looks back at this many answers or judgments."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. Failures are among the counts: they are done, too."""

    items: int
    answers: int
    failed_answers: int
    judgments: int
    failed_judgments: int
    seconds_left: float | None
    is_judged: bool
    """False where only answers are asked for."""

    @property
    def done(self) -> int:
        return self.answers + self.judgments

    @property
    def total(self) -> int:
        return (2 if self.is_judged else 1) * self.items


def progress_of(run: BenchmarkRun) -> Progress:
    if run.is_finished and run.report:  # as it ended, though its data set may have grown since
        kept = run.report
        answers_done = kept["answers"] + kept["failed_answers"]
        judged = kept["judgments"], kept["failed"]
        return Progress(kept["items"], answers_done, kept["failed_answers"], *judged, None, run.judge_id is not None)
    answers = BenchmarkAnswer.objects.filter(run=run.answering_run_id).aggregate(
        count=Count("pk"), failed=Count("pk", filter=~Q(error=""))
    )
    judgments = run.judgments.aggregate(count=Count("pk"), failed=Count("pk", filter=~Q(failure="")))
    items = items_about(run).count()
    judgments_left = items - judgments["count"] if run.judge_id else 0
    return Progress(
        items,
        answers["count"],
        answers["failed"],
        judgments["count"],
        judgments["failed"],
        None if run.is_finished else _seconds_left(run, items - answers["count"], judgments_left),
        run.judge_id is not None,
    )


def items_about(run: BenchmarkRun) -> BenchmarkItemQuerySet:
    """The items that a run is about: of an ended one those that it judged or missed, dropped since or not."""
    is_about = Q(dropped_at=None) | Q(pk__in=run.judgments.values("item"))
    return BenchmarkItem.objects.filter(is_about, data_set=run.data_set_id)


def _seconds_left(run: BenchmarkRun, answers_left: int, judgments_left: int) -> float | None:
    """From the pace of the last ones; judgments are guessed from answers until there are some."""
    answering = _seconds_each(run.answers.all(), run.parallel)
    judging = _seconds_each(run.judgments.all(), run.parallel) or answering
    if (answers_left and answering is None) or (judgments_left and judging is None):
        return None
    return answers_left * (answering or 0.0) + judgments_left * (judging or 0.0)


def _seconds_each(rows: Any, parallel: int) -> float | None:
    """From one end to the next, of the last ones; time in which none was asked for, as after a crash, is left out."""
    last = rows.filter(seconds__gt=0).order_by("-pk").values_list("created_at", "seconds")[:PACE_ROWS]
    busy = until = 0.0
    for begin, end in sorted((at.timestamp() - seconds, at.timestamp()) for at, seconds in last):
        busy += max(0.0, end - max(begin, until))
        until = max(until, end)
    # The others that were asked for meanwhile and have not ended are half done, on average.
    return busy / (len(last) + (parallel - 1) / 2) if last else None


def items_of(run: BenchmarkRun) -> dict[int, fb_bench.Item]:
    """Every item of the run's data set by primary key: with the checklist that it was judged by, or the newest."""
    used = dict(run.judgments.values_list("item", "checklist__criteria"))
    rows = items_about(run).with_checklist()
    return {row.pk: row.as_item(used.get(row.pk)) for row in rows}


def report_of(run: BenchmarkRun) -> dict[str, Any]:
    """The figures of what is judged so far, with a count of everything that is not in them."""
    judgments = list(run.judgments.values_list("item", "score", "failure", "is_repetitive", "attempts"))
    if run.data_set.kind == Benchmark.FB_BENCH:
        items = items_of(run)
        scores = {items[item].query: score for item, score, *_ in judgments if score is not None}
        figures, count = report(list(items.values()), scores), len(items)
    else:
        figures, count = constraint_report(run), run.data_set.items.count()
    failures = Counter(failure for _, _, failure, _, _ in judgments if failure)
    answers = BenchmarkAnswer.objects.filter(run=run.answering_run_id)
    return {
        **figures,
        "items": count,
        "answers": answers.filter(error="").count(),
        "failed_answers": answers.exclude(error="").count(),
        "judgments": len(judgments),
        "scored": len(judgments) - sum(failures.values()),
        "failed": sum(failures.values()),
        "failures": dict(failures.most_common()),
        "missing": count - len(judgments),
        "repetitive": sum(is_repetitive for _, _, _, is_repetitive, _ in judgments),
        "retried": sum(attempts > 1 for *_, attempts in judgments),
    }


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the leaderboard."""

    run: BenchmarkRun
    figures: dict[str, Any]
    rank: int | None
    """Among those of the same `BenchmarkRun.conditions`; None without a score."""

    @property
    def gap(self) -> float | None:
        """Error correction minus response maintenance: far above 0, it caves in; far below, it does not learn."""
        correction, maintenance = (self.figures.get(key) for key in ("error_correction", "response_maintenance"))
        return None if correction is None or maintenance is None else round(correction - maintenance, 2)


def leaderboard(data_set: BenchmarkSet) -> list[Row]:
    """The newest finished run of each model under the same conditions: each rank best first, without a score last."""
    found = [(run, figures_of(run)) for run in newest_runs(data_set.runs.all())]
    found.sort(key=lambda pair: (pair[1]["overall"] is None, -(pair[1]["overall"] or 0), pair[0].pk))
    ranks: Counter[Any] = Counter()
    rows = []
    for run, figures in found:
        ranks[run.conditions] += 1
        rows.append(Row(run, figures, None if figures["overall"] is None else ranks[run.conditions]))
    return rows


def newest_runs(runs: QuerySet[BenchmarkRun]) -> list[BenchmarkRun]:
    """Of finished and judged ones the newest of each data set, model and conditions."""
    finished = runs.filter(status=JobStatus.SUCCEEDED, judge__isnull=False)
    finished = finished.select_related("data_set", "source", "judge", "answers_from").order_by("pk")
    return list({(run.data_set_id, run.source_id, run.conditions): run for run in finished}.values())


def figures_of(run: BenchmarkRun) -> dict[str, Any]:
    """The report of a run: as it was kept at its end, or made now."""
    if not run.report:
        return report_of(run)
    # The database does not keep the order of keys.
    if run.data_set.kind != Benchmark.FB_BENCH:
        return run.report | {
            name: dict(sorted(run.report[name].items(), key=_size)) for name in CONSTRAINT_SLICES if name in run.report
        }
    ordered = {
        "by_task": fb_bench.TASKS,
        "by_deficiency": fb_bench.DEFICIENCIES,
        "by_feedback": [kind for kinds in fb_bench.FEEDBACK.values() for kind in kinds],
    }
    return run.report | {name: _in_order(run.report[name], keys) for name, keys in ordered.items()}


CONSTRAINT_SLICES = ("by_type", "by_priority", "by_domain")


def _size(entry: tuple[str, dict[str, Any]]) -> tuple[float, str]:
    """The largest slice first."""
    name, figures = entry
    return -next((figures[key] for key in ("count", "items", "sessions") if key in figures), 0), name


def _in_order(figures: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: figures[key] for key in keys if key in figures} | figures


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often a judge ticked a criterion as people did: the mean over models of the mean over criteria."""

    judge: str
    share: float | None
    by_model: dict[str, tuple[float, int]]
    """(share, criteria compared) by model."""
    compared: int
    """Pairs of a judgment and a person's ticks on one answer."""
    left_out: dict[str, int]
    """The pairs that are not compared, by why: see `_why_not_compared`."""

    @property
    def pairs(self) -> int:
        return self.compared + sum(self.left_out.values())


def agreements(data_set: BenchmarkSet) -> list[Agreement]:
    """Of every judge of answers that people have ticked, too: mean over models of mean(judge == human), as FB-Bench.

    Where several people ticked an answer, each is compared.
    """
    ticked: dict[int, dict[int, dict[int, dict[int, list[bool]]]]] = {}  # run, answer, person, checklist
    given = BenchmarkTicks.objects.filter(answer__item__data_set=data_set)
    for run, answer, person, checklist, met in given.values_list(
        "answer__run", "answer", "annotator", "checklist", "met"
    ):
        ticked.setdefault(run, {}).setdefault(answer, {}).setdefault(person, {})[checklist] = met
    judged: dict[tuple[int, int], BenchmarkJudgment] = {
        (judgment.run_id, judgment.answer_id): judgment
        for judgment in BenchmarkJudgment.objects.filter(
            run__data_set=data_set, answer__in=given.values("answer")
        ).defer("raw", "note", "reasons")
    }
    bits: dict[str, dict[str, list[bool]]] = {}
    compared: Counter[str] = Counter()
    left_out: dict[str, Counter[str]] = {}
    runs = data_set.runs.filter(judge__isnull=False).select_related("judge", "source")
    for one in runs.order_by("judge__name", "source__name", "pk"):
        assert one.judge is not None
        for answer, people in ticked.get(one.answering_run_id, {}).items():
            judgment = judged.get((one.pk, answer))
            of_model = bits.setdefault(one.judge.name, {}).setdefault(one.source.name, [])
            for by_checklist in people.values():
                if why := _why_not_compared(judgment, by_checklist):
                    left_out.setdefault(one.judge.name, Counter())[why] += 1
                elif judgment:
                    compared[one.judge.name] += 1
                    meant = by_checklist[judgment.checklist_id]
                    of_model += [said == wanted for said, wanted in zip(judgment.met, meant, strict=True)]
    found = []
    for judge, by_model in bits.items():
        shares = {model: (fmean(of_model), len(of_model)) for model, of_model in by_model.items() if of_model}
        share = fmean(share for share, _count in shares.values()) if shares else None
        found.append(Agreement(judge, share, shares, compared[judge], dict(left_out.get(judge, {}))))
    return found


def _why_not_compared(judgment: BenchmarkJudgment | None, by_checklist: Mapping[int, Sequence[bool]]) -> str:
    """Empty where the judgment and the ticks are about the same criteria."""
    if judgment is None:
        return "not_judged"
    if judgment.failure:
        return "failed"
    if judgment.is_repetitive:
        return "repetitive"
    if judgment.is_lenient:
        return "lenient"
    return "" if judgment.checklist_id in by_checklist else "other_checklist"


def lines_of(rows: Iterable[dict[str, Any]], *, as_array: bool) -> Iterator[str]:
    """The text of a file of JSON lines, or of one JSON array, which the authors of CFBench and SysBench read."""
    if not as_array:
        yield from (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        return
    yield "["
    for number, row in enumerate(rows):
        yield (",\n" if number else "\n") + json.dumps(row, ensure_ascii=False)
    yield "\n]\n"


# ── The authors' shapes ──────────────────────────────────────────────────────────────────────────────────────────


def as_data_set(stored: BenchmarkSet) -> fb_bench.DataSet:
    """What a stored data set of FB-Bench holds now: its kept items with their newest checklists."""
    items = tuple(item.as_item() for item in stored.items.kept().with_checklist())
    return fb_bench.DataSet(items, (), stored.sha256)


def item_rows(data_set: BenchmarkSet) -> Iterator[dict[str, Any]]:
    """The authors' data set file, with the newest checklists and without the items that were dropped."""
    if data_set.kind != Benchmark.FB_BENCH:
        yield from constraint_item_rows(data_set)
        return
    for item in as_data_set(data_set).items:
        yield item.as_row()


def answer_rows(run: BenchmarkRun) -> Iterator[dict[str, Any]]:
    """The authors' answers file, sorted by `user_query` as theirs is; an item without an answer has no row."""
    if run.data_set.kind != Benchmark.FB_BENCH:
        yield from constraint_answer_rows(run)
        return
    items = items_of(run)
    answers = BenchmarkAnswer.objects.filter(run=run.answering_run_id, error="")
    for answer in sorted(answers, key=lambda answer: items[answer.item_id].query):
        yield {
            **items[answer.item_id].as_row(),
            "second_response": answer.text,
            "infer_model": run.source.name,
            "tsamp": answer.created_at.timestamp(),
        }


def judgment_rows(run: BenchmarkRun) -> Iterator[dict[str, Any]]:
    """The authors' judgments file. A failed judgment keeps its row: `judgement` is null and `failure` says why."""
    if run.data_set.kind != Benchmark.FB_BENCH:
        yield from constraint_judgment_rows(run)
        return
    items = items_of(run)
    reason, result, yes, no = (
        ("评判理由", "评判结果", "是", "否")
        if run.prompt_language == "zh"
        else ("judgement reason", "judgement result", "yes", "no")
    )
    judgments = run.judgments.select_related("answer", "checklist")
    for judgment in sorted(judgments, key=lambda judgment: items[judgment.item_id].query):
        row: dict[str, Any] = {
            **items[judgment.item_id].as_row(),
            "second_response": judgment.answer.text,
            "infer_model": run.source.name,
            "judge_model": run.judge.name if run.judge else "",
        }
        if judgment.failure:
            row |= {"judgement": None, "score": None, "failure": judgment.failure, "failure_note": judgment.note}
            row |= {"attempts": judgment.attempts, "raw": judgment.raw}
        elif judgment.is_repetitive:
            row |= {"judgement": fb_bench.REPETITIVE_JUDGEMENT, "score": 0}
        else:
            row["judgement"] = {
                criterion.text: {reason: why, result: yes if met else no, "weight": criterion.weight}
                for criterion, met, why in zip(
                    judgment.checklist.as_criteria, judgment.met, judgment.reasons, strict=True
                )
            }
            row["score"] = judgment.score
        yield row


def result_table(run: BenchmarkRun) -> Iterator[list[Any]]:
    """A line for each item, with its score or the reason why it has none; the first line names the columns."""
    if run.data_set.kind != Benchmark.FB_BENCH:
        yield from constraint_table(run)
        return
    yield ["item", "scenario", "task", "sub_task", "user_query", "second_response", "score", "failure", "attempts"]
    judgments = {judgment.item_id: judgment for judgment in run.judgments.all()}
    answers = {answer.item_id: answer for answer in BenchmarkAnswer.objects.filter(run=run.answering_run_id)}
    for item in items_about(run):
        judgment, answer = judgments.get(item.pk), answers.get(item.pk)
        failure = judgment.failure if judgment else "not judged" if answer else "not answered"
        yield [
            item.position,
            item.scenario,
            item.task,
            item.sub_task,
            item.query,
            answer.text if answer else None,
            judgment.score if judgment else None,
            failure or None,
            judgment.attempts if judgment else None,
        ]
