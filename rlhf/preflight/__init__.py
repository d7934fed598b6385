"""What is looked at before a job starts."""

from rlhf.preflight.rows import describe, examine, score_scales, usable_rows

__all__ = ["describe", "examine", "score_scales", "usable_rows"]
