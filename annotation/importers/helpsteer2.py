"""NVIDIA's HelpSteer2: responses scored 0 to 4 in five aspects, and pairs graded −3 to 3 in its preference file.

Source: https://huggingface.co/datasets/nvidia/HelpSteer2 (Wang et al. 2024, arXiv 2406.08673 and 2410.01257). The data
name neither the models nor the people; a scored row holds the annotators' mean.
"""

from __future__ import annotations

import re
from typing import Any

from annotation.importers.rows import (
    Messages,
    Row,
    Score,
    Side,
    UnusableRowError,
    Verdict,
    checked_messages,
    checked_number,
    checked_text,
)
from annotation.models import Preference

COLUMNS = '"prompt", "response" and "helpfulness" …, or "response_1", "response_2" and "preference_strength"'
ASPECTS = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
NEITHER = -100
_SOURCE = "unknown (helpsteer2)"
_TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")


def recognises(record: dict[str, Any]) -> bool:
    return "prompt" in record and (
        {"response", "helpfulness"} <= record.keys()
        or {"response_1", "response_2", "preference_strength"} <= record.keys()
    )


def parse(record: dict[str, Any]) -> Row:
    messages = _messages(checked_text(record.get("prompt"), "prompt"))
    if "response_1" not in record:
        side = Side(_SOURCE, checked_text(record.get("response"), "response"))
        scores = [
            Score("unnamed (helpsteer2)", True, checked_number(record[name], name), aspect=name, low=0.0, high=4.0)
            for name in ASPECTS
            if record.get(name) is not None
        ]
        if not scores:
            raise UnusableRowError(f"it holds none of the scores {', '.join(ASPECTS)}")
        return Row(messages, [side], scores=scores, lang="en")
    sides = [Side(_SOURCE, checked_text(record.get(key), key)) for key in ("response_1", "response_2")]
    row = Row(messages, sides, lang="en")
    # All that was said, where the file tells it; a later step drops what does not agree.
    single = record.get("all_preferences_unprocessed") or record.get("three_most_similar_preferences")
    if isinstance(single, list) and single:
        for number, said in enumerate(single, 1):
            name = f"annotator {number} (helpsteer2)"
            if isinstance(said, dict) and (verdict := _verdict(said.get("strength"), name, said)):
                row.verdicts.append(verdict)
            else:
                row.skipped.append((name, '"strength" is not a whole number from -3 to 3, nor -100'))
        return row
    verdict = _verdict(record.get("preference_strength"), "unnamed (helpsteer2)", {})
    if verdict is None:
        raise UnusableRowError('"preference_strength" is not a whole number from -3 to 3')
    row.verdicts.append(verdict)
    return row


def _messages(prompt: str) -> Messages:
    first, *rest = _TURN.split(prompt)
    turns = [{"role": "user", "content": first}]
    turns += [{"role": speaker.lower(), "content": text} for speaker, text in zip(rest[::2], rest[1::2], strict=True)]
    return checked_messages(turns, "prompt")


def _verdict(strength: Any, name: str, said: dict[str, Any]) -> Verdict | None:
    if type(strength) is not int or not (-3 <= strength <= 3 or strength == NEITHER):
        return None
    note = "\n\n".join(
        text for key in ("statement", "elaboration") if isinstance(text := said.get(key), str) and text.strip()
    )
    if strength == NEITHER:
        return Verdict(name, True, Preference.NEITHER, note=note)
    preference = Preference.TIE if strength == 0 else Preference.A if strength < 0 else Preference.B
    return Verdict(name, True, preference, strength, note=note)
