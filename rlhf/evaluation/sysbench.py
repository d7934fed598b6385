"""SysBench: does a model keep to its system message over five turns?

Qin et al. 2024, arXiv 2408.10943. CSR is the share of satisfied criteria, ISR that of turns without a miss, SSR the
mean share of a session's turns before its first miss.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rlhf.evaluation.fb_bench import UnusableFileError, UnusableItemError, read_bytes, read_rows

TYPES = {
    "动作约束": "action", "内容约束": "content", "背景约束": "background", "角色约束": "role", "格式约束": "format",
    "风格约束": "style",
}  # fmt: skip
ALIGNMENTS = ("align", "misalign")
YES, NO = "是", "否"


@dataclass(frozen=True, slots=True)
class Turn:
    alignment: str
    met: tuple[tuple[str, bool], ...]
    """(type, whether it is satisfied) of each criterion."""

    @property
    def is_right(self) -> bool:
        return all(is_met for _type, is_met in self.met)


@dataclass(frozen=True, slots=True)
class Session:
    is_dependent: bool
    turns: tuple[Turn, ...]

    @property
    def right_from_the_start(self) -> int:
        """How many turns come before the first that misses something."""
        return next((index for index, turn in enumerate(self.turns) if not turn.is_right), len(self.turns))


def parse_session(value: Any) -> Session:
    """A judged session in the authors' shape. Raises UnusableItemError that names the turn."""
    if not isinstance(value, dict):
        raise UnusableItemError("it is not a JSON object")
    messages = value.get("messages")
    asked = [
        message.get("content")
        for message in (messages if isinstance(messages, list) else [])
        if isinstance(message, dict) and message.get("role") == "user"
    ]
    if not asked:
        raise UnusableItemError("messages: there is no user turn")
    if not isinstance(value.get("rounds_related"), bool):
        raise UnusableItemError("rounds_related: it is neither true nor false")
    results, infos = value.get("eval_results"), value.get("prompt_infos")
    if not isinstance(results, dict):
        raise UnusableItemError("eval_results: the session was not judged")
    if not isinstance(infos, dict):
        raise UnusableItemError("prompt_infos: it is missing")
    return Session(
        value["rounds_related"],
        tuple(_turn(number, prompt, results, infos) for number, prompt in enumerate(asked, 1)),
    )


def _turn(number: int, prompt: Any, results: dict[str, Any], infos: dict[str, Any]) -> Turn:
    result = results.get(prompt) if isinstance(prompt, str) else None
    info = infos.get(prompt) if isinstance(prompt, str) else None
    if not isinstance(result, dict) or not isinstance(info, dict):
        raise UnusableItemError(f"turn {number}: it was not judged")
    if info.get("alignment") not in ALIGNMENTS:
        raise UnusableItemError(f"turn {number}: alignment is neither align nor misalign")
    criteria = info.get("criteria") or result.get("criteria")
    verdicts = result.get("评判结果")
    if not isinstance(criteria, dict) or not criteria:
        raise UnusableItemError(f"turn {number}: it has no criteria")
    if not isinstance(verdicts, dict) or set(map(str, verdicts)) != set(criteria):
        raise UnusableItemError(f"turn {number}: the verdicts are not those of its criteria")
    met = []
    for key, verdict in verdicts.items():
        if verdict not in (YES, NO):
            raise UnusableItemError(f"turn {number}: {verdict!r} is neither 是 nor 否")
        kind = str(criteria[str(key)].get("criteria_type", "")) if isinstance(criteria[str(key)], dict) else ""
        met.append((TYPES.get(kind, kind or "unknown"), verdict == YES))
    return Turn(info["alignment"], tuple(met))


def score_sessions(sessions: list[Session]) -> dict[str, Any]:
    """Every figure as a share of 1; `rounds` holds the share of sessions whose first 1, 2, … turns are all right."""
    turns = [turn for session in sessions for turn in session.turns]
    by_type: dict[str, list[bool]] = defaultdict(list)
    for turn in turns:
        for kind, is_met in turn.met:
            by_type[kind].append(is_met)
    shown = {"dependent": True, "parallel": False}
    return {
        "csr": _share([is_met for bits in by_type.values() for is_met in bits]),
        "isr": _share([turn.is_right for turn in turns]),
        "ssr": _ssr(sessions),
        "rounds": _rounds(sessions),
        "csr_by_type": {kind: _share(bits) for kind, bits in sorted(by_type.items())},
        "isr_by_alignment": {
            name: _share([turn.is_right for turn in turns if turn.alignment == name]) for name in ALIGNMENTS
        },
        "by_sessions": {
            name: {"ssr": _ssr(chosen), "rounds": _rounds(chosen), "sessions": len(chosen)}
            for name, is_dependent in shown.items()
            if (chosen := [session for session in sessions if session.is_dependent == is_dependent])
        },
        "sessions": len(sessions),
    }


def _share(bits: list[bool]) -> float | None:
    return round(fmean(bits), 4) if bits else None


def _ssr(sessions: list[Session]) -> float | None:
    if not sessions:
        return None
    return round(fmean(session.right_from_the_start / len(session.turns) for session in sessions), 4)


def _rounds(sessions: list[Session]) -> list[float]:
    longest = max((len(session.turns) for session in sessions), default=0)
    return [round(fmean(session.right_from_the_start > index for session in sessions), 4) for index in range(longest)]


def score_file(path: Path) -> dict[str, Any]:
    """A file of judged sessions in the authors' shape. Raises UnusableFileError."""
    sessions, problems = [], []
    for row, value, error in read_rows(read_bytes(path), str(path)):
        try:
            if error:
                raise UnusableItemError(error)
            sessions.append(parse_session(value))
        except UnusableItemError as refusal:
            problems.append(f"row {row}: {refusal}")
    if not sessions:
        raise UnusableFileError(f"{path} holds no judged SysBench session{'; ' + problems[0] if problems else ''}")
    return {**score_sessions(sessions), "refused": len(problems), "problems": problems[:20]}
