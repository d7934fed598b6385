"""The queue of prompts without an acceptable response: somebody edits the least bad one, or writes their own."""

from __future__ import annotations

from annotation.models import Comparison, RewriteCause, RewriteTask


def queue_rewrite(comparison_id: int, *, cause: RewriteCause) -> RewriteTask:
    """Put a comparison's prompt before those who write responses; once, whatever is said of it later."""
    comparison = Comparison.objects.only("project_id", "prompt_id").get(pk=comparison_id)
    task, _made = RewriteTask.objects.get_or_create(
        comparison=comparison,
        defaults={"project_id": comparison.project_id, "prompt_id": comparison.prompt_id, "cause": cause},
    )
    return task
