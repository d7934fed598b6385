"""What the job pages say about counts and failures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from rlhf.models import FailureClass


@dataclass(frozen=True)
class Check:
    """One line of "Checks before the start"."""

    tone: Literal["passed", "warned", "failed"]
    text: str


def checks_of(report: dict[str, Any]) -> list[Check]:
    """A preflight report (rlhf/preflight.py) as lines to read."""
    if not report:
        return []
    train, held_out = report["train"], report["eval"]
    if "repeated" in train:
        becoming = gettext("%(used)s prompts to sample from, out of %(judged)s judged comparisons")
    else:
        becoming = gettext("%(used)s of %(judged)s judged comparisons become rows to train on")
    checks = [
        Check(
            "passed" if train["used"] else "failed",
            becoming % {"used": f"{train['used']:,}", "judged": f"{train['judged']:,}"},
        )
    ]
    for split, left_out in (
        (train, gettext("%(count)s training rows longer than %(tokens)s tokens left out")),
        (held_out, gettext("%(count)s held-out rows longer than %(tokens)s tokens left out")),
    ):
        if not split["too_long"]:
            continue
        text = left_out % {"count": f"{split['too_long']:,}", "tokens": f"{split['max_tokens']:,}"}
        if split["too_long_chosen"] or split["too_long_rejected"]:
            text += gettext(" (%(chosen)s chosen, %(rejected)s rejected)") % {
                "chosen": f"{split['too_long_chosen']:,}",
                "rejected": f"{split['too_long_rejected']:,}",
            }
        checks.append(Check("warned", text))
    if not train["too_long"] and not held_out["too_long"]:
        uncut = gettext("No row is cut: the longest has %(longest)s of %(tokens)s tokens")
        checks.append(
            Check("passed", uncut % {"longest": f"{train['longest_tokens']:,}", "tokens": f"{train['max_tokens']:,}"})
        )
    if refused := train["refused"] + held_out["refused"]:
        text = gettext("%(count)s rows refused by the model's chat template") % {"count": f"{refused:,}"}
        checks.append(Check("warned", text))
    if train["dropped"]:
        reasons = gettext(", ").join(
            f"{count:,} {_reason(reason)}" for reason, count in sorted(train["dropped"].items())
        )
        text = gettext("Comparisons without a side to learn from left out: %(reasons)s") % {"reasons": reasons}
        checks.append(Check("passed", text))
    if held_out["used"]:
        text = gettext("%(count)s held-out rows to measure on, none of their prompts is trained on")
        checks.append(Check("passed", text % {"count": f"{held_out['used']:,}"}))
    else:
        text = gettext("No held-out row: the result will have no accuracy. Freeze a data set with a held-out share")
        checks.append(Check("warned", text))
    return checks


_REASONS: dict[str, str | Promise] = {
    "tie": _("about the same"),
    "neither": _("neither acceptable"),
    "no_majority": _("without a majority"),
    "different_histories": _("to different conversations"),
    "identical_responses": _("between equal texts"),
    "empty": _("with a blank response preferred"),
}


def _reason(reason: str) -> str:
    return str(_REASONS.get(reason, reason.replace("_", " ")))


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
