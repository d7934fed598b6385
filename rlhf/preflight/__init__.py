"""What is looked at before a job starts: each check passes, warns, blocks (it can be overridden) or refuses.

`checks.run_checks` looks at the rows, the files of the base model and the options; `probe.run_probe` loads the model.
"""

from rlhf.preflight.checks import Outcome, run_checks, run_checks_of_each
from rlhf.preflight.findings import Finding, Level, settle, worst
from rlhf.preflight.rows import describe, score_scales, usable_rows
from rlhf.preflight.sentences import concern, sentence

__all__ = [
    "Finding",
    "Level",
    "Outcome",
    "concern",
    "describe",
    "run_checks",
    "run_checks_of_each",
    "score_scales",
    "sentence",
    "settle",
    "usable_rows",
    "worst",
]
