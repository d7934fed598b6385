"""Conversations as lists of messages: `{"id", "messages": [{"role", "content"} …], "model", "lang"}`.

Nothing is judged in them: each becomes a conversation whose turns people can rate. This is the shape in which most
chat data is kept, and TRL's for conversational language modelling.
"""

from __future__ import annotations

from typing import Any

from annotation.importers.rows import Talk, UnusableRowError, checked_messages, checked_name, digest
from annotation.importers.sharegpt import talk_of

COLUMNS = '"messages" with "role" and "content", and no "responses"'


def recognises(record: dict[str, Any]) -> bool:
    others = {"responses", "chosen", "rejected", "prompt", "completion"}
    return isinstance(record.get("messages"), list) and not others & record.keys()


def parse(record: dict[str, Any]) -> Talk:
    given = record.get("messages")
    if not isinstance(given, list) or not given:
        raise UnusableRowError('"messages" is not a list of messages')
    last = given[-1].get("role") if isinstance(given[-1], dict) else None
    messages = checked_messages(given, "messages", last="assistant" if last == "assistant" else "user")
    name = checked_name(record.get("id"), "id", longest=150)
    return talk_of(
        messages,
        # The same id with other messages is another conversation.
        external_id=f"messages-{name}-{digest(messages)[:12]}" if name else f"messages-{digest(messages)[:32]}",
        model=checked_name(record.get("model"), "model") or "unknown (messages)",
        lang=checked_name(record.get("lang"), "lang", longest=20),
    )
