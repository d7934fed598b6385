"""What the job pages say about counts and failures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rlhf.models import FailureClass, Method


@dataclass(frozen=True)
class Check:
    """One line of "Checks before the start"."""

    tone: Literal["passed", "warned", "failed"]
    text: str


def checks_of(report: dict[str, Any], method: str) -> list[Check]:
    """A preflight report (rlhf/preflight.py) as lines to read."""
    if not report:
        return []
    train, held_out = report["train"], report["eval"]
    checks = [
        Check(
            "passed" if train["used"] else "failed",
            f"{train['used']:,} of {train['judged']:,} judged comparisons become rows to train on",
        )
    ]
    for split, name in ((train, "training"), (held_out, "held-out")):
        if not split["too_long"]:
            continue
        sides = ""
        if method != Method.SFT:
            sides = f" ({split['too_long_chosen']:,} chosen, {split['too_long_rejected']:,} rejected)"
        checks.append(
            Check(
                "warned",
                f"{split['too_long']:,} {name} rows longer than {split['max_tokens']:,} tokens left out{sides}",
            )
        )
    if not train["too_long"] and not held_out["too_long"]:
        checks.append(
            Check(
                "passed",
                f"No row is cut: the longest has {train['longest_tokens']:,} of {train['max_tokens']:,} tokens",
            )
        )
    if refused := train["refused"] + held_out["refused"]:
        checks.append(Check("warned", f"{refused:,} rows refused by the model's chat template"))
    if train["dropped"]:
        reasons = ", ".join(f"{count:,} {_reason(reason)}" for reason, count in sorted(train["dropped"].items()))
        checks.append(Check("passed", f"Comparisons without a side to learn from left out: {reasons}"))
    if held_out["used"]:
        checks.append(
            Check("passed", f"{held_out['used']:,} held-out rows to measure on, none of their prompts is trained on")
        )
    else:
        checks.append(
            Check(
                "warned", "No held-out row: the result will have no accuracy. Freeze a data set with a held-out share"
            )
        )
    return checks


_REASONS = {
    "tie": "about the same",
    "neither": "neither acceptable",
    "no_majority": "without a majority",
    "different_histories": "to different conversations",
    "identical_responses": "between equal texts",
    "empty": "with a blank response preferred",
}


def _reason(reason: str) -> str:
    return _REASONS.get(reason, reason.replace("_", " "))


def what_to_do(failure_class: FailureClass) -> str:
    """Advice beside an error."""
    return {
        FailureClass.OUT_OF_MEMORY: "It is not tried again as it is. Clone the job and change one of these.",
        FailureClass.BAD_DATA: "Another try would end the same way: change what is named above, then clone the job.",
        FailureClass.INFRASTRUCTURE: (
            "The job goes on from its last complete checkpoint while tries are left; when they are spent, mend the "
            "worker and clone the job."
        ),
        FailureClass.UNKNOWN: "The end of the log says more. Nothing else was touched: clone the job to try again.",
    }.get(failure_class, "")
