"""The options beside what is usual, and beside the memory and the disk of this machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings

from rlhf.footprint import ModelSize, disk_bytes, memory_of
from rlhf.hardware import Hardware
from rlhf.options import DPOOptions, KTOOptions, TrainingOptions
from rlhf.preflight.findings import Finding, blocked, passed, warned, worst
from rlhf.recipes import band_for, beta_band

# Ten times the usual is a slip of the keyboard or of a unit.
_FAR_OUTSIDE = 10


def check_settings(method: str, options: TrainingOptions, size: ModelSize) -> Iterator[Finding]:
    """Learning rate, epochs and beta against the bands of the method, size and loss."""
    band = band_for(method, use_lora=options.use_lora, parameters=size.parameters)
    if band is None:
        return
    rate = options.learning_rate
    said = {"rate": rate, "lowest": band.lowest, "highest": band.highest}
    if band.lowest <= rate <= band.highest:
        yield passed("rate_usual", **said)
    elif rate > band.highest:
        yield (blocked if rate > _FAR_OUTSIDE * band.highest else warned)("rate_high", **said)
    else:
        yield (blocked if rate < band.lowest / _FAR_OUTSIDE else warned)("rate_low", **said)
    if not options.max_steps and options.epochs > band.most_epochs:
        yield warned("epochs_many", epochs=options.epochs, most=band.most_epochs)
    if isinstance(options, DPOOptions | KTOOptions):
        lowest, highest = beta_band([options.loss_type])
        if not lowest <= options.beta <= highest:
            yield warned("beta_unusual", beta=options.beta, loss=options.loss_type, lowest=lowest, highest=highest)


def check_disk(method: str, options: TrainingOptions, size: ModelSize, steps: int) -> Iterator[Finding]:
    """steps: how many optimizer steps the job takes."""
    every = 0 if method == "reward" else options.model_every_steps  # a reward model answers no evaluation
    models = (steps - 1) // every if every else 0  # the last step's is the job's own
    needed, free = disk_bytes(size, options, models), shutil.disk_usage(_existing(settings.JOBS_DIR)).free
    said: dict[str, Any] = {"needed": gigabytes(needed), "free": gigabytes(free)}
    if models:
        said["models"] = models
        fits, too_much = passed("disk_of_step_models", **said), blocked("disk_short_of_step_models", **said)
    else:
        fits, too_much = passed("disk", **said), blocked("disk_short", **said)
    yield fits if needed < free else too_much


def check_memory(
    method: str,
    options: TrainingOptions,
    size: ModelSize,
    longest_row: int,
    machines: Sequence[Hardware],
    *,
    reward_model: ModelSize | None = None,
    gpus: int = 0,
) -> Iterator[Finding]:
    """An estimate of all processes that run on one machine, beside the best of `machines`, if any is known."""
    processes = options.processes

    def judged(machine: Hardware | None) -> list[Finding]:
        gpu_gb = sorted((gpu.memory_gb for gpu in machine.gpus), reverse=True) if machine else []
        has_gpu = bool(gpu_gb or gpus)
        memory = memory_of(size, method, options, longest_row, reward_model=reward_model, has_gpu=has_gpu)
        found = [_fits("memory", processes * memory.main, machine.memory_gb if machine else None, processes)]
        if has_gpu:
            smallest = gpu_gb[max(gpus, processes) - 1] if gpu_gb else None
            found.insert(0, _fits("memory_gpu", memory.computing, smallest, processes))
        return found

    able = [machine for machine in machines if can_run(machine, gpus, processes)]
    yield from min((judged(machine) for machine in able), key=worst, default=judged(None))


def can_run(machine: Hardware, gpus: int, processes: int) -> bool:
    """Whether it has a GPU for each process, or none at all and none is asked for."""
    return len(machine.gpus) >= max(gpus, processes) if machine.gpus else not gpus


def _fits(code: str, needed: int, has_gb: float | None, processes: int) -> Finding:
    said: dict[str, Any] = {"needed": gigabytes(needed)}
    if processes > 1:
        code, said["processes"] = f"{code}_of_processes", processes
    if has_gb is None:
        return passed(f"{code}_estimate", **said)
    said["has"] = gigabytes(has_gb * 1e9)
    return passed(code, **said) if needed < has_gb * 1e9 else blocked(f"{code}_short", **said)


def gigabytes(count: float) -> str:
    return f"{count / 1e9:,.1f}"


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
