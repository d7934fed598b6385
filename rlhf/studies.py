"""Which prompts a human evaluation asks about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db.models import Exists, OuterRef, QuerySet

from annotation.models import Project, Prompt, Response, ResponseSource, Study, StudyItem
from rlhf.models import Checkpoint, DatasetSnapshot
from rlhf.snapshots import snapshot_rows


def chosen_prompts(
    project: Project, selection: Mapping[str, Any], sources: Sequence[ResponseSource]
) -> QuerySet[Prompt]:
    """The prompts of a selection {"task", "tag", "held_out", "at_most", "prompts"}, whether they are answered or not.

    held_out leaves out every group of prompts that one of the sources, or a model that it came from, was trained on.
    """
    prompts = Prompt.objects.filter(project=project, archived_at=None)
    if "prompts" in selection:
        prompts = prompts.filter(pk__in=selection["prompts"])
    if selection.get("task"):
        prompts = prompts.filter(task=selection["task"])
    if selection.get("tag"):
        prompts = prompts.filter(tags__contains=[selection["tag"]])
    if selection.get("held_out"):
        prompts = prompts.exclude(group__in=trained_groups(sources))
    return prompts


def prompts_to_add(
    project: Project,
    selection: Mapping[str, Any],
    sources: Sequence[ResponseSource],
    *,
    study: Study | None = None,
) -> QuerySet[Prompt]:
    """Those of the chosen prompts that all sources answered; at most as many as are still wanted.

    Which ones these are does not depend on when they were written: they come in the order of their hashes.
    """
    prompts = answered(chosen_prompts(project, selection, sources), sources).order_by("content_sha256", "pk")
    if study is not None:
        prompts = prompts.exclude(pk__in=prompts_of(study))
    if selection.get("at_most"):
        there = len(prompts_of(study)) if study else 0
        prompts = prompts[: max(0, int(selection["at_most"]) - there)]
    return prompts


def answered(prompts: QuerySet[Prompt], sources: Sequence[ResponseSource]) -> QuerySet[Prompt]:
    """Those to which each of the sources wrote a response."""
    for source in sources:
        prompts = prompts.filter(Exists(Response.objects.filter(prompt=OuterRef("pk"), source=source)))
    return prompts


def prompts_of(study: Study) -> set[int]:
    """The ids of the prompts that a study asks about already."""
    pairs = StudyItem.objects.filter(study=study).values_list("comparison__prompt", "response__prompt")
    return {pair or single for pair, single in pairs}


def trained_groups(sources: Sequence[ResponseSource]) -> set[str]:
    """The groups of prompts that checkpoints of these sources, and what they came from, were trained on."""
    waiting = list(Checkpoint.objects.filter(source__in=sources))
    seen: set[int] = set()
    snapshots: set[int] = set()
    while waiting:
        checkpoint = waiting.pop()
        if checkpoint.pk in seen:
            continue
        seen.add(checkpoint.pk)
        if checkpoint.parent:
            waiting.append(checkpoint.parent)
        if job := checkpoint.made_by:
            if job.snapshot_id:
                snapshots.add(job.snapshot_id)
            waiting += [merged.checkpoint for merged in job.merge_inputs.select_related("checkpoint")]
    return {
        row["group"]
        for snapshot in DatasetSnapshot.objects.filter(pk__in=snapshots)
        for row in snapshot_rows(snapshot, "train")
        if row.get("group")
    }
