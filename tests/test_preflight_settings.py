"""What is looked at in the settings before a job starts: rates, recipes, disk, memory, what a resume may change."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from rlhf.footprint import ModelSize, disk_bytes, memory_of
from rlhf.hardware import GPU, Hardware
from rlhf.jobspec import OPTIONS_FILE, check_resumable, write_json_atomically
from rlhf.option_words import RECIPE_NAMES
from rlhf.options import OPTIONS, OnPolicyOptions, SpecError, build_options
from rlhf.preflight import run_checks, sentence
from rlhf.preflight.settings import check_disk, check_memory, check_settings
from rlhf.recipes import BANDS, RECIPES
from rlhf.services import create_snapshot, register_base_checkpoint
from rlhf.services.workers import announce_worker
from tests.factories import make_judged_project
from tests.findings import said

BIG = ModelSize(parameters=10**14, adaptable=10**9, hidden=8192, layers=80, vocabulary=128_000)
LLAMA_8B = ModelSize(parameters=8 * 10**9, adaptable=2 * 10**6, hidden=4096, layers=32, vocabulary=128_000)


def needed(method: str) -> dict[str, Any]:
    """What a method cannot be without."""
    return {"reward_model": "any"} if issubclass(OPTIONS[method], OnPolicyOptions) else {}


def test_learning_rate_and_epochs_against_what_is_usual() -> None:
    def judged(method: str, size: ModelSize, **options: Any) -> dict[str, str]:
        return said(check_settings(method, build_options(method, options), size))

    assert judged("dpo", LLAMA_8B, learning_rate=5e-7, epochs=1, use_lora=False) == {"rate_usual": "passed"}
    # The defaults of a well-known form: a hundred times the published rates, three epochs.
    assert judged("dpo", LLAMA_8B, learning_rate=5e-5, epochs=3, use_lora=False) == {
        "rate_high": "blocked",
        "epochs_many": "warned",
    }
    assert judged("dpo", LLAMA_8B, learning_rate=3e-6, epochs=1, use_lora=False) == {"rate_high": "warned"}
    assert judged("reward", LLAMA_8B, learning_rate=1e-7) == {"rate_low": "warned"}
    assert judged("reward", LLAMA_8B, learning_rate=1e-8) == {"rate_low": "blocked"}
    full = {"learning_rate": 5e-7, "epochs": 1, "use_lora": False}
    for loss, beta, found in (
        ("sigmoid_norm", 5, {}),
        ("sigmoid_norm", 0.1, {"beta_unusual": "warned"}),
        ("sigmoid", 5, {"beta_unusual": "warned"}),
    ):
        assert judged("dpo", LLAMA_8B, **full, loss_type=loss, beta=beta) == {"rate_usual": "passed"} | found
    for method in BANDS:  # our own defaults, on a model as small as the starter
        size = ModelSize(135_000_000, 0, 576, 30, 49_152)
        assert set(judged(method, size, **needed(method)).values()) == {"passed"}


def test_every_recipe_can_be_used_is_usual_and_names_its_source() -> None:
    assert len({recipe.key for recipe in RECIPES}) == len(RECIPES)
    assert {recipe.name for recipe in RECIPES} == set(RECIPE_NAMES)  # they are translated by their English words
    for recipe in RECIPES:
        options = build_options(recipe.method, recipe.options | needed(recipe.method))
        size = ModelSize(8 * 10**9 if recipe.smallest else 10**8, 0, 1, 1, 1)
        assert recipe.suits(size.parameters)
        assert set(said(check_settings(recipe.method, options, size)).values()) <= {"passed"}, recipe.key
        assert recipe.source


@pytest.mark.usefixtures("data_dir")
def test_disk_and_memory_that_cannot_suffice_block() -> None:
    full = build_options("dpo", {"use_lora": False})
    here = [Hardware(2, 16.0, ())]
    assert said([*check_disk("dpo", full, BIG, 100), *check_memory("dpo", full, BIG, 512, here)]) == {
        "disk_short": "blocked",
        "memory_short": "blocked",
    }
    small = ModelSize(10**6, 10**4, 64, 2, 1000)
    assert said([*check_disk("dpo", full, small, 100), *check_memory("dpo", full, small, 512, here)]) == {
        "disk": "passed",
        "memory": "passed",
    }
    often = build_options("dpo", {"use_lora": True, "model_every_steps": 20})
    [blocked] = check_disk("dpo", often, dataclasses.replace(LLAMA_8B, parameters=10**12), 100)
    assert "4 more to evaluate" in sentence(blocked) and said([blocked]) == {"disk_short_of_step_models": "blocked"}
    assert said(check_disk("dpo", often, small, 100)) == {"disk_of_step_models": "passed"}
    assert said(check_disk("dpo", often, small, 20)) == {"disk": "passed"}, "the last step's model is the job's own"
    assert said(check_disk("reward", often, small, 100)) == {"disk": "passed"}, "reward models answer nothing"
    assert said(check_memory("dpo", full, BIG, 512, [])) == {"memory_estimate": "passed"}, "no machine is known"


def gb(method: str, *, reward_model: ModelSize | None = None, has_gpu: bool = False, **options: Any) -> float:
    """Of one process, where it computes."""
    given = {"use_lora": False, "micro_batch_size": 1, "batch_size": 8} | options
    built = build_options(method, (needed(method) if reward_model else {}) | given)
    return memory_of(LLAMA_8B, method, built, 512, reward_model=reward_model, has_gpu=has_gpu).computing / 1e9


def test_memory_counts_every_model_that_a_job_keeps() -> None:
    sft = gb("sft")
    assert 8 * 18 < sft < 8 * 18 + 10  # weights, cast weights, gradients and two moments, in float32 but for the cast
    rule = {"rule": "length", "rule_argument": "60"}
    assert gb("kto", micro_batch_size=2, batch_size=8) > sft + 32, "the reference"
    assert gb("grpo", **rule) == pytest.approx(sft + 32)
    assert gb("grpo", **rule, kl_coefficient=0) == pytest.approx(sft), "no reference is loaded"
    assert gb("ppo", **rule, kl_coefficient=0) == pytest.approx(sft + 32), "our own trainer loads one always"
    assert gb("ppo", reward_model=LLAMA_8B) == pytest.approx(sft + 64), "and the reward model"
    assert gb("ppo", reward_model=LLAMA_8B, use_lora=True) < 8 * (4 + 2 + 4) + 10, (
        "the adapter is switched off instead"
    )
    plain, grouped, single = (gb("sft", checkpoint_layers=layers, max_tokens=4096) for layers in (0, 2, 1))
    assert plain > grouped > single
    zero = {"launcher": "torchrun", "processes": 8}
    two, three = (gb("sft", has_gpu=True, **zero, zero_stage=stage) for stage in (2, 3))
    assert two == pytest.approx(sft - 8 * 12 + 8 * 16 / 8), "gradients and states are divided"
    assert three == pytest.approx(two - 8 * 6 * 7 / 8), "and the weights"
    assert gb("sft", has_gpu=True, **zero, zero_stage=3, offload="cpu") < 10


def test_all_processes_of_a_machine_are_counted_on_its_gpus_and_in_its_main_memory() -> None:
    def judged(machine: Hardware, gpus: int = 0, **options: Any) -> dict[str, str]:
        built = build_options("sft", {"micro_batch_size": 1, "batch_size": 8, **options})
        return said(check_memory("sft", built, LLAMA_8B, 512, [Hardware(2, 1.0, ()), machine], gpus=gpus))

    def with_gpus(count: int, each: float, main: float) -> Hardware:
        return Hardware(64, main, tuple(GPU(index, f"GPU-{index}", "A100", each) for index in range(count)))

    three = {"launcher": "torchrun", "processes": 8, "zero_stage": 3}
    assert judged(Hardware(64, 200.0, ())) == {"memory": "passed"}
    # Each process loads the whole model before it is divided.
    assert judged(Hardware(64, 200.0, ()), **three) == {"memory_of_processes_short": "blocked"}
    assert judged(with_gpus(1, 80.0, 1000.0), gpus=1) == {"memory_gpu_short": "blocked", "memory": "passed"}
    shared = {"memory_gpu_of_processes": "passed", "memory_of_processes": "passed"}
    assert judged(with_gpus(8, 80.0, 1000.0), gpus=8, **three) == shared
    assert judged(with_gpus(8, 80.0, 1000.0), **three) == shared, "every process takes one where there are some"
    assert judged(with_gpus(8, 80.0, 200.0), gpus=8, **three)["memory_of_processes_short"] == "blocked"
    estimates = {"memory_gpu_of_processes_estimate": "passed", "memory_of_processes_estimate": "passed"}
    assert judged(with_gpus(4, 80.0, 200.0), gpus=8, **three) == estimates, "no machine that is known has so many"


@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir")
def test_memory_is_that_of_the_workers_with_the_label(tiny_model: Path) -> None:
    announce_worker("train@small", "small", ["train"], Hardware(2, 0.1, ()), "1")
    gpu = GPU(0, "GPU-0", "A100", 80.0)
    announce_worker("train@big", "big", ["train.a100"], Hardware(64, 512.0, (gpu,)), "1")
    base = register_base_checkpoint("tiny", tiny_model)
    snapshot = create_snapshot(make_judged_project(2), "two", eval_share=0)
    options = build_options("dpo", {})
    assert said(run_checks(snapshot, "dpo", base, options).findings)["memory_short"] == "blocked"
    found = said(run_checks(snapshot, "dpo", base, options, label="a100", gpus=1).findings)
    assert (found["memory"], found["memory_gpu"]) == ("passed", "passed")


def test_what_a_full_run_and_an_adapter_take(tiny_model: Path) -> None:
    size = ModelSize.of(tiny_model)
    assert (size.hidden, size.layers) == (48, 2)
    # embeddings (tied), 2 layers of attention, feed-forward and norms, the last norm
    layer = 48 * 48 * 2 + 48 * 24 * 2 + 3 * 48 * 96 + 2 * 48
    assert size.parameters == size.vocabulary * 48 + 2 * layer + 48
    assert size.adaptable == 2 * (2 * (48 + 48) + 2 * (48 + 24) + 3 * (48 + 96))
    full, adapter = (build_options("dpo", {"use_lora": lora}) for lora in (False, True))
    assert disk_bytes(LLAMA_8B, full) == 8e9 * (3 * 12 + 4)
    assert disk_bytes(LLAMA_8B, adapter) == 3 * 12 * 16 * 2e6 + 8e9 * 4
    assert disk_bytes(LLAMA_8B, adapter, 4) == disk_bytes(LLAMA_8B, adapter) + 4 * 8e9 * 4


def test_only_some_options_may_change_on_resume(tmp_path: Path) -> None:
    written_with = {"learning_rate": 1e-5, "micro_batch_size": 4, "batch_size": 8, "checkpoint_every_steps": 50}
    write_json_atomically(tmp_path / OPTIONS_FILE, written_with)
    changed = {"micro_batch_size": 2, "checkpoint_every_steps": 5, "gradient_checkpointing": True}
    check_resumable(tmp_path, build_options("sft", changed))
    with pytest.raises(SpecError, match=r"learning_rate is 2e-05, and .* was written with 1e-05.*micro_batch_size"):
        check_resumable(tmp_path, build_options("sft", changed | {"learning_rate": 2e-5}))
