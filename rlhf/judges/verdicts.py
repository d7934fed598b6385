"""What a judge said, comparison by comparison: from its runs here, or from the votes that a file gave for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from django.db.models import Count, Q

from annotation.agreement.votes import VERDICTS
from annotation.models import Annotator, Comparison, Judgment, Preference
from rlhf.evaluation.reward_card import wilson_interval
from rlhf.judges.card import CODE_OF_PREFERENCE, DEPENDS, TIE, UNUSABLE, A, B, Verdicts
from rlhf.judges.wording import HIGHEST_SCORE, LOWEST_SCORE
from rlhf.models import JudgeKind, JudgeOutcome, JudgeRun, JudgeVerdict

PACE_ROWS = 40
"""An estimate looks back at this many verdicts."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. What could not be used is done, too."""

    total: int
    done: int
    unusable: int
    seconds_left: float | None


def progress_of(run: JudgeRun) -> Progress:
    if run.is_finished and run.report:
        kept = run.report
        return Progress(kept["asked"] + kept["open"], kept["asked"], kept["failed"], None)
    counts = run.verdicts.aggregate(
        total=Count("pk"),
        done=Count("pk", filter=~Q(outcome=JudgeOutcome.OPEN)),
        usable=Count("pk", filter=Q(outcome=JudgeOutcome.USABLE)),
    )
    left = counts["total"] - counts["done"]
    last = run.verdicts.filter(seconds__gt=0).order_by("-pk").values_list("seconds", flat=True)[:PACE_ROWS]
    each = [seconds for seconds in last if seconds]
    seconds = None if run.is_finished or not each else left * fmean(each) / min(run.parallel, left or 1)
    return Progress(counts["total"], counts["done"], counts["done"] - counts["usable"], seconds)


def verdicts_of_run(run: JudgeRun) -> Verdicts:
    """What the judge said in this run and in others that asked it the same way; the newest of each comparison counts.

    A comparison that waits for one of its questions is not among them.
    """
    return of_runs(list(run.same_judge.order_by("pk")), run)


def of_runs(runs: list[JudgeRun], like: JudgeRun) -> Verdicts:
    if like.kind == JudgeKind.PAIR:
        codes, orders = _of_pairs(runs)
    else:
        codes, orders = _of_scores(runs, like), {}
    return Verdicts(codes, orders, like.judge.name)


def _of_pairs(runs: list[JudgeRun]) -> tuple[dict[int, int], dict[int, tuple[int, int]]]:
    codes: dict[int, int] = {}
    orders: dict[int, tuple[int, int]] = {}
    for run in runs:
        said: dict[int, dict[bool, tuple[str, str]]] = {}
        rows = run.verdicts.values_list("comparison", "is_swapped", "outcome", "preference")
        for comparison, is_swapped, outcome, preference in rows:
            said.setdefault(comparison, {})[is_swapped] = (outcome, preference)
        for comparison, both in said.items():
            outcomes = [outcome for outcome, _ in both.values()]
            if JudgeOutcome.OPEN in outcomes:
                continue
            orders.pop(comparison, None)
            if any(outcome != JudgeOutcome.USABLE for outcome in outcomes):
                codes[comparison] = UNUSABLE
                continue
            straight, swapped = (CODE_OF_PREFERENCE[both[is_swapped][1]] for is_swapped in (False, True))
            orders[comparison] = (straight, swapped)
            codes[comparison] = straight if straight == swapped else DEPENDS
    return codes, orders


def _of_scores(runs: list[JudgeRun], like: JudgeRun) -> dict[int, int]:
    """The side with the higher score, of comparisons whose responses were both scored; equal scores are a tie."""
    scores: dict[int, int | None] = {}
    for run in runs:
        asked = run.verdicts.exclude(outcome=JudgeOutcome.OPEN)
        scores.update(asked.values_list("response", "score"))
    scored = JudgeVerdict.objects.filter(run__in=runs).values("response")
    comparisons = Comparison.objects.filter(
        project=like.project_id, response_count=2, is_gold=False, response_a__in=scored, response_b__in=scored
    ).values_list("pk", "response_a", "response_b")
    codes = {}
    for comparison, a, b in comparisons:
        if a in scores and b in scores:
            codes[comparison] = _higher(scores[a], scores[b])
    return codes


def _higher(a: int | None, b: int | None) -> int:
    if a is None or b is None:
        return UNUSABLE
    return TIE if a == b else A if a > b else B


def verdicts_of_annotator(annotator: Annotator) -> Verdicts:
    """The votes of a model that imported data gives, on comparisons of two responses."""
    votes = Judgment.objects.filter(annotator=annotator, superseded_at=None, round=0, comparison__response_count=2)
    votes = votes.exclude(preference=Preference.RANKED)
    codes = {
        comparison: VERDICTS.index(Preference(preference))
        for comparison, preference in votes.values_list("comparison", "preference")
    }
    return Verdicts(codes, name=annotator.name)


def report_of(run: JudgeRun) -> dict[str, Any]:
    """The figures of a run, with a count of everything that is not in them."""
    outcomes = Counter(run.verdicts.values_list("outcome", flat=True))
    usable, still_open = outcomes.pop(JudgeOutcome.USABLE, 0), outcomes.pop(JudgeOutcome.OPEN, 0)
    codes, orders = of_this(run)
    report: dict[str, Any] = {
        "kind": run.kind,
        "asked": usable + sum(outcomes.values()),
        "open": still_open,
        "usable": usable,
        "failed": sum(outcomes.values()),
        "failures": dict(outcomes.most_common()),
        "retried": run.verdicts.filter(tries__gt=1).count(),
        "comparisons": len(codes),
        "decided": sum(code < DEPENDS for code in codes.values()),
        "unusable": sum(code == UNUSABLE for code in codes.values()),
    }
    if run.kind == JudgeKind.PAIR:
        same = sum(straight == swapped for straight, swapped in orders.values())
        lower, upper = wilson_interval(same, len(orders)) if orders else (None, None)
        report |= {
            "position_dependent": sum(code == DEPENDS for code in codes.values()),
            "position_consistency": same / len(orders) if orders else None,
            "position_consistency_interval": [lower, upper],
        }
        asked = run.verdicts.filter(outcome=JudgeOutcome.USABLE, same_result__isnull=False)
        report |= {
            "asked_for_sameness": asked.count(),
            "same_result": asked.filter(same_result=True).count(),
            "same_reasoning": asked.filter(same_reasoning=True).count(),
        }
    else:
        scores = Counter(run.verdicts.values_list("score", flat=True))
        report["scores"] = {str(score): scores[score] for score in range(LOWEST_SCORE, HIGHEST_SCORE + 1)}
    return report


def of_this(run: JudgeRun) -> tuple[dict[int, int], dict[int, tuple[int, int]]]:
    """(codes, orders) of this run alone."""
    found = of_runs([run], run)
    return dict(found.codes), dict(found.orders)


def verdict_rows(run: JudgeRun) -> Iterator[dict[str, Any]]:
    """Every question of a run and what came of it; what failed keeps its row."""
    rows = run.verdicts.order_by("pk").select_related("prompt")
    for row in rows.iterator(1000):
        yield {
            "comparison": row.comparison_id,
            "response": row.response_id,
            "b_shown_first": row.is_swapped if row.comparison_id else None,
            "judge": run.judge.name,
            "prompt": {"task": row.prompt.task, "language": row.prompt.language, "version": row.prompt.version},
            "outcome": row.outcome or "open",
            "preference": row.preference or None,
            "score": row.score,
            "same_result": row.same_result,
            "same_reasoning": row.same_reasoning,
            "reason": row.reason,
            "note": row.note,
            "raw": row.raw,
            "tries": row.tries,
            "seconds": row.seconds,
        }
