"""Every figure of a CFBench or SysBench run, with a count of what is not in them.

As its authors do, CFBench counts a judgment that cannot be read as nothing satisfied. SysBench's code knows no turn
without a verdict: a session counts when all of its turns are judged, and the figures that the others could still make
stand beside the result.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rlhf.evaluation.cfbench import FAILED, PRIMARY, STRICT, Kept, Scores, parse_constraints, score_item
from rlhf.evaluation.constraint_sets import Exercise
from rlhf.evaluation.sysbench import Session, Turn, score_sessions


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an exercise: its bits, and how the judge was read; `reading` is None before it is judged."""

    exercise: Exercise
    reading: str | None = None
    met: tuple[bool, ...] = ()


def cfbench_scores(outcome: Outcome) -> Scores:
    """Of a judged exercise; a failed judgment is the authors' `["0"]`."""
    constraints = parse_constraints(outcome.exercise.criteria)
    if outcome.reading == FAILED:
        return score_item([0], FAILED, constraints)
    return score_item([int(bit) for bit in outcome.met], outcome.reading or FAILED, constraints)


def cfbench_report(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """CSR, ISR and PSR as shares of 1, of everything and by split and domain; constraints by priority and class."""
    everything, worst, best = Kept(), Kept(), Kept()
    by_split: dict[str, Kept] = defaultdict(Kept)
    by_domain: dict[str, Kept] = defaultdict(Kept)
    bits: dict[str, dict[str, list[bool]]] = {"by_priority": defaultdict(list), "by_type": defaultdict(list)}
    for outcome in outcomes:
        exercise = outcome.exercise
        is_open = outcome.reading in (None, FAILED)
        worst.scores.append(Scores(0.0, 0, 0) if is_open else cfbench_scores(outcome))
        best.scores.append(Scores(1.0, 1, 1) if is_open else cfbench_scores(outcome))
        if outcome.reading is None:
            continue
        scores = cfbench_scores(outcome)
        for kept in (everything, by_split[str(exercise.details.get("split", ""))], by_domain[exercise.task]):
            kept.scores.append(scores)
        if outcome.reading not in (STRICT, FAILED):
            continue  # which constraint a lenient bit is about, nobody can say
        met = outcome.met if outcome.reading == STRICT else (False,) * len(exercise.criteria)
        for (_text, priority, kind, _sub_kind), bit in zip(exercise.criteria, met, strict=True):
            bits["by_priority"]["primary" if priority == PRIMARY else "secondary"].append(bit)
            bits["by_type"][kind].append(bit)
    figures = everything.figures()
    return {
        **figures,
        "overall": _percent(figures["psr"]),
        "by_split": {name: kept.figures() for name, kept in sorted(by_split.items())},
        "by_domain": {
            name: kept.figures() | {"items": len(kept.scores)} for name, kept in _largest(by_domain, _scored)
        },
        **{name: shares_of(found) for name, found in bits.items()},
        "read_leniently": Counter(outcome.reading for outcome in outcomes)["0"],
        "at_worst": worst.figures(),
        "at_best": best.figures(),
    }


def _scored(kept: Kept) -> int:
    return len(kept.scores)


def shares_of(found: dict[str, list[bool]]) -> dict[str, dict[str, float | int]]:
    """The share of satisfied constraints under each name, and how many there are."""
    return {name: {"share": round(fmean(bits), 4), "count": len(bits)} for name, bits in _largest(found, len)}


def _largest(found: dict[str, Any], size: Callable[[Any], int]) -> Iterable[tuple[str, Any]]:
    return sorted(found.items(), key=lambda entry: (-size(entry[1]), entry[0]))


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)


# ── SysBench ─────────────────────────────────────────────────────────────────────────────────────────────────────


def sysbench_report(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """CSR, ISR and SSR as shares of 1 over the sessions that are judged to the end, and slices of them."""
    sessions: dict[int | None, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        sessions[outcome.exercise.session].append(outcome)
    whole = [turns for turns in sessions.values() if all(turn.reading == STRICT for turn in turns)]
    by_domain: dict[str, list[list[Outcome]]] = defaultdict(list)
    for turns in whole:
        by_domain[turns[0].exercise.task].append(turns)
    kinds: dict[str, list[bool]] = defaultdict(list)
    for turn in (turn for turns in whole for turn in turns):
        for (_text, kind, _number), bit in zip(turn.exercise.criteria, turn.met, strict=True):
            kinds[kind].append(bit)
    figures = score_sessions([_session(turns) for turns in whole])
    return {
        **figures,
        "overall": _percent(figures["ssr"]),
        "by_type": shares_of(kinds),
        "by_domain": {
            name: _three([_session(turns) for turns in chosen]) | {"sessions": len(chosen)}
            for name, chosen in _largest(by_domain, len)
        },
        "all_sessions": len(sessions),
        "unusable_sessions": sum(any(turn.reading == FAILED for turn in turns) for turns in sessions.values()),
        "at_worst": _three([_session(turns, False) for turns in sessions.values()]),
        "at_best": _three([_session(turns, True) for turns in sessions.values()]),
    }


def _three(sessions: list[Session]) -> dict[str, Any]:
    figures = score_sessions(sessions)
    return {name: figures[name] for name in ("csr", "isr", "ssr")}


def _session(turns: Sequence[Outcome], otherwise: bool = False) -> Session:
    """otherwise: what the criteria of a turn without a verdict are taken for."""
    return Session(
        bool(turns[0].exercise.details.get("rounds_related")),
        tuple(
            Turn(
                str(turn.exercise.details.get("alignment")),
                tuple(
                    (kind, turn.met[index] if turn.reading == STRICT else otherwise)
                    for index, (_text, kind, _number) in enumerate(turn.exercise.criteria)
                ),
            )
            for turn in turns
        ),
    )
