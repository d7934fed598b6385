"""Everything that is looked at before a job starts, but for what needs the model loaded (rlhf/preflight/probe.py)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from rlhf.footprint import ModelSize
from rlhf.hardware import GPU, Hardware, hardware
from rlhf.models import Checkpoint, DatasetSnapshot, GPUSlot, Worker, queue_of
from rlhf.options import TrainingOptions
from rlhf.preflight.content import Content
from rlhf.preflight.findings import Finding
from rlhf.preflight.lengths import LengthCounts
from rlhf.preflight.model import WrittenWith, check_template, check_tokens
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


# What else than the data set, the method and the base decides which rows a job gets.
_ROW_OPTIONS = (
    "max_tokens", "long_rows", "max_completion_tokens", "ptx_coefficient", "score_weight", "score_normalisation",
    "use_ties",
)  # fmt: skip


@dataclass(frozen=True)
class _Rows:
    """What was found in the rows of a job, whatever else its options say."""

    report: dict[str, Report]
    findings: list[Finding]
    histogram: dict[str, Any]
    sample_ids: list[int]


Variant = tuple[TrainingOptions, Checkpoint | None]
"""Options, and the reward model that they name."""


def run_checks(
    snapshot: DatasetSnapshot,
    method: str,
    base: Checkpoint,
    options: TrainingOptions,
    *,
    reward_model: Checkpoint | None = None,
    label: str = "",
    gpus: int = 0,
) -> Outcome:
    """Look at the data, the base model and the options in one pass over the rows. Raises SpecError, OSError."""
    [outcome] = run_checks_of_each(snapshot, method, base, [(options, reward_model)], label=label, gpus=gpus)
    return outcome


def run_checks_of_each(
    snapshot: DatasetSnapshot,
    method: str,
    base: Checkpoint,
    variants: Iterable[Variant],
    *,
    label: str = "",
    gpus: int = 0,
) -> list[Outcome]:
    """`run_checks` of one launch with several options; the rows are read once for all that make the same of them."""
    counter = TokenCounter(base.path)
    size = ModelSize.of(base.path)
    machines = machines_for(label)
    seen: dict[tuple[Any, ...], _Rows] = {}
    outcomes = []
    for options, reward_model in variants:
        key = tuple(getattr(options, name, None) for name in _ROW_OPTIONS)
        if key not in seen:
            seen[key] = _look_at_rows(snapshot, method, counter, options)
        rows = seen[key]
        used, longest = rows.report["train"]["used"], rows.report["train"]["longest_tokens"]
        steps = expected_steps(options, used)
        reward_size = ModelSize.of(reward_model.path) if reward_model else None
        findings = [
            *rows.findings,
            *check_template(base, counter, reward_model.name if reward_model else ""),
            *check_tokens(counter),
            *check_settings(method, options, size),
            *check_memory(method, options, size, longest, machines, reward_model=reward_size, gpus=gpus),
            *check_disk(method, options, size, steps),
            *check_resuming(options, steps),
        ]
        outcomes.append(Outcome(findings, rows.report, rows.histogram, rows.sample_ids))
    return outcomes


def machines_for(label: str) -> list[Hardware]:
    """What the workers that may take the job have announced; where none runs yet, this machine, if theirs is this."""
    workers = Worker.objects.present().filter(queues__contains=[queue_of(label)])
    gpus: dict[str, list[GPU]] = {}
    for slot in GPUSlot.objects.filter(host__in=[worker.host for worker in workers]):
        gpus.setdefault(slot.host, []).append(GPU(slot.index, slot.uuid, slot.name, slot.memory_gb))
    announced = [Hardware(worker.cpu_cores, worker.memory_gb, tuple(gpus.get(worker.host, []))) for worker in workers]
    return announced or ([hardware()] if settings.EMBEDDED_BROKER else [])


def _look_at_rows(snapshot: DatasetSnapshot, method: str, counter: TokenCounter, options: TrainingOptions) -> _Rows:
    content, lengths, written = Content(), LengthCounts(counter, options.max_tokens), WrittenWith()
    report: dict[str, Report] = {}
    for split in SPLITS:
        report[split] = empty_report(options.max_tokens, getattr(options, "long_rows", "drop"))

        def observe(row: Row, tokens: Lengths, is_used: bool, split: str = split) -> None:
            content.add(split, row)
            lengths.add(split, row, tokens, is_used=is_used)

        for row in usable_rows(snapshot, split, method, counter, options, report[split], observe):
            if split == "train":
                written.add(row)
    findings = [
        *check_rows(report),
        *content.check(method),
        *lengths.check(method),
        *written.check(counter.template_sha256),
    ]
    return _Rows(report, findings, lengths.histogram(), lengths.sample_ids())
