"""When a run's metrics raise an alarm, and when they do not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from rlhf.alarms import Alarm, Watch
from rlhf.models import AlarmCode

Row = dict[str, Any]


def rows(values: Iterable[Row]) -> list[Row]:
    return [{"step": step, "total_steps": 100, **row} for step, row in enumerate(values, start=1)]


def chosen(nats_below: float, reference: float = -30.0) -> Row:
    """A DPO line with beta 0.1 whose chosen side lies so far below the reference."""
    return {"loss": 0.5, "rewards/chosen": -0.1 * nats_below, "logps/chosen": reference - nats_below}


def rollout(reward: float, length: float) -> Row:
    return {"loss": 0.01, "reward": reward, "completions/mean_length": length}


def distance(nats: float, tokens: int = 16) -> Row:
    """So many nats of KL over a completion, logged as a mean over its tokens."""
    return {"kl": nats / tokens, "completions/mean_length": float(tokens)}


RAISED: list[tuple[str, str, list[Row], int]] = [
    ("dpo", "nan", rows([{"loss": 0.5}, {"loss": None, "nonfinite": ["loss"]}]), 2),
    ("sft", "nan", rows([{"loss": 0.5}, {"loss": 0.5, "grad_norm": None, "nonfinite": ["grad_norm"]}]), 2),
    ("dpo", "zero_loss", rows([{"loss": 0.5}, *[{"loss": 0.0}] * 3]), 4),
    ("grpo", "zero_loss", rows([{"loss": 0.0, "grad_norm": 0.0}] * 10), 10),
    ("ppo", "kl_negative", rows([{"kl": 0.01}, {"kl": -0.5}]), 2),
    # 2 and then 14 nats over a completion of 16 tokens
    ("grpo", "kl_high", rows([distance(2.0), *[distance(14.0)] * 3]), 4),
    ("ppo", "kl_high", rows([distance(3.9 * 128, tokens=128)]), 1),
    ("dpo", "chosen_collapse", rows([chosen(0.0)] * 10 + [chosen(20.0)] * 10), 16),
    ("grpo", "all_cut", rows([{"completions/clipped_ratio": 0.4}] + [{"completions/clipped_ratio": 1.0}] * 10), 11),
    ("rloo", "reward_length", rows([rollout(0.1, 40.0)] * 10 + [rollout(0.5, 70.0)] * 10), 20),
    ("dpo", "eval_loss_rises", rows([{"eval_loss": loss} for loss in (0.6, 0.5, 0.52, 0.55, 0.56)]), 5),
]

QUIET: list[tuple[str, list[Row]]] = [
    ("dpo", rows([{"loss": 0.0}, {"loss": 0.1}] * 10)),  # hinge touches 0 and leaves it
    ("grpo", rows([{"loss": 0.0, "grad_norm": 0.4}] * 30)),  # GRPO's loss is 0 where policy and sampler are one
    ("ppo", rows([{"kl": 0.01}, {"kl": -0.015}] * 5)),  # an estimate from samples, about 0
    ("grpo", rows([distance(8.0), distance(11.0)] * 5)),  # above 10 at times, not on the mean
    ("grpo", rows([distance(0.1 * 512, tokens=512)] * 10)),  # a long completion, and little in each token
    ("rloo", rows([distance(1.5 * 5, tokens=5)] * 10)),  # much in each token of a few
    ("dpo", rows([chosen(12.0, reference=-300.0)] * 20)),  # 12 nats of 300: a long text, falling as usual
    ("sft", rows([{"loss": 0.5, "rewards/chosen": -9.0, "logps/chosen": -100.0}] * 20)),  # no beta, no reference
    ("grpo", rows([{"completions/clipped_ratio": 1.0}] * 9 + [{"completions/clipped_ratio": 0.5}])),
    ("rloo", rows([rollout(0.1, 40.0)] * 10 + [rollout(0.5, 55.0)] * 10)),  # longer by less than half
    ("rloo", rows([rollout(0.5, 40.0)] * 10 + [rollout(0.4, 90.0)] * 10)),  # longer, but not rewarded for it
    ("dpo", rows([{"eval_loss": loss} for loss in (0.5, 0.52, 0.55, 0.54, 0.56)])),
    (
        "kto",
        rows([{"loss": 0.4, "reward_std": None, "nonfinite": ["reward_std"]}]),
    ),  # undefined, and nothing hangs on it
]


def watch(method: str) -> Watch:
    return Watch(method, beta=0.1 if method == "dpo" else None)


@pytest.mark.parametrize("method,code,lines,step", RAISED, ids=[f"{case[0]}-{case[1]}" for case in RAISED])
def test_an_alarm_is_raised_once_at_the_step_that_shows_it(
    method: str, code: str, lines: list[Row], step: int
) -> None:
    seeing = watch(method)
    raised = [alarm for line in lines for alarm in seeing.see(line)]
    assert [(alarm.code, alarm.step) for alarm in raised] == [(code, step)]
    more = [alarm for line in lines for alarm in seeing.see(line | {"step": line["step"] + 1000})]
    assert code not in {alarm.code for alarm in more}


@pytest.mark.parametrize("method,lines", QUIET)
def test_a_healthy_run_is_quiet(method: str, lines: list[Row]) -> None:
    seeing = watch(method)
    assert [alarm for line in lines for alarm in seeing.see(line)] == []


def test_a_run_that_stands_still_is_noticed_by_its_own_pace() -> None:
    seeing = watch("dpo")
    assert seeing.look_at_pace(900) == []  # nothing to compare with yet, and models take long to load
    assert watch("dpo").look_at_pace(901) == [Alarm("stalled", 0, 901)]
    for line in rows([{"loss": 0.5, "seconds": 60.0}] * 5):
        seeing.see(line)
    assert seeing.look_at_pace(1200) == []
    assert seeing.look_at_pace(1201) == [Alarm("stalled", 5, 1201)]
    assert seeing.look_at_pace(2000) == []
    assert seeing.patience(1800, 3600) == 1800
    assert seeing.patience(1800, 3600, is_stepping=False) == 3600  # a process that goes on from a checkpoint loads too
    fast = watch("dpo")
    for line in rows([{"loss": 0.5, "seconds": 0.1}] * 50):
        fast.see(line)
    assert fast.look_at_pace(300) == []  # 20 times the median is 2 s; an evaluation may take minutes


STOOD = {step: 0.6 + (0.02 if step % 2 else -0.02) for step in range(1, 41)}  # deviation 0.02


@pytest.mark.parametrize(
    "first,suspect",
    [
        ({"step": 31, "loss": 0.65}, False),
        ({"step": 31, "loss": 0.69}, True),
        ({"step": 31, "loss": 0.50}, True),
        ({"step": 32, "loss": 0.6}, True),  # a step is missing
        ({"step": 1, "loss": 0.6}, True),  # it began anew
        ({"step": 31, "loss": None, "nonfinite": ["grad_norm"]}, False),  # another alarm's
    ],
)
def test_the_first_step_after_a_resume_follows_from_the_checkpoint(first: Row, suspect: bool) -> None:
    seeing = watch("dpo")
    seeing.resume_at(30, {step: loss for step, loss in STOOD.items() if step <= 30})
    found = [seeing.see({"step": 31, "eval_loss": 9.0}), seeing.see(first), seeing.see({"step": 33, "loss": 9.0})]
    raised = [alarm for alarms in found for alarm in alarms if alarm.code == "resume_suspect"]
    assert [alarm.step for alarm in raised] == ([first["step"]] if suspect else [])


def test_a_step_that_is_done_again_as_it_was_is_not_suspect() -> None:
    unusual = {**STOOD, 31: 1.4}
    for loss, suspect in ((1.4, False), (1.0, True)):
        seeing = watch("sft")
        seeing.resume_at(30, unusual)
        assert bool(seeing.see({"step": 31, "loss": loss})) == suspect
    few = watch("sft")
    few.resume_at(3, {1: 0.7, 2: 0.6, 3: 0.5})  # three losses say nothing of the fourth
    assert few.see({"step": 4, "loss": 3.0}) == []


def test_every_alarm_can_be_stored() -> None:
    assert {case[1] for case in RAISED} | {"stalled", "resume_suspect"} == set(AlarmCode.values)
