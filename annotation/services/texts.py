"""Prompts, responses and the comparisons made of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from django.db import connection, transaction
from django.db.models import Max
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation.errors import DomainError
from annotation.models import (
    Annotator,
    Comparison,
    FurtherResponse,
    Project,
    Prompt,
    Response,
    ResponseSource,
    SourceKind,
)
from annotation.services.places import comparison_of

MOST_RANKED = 9


def content_sha256(value: Any) -> str:
    """The sha256 of a text, or of messages in their canonical JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def add_prompt(project: Project, messages: list[dict[str, str]], *, task: str = "", lang: str = "en") -> Prompt:
    """Add a prompt, or give the one with the same messages."""
    sha256 = content_sha256(messages)
    prompt, _made = Prompt.objects.get_or_create(
        project=project,
        content_sha256=sha256,
        group=f"prompt-{sha256[:16]}",
        defaults={"messages": messages, "task": task, "lang": lang},
    )
    return prompt


def add_prompts(project: Project, prompts: Iterable[dict[str, Any]]) -> int:
    """Add many prompts at once, all or none; gives how many are new. Each is what `insert_prompts` takes."""
    remaining = iter(prompts)
    added = 0
    with transaction.atomic():
        while chunk := list(islice(remaining, 1000)):
            added += insert_prompts(project, chunk)
    return added


_INSERT_PROMPTS = """
INSERT INTO annotation_prompt (project_id, messages, "group", task, lang, skill, topic, tags, content_sha256,
                               created_at)
SELECT %s, messages, "group", task, lang, skill, topic, tags, content_sha256, %s
FROM jsonb_to_recordset(%s) AS given(
    messages jsonb, "group" text, task text, lang text, skill text, topic text, tags varchar[], content_sha256 text
)
ON CONFLICT (project_id, content_sha256, "group") DO NOTHING
"""


def insert_prompts(project: Project, prompts: list[dict[str, Any]]) -> int:
    """Add prompts in one statement; gives how many are new. Each: messages, and task, lang, skill, topic, tags and
    group where known."""
    rows = []
    for prompt in prompts:
        sha256 = content_sha256(prompt["messages"])
        rows.append(
            {"task": "", "lang": "", "skill": "", "topic": "", "tags": []}
            | prompt
            | {"group": prompt.get("group") or f"prompt-{sha256[:16]}", "content_sha256": sha256}
        )
    with connection.cursor() as cursor:
        cursor.execute(_INSERT_PROMPTS, [project.pk, timezone.now(), json.dumps(rows, ensure_ascii=False)])
        return cursor.rowcount


def add_response(
    prompt: Prompt,
    source: ResponseSource,
    sample_index: int,
    text: str,
    *,
    seed: int | None,
    sampling: dict[str, Any],
    template_sha256: str,
    finish_reason: str,
) -> Response:
    """Store a sampled response; the one already stored under this sample index stays."""
    response, _made = Response.objects.get_or_create(
        prompt=prompt,
        source=source,
        sample_index=sample_index,
        defaults={
            "text": text,
            "text_sha256": content_sha256(text),
            "seed": seed,
            "sampling": sampling,
            "template_sha256": template_sha256,
            "finish_reason": finish_reason,
        },
    )
    return response


def add_written_response(prompt_id: int, project: Project, text: str, *, author: Annotator) -> Response:
    """Store what somebody here wrote or edited; the same text by the same person for the same prompt is one response.

    Call it inside a transaction, before anything that locks a comparison: it locks the prompt, so that two people who
    write for it at once get sample indexes of their own.
    """
    source, _made = ResponseSource.objects.get_or_create(
        name=f"people: {project.slug}", defaults={"kind": SourceKind.PERSON}
    )
    Prompt.objects.select_for_update(no_key=True).get(pk=prompt_id)
    sha256 = content_sha256(text)
    written = Response.objects.filter(prompt=prompt_id, source=source)
    same = written.filter(author=author, text_sha256=sha256).first()
    if same:
        return same
    newest = written.aggregate(newest=Max("sample_index"))["newest"]
    return Response.objects.create(
        prompt_id=prompt_id,
        source=source,
        author=author,
        sample_index=0 if newest is None else newest + 1,
        text=text,
        text_sha256=sha256,
    )


def create_comparisons(
    project: Project, pairs: Iterable[tuple[Response, Response]], *, sampling_probability: float | None = None
) -> int:
    """Put pairs of responses before the annotators; gives how many are new.

    sampling_probability: with which the two sources were drawn; ratings weigh their votes by its inverse.

    Pairs that read the same (equal texts) are left out: there is nothing to judge. Raises DomainError where the two
    answer different prompts, because such a judgment would mean nothing.
    """
    groups = [group for group in _differing(pairs) if len(group) == 2]
    prompts = _prompts_of(groups)
    rows = [comparison_of(project, prompts[group[0].prompt_id], group) for group in groups]
    for row in rows:
        row.sampling_probability = sampling_probability
    with transaction.atomic():
        before = Comparison.objects.filter(project=project).count()
        Comparison.objects.bulk_create(rows, ignore_conflicts=True, batch_size=1000)
        return Comparison.objects.filter(project=project).count() - before


def pairs_for_judge(project: Project, pairs: Iterable[tuple[Response, Response]]) -> list[int]:
    """The comparisons of these pairs, by id, for a model to judge: new ones are withdrawn, so that nobody gets them.

    Pairs that read the same are left out. A study that asks about such a pair brings its comparison back.
    """
    groups = {frozenset(response.pk for response in group): group for group in _differing(pairs) if len(group) == 2}
    prompts = _prompts_of(groups.values())
    with transaction.atomic():
        known = comparisons_between(project, groups)
        rows = [
            comparison_of(project, prompts[group[0].prompt_id], group)
            for key, group in groups.items()
            if key not in known
        ]
        for row in rows:
            row.is_withdrawn, row.withdrawn_with_prompt, row.required_count = True, False, 0
        Comparison.objects.bulk_create(rows, ignore_conflicts=True, batch_size=1000)
        return sorted(comparison.pk for comparison in comparisons_between(project, groups).values())


def comparisons_between(
    project: Project, pairs: Mapping[frozenset[int], Sequence[Response]]
) -> dict[frozenset[int], Comparison]:
    """Those that a project has of two responses, by their ids, whichever comes first; no gold ones, no turns."""
    of = {group[0].prompt_id for group in pairs.values()}
    found = Comparison.objects.filter(project=project, prompt__in=of, response_count=2, is_gold=False, turn=None)
    known = {frozenset((comparison.response_a_id, comparison.response_b_id)): comparison for comparison in found}
    return {key: comparison for key, comparison in known.items() if key in pairs}


def create_rankings(project: Project, groups: Iterable[Sequence[Response]]) -> int:
    """Put groups of three to nine responses before the annotators, to be ranked; gives how many are new.

    Of responses that read the same only the first is kept; a group of which fewer than three are left is left out, and
    so is one that the project has already. Raises DomainError where a group is too large or answers different prompts.
    """
    kept = {}
    for group in _differing(groups):
        if len(group) > MOST_RANKED:
            raise DomainError(
                _("%(count)s responses cannot be ranked at once; the most is %(most)s.")
                % {"count": len(group), "most": MOST_RANKED}
            )
        if len(group) > 2:
            kept[f"ranking-{content_sha256(sorted(response.pk for response in group))[:32]}"] = group
    prompts = _prompts_of(kept.values())
    with transaction.atomic():
        known = Comparison.objects.filter(project=project, external_id__in=kept).values_list("external_id", flat=True)
        rows = [
            comparison_of(project, prompts[group[0].prompt_id], group, external_id=external_id)
            for external_id, group in kept.items()
            if external_id not in set(known)
        ]
        Comparison.objects.bulk_create(rows, batch_size=1000)
        FurtherResponse.objects.bulk_create(
            [
                FurtherResponse(comparison=row, position=position, response=response)
                for row in rows
                for position, response in enumerate(kept[row.external_id][2:], 2)
            ],
            batch_size=1000,
        )
    return len(rows)


def _differing(groups: Iterable[Sequence[Response]]) -> list[list[Response]]:
    """Each group without responses that read like one before; raises DomainError where prompts differ."""
    kept = []
    for group in groups:
        for response in group:
            if response.prompt_id != group[0].prompt_id:
                raise DomainError(
                    _("Responses %(a)s and %(b)s answer different prompts and cannot be compared.")
                    % {"a": group[0].pk, "b": response.pk}
                )
        by_text: dict[str, Response] = {}
        for response in group:
            by_text.setdefault(response.text.strip(), response)
        kept.append(list(by_text.values()))
    return kept


def _prompts_of(groups: Iterable[Sequence[Response]]) -> dict[int, Prompt]:
    """By id, with what their comparisons copy."""
    ids = {group[0].prompt_id for group in groups}
    return Prompt.objects.only("lang", "skill", "topic", "archived_at").in_bulk(ids)
