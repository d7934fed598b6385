"""CFBench: how many of an instruction's constraints does an answer satisfy, and do the primary ones hold?

Zhang et al. 2024, arXiv 2408.01122. CSR is the share of satisfied constraints, ISR whether all are satisfied, PSR
whether the primary ones are and enough of the others. Each is rounded where the authors round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rlhf.evaluation.fb_bench import UnusableFileError, UnusableItemError, read_bytes, read_rows

PRIMARY, SECONDARY = "主需", "次需"
PASS = 0.8
"""What a score must exceed where a share decides."""
STRICT, LENIENT, FAILED = "1", "0", "-1"
"""How a judge's answer was read: to the letter; line by line; not at all."""


@dataclass(frozen=True, slots=True)
class Constraint:
    text: str
    is_primary: bool
    kind: str = ""
    """The class, such as 格式约束; empty where the data set names none."""
    sub_kind: str = ""


@dataclass(frozen=True, slots=True)
class Scores:
    csr: float
    isr: int
    psr: int


def parse_constraints(value: Any) -> tuple[Constraint, ...]:
    """`[[text, 主需 or 次需, …] …]`. Raises UnusableItemError."""
    if not isinstance(value, list) or not value:
        raise UnusableItemError("criteria: it is not a list that holds something")
    constraints = []
    for number, entry in enumerate(value, 1):
        if not isinstance(entry, list) or len(entry) < 2 or not isinstance(entry[0], str):
            raise UnusableItemError(f"criteria: number {number} is not [text, priority, …]")
        if entry[1] not in (PRIMARY, SECONDARY):
            raise UnusableItemError(
                f"criteria: the priority of number {number}, {entry[1]!r}, is neither 主需 nor 次需"
            )
        kinds = [str(kind) for kind in entry[2:4]] + ["", ""]
        constraints.append(Constraint(entry[0], entry[1] == PRIMARY, kinds[0], kinds[1]))
    return tuple(constraints)


def read_verdicts(text: str, constraints: Sequence[Constraint]) -> tuple[list[int], str]:
    """The bits in a judge's answer, and how it was read.

    To the letter: a line `text<TAB>0|1` for each constraint in order, blank lines between. Else every line that ends
    in a tab and a bit counts; zeros, too, which the authors' second reading leaves out.
    """
    blocks = [block.rsplit("\t", 1) for block in text.strip().split("\n\n")]
    if [block[0] for block in blocks] == [constraint.text for constraint in constraints]:
        bits = [_bit(block[1]) if len(block) == 2 else None for block in blocks]
        if None not in bits:
            return [bit for bit in bits if bit is not None], STRICT
    lines = [line.rsplit("\t", 1) for line in text.split("\n")]
    found = [bit for line in lines if len(line) == 2 and (bit := _bit(line[1])) is not None]
    return (found, LENIENT) if found else ([0], FAILED)


def _bit(value: Any) -> int | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if number in (0, 1) else None


def score_item(bits: Sequence[int], reading: str, constraints: Sequence[Constraint]) -> Scores:
    """Source: CFBench, evaluation code. Raises UnusableItemError where bits and constraints are not as many."""
    csr = _rounded(bits)
    if reading == FAILED:
        psr = False
    elif reading == LENIENT:
        psr = csr > PASS
    else:
        if len(bits) != len(constraints):
            raise UnusableItemError(f"judge_score: {len(bits)} bits for {len(constraints)} criteria")
        primary = [bit for bit, constraint in zip(bits, constraints, strict=True) if constraint.is_primary]
        secondary = [bit for bit, constraint in zip(bits, constraints, strict=True) if not constraint.is_primary]
        if 0 in primary:
            psr = False
        elif not primary:
            psr = csr > PASS
        else:
            psr = not secondary or 0.5 + 0.5 * _rounded(secondary) > PASS
    return Scores(csr, int(csr >= 1), int(psr))


def _rounded(values: Sequence[float]) -> float:
    return float(np.round(np.mean(values), 2))


@dataclass(slots=True)
class Kept:
    scores: list[Scores] = field(default_factory=list)

    def figures(self) -> dict[str, float | None]:
        if not self.scores:
            return {"csr": None, "isr": None, "psr": None}
        return {name: _rounded([getattr(score, name) for score in self.scores]) for name in ("csr", "isr", "psr")}


def score_file(path: Path) -> dict[str, Any]:
    """A file of judged items in the authors' shape. Raises UnusableFileError.

    An item needs `criteria` and either `judge_score` with `judge_parsing`, or the judge's text in `judge_response`.
    """
    everything, by_split = Kept(), {"easy": Kept(), "hard": Kept()}
    readings = dict.fromkeys((STRICT, LENIENT, FAILED), 0)
    other_metric = 0
    problems: list[str] = []
    for row, value, error in read_rows(read_bytes(path), str(path)):
        try:
            if error or not isinstance(value, dict):
                raise UnusableItemError(error or "it is not a JSON object")
            constraints = parse_constraints(value.get("criteria"))
            bits, reading = judged_row(value, constraints)
            scores = score_item(bits, reading, constraints)
        except UnusableItemError as refusal:
            problems.append(f"row {row}: {refusal}")
            continue
        readings[reading] += 1
        everything.scores.append(scores)
        if value.get("split") in by_split:
            by_split[value["split"]].scores.append(scores)
        stored = value.get("judge_metric")
        ours = {"CSR": scores.csr, "ISR": scores.isr, "PSR": scores.psr}
        other_metric += isinstance(stored, dict) and stored != ours
    if not everything.scores:
        raise UnusableFileError(f"{path} holds no judged CFBench item{'; ' + problems[0] if problems else ''}")
    return {
        **everything.figures(),
        "by_split": {name: kept.figures() for name, kept in by_split.items() if kept.scores},
        "items": len(everything.scores),
        "read_leniently": readings[LENIENT],
        "unreadable_judgments": readings[FAILED],
        "other_metric": other_metric,
        "refused": len(problems),
        "problems": problems[:20],
    }


def judged_row(value: dict[str, Any], constraints: Sequence[Constraint]) -> tuple[list[int], str]:
    """The bits of a judged row, and how the judge was read. Raises UnusableItemError."""
    if "judge_score" not in value:
        text = value.get("judge_response")
        if not isinstance(text, str):
            raise UnusableItemError("it has neither judge_score nor judge_response")
        return read_verdicts(text, constraints)
    reading = str(value.get("judge_parsing", STRICT))
    if reading not in (STRICT, LENIENT, FAILED):
        raise UnusableItemError(f"judge_parsing: {reading!r} is none of 1, 0 and -1")
    given = value["judge_score"]
    bits = [_bit(bit) for bit in given] if isinstance(given, list) else []
    if not bits or None in bits:
        raise UnusableItemError("judge_score: it is not a list of 0 and 1")
    return [bit for bit in bits if bit is not None], reading
