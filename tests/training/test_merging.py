"""Merges against tensors worked out by hand, and what cannot be merged."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rlhf.jobspec import Result, check_manifest
from rlhf.launcher import request_cancel
from rlhf.model_match import check_mergeable
from rlhf.options import SpecError, build_options
from tests.training.conftest import JobRunner, metrics_of

pytestmark = [pytest.mark.training, pytest.mark.slow]


def variant(base: Path, folder: Path, seed: int, scale: float = 0.01) -> Path:
    """The base with each weight moved a little."""
    shutil.copytree(base, folder)
    random = np.random.default_rng(seed)
    weights = load_file(base / "model.safetensors")
    moved = {name: (v + scale * random.standard_normal(v.shape)).astype(np.float32) for name, v in weights.items()}
    save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def three(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("variants")
    first = variant(base, folder / "one", 1)
    # The second went partly the same way as the first, the third its own.
    return [first, variant(first, folder / "two", 2), variant(base, folder / "three", 3)]


def merged(jobs: JobRunner, models: list[Path], **options: Any) -> dict[str, np.ndarray]:
    job_dir = jobs.run("merge", "merge", models=",".join(map(str, models)), **options)
    check_manifest(job_dir / "model")
    return load_file(job_dir / "model" / "model.safetensors")


def test_linear_is_the_weighted_mean(jobs: JobRunner, three: list[Path]) -> None:
    got = merged(jobs, three, algorithm="linear", weights="1, 2, 5")
    theta = [load_file(model / "model.safetensors") for model in three]
    for name, value in got.items():
        expected = (1 * theta[0][name] + 2 * theta[1][name] + 5 * theta[2][name]) / 8
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-7)


def test_task_arithmetic_adds_scaled_changes_to_the_base(jobs: JobRunner, base: Path, three: list[Path]) -> None:
    got = merged(jobs, three[:2], algorithm="task_arithmetic", weights="1,-0.5", scaling=0.4)
    start, one, two = (load_file(model / "model.safetensors") for model in (base, *three[:2]))
    for name, value in got.items():
        expected = start[name] + 0.4 * ((one[name] - start[name]) - 0.5 * (two[name] - start[name]))
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [2, 3])
def test_model_stock_goes_as_far_as_the_changes_agree(
    jobs: JobRunner, base: Path, three: list[Path], count: int
) -> None:
    got = merged(jobs, three[:count], algorithm="model_stock")
    start, *theta = (load_file(model / "model.safetensors") for model in (base, *three[:count]))
    shares = []
    for name, value in got.items():
        changes = [model[name].astype(np.float64) - start[name] for model in theta]
        cosines = [
            (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
            for i, a in enumerate(changes)
            for b in changes[i + 1 :]
        ]
        cosine = max(0.0, float(np.mean(cosines)))
        t = count * cosine / (1 + (count - 1) * cosine)
        assert 0 <= t <= 1
        shares.append(t)
        np.testing.assert_allclose(
            value, t * np.mean([model[name] for model in theta], axis=0) + (1 - t) * start[name], atol=1e-5
        )
    result = Result.read(jobs.folder / "merge")
    assert result is not None and result.metrics["mean_t"] == pytest.approx(np.mean(shares), abs=1e-4)
    if count == 2:  # √½ of the way in common: t = 2·0.707 / 1.707
        assert np.mean(shares) == pytest.approx(2 * math.sqrt(0.5) / (1 + math.sqrt(0.5)), abs=0.03)


def test_t_stays_between_the_base_and_the_mean() -> None:
    import torch

    from rlhf.training.merge import stock_share

    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert stock_share([east, 3 * east]) == pytest.approx(1.0)
    assert stock_share([east, north]) == 0.0
    assert stock_share([east, -east]) == 0.0  # they pull apart: t would be below 0
    assert stock_share([east, torch.zeros(2)]) == 0.0
    assert stock_share([east, torch.tensor([0.5, math.sqrt(0.75)])]) == pytest.approx(2 / 3)  # cos 60° = ½


def test_a_merge_in_shards_and_bfloat16_is_the_same_merge_and_a_model_that_answers(
    jobs: JobRunner, base: Path, three: list[Path], tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    sharded = tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(sharded, max_shard_size="60KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(base / name, sharded / name)
    whole = merged(jobs, three, algorithm="linear")
    jobs.base = sharded
    job_dir = jobs.run("sharded", "merge", models=",".join(map(str, three)), algorithm="linear")
    model: Any = AutoModelForCausalLM.from_pretrained(job_dir / "model")
    assert model.dtype == torch.float32  # the widest of the types
    state = model.state_dict()
    for name, value in whole.items():
        np.testing.assert_array_equal(state[name].numpy(), value)
    tokenizer = AutoTokenizer.from_pretrained(job_dir / "model")
    ids: Any = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}], return_tensors="pt", return_dict=False
    )
    assert model.generate(ids, max_new_tokens=3).shape[1] > ids.shape[1]
    assert [row["step"] for row in metrics_of(job_dir)][-1] == len(whole)


def change_config(model: Path, **values: Any) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_weights(model: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
    weights = load_file(model / "model.safetensors")
    change(weights)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


NORM = "model.layers.0.input_layernorm.weight"


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda m: change_config(m, architectures=["Qwen2ForCausalLM"]), "odd is of another architecture: Qwen2"),
        (lambda m: change_config(m, num_attention_heads=8), "its config.json says num_attention_heads 8, not 4"),
        (
            lambda m: change_weights(m, lambda w: w.update({NORM: w[NORM][:24]})),
            f"odd differs from the base: its tensor {NORM} is of shape",
        ),
        (lambda m: change_weights(m, lambda w: w.pop(NORM)), f"odd has no tensor {NORM}"),
        (lambda m: change_weights(m, lambda w: w.update(extra=w[NORM])), "odd has a tensor extra"),
        (
            lambda m: (m / "tokenizer.json").write_text('{"other": 1}'),
            "odd differs from the base: its tokenizer.json is another",
        ),
        (lambda m: (m / "model.safetensors").write_bytes((m / "model.safetensors").read_bytes()[:-9]), "of .* bytes"),
        (lambda m: (m / "config.json").unlink(), "odd has no config.json"),
    ],
)
def test_what_does_not_fit_is_named(base: Path, tmp_path: Path, spoil: Callable[[Path], Any], problem: str) -> None:
    odd = variant(base, tmp_path / "odd", 5)
    check_mergeable(base, {"odd": odd})
    spoil(odd)
    with pytest.raises(SpecError, match=problem):
        check_mergeable(base, {"odd": odd})


def test_a_weight_that_is_not_a_number_ends_the_merge_and_leaves_no_model(
    jobs: JobRunner, base: Path, three: list[Path], tmp_path: Path
) -> None:
    odd = variant(base, tmp_path / "odd", 5)
    change_weights(odd, lambda w: w[NORM].__setitem__(0, np.nan))
    job_dir = jobs.prepare("nan", "merge", models=f"{three[0]},{odd}")
    assert jobs.execute(job_dir) == 1
    result = Result.read(job_dir)
    assert result is not None and result.failure_class == "bad_data"
    assert f"tensor {NORM} holds a weight that is not a finite number" in result.error
    assert not list(job_dir.glob("*model*"))


def test_a_merge_that_is_stopped_leaves_no_half_model(jobs: JobRunner, three: list[Path]) -> None:
    job_dir = jobs.prepare("stopped", "merge", models=",".join(map(str, three)))
    request_cancel(job_dir, "keep")
    assert jobs.execute(job_dir) == 0
    result = Result.read(job_dir)
    assert result is not None and result.status == "cancelled"
    assert not list(job_dir.glob("*model*"))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"models": "a"}, "models: model_stock needs more than 1"),
        ({"models": "a,a"}, "models: a is named twice"),
        ({"models": "a,b", "weights": "1,2"}, "weights have no effect on model_stock"),
        ({"models": "a,b", "algorithm": "linear", "weights": "1"}, "weights: 2 models need as many numbers"),
        ({"models": "a,b", "algorithm": "linear", "weights": "1,-1"}, "weights must have a sum above 0"),
        ({"models": "a,b", "algorithm": "linear", "weights": "1,x"}, "is not numbers with commas"),
        ({"models": "a,b", "algorithm": "linear", "scaling": 0.5}, "scaling has no effect on linear"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        build_options("merge", options)
