"""Every on-policy method on one task that a trainer which works must solve, in one table.

    python -m benchmarks.on_policy [--seeds 1 2 3] [--methods ppo grpo_token_kl grpo rloo] [--steps 40] [--json FILE]

The task: a two-layer model with random weights writes 16 tokens, and its reward is the share of them that fall in the
lower half of the vocabulary: 0.5 at the start, 1 at best. Each run is a job directory run through the launcher, in a
process of its own; seeds vary the model, the order of the prompts and the samples.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import add_json_option, machine
from rlhf import launcher
from rlhf.jobspec import JobSpec, Result
from rlhf.options import build_options
from tests.tiny_model import build_tiny_model

METHODS = ("grpo", "grpo_token_kl", "ppo", "rloo")
OPTIONS = {
    "rule": "vocabulary_half",
    "rule_argument": "lower",
    "max_completion_tokens": 16,
    "batch_size": 48,
    "micro_batch_size": 24,
    "learning_rate": 1e-2,
    "scheduler": "constant",
    "kl_coefficient": 0.005,
    "use_lora": False,
    "bf16": False,
}
STEPS_AVERAGED = 5


def prompts(count: int) -> list[dict[str, Any]]:
    return [
        {"prompt": [{"role": "user", "content": f"What is the answer to question {number}?"}]}
        for number in range(count)
    ]


def run(method: str, seed: int, steps: int, folder: Path) -> dict[str, Any]:
    base = folder / f"tiny-{seed}"
    if not base.exists():
        build_tiny_model(base, seed=seed)
    job_dir = folder / f"{method}-{seed}"
    spec = JobSpec(
        job_id=1,
        method=method,
        base_model_dir=str(base),
        options=build_options(method, OPTIONS | {"seed": seed, "max_steps": steps}),
    )
    launcher.prepare(job_dir, spec, prompts(48), [])
    began = time.monotonic()
    launcher.start(job_dir).wait()
    seconds = time.monotonic() - began
    result = Result.read(job_dir)
    if result is None or result.status != "succeeded":
        sys.exit(f"{method}, seed {seed}, failed: {result and result.error}\n{(job_dir / 'stdout.log').read_text()}")
    rows = [row for row in launcher.MetricsTail(job_dir).read_new() if "loss" in row]

    def last(name: str) -> float:
        return statistics.fmean(row[name] for row in rows[-STEPS_AVERAGED:])

    return {
        "method": method,
        "seed": seed,
        "reward_first": rows[0]["reward"],
        "reward_last": last("reward"),
        "steps_to_0.9": next((row["step"] for row in rows if row["reward"] >= 0.9), None),
        "kl_last": last("kl"),
        "kl_largest": max(row["kl"] for row in rows),
        "entropy_last": last("entropy"),
        "seconds_per_step": statistics.median(row["seconds"] for row in rows),
        "seconds": seconds,
        "peak_memory_gb": result.metrics["peak_memory_gb"],
    }


def table(figures: list[dict[str, Any]]) -> str:
    lines = [
        "| method | seed | reward, first step | reward, last 5 steps | first step at 0.9 | KL, last 5 (largest), nats "
        "a token | s a step | s in all | peak GB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {f['method']} | {f['seed']} | {f['reward_first']:.3f} | **{f['reward_last']:.3f}** "
        f"| {f['steps_to_0.9'] or 'none'} | {f['kl_last']:.2f} ({f['kl_largest']:.2f}) | {f['seconds_per_step']:.2f} "
        f"| {f['seconds']:.0f} | {f['peak_memory_gb']:.2f} |"
        for f in figures
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--steps", type=int, default=40)
    add_json_option(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="on-policy-") as folder:
        figures = [
            run(method, seed, arguments.steps, Path(folder))
            for method in arguments.methods
            for seed in arguments.seeds
        ]
    print(table(figures))
    print(f"\nmachine: {machine()}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "runs": figures}, indent=1))


if __name__ == "__main__":
    main()
