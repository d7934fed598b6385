"""Peak memory and time of one backward pass with gradient checkpoints over 0, 1, 2 … layers.

    python -m benchmarks.checkpointing [--layers 48] [--hidden 256] [--tokens 1024]

Each size runs in a process of its own over the same random Llama, so that peaks do not mix.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--size", type=int, help="measure one size in this process")
    arguments = parser.parse_args()
    if arguments.size is not None:
        print(*measure(arguments.layers, arguments.hidden, arguments.tokens, arguments.size))
        return
    from rlhf.checkpoint_layers import activations_per_layer, advised_layers

    shape = config(arguments.layers, arguments.hidden)
    print(f"n = {activations_per_layer(shape):.1f}, advised k = {advised_layers(shape)}")
    print("| layers per checkpoint | peak above the model, MB | CPU, s |\n|---|---|---|")
    for size in sorted({0, 1, 2, 3, 4, 8, advised_layers(shape)}):
        command = [sys.executable, "-m", "benchmarks.checkpointing", "--size", str(size)]
        command += ["--layers", str(arguments.layers), "--hidden", str(arguments.hidden)]
        command += ["--tokens", str(arguments.tokens)]
        peak, seconds = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
        print(f"| {size or 'off'} | {float(peak):.0f} | {float(seconds):.1f} |", flush=True)


def config(layers: int, hidden: int) -> dict[str, Any]:
    return {
        "vocab_size": 512,
        "hidden_size": hidden,
        "intermediate_size": hidden * 8 // 3,
        "num_hidden_layers": layers,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
    }


def measure(layers: int, hidden: int, tokens: int, size: int) -> tuple[float, float]:
    """Growth of the resident peak over forward and backward in MB (10^6 bytes), and CPU seconds."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rlhf.training.layer_groups import checkpoint_layers

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**config(layers, hidden))).train()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    checkpoint_layers(model, size)
    ids = torch.randint(0, 512, (1, tokens))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    model(ids, labels=ids, use_cache=False).loss.backward()
    seconds = time.process_time() - started
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e6, seconds


if __name__ == "__main__":
    main()
