"""What a job that goes on from a checkpoint needs to be the same job."""

from __future__ import annotations

from collections.abc import Iterator

from rlhf.options import CHANGEABLE_ON_RESUME, TrainingOptions
from rlhf.preflight.findings import Finding, passed, warned


def expected_steps(options: TrainingOptions, rows: int) -> int:
    """How many optimizer steps a job over so many rows takes."""
    return options.max_steps or max(1, round(rows * options.epochs / options.batch_size))


def check_resuming(options: TrainingOptions, steps: int) -> Iterator[Finding]:
    values = {
        "every": options.checkpoint_every_steps,
        "steps": steps,
        "may_change": [name for name in CHANGEABLE_ON_RESUME if hasattr(options, name)],
    }
    if options.checkpoint_every_steps < steps:
        yield passed("resumes", **values)
    elif steps > 10 * 50:
        yield warned("resumes_never", **values)
    else:
        yield passed("resumes_from_start", **values)
