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
        "The job goes on from its last complete checkpoint while tries are left; when they are spent, mend the "
        "worker and clone the job."
    ),
    FailureClass.UNKNOWN: _("The end of the log says more. Nothing else was touched: clone the job to try again."),
}


def what_to_do(failure_class: FailureClass) -> str:
    """Advice beside an error."""
    return str(_ADVICE.get(failure_class, ""))
