"""Personal data in prompts and responses: how much there is, and taking it out of the texts for good.

Where people judged a text before it was masked, the hash of what they judged is kept beside the masked text, so that
the judgment can still be held against a copy of the original; the original itself is gone. What stands beside prompts
and responses and may repeat them, as a turn's feedback, people's notes and what imported rows had besides (`meta`), is
masked with them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db import connection, models, transaction
from django.utils.translation import gettext as _

from annotation.errors import DomainError
from annotation.models import (
    Adjudication,
    Comparison,
    DataJob,
    DataJobKind,
    ErrorSpan,
    EventKind,
    Flag,
    Gold,
    Judgment,
    Project,
    Prompt,
    Rating,
    Response,
    RubricRating,
    Turn,
    TurnSide,
)
from annotation.personal_data import STANDS_FOR, Finding, PersonalKind, find_personal_data, mask_text, moved
from annotation.services.browse_index import refresh_browse_index
from annotation.services.data_jobs import Progress, start_data_job
from annotation.services.journal import record_event
from annotation.services.texts import content_sha256

AT_ONCE_UP_TO = 500  # prompts that are looked through while the page waits
CHUNK_PROMPTS = 200
SAMPLES = 6  # of each kind

Messages = list[dict[str, str]]

_NOTES: tuple[tuple[type[models.Model], str, str], ...] = (
    (Turn, "feedback", "prompt"),
    (TurnSide, "text", "turn__prompt"),
    (Judgment, "note", "comparison__prompt"),
    (ErrorSpan, "note", "response__prompt"),
    (Rating, "note", "response__prompt"),
    (RubricRating, "note", "item__response__prompt"),
    (Adjudication, "note", "comparison__prompt"),
    (Flag, "note", "comparison__prompt"),
    (Gold, "reason", "comparison__prompt"),
)
"""What people, or models that broke off, said of a prompt and its responses: table, column, the way to the prompt."""
_META: tuple[tuple[type[models.Model], str, str], ...] = (
    (Comparison, "meta", "prompt"),
    (Judgment, "meta", "comparison__prompt"),
)
"""What imported rows brought along as JSON, in the same way."""


def start_scan(project: Project, *, user: User) -> DataJob:
    """Count what is there and change nothing."""
    return start_data_job(project, DataJobKind.SCAN, {}, user=user, at_once=_is_small(project))


def start_masking(project: Project, kinds: list[str], *, user: User) -> DataJob:
    """Replace every finding of these kinds. Raises DomainError where none is chosen."""
    if not kinds:
        raise DomainError(_("Choose at least one kind of personal data. Nothing was changed."))
    return start_data_job(project, DataJobKind.MASK, {"kinds": kinds}, user=user, at_once=_is_small(project))


def _is_small(project: Project) -> bool:
    return Prompt.objects.filter(project=project)[: AT_ONCE_UP_TO + 1].count() <= AT_ONCE_UP_TO


@dataclass(frozen=True)
class _Place:
    """A text: `path` says where in its row, empty for a response's own text, otherwise the index of a message."""

    model: type[Prompt] | type[Response]
    row: Any
    path: tuple[int, ...]
    text: str
    findings: list[Finding]


def _chunks(project: Project, progress: Progress, *, lock: bool) -> Iterator[tuple[list[Prompt], list[Response]]]:
    """Prompts in order with all their responses. lock: call inside a transaction that ends before the next chunk."""
    after, done = 0, 0
    progress.total = Prompt.objects.filter(project=project).count()
    while True:
        prompts = Prompt.objects.filter(project=project, pk__gt=after).order_by("pk")
        if lock:
            prompts = prompts.select_for_update(no_key=True)
        chunk = list(prompts[:CHUNK_PROMPTS])
        if not chunk:
            return
        responses = Response.objects.filter(prompt__in=[prompt.pk for prompt in chunk]).order_by("pk")
        if lock:
            responses = responses.select_for_update(no_key=True)
        yield chunk, list(responses)
        after = chunk[-1].pk
        done += len(chunk)
        progress.at(done)


def _places(prompts: list[Prompt], responses: list[Response], kinds: set[str]) -> Iterator[_Place]:
    """Every text that holds something of these kinds."""
    langs = {prompt.pk: prompt.lang for prompt in prompts}
    texts: list[tuple[Any, tuple[int, ...], str, str]] = []
    for prompt in prompts:
        texts += [(prompt, (index,), message["content"], prompt.lang) for index, message in enumerate(prompt.messages)]
    for response in responses:
        lang = langs[response.prompt_id]
        texts.append((response, (), response.text, lang))
        texts += [
            (response, (index,), message["content"], lang) for index, message in enumerate(response.messages or [])
        ]
    for row, path, text, lang in texts:
        findings = [finding for finding in find_personal_data(text, lang) if finding.kind in kinds]
        if findings:
            yield _Place(type(row), row, path, text, findings)


@dataclass(frozen=True)
class _Note:
    """Something of _NOTES or _META that holds something: as it stands, and masked."""

    model: type[models.Model]
    field: str
    pk: int
    before: Any
    after: Any
    findings: list[Finding]


def _notes(prompts: list[Prompt], kinds: set[str]) -> Iterator[_Note]:
    langs = {prompt.pk: prompt.lang for prompt in prompts}
    for model, field, prompt, empty in (*((*note, "") for note in _NOTES), *((*meta, {}) for meta in _META)):
        said = model._default_manager.filter(**{f"{prompt}__in": list(langs)}).exclude(**{field: empty})
        for pk, prompt_id, before in said.values_list("pk", prompt, field):
            findings: list[Finding] = []
            after = _masked(before, langs[prompt_id], kinds, findings)
            if findings:
                yield _Note(model, field, pk, before, after, findings)


def _masked(value: Any, lang: str, kinds: set[str], findings: list[Finding]) -> Any:
    """A text, or JSON with all the texts in it, masked; adds what was found to `findings`."""
    if isinstance(value, str):
        found = [finding for finding in find_personal_data(value, lang) if finding.kind in kinds]
        findings += found
        return mask_text(value, found)
    if isinstance(value, list):
        return [_masked(part, lang, kinds, findings) for part in value]
    if isinstance(value, dict):
        masked: dict[str, Any] = {}
        for name, part in value.items():
            name = stem = _masked(name, lang, kinds, findings)
            number = 1
            while name in masked:  # two names that differed only in what is masked
                name, number = f"{stem} {number + 1}", number + 1
            masked[name] = _masked(part, lang, kinds, findings)
        return masked
    return value


def count_personal_data(job: DataJob, progress: Progress) -> dict[str, Any]:
    """Do a queued scan. The result names places, never what stands there: after masking, nothing of it is left."""
    hits: Counter[str] = Counter()
    touched: dict[str, set[int]] = {"prompt": set(), "response": set()}
    notes = 0
    samples: dict[str, list[list[Any]]] = {kind: [] for kind in PersonalKind.values}
    for prompts, responses in _chunks(job.project, progress, lock=False):
        for place in _places(prompts, responses, set(PersonalKind.values)):
            name = place.model.__name__.lower()
            touched[name].add(place.row.pk)
            for finding in place.findings:
                hits[finding.kind.value] += 1
                if len(samples[finding.kind]) < SAMPLES:
                    samples[finding.kind].append([name, place.row.pk, list(place.path), finding.start, finding.end])
        for note in _notes(prompts, set(PersonalKind.values)):
            notes += 1
            hits.update(finding.kind.value for finding in note.findings)
    return {
        "hits": hits,
        "prompts": len(touched["prompt"]),
        "responses": len(touched["response"]),
        "notes": notes,
        "samples": {kind: places for kind, places in samples.items() if places},
    }


def mask_personal_data(job: DataJob, progress: Progress) -> dict[str, Any]:
    """Do a queued masking, chunk by chunk, each with its own entry in the journal."""
    kinds = set(job.params["kinds"])
    total: Counter[str] = Counter()
    chunks = _chunks(job.project, progress, lock=True)
    while True:
        with transaction.atomic():
            try:
                prompts, responses = next(chunks)
            except StopIteration:
                break
            counts = _mask_chunk(job.project, list(_places(prompts, responses, kinds)))
            _tell(job, counts)
        total.update(counts)
        # Outside the transaction above: whoever saves a vote or a turn locks these rows before their prompt.
        counts = _mask_notes(prompts, kinds)
        _tell(job, counts)
        total.update(counts)
    refresh_browse_index(seconds=3)
    return dict(total)


def _tell(job: DataJob, counts: Counter[str]) -> None:
    if counts:
        said: dict[str, Any] = {"what": "masking", "job": job.pk} | dict(counts)
        record_event(EventKind.EDIT, project=job.project, user=job.created_by, **said)


def _mask_notes(prompts: list[Prompt], kinds: set[str]) -> Counter[str]:
    """Each in a statement of its own, which leaves alone what was written anew meanwhile."""
    counts: Counter[str] = Counter()
    for note in _notes(prompts, kinds):
        unchanged = note.model._default_manager.filter(**{"pk": note.pk, note.field: note.before})
        if unchanged.update(**{note.field: note.after}):
            counts["notes"] += 1
            counts.update(finding.kind.value for finding in note.findings)
    return counts


def _mask_chunk(project: Project, places: list[_Place]) -> Counter[str]:
    counts: Counter[str] = Counter()
    rows: dict[tuple[str, int], Any] = {}
    judged = {
        Prompt: _judged(_JUDGED_PROMPTS, [place.row.pk for place in places if place.model is Prompt]),
        Response: _judged(_JUDGED_RESPONSES, [place.row.pk for place in places if place.model is Response]),
    }
    for place in places:
        row = place.row
        rows[place.model.__name__, row.pk] = row
        masked = mask_text(place.text, place.findings)
        if place.path:
            row.messages = [
                message | {"content": masked} if index == place.path[0] else message
                for index, message in enumerate(row.messages)
            ]
        else:
            row.text = masked
            _move_spans(row, place.findings)
        for finding in place.findings:
            counts[finding.kind.value] += 1
    for row in rows.values():
        _store(project, row, row.pk in judged[type(row)], counts)
    return counts


def _store(project: Project, row: Prompt | Response, is_judged: bool, counts: Counter[str]) -> None:
    if isinstance(row, Prompt):
        counts["prompts"] += 1
        before, row.content_sha256 = row.content_sha256, _free_sha256(project, row)
        fields = ["messages", "content_sha256", "original_sha256"]
    else:
        counts["responses"] += 1
        before, row.text_sha256 = row.text_sha256, content_sha256(row.text)
        fields = ["text", "messages", "text_sha256", "original_sha256"]
    if is_judged:
        counts["judged_before"] += 1
        # Masked twice: what was judged is what was there first.
        row.original_sha256 = row.original_sha256 or before
    row.save(update_fields=fields)


def _free_sha256(project: Project, prompt: Prompt) -> str:
    """The hash of the masked messages. Two prompts of a group that differed only in what is masked would be one: the
    second one's mask gets a number."""
    others = Prompt.objects.filter(project=project, group=prompt.group).exclude(pk=prompt.pk)
    original = prompt.messages
    number = 1
    while others.filter(content_sha256=(sha256 := content_sha256(prompt.messages))).exists():
        number += 1
        prompt.messages = _numbered(original, number)
    return sha256


def _numbered(messages: Messages, number: int) -> Messages:
    text = json.dumps(messages, ensure_ascii=False)
    first = min((mask for mask in STANDS_FOR.values() if mask in text), key=text.index)
    return json.loads(text.replace(first, f"{first[:-1]} {number}]", 1))


def _move_spans(response: Response, findings: list[Finding]) -> None:
    """Passages that were marked as wrong still lie on the same words."""
    for span in ErrorSpan.objects.filter(response=response):
        start, end = moved(span.start, span.end, findings)
        ErrorSpan.objects.filter(pk=span.pk).update(start=start, end=end)


_JUDGED_RESPONSES = """
SELECT r.id FROM annotation_response r
WHERE r.id = ANY(%s) AND (
    EXISTS (SELECT FROM annotation_rating t WHERE t.response_id = r.id)
    OR EXISTS (
        SELECT FROM annotation_comparison c JOIN annotation_judgment j ON j.comparison_id = c.id
        WHERE c.prompt_id = r.prompt_id
          AND (r.id IN (c.response_a_id, c.response_b_id)
               OR EXISTS (SELECT FROM annotation_furtherresponse f
                          WHERE f.comparison_id = c.id AND f.response_id = r.id))
    )
)
"""
_JUDGED_PROMPTS = """
SELECT p.id FROM annotation_prompt p
WHERE p.id = ANY(%s) AND (
    EXISTS (SELECT FROM annotation_response r JOIN annotation_rating t ON t.response_id = r.id
            WHERE r.prompt_id = p.id)
    OR EXISTS (SELECT FROM annotation_comparison c JOIN annotation_judgment j ON j.comparison_id = c.id
               WHERE c.prompt_id = p.id)
)
"""


def _judged(statement: str, ids: list[int]) -> set[int]:
    if not ids:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(statement, [ids])
        return {pk for (pk,) in cursor.fetchall()}
