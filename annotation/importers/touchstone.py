"""The project's own format: one comparison a line, with every person's verdict (docs/data.md)."""

from __future__ import annotations

from typing import Any

from annotation.importers.rows import (
    MAX_NAME_LENGTH,
    Row,
    Side,
    UnusableRowError,
    UnusableVerdictError,
    Verdict,
    checked_messages,
    checked_name,
    checked_text,
)
from annotation.models import Preference

COLUMNS = '"responses", with "prompt" or "messages"'
ROW_KEYS = {"id", "group", "lang", "prompt", "messages", "responses", "annotations", "meta"}
VERDICT_KEYS = {"annotator", "human", "preferred_index", "tie", "neither", "strength", "rationale"}


def recognises(record: dict[str, Any]) -> bool:
    return isinstance(record.get("responses"), list) and ("prompt" in record or "messages" in record)


def parse(record: dict[str, Any]) -> Row:
    responses = record.get("responses")
    if not isinstance(responses, list):
        raise UnusableRowError('"responses" is not a list')
    if len(responses) == 1:
        raise UnusableRowError("it holds one response: a rating, not a comparison")
    if len(responses) != 2:
        raise UnusableRowError(f"it holds {len(responses)} responses: only pairs can be compared so far")
    messages = record.get("messages")
    if messages is None:
        messages = [{"role": "user", "content": checked_text(record.get("prompt"), "prompt")}]
    messages = checked_messages(messages, "messages")
    annotations = record.get("annotations", [])
    if not isinstance(annotations, list):
        raise UnusableRowError('"annotations" is not a list')
    meta = record.get("meta") or {}
    if not isinstance(meta, dict):
        raise UnusableRowError('"meta" is not an object')
    lang = checked_name(record.get("lang"), "lang")
    if len(lang) > 20:
        raise UnusableRowError('"lang" is longer than 20 characters')
    origin = checked_name(record.get("source"), "source") or "touchstone"
    a, b = (_side(response, number, messages, origin) for number, response in enumerate(responses))
    verdicts, skipped = _verdicts(annotations)
    return Row(
        messages,
        a,
        b,
        verdicts,
        external_id=checked_name(record.get("id"), "id"),
        group=checked_name(record.get("group"), "group"),
        lang=lang,
        meta={key: value for key, value in record.items() if key not in ROW_KEYS} | meta,
        skipped=skipped,
    )


def _side(response: Any, number: int, messages: list[dict[str, str]], origin: str) -> Side:
    name = f"responses[{number}]"
    if not isinstance(response, dict):
        raise UnusableRowError(f'"{name}" is not an object')
    own = response.get("messages")
    if own is not None:
        own = checked_messages(own, f"{name}.messages")
    return Side(
        checked_name(response.get("model"), f"{name}.model") or f"unknown ({origin})",
        checked_text(response.get("text"), f"{name}.text"),
        None if own == messages else own,
    )


def _verdicts(annotations: list[Any]) -> tuple[list[Verdict], list[tuple[str, str]]]:
    verdicts: dict[str, Verdict] = {}
    skipped = []
    for number, annotation in enumerate(annotations, 1):
        name = f"annotation {number}"
        try:
            verdict = _verdict(annotation)
            name = verdict.annotator
            if name in verdicts:
                raise UnusableVerdictError("voted twice on this comparison; the first vote is kept")
            verdicts[name] = verdict
        except UnusableVerdictError as error:
            skipped.append((name, str(error)))
    return list(verdicts.values()), skipped


def _verdict(annotation: Any) -> Verdict:
    if not isinstance(annotation, dict):
        raise UnusableVerdictError("is not an object")
    name = annotation.get("annotator")
    if not isinstance(name, str) or not name.strip() or len(name) > MAX_NAME_LENGTH:
        raise UnusableVerdictError(f'"annotator" is not a name of 1 to {MAX_NAME_LENGTH} characters')
    is_human = annotation.get("human")
    if not isinstance(is_human, bool):
        raise UnusableVerdictError('"human" is not true or false')
    preference = _preference(annotation)
    strength = annotation.get("strength")
    fits = {"a": (-3, -2, -1), "b": (1, 2, 3), "tie": (0,), "neither": ()}[preference]
    if strength is not None and (isinstance(strength, bool) or not isinstance(strength, int) or strength not in fits):
        raise UnusableVerdictError(
            f'"strength" is {str(strength)[:40]}, which does not fit the verdict: it runs from -3 (the first response'
            " is much better) over 0 (a tie) to 3 (the second is much better)"
        )
    note = annotation.get("rationale")
    if not isinstance(note, str | None):
        raise UnusableVerdictError('"rationale" is not text')
    meta = {key: value for key, value in annotation.items() if key not in VERDICT_KEYS}
    return Verdict(name.strip(), is_human, preference, strength, note or "", meta)


def _preference(annotation: dict[str, Any]) -> str:
    index, tie, neither = (annotation.get(key) for key in ("preferred_index", "tie", "neither"))
    if isinstance(index, bool) or index not in (None, 0, 1):
        raise UnusableVerdictError('"preferred_index" is not 0, 1 or null')
    for key, value in (("tie", tie), ("neither", neither)):
        if not isinstance(value, bool | None):
            raise UnusableVerdictError(f'"{key}" is not true or false')
    verdicts = [
        preference
        for preference, is_given in (
            (Preference.A, index == 0),
            (Preference.B, index == 1),
            (Preference.TIE, tie),
            (Preference.NEITHER, neither),
        )
        if is_given
    ]
    if len(verdicts) != 1:
        said = "no verdict" if not verdicts else "more than one verdict"
        raise UnusableVerdictError(f'"preferred_index" and "tie" give {said}')
    return verdicts[0]
