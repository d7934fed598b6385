"""What a finding says, in the reader's language."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from rlhf.option_words import format_number
from rlhf.preflight.findings import Finding, Level


class Words(NamedTuple):
    concern: str | Promise
    sentence: str | Promise


ROWS, DATA, TEXT, MODEL, OPTIONS, MACHINE = (
    _("Rows"), _("Data"), _("Text as the model sees it"), _("Model"), _("Options"), _("Machine"),
)  # fmt: skip

WORDS: dict[str, Words] = {
    "rows_used": Words(ROWS, _("%(used)s of %(judged)s judged comparisons become rows to train on")),
    "prompts_used": Words(ROWS, _("%(used)s prompts to sample from, out of %(judged)s judged comparisons")),
    "no_rows": Words(ROWS, _("None of the %(judged)s judged comparisons has a verdict that this method learns from")),
    "all_too_long": Words(
        ROWS, _("All %(count)s training rows are longer than %(tokens)s tokens: raise the longest row")
    ),
    "too_long": Words(ROWS, _("%(count)s training rows longer than %(tokens)s tokens left out")),
    "too_long_by_side": Words(
        ROWS,
        _("%(count)s training rows longer than %(tokens)s tokens left out (%(chosen)s chosen, %(rejected)s rejected)"),
    ),
    "too_long_held_out": Words(ROWS, _("%(count)s held-out rows longer than %(tokens)s tokens left out")),
    "too_long_held_out_by_side": Words(
        ROWS,
        _("%(count)s held-out rows longer than %(tokens)s tokens left out (%(chosen)s chosen, %(rejected)s rejected)"),
    ),
    "long_rows_raise": Words(
        ROWS,
        _(
            "%(count)s rows are longer than %(tokens)s tokens (to train on: %(chosen)s chosen, %(rejected)s rejected),"
            " and nothing is to start then: raise the longest row, or choose drop or truncate for those beyond it"
        ),
    ),
    "cut": Words(
        ROWS,
        _(
            "%(count)s of %(total)s training rows are cut after %(tokens)s tokens. They lose the end of the response "
            "and the token that ends it, so they do not teach when to stop"
        ),
    ),
    "cut_by_side": Words(
        ROWS,
        _(
            "%(count)s of %(total)s training rows are cut after %(tokens)s tokens (%(chosen)s chosen, %(rejected)s "
            "rejected). They lose the end of the response and the token that ends it, so they do not teach when to "
            "stop"
        ),
    ),
    "uneven_cut": Words(
        ROWS,
        _(
            "More is cut on one side than on the other (%(chosen)s chosen, %(rejected)s rejected): the model would "
            "learn that the side without an end is the better or the worse one. Raise the longest row, or drop them"
        ),
    ),
    "uneven_loss": Words(
        ROWS,
        _(
            "More is left out on one side than on the other (%(chosen)s chosen, %(rejected)s rejected): the model "
            "would learn from the difference in length. Raise the longest row"
        ),
    ),
    "none_cut": Words(ROWS, _("No row is cut: the longest has %(longest)s of %(tokens)s tokens")),
    "template_refuses": Words(ROWS, _("%(count)s rows refused by the model's chat template")),
    "no_side": Words(ROWS, _("Comparisons without a side to learn from left out: %(reasons)s")),
    "held_out": Words(ROWS, _("%(count)s held-out rows to measure on, none of their groups is trained on")),
    "no_held_out": Words(
        ROWS, _("No held-out row: the result will have no accuracy. Freeze a data set with a held-out share")
    ),
    "all_desirable": Words(DATA, _("All %(count)s rows are desirable: this method needs undesirable ones as well")),
    "all_undesirable": Words(DATA, _("All %(count)s rows are undesirable: this method needs desirable ones as well")),
    "equal_sides": Words(DATA, _("%(count)s pairs have the same text on both sides, such as comparison %(examples)s")),
    "contradicting": Words(
        DATA, _("%(count)s of %(total)s rows say the opposite of an earlier one, such as comparison %(examples)s")
    ),
    "repeated": Words(
        DATA, _("%(count)s of %(total)s rows repeat an earlier one, such as comparison %(examples)s; they count twice")
    ),
    "no_contradiction": Words(DATA, _("No row repeats or contradicts another")),
    "leaked": Words(
        DATA,
        _(
            "%(count)s of %(total)s held-out prompts are trained on as well, such as that of comparison %(examples)s: "
            "accuracy on them means nothing"
        ),
    ),
    "alike": Words(
        DATA,
        _(
            "%(count)s of %(total)s held-out prompts read nearly like one that is trained on, such as that of "
            "comparison %(examples)s"
        ),
    ),
    "alike_not_compared": Words(
        DATA,
        _(
            "Prompts that read nearly alike were not looked for: %(count)s are more than %(limit)s. Look for "
            "duplicates in the project before you freeze"
        ),
    ),
    "no_leak": Words(DATA, _("None of %(count)s held-out prompts is trained on, word for word or nearly")),
    "template": Words(TEXT, _("Every row is rendered with the chat template of the base, %(sha256)s…")),
    "written_alike": Words(
        TEXT,
        _(
            "%(count)s responses of the training rows were written with the chat template of the base; for "
            "%(unknown)s none is recorded"
        ),
    ),
    "written_otherwise": Words(
        TEXT,
        _(
            "%(count)s of %(total)s responses of the training rows were written with another chat template than that "
            "of the base, %(base)s…: %(templates)s. What they answer was shown to their models in another form"
        ),
    ),
    "written_unknown": Words(TEXT, _("No chat template is recorded for the %(count)s responses of the training rows")),
    "served_otherwise": Words(
        TEXT,
        _(
            "%(name)s wrote its responses with the chat template %(sha256)s…, and would be trained with %(base)s…: "
            "it would learn to answer another form of prompt than it is served with"
        ),
    ),
    "served_alike": Words(TEXT, _("%(name)s wrote its responses with the same chat template")),
    "read_alike": Words(TEXT, _("%(name)s reads with the same chat template")),
    "boundary_moves": Words(
        TEXT,
        _(
            "In %(count)s of %(total)s rows looked at, the chat template renders a prompt differently once it is "
            "answered, so part of the prompt is not trained on as it is served (such as comparison %(examples)s)"
        ),
    ),
    "boundary": Words(TEXT, _("Each prompt reads the same alone and with its answer, in %(count)s rows looked at")),
    "no_end": Words(
        TEXT,
        _(
            "The tokenizer names no end of text, so the model never learns to stop. Name an eos_token in "
            "tokenizer_config.json"
        ),
    ),
    "no_padding": Words(
        TEXT, _("The tokenizer names no padding, so %(token)s stands in; measure below that scores do not move by it")
    ),
    "padding_is_end": Words(
        TEXT,
        _(
            "%(token)s both pads and ends a text. Here padding is masked by its place and not by its token, so the "
            "end is still learnt; other programs may differ. Measure below that scores do not move by it"
        ),
    ),
    "padding": Words(TEXT, _("%(padding)s pads, %(end)s ends")),
    "rate_usual": Words(
        OPTIONS, _("Learning rate %(rate)s is usual for this method and size (%(lowest)s … %(highest)s)")
    ),
    "rate_high": Words(
        OPTIONS,
        _(
            "Learning rate %(rate)s is higher than what is usual for this method and size (%(lowest)s … %(highest)s): "
            "the model may come apart"
        ),
    ),
    "rate_low": Words(
        OPTIONS,
        _(
            "Learning rate %(rate)s is lower than what is usual for this method and size (%(lowest)s … %(highest)s): "
            "it may learn nothing"
        ),
    ),
    "epochs_many": Words(
        OPTIONS, _("%(epochs)s epochs: after %(most)s such a model mostly learns the votes by heart")
    ),
    "beta_unusual": Words(
        OPTIONS,
        _(
            "Beta %(beta)s is outside what is usual for the loss %(loss)s (%(lowest)s … %(highest)s): too small lets "
            "the model drift from its base, too large holds it where it is"
        ),
    ),
    "memory": Words(
        MACHINE, _("About %(needed)s GB of memory needed at the longest batch, of %(has)s GB on the machine")
    ),
    "memory_short": Words(
        MACHINE,
        _(
            "About %(needed)s GB of memory needed at the longest batch, and the machine has %(has)s GB: a smaller "
            "micro-batch, gradient checkpointing or LoRA take less"
        ),
    ),
    "memory_estimate": Words(MACHINE, _("About %(needed)s GB of memory needed at the longest batch")),
    "memory_of_processes": Words(
        MACHINE,
        _("About %(needed)s GB of memory needed by %(processes)s processes together, of %(has)s GB on the machine"),
    ),
    "memory_of_processes_short": Words(
        MACHINE,
        _(
            "About %(needed)s GB of memory needed by %(processes)s processes together, and the machine has %(has)s "
            "GB: fewer processes, a smaller micro-batch, gradient checkpointing or LoRA take less"
        ),
    ),
    "memory_of_processes_estimate": Words(
        MACHINE, _("About %(needed)s GB of memory needed by %(processes)s processes together")
    ),
    "memory_gpu": Words(MACHINE, _("About %(needed)s GB needed on the GPU at the longest batch, of %(has)s GB there")),
    "memory_gpu_short": Words(
        MACHINE,
        _(
            "About %(needed)s GB needed on the GPU at the longest batch, and it has %(has)s GB: a smaller "
            "micro-batch, gradient checkpointing, LoRA, or ZeRO-3 over several GPUs take less"
        ),
    ),
    "memory_gpu_estimate": Words(MACHINE, _("About %(needed)s GB needed on the GPU at the longest batch")),
    "memory_gpu_of_processes": Words(
        MACHINE,
        _(
            "About %(needed)s GB needed on each of %(processes)s GPUs at the longest batch, of %(has)s GB on the "
            "smallest"
        ),
    ),
    "memory_gpu_of_processes_short": Words(
        MACHINE,
        _(
            "About %(needed)s GB needed on each of %(processes)s GPUs at the longest batch, and the smallest has "
            "%(has)s GB: a smaller micro-batch, gradient checkpointing, LoRA or ZeRO-3 take less"
        ),
    ),
    "memory_gpu_of_processes_estimate": Words(
        MACHINE, _("About %(needed)s GB needed on each of %(processes)s GPUs at the longest batch")
    ),
    "disk": Words(MACHINE, _("At most %(needed)s GB of disk for checkpoints and the model, %(free)s GB are free")),
    "disk_short": Words(
        MACHINE,
        _(
            "Checkpoints and the model take up to %(needed)s GB, and %(free)s GB are free: make room, or train an "
            "adapter"
        ),
    ),
    "disk_of_step_models": Words(
        MACHINE,
        _(
            "At most %(needed)s GB of disk for checkpoints, the model and %(models)s more to evaluate on the way, "
            "%(free)s GB are free"
        ),
    ),
    "disk_short_of_step_models": Words(
        MACHINE,
        _(
            "Checkpoints, the model and %(models)s more to evaluate on the way take up to %(needed)s GB, and %(free)s "
            "GB are free: make room, or save a model to evaluate less often"
        ),
    ),
    "resumes": Words(
        MACHINE,
        _(
            "After an interruption it goes on from the last of its checkpoints (every %(every)s of %(steps)s steps), "
            "exactly as if nothing had happened"
        ),
    ),
    "resumes_from_start": Words(
        MACHINE, _("%(steps)s steps are fewer than one checkpoint takes (%(every)s): an interruption starts it anew")
    ),
    "resumes_never": Words(
        MACHINE,
        _("No checkpoint before the end of %(steps)s steps (one every %(every)s): an interruption starts it anew"),
    ),
    "weights_finite": Words(MODEL, _("All %(count)s weights are finite numbers")),
    "weights_broken": Words(
        MODEL, _("%(name)s in the base model holds values that are not numbers: it cannot be trained from")
    ),
    "padding_equal": Words(
        MODEL, _("Scores are the same alone, padded and in another order (largest difference %(difference)s)")
    ),
    "padding_differs": Words(
        MODEL,
        _(
            "Scores differ by %(difference)s between alone and padded or reordered: what this model says depends "
            "on what shares its batch"
        ),
    ),
    "dry_step": Words(
        MACHINE, _("One step on the longest rows ran in %(seconds)s s and took %(peak)s GB at its peak")
    ),
    "dry_step_memory": Words(MACHINE, _("One step on the longest rows ran out of memory: %(error)s")),
    "dry_step_failed": Words(MACHINE, _("One step on the longest rows failed: %(error)s")),
    "dry_step_tight": Words(
        MACHINE, _("One step on the longest rows took %(peak)s of %(has)s GB: other work could make it run out")
    ),
    "completions_end": Words(
        OPTIONS, _("%(count)s of %(total)s completions sampled for the step were cut at %(tokens)s tokens")
    ),
    "many_completions_cut": Words(
        OPTIONS,
        _(
            "%(count)s of %(total)s completions sampled for the step were cut at %(tokens)s tokens: their rewards are "
            "for half texts. Raise the longest completion, or begin from a model that ends its answers sooner"
        ),
    ),
    "all_completions_cut": Words(
        OPTIONS,
        _(
            "All %(count)s completions sampled for the step were cut at %(tokens)s tokens: rewards would be for half "
            "texts, and often all the same, so that nothing is learnt. Raise the longest completion, or begin from a "
            "model that has learnt to end its answers"
        ),
    ),
    "probe_failed": Words(MODEL, _("The model could not be measured: %(error)s")),
}

_REASONS: dict[str, str | Promise] = {
    "tie": _("about the same"),
    "neither": _("neither acceptable"),
    "no_majority": _("without a majority"),
    "different_histories": _("to different conversations"),
    "identical_responses": _("between equal texts"),
    "empty": _("with a blank response preferred"),
}

LEVEL_WORDS: dict[Level, str | Promise] = {
    Level.PASSED: _("passed"),
    Level.WARNED: _("warned"),
    Level.BLOCKED: _("blocked"),
    Level.REFUSED: _("refused"),
}


def sentence(finding: Finding) -> str:
    """One line to read."""
    words = WORDS.get(finding.code)
    if words is None:  # stored by another version of this code
        return finding.code
    return str(words.sentence) % {name: _said(name, value) for name, value in finding.values.items()}


def concern(finding: Finding) -> str:
    words = WORDS.get(finding.code)
    return str(words.concern) if words else ""


def _said(name: str, value: Any) -> str:
    if name == "reasons":
        listed = (
            f"{count:,} {_REASONS.get(reason, reason.replace('_', ' '))}" for reason, count in sorted(value.items())
        )
        return gettext(", ").join(listed)
    if name == "templates":
        return gettext(", ").join(f"{sha256}… ({count:,})" for sha256, count in value.items())
    if isinstance(value, list):
        return gettext(", ").join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else format_number(value)
