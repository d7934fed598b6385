"""The options of each training method, with defaults, help and bounds. Standard library only (see rlhf/jobspec.py)."""

from __future__ import annotations

import math
import re
import typing
from dataclasses import dataclass
from typing import Any, Literal

from rlhf.dpo_losses import Divergence, Loss, contradiction, parse_mix
from rlhf.rules import RULE_ARGUMENTS, build_rule


class SpecError(ValueError):
    """A spec or an option that cannot be used; the sentence names the key and says what to do."""


# Neither what is learnt nor the schedule depends on these. A job that goes on from a checkpoint with another
# micro_batch_size takes the rest of its epoch in another order, and no row twice.
CHANGEABLE_ON_RESUME = (
    "micro_batch_size",
    "gradient_checkpointing",
    "checkpoint_every_steps",
    "eval_every_steps",
)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What every method understands that trains."""

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
    checkpoint_layers: int = 0
    """One gradient checkpoint for so many layers, where one for each layer keeps too much; 0 is off."""
    checkpoint_every_steps: int = 50
    eval_every_steps: int = 0
    """0 evaluates at the end only."""
    sample_prompts: int = 8
    """Held-out prompts answered at the start, at each evaluation and at the end, to be read side by side; 0 is off."""
    sample_tokens: int = 64
    """Of each such answer, at most."""
    seed: int = 17
    processes: int = 1
    """Training processes on each machine; on GPUs one process each."""
    launcher: Literal["python", "torchrun", "accelerate", "deepspeed"] = "python"
    """What starts several processes."""
    zero_stage: Literal[0, 2, 3] = 0
    """DeepSpeed ZeRO: 2 divides gradients and optimizer states among the processes, 3 the weights too."""
    offload: Literal["none", "cpu"] = "none"
    """Where DeepSpeed keeps the optimizer's state; cpu trades speed for GPU memory."""
    sequence_parallel: int = 1
    """Processes that share each row (Ulysses), for rows too long for one GPU."""
    hosts: str = ""
    """Names of several machines, separated by commas; each runs a command of its own."""


@dataclass(frozen=True, kw_only=True)
class SFTOptions(TrainingOptions):
    """Supervised fine-tuning on the preferred responses (TRL SFTTrainer)."""

    learning_rate: float = 1e-5
    epochs: float = 2.0
    packing: bool = False


@dataclass(frozen=True, kw_only=True)
class RewardOptions(TrainingOptions):
    """A Bradley–Terry reward model, pulled to absolute scores where there are some (TRL RewardTrainer, our loss)."""

    learning_rate: float = 2e-5
    score_weight: float = 0.0
    """Weight of the squared distance to people's absolute scores, for responses that have one; 0 is off."""
    score_normalisation: Literal["z_score", "min_max"] = "z_score"
    """How absolute scores are brought to one scale: mean 0 and deviation 1, or 0 … 1."""
    aspect_heads: bool = False
    """A score of its own for each aspect that people scored, beside the one that ranks responses."""
    soft_labels: bool = False
    """Learn the share of people who preferred the chosen response, instead of taking every pair for certain."""
    use_ties: bool = False
    """Keep ties, as pairs without a better side; needs soft_labels."""
    margin_per_strength: float = 0.0
    """How far apart the scores should be for each step of people's strength; 0.33 as in Llama 2, 0 is off."""
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
    loss_type: Loss = "sigmoid"
    """sigmoid is DPO itself; sigmoid_norm divides by length and wants a beta of 2 to 10; docs/training.md has all."""
    loss_mix: str = ""
    """Further losses with weights, such as sft:0.2, added to the first, which weighs 1."""
    label_smoothing: float = 0.0
    """Assumed share of wrong votes, 0 … 0.5; for the losses robust, exo_pair, aot and aot_unpaired."""
    f_divergence: Divergence = "reverse_kl"
    """Which divergence from the reference is held down (Wang et al. 2023)."""
    f_alpha: float = 0.5
    """Of alpha_divergence."""
    ld_alpha: float = 1.0
    """Weight of what the longer response has beyond the shorter one's length (LD-DPO); 1 is off."""
    wpo_weighting: bool = False
    """Weigh pairs by how likely the policy itself would write them (WPO)."""
    discopop_tau: float = 0.05
    """Of the loss discopop."""

    @property
    def losses(self) -> tuple[list[str], list[float]]:
        """The losses and their weights. Raises SpecError."""
        try:
            return parse_mix(self.loss_type, self.loss_mix, typing.get_args(Loss))
        except ValueError as error:
            raise SpecError(f"loss_mix: {error}") from None


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
    loss_type: Literal["kto", "apo_zero_unpaired"] = "kto"
    """apo_zero_unpaired takes 0 for the point of reference that kto estimates in each micro-batch."""


@dataclass(frozen=True, kw_only=True)
class OnPolicyOptions(TrainingOptions):
    """What every method understands that samples from the model which it trains."""

    learning_rate: float = 5e-5
    use_lora: bool = True
    batch_size: int = 32
    """Completions sampled per step, over all processes."""
    samples_per_prompt: int = 4
    """Completions of one prompt that are compared with each other; batch_size must be a multiple of it."""
    max_completion_tokens: int = 128
    """A completion is cut here; prompts that leave no room for it within max_tokens are left out."""
    temperature: float = 1.0
    """Of sampling; 1 samples from the model as it is trained."""
    reward_model: str = ""
    """A trained reward model that scores the completions."""
    reward_model_weight: float = 1.0
    rule: Literal["none", "length", "contains", "regex", "vocabulary_half"] = "none"
    """A rule that scores the completions from 0 to 1, instead of a reward model or beside it."""
    rule_argument: str = ""
    """length: the wanted number of tokens; contains: a text; regex: a pattern; vocabulary_half: lower or upper."""
    rule_weight: float = 1.0
    kl_coefficient: float = 0.05
    """Beta: how strongly the policy is held to the reference model."""
    clip_range: float = 0.2
    """Epsilon: how far a token's probability may move from where it was sampled before its gradient is cut off."""


@dataclass(frozen=True, kw_only=True)
class GRPOOptions(OnPolicyOptions):
    """Group-relative policy optimisation (Shao et al. 2024; TRL GRPOTrainer): no critic, KL in the loss."""

    kl_coefficient: float = 0.04
    """Beta: how strongly the policy is held to the reference model."""
    loss_type: Literal["dapo", "grpo", "dr_grpo", "bnpo"] = "dapo"
    use_vllm: bool = False
    """vLLM writes the completions, in the training processes; needs a GPU."""


@dataclass(frozen=True, kw_only=True)
class RLOOOptions(OnPolicyOptions):
    """REINFORCE with the other samples of a prompt as its baseline (Ahmadian et al. 2024; TRL RLOOTrainer)."""

    use_vllm: bool = False
    """vLLM writes the completions, in the training processes; needs a GPU."""


@dataclass(frozen=True, kw_only=True)
class PolicyGradientOptions(OnPolicyOptions):
    """What our own trainer, rlhf/training/policy_gradient.py, understands for both of its methods."""

    update_epochs: int = 1
    """Passes over the completions of one step."""
    minibatches: int = 1
    """Optimizer steps in each of these passes."""
    kl_estimator: Literal["k1", "k2", "k3", "top_k"] = "k1"
    """top_k sums over the reference's likeliest tokens; the others estimate from the sampled token alone."""
    kl_top_k: int = 500
    """Tokens in that sum, at most the whole vocabulary; also for the KL on chosen responses."""
    ptx_coefficient: float = 0.0
    """Gamma: weight of the KL to the reference on the data set's chosen responses; 0 is off."""
    ptx_batch_size: int = 8
    """Chosen responses per optimizer step, over all processes; a multiple of micro_batch_size."""


@dataclass(frozen=True, kw_only=True)
class PPOOptions(PolicyGradientOptions):
    """Proximal policy optimisation with a value head (Schulman et al. 2017; Ouyang et al. 2022)."""

    samples_per_prompt: int = 1
    """Completions of one prompt in a step; batch_size must be a multiple of it."""
    update_epochs: int = 4
    """Passes over the completions of one step."""
    discount: float = 1.0
    """Gamma of generalised advantage estimation."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation: 0 trusts the critic, 1 the rewards that came."""
    value_coefficient: float = 0.1
    """Weight of the critic's loss."""
    value_clip_range: float = 0.2
    """How far the critic may move from what it said of a token when it was sampled."""
    value_learning_rate: float = 1e-3
    """Of the value head, which starts at 0."""


@dataclass(frozen=True, kw_only=True)
class TokenKLGRPOOptions(PolicyGradientOptions):
    """GRPO as the Baichuan Alignment report has it (arXiv 2410.14940): KL in the token reward, over the top 500."""

    batch_size: int = 48
    """Completions sampled per step, over all processes."""
    samples_per_prompt: int = 3
    """Completions of one prompt that are compared with each other; batch_size must be a multiple of it."""
    kl_estimator: Literal["k1", "k2", "k3", "top_k"] = "top_k"
    """top_k sums over the reference's likeliest tokens; the others estimate from the sampled token alone."""


@dataclass(frozen=True, kw_only=True)
class MergeOptions:
    """One model out of several that were trained from the same base; nothing is trained."""

    # Read where any job is started: a merge is one process on the CPU.
    launcher, hosts, processes, sequence_parallel = "python", "", 1, 1
    zero_stage, offload, bf16 = 0, "none", False

    models: str = ""
    """Names of the checkpoints to merge, with commas between them."""
    algorithm: Literal["model_stock", "linear", "task_arithmetic"] = "model_stock"
    """model_stock finds by itself how far to move from the base; linear is the mean; task_arithmetic adds changes."""
    weights: str = ""
    """One number for each model, with commas between them; empty weighs all alike. Not for model_stock."""
    scaling: float = 1.0
    """Lambda of task_arithmetic: how much of the summed changes is added to the base."""

    @property
    def model_names(self) -> list[str]:
        return [name.strip() for name in self.models.split(",") if name.strip()]

    @property
    def model_weights(self) -> list[float]:
        """One for each model. Raises SpecError."""
        if not self.weights.strip():
            return [1.0] * len(self.model_names)
        try:
            weights = [float(text) for text in self.weights.split(",")]
        except ValueError:
            raise SpecError(f"weights: {self.weights!r} is not numbers with commas between them") from None
        if len(weights) != len(self.model_names) or not all(map(math.isfinite, weights)):
            raise SpecError(f"weights: {len(self.model_names)} models need as many numbers, not {self.weights!r}")
        return weights


# A merge's options stand where those of training do: what starts a job reads no more of them than they have.
OPTIONS: dict[str, type[TrainingOptions]] = {
    "sft": SFTOptions,
    "reward": RewardOptions,
    "dpo": DPOOptions,
    "kto": KTOOptions,
    "grpo": GRPOOptions,
    "grpo_token_kl": TokenKLGRPOOptions,
    "rloo": RLOOOptions,
    "ppo": PPOOptions,
    "merge": typing.cast("type[TrainingOptions]", MergeOptions),
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
