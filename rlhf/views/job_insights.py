"""What a training process showed of itself, as the tabs of a job's page read it."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from rlhf.alarms import ON_POLICY
from rlhf.models import InsightKind, TrainingJob


def samples_tab(job: TrainingJob, request: HttpRequest) -> dict[str, Any]:
    """The fixed prompts as they were answered at step 0 and at the step that was asked for, the newest by default."""
    steps = list(job.insights.filter(kind=InsightKind.SAMPLES).order_by("step").values_list("step", flat=True))
    asked = request.GET.get("step", "")
    step = int(asked) if asked.isdecimal() and int(asked) in steps else (steps[-1] if steps else None)
    by_step = {row.step: row.values for row in job.insights.filter(kind=InsightKind.SAMPLES, step__in={0, step or 0})}
    first, now = by_step.get(0, {}).get("rows", []), by_step.get(step, {}).get("rows", []) if step is not None else []
    before = {_key(row): row for row in first}
    return {
        "steps": steps,
        "sample_step": step,
        "samples": [(row, before.get(_key(row)) if step else None) for row in now],
        "sample_seconds": by_step.get(step, {}).get("seconds") if step is not None else None,
        "is_scored": bool(now) and "scores" in now[0],
        "asked_for": job.options.get("sample_prompts", 0),
    }


def _key(row: dict[str, Any]) -> str:
    return repr([row.get("prompt"), row.get("chosen")])


def batch_tab(job: TrainingJob) -> dict[str, Any]:
    shown = job.insights.filter(kind=InsightKind.FIRST_BATCH).order_by("step").first()
    return {"batch": shown.values if shown else None}


def extremes_tab(job: TrainingJob) -> dict[str, Any]:
    """The best and worst held-out rows at the last step at which they were sought."""
    shown = job.insights.filter(kind=InsightKind.EXTREMES, values__has_key="worst").order_by("-step").first()
    return {
        "extremes": shown.values if shown else None,
        "extremes_step": shown.step if shown else None,
        "is_on_policy": job.method in ON_POLICY,
        "asked_for": job.options.get("sample_prompts", 0),
    }
