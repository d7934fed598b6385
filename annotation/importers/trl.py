"""TRL's preference format: `{"prompt", "chosen", "rejected"}` as texts or as lists of messages.

Without a "prompt" it is what both sides begin with, as TRL reads such rows.
Source: https://huggingface.co/docs/trl/dataset_formats#preference.
"""

from __future__ import annotations

from typing import Any

from annotation.importers import hh
from annotation.importers.rows import (
    Messages,
    Row,
    UnusableRowError,
    checked_messages,
    checked_text,
    chosen_rejected_row,
    said_by_user,
)

COLUMNS = '"chosen" and "rejected", with or without "prompt"'


def recognises(record: dict[str, Any]) -> bool:
    return {"chosen", "rejected"} <= set(record) and not hh.recognises(record)


def parse(record: dict[str, Any]) -> Row:
    prompt, chosen, rejected = (record.get(key) for key in ("prompt", "chosen", "rejected"))
    if isinstance(chosen, list):
        return _conversational(prompt, chosen, rejected)
    chosen, rejected = checked_text(chosen, "chosen"), checked_text(rejected, "rejected")
    if prompt is None:
        prompt = _common_start(chosen, rejected)
        if not prompt.strip():
            raise UnusableRowError('it has no "prompt", and "chosen" and "rejected" begin differently')
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    messages = said_by_user(checked_text(prompt, "prompt"))
    return chosen_rejected_row(messages, chosen, rejected, origin="trl")


def _common_start(chosen: str, rejected: str) -> str:
    shorter = min(len(chosen), len(rejected))
    length = next((index for index in range(shorter) if chosen[index] != rejected[index]), shorter)
    # TRL leaves a blank before the difference to the completions.
    return chosen[:length].removesuffix(" ") if length < shorter else chosen[:length]


def _conversational(prompt: Any, chosen: Any, rejected: Any) -> Row:
    chosen = checked_messages(chosen, "chosen", last="assistant")
    rejected = checked_messages(rejected, "rejected", last="assistant")
    # Some published files give the whole dialogues beside a copy of the prompt's text.
    if not isinstance(prompt, list):
        if chosen[:-1] != rejected[:-1]:
            raise UnusableRowError('"chosen" and "rejected" differ before the last turn, so they share no prompt')
        messages = checked_messages(chosen[:-1], "chosen")
        if prompt is not None and prompt != messages[-1]["content"] and prompt != messages[0]["content"]:
            raise UnusableRowError('"prompt" is neither the messages before the last turn nor the text of one of them')
        return _row(messages, chosen, rejected)
    messages = checked_messages(prompt, "prompt")
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if len(side) != 1:
            raise UnusableRowError(f'"{name}" holds {len(side)} messages beside a "prompt": only one can be compared')
    return _row(messages, chosen, rejected)


def _row(messages: Messages, chosen: Messages, rejected: Messages) -> Row:
    return chosen_rejected_row(messages, chosen[-1]["content"], rejected[-1]["content"], origin="trl")
