"""Gradient checkpoints over several layers: same numbers, less memory."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf.checkpoint_layers import activations_per_layer, advised_layers
from rlhf.options import SpecError, build_options
from tests.training.conftest import JobRunner, losses_of
from tests.training.test_methods import weights


def deep_llama(layers: int) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    return LlamaForCausalLM(config).train()


def gradients(model: Any) -> tuple[dict[str, Any], int]:
    """Of one step, and how many numbers autograd kept for it."""
    import torch

    kept = 0

    def pack(tensor: Any) -> Any:
        nonlocal kept
        kept += tensor.numel() if not isinstance(tensor, torch.nn.Parameter) else 0
        return tensor

    ids = torch.arange(48)[None] % 60
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(ids, labels=ids, use_cache=False).loss
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters()}, kept


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_gradients_are_equal_with_and_without_and_less_is_kept(size: int) -> None:
    import torch

    from rlhf.training.layer_groups import checkpoint_layers

    plain, kept_by_plain = gradients(deep_llama(8))
    model = deep_llama(8)
    names = list(model.state_dict())
    checkpoint_layers(model, size)
    grouped, kept = gradients(model)
    for name, value in plain.items():
        torch.testing.assert_close(grouped[name], value, rtol=1e-5, atol=1e-7)
    assert list(model.state_dict()) == names
    assert kept < kept_by_plain / 2
    with torch.no_grad():  # it still generates, with its cache
        text = model.eval().generate(torch.arange(5)[None], max_new_tokens=4, do_sample=False)
        same = deep_llama(8).eval().generate(torch.arange(5)[None], max_new_tokens=4, do_sample=False)
    assert text.tolist() == same.tolist()


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.parametrize("method", ["ppo", "grpo_token_kl"])
def test_our_own_methods_group_layers_and_learn_the_same(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    from rlhf.training import layer_groups

    calls = 0
    checkpoint = layer_groups.checkpoint

    def counted(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        return checkpoint(*given, **named)

    monkeypatch.setattr(layer_groups, "checkpoint", counted)
    options = {"rule": "vocabulary_half", "rule_argument": "lower", "max_completion_tokens": 8, "max_steps": 2}
    options |= {"samples_per_prompt": 2, "update_epochs": 1, "use_lora": False, "eval_rows": []}
    plain = losses_of(jobs.run("plain", method, **options))
    assert calls == 0
    grouped = losses_of(jobs.run("grouped", method, checkpoint_layers=2, **options))
    assert calls >= 2 * 2, "in each pass of both steps"
    assert grouped == pytest.approx(plain, rel=1e-4, abs=1e-6)


@pytest.mark.slow
@pytest.mark.training
def test_jobs_with_and_without_it_end_with_the_same_model(jobs: JobRunner) -> None:
    import numpy as np

    both: dict[str, dict[str, Any]] = {"sft": {"packing": True, "max_tokens": 200}, "dpo": {"use_lora": True}}
    for method, options in both.items():
        runs = [
            jobs.run(f"{method}-{size}", method, checkpoint_layers=size, max_steps=3, **options) for size in (0, 2)
        ]
        assert losses_of(runs[0]) == pytest.approx(losses_of(runs[1]), rel=1e-5)
        plain, grouped = (weights(run / "model") for run in runs)
        for name, value in plain.items():
            np.testing.assert_allclose(grouped[name], value, atol=1e-5)


@pytest.mark.slow
@pytest.mark.training
def test_a_model_that_cannot_be_grouped_is_refused() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    from rlhf.training.layer_groups import checkpoint_layers

    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=64, n_embd=24, n_layer=2, n_head=2))
    with pytest.raises(SpecError, match="GPT2LMHeadModel cannot be grouped; choose 0"):
        checkpoint_layers(model, 2)


def test_the_advice_is_the_least_of_its_formula() -> None:
    small = {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
             "hidden_size": 576, "intermediate_size": 1536}  # fmt: skip
    kept = activations_per_layer(small)
    assert kept == pytest.approx(4 + 2 + 1 + 1 + 4 * 1536 / 576)
    assert advised_layers(small) == 1
    for layers in (30, 80, 160, 400):
        best = advised_layers(small | {"num_hidden_layers": layers})
        assert best == min(range(1, layers), key=lambda k: k * kept + layers / k)
    assert advised_layers({}) == 1


def test_two_ways_of_checkpointing_at_once_are_refused() -> None:
    with pytest.raises(SpecError, match="checkpoint_layers 2 and gradient_checkpointing"):
        build_options("sft", {"checkpoint_layers": 2, "gradient_checkpointing": True})
