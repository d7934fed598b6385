"""Everything that is looked at before a job starts, but for what needs the model loaded (rlhf/preflight/probe.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rlhf.footprint import ModelSize
from rlhf.models import Checkpoint, DatasetSnapshot
from rlhf.options import TrainingOptions
from rlhf.preflight.content import Content
from rlhf.preflight.findings import Finding
from rlhf.preflight.lengths import LengthCounts
from rlhf.preflight.model import check_template, check_tokens
from rlhf.preflight.resuming import check_resuming, expected_steps
from rlhf.preflight.rows import Lengths, Report, Row, check_rows, empty_report, usable_rows
from rlhf.preflight.settings import check_disk, check_memory, check_settings
from rlhf.snapshots import SPLITS
from rlhf.token_lengths import TokenCounter


@dataclass
class Outcome:
    """What was found, and what the page draws of it."""

    findings: list[Finding]
    rows: dict[str, Report]
    """Split → counts, see rows.empty_report."""
    histogram: dict[str, Any] = field(default_factory=dict)
    sample_ids: list[int] = field(default_factory=list)
    """Comparisons."""

    def as_json(self) -> dict[str, Any]:
        return {
            **self.rows,
            "checks": [finding.as_json() for finding in self.findings],
            "histogram": self.histogram,
            "sample_ids": self.sample_ids,
        }


def run_checks(snapshot: DatasetSnapshot, method: str, base: Checkpoint, options: TrainingOptions) -> Outcome:
    """Look at the data, the base model and the options in one pass over the rows. Raises SpecError, OSError."""
    counter = TokenCounter(base.path)
    size = ModelSize.of(base.path)
    content, lengths = Content(), LengthCounts(counter, options.max_tokens)
    report: dict[str, Report] = {}
    for split in SPLITS:
        report[split] = empty_report(options.max_tokens)

        def observe(row: Row, tokens: Lengths, split: str = split) -> None:
            content.add(split, row)
            lengths.add(split, row, tokens)

        for _ in usable_rows(snapshot, split, method, counter, options, report[split], observe):
            pass
    used, longest = report["train"]["used"], report["train"]["longest_tokens"]
    steps = expected_steps(options, used)
    findings = [
        *check_rows(report),
        *content.check(method),
        *check_template(base, counter, getattr(options, "reward_model", "")),
        *lengths.check(method),
        *check_tokens(counter),
        *check_settings(method, options, size),
        *check_memory(method, options, size, longest),
        *check_disk(method, options, size, steps),
        *check_resuming(options, steps),
    ]
    return Outcome(findings, report, lengths.histogram(), lengths.sample_ids())
