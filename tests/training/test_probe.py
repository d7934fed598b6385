"""A model looked at before it is trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rlhf.training.probe import probe, scan_weights

pytestmark = [pytest.mark.training, pytest.mark.slow]

CONVERSATIONS = [
    [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "word " * words}]
    for words in (1, 30, 7, 90)
]


@pytest.mark.parametrize("kind", ["policy", "reward"])
def test_scores_of_a_sound_model_do_not_depend_on_the_batch(base: Path, kind: str) -> None:
    found = probe(kind, base, CONVERSATIONS)
    assert found["weights"] > 10_000
    assert found["broken"] == ""
    assert found["difference"] < 1e-4


def test_weights_that_are_not_numbers_are_named(base: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(base, tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    weights = load_file(file)
    name = sorted(weights)[-1]
    weights[name].view(-1)[5] = torch.nan
    save_file(weights, file, metadata={"format": "pt"})
    assert scan_weights(tmp_path / "model")[1] == name
    assert probe("policy", tmp_path / "model", CONVERSATIONS)["broken"] == name
