"""The options of each training method, with defaults, help and bounds. Standard library only (see rlhf/jobspec.py)."""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass
from typing import Any, Literal


class SpecError(ValueError):
    """A spec or an option that cannot be used; the sentence names the key and says what to do."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What every method understands."""

    learning_rate: float = 1e-5
    """Peak, after warm-up."""
    epochs: float = 1.0
    """Passes over train.jsonl; ignored where max_steps is set."""
    max_steps: int = 0
    """Optimizer steps; 0 means as many as `epochs` asks for."""
    batch_size: int = 8
    """Rows (pairs, for reward and DPO) per optimizer step, over all processes."""
    micro_batch_size: int = 4
    """Rows per forward pass and process; batch_size must be a multiple of it."""
    max_tokens: int = 512
    """Prompt and completion together. Longer rows are left out, counted and shown: never cut in silence."""
    warmup_share: float = 0.1
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: float = 0.0
    scheduler: Literal["linear", "cosine", "constant"] = "linear"
    use_lora: bool = False
    lora_rank: int = 16
    lora_alpha: int = 32
    bf16: bool = True
    """bfloat16 autocast over float32 weights."""
    gradient_checkpointing: bool = False
    """Trades about a tenth more time for less memory."""
    checkpoint_every_steps: int = 50
    eval_every_steps: int = 0
    """0 evaluates at the end only."""
    seed: int = 17


@dataclass(frozen=True, kw_only=True)
class SFTOptions(TrainingOptions):
    """Supervised fine-tuning on the preferred responses (TRL SFTTrainer)."""

    learning_rate: float = 1e-5
    epochs: float = 2.0
    packing: bool = False


@dataclass(frozen=True, kw_only=True)
class RewardOptions(TrainingOptions):
    """A Bradley–Terry reward model (TRL RewardTrainer)."""

    learning_rate: float = 2e-5
    center_rewards_coefficient: float = 0.0
    """Pulls the mean reward to 0 (Eisenstein et al. 2023); 0.01 is usual, 0 is off."""


@dataclass(frozen=True, kw_only=True)
class DPOOptions(TrainingOptions):
    """Direct preference optimisation (Rafailov et al. 2023; TRL DPOTrainer)."""

    learning_rate: float = 1e-4
    epochs: float = 2.0
    use_lora: bool = True
    beta: float = 0.1
    """How strongly the policy is held to the reference model."""
    loss_type: Literal["sigmoid", "hinge", "ipo", "robust"] = "sigmoid"
    label_smoothing: float = 0.0
    """Assumed share of wrong votes, 0 … 0.5; for loss_type robust."""


@dataclass(frozen=True, kw_only=True)
class KTOOptions(TrainingOptions):
    """Kahneman–Tversky optimisation on single responses, desirable or not (Ethayarajh et al. 2024; TRL KTOTrainer)."""

    learning_rate: float = 1e-4
    use_lora: bool = True
    beta: float = 0.1
    """How strongly the policy is held to the reference model."""
    desirable_weight: float = 1.0
    """Weigh the two kinds so that weight times rows is 1 to 4/3 as large for the desirable (section 4.1 there)."""
    undesirable_weight: float = 1.0


OPTIONS: dict[str, type[TrainingOptions]] = {
    "sft": SFTOptions,
    "reward": RewardOptions,
    "dpo": DPOOptions,
    "kto": KTOOptions,
}


def build_options(method: str, given: dict[str, Any]) -> TrainingOptions:
    """The method's options with `given` in place of the defaults.

    Values may be strings (a form, `--set key=value`) or already typed (JSON). Raises SpecError that names the option.
    """
    if method not in OPTIONS:
        raise SpecError(f"unknown method {method!r}; known: {', '.join(OPTIONS)}")
    cls = OPTIONS[method]
    hints = typing.get_type_hints(cls)
    if unknown := set(given) - set(hints):
        raise SpecError(f"unknown option {sorted(unknown)[0]!r} for {method}; known: {', '.join(sorted(hints))}")
    options = cls(**{name: _convert(name, hints[name], value) for name, value in given.items()})
    _check(options)
    return options


def _convert(name: str, kind: Any, value: Any) -> Any:
    if typing.get_origin(kind) is Literal:
        if value not in typing.get_args(kind):
            raise SpecError(f"{name}: {value!r} is not one of {', '.join(typing.get_args(kind))}")
        return value
    if kind is bool:
        if isinstance(value, bool):
            return value
        if str(value).lower() in ("true", "yes", "on", "1"):
            return True
        if str(value).lower() in ("false", "no", "off", "0"):
            return False
        raise SpecError(f"{name}: {value!r} is not true or false")
    if isinstance(value, bool):
        raise SpecError(f"{name}: {value!r} is not a number")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise SpecError(f"{name}: {value!r} is not a number") from None
    if kind is int:
        if not math.isfinite(number) or number != int(number):
            raise SpecError(f"{name}: {value!r} is not a whole number")
        return int(number)
    return number


# option: (smallest, largest) that can be meant; outside is refused
_BOUNDS: dict[str, tuple[float, float]] = {
    "learning_rate": (1e-9, 1e-2),
    "epochs": (0.001, 100),
    "max_steps": (0, 10_000_000),
    "batch_size": (1, 65_536),
    "micro_batch_size": (1, 4_096),
    "max_tokens": (16, 1_000_000),
    "warmup_share": (0, 0.9),
    "weight_decay": (0, 1),
    "lora_rank": (1, 1024),
    "lora_alpha": (1, 4096),
    "checkpoint_every_steps": (1, 1_000_000),
    "eval_every_steps": (0, 1_000_000),
    "seed": (0, 2**31 - 1),
    "beta": (1e-4, 10),
    "label_smoothing": (0, 0.49),
    "center_rewards_coefficient": (0, 1),
    "desirable_weight": (0.01, 100),
    "undesirable_weight": (0.01, 100),
}


def _check(options: TrainingOptions) -> None:
    for name, (smallest, largest) in _BOUNDS.items():
        value = getattr(options, name, smallest)
        if not smallest <= value <= largest:
            raise SpecError(f"{name}: {value} is outside {smallest:g} … {largest:g}")
    if options.batch_size % options.micro_batch_size:
        raise SpecError(
            f"batch_size {options.batch_size} is not a multiple of micro_batch_size {options.micro_batch_size}"
        )
    # TRL ignores it in silence with the other losses.
    if isinstance(options, DPOOptions) and options.label_smoothing and options.loss_type != "robust":
        raise SpecError(f"label_smoothing has no effect on loss_type {options.loss_type}: choose robust, or 0")
    if isinstance(options, KTOOptions) and options.micro_batch_size < 2:
        raise SpecError("micro_batch_size must be at least 2: KTO compares each row with its neighbours")
