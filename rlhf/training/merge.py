"""Merging models that were trained from one base: `python -m rlhf.training.merge JOB_DIR`.

θ0 is the base, θi the N models, w their weights, λ the scaling; each tensor on its own, computed in float32:

    linear            Σ wi·θi / Σ wi
    task_arithmetic   θ0 + λ·Σ wi·(θi − θ0)                       Ilharco et al. 2022 (arXiv 2212.04089)
    model_stock       t·mean(θi) + (1 − t)·θ0,                    Jang et al. 2024 (arXiv 2403.19522), eq. 6
                      t = N·cos φ / (1 + (N − 1)·cos φ)

where cos φ is the mean cosine between the changes θi − θ0 of each two models. t is kept within 0 … 1: changes that
pull apart (cos φ < 0) leave a tensor as the base has it.

Differs from mergekit in nothing that changes a value: it reads one tensor of each model at a time, keeps one output
file in memory, and needs no further library.
"""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rlhf.jobspec import MODEL_DIR, BadDataError, publish_directory
from rlhf.model_directory import weight_files
from rlhf.model_match import check_mergeable, tensors_of
from rlhf.options import MergeOptions
from rlhf.training.job import Job, main

if TYPE_CHECKING:
    import torch

_COPIED = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "chat_template.jinja", "vocab.json", "merges.txt", "tokenizer.model",
)  # fmt: skip
_LINES_LOGGED = 20


def train(job: Job) -> dict[str, float]:
    """Merge and save; gives the metrics of result.json."""
    options = cast(MergeOptions, job.spec.options)
    models = [Path(name) for name in options.model_names]
    check_mergeable(job.base, {str(model): model for model in models})
    draft = job.directory / f".{MODEL_DIR}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        metrics = _merge_files(job, options, models, draft)
        if not job.stopped:
            publish_directory(draft, job.directory / MODEL_DIR)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return metrics


def _merge_files(job: Job, options: MergeOptions, models: Sequence[Path], draft: Path) -> dict[str, float]:
    import torch
    from safetensors.torch import save_file

    sources = [TensorReader(directory) for directory in (job.base, *models)]
    total = sum(len(tensors_of(file)) for file in weight_files(job.base))
    shares: list[float] = []  # t of each tensor
    done = size = 0
    dtype = torch.float32
    for file in weight_files(job.base):
        merged: dict[str, torch.Tensor] = {}
        for name in sorted(tensors_of(file)):
            base, *others = (source.read(name) for source in sources)
            dtype = _widest([base, *others])
            merged[name], share = merge_tensor(base.float(), [other.float() for other in others], options)
            merged[name] = merged[name].to(dtype).contiguous()
            shares += [] if share is None else [share]
            done += 1
            _report(job, done, total, shares)
            if job.stopped:
                return {}
        size += sum(tensor.nbytes for tensor in merged.values())
        save_file(merged, draft / file.name, metadata={"format": "pt"})
    for name in _COPIED:
        if (job.base / name).exists():
            shutil.copyfile(job.base / name, draft / name)
    _correct_config(draft, str(dtype).removeprefix("torch."))
    index = "model.safetensors.index.json"
    if (job.base / index).exists():
        content = json.loads((job.base / index).read_text())
        (draft / index).write_text(json.dumps(content | {"metadata": {"total_size": size}}, indent=1))
    metrics = {"tensors": float(total), "models": float(len(models))}
    return metrics | ({"mean_t": sum(shares) / len(shares)} if shares else {})


def merge_tensor(
    base: torch.Tensor, models: Sequence[torch.Tensor], options: MergeOptions
) -> tuple[torch.Tensor, float | None]:
    """One merged tensor, and t where model_stock found one."""
    weights = options.model_weights
    if options.algorithm == "linear":
        return _weighted_sum(models, weights) / sum(weights), None
    changes = [model - base for model in models]
    if options.algorithm == "task_arithmetic":
        return base + options.scaling * _weighted_sum(changes, weights), None
    share = stock_share(changes)
    return base + share * _weighted_sum(changes, weights) / len(changes), share


def stock_share(changes: Sequence[torch.Tensor]) -> float:
    """t of Model Stock: how far to go from the base to the models' mean, 0 … 1."""
    import torch

    flat = [change.flatten().double() for change in changes]
    norms = [float(torch.linalg.vector_norm(change)) for change in flat]
    # A tensor that a model left alone has no direction: it says nothing for moving away from the base.
    cosines = [
        float(flat[a] @ flat[b]) / (norms[a] * norms[b]) if norms[a] and norms[b] else 0.0
        for a, b in itertools.combinations(range(len(flat)), 2)
    ]
    cosine = sum(cosines) / len(cosines)
    count = len(changes)
    if cosine <= 0:
        return 0.0
    return min(1.0, count * cosine / (1 + (count - 1) * cosine))


def _weighted_sum(tensors: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    total = tensors[0] * weights[0]
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        total += tensor * weight
    return total


def _widest(tensors: Sequence[torch.Tensor]) -> torch.dtype:
    import torch

    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


class TensorReader:
    """Reads one tensor of a model at a time from its memory-mapped files."""

    def __init__(self, directory: Path) -> None:
        self.files = {name: file for file in weight_files(directory) for name in tensors_of(file)}

    def read(self, name: str) -> torch.Tensor:
        """Raises BadDataError where a weight is not a number."""
        from safetensors import safe_open

        path = self.files[name]
        with safe_open(path, framework="pt") as file:
            tensor = file.get_tensor(name)
        if not tensor.isfinite().all():
            raise BadDataError(f"{path}: tensor {name} holds a weight that is not a finite number; use another model")
        return tensor


def _report(job: Job, done: int, total: int, shares: list[float]) -> None:
    job.heartbeat()
    # A half-merged model is of no use: keeping what there is means keeping nothing.
    job.stopped = job.asked_to_stop()
    if done % max(1, total // _LINES_LOGGED) == 0 or done == total:
        print(f"{done} of {total} tensors", flush=True)
        line = {"step": done, "total_steps": total, "time": time.time()}
        job.write_metrics(line | ({"t": shares[-1]} if shares else {}))


def _correct_config(draft: Path, dtype: str) -> None:
    """The config is the base's own, but for the type of the weights, and for sampling, as in every model we write."""
    path = draft / "config.json"
    config = json.loads(path.read_text()) | {"dtype": dtype}
    config.pop("torch_dtype", None)
    path.write_text(json.dumps(config, indent=2) + "\n")
    path = draft / "generation_config.json"
    if path.exists():
        path.write_text(json.dumps(json.loads(path.read_text()) | {"do_sample": True}, indent=2) + "\n")


if __name__ == "__main__":
    main("merge", train, "Merging models that were trained from one base.")
