"""Data, models and settings that nothing can be learnt from: the process says what is wrong, and whose fault it is.

Before the start the web side looks for most of the same: tests/test_preflight*.py. Models to merge are in
tests/training/test_merging.py, reward models with another template in tests/training/test_policy_gradient.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf.jobspec import Result
from tests.training.conftest import JobRunner, Row, toy_rows

pytestmark = [pytest.mark.training, pytest.mark.slow]


def refusal(jobs: JobRunner, method: str = "dpo", **given: Any) -> str:
    """The sentence of a job that ends before its first step for the fault of what it was given."""
    job_dir = jobs.prepare("job", method, **given)
    assert jobs.execute(job_dir) == 1
    result = Result.read(job_dir)
    assert result is not None
    assert (result.status, result.failure_class) == ("failed", "bad_data"), result
    assert not (job_dir / "metrics.jsonl").exists()
    assert not (job_dir / "model").exists()
    return result.error


def of_one_kind() -> list[Row]:
    return [row for row in toy_rows("kto", 4) if row["label"]]


def with_equal_sides() -> list[Row]:
    rows = toy_rows("dpo", 4)
    rows[2]["rejected"] = rows[2]["chosen"]
    return rows


@pytest.mark.parametrize(
    ("method", "given", "words"),
    [
        ("dpo", {"train_rows": []}, "train.jsonl holds no row of at most 512 tokens"),
        ("grpo", {"train_rows": [], "rule": "length", "rule_argument": "9"}, "train.jsonl holds no prompt"),
        ("kto", {"train_rows": of_one_kind()}, "All 4 rows are desirable: KTO needs both"),
        ("dpo", {"train_rows": with_equal_sides()}, "train.jsonl line 3: chosen and rejected are equal"),
        ("reward", {"max_tokens": 16}, "holds no row of at most 16 tokens (24 longer ones were left out)"),
    ],
)
def test_rows_that_teach_nothing(jobs: JobRunner, method: str, given: dict[str, Any], words: str) -> None:
    assert words in refusal(jobs, method, **given)


def without_template(model: Path) -> None:
    (model / "chat_template.jinja").unlink()


def cut_short(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def of_no_known_kind(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForTokenClassification"]}))


def not_a_number(model: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(model / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = torch.nan
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


BROKEN = [
    (without_template, "has no chat template"),
    (cut_short, "it was not written to the end"),
    (not_a_number, "model.layers.1.mlp.up_proj.weight holds values that are not numbers"),
]


@pytest.mark.parametrize(
    ("method", "damage", "words"),
    [
        *((method, *broken) for broken in BROKEN for method in ("dpo", "reward")),
        # Any architecture with a body can be given a score head, so this is no fault of a reward model's base.
        ("dpo", of_no_known_kind, "is neither a language nor a reward model"),
    ],
)
def test_a_base_that_cannot_be_trained_from(
    jobs: JobRunner, tmp_path: Path, method: str, damage: Callable[[Path], None], words: str
) -> None:
    jobs.base = shutil.copytree(jobs.base, tmp_path / "broken")
    damage(jobs.base)
    assert words in refusal(jobs, method)


def test_a_reward_model_that_cannot_score(jobs: JobRunner) -> None:
    judge = jobs.run("judge", "reward", max_steps=1) / "model"
    (judge / "manifest.json").unlink()  # as a model that somebody has brought in
    not_a_number(judge)
    sentence = refusal(jobs, "ppo", reward_model=str(judge), batch_size=4, samples_per_prompt=2)
    assert f"{judge}: model.layers.1.mlp.up_proj.weight holds values that are not numbers" in sentence


def test_a_tokenizer_that_pads_with_its_end_still_learns_to_stop(jobs: JobRunner) -> None:
    """Padding is masked by its place: the end of a response is trained on although its token pads, too."""
    tokenizer = json.loads((jobs.base / "tokenizer_config.json").read_text())
    assert tokenizer.get("pad_token", tokenizer["eos_token"]) == tokenizer["eos_token"]
    job_dir = jobs.run("job", "sft", max_steps=1, sample_prompts=1)
    lines = [json.loads(line) for line in (job_dir / "insights.jsonl").read_text().splitlines()]
    [batch] = [line for line in lines if line["kind"] == "first_batch"]
    for row in batch["rows"]:
        assert [text for text, in_loss, is_special in row["parts"] if in_loss and is_special] == [
            tokenizer["eos_token"]
        ]
