"""How far the people who judged the same comparisons agree: votes as arrays, coefficients, a project's report."""

from annotation.agreement.report import (
    RESAMPLES,
    Agreement,
    StrengthAgreement,
    Undefined,
    measure_agreement,
    verdict_tables,
)
from annotation.agreement.votes import IS_SIDE, VERDICTS, Votes, load_votes

__all__ = [
    "IS_SIDE",
    "RESAMPLES",
    "VERDICTS",
    "Agreement",
    "StrengthAgreement",
    "Undefined",
    "Votes",
    "load_votes",
    "measure_agreement",
    "verdict_tables",
]
