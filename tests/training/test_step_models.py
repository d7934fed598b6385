"""Whole models saved on the way, and held-out figures by category."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from rlhf.jobspec import CATEGORIES_FILE, STEP_MODELS_DIR, Result, check_manifest, complete_checkpoints
from rlhf.model_directory import check_model_directory
from tests.training.conftest import JobRunner, losses_of, metrics_of, toy_rows

pytestmark = [pytest.mark.training, pytest.mark.slow]


def weights(directory: Path) -> dict[str, Any]:
    return load_file(directory / "model.safetensors")


@pytest.mark.parametrize("method", ["dpo", "sft"])
def test_a_model_is_saved_on_the_way_and_training_does_not_notice(jobs: JobRunner, method: str) -> None:
    """DPO trains adapters, whose weights must be those that merging them gives; the same seed, stopped there, says."""
    lora: dict[str, Any] = {"use_lora": True} if method == "dpo" else {}
    shared: dict[str, Any] = {
        "max_steps": 4,
        "checkpoint_every_steps": 100,
        "scheduler": "constant",
        "warmup_share": 0.0,
        **lora,
    }
    job_dir = jobs.run("with", method, model_every_steps=2, **shared)
    assert complete_checkpoints(job_dir, STEP_MODELS_DIR) == ["step-2"]  # the last one is the job's own model
    saved = job_dir / STEP_MODELS_DIR / "step-2"
    check_manifest(saved)
    check_model_directory(saved)
    assert json.loads((saved / "generation_config.json").read_text())["do_sample"] is True
    without = jobs.run("without", method, **shared)
    assert losses_of(job_dir) == losses_of(without)
    stopped = jobs.run("stopped", method, **(shared | {"max_steps": 2}))
    expected, got = weights(stopped / "model"), weights(saved)
    assert got.keys() == expected.keys()
    for name, value in got.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-7, err_msg=name)


def test_held_out_rows_are_measured_by_category(jobs: JobRunner) -> None:
    options: dict[str, Any] = {"max_steps": 4, "eval_every_steps": 2}
    whole = jobs.run("whole", "dpo", **options)
    job_dir = jobs.prepare("parts", "dpo", **options)
    held_out = toy_rows("dpo", 7, start=100)
    categories = {row["id"]: "maths" if number < 4 else "code" for number, row in enumerate(held_out[:6])}
    (job_dir / CATEGORIES_FILE).write_text(json.dumps(categories))
    assert jobs.execute(job_dir) == 0
    found = [row for row in metrics_of(job_dir) if "eval_loss" in row]
    assert [row["step"] for row in found] == [2, 4, 4]  # one line each, as without categories
    for row, plain in zip(found, (row for row in metrics_of(whole) if "eval_loss" in row), strict=True):
        rows = [row[f"eval_category/{name}/rows"] for name in ("maths", "code", "none")]
        assert rows == [4, 2, 1]
        for name, short in (("eval_loss", "loss"), ("eval_rewards/margins", "margin")):
            parts = [row[f"eval_category/{category}/{short}"] for category in ("maths", "code", "none")]
            mean = sum(part * count for part, count in zip(parts, rows, strict=True)) / 7
            assert mean == pytest.approx(row[name], rel=1e-4)
            assert row[name] == pytest.approx(plain[name], rel=1e-3)
    result = Result.read(job_dir)
    assert result is not None
    assert result.metrics["eval_category/maths/rows"] == 4


def test_a_reward_model_too(jobs: JobRunner) -> None:
    job_dir = jobs.prepare("reward", "reward", max_steps=2)
    rows = toy_rows("reward", 7, start=100)
    (job_dir / CATEGORIES_FILE).write_text(json.dumps({row["id"]: "maths" for row in rows[:3]}))
    assert jobs.execute(job_dir) == 0
    result = Result.read(job_dir)
    assert result is not None
    shares = [(result.metrics[f"eval_category/{name}/accuracy"], rows) for name, rows in (("maths", 3), ("none", 4))]
    assert sum(share * count for share, count in shares) / 7 == pytest.approx(result.metrics["eval_accuracy"])
