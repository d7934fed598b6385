"""CFBench's and SysBench's files: data sets, and published answers and judgments kept as finished runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from annotation.models import ResponseSource
from rlhf.benchmark_figures import report_of
from rlhf.evaluation import cfbench, sysbench
from rlhf.evaluation.constraint_sets import ConstraintSet, cfbench_key, sysbench_turns
from rlhf.evaluation.fb_bench import Refusal, UnusableFileError, UnusableItemError, read_rows
from rlhf.models import (
    Benchmark,
    BenchmarkAnswer,
    BenchmarkItem,
    BenchmarkJudgment,
    BenchmarkRun,
    BenchmarkSet,
    Checklist,
    JobStatus,
    JudgmentFailure,
)
from rlhf.services.benchmarks import (
    RAW_CHARS_KEPT,
    Imported,
    new_or_known_set,
    source_named,
    storable,
)

UNNAMED_JUDGE = "unnamed judge"
"""Published judgments do not say who judged."""


def import_constraint_set(
    found: ConstraintSet, kind: Benchmark, *, name: str, by: User | None = None
) -> tuple[BenchmarkSet, bool]:
    """(the stored data set, whether it is new)."""

    def fill(stored: BenchmarkSet) -> None:
        rows = BenchmarkItem.objects.bulk_create(
            BenchmarkItem(
                data_set=stored,
                position=position,
                key=exercise.key,
                task=exercise.task,
                sub_task=exercise.sub_task,
                query=exercise.query,
                reference=exercise.reference,
                details=exercise.details,
                session=exercise.session,
                turn=exercise.turn,
            )
            for position, exercise in enumerate(found.exercises, 1)
        )
        Checklist.objects.bulk_create(
            Checklist(item=row, criteria=exercise.criteria, created_by=by)
            for row, exercise in zip(rows, found.exercises, strict=True)
        )

    return new_or_known_set(found.sha256, kind, name, by, fill)


# ── Runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Given:
    """What a file says about an item."""

    item: BenchmarkItem
    text: str
    error: str = ""
    judgment: dict[str, Any] | None = None
    """Fields of the judgment; None where there is none."""


def import_constraint_run(data_set: BenchmarkSet, content: bytes, name: str, *, by: User | None = None) -> Imported:
    """Keep a file of answers or judgments in the authors' shape as finished runs, one for each model and judge.

    Raises UnusableFileError where no row is about an item of the data set.
    """
    items = {item.key: item for item in data_set.items.with_checklist()}
    read: Callable[[dict[str, Any], dict[str, BenchmarkItem]], Sequence[_Given]]
    read, result = (
        (_cfbench_row, "judge_response") if data_set.kind == Benchmark.CFBENCH else (_sysbench_row, "eval_results")
    )
    imported = Imported()
    runs: dict[tuple[str, str], dict[int, _Given]] = {}
    for row, value, error in read_rows(content, name):
        try:
            if error or not isinstance(value, dict):
                raise UnusableItemError(error or "it is not a JSON object")
            given = read(value, items)
            is_judged = result in value or "judge_score" in value
            judge = str(value.get("judge_model") or UNNAMED_JUDGE) if is_judged else ""
            kept = runs.setdefault((str(value.get("infer_model", "")), judge), {})
            if given[0].item.pk in kept:
                raise UnusableItemError("an earlier row has the same item of the same model; the earlier one counts")
        except UnusableItemError as refusal:
            imported.refusals.append(Refusal(row, str(refusal)))
        else:
            kept |= {one.item.pk: one for one in given}
    runs = {who: kept for who, kept in runs.items() if kept}
    if not runs:
        why = f"; row {imported.refusals[0].row}: {imported.refusals[0].reason}" if imported.refusals else ""
        raise UnusableFileError(f"{name} holds no answer to an item of {data_set.name}{why}")
    with transaction.atomic():
        for (model, judge), found in runs.items():
            run = _store(data_set, source_named(model), source_named(judge) if judge else None, found.values(), by)
            run.report = report_of(run)
            run.save(update_fields=["report"])
            imported.runs.append(run)
    return imported


def _store(
    data_set: BenchmarkSet, source: ResponseSource, judge: ResponseSource | None, rows: Any, by: User | None
) -> BenchmarkRun:
    run = BenchmarkRun.objects.create(
        data_set=data_set,
        source=source,
        judge=judge,
        is_imported=True,
        status=JobStatus.SUCCEEDED,
        finished_at=timezone.now(),
        created_by=by,
    )
    rows = list(rows)
    answers = BenchmarkAnswer.objects.bulk_create(
        BenchmarkAnswer(run=run, item=given.item, text=storable(given.text), error=storable(given.error))
        for given in rows
    )
    if judge:
        BenchmarkJudgment.objects.bulk_create(
            BenchmarkJudgment(
                run=run,
                item=given.item,
                answer=answer,
                checklist_id=given.item.checklist_id,
                **given.judgment,
            )
            for given, answer in zip(rows, answers, strict=True)
            if given.judgment is not None
        )
    return run


def _failed(value: dict[str, Any], sentence: str, raw: Any) -> dict[str, Any]:
    """Files of our own say what the failure was."""
    known = value.get("failure") in JudgmentFailure.values
    return {
        "failure": value["failure"] if known else JudgmentFailure.WRONG_SHAPE,
        "note": storable(str(value.get("failure_note") or sentence))[:2000],
        "raw": storable(str(raw or ""))[:RAW_CHARS_KEPT],
    }


def _cfbench_row(value: dict[str, Any], items: dict[str, BenchmarkItem]) -> list[_Given]:
    item = items.get(cfbench_key(value))
    if item is None:
        raise UnusableItemError("the data set has no such item")
    if not isinstance(value.get("response"), str):
        raise UnusableItemError("there is no response")
    error = str(value.get("failure_note", "")) if value.get("failure") == JudgmentFailure.NO_ANSWER else ""
    text = "" if error else value["response"]
    if "judge_score" not in value and "judge_response" not in value:
        return [_Given(item, text, error)]
    constraints = cfbench.parse_constraints(item.as_exercise().criteria)
    bits, reading = cfbench.judged_row(value, constraints)
    raw = value.get("judge_response")
    if reading == cfbench.FAILED:
        return [_Given(item, text, error, _failed(value, "the judge’s lines cannot be read", raw))]
    if reading == cfbench.STRICT and len(bits) != len(constraints):
        raise UnusableItemError(f"judge_score: {len(bits)} bits for {len(constraints)} criteria")
    judgment = {
        "met": [bool(bit) for bit in bits],
        "score": sum(bits) / len(bits),
        "is_lenient": reading == cfbench.LENIENT,
        "raw": storable(str(raw or ""))[:RAW_CHARS_KEPT],
    }
    return [_Given(item, text, error, judgment)]


def _sysbench_row(value: dict[str, Any], items: dict[str, BenchmarkItem]) -> list[_Given]:
    turns = [items.get(turn.key) for turn in sysbench_turns(value)]
    found = [item for item in turns if item is not None]
    if len(found) < len(turns):
        raise UnusableItemError("the data set has no such session")
    results = value.get("eval_results") or value.get("eval_partial")
    results = results if isinstance(results, dict) else {}
    failures = value.get("eval_failures")
    failures = failures if isinstance(failures, dict) else {}
    answers = dict(_said(value.get("infer_results"))) or {
        question: result["response"]
        for question, result in results.items()
        if isinstance(result, dict) and isinstance(result.get("response"), str)
    }
    if not answers:
        raise UnusableItemError("infer_results: there is no answer")
    given = []
    for item in found:
        failure = failures.get(item.query)
        failure = failure if isinstance(failure, dict) else {}
        error = "" if item.query in answers else str(failure.get("failure_note") or "the file holds no answer")
        judgment = None
        if "eval_results" in value:
            judgment = _verdicts(item, results.get(item.query), failure)
        given.append(_Given(item, str(answers.get(item.query, "")), error, judgment))
    return given


def _said(messages: Any) -> Iterator[tuple[str, str]]:
    """(question, answer) of a conversation in which each answer follows its question."""
    question = None
    for message in messages if isinstance(messages, list) else []:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise UnusableItemError("infer_results: it is not a list of messages")
        if message.get("role") == "assistant" and question is not None:
            yield question, message["content"]
        question = message["content"] if message.get("role") == "user" else None


def _verdicts(item: BenchmarkItem, result: Any, failure: dict[str, Any]) -> dict[str, Any]:
    verdicts = result.get("评判结果") if isinstance(result, dict) else None
    if not isinstance(verdicts, dict):
        return _failed(failure, "the turn was not judged", failure.get("raw"))
    given = {str(number): verdict for number, verdict in verdicts.items()}
    numbers = [number for _text, _kind, number in item.as_exercise().criteria]
    if set(given) != set(numbers) or not set(given.values()) <= {sysbench.YES, sysbench.NO}:
        return _failed(failure, "the verdicts are not those of its criteria, or neither 是 nor 否", result)
    met = [given[number] == sysbench.YES for number in numbers]
    reason = storable(str(result.get("评判理由", "")))
    return {"met": met, "reasons": [reason] + [""] * (len(met) - 1), "score": sum(met) / len(met)}
