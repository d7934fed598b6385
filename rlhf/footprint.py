"""How much memory and disk a training run takes, told from the files of its base model.

Standard library only: the web side estimates before a job is queued, a worker before it starts one.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from rlhf.jobspec import CHECKPOINTS_KEPT
from rlhf.model_directory import safetensors_header, weight_files
from rlhf.options import TrainingOptions, world_size

FLOAT32 = 4
# Adam keeps two moments per trained weight, in float32.
_OPTIMIZER_BYTES = 2 * FLOAT32
# Python with torch, transformers, datasets and TRL imported, before any weight: measured 0.75 GB on a CPU.
_LIBRARIES_BYTES = 750_000_000
# 16-bit activations of one transformer layer that stay for the backward pass, per token and unit of hidden size
# (Korthikanti et al. 2022, eq. 2, without the attention scores, which fused attention does not keep).
_ACTIVATION_BYTES = 34
# Logits in float32, their gradient, and the softmax in between.
_LOGIT_BYTES = 10

_PAIRED = {"reward", "dpo"}
_WITH_REFERENCE = {"kto", "grpo", "rloo", "ppo", "grpo_token_kl"}
# TRL loads none where nothing would be asked of it.
_WITHOUT_REFERENCE_AT_0 = {"grpo", "rloo"}


@dataclass(frozen=True)
class ModelSize:
    """What the estimates need to know of a model."""

    parameters: int
    adaptable: int
    """Sum of input and output size over all linear layers but the output layer: a LoRA of rank r adds r times as many
    weights."""
    hidden: int
    layers: int
    vocabulary: int

    @classmethod
    def of(cls, directory: Path) -> ModelSize:
        """Read from config.json and the headers of the weight files. Raises SpecError."""
        config = json.loads((directory / "config.json").read_bytes())
        shapes = {
            name: entry["shape"]
            for file in weight_files(directory)
            for name, entry in safetensors_header(file).items()
            if name != "__metadata__"
        }
        linear = [
            sum(shape)
            for name, shape in shapes.items()
            if len(shape) == 2 and "embed" not in name and "head" not in name
        ]
        return cls(
            parameters=sum(math.prod(shape) for shape in shapes.values()),
            adaptable=sum(linear),
            hidden=int(config.get("hidden_size") or 0),
            layers=int(config.get("num_hidden_layers") or 0),
            vocabulary=int(config.get("vocab_size") or 0),
        )

    def trained(self, options: TrainingOptions) -> int:
        """How many weights the optimizer moves."""
        return options.lora_rank * self.adaptable if options.use_lora else self.parameters


@dataclass(frozen=True)
class Memory:
    """Bytes that one process of a job takes at its peak, where it computes and in main memory."""

    computing: int
    """On its GPU; without one, in main memory."""
    main: int
    """Beside a GPU: what is loaded before it moves there, and what is offloaded."""


def keeps_reference(method: str, options: TrainingOptions) -> bool:
    """Whether a second whole model stays in memory: an adapter is switched off instead, and DPO computes what its
    reference says before the first step."""
    if options.use_lora or method not in _WITH_REFERENCE:
        return False
    return method not in _WITHOUT_REFERENCE_AT_0 or getattr(options, "kl_coefficient", 0.0) > 0


def memory_of(
    model: ModelSize,
    method: str,
    options: TrainingOptions,
    longest_row: int,
    *,
    reward_model: ModelSize | None = None,
    has_gpu: bool = False,
) -> Memory:
    """An estimate for one process, with a micro-batch of rows as long as the longest.

    ZeRO-2 divides gradients and optimizer states among the processes, ZeRO-3 the weights too, once they are loaded; a
    reward model is whole in every process.
    """
    bf16 = options.bf16 and (has_gpu or not options.zero_stage)  # DeepSpeed computes in float32 on a CPU
    trained, world = model.trained(options), world_size(options)
    copies = 2 if keeps_reference(method, options) else 1
    whole = model.parameters * FLOAT32 * copies
    scorer = reward_model.parameters * FLOAT32 if reward_model else 0
    weights = whole + (trained * FLOAT32 if options.use_lora else 0)
    if bf16:
        weights += model.parameters * 2  # autocast keeps the cast weights until the step ends
    states = trained * (FLOAT32 + _OPTIMIZER_BYTES)
    if options.zero_stage:
        states += trained * FLOAT32  # each keeps a flat copy of the weights whose states it holds
        states = math.ceil(states / world)
    # ZeRO-2 divides nothing of the reference, ZeRO-3 divides it like the policy.
    divided = math.ceil(weights / world) if options.zero_stage == 3 else weights
    offloaded = 0
    if options.offload == "cpu":
        offloaded = states + (divided if options.zero_stage == 3 else 0)
    computing = divided + states - offloaded + scorer + _activation_bytes(model, method, options, longest_row, bf16)
    loading = whole + scorer
    if not has_gpu:
        peak = _LIBRARIES_BYTES + max(computing + offloaded, loading)
        return Memory(peak, peak)
    return Memory(_LIBRARIES_BYTES + computing, _LIBRARIES_BYTES + max(loading, offloaded))


def _activation_bytes(model: ModelSize, method: str, options: TrainingOptions, longest_row: int, bf16: bool) -> int:
    rows = options.micro_batch_size * (2 if method in _PAIRED else 1)
    tokens = rows * math.ceil(longest_row / options.sequence_parallel)
    hidden = model.hidden * (2 if bf16 else FLOAT32)
    per_layer = model.hidden * _ACTIVATION_BYTES * (1 if bf16 else 2)
    # With a checkpoint for each group of layers: the inputs of all groups, and one group computed again.
    group = min(1 if options.gradient_checkpointing else options.checkpoint_layers, model.layers)
    layers = per_layer * group + hidden * math.ceil(model.layers / group) if group else per_layer * model.layers
    logits = 0 if method == "reward" else model.vocabulary * _LOGIT_BYTES
    return tokens * (layers + logits)


def disk_bytes(model: ModelSize, options: TrainingOptions, step_models: int = 0) -> int:
    """What a job needs while it runs: the checkpoints kept, one being written, and the model at the end.

    step_models: whole models that it saves on the way, all of which stay.
    """
    checkpoint = model.trained(options) * (FLOAT32 + _OPTIMIZER_BYTES)
    # While one is written, those that it will replace are there still.
    return (CHECKPOINTS_KEPT + 1) * checkpoint + (step_models + 1) * model.parameters * FLOAT32
