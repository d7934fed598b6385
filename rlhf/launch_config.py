"""A launch as a file: what to train, from what, on what and how. Standard library only.

    {"format": 1, "method": "dpo", "snapshot": "helpful-r2", "base": "smollm2-135m-instruct", "name": "",
     "label": "a100", "gpus": 2, "priority": "high", "options": {"learning_rate": 1e-4, …}}

Read from JSON or TOML. A key that is not known is an error that names it: an option that is misspelt must not be
trained without.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from dataclasses import dataclass, field
from typing import Any

from rlhf.options import SpecError, build_options

FORMAT = 1
LARGEST_FILE_BYTES = 64_000
MOST_GPUS = 64
PRIORITIES = ("low", "normal", "high")


@dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """Data set and base by name, because their numbers mean nothing elsewhere; options may be a part of all."""

    method: str
    snapshot: str = ""
    base: str = ""
    name: str = ""
    label: str = ""
    gpus: int = 0
    priority: str = "normal"
    options: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {"format": FORMAT, **dataclasses.asdict(self)}

    def as_json(self) -> str:
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n"

    def as_toml(self) -> str:
        head = {name: value for name, value in self.as_dict().items() if name != "options"}
        return "\n".join([*_toml_lines(head), "", "[options]", *_toml_lines(self.options), ""])


def _toml_lines(values: dict[str, Any]) -> list[str]:
    # JSON's strings, numbers, true and false are TOML's as well.
    return [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]


def parse_config(text: str) -> LaunchConfig:
    """Read a config in JSON or TOML. Raises SpecError."""
    is_json = text.lstrip().startswith("{")
    try:
        raw = json.loads(text) if is_json else tomllib.loads(text)
    except ValueError as error:  # JSONDecodeError and TOMLDecodeError
        raise SpecError(f"the config is not valid {'JSON' if is_json else 'TOML'}: {error}") from None
    except RecursionError:
        raise SpecError("the config is nested too deeply to be one of ours") from None
    known = {"format", *(one.name for one in dataclasses.fields(LaunchConfig))}
    if unknown := set(raw) - known:
        raise SpecError(f"unknown key {min(unknown)!r} in the config; known: {', '.join(sorted(known))}")
    if raw.get("format", FORMAT) != FORMAT:
        raise SpecError(f"the config's format is {raw['format']!r}, and this version reads {FORMAT}")
    if "method" not in raw:
        raise SpecError("the config names no method")
    for name in ("method", "snapshot", "base", "name", "label"):
        if not isinstance(raw.get(name, ""), str):
            raise SpecError(f"{name} in the config must be a text, not {raw[name]!r}")
    gpus, priority = raw.get("gpus", 0), raw.get("priority", "normal")
    if not isinstance(gpus, int) or isinstance(gpus, bool) or not 0 <= gpus <= MOST_GPUS:
        raise SpecError(f"gpus in the config must be a whole number from 0 to {MOST_GPUS}, not {gpus!r}")
    if priority not in PRIORITIES:
        raise SpecError(f"priority in the config must be one of {', '.join(PRIORITIES)}, not {priority!r}")
    options = raw.get("options", {})
    if not isinstance(options, dict):
        raise SpecError(f"options in the config must be a table, not {options!r}")
    config = LaunchConfig(**{name: value for name, value in raw.items() if name != "format"})
    build_options(config.method, options)
    return config
