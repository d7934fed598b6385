"""What FB-Bench's ticks are worth: the published formula, its slices, and what the figures leave out.

A scenario is the mean over tasks of the mean over items; overall is the mean over all cells of scenario and task. A
slice takes the items with a label and does the same inside. Items without a usable judgment have no score: they are
counted, and the scores that they could have made at worst and at best stand beside the result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from rlhf.evaluation.fb_bench import (
    DEFICIENCIES,
    FEEDBACK,
    TASKS,
    DataSet,
    Failure,
    Item,
    Scenario,
    UnusableFileError,
    UnusableJudgmentError,
    Verdict,
    is_repetitive,
    item_score,
    parse_judgement,
    read_bytes,
    read_rows,
)

Scores = Mapping[str, float]
"""By `user_query`; only items with a usable judgment."""


def percent(share: float) -> float:
    """As published: rounded to four decimals of a share."""
    return round(100 * round(share, 4), 2)


def mean_or_none(values: Sequence[float]) -> float | None:
    """None says that there is nothing; zero is a result."""
    return fmean(values) if values else None


def macro(items: Iterable[Item], scores: Scores) -> dict[str, float | None]:
    """Error correction, response maintenance and overall, in percent: the mean over tasks of the items' means."""
    cells: dict[tuple[Scenario, str], list[float]] = {}
    for item in items:
        if item.query in scores:
            cells.setdefault((item.scenario, item.task), []).append(scores[item.query])
    means = {cell: fmean(values) for cell, values in cells.items()}
    return _by_scenario(lambda scenario: [mean for (where, _), mean in means.items() if scenario in (None, where)])


def micro(items: Iterable[Item], scores: Scores) -> dict[str, float | None]:
    """The same as plain means over items."""
    scored = [(item.scenario, scores[item.query]) for item in items if item.query in scores]
    return _by_scenario(lambda scenario: [score for where, score in scored if scenario in (None, where)])


def _by_scenario(values_of: Callable[[Scenario | None], list[float]]) -> dict[str, float | None]:
    shown = {}
    for key, scenario in (*((scenario.key, scenario) for scenario in Scenario), ("overall", None)):
        mean = mean_or_none(values_of(scenario))
        shown[key] = None if mean is None else percent(mean)
    return shown


def report(items: Sequence[Item], scores: Scores) -> dict[str, Any]:
    """Every figure of a run, in percent with two decimals; None where a cell holds no score."""
    correction = [item for item in items if item.scenario == Scenario.ERROR_CORRECTION]
    by_feedback: dict[str, dict[str, float | None]] = {}
    for scenario, kinds in FEEDBACK.items():
        for kind in kinds:
            sliced = [item for item in items if item.scenario == scenario and kind in item.feedback_types]
            if sliced:
                key = Scenario(scenario).key
                by_feedback.setdefault(kind, {})[key] = macro(sliced, scores)[key]
    return {
        **macro(items, scores),
        "micro": micro(items, scores),
        "by_task": {task: macro([item for item in items if item.task == task], scores) for task in tasks_of(items)},
        "by_deficiency": {
            name: macro(sliced, scores)["error_correction"]
            for name in DEFICIENCIES
            if (sliced := [item for item in correction if name in item.deficiencies])
        },
        "by_feedback": by_feedback,
        "empty_cells": empty_cells(items, scores),
        "at_worst": macro(items, {item.query: 0.0 for item in items} | dict(scores)),
        "at_best": macro(items, {item.query: 1.0 for item in items} | dict(scores)),
    }


def tasks_of(items: Iterable[Item]) -> list[str]:
    """The tasks in the authors' order, others after them by name."""
    found = {item.task for item in items}
    return [task for task in TASKS if task in found] + sorted(found - set(TASKS))


def empty_cells(items: Sequence[Item], scores: Scores) -> list[str]:
    """The cells of scenario and task that have no score, and so are not in the means above them."""
    filled = {(item.scenario, item.task) for item in items if item.query in scores}
    tasks = [*TASKS, *(task for task in tasks_of(items) if task not in TASKS)]
    return [f"{scenario} / {task}" for scenario in Scenario for task in tasks if (scenario, task) not in filled]


# ── Files of judgments ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class JudgedRow:
    """A usable row of a file of judgments."""

    row: int
    item: Item
    verdicts: tuple[Verdict, ...]
    is_repetitive: bool
    score: float
    value: dict[str, Any]
    """As it stands in the file."""


@dataclass(slots=True)
class Judgments:
    """What a file of judgments holds, row by row accounted for."""

    judged: dict[str, JudgedRow] = field(default_factory=dict)
    """By `user_query`."""
    failed: dict[str, tuple[int, Failure, str, Any]] = field(default_factory=dict)
    """By `user_query`: row, kind, sentence and value of what cannot be used."""
    unreadable: list[tuple[int, str]] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)
    """Rows of items that the data set does not have."""
    duplicates: list[int] = field(default_factory=list)
    """Rows of items that an earlier row judges; the first counts."""
    other_score: list[int] = field(default_factory=list)
    """Rows whose own score is not what their verdicts make."""

    @property
    def scores(self) -> dict[str, float]:
        return {query: row.score for query, row in self.judged.items()}


def read_judgments(path: Path, data_set: DataSet) -> Judgments:
    """The judgments of a file in the authors' shape. Raises UnusableFileError where it holds none."""
    items = {item.query: item for item in data_set.items}
    found = Judgments()
    rows = 0
    for row, value, error in read_rows(read_bytes(path), str(path)):
        rows += 1
        if error or not isinstance(value, dict) or not isinstance(value.get("user_query"), str):
            found.unreadable.append((row, error or "there is no user_query"))
            continue
        query = value["user_query"]
        if query not in items:
            found.unknown.append(row)
        elif query in found.judged or query in found.failed:
            found.duplicates.append(row)
        else:
            _take(found, row, items[query], value)
    if not found.judged and not found.failed:
        raise UnusableFileError(
            f"{path} holds no judgment of this data set's items ({rows} rows, {len(found.unknown)} of other items)"
        )
    return found


def _take(found: Judgments, row: int, item: Item, value: dict[str, Any]) -> None:
    judgement = value.get("judgement")
    repetitive = is_repetitive(judgement)
    if repetitive:
        verdicts: tuple[Verdict, ...] = tuple(Verdict(False) for _ in item.checklist)
    else:
        try:
            verdicts = parse_judgement(judgement, item.checklist, by_place=True)
        except UnusableJudgmentError as error:
            found.failed[item.query] = (row, error.failure, str(error), value)
            return
    score = item_score(item.checklist, [verdict.is_met for verdict in verdicts])
    stored = value.get("score")
    if isinstance(stored, int | float) and not isinstance(stored, bool) and abs(stored - score) > 1e-6:
        found.other_score.append(row)
    found.judged[item.query] = JudgedRow(row, item, verdicts, repetitive, score, value)


def score_file(path: Path, data_set: DataSet) -> dict[str, Any]:
    """The report of a file of judgments, with a count for every row and every item that is not in the figures."""
    found = read_judgments(path, data_set)
    silent = [item for item in data_set.items if item.query not in found.judged and item.query not in found.failed]
    return {
        **report(data_set.items, found.scores),
        "items": len(data_set.items),
        "scored": len(found.judged),
        "failed": len(found.failed),
        "failures": dict(Counter(str(kind) for _, kind, _, _ in found.failed.values())),
        "missing": len(silent),
        "unknown": len(found.unknown),
        "duplicates": len(found.duplicates),
        "unreadable": len(found.unreadable),
        "repetitive": sum(row.is_repetitive for row in found.judged.values()),
        "respelt_criteria": sum(bool(verdict.echo) for row in found.judged.values() for verdict in row.verdicts),
        "other_score": len(found.other_score),
        "refused_items": len(data_set.refusals),
        "problems": _problems(found, data_set),
    }


PROBLEMS_SHOWN = 20


def _problems(found: Judgments, data_set: DataSet) -> list[str]:
    """The first of each kind of problem, by row."""
    lines = [f"data set, row {refusal.row}: {refusal.reason}" for refusal in data_set.refusals]
    lines += [f"row {row}: {reason}" for row, reason in found.unreadable]
    lines += [f"row {row}: {sentence}" for row, _, sentence, _ in found.failed.values()]
    lines += [f"row {row}: the data set has no such item" for row in found.unknown]
    lines += [f"row {row}: an earlier row judges the same item; the earlier one counts" for row in found.duplicates]
    lines += [f"row {row}: its score is not what its verdicts make" for row in found.other_score]
    if len(lines) > PROBLEMS_SHOWN:
        lines[PROBLEMS_SHOWN:] = [f"and {len(lines) - PROBLEMS_SHOWN} more"]
    return lines
