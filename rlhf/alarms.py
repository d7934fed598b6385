"""When a training run needs somebody to look: pure arithmetic over the lines of metrics.jsonl. Standard library only.

Limits and where they come from: NaN, loss exactly 0 and a chosen side that collapses are the failures that users of
TRL, LLaMA-Factory and OpenRLHF report most; KL above 10 nats over a completion and below 0 are those of PPO runs that
blew up (TRL's PPO logs a sum over tokens), and up to 0.5 a token is healthy (Axolotl's advice for GRPO, which logs a
mean, as every method does here); the pace is that of a collective that hangs; three standard deviations after a
resume are what a trainer that lost its optimizer leaves at once. The alarms of `PAUSING` put an on-policy job aside
that asks for it, and the supervisor ends one that stays silent; no other alarm stops a run: people do.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any

ON_POLICY = frozenset({"grpo", "grpo_token_kl", "rloo", "ppo"})

PAUSING = frozenset({"kl_negative", "kl_high", "all_cut"})
"""After these the rewards of an on-policy run no longer say anything, and each further step only costs."""

ZERO_LOSSES = 3
"""Logged one after another. A hinge loss may touch 0 once."""
ZERO_LOSSES_ON_POLICY = 10
"""With a gradient of exactly 0 as well: the loss of GRPO itself is 0 at the first step of every batch."""
KL_LOGS, KL_NOISE = 5, 0.02
"""The mean of so many logs is judged; an estimate from samples may be so far below 0, in nats a token."""
KL_LIMIT, KL_HEALTHY = 10.0, 0.5
"""In nats over a completion, and in nats a token: a long completion alone is no reason to worry."""
COLLAPSE_LOGS, COLLAPSE_NATS, COLLAPSE_SHARE = 10, 10.0, 0.2
"""The chosen side fell by so many nats below the reference, and by that share of its log-probability."""
CUT_LOGS, CUT_SHARE = 10, 0.999
PACE_LOGS, PACE_FACTOR, PACE_FLOOR_SECONDS = 5, 20, 600.0
"""No sign of life for 20 times the median step, and never before ten minutes: a save may take that long."""
START_SECONDS = 900.0
"""The same before the first steps of a process: it loads its model and meets the others, and nothing is usual yet."""
LENGTH_LOGS, LENGTH_FACTOR = 10, 1.5
RISING_EVALUATIONS = 3
RESUME_LOGS, RESUME_LEAST_LOGS, RESUME_SIGMAS = 20, 5, 3.0
"""The first loss after a resume lies within so many standard deviations of the last logs before the checkpoint."""
RESUME_NOISE, RESUME_SMALL = 0.02, 1e-3
"""A share of their mean, and a loss, that are no difference, however still the loss stood before."""


@dataclass(frozen=True)
class Alarm:
    """One thing that was seen, with the number that shows it."""

    code: str
    step: int
    value: float | None = None


class Watch:
    """Sees the metrics of one run, line by line in their order; each alarm is raised once."""

    def __init__(self, method: str, beta: float | None = None) -> None:
        """`beta` is that of DPO and KTO, by which their logged rewards are scaled."""
        self.on_policy = method in ON_POLICY
        self.beta = beta
        self.step = 0
        self._raised: set[str] = set()
        self._zeros = 0
        self._cut = 0
        self._kl: deque[tuple[float, float]] = deque(maxlen=KL_LOGS)
        """A token's and a completion's."""
        self._fallen: deque[tuple[float, float]] = deque(maxlen=COLLAPSE_LOGS)
        self._seconds: deque[float] = deque(maxlen=200)
        self._first: list[tuple[float, float]] = []
        self._recent: deque[tuple[float, float]] = deque(maxlen=LENGTH_LOGS)
        self._eval_losses: dict[int, float] = {}
        self._resumed_at: int | None = None
        self._losses_before: Mapping[int, float] = {}

    def resume_at(self, checkpoint_step: int, losses: Mapping[int, float]) -> None:
        """Judge the next loss as the first after this checkpoint, by what earlier attempts logged, step → loss."""
        self._resumed_at, self._losses_before = checkpoint_step, losses

    def see(self, row: Mapping[str, Any]) -> list[Alarm]:
        """The alarms that this line is the first to raise."""
        self.step = int(row["step"])
        found = [
            self._not_a_number(row),
            self._zero_loss(row),
            *self._divergence(row),
            self._collapse(row),
            self._all_cut(row),
            self._length_runs_away(row),
            self._eval_loss_rises(row),
            self._resume_is_suspect(row),
        ]
        if (seconds := _number(row, "seconds")) is not None:
            self._seconds.append(seconds)
        return [self._once(alarm) for alarm in found if alarm is not None and alarm.code not in self._raised]

    def look_at_pace(self, seconds_silent: float, *, is_stepping: bool = True) -> list[Alarm]:
        """The alarm that no sign of life has come for far too long; may be asked at any time.

        `is_stepping`: the process has logged a step, and not only those before it.
        """
        patience = self.patience(PACE_FLOOR_SECONDS, START_SECONDS, is_stepping=is_stepping)
        return self.stalled(seconds_silent) if seconds_silent > patience else []

    def patience(self, floor: float, at_start: float, *, is_stepping: bool = True) -> float:
        """For how many seconds a process may be silent: 20 times the median step, but at least `floor`."""
        if not is_stepping or len(self._seconds) < PACE_LOGS:
            return at_start
        return max(floor, PACE_FACTOR * median(self._seconds))

    def stalled(self, seconds_silent: float) -> list[Alarm]:
        return [] if "stalled" in self._raised else [self._once(Alarm("stalled", self.step, seconds_silent))]

    def _once(self, alarm: Alarm) -> Alarm:
        self._raised.add(alarm.code)
        return alarm

    def _not_a_number(self, row: Mapping[str, Any]) -> Alarm | None:
        watched = {"loss", "eval_loss", "grad_norm", "logps/chosen", "logps/rejected", "reward", "kl"}
        return Alarm("nan", self.step) if watched & set(row.get("nonfinite", ())) else None

    def _zero_loss(self, row: Mapping[str, Any]) -> Alarm | None:
        loss = _number(row, "loss")
        if loss is None:
            return None
        no_signal = loss == 0 and (not self.on_policy or _number(row, "grad_norm") == 0)
        self._zeros = self._zeros + 1 if no_signal else 0
        enough = ZERO_LOSSES_ON_POLICY if self.on_policy else ZERO_LOSSES
        return Alarm("zero_loss", self.step, 0.0) if self._zeros >= enough else None

    def _divergence(self, row: Mapping[str, Any]) -> list[Alarm]:
        kl = _number(row, "kl")
        if kl is None:
            return []
        # A mean over tokens, times the mean length, is the mean over completions of their sums.
        self._kl.append((kl, kl * (_number(row, "completions/mean_length") or 0.0)))
        token, completion = (fmean(column) for column in zip(*self._kl, strict=True))
        if completion > KL_LIMIT and token > KL_HEALTHY:
            return [Alarm("kl_high", self.step, completion)]
        return [Alarm("kl_negative", self.step, token)] if token < -KL_NOISE else []

    def _collapse(self, row: Mapping[str, Any]) -> Alarm | None:
        """Reward of the chosen side is β (log π − log π_ref), so that rows of every length are comparable."""
        reward, logps = _number(row, "rewards/chosen"), _number(row, "logps/chosen")
        if reward is None or logps is None or not self.beta:
            return None
        change = reward / self.beta
        self._fallen.append((-change, abs(logps - change)))
        if len(self._fallen) < COLLAPSE_LOGS:
            return None
        fallen, reference = (fmean(column) for column in zip(*self._fallen, strict=True))
        far = fallen > max(COLLAPSE_NATS, COLLAPSE_SHARE * reference)
        return Alarm("chosen_collapse", self.step, -fallen) if far else None

    def _all_cut(self, row: Mapping[str, Any]) -> Alarm | None:
        share = _number(row, "completions/clipped_ratio")
        if share is None:
            return None
        self._cut = self._cut + 1 if share >= CUT_SHARE else 0
        return Alarm("all_cut", self.step, share) if self._cut >= CUT_LOGS else None

    def _length_runs_away(self, row: Mapping[str, Any]) -> Alarm | None:
        reward, length = _number(row, "reward"), _number(row, "completions/mean_length")
        if reward is None or length is None:
            return None
        if len(self._first) < LENGTH_LOGS:
            self._first.append((reward, length))
            return None
        self._recent.append((reward, length))
        if len(self._recent) < LENGTH_LOGS:
            return None
        reward_before, length_before = (fmean(column) for column in zip(*self._first, strict=True))
        reward_now, length_now = (fmean(column) for column in zip(*self._recent, strict=True))
        if reward_now <= reward_before or length_now < LENGTH_FACTOR * max(length_before, 1.0):
            return None
        return Alarm("reward_length", self.step, length_now / max(length_before, 1.0))

    def _eval_loss_rises(self, row: Mapping[str, Any]) -> Alarm | None:
        loss = _number(row, "eval_loss")
        if loss is None:
            return None
        self._eval_losses[self.step] = loss  # a step that is done again is measured again
        steps = sorted(self._eval_losses)[-RISING_EVALUATIONS - 1 :]
        losses = [self._eval_losses[step] for step in steps]
        rises = len(losses) > RISING_EVALUATIONS and all(a < b for a, b in itertools.pairwise(losses))
        return Alarm("eval_loss_rises", self.step, loss) if rises else None

    def _resume_is_suspect(self, row: Mapping[str, Any]) -> Alarm | None:
        if self._resumed_at is None or "loss" not in row:
            return None
        checkpoint, self._resumed_at = self._resumed_at, None
        if self.step != checkpoint + 1:
            return Alarm("resume_suspect", self.step)
        loss, known = _number(row, "loss"), self._losses_before
        before = [known[step] for step in sorted(known) if step <= checkpoint][-RESUME_LOGS:]
        if loss is None or len(before) < RESUME_LEAST_LOGS:
            return None
        usual = fmean(before)
        noise = max(RESUME_NOISE * abs(usual), RESUME_SMALL)
        is_usual = abs(loss - usual) <= max(RESUME_SIGMAS * stdev(before), noise)
        # A batch of unusual rows is no fault: where the step was done before, its loss is the better witness.
        is_same = abs(loss - known.get(self.step, math.inf)) <= noise
        return None if is_usual or is_same else Alarm("resume_suspect", self.step, loss)


def _number(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
