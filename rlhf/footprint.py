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
from rlhf.options import TrainingOptions

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


def memory_bytes(model: ModelSize, method: str, options: TrainingOptions, longest_row: int) -> int:
    """An estimate of a process's peak, with a micro-batch of rows as long as the longest and nothing sharded."""
    trained = model.trained(options)
    weights = model.parameters * FLOAT32 + (trained * FLOAT32 if options.use_lora else 0)
    if options.bf16:
        weights += model.parameters * 2  # autocast keeps the cast weights until the step ends
    states = trained * (FLOAT32 + _OPTIMIZER_BYTES)
    tokens = options.micro_batch_size * longest_row * (2 if method in _PAIRED else 1)
    per_layer = model.hidden * _ACTIVATION_BYTES * (1 if options.bf16 else 2)
    layers = (
        per_layer + model.layers * model.hidden * 2 if options.gradient_checkpointing else per_layer * model.layers
    )
    logits = 0 if method == "reward" else model.vocabulary * _LOGIT_BYTES
    return _LIBRARIES_BYTES + weights + states + tokens * (layers + logits)


def disk_bytes(model: ModelSize, options: TrainingOptions, step_models: int = 0) -> int:
    """What a job needs while it runs: the checkpoints kept, one being written, and the model at the end.

    step_models: whole models that it saves on the way, all of which stay.
    """
    checkpoint = model.trained(options) * (FLOAT32 + _OPTIMIZER_BYTES)
    # While one is written, those that it will replace are there still.
    return (CHECKPOINTS_KEPT + 1) * checkpoint + (step_models + 1) * model.parameters * FLOAT32
