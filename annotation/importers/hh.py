"""Anthropic's HH-RLHF: two whole transcripts, `{"chosen", "rejected"}`, that differ in the last turn.

Source: https://github.com/anthropics/hh-rlhf. The data name neither the models nor the people.
"""

from __future__ import annotations

import re
from typing import Any

from annotation.importers.rows import (
    Messages,
    Row,
    UnusableRowError,
    checked_messages,
    checked_text,
    chosen_rejected_row,
    digest,
)

COLUMNS = '"chosen" and "rejected", transcripts that begin with "\\n\\nHuman:"'
_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def recognises(record: dict[str, Any]) -> bool:
    return any(str(record.get(key, "")).startswith("\n\nHuman:") for key in ("chosen", "rejected"))


def parse(record: dict[str, Any]) -> Row:
    chosen, rejected = (_turns(record.get(key), key) for key in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise UnusableRowError("the two transcripts differ before the last turn, so they share no prompt")
    messages = checked_messages(chosen[:-1], "chosen")
    # Pairs cut from one dialogue at different depths share its first turn; they must not straddle train and eval.
    group = f"hh-{digest(messages[0]['content'])[:16]}"
    return chosen_rejected_row(messages, chosen[-1]["content"], rejected[-1]["content"], origin="hh", group=group)


def _turns(value: Any, key: str) -> Messages:
    before, *parts = _TURN.split(checked_text(value, key))
    if before.strip() or not parts:
        raise UnusableRowError(f'"{key}" does not begin with "\\n\\nHuman:"')
    turns = [
        {"role": _ROLES[speaker], "content": text.strip()}
        for speaker, text in zip(parts[::2], parts[1::2], strict=True)
    ]
    return checked_messages(turns, key, last="assistant")
