"""The project's own format: a prompt a line, its responses, and what every person said of them (docs/data.md)."""

from __future__ import annotations

import json
from typing import Any

from annotation.importers.rows import (
    MAX_NAME_LENGTH,
    MAX_RESPONSES,
    Messages,
    Row,
    Score,
    Side,
    UnusableRowError,
    UnusableVerdictError,
    Verdict,
    checked_messages,
    checked_name,
    checked_tags,
    checked_text,
    said_by_user,
    verdict_of_ranks,
)
from annotation.models import Preference

COLUMNS = '"responses", with "prompt" or "messages"'
ROW_KEYS = frozenset({"id", "group", "lang", "tags", "prompt", "messages", "responses", "annotations", "meta"})
_EXTRAS = ("ratings", "axes", "chips")
VERDICT_KEYS = frozenset(
    {"annotator", "human", "preferred_index", "tie", "neither", "strength", "ranking", "rationale", *_EXTRAS}
)
_FITS = {
    Preference.A: range(-4, 0),
    Preference.B: range(1, 5),
    Preference.TIE: range(1),
    Preference.NEITHER: range(0),
    Preference.RANKED: range(0),
}
# Most votes hold nothing else, and are read without all the checks that need not be made.
_BARE_VOTE = {"annotator", "human", "preferred_index"}
_BARE_PREFERENCES = (Preference.A.value, Preference.B.value)
_RESPONSE_FIELDS = [
    [f"responses[{number}].{key}" for key in ("model", "text", "messages")] for number in range(MAX_RESPONSES)
]


def recognises(record: dict[str, Any]) -> bool:
    return isinstance(record.get("responses"), list) and ("prompt" in record or "messages" in record)


def parse(record: dict[str, Any]) -> Row:
    responses = record.get("responses")
    if not isinstance(responses, list) or not responses:
        raise UnusableRowError('"responses" is not a list of responses')
    if len(responses) > MAX_RESPONSES:
        raise UnusableRowError(f"it holds {len(responses)} responses: at most {MAX_RESPONSES} can be ranked")
    messages = record.get("messages")
    if messages is None:
        messages = said_by_user(checked_text(record.get("prompt"), "prompt"))
    else:
        messages = checked_messages(messages, "messages")
    annotations = record.get("annotations", [])
    if not isinstance(annotations, list):
        raise UnusableRowError('"annotations" is not a list')
    if len(responses) == 1 and not annotations:
        raise UnusableRowError("it holds one response and no annotation: there is neither a comparison nor a rating")
    meta = record.get("meta") or {}
    if not isinstance(meta, dict):
        raise UnusableRowError('"meta" is not an object')
    if not record.keys() <= ROW_KEYS:
        meta = _others(record, ROW_KEYS) | meta
    probability = meta.get("sampling_probability")
    if probability is not None and not (
        isinstance(probability, int | float) and not isinstance(probability, bool) and 0 < probability <= 1
    ):
        raise UnusableRowError('"sampling_probability" is not a number above 0 and at most 1')
    origin = checked_name(record.get("source"), "source") or "touchstone"
    row = Row(
        messages,
        [_side(response, number, messages, origin) for number, response in enumerate(responses)],
        external_id=checked_name(record.get("id"), "id"),
        group=checked_name(record.get("group"), "group"),
        lang=checked_name(record.get("lang"), "lang", longest=20),
        tags=checked_tags(record.get("tags"), "tags"),
        meta=meta,
        sampling_probability=probability,
    )
    _add_annotations(row, annotations)
    return row


def _side(response: Any, number: int, messages: Messages, origin: str) -> Side:
    if not isinstance(response, dict):
        raise UnusableRowError(f'"responses[{number}]" is not an object')
    model_field, text_field, messages_field = _RESPONSE_FIELDS[number]
    own = response.get("messages")
    if own is not None:
        own = checked_messages(own, messages_field)
        own = None if own == messages else own
    model = checked_name(response.get("model"), model_field) or f"unknown ({origin})"
    return Side(model, checked_text(response.get("text"), text_field), own)


def _add_annotations(row: Row, annotations: list[Any]) -> None:
    """Put each usable annotation into the row's verdicts, or scores where there is one response."""
    seen: set[tuple[str, str]] = set()
    for number, annotation in enumerate(annotations, 1):
        name = f"annotation {number}"
        try:
            name, is_human = _person(annotation)
            said: Score | Verdict
            if len(row.sides) == 1:
                said = _score(annotation, name, is_human)
                key, twice = (name, said.aspect), "rated this response twice; the first rating is kept"
            else:
                said = _verdict(annotation, name, is_human, len(row.sides))
                key, twice = (name, ""), "voted twice on this comparison; the first vote is kept"
            if key in seen:
                raise UnusableVerdictError(twice)
            seen.add(key)
            if isinstance(said, Score):
                row.scores.append(said)
            else:
                row.verdicts.append(said)
        except UnusableVerdictError as error:
            row.skipped.append((name, str(error)))


def _person(annotation: Any) -> tuple[str, bool]:
    """(name, is human)"""
    if not isinstance(annotation, dict):
        raise UnusableVerdictError("is not an object")
    name = annotation.get("annotator")
    if not isinstance(name, str) or not name.strip() or len(name) > MAX_NAME_LENGTH:
        raise UnusableVerdictError(f'"annotator" is not a name of 1 to {MAX_NAME_LENGTH} characters')
    is_human = annotation.get("human")
    if not isinstance(is_human, bool):
        raise UnusableVerdictError('"human" is not true or false')
    return name.strip(), is_human


def _note(annotation: dict[str, Any]) -> str:
    note = annotation.get("rationale")
    if note is not None and not isinstance(note, str):
        raise UnusableVerdictError('"rationale" is not text')
    return note or ""


def _score(annotation: dict[str, Any], name: str, is_human: bool) -> Score:
    label, aspect = annotation.get("label"), annotation.get("aspect", "overall")
    if not isinstance(aspect, str) or not 1 <= len(aspect) <= 60:
        raise UnusableVerdictError('"aspect" is not a name of 1 to 60 characters')
    note = _note(annotation)
    if isinstance(label, bool):
        label = "true" if label else "false"
    if isinstance(label, int | float) and abs(label) < 1e15:
        return Score(name, is_human, value=float(label), aspect=aspect, note=note)
    if not isinstance(label, str) or not 1 <= len(label) <= 200:
        raise UnusableVerdictError('"label" is not a number, nor text of 1 to 200 characters')
    return Score(name, is_human, label=label, aspect=aspect, note=note)


def _verdict(annotation: dict[str, Any], name: str, is_human: bool, count: int) -> Verdict:
    index = annotation.get("preferred_index")
    if count == 2 and annotation.keys() == _BARE_VOTE and type(index) is int and 0 <= index <= 1:
        return Verdict(name, is_human, _BARE_PREFERENCES[index])
    preference, ranking = _preference(annotation, count)
    strength = annotation.get("strength")
    if strength is not None and (type(strength) is not int or strength not in _FITS[preference]):
        raise UnusableVerdictError(
            f'"strength" is {str(strength)[:40]}, which does not fit the verdict: it runs from -4 (the first response'
            " is much better) over 0 (a tie) to 4 (the second is much better)"
        )
    note = _note(annotation)
    verdict = Verdict(name, is_human, preference, strength, ranking, note, _others(annotation, VERDICT_KEYS))
    if not annotation.keys().isdisjoint(_EXTRAS):
        verdict.ratings, verdict.axes, verdict.chips = _extras(annotation, count)
    return verdict


def _extras(annotation: dict[str, Any], count: int) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """(ratings, axes, chips), as a judgment holds them."""
    ratings, axes, chips = (annotation.get(key) for key in _EXTRAS)
    for name, points in _named("ratings", ratings):
        if not isinstance(points, list) or len(points) != count or not all(map(_is_score, points)):
            raise UnusableVerdictError(f'"ratings" of {name[:40]} are not {count} numbers or nulls')
    for name, strength in _named("axes", axes):
        if type(strength) is not int or not -4 <= strength <= 4:
            raise UnusableVerdictError(f'"axes" of {name[:40]} is not a whole number from -4 to 4')
    chips = chips or []
    if not isinstance(chips, list) or not all(isinstance(chip, str) and len(chip) <= 60 for chip in chips):
        raise UnusableVerdictError('"chips" is not a list of texts of at most 60 characters')
    return ratings or {}, axes or {}, chips


def _named(key: str, value: Any) -> list[tuple[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, dict) or any(not 1 <= len(name) <= 60 for name in value):
        raise UnusableVerdictError(f'"{key}" is not an object with names of 1 to 60 characters')
    return list(value.items())


def _is_score(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15)


def _preference(annotation: dict[str, Any], count: int) -> tuple[Preference, list[int] | None]:
    """(preference, ranking) among `count` responses."""
    get = annotation.get
    index, tie, neither, ranks = get("preferred_index"), get("tie"), get("neither"), get("ranking")
    for key, value in (("tie", tie), ("neither", neither)):
        if value is not None and not isinstance(value, bool):
            raise UnusableVerdictError(f'"{key}" is not true or false')
    if count > 2 and neither and ranks is None:
        return Preference.NEITHER, None
    if count > 2 or ranks is not None:
        if (
            not isinstance(ranks, list)
            or len(ranks) != count
            or any(type(rank) is not int or not 1 <= rank <= MAX_RESPONSES for rank in ranks)
        ):
            raise UnusableVerdictError(
                f'"ranking" is {json.dumps(ranks)[:40]}, not {count} ranks from 1, the best, to {MAX_RESPONSES}'
            )
        return verdict_of_ranks(ranks)
    if index is not None and (type(index) is not int or index not in (0, 1)):
        raise UnusableVerdictError('"preferred_index" is not 0, 1 or null')
    count_given = (index is not None) + bool(tie) + bool(neither)
    if count_given != 1:
        said = "more than one verdict" if count_given else "no verdict"
        raise UnusableVerdictError(f'"preferred_index" and "tie" give {said}')
    if index is None:
        return (Preference.TIE if tie else Preference.NEITHER), None
    return (Preference.B if index else Preference.A), None


def _others(value: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    return {} if value.keys() <= known else {key: value[key] for key in value if key not in known}
