"""Options out of what a form, a command or a file gives: converted, within bounds, and possible together."""

from __future__ import annotations

import math
import re
import typing
from typing import Any, Literal

from rlhf.dpo_losses import contradiction
from rlhf.options.methods import (
    OPTIONS,
    DPOOptions,
    KTOOptions,
    MergeOptions,
    OnPolicyOptions,
    PolicyGradientOptions,
    PPOOptions,
    RewardOptions,
    SFTOptions,
    SpecError,
    TrainingOptions,
)
from rlhf.rules import RULE_ARGUMENTS, build_rule


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
        for choice in typing.get_args(kind):
            if str(value) == str(choice):
                return choice
        raise SpecError(f"{name}: {value!r} is not one of {', '.join(map(str, typing.get_args(kind)))}")
    if kind is str:
        if not isinstance(value, str):
            raise SpecError(f"{name}: {value!r} is not a text")
        return value.strip()
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
    "model_every_steps": (0, 1_000_000),
    "sample_prompts": (0, 32),
    "sample_tokens": (1, 1024),
    "seed": (0, 2**31 - 1),
    "processes": (1, 64),
    "sequence_parallel": (1, 64),
    "beta": (1e-4, 10),
    "label_smoothing": (0, 0.49),
    "center_rewards_coefficient": (0, 1),
    "score_weight": (0, 100),
    "margin_per_strength": (0, 10),
    "desirable_weight": (0.01, 100),
    "undesirable_weight": (0.01, 100),
    "samples_per_prompt": (1, 1024),
    "max_completion_tokens": (1, 1_000_000),
    "temperature": (0.01, 10),
    "reward_model_weight": (-100, 100),
    "rule_weight": (-100, 100),
    "kl_coefficient": (0, 10),
    "clip_range": (0.001, 1),
    "update_epochs": (1, 100),
    "minibatches": (1, 1024),
    "kl_top_k": (2, 10_000_000),
    "ptx_coefficient": (0, 100),
    "ptx_batch_size": (1, 65_536),
    "discount": (0, 1),
    "gae_lambda": (0, 1),
    "value_coefficient": (0, 100),
    "value_clip_range": (0.001, 1000),
    "value_learning_rate": (1e-9, 1),
    "scaling": (0, 10),
    "checkpoint_layers": (0, 1000),
    "f_alpha": (-10, 10),
    "ld_alpha": (0, 1),
    "discopop_tau": (1e-4, 10),
}


def _check(options: TrainingOptions | MergeOptions) -> None:
    for name, (smallest, largest) in _BOUNDS.items():
        value = getattr(options, name, smallest)
        if not smallest <= value <= largest:
            raise SpecError(f"{name}: {value} is outside {smallest:g} … {largest:g}")
    if isinstance(options, MergeOptions):
        _check_merge(options)
        return
    if options.batch_size % options.micro_batch_size:
        raise SpecError(
            f"batch_size {options.batch_size} is not a multiple of micro_batch_size {options.micro_batch_size}"
        )
    if options.checkpoint_layers and options.gradient_checkpointing:
        raise SpecError(
            f"checkpoint_layers {options.checkpoint_layers} and gradient_checkpointing do the same in two ways: "
            "choose one"
        )
    if isinstance(options, RewardOptions):
        _check_reward(options)
    _check_processes(options)
    if isinstance(options, DPOOptions):
        _check_dpo(options)
    if isinstance(options, KTOOptions) and options.micro_batch_size < 2:
        raise SpecError("micro_batch_size must be at least 2: KTO compares each row with its neighbours")
    if isinstance(options, OnPolicyOptions):
        _check_on_policy(options)


def _check_on_policy(options: OnPolicyOptions) -> None:
    if not options.reward_model and options.rule == "none":
        raise SpecError("reward_model: nothing says what is good; choose a reward model, a rule, or both")
    if options.rule != "none":
        try:
            build_rule(options.rule, options.rule_argument, vocabulary_size=2)
        except ValueError as error:
            raise SpecError(f"rule_argument: {error}; give {RULE_ARGUMENTS[options.rule]}") from None
    elif options.rule_argument:
        raise SpecError("rule_argument has no effect where rule is none: choose a rule, or leave it empty")
    if options.max_completion_tokens >= options.max_tokens:
        raise SpecError(
            f"max_completion_tokens {options.max_completion_tokens} leaves no room for a prompt "
            f"within max_tokens {options.max_tokens}"
        )
    if options.batch_size % options.samples_per_prompt:
        raise SpecError(
            f"batch_size {options.batch_size} is not a multiple of samples_per_prompt {options.samples_per_prompt}"
        )
    if options.samples_per_prompt < 2 and not isinstance(options, PPOOptions):
        raise SpecError("samples_per_prompt must be at least 2: this method compares the samples of a prompt")
    if not isinstance(options, PolicyGradientOptions):
        return
    rows_per_pass = options.micro_batch_size * world_size(options)
    if options.batch_size % (options.minibatches * rows_per_pass):
        raise SpecError(
            f"batch_size {options.batch_size} is not a multiple of minibatches {options.minibatches} times "
            f"{rows_per_pass} rows in one pass of all processes"
        )
    if options.ptx_coefficient and options.ptx_batch_size % rows_per_pass:
        raise SpecError(
            f"ptx_batch_size {options.ptx_batch_size} is not a multiple of the {rows_per_pass} rows in one pass of "
            "all processes"
        )


def _check_dpo(options: DPOOptions) -> None:
    problem = contradiction(
        options.losses[0],
        label_smoothing=options.label_smoothing,
        divergence=options.f_divergence,
        alpha=options.f_alpha,
        ld_alpha=options.ld_alpha,
        wpo_weighting=options.wpo_weighting,
        discopop_tau=options.discopop_tau,
        micro_batch_size=options.micro_batch_size,
    )
    if problem:
        raise SpecError(problem)


def _check_reward(options: RewardOptions) -> None:
    if options.aspect_heads and not options.score_weight:
        raise SpecError("aspect_heads learn from absolute scores: set score_weight above 0")
    if options.use_ties and not options.soft_labels:
        raise SpecError("use_ties needs soft_labels: a tie has no better side to be certain of")
    if options.margin_per_strength and options.soft_labels:
        raise SpecError("margin_per_strength cannot be used with soft_labels: both say how sure people were")


_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.\-]*[A-Za-z0-9])?")


def host_list(options: TrainingOptions) -> list[str]:
    """The machines named by the option `hosts`, the one of rank 0 first."""
    return [host.strip() for host in options.hosts.split(",") if host.strip()]


def world_size(options: TrainingOptions) -> int:
    """Processes over all machines."""
    return options.processes * max(len(host_list(options)), 1)


def _check_processes(options: TrainingOptions) -> None:
    """Refuse presets that no machine can run; what depends on GPUs is refused by rlhf/launch_commands.py."""
    hosts, world = host_list(options), world_size(options)
    for host in hosts:
        if not _HOST_NAME.fullmatch(host):
            raise SpecError(f"hosts: {host!r} is not a host name or an address")
    if len(hosts) == 1 or len(set(hosts)) < len(hosts):
        raise SpecError("hosts: name each of two machines or more once; leave it empty for this machine alone")
    if options.launcher == "python" and world > 1:
        raise SpecError(f"launcher python starts one process; choose torchrun, accelerate or deepspeed for {world}")
    if options.launcher == "python" and options.zero_stage:
        raise SpecError(f"launcher python cannot run zero_stage {options.zero_stage}; choose torchrun or deepspeed")
    if options.launcher == "deepspeed" and not options.zero_stage:
        raise SpecError("launcher deepspeed needs zero_stage 2 or 3; choose torchrun to go without DeepSpeed")
    if options.offload != "none" and not options.zero_stage:
        raise SpecError(f"offload {options.offload} needs zero_stage 2 or 3")
    if options.sequence_parallel > 1:
        _check_sequence_parallel(options, world)
    rows_per_pass = options.micro_batch_size * world // options.sequence_parallel
    if options.batch_size % rows_per_pass:
        raise SpecError(
            f"batch_size {options.batch_size} is not a multiple of {rows_per_pass}, the rows of one pass of "
            f"{world} processes with micro_batch_size {options.micro_batch_size}"
        )


def _check_sequence_parallel(options: TrainingOptions, world: int) -> None:
    if not isinstance(options, SFTOptions):
        raise SpecError("sequence_parallel works with supervised fine-tuning only; choose 1")
    if not options.zero_stage:
        raise SpecError("sequence_parallel needs zero_stage 2 or 3: DeepSpeed divides the rows")
    if world % options.sequence_parallel:
        raise SpecError(f"sequence_parallel {options.sequence_parallel} does not divide the {world} processes")
    if options.packing:
        raise SpecError("sequence_parallel cannot go with packing: attention would cross the packed rows")


def _check_merge(options: MergeOptions) -> None:
    names = options.model_names
    if len(names) < (1 if options.algorithm == "task_arithmetic" else 2):
        raise SpecError(f"models: {options.algorithm} needs more than {len(names)} of them")
    if twice := {name for name in names if names.count(name) > 1}:
        raise SpecError(f"models: {sorted(twice)[0]} is named twice; give it a larger weight instead")
    if options.algorithm == "model_stock" and options.weights.strip():
        raise SpecError("weights have no effect on model_stock, which finds its own: leave them empty")
    if options.algorithm == "linear" and sum(options.model_weights) <= 0:
        raise SpecError("weights must have a sum above 0: linear divides by it")
    if options.algorithm != "task_arithmetic" and options.scaling != 1:
        raise SpecError(f"scaling has no effect on {options.algorithm}: choose task_arithmetic, or 1")
    assert len(options.model_weights) == len(names)
