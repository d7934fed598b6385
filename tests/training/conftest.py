"""A tiny base model, toy pairs that a good trainer must separate, and a way to run jobs in this process."""

from __future__ import annotations

import importlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf import launcher
from rlhf.jobspec import JobSpec, Result
from rlhf.options import build_options
from rlhf.score_scales import Scale
from tests.tiny_model import build_tiny_model

Row = dict[str, Any]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def pair(number: int) -> Row:
    """A polite answer against a rude one, of varied length, with keys that no trainer knows."""
    return {
        "id": f"row-{number}",
        "group": f"group-{number // 2}",
        "prompt": [
            {"role": "user", "content": f"What is the answer to question {number}?" + " Please." * (number % 4)}
        ],
        "chosen": [{"role": "assistant", "content": "Thank you, the answer is" + " short" * (number % 5 + 1)}],
        "rejected": [{"role": "assistant", "content": "No idea, go away" + " stupid" * (number % 3 + 1)}],
    }


def toy_rows(method: str, count: int, start: int = 0) -> list[Row]:
    pairs = [pair(number) for number in range(start, start + count)]
    if method == "merge":
        return []
    if method == "sft":
        return [{"id": row["id"], "prompt": row["prompt"], "completion": row["chosen"]} for row in pairs]
    if method in ("ppo", "grpo", "grpo_token_kl", "rloo"):
        return [{"id": row["id"], "prompt": row["prompt"]} for row in pairs]
    if method == "kto":
        return [
            {"id": row["id"], "prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
            for row in pairs
            for side in ("chosen", "rejected")
        ]
    return pairs


class JobRunner:
    """Prepares job directories and runs them in this process, as the child process would."""

    def __init__(self, base: Path, folder: Path) -> None:
        self.base = base
        self.folder = folder

    def prepare(
        self,
        name: str,
        method: str,
        train_rows: list[Row] | None = None,
        eval_rows: list[Row] | None = None,
        resume_from: str = "",
        score_scales: dict[str, Scale] | None = None,
        **options: Any,
    ) -> Path:
        given = {
            "learning_rate": 5e-3,
            "batch_size": 4,
            "micro_batch_size": 2,
            "bf16": False,
            "sample_prompts": 0,
            **options,
        }
        if method == "merge":
            given = options
        job_dir = self.folder / name
        spec = JobSpec(
            job_id=1,
            method=method,
            base_model_dir=str(self.base),
            options=build_options(method, given),
            resume_from=resume_from,
            score_scales=score_scales or {},
        )
        launcher.prepare(
            job_dir,
            spec,
            toy_rows(method, 24) if train_rows is None else train_rows,
            toy_rows(method, 7, start=100) if eval_rows is None else eval_rows,
        )
        return job_dir

    def execute(self, job_dir: Path) -> int:
        from rlhf.training.job import execute, set_environment

        set_environment()
        from accelerate.state import AcceleratorState, GradientState

        # A process runs one job; here the next one must not find the settings of the last.
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        method = JobSpec.read(job_dir).method
        return execute(job_dir, method, importlib.import_module(f"rlhf.training.{method}").train)

    def run(self, name: str, method: str, **settings: Any) -> Path:
        """Prepare and run to a successful end."""
        job_dir = self.prepare(name, method, **settings)
        assert self.execute(job_dir) == 0, Result.read(job_dir)
        return job_dir


@pytest.fixture
def jobs(base: Path, tmp_path: Path) -> JobRunner:
    return JobRunner(base, tmp_path)


@pytest.fixture
def sigterm_after_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sends this process SIGTERM when the metrics of a step are written, so in the middle of training."""

    def arrange(step: int) -> None:
        from rlhf.training.job import Job

        write_metrics = Job.write_metrics

        def write_and_signal(job: Job, row: Row) -> None:
            write_metrics(job, row)
            if row["step"] == step:
                os.kill(os.getpid(), signal.SIGTERM)
                monkeypatch.setattr(Job, "write_metrics", write_metrics)

        monkeypatch.setattr(Job, "write_metrics", write_and_signal)

    return arrange


def metrics_of(job_dir: Path) -> list[Row]:
    return [json.loads(line) for line in (job_dir / "metrics.jsonl").read_text().splitlines()]


def losses_of(job_dir: Path) -> dict[int, float]:
    """Training loss by step; of a step that was done twice, the later one."""
    return {row["step"]: row["loss"] for row in metrics_of(job_dir) if "loss" in row}
