"""What is looked at before a job starts."""

from rlhf.preflight.rows import describe, examine, usable_rows

__all__ = ["describe", "examine", "usable_rows"]
