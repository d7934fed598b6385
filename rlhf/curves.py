"""What a run logs, as figures: names of TRL's trainers and of ours in one table, with unit, healthy band and source.

A figure takes whichever of its metrics were logged; the same name with `eval_` in front is its held-out measurement.
What is logged and stands in no figure gets one of its own, so that nothing is kept from view.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from rlhf.alarms import ON_POLICY

Text = str | Promise
Tone = Literal["accent", "warning", "soft"]


@dataclass(frozen=True)
class Line:
    names: tuple[str, ...]
    """The first of these that was logged is drawn."""
    label: Text = ""
    tone: Tone = "accent"


@dataclass(frozen=True)
class Band:
    """Where a healthy run lies; either end may be open."""

    low: float | None
    high: float | None
    source: Text


@dataclass(frozen=True)
class Mark:
    value: float
    text: Text


@dataclass(frozen=True)
class Figure:
    slug: str
    title: Text
    lines: tuple[Line, ...]
    note: Text = ""
    unit: Text = ""
    bands: Mapping[str, Band] = field(default_factory=dict)
    """By method; the key "" holds for every other one."""
    marks: tuple[Mark, ...] = ()
    log: bool = False
    exact: bool = False
    """No running mean: the values are no samples."""

    def band(self, method: str) -> Band | None:
        return self.bands.get(method, self.bands.get(""))


_AXOLOTL = _("Axolotl’s guide to stable training")
_STEADY = Band(0.01, 10, _AXOLOTL)
_LOGISTIC = Band(0.3, math.log(2), _AXOLOTL)
_ROLLOUT_KL = Band(0, 0.5, _AXOLOTL)
_ROLLOUT_ENTROPY = Band(0.05, 0.5, _AXOLOTL)
_PEOPLE = Band(0.55, 0.8, _("published reward models: Llama 2, InstructGPT, Stiennon et al."))

FIGURES: tuple[Figure, ...] = (
    Figure(
        "reward",
        _("Reward"),
        (Line(("reward", "objective/scores", "objective/score")),),
        _("Only differences between rewards mean something. A reward that rises with the length is being gamed."),
    ),
    Figure(
        "loss",
        _("Loss"),
        (Line(("loss",)),),
        _("Starts at ln 2 = 0.69 where both sides look alike; far below 0.3 votes are learnt by heart."),
        bands={
            "dpo": _LOGISTIC,
            "reward": _LOGISTIC,
            "sft": Band(0.5, 2.0, _AXOLOTL),
        },
    ),
    Figure(
        "logps",
        _("Log-probability: chosen, rejected"),
        (
            Line(("logps/chosen",), _("chosen"), "accent"),
            Line(("logps/rejected",), _("rejected"), "warning"),
        ),
        _("Both may fall. What counts is the gap; a chosen side that collapses is a warning."),
        _("nats"),
    ),
    Figure(
        "accuracy",
        _("Accuracy: chosen above rejected"),
        (Line(("rewards/accuracies", "accuracy")),),
        _("Held-out prompts are never trained on. Above 0.8 on people’s votes, suspect a leak or a shortcut."),
        bands={"reward": _PEOPLE, "dpo": Band(0.5, None, _AXOLOTL)},
        marks=(Mark(0.5, _("a guess")),),
    ),
    Figure(
        "margin",
        _("Margin between chosen and rejected"),
        (Line(("rewards/margins", "margin")),),
        _("Should rise from 0 and level off."),
        marks=(Mark(0.0, ""),),
    ),
    Figure(
        "rewards",
        _("Implicit reward: chosen, rejected"),
        (
            Line(("rewards/chosen",), _("chosen"), "accent"),
            Line(("rewards/rejected",), _("rejected"), "warning"),
        ),
        _("β times the change against the base model: above 0, a response became likelier than it was."),
        _("nats × β"),
        marks=(Mark(0.0, ""),),
    ),
    Figure(
        "scores",
        _("Scores"),
        (
            Line(("mean_reward",), _("mean"), "accent"),
            Line(("max_reward",), _("highest"), "soft"),
            Line(("min_reward",), _("lowest"), "soft"),
        ),
        _("Over chosen and rejected responses together. Only differences between scores mean something."),
    ),
    Figure(
        "kl",
        _("Distance from the reference (KL)"),
        (Line(("kl", "objective/kl")),),
        _(
            "A mean over tokens, which grows as the model learns. Above 2 the reward model is likely being gamed; "
            "above 0.5, with more than 10 over a whole completion, there is an alarm."
        ),
        _("nats a token"),
        bands=dict.fromkeys(ON_POLICY, _ROLLOUT_KL),
    ),
    Figure(
        "entropy",
        _("Entropy"),
        (Line(("entropy", "policy/entropy_avg", "objective/entropy")),),
        _("How many words the model still weighs. Below 0.01 it writes one text whatever it is asked."),
        _("nats a token"),
        bands=dict.fromkeys(ON_POLICY, _ROLLOUT_ENTROPY),
    ),
    Figure(
        "length",
        _("Length of completions"),
        (
            Line(("completions/mean_length",), _("mean"), "accent"),
            Line(("completions/max_length",), _("longest"), "soft"),
            Line(("completions/min_length",), _("shortest"), "soft"),
        ),
        _("Watch it beside the reward: the easiest way to please a reward model is to say more."),
        _("tokens"),
    ),
    Figure(
        "clipped",
        _("Completions that were cut"),
        (Line(("completions/clipped_ratio",)),),
        _("They have no end, so their reward is for half a text. Raise the longest completion where many are cut."),
        _("share"),
        bands={"": Band(0, 0.3, _AXOLOTL)},
    ),
    Figure(
        "clip_fraction",
        _("Ratios at the clip"),
        (Line(("clip_ratio/region_mean", "clip_fraction", "policy/clipfrac_avg", "clip_ratio")),),
        _("Tokens whose probability moved further in one step than the clip allows; their gradient is cut off."),
        _("share"),
    ),
    Figure(
        "same_reward",
        _("Prompts whose samples all score the same"),
        (Line(("frac_reward_zero_std",)),),
        _("Such a prompt teaches nothing: its advantages are all 0."),
        _("share"),
        bands={"": Band(0, 0.8, _AXOLOTL)},
    ),
    Figure(
        "sampler",
        _("Sampler and trainer apart"),
        (Line(("sampling/sampling_logp_difference/mean",)),),
        _("How far log-probabilities of the sampler lie from the trainer’s. Above 1, stop."),
        _("nats a token"),
        bands={"": Band(0, 0.1, _AXOLOTL)},
    ),
    Figure(
        "value",
        _("Value loss"),
        (Line(("value_loss", "loss/value_avg")),),
        _("Of the critic that guesses the reward to come."),
    ),
    Figure(
        "token_accuracy",
        _("Token accuracy"),
        (Line(("mean_token_accuracy",)),),
        _("How often the next token of a preferred response is the model’s first choice."),
        _("share"),
    ),
    Figure(
        "grad_norm",
        _("Gradient norm"),
        (Line(("grad_norm",)),),
        _("Steady is good. Sudden peaks, or values above 100, mean that training is coming apart."),
        bands={"": _STEADY},
        log=True,
    ),
    Figure(
        "learning_rate",
        _("Learning rate"),
        (Line(("learning_rate",), "", "soft"),),
        _("As scheduled: a warm-up, then down."),
        exact=True,
    ),
    Figure(
        "speed",
        _("Speed"),
        (Line(("tokens_per_second",), "", "soft"),),
        _("Tokens of the rows in each step over its seconds; held-out measurements are left out."),
        _("tokens a second"),
    ),
    Figure(
        "memory",
        _("Peak memory"),
        (Line(("peak_memory_gb",), "", "soft"),),
        _("The most that one process held so far."),
        "GB",
        exact=True,
    ),
)

# Bookkeeping that says nothing about how training goes, or that another figure shows.
_UNDRAWN = {
    "step", "total_steps", "time", "epoch", "num_tokens", "seconds", "num_input_tokens_seen", "insight_seconds",
    "runtime", "samples_per_second", "steps_per_second", "completions/max_terminated_length",
    "completions/mean_terminated_length", "completions/min_terminated_length", "model_preparation_time",
    "pairs", "accuracy_lower", "accuracy_upper",
}  # fmt: skip
_UNDRAWN_PREFIXES = ("category/", "logits/", "clip_ratio/", "sampling/", "tools/")


def figures_for(logged: Iterable[str]) -> list[Figure]:
    """The figures of which something was logged, in the order of the table, then one for each name that is in none."""
    plain = {name.removeprefix("eval_") for name in logged}
    known = {name for figure in FIGURES for line in figure.lines for name in line.names}
    others = sorted(
        name for name in plain - known - _UNDRAWN if not name.startswith(_UNDRAWN_PREFIXES) and name.isprintable()
    )
    drawn = [figure for figure in FIGURES if any(name in plain for line in figure.lines for name in line.names)]
    return drawn + [Figure(f"other-{index}", name, (Line((name,)),)) for index, name in enumerate(others)]
