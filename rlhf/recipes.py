"""Settings that worked for others, by method and size of the model, each with its source.

Standard library only. `BANDS` are wider: outside of them a launch is warned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SMALL = 1_000_000_000
"""Below this many weights a model is small; most published recipes are for larger ones."""


@dataclass(frozen=True)
class Recipe:
    """Options to begin with; what it does not name keeps the method's default."""

    key: str
    method: str
    name: str
    options: dict[str, Any]
    source: str
    smallest: int = 0
    largest: int = 10**13
    """Weights of the models that it is meant for."""

    def suits(self, parameters: int) -> bool:
        return self.smallest <= parameters < self.largest


_LARGE = {"smallest": SMALL}
_SMALL = {"largest": SMALL}

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "sft-small",
        "sft",
        "Small model, full",
        {"learning_rate": 2e-5, "epochs": 2.0, "batch_size": 16, "micro_batch_size": 4, "max_tokens": 1024},
        "TRL 1.16: the default learning rate of SFTConfig, two epochs",
        **_SMALL,
    ),
    Recipe(
        "sft-baichuan",
        "sft",
        "Baichuan Alignment report",
        {"learning_rate": 1e-5, "epochs": 2.0, "packing": True, "max_tokens": 4096, "batch_size": 64,
         "micro_batch_size": 1},
        "arXiv 2410.14940, section 2.1: 1e-5, 2 to 6 epochs by size, always packed; batch size not given there",
        **_LARGE,
    ),
    Recipe(
        "reward-small",
        "reward",
        "Small model, full",
        {"learning_rate": 5e-5, "epochs": 2.0, "batch_size": 16, "micro_batch_size": 4},
        "The RLHF Book’s example: Qwen3-0.6B on 5,000 pairs; lower the epochs if held-out accuracy falls",
        **_SMALL,
    ),
    Recipe(
        "reward-full",
        "reward",
        "Full, centred",
        {"learning_rate": 5e-6, "epochs": 1.0, "batch_size": 64, "micro_batch_size": 1, "max_tokens": 2048,
         "center_rewards_coefficient": 0.01},
        "Between Tülu 3 (3e-6) and OpenRLHF (9e-6); centring as Eisenstein et al. 2023",
        **_LARGE,
    ),
    Recipe(
        "reward-lora",
        "reward",
        "LoRA, centred",
        {"learning_rate": 1e-4, "epochs": 1.0, "use_lora": True, "batch_size": 64, "micro_batch_size": 1,
         "max_tokens": 2048, "center_rewards_coefficient": 0.01},
        "TRL 1.16: the default learning rate of RewardConfig, which suits adapters",
        **_LARGE,
    ),
    Recipe(
        "reward-tulu3",
        "reward",
        "Tülu 3, 8B",
        {"learning_rate": 3e-6, "epochs": 1.0, "batch_size": 128, "micro_batch_size": 1, "max_tokens": 4096},
        "open-instruct, scripts/train/tulu3/reward_modeling_8b.sh",
        **_LARGE,
    ),
    Recipe(
        "reward-rlhflow",
        "reward",
        "RLHFlow, Llama-3-8B",
        {"learning_rate": 2e-6, "epochs": 1.0, "batch_size": 64, "micro_batch_size": 1, "max_tokens": 4096,
         "scheduler": "cosine", "weight_decay": 0.001},
        "RLHFlow, llama3_8B_rm.py: 64 rows on each processor",
        **_LARGE,
    ),
    Recipe(
        "reward-openrlhf",
        "reward",
        "OpenRLHF, Llama-3-8B",
        {"learning_rate": 9e-6, "epochs": 1.0, "batch_size": 256, "micro_batch_size": 1, "max_tokens": 8192},
        "OpenRLHF, examples/scripts/train_rm.sh",
        **_LARGE,
    ),
    Recipe(
        "reward-instructgpt",
        "reward",
        "InstructGPT, 6B",
        {"learning_rate": 9e-6, "epochs": 1.0, "batch_size": 384, "micro_batch_size": 1, "max_tokens": 2048,
         "scheduler": "cosine"},
        "Ouyang et al. 2022, appendix C: 64 prompts a step with all their pairs, six for four ranked responses; here "
        "a step takes as many pairs, of any prompts. More epochs did harm there, not the rate",
        **_LARGE,
    ),
    Recipe(
        "dpo-small",
        "dpo",
        "Small model, LoRA",
        {"learning_rate": 2e-4, "epochs": 2.0, "use_lora": True, "beta": 0.1},
        "Measured here: docs/benchmarks.md, “The loop” (SmolLM2-135M; 1e-4 moved it less)",
        **_SMALL,
    ),
    Recipe(
        "dpo-full",
        "dpo",
        "Full",
        {"learning_rate": 5e-7, "epochs": 1.0, "use_lora": False, "beta": 0.1, "batch_size": 128,
         "micro_batch_size": 1, "max_tokens": 2048},
        "OpenRLHF and Zephyr: 5e-7, one epoch; β 0.1 as Rafailov et al. 2023",
        **_LARGE,
    ),
    Recipe(
        "dpo-lora",
        "dpo",
        "LoRA",
        {"learning_rate": 5e-6, "epochs": 1.0, "use_lora": True, "beta": 0.1, "batch_size": 64,
         "micro_batch_size": 1, "max_tokens": 2048},
        "Ten times the rate of full fine-tuning; TRL’s advice for adapters is 1e-5 at most",
        **_LARGE,
    ),
    Recipe(
        "dpo-tulu3",
        "dpo",
        "Tülu 3, 8B, over the mean per token",
        {"learning_rate": 5e-7, "epochs": 1.0, "use_lora": False, "loss_type": "sigmoid_norm", "beta": 5.0,
         "batch_size": 128, "micro_batch_size": 1, "max_tokens": 2048, "gradient_checkpointing": True},
        "open-instruct, scripts/train/tulu3/dpo_8b.sh: dpo_norm with β 5; TRL calls this loss sigmoid_norm",
        **_LARGE,
    ),
    Recipe(
        "dpo-zephyr",
        "dpo",
        "Zephyr, 7B",
        {"learning_rate": 5e-7, "epochs": 1.0, "use_lora": False, "beta": 0.01, "scheduler": "cosine",
         "batch_size": 128, "micro_batch_size": 1, "max_tokens": 1024},
        "alignment-handbook, zephyr-7b-beta/dpo/config_full.yaml",
        **_LARGE,
    ),
    Recipe(
        "dpo-openrlhf",
        "dpo",
        "OpenRLHF, 8B",
        {"learning_rate": 5e-7, "epochs": 1.0, "use_lora": False, "beta": 0.1, "batch_size": 256,
         "micro_batch_size": 1, "max_tokens": 8192},
        "OpenRLHF, examples/scripts/train_dpo.sh",
        **_LARGE,
    ),
    Recipe(
        "dpo-rlhflow",
        "dpo",
        "RLHFlow, a round of online DPO",
        {"learning_rate": 5e-7, "epochs": 2.0, "use_lora": False, "beta": 0.1, "scheduler": "cosine",
         "batch_size": 128, "micro_batch_size": 1, "max_tokens": 2048},
        "RLHFlow, Online-RLHF, run_loop.sh: three rounds of new pairs, the last round’s model as reference",
        **_LARGE,
    ),
    Recipe(
        "dpo-robust-small",
        "dpo",
        "Robust loss, small model, LoRA",
        {"learning_rate": 2e-4, "epochs": 2.0, "use_lora": True, "beta": 0.1, "loss_type": "robust",
         "label_smoothing": 0.1},
        "Chowdhury et al. 2024 (arXiv 2403.00409): label_smoothing is the share of wrong votes, 0.1 is typical: put "
        "in your own. The rest as measured here for DPO",
        **_SMALL,
    ),
    Recipe(
        "dpo-robust",
        "dpo",
        "Robust loss, full",
        {"learning_rate": 5e-7, "epochs": 1.0, "use_lora": False, "beta": 0.1, "loss_type": "robust",
         "label_smoothing": 0.1, "batch_size": 128, "micro_batch_size": 1, "max_tokens": 2048},
        "Chowdhury et al. 2024 (arXiv 2403.00409): label_smoothing is the share of wrong votes, 0.1 is typical: put "
        "in your own. The rest as OpenRLHF and Zephyr",
        **_LARGE,
    ),
    Recipe(
        "kto-small",
        "kto",
        "Small model, LoRA",
        {"learning_rate": 1e-4, "epochs": 1.0, "use_lora": True, "beta": 0.1},
        "Like DPO on a small model; Ethayarajh et al. 2024 for β",
        **_SMALL,
    ),
    Recipe(
        "kto-full",
        "kto",
        "Full",
        {"learning_rate": 1e-6, "epochs": 1.0, "use_lora": False, "beta": 0.1, "batch_size": 32,
         "micro_batch_size": 4, "max_tokens": 1024},
        "TRL 1.16: the defaults of KTOConfig, one epoch",
        **_LARGE,
    ),
    *(
        Recipe(
            f"{method}-small",
            method,
            "Small model, LoRA",
            {"learning_rate": 5e-5, "use_lora": True, "batch_size": batch, "samples_per_prompt": samples,
             "micro_batch_size": 4},
            "TRL’s rate for all weights, 1e-6, times 50: an adapter takes 20 to 100 times as much (Thinking Machines, "
            "LoRA Primer). Not measured on a model of this size: watch reward and KL",
            **_SMALL,
        )
        for method, batch, samples in (("grpo", 32, 4), ("rloo", 32, 4), ("ppo", 32, 1), ("grpo_token_kl", 48, 3))
    ),
    Recipe(
        "grpo-trl",
        "grpo",
        "TRL’s defaults, full",
        {"learning_rate": 1e-6, "use_lora": False, "samples_per_prompt": 8, "kl_coefficient": 0.0, "batch_size": 64,
         "micro_batch_size": 4},
        "TRL 1.16: the defaults of GRPOConfig: eight samples of a prompt, no KL",
        **_LARGE,
    ),
    Recipe(
        "rloo-trl",
        "rloo",
        "TRL’s defaults, full",
        {"learning_rate": 1e-6, "use_lora": False, "samples_per_prompt": 2, "kl_coefficient": 0.05, "batch_size": 64,
         "micro_batch_size": 4},
        "TRL 1.16: the defaults of RLOOConfig: two samples of a prompt, β 0.05",
        **_LARGE,
    ),
    Recipe(
        "ppo-trl",
        "ppo",
        "TRL’s defaults, full",
        {"learning_rate": 3e-6, "use_lora": False, "samples_per_prompt": 1, "kl_coefficient": 0.05,
         "update_epochs": 4, "gae_lambda": 0.95, "value_coefficient": 0.1, "batch_size": 64, "micro_batch_size": 4},
        "TRL’s PPOConfig: KL 0.05, four passes, λ 0.95, critic 0.1; 3e-6 is the rate of its example script",
        **_LARGE,
    ),
    Recipe(
        "grpo-baichuan",
        "grpo_token_kl",
        "Baichuan Alignment report",
        {"learning_rate": 1e-6, "use_lora": False, "samples_per_prompt": 3, "kl_estimator": "top_k", "kl_top_k": 500,
         "batch_size": 48, "micro_batch_size": 4},
        "arXiv 2410.14940, section 2.1: three samples, KL over the top 500; no learning rate there, this is TRL’s",
        **_LARGE,
    ),
)  # fmt: skip


def find_recipe(key: str) -> Recipe | None:
    return next((recipe for recipe in RECIPES if recipe.key == key), None)


@dataclass(frozen=True)
class Band:
    """What is usual for a method: learning rates from … to, and at most so many epochs."""

    lowest: float
    highest: float
    most_epochs: float


# method → trains an adapter → the model is small → band. Below the lowest nothing is learnt in a few epochs; above the
# highest published runs lost what the model could. A second epoch of preference data already learns votes by heart
# (InstructGPT, section 3.5; RewardBench 2: 61.2, 63.5 and 61.9 % after one, two and three).
BANDS: dict[str, dict[bool, dict[bool, Band]]] = {
    "sft": {
        False: {True: Band(1e-6, 2e-4, 6), False: Band(1e-6, 5e-5, 6)},
        True: {True: Band(1e-5, 1e-3, 6), False: Band(1e-5, 5e-4, 6)},
    },
    "reward": {
        False: {True: Band(1e-6, 1e-4, 2), False: Band(1e-6, 2e-5, 2)},
        True: {True: Band(1e-5, 1e-3, 2), False: Band(1e-5, 2e-4, 2)},
    },
    "dpo": {
        False: {True: Band(5e-7, 5e-5, 3), False: Band(1e-7, 1e-6, 2)},
        True: {True: Band(5e-6, 5e-4, 3), False: Band(1e-6, 2e-5, 2)},
    },
    "kto": {
        False: {True: Band(5e-7, 5e-5, 3), False: Band(1e-7, 5e-6, 2)},
        True: {True: Band(5e-6, 5e-4, 3), False: Band(1e-6, 5e-5, 2)},
    },
}
# Steps of a few samples each: published full runs lie at 1e-6; epochs say nothing, because each pass samples anew.
_ON_POLICY = {
    False: {True: Band(1e-7, 1e-4, 100), False: Band(1e-7, 5e-6, 100)},
    True: {True: Band(1e-6, 1e-3, 100), False: Band(1e-6, 1e-4, 100)},
}
BANDS |= dict.fromkeys(("grpo", "rloo", "ppo", "grpo_token_kl"), _ON_POLICY)


# (lowest, highest) β. A mean per token is smaller than a sum over tokens by the length, so its β is larger by as much:
# open-instruct and SimPO lie at 2 to 10, published runs over sums at 0.01 (Zephyr) to 0.5 (Rafailov et al. 2023).
_BETA_OF_MEANS, _BETA_OF_SUMS = (2.0, 10.0), (0.01, 0.5)


def beta_band(losses: Sequence[str]) -> tuple[float, float]:
    """What is usual for the β of these losses of DPO, the main one first; and of KTO."""
    return _BETA_OF_MEANS if losses[0] == "sigmoid_norm" else _BETA_OF_SUMS


def band_for(method: str, *, use_lora: bool, parameters: int) -> Band | None:
    """What is usual here, or None where nothing is known of the method."""
    bands = BANDS.get(method)
    return bands[use_lora][parameters < SMALL] if bands else None
