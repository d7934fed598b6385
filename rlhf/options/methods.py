"""What each training method takes, with defaults and help."""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass
from typing import Literal

from rlhf.dpo_losses import Divergence, Loss, parse_mix


class SpecError(ValueError):
    """A spec or an option that cannot be used; the sentence names the key and says what to do."""


# Neither what is learnt nor the schedule depends on these: with another micro_batch_size each step takes the same rows
# in other passes.
CHANGEABLE_ON_RESUME = (
    "micro_batch_size",
    "gradient_checkpointing",
    "checkpoint_every_steps",
    "eval_every_steps",
    "model_every_steps",
    "pause_on_alarm",
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
    model_every_steps: int = 0
    """Saves a whole model so often, for the project's evaluations to run on it meanwhile; 0 is off. Not of rewards."""
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
class GivenRowsOptions(TrainingOptions):
    """What every method understands that learns from rows as they are given."""

    long_rows: Literal["drop", "truncate", "raise"] = "drop"
    """Rows longer than that: drop leaves them out, truncate trains on them without their end, raise starts nothing."""


@dataclass(frozen=True, kw_only=True)
class SFTOptions(GivenRowsOptions):
    """Supervised fine-tuning on the preferred responses (TRL SFTTrainer)."""

    learning_rate: float = 1e-5
    epochs: float = 2.0
    packing: bool = False


@dataclass(frozen=True, kw_only=True)
class RewardOptions(GivenRowsOptions):
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
class DPOOptions(GivenRowsOptions):
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
class KTOOptions(GivenRowsOptions):
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
    pause_on_alarm: bool = True
    """Pauses by itself, with a checkpoint, when KL is below 0 or above 10 nats, or every completion is cut."""


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
