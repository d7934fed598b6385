"""What this machine has to train on. Standard library only, so that a worker need not import torch to say so."""

from __future__ import annotations

import functools
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class GPU:
    """One GPU as nvidia-smi lists it."""

    index: int
    uuid: str
    name: str
    memory_gb: float
    """GB are 10^9 bytes."""


@dataclass(frozen=True)
class Hardware:
    cpu_cores: int
    memory_gb: float
    gpus: tuple[GPU, ...]


@functools.cache
def hardware() -> Hardware:
    """The cores that this process may use, the machine's memory, and its NVIDIA GPUs."""
    return Hardware(cpu_cores=len(os.sched_getaffinity(0)), memory_gb=round(_memory_bytes() / 1e9, 1), gpus=_gpus())


def _memory_bytes() -> int:
    """Physical memory, or the control group's limit where that is lower (a container's)."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = []
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # absent, or "max"
            continue
    return min([physical, *limits])


def _gpus() -> tuple[GPU, ...]:
    query = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = parse_gpus(answer.stdout) if answer.returncode == 0 else ()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return found
    named = {name.strip() for name in visible.split(",")}
    return tuple(gpu for gpu in found if {str(gpu.index), gpu.uuid} & named)


def parse_gpus(text: str) -> tuple[GPU, ...]:
    """The lines `index, uuid, name, MiB` of nvidia-smi; a line in another form is passed over."""
    gpus = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 4 and cells[0].isdecimal() and cells[3].isdecimal():
            gpus.append(GPU(int(cells[0]), cells[1], cells[2], round(int(cells[3]) * 2**20 / 1e9, 1)))
    return tuple(gpus)
