"""What the form says of the training options, marked for translation.

The options and their English help are in rlhf/options, which is standard library only. gettext finds by the English
sentence, so the copies here only tell makemessages of them; tests/test_languages.py compares the two.
"""

from __future__ import annotations

import re
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

LABELS: dict[str, str | Promise] = {
    "learning_rate": _("Learning rate"),
    "epochs": _("Epochs"),
    "max_steps": _("Max steps"),
    "batch_size": _("Batch size"),
    "micro_batch_size": _("Micro batch size"),
    "max_tokens": _("Longest row, in tokens"),
    "long_rows": _("Rows longer than that"),
    "warmup_share": _("Warm-up, share of the steps"),
    "weight_decay": _("Weight decay"),
    "scheduler": _("Scheduler"),
    "use_lora": _("Train a LoRA adapter instead of all weights"),
    "lora_rank": _("LoRA rank"),
    "lora_alpha": _("LoRA alpha"),
    "bf16": _("bfloat16"),
    "gradient_checkpointing": _("Gradient checkpointing"),
    "checkpoint_layers": _("Layers per gradient checkpoint"),
    "checkpoint_every_steps": _("Checkpoint every … steps"),
    "eval_every_steps": _("Evaluate every … steps"),
    "model_every_steps": _("Model to evaluate every … steps"),
    "sample_prompts": _("Sample prompts"),
    "sample_tokens": _("Sample tokens"),
    "seed": _("Seed"),
    "processes": _("Processes"),
    "launcher": _("Launcher"),
    "zero_stage": _("ZeRO stage"),
    "offload": _("Offload"),
    "sequence_parallel": _("Sequence parallel"),
    "hosts": _("Machines"),
    "use_vllm": _("Sample with vLLM"),
    "packing": _("Packing"),
    "score_weight": _("Weight of absolute scores"),
    "score_normalisation": _("Normalisation of absolute scores"),
    "aspect_heads": _("A score for each aspect"),
    "soft_labels": _("Learn the share of votes"),
    "use_ties": _("Keep ties"),
    "margin_per_strength": _("Margin for each step of strength"),
    "models": _("Models"),
    "algorithm": _("Algorithm"),
    "weights": _("Weights"),
    "scaling": _("Scaling, λ"),
    "center_rewards_coefficient": _("Center rewards coefficient"),
    "beta": _("Beta"),
    "loss_type": _("Loss type"),
    "loss_mix": _("Further losses"),
    "f_divergence": _("Divergence"),
    "f_alpha": _("Alpha of the divergence"),
    "ld_alpha": _("Weight of extra length"),
    "wpo_weighting": _("Weigh pairs by the policy (WPO)"),
    "discopop_tau": _("Tau of discopop"),
    "label_smoothing": _("Label smoothing"),
    "desirable_weight": _("Weight of desirable responses"),
    "undesirable_weight": _("Weight of undesirable responses"),
    "samples_per_prompt": _("Completions of each prompt"),
    "max_completion_tokens": _("Longest completion, in tokens"),
    "temperature": _("Temperature"),
    "reward_model": _("Reward model"),
    "reward_model_weight": _("Weight of the reward model"),
    "rule": _("Rule"),
    "rule_argument": _("What the rule asks for"),
    "rule_weight": _("Weight of the rule"),
    "kl_coefficient": _("KL coefficient"),
    "clip_range": _("Clip range"),
    "pause_on_alarm": _("Pause on an alarm"),
    "update_epochs": _("Passes over the completions of a step"),
    "minibatches": _("Optimizer steps in each pass"),
    "kl_estimator": _("How KL is computed"),
    "kl_top_k": _("Tokens in the KL sum"),
    "ptx_coefficient": _("Weight of the KL on chosen responses"),
    "ptx_batch_size": _("Chosen responses per optimizer step"),
    "discount": _("Discount"),
    "gae_lambda": _("GAE lambda"),
    "value_coefficient": _("Weight of the critic's loss"),
    "value_clip_range": _("Clip range of the critic"),
    "value_learning_rate": _("Learning rate of the value head"),
}

HELP = (
    gettext_noop("Peak, after warm-up."),
    gettext_noop("Passes over train.jsonl; ignored where max_steps is set."),
    gettext_noop("Optimizer steps; 0 means as many as `epochs` asks for."),
    gettext_noop("Rows (pairs, for reward and DPO) per optimizer step, over all processes."),
    gettext_noop("Rows per forward pass and process; batch_size must be a multiple of it."),
    gettext_noop("Prompt and completion together. Longer rows are left out, counted and shown: never cut in silence."),
    gettext_noop(
        "Rows longer than that: drop leaves them out, truncate trains on them without their end, raise starts nothing."
    ),
    gettext_noop("Share of the steps over which the learning rate rises from 0."),
    gettext_noop("bfloat16 autocast over float32 weights."),
    gettext_noop("Trades about a tenth more time for less memory."),
    gettext_noop("One gradient checkpoint for so many layers, where one for each layer keeps too much; 0 is off."),
    gettext_noop("0 evaluates at the end only."),
    gettext_noop(
        "Saves a whole model so often, for the project's evaluations to run on it meanwhile; 0 is off. Not of rewards."
    ),
    gettext_noop(
        "Held-out prompts answered at the start, at each evaluation and at the end, to be read side by side; 0 is off."
    ),
    gettext_noop("Of each such answer, at most."),
    gettext_noop("Weight of the squared distance to people's absolute scores, for responses that have one; 0 is off."),
    gettext_noop("How absolute scores are brought to one scale: mean 0 and deviation 1, or 0 … 1."),
    gettext_noop("A score of its own for each aspect that people scored, beside the one that ranks responses."),
    gettext_noop(
        "Learn the share of people who preferred the chosen response, instead of taking every pair for certain."
    ),
    gettext_noop("Keep ties, as pairs without a better side; needs soft_labels."),
    gettext_noop(
        "How far apart the scores should be for each step of people's strength; 0.33 as in Llama 2, 0 is off."
    ),
    gettext_noop("Training processes on each machine; on GPUs one process each."),
    gettext_noop("What starts several processes."),
    gettext_noop("DeepSpeed ZeRO: 2 divides gradients and optimizer states among the processes, 3 the weights too."),
    gettext_noop("Where DeepSpeed keeps the optimizer's state; cpu trades speed for GPU memory."),
    gettext_noop("Processes that share each row (Ulysses), for rows too long for one GPU."),
    gettext_noop("vLLM writes the completions, in the training processes; needs a GPU."),
    gettext_noop("Names of several machines, separated by commas; each runs a command of its own."),
    gettext_noop("Names of the checkpoints to merge, with commas between them."),
    gettext_noop(
        "model_stock finds by itself how far to move from the base; linear is the mean; task_arithmetic adds changes."
    ),
    gettext_noop("One number for each model, with commas between them; empty weighs all alike. Not for model_stock."),
    gettext_noop("Lambda of task_arithmetic: how much of the summed changes is added to the base."),
    gettext_noop("Pulls the mean reward to 0 (Eisenstein et al. 2023); 0.01 is usual, 0 is off."),
    gettext_noop("How strongly the policy is held to the reference model."),
    gettext_noop(
        "sigmoid is DPO itself; sigmoid_norm divides by length and wants a beta of 2 to 10; docs/training.md has all."
    ),
    gettext_noop("Further losses with weights, such as sft:0.2, added to the first, which weighs 1."),
    gettext_noop("Assumed share of wrong votes, 0 … 0.5; for the losses robust, exo_pair, aot and aot_unpaired."),
    gettext_noop("Which divergence from the reference is held down (Wang et al. 2023)."),
    gettext_noop("Of alpha_divergence."),
    gettext_noop("Weight of what the longer response has beyond the shorter one's length (LD-DPO); 1 is off."),
    gettext_noop("Weigh pairs by how likely the policy itself would write them (WPO)."),
    gettext_noop("Of the loss discopop."),
    gettext_noop("apo_zero_unpaired takes 0 for the point of reference that kto estimates in each micro-batch."),
    gettext_noop(
        "Weigh the two kinds so that weight times rows is 1 to 4/3 as large for the desirable (section 4.1 there)."
    ),
    gettext_noop("Completions sampled per step, over all processes."),
    gettext_noop("Completions of one prompt that are compared with each other; batch_size must be a multiple of it."),
    gettext_noop("A completion is cut here; prompts that leave no room for it within max_tokens are left out."),
    gettext_noop("Of sampling; 1 samples from the model as it is trained."),
    gettext_noop("A trained reward model that scores the completions."),
    gettext_noop("A rule that scores the completions from 0 to 1, instead of a reward model or beside it."),
    gettext_noop(
        "length: the wanted number of tokens; contains: a text; regex: a pattern; vocabulary_half: lower or upper."
    ),
    gettext_noop("Beta: how strongly the policy is held to the reference model."),
    gettext_noop(
        "Epsilon: how far a token's probability may move from where it was sampled before its gradient is cut off."
    ),
    gettext_noop(
        "Pauses by itself, with a checkpoint, when KL is below 0 or above 10 nats, or every completion is cut."
    ),
    gettext_noop("Passes over the completions of one step."),
    gettext_noop("Optimizer steps in each of these passes."),
    gettext_noop(
        "top_k sums over the reference's likeliest tokens; the others estimate from the sampled token alone."
    ),
    gettext_noop("Tokens in that sum, at most the whole vocabulary; also for the KL on chosen responses."),
    gettext_noop("Gamma: weight of the KL to the reference on the data set's chosen responses; 0 is off."),
    gettext_noop("Chosen responses per optimizer step, over all processes; a multiple of micro_batch_size."),
    gettext_noop("Completions of one prompt in a step; batch_size must be a multiple of it."),
    gettext_noop("Gamma of generalised advantage estimation."),
    gettext_noop("Lambda of generalised advantage estimation: 0 trusts the critic, 1 the rewards that came."),
    gettext_noop("Weight of the critic's loss."),
    gettext_noop("How far the critic may move from what it said of a token when it was sampled."),
    gettext_noop("Of the value head, which starts at 0."),
)


RECIPE_NAMES = (
    gettext_noop("Small model, full"),
    gettext_noop("Baichuan Alignment report"),
    gettext_noop("Full, centred"),
    gettext_noop("LoRA, centred"),
    gettext_noop("Tülu 3, 8B"),
    gettext_noop("RLHFlow, Llama-3-8B"),
    gettext_noop("OpenRLHF, Llama-3-8B"),
    gettext_noop("Small model, LoRA"),
    gettext_noop("Full"),
    gettext_noop("LoRA"),
    gettext_noop("Tülu 3, 8B, over the mean per token"),
    gettext_noop("Zephyr, 7B"),
    gettext_noop("OpenRLHF, 8B"),
    gettext_noop("RLHFlow, a round of online DPO"),
    gettext_noop("TRL’s defaults, full"),
    gettext_noop("InstructGPT, 6B"),
    gettext_noop("Robust loss, small model, LoRA"),
    gettext_noop("Robust loss, full"),
)


def format_number(value: Any) -> str:
    """1e-05 as 1e-5, everything else as Python writes it."""
    return re.sub(r"e([+-])0+(?=\d)", r"e\1", f"{value:g}" if isinstance(value, float) else str(value))


# What rlhf/launch_commands.py says of how a job will run.
LAUNCH_NOTES = (
    gettext_noop("Without a GPU, DeepSpeed trains in float32: the option bf16 has no effect."),
    gettext_noop("Each process holds the whole model once while it loads, before ZeRO-3 divides it."),
    gettext_noop("Under sequence parallelism nothing is evaluated while it trains, nor at the end."),
    gettext_noop(
        "The worker starts the first host's command only. Start the others by hand, "
        "with this job directory at the same path."
    ),
)
