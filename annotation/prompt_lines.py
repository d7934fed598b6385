"""Prompts that a person pastes or uploads: JSON lines or plain text, checked before anything is stored."""

from __future__ import annotations

import json
from typing import Any

from annotation.importers.rows import UnusableRowError, checked_tags

MAX_PROMPT_CHARS = 100_000
_SHOWN_ERRORS = 10
_ROLES = ("system", "user", "assistant")


class PromptLinesError(ValueError):
    """Lines that cannot be used; `sentences` name each by its number."""

    def __init__(self, sentences: list[str]) -> None:
        super().__init__("; ".join(sentences))
        self.sentences = sentences


def read_prompts(text: str) -> list[dict[str, Any]]:
    """One prompt a line: `{"messages", "task", "lang", "tags"}` for `services.add_prompts`.

    The lines are JSON where the first that is not blank begins with `{`: `{"prompt": str}` or `{"messages": […]}`,
    with "task", "lang" and "tags" where known. Otherwise each line is what the user says. Raises PromptLinesError
    where a line cannot be used.
    """
    # Not splitlines(): it also cuts at characters that JSON allows inside a string.
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise PromptLinesError(["There is no prompt here: write one on each line."])
    is_json = lines[0][1].startswith("{")
    prompts, problems = [], []
    for number, line in lines:
        try:
            prompts.append(_read_json_line(line) if is_json else _plain(line))
        except ValueError as error:
            problems.append(f"Line {number}: {error}")
    if problems:
        if (more := len(problems) - _SHOWN_ERRORS) > 0:
            problems = [*problems[:_SHOWN_ERRORS], f"… and {more} more lines"]
        raise PromptLinesError(problems)
    return prompts


def _plain(line: str) -> dict[str, Any]:
    if len(line) > MAX_PROMPT_CHARS:
        raise ValueError(f"{len(line)} characters are more than a prompt may have ({MAX_PROMPT_CHARS}).")
    return {"messages": [{"role": "user", "content": _storable(line)}]}


def _read_json_line(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not valid JSON ({error}).") from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object.")
    if unknown := set(row) - {"prompt", "messages", "task", "lang", "tags"}:
        raise ValueError(f"unknown key {sorted(unknown)[0]!r}; known: prompt, messages, task, lang, tags.")
    if ("prompt" in row) == ("messages" in row):
        raise ValueError('give either "prompt" (text) or "messages" (a conversation).')
    for key, longest in (("task", 60), ("lang", 20)):
        if not isinstance(row.get(key, ""), str) or len(row.get(key, "")) > longest:
            raise ValueError(f'"{key}" must be a text of at most {longest} characters.')
    if "prompt" in row:
        if not isinstance(row["prompt"], str) or not row["prompt"].strip():
            raise ValueError('"prompt" must be a text that is not empty.')
        prompt = _plain(row["prompt"])
    else:
        prompt = {"messages": _check_messages(row["messages"])}
    try:
        tags = [_storable(tag) for tag in checked_tags(row.get("tags"), "tags")]
    except UnusableRowError as error:
        raise ValueError(f"{error}.") from None
    return prompt | {key: _storable(row[key]) for key in ("task", "lang") if key in row} | {"tags": tags}


def _check_messages(messages: Any) -> list[dict[str, str]]:
    if not isinstance(messages, list) or not messages:
        raise ValueError('"messages" must be a list that is not empty.')
    for index, message in enumerate(messages, 1):
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise ValueError(f'message {index} must have "role" and "content" and nothing else.')
        if message["role"] not in _ROLES:
            raise ValueError(f"message {index}: the role {message['role']!r} is not one of {', '.join(_ROLES)}.")
        if not isinstance(message["content"], str) or not message["content"].strip():
            raise ValueError(f"message {index}: the content must be a text that is not empty.")
    if messages[-1]["role"] != "user":
        raise ValueError("the last message must be the user's: it is what gets answered.")
    if sum(len(message["content"]) for message in messages) > MAX_PROMPT_CHARS:
        raise ValueError(f"more characters than a prompt may have ({MAX_PROMPT_CHARS}).")
    return [{"role": message["role"], "content": _storable(message["content"])} for message in messages]


def _storable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a character (a lone surrogate); save the file as UTF-8 again.") from None
    if "\x00" in text:
        raise ValueError("holds a NUL character, which cannot be stored.")
    return text
