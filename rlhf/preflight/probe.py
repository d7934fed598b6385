"""What only the model itself can tell, measured on the worker: weights, padding, and one step on the longest rows.

Two child processes; this one imports no torch.
"""

from __future__ import annotations

import heapq
import itertools
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings

from annotation.export import Kind
from rlhf import launcher
from rlhf.jobspec import JobSpec, Result, write_json_atomically
from rlhf.models import LaunchCheck
from rlhf.options import OnPolicyOptions, TrainingOptions, build_options
from rlhf.preflight.findings import Finding, blocked, by_share, passed, refused, warned
from rlhf.preflight.rows import Lengths, Row, score_scales, usable_rows
from rlhf.preflight.settings import gigabytes
from rlhf.services.checkpoints import find_reward_model
from rlhf.token_lengths import TokenCounter

# Enough for a large model to be read from disk; a worker must not hang on a measurement.
PATIENCE_SECONDS = 600
_ROWS_SCORED = 8
_TIGHT_ABOVE = 0.9
_CUT_WARNS_ABOVE = 0.3
_LARGEST_DIFFERENCE = 1e-2


def run_probe(check: LaunchCheck, gpus: list[int] | None = None) -> list[Finding]:
    """Measure one launch on this machine, on these of its GPUs; None leaves that to the environment."""
    options = build_options(check.method, check.options)
    rows = _rows(check, options)
    if not rows:
        return []
    settings.JOBS_DIR.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".probe-", dir=settings.JOBS_DIR))
    try:
        findings = _measure_model(folder, check, rows[-_ROWS_SCORED:], gpus)
        if not any(finding.code == "weights_broken" for finding in findings):
            findings += _dry_step(folder / "step", check, options, rows[: options.batch_size], gpus)
        return findings
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _rows(check: LaunchCheck, options: TrainingOptions) -> list[Row]:
    """The longest rows first, then short ones; both kinds of them where a method needs two."""
    longest: dict[Any, list[tuple[int, int, Row]]] = {}
    shortest: list[Row] = []
    numbers = itertools.count()  # rows themselves have no order

    def observe(row: Row, lengths: Lengths, is_used: bool) -> None:
        if not is_used:
            return
        tokens = min(max(lengths.values()), options.max_tokens)
        if len(shortest) < _ROWS_SCORED:
            shortest.append(row)
        heap = longest.setdefault((row.get("label"), "completion" in row), [])
        heapq.heappush(heap, (tokens, next(numbers), row))
        if len(heap) > options.batch_size:
            heapq.heappop(heap)

    counter = TokenCounter(check.base.path)
    for _ in usable_rows(check.snapshot, "train", check.method, counter, options, observe=observe):
        pass
    kinds = [sorted(heap, key=lambda entry: entry[:2], reverse=True) for heap in longest.values()]
    share = -(-options.batch_size // len(kinds)) if kinds else 0
    return [row for heap in kinds for _, _, row in heap[:share]][: options.batch_size] + shortest


def _measure_model(folder: Path, check: LaunchCheck, rows: list[Row], gpus: list[int] | None) -> list[Finding]:
    asked, answer = folder / "asked.json", folder / "answer.json"
    sides = [side for side in ("completion", "chosen", "rejected") if side in rows[0]]
    conversations = [row["prompt"] + row[side] for row in rows for side in sides] or [row["prompt"] for row in rows]
    write_json_atomically(asked, conversations[:_ROWS_SCORED])
    kind = "reward" if check.method == Kind.REWARD else "policy"
    said = launcher.run_to_end("rlhf.training.probe", kind, str(check.base.path), str(asked), str(answer), gpus=gpus)
    if not answer.exists():
        return [refused("probe_failed", error=_last_line(said))]
    found = json.loads(answer.read_text())
    if found["broken"]:
        return [refused("weights_broken", name=found["broken"])]
    difference = found["difference"]
    shown = f"{difference:.1g}"
    return [
        passed("weights_finite", count=found["weights"]),
        passed("padding_equal", difference=shown)
        if difference <= _LARGEST_DIFFERENCE
        else blocked("padding_differs", difference=shown),
    ]


def _dry_step(
    job_dir: Path, check: LaunchCheck, options: TrainingOptions, rows: list[Row], gpus: list[int] | None
) -> list[Finding]:
    """One step of the job itself on its longest rows: the same command, told to stop and discard after it."""
    short = {"max_steps": 1, "eval_every_steps": 0, "checkpoint_every_steps": 1_000_000}
    if "sample_prompts" in check.options:
        short["sample_prompts"] = 0
    given = check.options | short
    reward_model = find_reward_model(options, check.base)
    if reward_model is not None:
        given |= {"reward_model": str(reward_model.path)}
    spec = JobSpec(
        job_id=0,
        method=check.method,
        base_model_dir=str(check.base.path),
        options=build_options(check.method, given),
        score_scales=score_scales(check.snapshot, options),
    )
    launcher.prepare(job_dir, spec, rows, [])
    launcher.request_cancel(job_dir, "discard")
    available = _available_bytes()
    process = launcher.start(job_dir, gpus)
    try:
        process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        return [blocked("dry_step_failed", error=f"it took longer than {PATIENCE_SECONDS} s")]
    finally:
        launcher.terminate(process, 0)
    result = Result.read(job_dir)
    if result is None:
        log = (job_dir / "stdout.log").read_text(errors="replace")
        code = "dry_step_memory" if process.returncode == -9 else "dry_step_failed"
        return [blocked(code, error=_last_line(log) if process.returncode != -9 else "it was killed")]
    if result.status == "failed":
        code = "dry_step_memory" if result.failure_class == "out_of_memory" else "dry_step_failed"
        return [blocked(code, error=result.error)]
    logged = launcher.MetricsTail(job_dir).read_new()
    peak = max([result.metrics.get("peak_memory_gb", 0.0), *(row.get("peak_memory_gb") or 0.0 for row in logged)])
    seconds = max((row.get("seconds") or 0.0 for row in logged), default=0.0)
    findings = [passed("dry_step", peak=f"{peak:.1f}", seconds=f"{seconds:.1f}"), *cut_completions(options, logged)]
    if available and peak * 1e9 > _TIGHT_ABOVE * available:
        findings.append(warned("dry_step_tight", peak=f"{peak:.1f}", has=gigabytes(available)))
    return findings


def cut_completions(options: TrainingOptions, logged: list[dict[str, Any]]) -> Iterator[Finding]:
    """What an on-policy method sampled in its step: how much of it did not end by itself."""
    shares = [share for row in logged if (share := row.get("completions/clipped_ratio")) is not None]
    if not isinstance(options, OnPolicyOptions) or not shares:
        return
    count = round(shares[0] * options.batch_size)
    total, tokens = options.batch_size, options.max_completion_tokens
    if count == total:
        yield by_share("all_completions_cut", count, total, 0.0, tokens=tokens)
    elif count > _CUT_WARNS_ABOVE * total:
        yield warned("many_completions_cut", count=count, total=total, tokens=tokens)
    else:
        yield passed("completions_end", count=count, total=total, tokens=tokens)


def _available_bytes() -> int:
    """Memory that a new process may take without pushing another out; 0 where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
