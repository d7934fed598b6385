"""A model's draft of an item's checklist, for a person to refine."""

from __future__ import annotations

import json
import re

from django.utils.translation import gettext

from annotation.chat import stream_chat
from annotation.models import ResponseSource
from annotation.services import DomainError
from rlhf.evaluation.fb_bench import Item, Scenario

MAX_DRAFTED = 8
MAX_POINTS = 100.0
_SAMPLING = {"temperature": 0.0, "max_tokens": 600}
SILENCE_SECONDS = 60.0

_TASK = {
    Scenario.ERROR_CORRECTION: (
        "The first answer is deficient and the user says so. List what a second answer must do to mend it: two to "
        "five requirements that can each be answered with yes or no, the most important first. Reply with a JSON "
        'list of pairs [requirement, weight] whose weights sum to 1, such as [["…", 0.6], ["…", 0.4]], and nothing '
        "else."
    ),
    Scenario.RESPONSE_MAINTENANCE: (
        "The first answer is right and the user doubts it. List the acceptable ways to stand by it: one to three "
        "alternatives of which one is enough, each to be answered with yes or no. Reply with a JSON list of texts, "
        'such as ["…", "…"], and nothing else.'
    ),
}


def draft_checklist(source: ResponseSource, item: Item) -> list[tuple[str, float | None]]:
    """(text, weight) drafted by the source, weights scaled to sum to 1. Raises ChatError, DomainError."""
    asked = (
        f"{_TASK[item.scenario]} Write in the language of the question.\n\n"
        f"Question:\n{item.query}\n\nFirst answer:\n{item.first_response}\n\nFeedback:\n{item.feedback}"
    )
    messages = [{"role": "user", "content": asked}]
    pieces = stream_chat(source, messages, seed=0, sampling=_SAMPLING, silence_seconds=SILENCE_SECONDS)
    drafted = read_draft("".join(piece.text for piece in pieces), item.scenario)
    if not drafted:
        raise DomainError(
            gettext("The model’s draft could not be read. Write the checklist yourself, or ask another.")
        )
    return drafted


def read_draft(text: str, scenario: Scenario) -> list[tuple[str, float | None]]:
    """What of a model's text can be used: entries of a JSON list, else its numbered or dashed lines."""
    lines = _listed(text) or [
        (hit[1].strip(), None) for hit in re.finditer(r"^\s*(?:[-*•]|\d+[.)、])\s*(.{4,300})$", text, re.MULTILINE)
    ]
    found = dict(lines[:MAX_DRAFTED])
    if scenario == Scenario.RESPONSE_MAINTENANCE:
        return [(criterion, None) for criterion in found]
    # Models also give points; what they leave out is worth an even share.
    given = [weight for weight in found.values() if weight and 0 < weight <= MAX_POINTS]
    even = sum(given) / len(given) if given else 1.0
    weights = [weight if weight and 0 < weight <= MAX_POINTS else even for weight in found.values()]
    total = sum(weights)
    scaled = [round(weight / total, 2) for weight in weights]
    if scaled:
        scaled[0] = round(scaled[0] + 1 - sum(scaled), 2)
    return list(zip(found, scaled, strict=True))


def _listed(text: str) -> list[tuple[str, float | None]]:
    start, end = text.find("["), text.rfind("]")
    try:
        value = json.loads(text[start : end + 1], strict=False)
    except (ValueError, RecursionError):
        return []
    found: list[tuple[str, float | None]] = []
    for entry in value if isinstance(value, list) else []:
        criterion, weight = entry if isinstance(entry, list) and len(entry) == 2 else (entry, None)
        if isinstance(criterion, str) and criterion.strip():
            share = float(weight) if isinstance(weight, int | float) and not isinstance(weight, bool) else None
            found.append((criterion.strip()[:1000].replace("\0", ""), share))
    return found
