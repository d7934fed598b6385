"""What the form says of the training options, marked for translation.

The options and their English help are in rlhf/options.py, which is standard library only. gettext finds by the English
sentence, so the copies here only tell makemessages of them; tests/test_languages.py compares the two.
"""

from __future__ import annotations

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
    "warmup_share": _("Warm-up, share of the steps"),
    "weight_decay": _("Weight decay"),
    "scheduler": _("Scheduler"),
    "use_lora": _("Train a LoRA adapter instead of all weights"),
    "lora_rank": _("LoRA rank"),
    "lora_alpha": _("LoRA alpha"),
    "bf16": _("bfloat16"),
    "gradient_checkpointing": _("Gradient checkpointing"),
    "checkpoint_every_steps": _("Checkpoint every … steps"),
    "eval_every_steps": _("Evaluate every … steps"),
    "seed": _("Seed"),
    "packing": _("Packing"),
    "center_rewards_coefficient": _("Center rewards coefficient"),
    "beta": _("Beta"),
    "loss_type": _("Loss type"),
    "label_smoothing": _("Label smoothing"),
    "desirable_weight": _("Weight of desirable responses"),
    "undesirable_weight": _("Weight of undesirable responses"),
}

HELP = (
    gettext_noop("Peak, after warm-up."),
    gettext_noop("Passes over train.jsonl; ignored where max_steps is set."),
    gettext_noop("Optimizer steps; 0 means as many as `epochs` asks for."),
    gettext_noop("Rows (pairs, for reward and DPO) per optimizer step, over all processes."),
    gettext_noop("Rows per forward pass and process; batch_size must be a multiple of it."),
    gettext_noop("Prompt and completion together. Longer rows are left out, counted and shown: never cut in silence."),
    gettext_noop("Share of the steps over which the learning rate rises from 0."),
    gettext_noop("bfloat16 autocast over float32 weights."),
    gettext_noop("Trades about a tenth more time for less memory."),
    gettext_noop("0 evaluates at the end only."),
    gettext_noop("Pulls the mean reward to 0 (Eisenstein et al. 2023); 0.01 is usual, 0 is off."),
    gettext_noop("How strongly the policy is held to the reference model."),
    gettext_noop("Assumed share of wrong votes, 0 … 0.5; for loss_type robust."),
    gettext_noop(
        "Weigh the two kinds so that weight times rows is 1 to 4/3 as large for the desirable (section 4.1 there)."
    ),
)
