"""What an alarm means and what to do, in words."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from rlhf.models import AlarmCode, JobAlarm
from rlhf.plots import format_value
from rlhf.templatetags.figures import duration

Text = str | Promise


@dataclass(frozen=True)
class Words:
    title: Text
    means: Text
    do: Text


@dataclass(frozen=True)
class ShownAlarm:
    alarm: JobAlarm
    words: Words
    value: str


WORDS: dict[str, Words] = {
    AlarmCode.NAN: Words(
        _("Not a number"),
        _(
            "The loss or a gradient became NaN or infinite: training came apart, and what it learns from here is "
            "worth nothing."
        ),
        _(
            "Go back to the last checkpoint with a lower learning rate or a longer warm-up; check the data for empty"
            " rows."
        ),
    ),
    AlarmCode.ZERO_LOSS: Words(
        _("The loss is exactly 0"),
        _(
            "Nothing is being learnt: every token is masked, the two sides are the same text, or a launcher setting "
            "drops the gradients."
        ),
        _(
            "Look at the first batch: coloured tokens are those that count. If there are some, run the job on one "
            "process."
        ),
    ),
    AlarmCode.KL_NEGATIVE: Words(
        _("KL below 0"),
        _(
            "No distance can be negative: the estimate comes from samples that the model did not draw as it is asked"
            " to, by another temperature, a filter or a forced length."
        ),
        _("Sample at temperature 1 without top-p or top-k, and without a least length."),
    ),
    AlarmCode.KL_HIGH: Words(
        _("KL above 10 nats a completion"),
        _(
            "The model is far from where it began. Rewards that still rise are most likely those of a fooled reward "
            "model."
        ),
        _(
            "Read the samples. Stop and keep an earlier checkpoint, then train with a larger KL coefficient or a "
            "lower learning rate."
        ),
    ),
    AlarmCode.CHOSEN_COLLAPSE: Words(
        _("The chosen side collapses"),
        _(
            "Chosen responses become much less likely than they were. Both sides may fall a little; this is more "
            "than that, and the gap grows only because the rejected side falls faster."
        ),
        _("Lower the learning rate, train for one epoch, mix in a loss on the chosen side, or raise beta."),
    ),
    AlarmCode.ALL_CUT: Words(
        _("Every completion is cut"),
        _(
            "No completion reached its end within the longest length, so rewards are for half texts and often all "
            "the same."
        ),
        _("Raise the longest completion, or begin from a model that has learnt to end its answers."),
    ),
    AlarmCode.STALLED: Words(
        _("No sign of life for too long"),
        _(
            "The worker lives, but its training process has done nothing for twenty times the usual while, or for "
            "fifteen minutes before its first steps: a hang between processes, a full disk or a machine that swaps. "
            "One that stays silent is ended and goes on from its last checkpoint, once."
        ),
        _("Look at the end of the log. Pausing keeps the last checkpoint; resuming starts new processes from it."),
    ),
    AlarmCode.REWARD_LENGTH: Words(
        _("The reward rises with the length"),
        _(
            "Completions became half as long again while the reward rose: reward models like long texts, whether "
            "people do or not."
        ),
        _(
            "Let people compare the samples with step 0 before you trust the reward. Train with a penalty on length "
            "or a reward model on pairs of balanced length."
        ),
    ),
    AlarmCode.EVAL_LOSS_RISES: Words(
        _("The held-out loss rises"),
        _("It was worse at each of the last three evaluations: the rows are being learnt by heart."),
        _("Stop and keep, or take an earlier checkpoint; next time fewer epochs or a lower learning rate."),
    ),
    AlarmCode.RESUME_SUSPECT: Words(
        _("Resume suspect"),
        _(
            "The first step after the resume does not go on where the checkpoint stood: its number is not the next, or"
            " its loss lies more than three standard deviations from the last 20. The weights, the optimizer or the "
            "order of the rows may not be those of before."
        ),
        _(
            "Look at the loss around this step. Where it does not come back, discard the job and start a clone of it "
            "from the beginning."
        ),
    ),
}


def shown_alarms(alarms: list[JobAlarm]) -> list[ShownAlarm]:
    return [ShownAlarm(alarm, WORDS[alarm.code], _value(alarm)) for alarm in alarms]


def alarm_title(code: str) -> Text:
    """Empty where there is none."""
    return WORDS[code].title if code else ""


def _value(alarm: JobAlarm) -> str:
    if alarm.value is None or alarm.code in (AlarmCode.NAN, AlarmCode.ZERO_LOSS):
        return ""
    if alarm.code == AlarmCode.STALLED:
        return duration(alarm.value)
    if alarm.code == AlarmCode.REWARD_LENGTH:
        return f"× {format_value(alarm.value)}"
    return format_value(alarm.value)
