"""A model directory that is missing, half written or damaged is refused with a sentence, before anything is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf.jobspec import write_manifest
from rlhf.model_directory import check_model_directory, model_kind
from rlhf.options import SpecError


def safetensors(values: int) -> bytes:
    header = json.dumps({"weight": {"dtype": "F32", "shape": [values], "data_offsets": [0, 4 * values]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4 * values)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (directory / "tokenizer.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(safetensors(1000))
    return directory


def test_a_whole_directory_passes_with_and_without_a_manifest(model: Path) -> None:
    check_model_directory(model)
    write_manifest(model)
    check_model_directory(model)


def truncate(name: str) -> Callable[[Path], None]:
    def apply(model: Path) -> None:
        data = (model / name).read_bytes()
        (model / name).write_bytes(data[: len(data) // 2])

    return apply


def make_pickled(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def make_sharded(model: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shutil.rmtree, "is not a directory"),
        (lambda model: (model / "config.json").unlink(), "has no config.json"),
        (lambda model: (model / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (truncate("config.json"), "config.json is not valid JSON"),
        (truncate("model.safetensors"), "model.safetensors holds 20"),
        (lambda model: (model / "model.safetensors").write_bytes(b"12345678{"), "ends inside its header"),
        (lambda model: (model / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0[]"), "is not a safetensors file"),
        (make_pickled, "weights must be safetensors"),
        (make_sharded, "has no model-00002-of-00002.safetensors"),
    ],
)
def test_anything_less_is_refused(model: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(model)
    with pytest.raises(SpecError, match=words):
        check_model_directory(model)


def test_a_file_that_is_not_the_manifest_s_is_refused(model: Path) -> None:
    write_manifest(model)
    (model / "config.json").write_text('{"architectures": ["MistralForCausalLM"]}')
    with pytest.raises(SpecError, match=r"config.json is not the file that its manifest describes"):
        check_model_directory(model)


def test_kinds_are_told_by_the_architecture(model: Path) -> None:
    assert model_kind(model) == "policy"
    (model / "config.json").write_text('{"architectures": ["LlamaForSequenceClassification"]}')
    assert model_kind(model) == "reward"
    (model / "config.json").write_text('{"architectures": ["BertModel"]}')
    with pytest.raises(SpecError, match="BertModel is neither"):
        model_kind(model)
