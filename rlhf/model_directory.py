"""Is this directory a model that can be trained from, scored with or served?

Standard library only: the web side asks before a job is queued, the training process before it loads anything.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from rlhf.jobspec import MANIFEST_FILE, check_manifest
from rlhf.options import SpecError


def check_model_directory(directory: Path) -> None:
    """Raise SpecError with a sentence that says what is wrong where the directory is missing or half written.

    A directory with a manifest must match it byte for byte. One without (brought in by a person) must hold a config, a
    tokenizer and whole safetensors files; pickled weights are never read, because they can run code.
    """
    if not directory.is_dir():
        raise SpecError(f"{directory} is not a directory: name the directory of a model")
    if (directory / MANIFEST_FILE).exists():
        check_manifest(directory)
    read_json(directory / "config.json")
    read_json(directory / "tokenizer.json")
    for file in weight_files(directory):
        safetensors_header(file)


def weight_files(directory: Path) -> list[Path]:
    """The model's safetensors files, whether they exist or not. Raises SpecError."""
    index = directory / "model.safetensors.index.json"
    if not index.exists():
        return [directory / "model.safetensors"]
    shards = sorted(set(read_json(index).get("weight_map", {}).values()))
    if not shards:
        raise SpecError(f"{index} names no weights: the model was not written to the end")
    return [directory / shard for shard in shards]


def model_kind(directory: Path) -> Literal["policy", "reward"]:
    """Whether the model writes text or scores it, by the architecture that its config names. Raises SpecError."""
    architectures = read_json(directory / "config.json").get("architectures") or [""]
    if architectures[0].endswith("ForSequenceClassification"):
        return "reward"
    if architectures[0].endswith("ForCausalLM"):
        return "policy"
    raise SpecError(f"{directory}: {architectures[0] or 'no architecture'} is neither a language nor a reward model")


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise SpecError(f"{path.parent} has no {path.name}: it is not a model directory, or half written") from None
    except ValueError:
        raise SpecError(f"{path} is not valid JSON: the model was not written to the end") from None
    if not isinstance(value, dict):
        raise SpecError(f"{path} does not hold a JSON object")
    return value


def safetensors_header(path: Path) -> dict[str, Any]:
    """Name → dtype, shape and offsets of each tensor, of a file that is whole. Raises SpecError.

    A safetensors file is 8 bytes of header length, a JSON header, then exactly the bytes that the header spans.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header_length = int.from_bytes(file.read(8), "little")
            if size < 8 + header_length:
                raise SpecError(f"{path} ends inside its header: it was not written to the end")
            header = json.loads(file.read(header_length))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        spans = [entry["data_offsets"][1] for entry in tensors.values()]
    except FileNotFoundError:
        raise SpecError(f"{path.parent} has no {path.name}; weights must be safetensors") from None
    except SpecError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise SpecError(f"{path} is not a safetensors file") from None
    expected = 8 + header_length + max(spans, default=0)
    if size != expected:
        raise SpecError(f"{path} holds {size} of {expected} bytes: it was not written to the end")
    return header
