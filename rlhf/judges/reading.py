"""How a judge's answer is read: whatever it says ends in a finding, or in an UnusableVerdictError that names why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlhf.evaluation.fb_bench import UnusableJudgmentError
from rlhf.evaluation.fb_bench_judge import object_in
from rlhf.judges.wording import HIGHEST_SCORE, LOWEST_SCORE, WORDS, Words

_PARTLY = ("part", "half", "between", "部分", "一半", "之间")


class UnusableVerdictError(ValueError):
    """`outcome` is a value of JudgeOutcome."""

    def __init__(self, outcome: str, note: str) -> None:
        super().__init__(note)
        self.outcome = outcome


@dataclass(frozen=True)
class Finding:
    """What a judge found; `preference` names the sides as they were shown."""

    reason: str
    preference: str = ""
    """"a", "b" or "tie"."""
    score: int | None = None
    same_result: bool | None = None
    same_reasoning: bool | None = None


def read_finding(text: str, kind: str, language: str, *, asks_sameness: bool = False) -> Finding:
    """The finding in what a judge said, in a fence or after a reasoning model's thoughts, too.

    Raises UnusableVerdictError.
    """
    words = WORDS[language]
    try:
        value = object_in(text)
    except UnusableJudgmentError as error:
        raise UnusableVerdictError(str(error.failure), str(error)) from None
    said = {str(key).strip().lower(): given for key, given in value.items()}
    if len(said) < len(value):
        raise UnusableVerdictError("wrong_shape", "a key stands there twice")
    wanted = [words.reason, *([words.same_result, words.same_reasoning] if asks_sameness else [])]
    wanted.append(words.verdict if kind == "pair" else words.score)
    if unknown := sorted(said.keys() - set(wanted)):
        raise UnusableVerdictError("invented_key", f"{unknown[0][:60]!r} was not asked for")
    if missing := [key for key in wanted if key not in said]:
        raise UnusableVerdictError("missing_key", f"{missing[0]!r} is not there")
    reason = said[words.reason]
    if not isinstance(reason, str) or not reason.strip():
        raise UnusableVerdictError("no_reason", f"{words.reason!r} is empty")
    sameness = [_yes_or_no(said[key], key, words) for key in wanted[1:-1]]
    same_result, same_reasoning = sameness if sameness else (None, None)
    if kind == "pair":
        preference = _preference(said[words.verdict], words)
        return Finding(reason, preference, same_result=same_result, same_reasoning=same_reasoning)
    return Finding(reason, score=_score(said[words.score]))


def _preference(value: Any, words: Words) -> str:
    if isinstance(value, str):
        known = {"a": "a", "b": "b", words.tie: "tie"}
        if found := known.get(value.strip().strip(".。").lower()):
            return found
    raise _neither_of(value, f"A, B or {words.tie}")


def _yes_or_no(value: Any, key: str, words: Words) -> bool:
    if isinstance(value, str):
        known = {words.yes: True, words.no: False}
        found = known.get(value.strip().strip(".。").lower())
        if found is not None:
            return found
    raise _neither_of(value, f"{words.yes} or {words.no} for {key!r}")


def _neither_of(value: Any, wanted: str) -> UnusableVerdictError:
    shown = str(value)[:60]
    is_partial = (isinstance(value, int | float) and not isinstance(value, bool)) or any(
        word in shown.lower() for word in _PARTLY
    )
    return UnusableVerdictError("partial_credit" if is_partial else "other_word", f"{shown!r} is not {wanted}")


def _score(value: Any) -> int:
    if isinstance(value, str):
        try:
            value = float(value.strip())
        except ValueError:
            raise UnusableVerdictError("other_word", f"{value[:60]!r} is not a number") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnusableVerdictError("wrong_shape", f"{str(value)[:60]!r} is not a number")
    if not LOWEST_SCORE <= value <= HIGHEST_SCORE:  # NaN, too
        raise UnusableVerdictError("off_scale", f"{value!r:.60} is not from {LOWEST_SCORE} to {HIGHEST_SCORE}")
    if value != int(value):
        raise UnusableVerdictError("partial_credit", f"{value} is between two scores")
    return int(value)
