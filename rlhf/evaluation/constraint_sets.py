"""CFBench's and SysBench's data sets in their authors' shapes, as exercises: what is answered and judged at a time.

An exercise is an instruction of CFBench, or a turn of one of SysBench's sessions; its answer is history for the next.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf.evaluation.cfbench import PRIMARY, SECONDARY, parse_constraints
from rlhf.evaluation.fb_bench import (
    MAX_CRITERIA,
    Refusal,
    UnusableFileError,
    UnusableItemError,
    check_text,
    read_rows,
    short,
    text_of,
)
from rlhf.evaluation.sysbench import ALIGNMENTS, TYPES

ROW_FIELDS_OF_A_RESULT = (
    "response", "infer_model", "infer_results", "eval_results", "judge_response", "judge_score", "judge_parsing",
    "judge_metric", "judge_model", "eval_partial", "eval_failures", "failure", "failure_note", "attempts",
)  # fmt: skip
"""What answers and judgments add to a row of the data set."""


@dataclass(frozen=True, slots=True)
class Exercise:
    key: str
    """sha256 that tells it from every other of its data set."""
    query: str
    criteria: list[list[str]]
    """CFBench: [text, 主需 or 次需, class, subclass]; SysBench: [text, type, the authors' id]."""
    task: str
    """The domain."""
    sub_task: str
    """The scenario."""
    reference: str
    """A good answer, where there is one; of SysBench's turns never shown to a judge."""
    details: dict[str, Any] = field(default_factory=dict)
    """What else the authors' row says."""
    session: int | None = None
    """1, 2, … in the file; None where an exercise stands alone."""
    turn: int | None = None


@dataclass(frozen=True, slots=True)
class ConstraintSet:
    exercises: tuple[Exercise, ...]
    refusals: tuple[Refusal, ...]
    sha256: str
    """Of the file's bytes."""


def shape_of(content: bytes, name: str) -> str:
    """`cfbench`, `sysbench` or, whatever else it holds, `fb_bench`. Raises UnusableFileError."""
    for _row, value, _error in read_rows(content, name):
        if isinstance(value, dict):
            return "sysbench" if "prompt_infos" in value else "cfbench" if "criteria" in value else "fb_bench"
    return "fb_bench"


def parse_cfbench(content: bytes, name: str) -> ConstraintSet:
    """Raises UnusableFileError where the file holds no instruction."""
    return _parsed(content, name, lambda value, _number: [cfbench_exercise(value)], "CFBench instruction")


def parse_sysbench(content: bytes, name: str) -> ConstraintSet:
    """Raises UnusableFileError where the file holds no session."""
    return _parsed(content, name, sysbench_turns, "SysBench session")


def _parsed(
    content: bytes, name: str, exercises_of: Callable[[Any, int], Sequence[Exercise]], what: str
) -> ConstraintSet:
    found: dict[str, Exercise] = {}
    refusals = []
    sessions = 0
    for row, value, error in read_rows(content, name):
        try:
            if error:
                raise UnusableItemError(error)
            exercises = exercises_of(value, sessions + 1)
            if exercises[0].key in found:
                raise UnusableItemError("an earlier row is the same")
        except UnusableItemError as refusal:
            refusals.append(Refusal(row, str(refusal)))
        else:
            sessions += 1
            found |= {exercise.key: exercise for exercise in exercises}
    if not found:
        why = f"; row {refusals[0].row}: {refusals[0].reason}" if refusals else ""
        raise UnusableFileError(f"{name} holds no {what}{why}")
    return ConstraintSet(tuple(found.values()), tuple(refusals), hashlib.sha256(content).hexdigest())


def key_of(*parts: Any) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode(errors="surrogatepass")).hexdigest()


def _known(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UnusableItemError("it is not a JSON object")
    return value


def _label(value: dict[str, Any], *names: str) -> str:
    label = next((value[name] for name in names if value.get(name)), "")
    check_text(str(label), names[0])
    return str(label)[:200]


def _kept(value: dict[str, Any], *left_out: str) -> dict[str, Any]:
    """The row without what is stored elsewhere."""
    kept = {name: entry for name, entry in value.items() if name not in left_out + ROW_FIELDS_OF_A_RESULT}
    for name, entry in kept.items():
        field = name if name.isprintable() else short(name)
        try:
            for text in (name, *_texts_in(entry, field)):
                check_text(text, field)
        except RecursionError:
            raise UnusableItemError(f"{field}: it is nested too deeply") from None
    return kept


def _texts_in(value: Any, field: str) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, float) and not math.isfinite(value):
        raise UnusableItemError(f"{field}: {value} is no number that a database keeps")
    elif isinstance(value, dict):
        for name, entry in value.items():
            yield name
            yield from _texts_in(entry, field)
    elif isinstance(value, list):
        for entry in value:
            yield from _texts_in(entry, field)


# ── CFBench ──────────────────────────────────────────────────────────────────────────────────────────────────────


def cfbench_key(value: dict[str, Any]) -> str:
    """The authors' data set asks one prompt twice: only number and prompt together are an item's own."""
    return key_of(value.get("idx"), value.get("prompt"))


def cfbench_exercise(value: Any) -> Exercise:
    """An instruction with its constraints. Raises UnusableItemError."""
    value = _known(value)
    prompt = text_of(value, "prompt")
    gold = value.get("gold") or ""
    if not isinstance(gold, str):
        raise UnusableItemError("gold: it is not a text")
    check_text(gold, "gold")
    constraints = parse_constraints(value.get("criteria"))
    _check_criteria([constraint.text for constraint in constraints])
    return Exercise(
        key=cfbench_key(value),
        query=prompt,
        criteria=[
            [one.text, PRIMARY if one.is_primary else SECONDARY, one.kind[:200], one.sub_kind[:200]]
            for one in constraints
        ],
        task=_label(value, "doamin", "domain"),  # the authors spell it so
        sub_task=_label(value, "scenario"),
        reference=gold,
        details=_kept(value, "prompt", "gold", "criteria"),
    )


def _check_criteria(texts: Sequence[str]) -> None:
    if len(texts) > MAX_CRITERIA:
        raise UnusableItemError(f"criteria: {len(texts)} are more than {MAX_CRITERIA}")
    for number, text in enumerate(texts, 1):
        if not text.strip():
            raise UnusableItemError(f"criteria: number {number} is empty")
        check_text(text, f"criterion {number}")


# ── SysBench ─────────────────────────────────────────────────────────────────────────────────────────────────────


def sysbench_turns(value: Any, number: int = 1) -> list[Exercise]:
    """The turns of a session, each with its criteria. Raises UnusableItemError that names the turn."""
    value = _known(value)
    system, pairs = _conversation(value)
    infos = value.get("prompt_infos")
    if not isinstance(infos, dict):
        raise UnusableItemError("prompt_infos: it is missing")
    if not isinstance(value.get("rounds_related"), bool):
        raise UnusableItemError("rounds_related: it is neither true nor false")
    prompts = [prompt for prompt, _reference in pairs]
    if len(set(prompts)) < len(prompts):
        again = next(prompt for index, prompt in enumerate(prompts) if prompt in prompts[:index])
        raise UnusableItemError(f"messages: {short(again)} is asked twice, and the file keeps criteria by question")
    session = _kept(value, "messages", "prompt_infos")
    turns = []
    for turn, (prompt, reference) in enumerate(pairs, 1):
        info = infos.get(prompt)
        if not isinstance(info, dict):
            raise UnusableItemError(f"turn {turn}: prompt_infos says nothing about it")
        if info.get("alignment") not in ALIGNMENTS:
            raise UnusableItemError(f"turn {turn}: alignment is neither align nor misalign")
        details: dict[str, Any] = {
            "system": system,
            "rounds_related": value["rounds_related"],
            "alignment": info["alignment"],
            "info": _kept(info, "criteria", "alignment"),
        }
        if turn == 1:
            details["row"] = session
        turns.append(
            Exercise(
                key=key_of(value.get("system_id"), system, turn, *prompts),
                query=prompt,
                criteria=_criteria_of_turn(turn, info.get("criteria")),
                task=_label(value, "领域", "domain"),
                sub_task=_label(value, "场景", "scenario"),
                reference=reference,
                details=details,
                session=number,
                turn=turn,
            )
        )
    return turns


def _conversation(value: dict[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    """The system message and, for each turn, the question and the authors' own answer (empty where there is none)."""
    messages = value.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise UnusableItemError("messages: it is not a list of messages")
    system = value.get("system_prompt")
    pairs: list[tuple[str, str]] = []
    for place, message in enumerate(messages):
        text = text_of(message, "content")
        role = message.get("role")
        if role == "system" and not place:
            system = text
        elif role == "user":
            pairs.append((text, ""))
        elif role == "assistant" and pairs and not pairs[-1][1]:
            pairs[-1] = (pairs[-1][0], text)
        else:
            raise UnusableItemError(f"messages: number {place + 1} has the role {role!r} where it cannot be")
    if not isinstance(system, str) or not system.strip():
        raise UnusableItemError("system_prompt: there is no system message")
    if not pairs:
        raise UnusableItemError("messages: there is no user turn")
    check_text(system, "system_prompt")
    return system, pairs


def _criteria_of_turn(turn: int, value: Any) -> list[list[str]]:
    if not isinstance(value, dict) or not value:
        raise UnusableItemError(f"turn {turn}: it has no criteria")
    criteria = []
    for number, entry in value.items():
        text = entry.get("criteria_content") if isinstance(entry, dict) else None
        if not isinstance(text, str):
            raise UnusableItemError(f"turn {turn}: criterion {number} has no criteria_content")
        kind = str(entry.get("criteria_type", ""))
        criteria.append([text, TYPES.get(kind, kind)[:200], str(number)[:20]])
    _check_criteria([text for text, *_rest in criteria])
    return criteria


def sysbench_row(turns: Iterable[Exercise]) -> dict[str, Any]:
    """A session in the authors' shape again."""
    turns = list(turns)
    names = {key: name for name, key in TYPES.items()}
    messages = [{"role": "system", "content": turns[0].details["system"]}]
    infos = {}
    for turn in turns:
        messages.append({"role": "user", "content": turn.query})
        if turn.reference:
            messages.append({"role": "assistant", "content": turn.reference})
        infos[turn.query] = {
            **turn.details["info"],
            "alignment": turn.details["alignment"],
            "criteria": {
                number: {
                    "criteria_id": int(number) if number.isdecimal() else number,
                    "criteria_content": text,
                    "criteria_type": names.get(kind, kind),
                }
                for text, kind, number in turn.criteria
            },
        }
    return {**turns[0].details["row"], "messages": messages, "prompt_infos": infos}


def cfbench_row(exercise: Exercise) -> dict[str, Any]:
    """An instruction in the authors' shape again."""
    return {
        **exercise.details, "prompt": exercise.query, "gold": exercise.reference, "criteria": exercise.criteria,
    }  # fmt: skip
