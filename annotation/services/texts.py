"""Prompts, responses and the comparisons made of them."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable
from typing import Any

from django.db import transaction
from django.db.models import Max

from annotation.errors import DomainError
from annotation.models import Annotator, Comparison, Project, Prompt, Response, ResponseSource, SourceKind


def content_sha256(value: Any) -> str:
    """The sha256 of a text, or of messages in their canonical JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def add_prompt(project: Project, messages: list[dict[str, str]], *, task: str = "", lang: str = "en") -> Prompt:
    """Add a prompt, or give the one with the same messages."""
    sha256 = content_sha256(messages)
    prompt, _ = Prompt.objects.get_or_create(
        project=project,
        content_sha256=sha256,
        group=f"prompt-{sha256[:16]}",
        defaults={"messages": messages, "task": task, "lang": lang},
    )
    return prompt


def add_prompts(project: Project, prompts: Iterable[dict[str, Any]]) -> int:
    """Add many prompts at once, all or none; gives how many are new. Each: messages, and task and lang if known."""
    rows = []
    for prompt in prompts:
        sha256 = content_sha256(prompt["messages"])
        rows.append(
            Prompt(
                project=project,
                messages=prompt["messages"],
                group=f"prompt-{sha256[:16]}",
                task=prompt.get("task", ""),
                lang=prompt.get("lang", ""),
                content_sha256=sha256,
            )
        )
    with transaction.atomic():
        before = project.prompts.count()
        Prompt.objects.bulk_create(rows, ignore_conflicts=True, batch_size=1000)
        return project.prompts.count() - before


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
    response, _ = Response.objects.get_or_create(
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
    source, _ = ResponseSource.objects.get_or_create(
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


def create_comparisons(project: Project, pairs: Iterable[tuple[Response, Response]]) -> int:
    """Put pairs of responses before the annotators; gives how many are new.

    Pairs that read the same (equal texts) are left out: there is nothing to judge. Raises DomainError where the two
    answer different prompts, because such a judgment would mean nothing.
    """
    rows = []
    for a, b in pairs:
        if a.prompt_id != b.prompt_id:
            raise DomainError(f"responses {a.pk} and {b.pk} answer different prompts and cannot be compared")
        if a.text.strip() == b.text.strip():
            continue
        rows.append(
            Comparison(
                project=project,
                prompt_id=a.prompt_id,
                response_a=a,
                response_b=b,
                required_count=project.judgments_per_comparison,
                queue_key=random.random(),
            )
        )
    with transaction.atomic():
        before = Comparison.objects.filter(project=project).count()
        Comparison.objects.bulk_create(rows, ignore_conflicts=True, batch_size=1000)
        return Comparison.objects.filter(project=project).count() - before
