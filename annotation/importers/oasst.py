"""OpenAssistant's conversation trees, one a line: at each node the replies, ranked by people, 0 the best.

Source: https://huggingface.co/datasets/OpenAssistant/oasst1 (Köpf et al. 2023, arXiv 2304.07327). Every set of ranked
replies becomes a comparison, or a ranking from three on; all of a tree share a group. Who wrote and who ranked is not
in the data, save for the model's name where a reply is synthetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from annotation.importers.rows import (
    MAX_RESPONSES,
    Messages,
    Row,
    Score,
    Side,
    UnusableRowError,
    Verdict,
    check_repeated,
    checked_name,
    checked_text,
    length,
    verdict_of_ranks,
)

COLUMNS = '"message_tree_id" and "prompt" with "replies"'
MAX_DEPTH = 200
_ROLES = {"prompter": "user", "assistant": "assistant"}
_PEOPLE = "unnamed (oasst)"


def recognises(record: dict[str, Any]) -> bool:
    prompt = record.get("prompt")
    return isinstance(prompt, dict) and "replies" in prompt and "text" in prompt


def parse(record: dict[str, Any]) -> list[Row]:
    tree = checked_name(record.get("message_tree_id"), "message_tree_id")
    rows = []
    repeated = 0
    for row in _below(record.get("prompt"), [], tree):
        repeated += length(row.messages)
        check_repeated(repeated)
        rows.append(row)
    if not rows:
        raise UnusableRowError("the tree holds no reply of an assistant that was ranked or labelled")
    return rows


def _below(node: Any, history: Messages, tree: str) -> Iterator[Row]:
    """The rows at a node and at all those below it."""
    name, role = _checked(node)
    messages = [*history, {"role": _ROLES[role], "content": node["text"]}]
    if len(messages) > MAX_DEPTH:
        raise UnusableRowError(f"the tree is deeper than {MAX_DEPTH} messages")
    replies = [reply for reply in node.get("replies", []) if not (isinstance(reply, dict) and reply.get("deleted"))]
    if role == "prompter":
        yield from _rows(messages, [reply for reply in replies if _checked(reply)[1] == "assistant"], name, tree)
    for reply in replies:
        yield from _below(reply, messages, tree)


def _checked(node: Any) -> tuple[str, str]:
    """(id, role) of a message that has all that it needs."""
    if not isinstance(node, dict):
        raise UnusableRowError("a message of the tree is not an object")
    name = checked_name(node.get("message_id"), "message_id")
    checked_text(node.get("text"), f"text of message {name}")
    if node.get("role") not in _ROLES:
        raise UnusableRowError(f'message {name} has a role that is neither "prompter" nor "assistant"')
    if not isinstance(node.get("replies", []), list):
        raise UnusableRowError(f'"replies" of message {name} is not a list')
    return name, node["role"]


def _rows(messages: Messages, replies: list[dict[str, Any]], name: str, tree: str) -> Iterator[Row]:
    group = checked_name(f"oasst-{tree}", "message_tree_id") if tree else ""
    lang = checked_name(replies[0].get("lang"), "lang", longest=20) if replies else ""
    ranked: dict[tuple[str, str], dict[str, Any]] = {}
    for reply in sorted(replies, key=lambda reply: reply["rank"] if _is_ranked(reply) else len(replies)):
        if _is_ranked(reply) and len(ranked) < MAX_RESPONSES:
            # What a model said twice is compared once, at its better rank.
            side = _side(reply)
            ranked.setdefault((side.source, side.text), reply)
    # In the order of their ids: the file lists the best first.
    compared = sorted(ranked.values(), key=lambda reply: str(reply.get("message_id")))
    if len(compared) > 1:
        preference, ranking = verdict_of_ranks([reply["rank"] for reply in compared])
        yield Row(
            messages,
            [_side(reply) for reply in compared],
            [Verdict(_PEOPLE, True, preference, ranking=ranking)],
            [score for position, reply in enumerate(compared) for score in _scores(reply, position)],
            external_id=checked_name(f"oasst-{name}", "message_id") if name else "",
            group=group,
            lang=lang,
        )
        replies = [reply for reply in replies if not any(reply is other for other in compared)]
    for reply in replies:
        if scores := _scores(reply, 0):
            yield Row(messages, [_side(reply)], scores=scores, group=group, lang=lang)


def _is_ranked(reply: dict[str, Any]) -> bool:
    return type(reply.get("rank")) is int


def _side(reply: dict[str, Any]) -> Side:
    model = checked_name(reply.get("model_name"), "model_name") if reply.get("synthetic") else ""
    return Side(model or "unknown (oasst)", reply["text"])


def _scores(reply: dict[str, Any], position: int) -> list[Score]:
    """Shares of people, 0 to 1: `{"quality": {"value": 0.75, "count": 3}, …}`."""
    labels = reply.get("labels")
    found = []
    for aspect, said in labels.items() if isinstance(labels, dict) else ():
        value = said.get("value") if isinstance(said, dict) else None
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and 0 <= value <= 1
            and 0 < len(aspect) <= 60
        ):
            found.append(Score(_PEOPLE, True, float(value), aspect=aspect, low=0.0, high=1.0, position=position))
    return found
