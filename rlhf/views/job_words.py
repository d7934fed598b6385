"""What the job pages say about counts and failures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from rlhf.models import FailureClass
from rlhf.preflight.findings import Finding, Level
from rlhf.preflight.rows import check_rows
from rlhf.preflight.sentences import LEVEL_WORDS, concern, sentence


@dataclass(frozen=True)
class Check:
    """One line of "Checks before the start"."""

    tone: Literal["good", "warning", "error"]
    word: str
    text: str
    concern: str


_TONES: dict[Level, Literal["good", "warning", "error"]] = {Level.PASSED: "good", Level.WARNED: "warning"}


def checks_of(report: dict[str, Any]) -> list[Check]:
    """What was found before the start (rlhf/preflight) as lines to read."""
    if not report:
        return []
    # Older jobs have the counts alone.
    stored = report.get("checks")
    findings = [Finding.from_json(one) for one in stored] if stored is not None else check_rows(report)
    return [
        Check(_TONES.get(finding.level, "error"), str(LEVEL_WORDS[finding.level]), sentence(finding), concern(finding))
        for finding in findings
    ]


_ADVICE: dict[FailureClass, str | Promise] = {
    FailureClass.OUT_OF_MEMORY: _("It is not tried again as it is. Clone the job and change one of these."),
    FailureClass.BAD_DATA: _("Another try would end the same way: change what is named above, then clone the job."),
    FailureClass.INFRASTRUCTURE: _(
        "The job goes on from its last complete checkpoint while tries are left. When they are spent and it has none, "
        "mend the worker and clone the job."
    ),
    FailureClass.STALLED: _(
        "Processes that wait for one another, a full disk or a machine that swaps. Where a step may really take that "
        "long, set TOUCHSTONE_JOB_SILENT_SECONDS higher; then clone the job."
    ),
    FailureClass.UNKNOWN: _("The end of the log says more. Nothing else was touched: clone the job to try again."),
}


_ADVICE_WITH_CHECKPOINT: dict[FailureClass, str | Promise] = {
    FailureClass.OUT_OF_MEMORY: _(
        "What it learnt up to %(checkpoint)s is safe, and it is not tried again by itself. The button above goes on "
        "from there; to change something else, clone the job."
    ),
    FailureClass.INFRASTRUCTURE: _(
        "What it learnt up to %(checkpoint)s is safe. Mend the worker, then resume the job: it goes on from there."
    ),
    FailureClass.STALLED: _(
        "Processes that wait for one another, a full disk or a machine that swaps. Where a step may really take that "
        "long, set TOUCHSTONE_JOB_SILENT_SECONDS higher. What it learnt up to %(checkpoint)s is safe: resume the job, "
        "and it goes on from there."
    ),
    FailureClass.UNKNOWN: _(
        "The end of the log says more. What it learnt up to %(checkpoint)s is safe: resume the job, and it goes on "
        "from there."
    ),
}


def what_to_do(failure_class: FailureClass, checkpoint: str = "") -> str:
    """Advice beside an error; `checkpoint` is the one from which the failed job can go on."""
    if checkpoint and (advice := _ADVICE_WITH_CHECKPOINT.get(failure_class)):
        return str(advice) % {"checkpoint": checkpoint}
    return str(_ADVICE.get(failure_class, ""))
