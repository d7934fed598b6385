"""ShareGPT's conversations: `{"id", "conversations": [{"from": "human" | "gpt", "value"} …]}`.

Nothing is judged in them: each becomes a conversation whose turns people can rate. Source: the shape that FastChat
trains on (https://github.com/lm-sys/FastChat/blob/main/docs/commands/data_cleaning.md).
"""

from __future__ import annotations

from typing import Any

from annotation.importers.rows import (
    Messages,
    Row,
    Side,
    Talk,
    UnusableRowError,
    check_repeated,
    checked_name,
    checked_text,
    digest,
    length,
)

COLUMNS = '"conversations" with "from" and "value"'
MAX_TURNS = 500
_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "system": "system",
}


def recognises(record: dict[str, Any]) -> bool:
    messages = record.get("conversations")
    return isinstance(messages, list) and bool(messages) and isinstance(messages[0], dict) and "from" in messages[0]


def parse(record: dict[str, Any]) -> Talk:
    messages = []
    given = record.get("conversations")
    if not isinstance(given, list):
        raise UnusableRowError('"conversations" is not a list')
    for number, message in enumerate(given, 1):
        if not isinstance(message, dict) or message.get("from") not in _ROLES:
            raise UnusableRowError(f'message {number} of "conversations" says by nobody known whom it is "from"')
        content = checked_text(message.get("value"), f"value of message {number}")
        messages.append({"role": _ROLES[message["from"]], "content": content})
    # The same id with other messages is another conversation: published files reuse ids for the parts of a long one.
    name = checked_name(record.get("id"), "id", longest=150)
    external_id = f"sharegpt-{name}-{digest(messages)[:12]}" if name else f"sharegpt-{digest(messages)[:32]}"
    return talk_of(
        messages,
        external_id=external_id,
        model=checked_name(record.get("model"), "model") or "unknown (sharegpt)",
        lang=checked_name(record.get("lang"), "lang", longest=20),
    )


def talk_of(messages: Messages, *, external_id: str, model: str, lang: str) -> Talk:
    """A turn for every response that answers the user. Raises UnusableRowError where there is none, or too many."""
    places = [
        index
        for index, message in enumerate(messages)
        if message["role"] == "assistant" and index and messages[index - 1]["role"] == "user"
    ]
    if not places:
        raise UnusableRowError("it holds no answer to anything that the user says")
    if len(places) > MAX_TURNS:
        raise UnusableRowError(f"it holds {len(places)} turns: at most {MAX_TURNS} can be imported")
    check_repeated(sum(length(messages[:index]) for index in places))
    turns = [
        Row(messages[:index], [Side(model, messages[index]["content"])], group=external_id, lang=lang)
        for index in places
    ]
    return Talk(external_id, turns, lang=lang)
