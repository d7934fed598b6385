"""Can these models be merged? Standard library only: the web side asks before a job is queued, the job once more."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf.jobspec import sha256_of_file
from rlhf.model_directory import check_model_directory, read_json, safetensors_header, weight_files
from rlhf.options import SpecError

# What changes the meaning of weights of the same shape; compared where both configs say it.
_TELLING = (
    "model_type", "hidden_act", "num_attention_heads", "num_key_value_heads", "head_dim", "rms_norm_eps", "rope_theta",
    "rope_parameters", "rope_scaling", "sliding_window", "tie_word_embeddings", "id2label",
)  # fmt: skip
_TOKENIZER_FILES = ("tokenizer.json", "chat_template.jinja")


def check_mergeable(base: Path, models: Mapping[str, Path]) -> None:
    """Raise SpecError, naming the file or the tensor, where a model is not whole or not of the base's own kind.

    `models` are directories by the names that people know them by.
    """
    check_model_directory(base)
    config, shapes = read_json(base / "config.json"), tensor_shapes(base)
    for name, model in models.items():
        check_model_directory(model)
        _check_config(config, name, read_json(model / "config.json"))
        _check_shapes(shapes, name, tensor_shapes(model))
        _check_tokenizer(base, name, model)


def tensor_shapes(directory: Path) -> dict[str, list[int]]:
    """Name → shape of each tensor of a model, from the headers of its files alone."""
    return {name: entry["shape"] for file in weight_files(directory) for name, entry in tensors_of(file).items()}


def tensors_of(file: Path) -> dict[str, dict[str, Any]]:
    return {name: entry for name, entry in safetensors_header(file).items() if name != "__metadata__"}


def _check_config(config: dict[str, Any], name: str, other: dict[str, Any]) -> None:
    ours, theirs = ((found.get("architectures") or ["no architecture"])[0] for found in (config, other))
    if ours != theirs:
        raise SpecError(
            f"the model {name} is of another architecture: {theirs}, and the base {ours}; only models trained from "
            "one base can be merged"
        )
    for key in _TELLING:
        if key in config and key in other and config[key] != other[key]:
            raise SpecError(
                f"the model {name} differs from the base: its config.json says {key} {other[key]!r}, not "
                f"{config[key]!r}; only models trained from one base can be merged"
            )


def _check_shapes(shapes: dict[str, list[int]], name: str, others: dict[str, list[int]]) -> None:
    for tensor, shape in shapes.items():
        if tensor not in others:
            raise SpecError(f"the model {name} has no tensor {tensor}, which the base has")
        if others[tensor] != shape:
            raise SpecError(
                f"the model {name} differs from the base: its tensor {tensor} is of shape {others[tensor]}, not "
                f"{shape}"
            )
    if extra := sorted(set(others) - set(shapes)):
        raise SpecError(f"the model {name} has a tensor {extra[0]}, which the base has not")


def _check_tokenizer(base: Path, name: str, model: Path) -> None:
    for file in _TOKENIZER_FILES:
        ours, theirs = (sha256_of_file(path / file) if (path / file).exists() else "" for path in (base, model))
        if ours != theirs:
            raise SpecError(
                f"the model {name} differs from the base: its {file} is another; their tokens would not mean the same"
            )
