"""The options beside what is usual, and beside the memory and the disk of this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings

from rlhf.footprint import ModelSize, disk_bytes, memory_bytes
from rlhf.options import DPOOptions, KTOOptions, TrainingOptions
from rlhf.preflight.findings import Finding, blocked, passed, warned
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


def check_memory(method: str, options: TrainingOptions, size: ModelSize, longest_row: int) -> Iterator[Finding]:
    """An estimate; where the workers are on this machine, beside what it has."""
    needed = memory_bytes(size, method, options, longest_row)
    if not settings.EMBEDDED_BROKER:
        yield passed("memory_estimate", needed=gigabytes(needed))
        return
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    said = {"needed": gigabytes(needed), "has": gigabytes(has)}
    yield passed("memory", **said) if needed < has else blocked("memory_short", **said)


def gigabytes(count: float) -> str:
    return f"{count / 1e9:,.1f}"


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
