"""What the tables say about a run of CFBench or SysBench: its figures, and its rows in the authors' shapes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from rlhf.evaluation.cfbench import FAILED, LENIENT, STRICT
from rlhf.evaluation.constraint_scores import Outcome, cfbench_report, cfbench_scores, sysbench_report
from rlhf.evaluation.constraint_sets import Exercise, cfbench_row, sysbench_row
from rlhf.evaluation.sysbench import NO, YES
from rlhf.models import Benchmark, BenchmarkAnswer, BenchmarkItem, BenchmarkJudgment, BenchmarkRun, BenchmarkSet


def constraint_report(run: BenchmarkRun) -> dict[str, Any]:
    outcomes = [outcome for _item, outcome in outcomes_of(run)]
    return cfbench_report(outcomes) if run.data_set.kind == Benchmark.CFBENCH else sysbench_report(outcomes)


def outcomes_of(run: BenchmarkRun) -> Iterator[tuple[BenchmarkItem, Outcome]]:
    """Every item of the run's data set in the order of the file, with the checklist that it was judged by."""
    judgments = {
        judgment.item_id: judgment for judgment in run.judgments.select_related("checklist").defer("raw", "note")
    }
    for item in run.data_set.items.with_checklist():
        judgment = judgments.get(item.pk)
        if judgment is None:
            yield item, Outcome(item.as_exercise())
        else:
            exercise = item.as_exercise(judgment.checklist.criteria)
            yield item, Outcome(exercise, _reading(judgment), tuple(judgment.met))


def _reading(judgment: BenchmarkJudgment) -> str:
    return FAILED if judgment.failure else LENIENT if judgment.is_lenient else STRICT


def constraint_item_rows(data_set: BenchmarkSet) -> Iterator[dict[str, Any]]:
    """The authors' data set file: a row for each instruction, or for each session."""
    exercises = [item.as_exercise() for item in data_set.items.with_checklist()]
    if data_set.kind == Benchmark.CFBENCH:
        yield from map(cfbench_row, exercises)
        return
    for _session, turns in groupby(exercises, key=lambda turn: turn.session):
        yield sysbench_row(turns)


def constraint_answer_rows(run: BenchmarkRun) -> Iterator[dict[str, Any]]:
    """The authors' answers file; an item or session without any answer has no row."""
    answers = _answers(run)
    if run.data_set.kind == Benchmark.CFBENCH:
        for item, outcome in outcomes_of(run):
            if (answer := answers.get(item.pk)) and not answer.error:
                yield {**cfbench_row(outcome.exercise), "response": answer.text, "infer_model": run.source.name}
        return
    for turns in _sessions(run).values():
        if said := _infer_results([exercise for _item, exercise in turns], _texts(turns, answers)):
            yield {
                **sysbench_row(exercise for _item, exercise in turns),
                "infer_model": run.source.name,
                "infer_results": said,
            }


def constraint_judgment_rows(run: BenchmarkRun) -> Iterator[dict[str, Any]]:
    """The authors' judged file, with `judge_model` beside it. What failed keeps its row and says why."""
    rows = _judged_instructions if run.data_set.kind == Benchmark.CFBENCH else _judged_sessions
    for row in rows(run):
        yield row | {"judge_model": run.judge.name if run.judge else ""}


def _judged_instructions(run: BenchmarkRun) -> Iterator[dict[str, Any]]:
    answers = _answers(run)
    judgments = {judgment.item_id: judgment for judgment in run.judgments.all()}
    for item, outcome in outcomes_of(run):
        judgment, answer = judgments.get(item.pk), answers.get(item.pk)
        if judgment is None:
            continue
        scores = cfbench_scores(outcome)
        row = cfbench_row(outcome.exercise) | {
            "response": answer.text if answer else "",
            "infer_model": run.source.name,
            "judge_response": _lines(outcome) or judgment.raw,
            "judge_score": [str(int(bit)) for bit in outcome.met] or ["0"],
            "judge_parsing": outcome.reading,
            "judge_metric": {"CSR": scores.csr, "ISR": scores.isr, "PSR": scores.psr},
        }
        if judgment.failure:
            row |= {"failure": judgment.failure, "failure_note": judgment.note, "attempts": judgment.attempts}
        yield row


def _lines(outcome: Outcome) -> str:
    """The verdicts as CFBench's judges write them."""
    if outcome.reading != STRICT:
        return ""
    pairs = zip(outcome.exercise.criteria, outcome.met, strict=True)
    return "\n\n".join(f"{text}\t{int(bit)}" for (text, *_kinds), bit in pairs)


def _judged_sessions(run: BenchmarkRun) -> Iterator[dict[str, Any]]:
    answers = _answers(run)
    judgments = {judgment.item_id: judgment for judgment in run.judgments.all()}
    for turns in _sessions(run).values():
        results: dict[str, Any] = {}
        failures: dict[str, Any] = {}
        for item, exercise in turns:
            judgment = judgments.get(item.pk)
            if judgment is None:
                continue
            if judgment.failure:
                failures[item.query] = {
                    "failure": judgment.failure, "failure_note": judgment.note, "raw": judgment.raw,
                }  # fmt: skip
                continue
            pairs = zip(exercise.criteria, judgment.met, strict=True)
            results[item.query] = {
                "评判理由": _one_reason(judgment.reasons),
                "评判结果": {number: YES if met else NO for (_text, _kind, number), met in pairs},
                "response": answers[item.pk].text,
                "criteria": sysbench_row([_first(turns), exercise])["prompt_infos"][item.query]["criteria"],
            }
        if not results and not failures:
            continue
        row = sysbench_row(exercise for _item, exercise in turns) | {
            "infer_model": run.source.name,
            "infer_results": _infer_results([exercise for _item, exercise in turns], _texts(turns, answers)),
        }
        # As the authors' files: a session with a turn that could not be judged has no results.
        if len(results) == len(turns):
            yield row | {"eval_results": results}
        else:
            yield row | {"eval_results": None, "eval_partial": results, "eval_failures": failures}


def _first(turns: list[tuple[BenchmarkItem, Exercise]]) -> Exercise:
    return turns[0][1]


def _one_reason(reasons: list[str]) -> str:
    given = [reason for reason in reasons if reason]
    return given[0] if len(given) == 1 else "\n".join(f"{number}. {why}" for number, why in enumerate(given, 1))


def _answers(run: BenchmarkRun) -> dict[int, BenchmarkAnswer]:
    return {answer.item_id: answer for answer in BenchmarkAnswer.objects.filter(run=run.answering_run_id)}


def _sessions(run: BenchmarkRun) -> dict[int | None, list[tuple[BenchmarkItem, Exercise]]]:
    """Items with their exercises by session, in the order of turns: positions follow the file."""
    sessions: dict[int | None, list[tuple[BenchmarkItem, Exercise]]] = defaultdict(list)
    for item, outcome in outcomes_of(run):
        sessions[item.session].append((item, outcome.exercise))
    return sessions


def _texts(turns: list[tuple[BenchmarkItem, Exercise]], answers: dict[int, BenchmarkAnswer]) -> dict[str, str]:
    return {
        item.query: answer.text for item, _exercise in turns if (answer := answers.get(item.pk)) and not answer.error
    }


def _infer_results(turns: list[Exercise], texts: dict[str, str]) -> list[dict[str, str]]:
    """The conversation as the model had it; empty where it gave no answer at all."""
    if not texts:
        return []
    messages = [{"role": "system", "content": turns[0].details["system"]}]
    for turn in turns:
        messages.append({"role": "user", "content": turn.query})
        if turn.query in texts:
            messages.append({"role": "assistant", "content": texts[turn.query]})
    return messages


def constraint_table(run: BenchmarkRun) -> Iterator[list[Any]]:
    """A line for each item, with its score or the reason why it has none; the first line names the columns."""
    yield [
        "item", "session", "turn", "domain", "scenario", "prompt", "response", "satisfied", "constraints", "score",
        "failure", "attempts",
    ]  # fmt: skip
    judgments = {judgment.item_id: judgment for judgment in run.judgments.all()}
    answers = _answers(run)
    for item, outcome in outcomes_of(run):
        judgment, answer = judgments.get(item.pk), answers.get(item.pk)
        failure = judgment.failure if judgment else "not judged" if answer else "not answered"
        yield [
            item.position,
            item.session,
            item.turn,
            item.task,
            item.sub_task,
            item.query,
            answer.text if answer else None,
            sum(outcome.met) if judgment and not judgment.failure else None,
            len(outcome.exercise.criteria),
            judgment.score if judgment else None,
            failure or None,
            judgment.attempts if judgment else None,
        ]
