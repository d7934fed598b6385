"""What the tables say about an FB-Bench run: its progress, its report, and its rows in the authors' shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from django.db.models import Count, Q
from django.utils import timezone

from rlhf.evaluation import fb_bench
from rlhf.evaluation.fb_bench_scores import report
from rlhf.models import BenchmarkAnswer, BenchmarkItem, BenchmarkJudgment, BenchmarkRun

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

    @property
    def done(self) -> int:
        return self.answers + self.judgments

    @property
    def total(self) -> int:
        return 2 * self.items


def progress_of(run: BenchmarkRun) -> Progress:
    answers = BenchmarkAnswer.objects.filter(run=run.answering_run_id).aggregate(
        count=Count("pk"), failed=Count("pk", filter=~Q(error=""))
    )
    judgments = run.judgments.aggregate(count=Count("pk"), failed=Count("pk", filter=~Q(failure="")))
    items = run.data_set.items.count()
    return Progress(
        items,
        answers["count"],
        answers["failed"],
        judgments["count"],
        judgments["failed"],
        None if run.is_finished else _seconds_left(run, items - answers["count"], items - judgments["count"]),
    )


def _seconds_left(run: BenchmarkRun, answers_left: int, judgments_left: int) -> float | None:
    """From the pace of what came last; judgments are guessed from answers until there are some."""
    answering = _pace(run, BenchmarkAnswer.objects.filter(run=run.pk))
    judging = _pace(run, BenchmarkJudgment.objects.filter(run=run.pk)) or answering
    if (answers_left and answering is None) or (judgments_left and judging is None):
        return None
    return answers_left * (answering or 0.0) + judgments_left * (judging or 0.0)


def _pace(run: BenchmarkRun, rows: Any) -> float | None:
    """Seconds between the last rows of this attempt, without the pauses that a crash made."""
    times = list(rows.order_by("-created_at").values_list("created_at", flat=True)[: PACE_ROWS + 1])
    gaps = [(later - earlier).total_seconds() for later, earlier in pairwise(times)]
    if len(gaps) < 3:
        return None
    longest_counted = 5 * sorted(gaps)[len(gaps) // 2] + 30
    kept = [gap for gap in gaps if gap <= longest_counted]
    if run.status == "running":
        kept.append(min((timezone.now() - times[0]).total_seconds(), longest_counted))
    return sum(kept) / len(kept)


def items_of(run: BenchmarkRun) -> dict[int, fb_bench.Item]:
    """Every item of the run's data set by primary key: with the checklist that it was judged by, or the newest."""
    used = dict(run.judgments.values_list("item", "checklist__criteria"))
    rows = BenchmarkItem.objects.filter(data_set=run.data_set_id).with_checklist()
    return {row.pk: row.as_item(used.get(row.pk)) for row in rows}


def report_of(run: BenchmarkRun) -> dict[str, Any]:
    """The figures of what is judged so far, with a count of everything that is not in them."""
    items = items_of(run)
    judgments = list(run.judgments.values_list("item", "score", "failure", "is_repetitive", "attempts"))
    scores = {items[item].query: score for item, score, *_ in judgments if score is not None}
    failures = Counter(failure for _, _, failure, _, _ in judgments if failure)
    answers = BenchmarkAnswer.objects.filter(run=run.answering_run_id)
    return {
        **report(list(items.values()), scores),
        "items": len(items),
        "answers": answers.filter(error="").count(),
        "failed_answers": answers.exclude(error="").count(),
        "judgments": len(judgments),
        "scored": len(scores),
        "failed": sum(failures.values()),
        "failures": dict(failures.most_common()),
        "missing": len(items) - len(judgments),
        "repetitive": sum(is_repetitive for _, _, _, is_repetitive, _ in judgments),
        "retried": sum(attempts > 1 for *_, attempts in judgments),
    }


# ── The authors' shapes ──────────────────────────────────────────────────────────────────────────────────────────


def answer_rows(run: BenchmarkRun) -> Iterator[dict[str, Any]]:
    """The authors' answers file, sorted by `user_query` as theirs is; an item without an answer has no row."""
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
            "judge_model": run.judge.name,
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
