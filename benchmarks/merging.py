"""Our merges against mergekit's, tensor by tensor: the largest difference of any weight.

    pip install --target DIR --no-deps mergekit immutables
    python -m benchmarks.merging --mergekit DIR

Three tiny models that were moved away from one base: the second goes on from where the first is, the third goes its
own way. Ours are job directories run through the launcher, mergekit's are its own command on the
same directories.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from rlhf import launcher
from rlhf.jobspec import MODEL_DIR, JobSpec, Result
from rlhf.options import build_options
from tests.tiny_model import build_tiny_model

WEIGHTS = (1.0, 2.0, 5.0)
SCALING = 0.4
WEIGHT_FILE = "model.safetensors"


def moved(model: Path, folder: Path, seed: int) -> Path:
    shutil.copytree(model, folder)
    random = np.random.default_rng(seed)
    weights = load_file(model / WEIGHT_FILE)
    changed = {name: (w + 0.01 * random.standard_normal(w.shape)).astype(w.dtype) for name, w in weights.items()}
    save_file(changed, folder / WEIGHT_FILE, metadata={"format": "pt"})
    return folder


def merge_here(folder: Path, base: Path, models: Sequence[Path], algorithm: str) -> Path:
    options: dict[str, Any] = {"models": ",".join(map(str, models)), "algorithm": algorithm}
    if algorithm != "model_stock":
        options["weights"] = ",".join(map(str, WEIGHTS))
    if algorithm == "task_arithmetic":
        options["scaling"] = SCALING
    spec = JobSpec(job_id=1, method="merge", base_model_dir=str(base), options=build_options("merge", options))
    launcher.prepare(folder, spec, [], [])
    launcher.start(folder).wait()
    result = Result.read(folder)
    if result is None or result.status != "succeeded":
        sys.exit(f"our merge failed: {result and result.error}\n{(folder / 'stdout.log').read_text()}")
    return folder / MODEL_DIR


def merge_there(folder: Path, base: Path, models: Sequence[Path], algorithm: str, mergekit: Path) -> Path:
    folder.mkdir()
    config: dict[str, Any] = {
        "merge_method": algorithm,
        "dtype": "float32",
        "models": [
            {"model": str(model)} | ({} if algorithm == "model_stock" else {"parameters": {"weight": weight}})
            for model, weight in zip(models, WEIGHTS, strict=True)
        ],
    }
    if algorithm != "linear":
        config["base_model"] = str(base)
    if algorithm == "task_arithmetic":
        config["parameters"] = {"lambda": SCALING, "normalize": False}
    (folder / "merge.yaml").write_text(json.dumps(config))  # JSON is YAML
    command = [sys.executable, "-m", "mergekit.scripts.run_yaml", str(folder / "merge.yaml"), str(folder / "model")]
    environment = os.environ | {"PYTHONPATH": str(mergekit), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"mergekit failed:\n{done.stderr[-3000:]}")
    return folder / "model"


def weights_of(model: Path) -> dict[str, np.ndarray]:
    return {name: tensor for file in sorted(model.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergekit", type=Path, required=True, help="the folder that it was installed into")
    mergekit = parser.parse_args().mergekit.resolve()
    with tempfile.TemporaryDirectory(prefix="merging-") as name:
        folder = Path(name)
        base = build_tiny_model(folder / "base")
        first = moved(base, folder / "one", 1)
        models = [first, moved(first, folder / "two", 2), moved(base, folder / "three", 3)]
        start = load_file(base / WEIGHT_FILE)
        print("| algorithm | tensors | largest change from the base | largest difference |\n|---|---|---|---|")
        for algorithm in ("linear", "task_arithmetic", "model_stock"):
            ours = weights_of(merge_here(folder / f"here-{algorithm}", base, models, algorithm))
            theirs = weights_of(merge_there(folder / f"there-{algorithm}", base, models, algorithm, mergekit))
            if ours.keys() != theirs.keys():
                sys.exit(f"{algorithm}: not the same tensors: {sorted(ours.keys() ^ theirs.keys())}")
            change = max(float(np.abs(ours[name] - start[name]).max()) for name in ours)
            difference = max(float(np.abs(ours[name] - theirs[name]).max()) for name in ours)
            print(f"| `{algorithm}` | {len(ours)} | {change:.3f} | {difference:.1e} |", flush=True)


if __name__ == "__main__":
    main()
