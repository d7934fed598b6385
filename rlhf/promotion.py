"""Whether a checkpoint passes the gate of an alias, criterion by criterion, and what is missing where it does not.

Each criterion is held against the last checkpoint that the alias stood for, the champion. Where it never stood for
anything there is nothing to be better than, and what compares is met. What a gate found is kept with the move
(`AliasMove.gate`), so a later change of the thresholds or further votes change no old decision.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from django.db.models import Exists, OuterRef, Q
from django.urls import reverse
from django.utils.translation import gettext, ngettext

from annotation.models import Response, ResponseSource
from rlhf.benchmark_figures import figures_of, newest_runs
from rlhf.models import AliasMove, BenchmarkRun, BenchmarkSet, Checkpoint, CheckpointKind, PromotionGate
from rlhf.win_rates import checkpoint_win_rate

VOTES, PEOPLE, WIN_RATE, BENCHMARK, REWARD = "votes", "people", "win_rate", "benchmark", "reward_accuracy"


@dataclass(frozen=True)
class Criterion:
    """One threshold and what was found; shares lie in 0 … 1, benchmark figures in 0 … 100."""

    code: str
    is_met: bool
    wanted: float
    found: float | None = None
    """None where it could not be measured, and `why` says why, or where there is nothing to compare with."""
    lower: float | None = None
    upper: float | None = None
    rival: float | None = None
    """The champion's figure, where `wanted` is a distance from it."""
    why: str = ""
    """"unpublished", "champion_unpublished", "not_run", "unlike", "no_card", "no_interval" or "first"."""
    name: str = ""
    """Of the data set, with the conditions of the runs; of a win rate what was held equal."""
    url: str = ""
    """Where the rows are."""

    @property
    def title(self) -> str:
        return {
            VOTES: gettext("votes against the champion"),
            PEOPLE: gettext("different voters"),
            WIN_RATE: gettext("win rate against the champion at equal length")
            if self.name
            else gettext("win rate against the champion"),
            BENCHMARK: gettext("%(name)s, overall") % {"name": self.name},
            REWARD: gettext("accuracy on held-out pairs"),
        }[self.code]

    @property
    def wanted_words(self) -> str:
        if self.code in (VOTES, PEOPLE):
            return gettext("at least %(count)s") % {"count": f"{self.wanted:,.0f}"}
        if self.code == BENCHMARK:
            return gettext("at most %(points)s points below the champion") % {"points": f"{self.wanted:g}"}
        if self.code == WIN_RATE:
            return gettext("95 %% interval above %(share)s") % {"share": _percent(self.wanted)}
        return gettext("at least %(share)s") % {"share": _percent(self.wanted)}

    @property
    def found_words(self) -> str:
        if self.why:
            return _why_not(self.why)
        assert self.found is not None
        if self.code == VOTES:
            given = {"found": f"{self.found:,.0f}", "wanted": f"{self.wanted:,.0f}"}
            return ngettext("%(found)s of %(wanted)s vote", "%(found)s of %(wanted)s votes", int(self.wanted)) % given
        if self.code == PEOPLE:
            given = {"found": f"{self.found:,.0f}", "wanted": f"{self.wanted:,.0f}"}
            return (
                ngettext("%(found)s of %(wanted)s voter", "%(found)s of %(wanted)s voters", int(self.wanted)) % given
            )
        if self.code == BENCHMARK:
            return gettext("%(found)s, the champion %(rival)s") % {
                "found": f"{self.found:.2f}", "rival": f"{self.rival:.2f}"
            }  # fmt: skip
        ends = {"share": _percent(self.found), "lower": _percent(self.lower), "upper": _percent(self.upper)}
        return gettext("%(share)s (%(lower)s to %(upper)s)") % ends


def _why_not(why: str) -> str:
    return {
        "unpublished": gettext("not published, so nobody can compare it"),
        "champion_unpublished": gettext("the champion is not published, so nobody can compare with it"),
        "not_run": gettext("no finished run of both with one judge"),
        "unlike": gettext(
            "both were run, but with another language of the judge’s prompt or another cap on the answers"
        ),
        "no_score": gettext("a run without a score"),
        "no_card": gettext("no reward card"),
        "no_interval": gettext("no interval: too few votes, or all one way"),
        "first": gettext("the first one: nothing to compare with"),
    }[why]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


@dataclass(frozen=True)
class Decision:
    """What a gate says of a checkpoint."""

    gate: PromotionGate
    checkpoint: Checkpoint
    champion: Checkpoint | None
    criteria: list[Criterion]

    @property
    def is_passed(self) -> bool:
        return all(criterion.is_met for criterion in self.criteria)

    @property
    def missing(self) -> str:
        """One clause for each criterion that is not met."""
        return criteria_missing(self.criteria)

    def as_json(self) -> dict[str, Any]:
        return {
            "champion": self.champion.name if self.champion else None,
            "criteria": [asdict(criterion) for criterion in self.criteria],
        }


def criteria_missing(criteria: Iterable[Criterion]) -> str:
    """What stands in the way, as clauses of a sentence."""
    said = [
        gettext("%(title)s: %(found)s, wanted %(wanted)s")
        % {"title": one.title, "found": one.found_words, "wanted": one.wanted_words}
        for one in criteria
        if not one.is_met
    ]
    return "; ".join(said)


def kept_criteria(move: AliasMove) -> list[Criterion]:
    """What the gate found when the alias moved."""
    return [Criterion(**criterion) for criterion in move.gate.get("criteria", [])]


def champion_of(alias: str, project_id: int | None) -> Checkpoint | None:
    """The last checkpoint that the alias stood for, though it was taken away since."""
    moves = AliasMove.objects.filter(alias=alias, project=project_id, checkpoint__isnull=False)
    move = moves.select_related("checkpoint__source").order_by("-number").first()
    return move.checkpoint if move else None


def decide(gate: PromotionGate, checkpoint: Checkpoint) -> Decision:
    """Hold a checkpoint against a gate's thresholds."""
    champion = champion_of(gate.alias, gate.project_id)
    criteria: list[Criterion] = []
    if checkpoint.kind == CheckpointKind.REWARD:
        if gate.least_reward_accuracy is not None:
            criteria.append(_reward_accuracy(checkpoint, gate.least_reward_accuracy))
    else:
        if gate.least_win_rate is not None:
            criteria += _votes(gate, gate.least_win_rate, checkpoint, champion)
        if gate.benchmark is not None:
            criteria.append(_benchmark(gate.benchmark, gate.most_benchmark_drop, checkpoint, champion))
    return Decision(gate, checkpoint, champion, criteria)


def _votes(gate: PromotionGate, least: float, checkpoint: Checkpoint, champion: Checkpoint | None) -> list[Criterion]:
    if champion is None:
        return [Criterion(WIN_RATE, True, least, why="first")]
    if checkpoint.source is None or champion.source is None:
        why = "unpublished" if checkpoint.source is None else "champion_unpublished"
        return [Criterion(WIN_RATE, False, least, why=why)]
    found = checkpoint_win_rate(checkpoint, champion, project=gate.project, voters=gate.voters)
    url = reverse("checkpoint_detail", args=[checkpoint.pk]) + "#votes"
    votes, people = (found.judgments, found.people) if found else (0, 0)
    share = (found.at_equal_length if gate.hold_length_equal else found.rate) if found else None
    if share is None or (found and found.prompts < 2):
        rate = Criterion(WIN_RATE, False, least, why="no_interval", url=url)
    else:
        rate = Criterion(WIN_RATE, share.lower > least, least, share.value, share.lower, share.upper, url=url)
    return [
        Criterion(VOTES, votes >= gate.least_votes, gate.least_votes, votes, url=url),
        Criterion(PEOPLE, people >= gate.least_people, gate.least_people, people, url=url),
        replace(rate, name="equal_length" if gate.hold_length_equal else ""),
    ]


def _benchmark(data_set: BenchmarkSet, most: float, checkpoint: Checkpoint, champion: Checkpoint | None) -> Criterion:
    if champion is None:
        return Criterion(BENCHMARK, True, most, why="first", name=data_set.name)
    runs, why = _runs_alike(data_set, checkpoint.source, champion.source)
    if runs is None:
        return Criterion(BENCHMARK, False, most, why=why, name=data_set.name)
    judge = runs[0].judge.name if runs[0].judge else ""
    name = f"{data_set.name} ({judge}, {runs[0].conditions_shown})"
    own, other = (figures_of(run)["overall"] for run in runs)
    url = reverse("benchmark_run", args=[runs[0].pk])
    if own is None or other is None:
        return Criterion(BENCHMARK, False, most, why="no_score", name=name, url=url)
    return Criterion(BENCHMARK, own >= other - most, most, own, rival=other, name=name, url=url)


def _runs_alike(
    data_set: BenchmarkSet, source: ResponseSource | None, rival: ResponseSource | None
) -> tuple[tuple[BenchmarkRun, BenchmarkRun] | None, str]:
    """The newest run of the source under conditions of which the rival has a run, and that one; else why not."""
    if source is None or rival is None:
        return None, "not_run"
    of_rival = {run.conditions: run for run in newest_runs(data_set.runs.filter(source=rival))}
    own = sorted(newest_runs(data_set.runs.filter(source=source)), key=lambda run: -run.pk)
    for run in own:
        if other := of_rival.get(run.conditions):
            return (run, other), ""
    judges = {run.judge_id for run in of_rival.values()}
    return None, "unlike" if any(run.judge_id in judges for run in own) else "not_run"


def _reward_accuracy(checkpoint: Checkpoint, least: float) -> Criterion:
    """Of the newest card on pairs that were held out from its own training."""
    card = checkpoint.reward_cards.filter(data_name="").order_by("-made_at").first()
    url = reverse("reward_card", args=[checkpoint.pk])
    if card is None or not card.values.get("pairs"):
        return Criterion(REWARD, False, least, why="no_card", url=url)
    found = card.values["accuracy"]
    value = found["value"]
    return Criterion(REWARD, value >= least, least, value, found["lower"], found["upper"], url=url)


def decisions_about(checkpoint: Checkpoint) -> list[Decision]:
    """What every gate says that could let an alias stand for this checkpoint, but does not yet.

    Of project gates those of its own project and of the projects in which it wrote.
    """
    maker = checkpoint.made_by
    own = maker.snapshot.project_id if maker and maker.snapshot else None
    wrote = Response.objects.filter(prompt__project=OuterRef("project"), source=checkpoint.source_id)
    near = Q(project=None) | Q(project=own) | (Exists(wrote) if checkpoint.source_id else Q(pk__in=[]))
    gates = PromotionGate.objects.filter(near).select_related("project", "benchmark")
    standing = {
        (move.alias, move.project_id) for move in AliasMove.objects.current() if move.checkpoint_id == checkpoint.pk
    }
    found = []
    for gate in gates:
        if (gate.alias, gate.project_id) in standing:
            continue
        decision = decide(gate, checkpoint)
        if decision.criteria and (decision.champion is None or decision.champion.kind == checkpoint.kind):
            found.append(decision)
    return found
