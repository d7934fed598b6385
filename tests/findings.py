"""What the checks before a start found, as tests read it."""

from __future__ import annotations

from collections.abc import Iterable

from rlhf.preflight import Finding, sentence


def said(findings: Iterable[Finding]) -> dict[str, str]:
    """Code → level, and each has a sentence whose gaps are all filled."""
    found = {}
    for finding in findings:
        assert "%(" not in sentence(finding)
        found[finding.code] = finding.level.name.lower()
    return found
