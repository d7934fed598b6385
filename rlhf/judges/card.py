"""A judge's card: how far its verdicts agree with people's, beside how far people agree, and what it is partial to.

It is made of verdicts by comparison, wherever they come from: a run here, or votes that a file gave for a model. Every
share counts human votes, or comparisons, of one project. Intervals are the percentiles 2.5 and 97.5 over resampled
prompts: all comparisons of one prompt stay together, because they lean the same way.

A comparison that the judge could not decide (its verdict turned with the order of the sides, or nothing usable came)
agrees with nobody. It stays in the denominator of the agreement with ties, and is counted beside the one without.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from itertools import compress
from typing import Any

import numpy as np
from django.db import connection
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from numpy.typing import NDArray

from annotation.agreement import load_votes
from annotation.agreement.coefficients import percentile_interval, resampling_weights
from annotation.agreement.votes import names_of
from annotation.models import Project
from rlhf.evaluation.reward_card import wilson_interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# A verdict of a judge on a comparison; the first four as in annotation.agreement.VERDICTS.
A, TIE, B, NEITHER, DEPENDS, UNUSABLE = range(6)
CODE_OF_PREFERENCE = {"a": A, "tie": TIE, "b": B}
RESAMPLES = 1000
EXAMPLES_SHOWN = 20


@dataclass(frozen=True)
class Standard:
    """What a judge must reach before it may stand in for people."""

    margin: float = 0.05
    """The lower end of its agreement may lie so far below the people's agreement with each other."""
    comparisons: int = 100
    prompts: int = 20
    people_pairs: int = 50
    """Pairs of people's votes on one comparison, on which their agreement rests."""


@dataclass(frozen=True)
class Share:
    """A share, or a difference of two, with its 95 % interval; of `count` votes or comparisons."""

    value: float
    lower: float | None
    upper: float | None
    count: int


@dataclass(frozen=True)
class Partiality:
    """How often a judge, and people on the same comparisons, prefer one kind of response."""

    judge: Share
    people: Share
    difference: Share


@dataclass(frozen=True)
class Slice:
    name: str
    agreement: Share
    people: Share | None


@dataclass(frozen=True)
class Card:
    comparisons: int
    """That the judge was asked about and people voted on, too."""
    prompts: int
    human_votes: int
    people: int
    depends: int
    """Comparisons whose verdict turned with the order of the sides."""
    unusable: int
    agreement: Share | None
    """With each human vote, ties counted."""
    agreement_no_ties: Share | None
    """Where the judge and the person both took a side."""
    undecided_votes: int
    """Human votes for a side on comparisons that the judge could not decide: not in `agreement_no_ties`."""
    human: Share | None
    """Of two people with each other, on the same comparisons."""
    human_no_ties: Share | None
    length: Partiality | None
    own: Partiality | None
    own_sources: list[str]
    """Whose responses count as the judge's own family's."""
    position_consistency: Share | None
    """Comparisons with the same verdict in both orders, of those usable in both."""
    first_share: float | None
    """Of the inconsistent ones: how often it took the side that was shown first, ties aside."""
    by_task: list[Slice]
    standard: Standard
    reasons: list[str]
    """Why it may not stand in for people; codes of REASONS."""
    cautions: list[str]
    """Codes of CAUTIONS; they forbid nothing."""
    contradicted: list[int] = field(default_factory=list)
    """Comparisons on which two people or more took one side and the judge the other."""

    @property
    def may_stand_in(self) -> bool:
        return not self.reasons

    @property
    def reasons_in_words(self) -> list[str | Promise]:
        return [REASONS[code] for code in self.reasons]

    @property
    def cautions_in_words(self) -> list[str | Promise]:
        return [CAUTIONS[code] for code in self.cautions]

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "may_stand_in": self.may_stand_in,
            "reasons": {code: str(REASONS[code]) for code in self.reasons},
            "cautions": {code: str(CAUTIONS[code]) for code in self.cautions},
        }


REASONS: dict[str, str | Promise] = {
    "no_votes": _("no comparison has both its verdict and a person’s"),
    "few_comparisons": _("too few comparisons have both its verdict and a person’s"),
    "few_prompts": _("the comparisons are about too few prompts"),
    "no_ceiling": _("no comparison was judged by two people, so nobody knows how far people agree"),
    "weak_ceiling": _("too few comparisons were judged by two people to say how far people agree"),
    "no_sides": _("it and people never both took a side"),
    "below_people": _("with ties counted, it does not surely agree with people as well as they agree with each other"),
    "below_people_no_ties": _(
        "where both take a side, it does not surely agree with people as well as they agree with each other"
    ),
}
CAUTIONS: dict[str, str | Promise] = {
    "length": _("it prefers the longer response more often than people do"),
    "shortness": _("it prefers the longer response less often than people do"),
    "own": _("it prefers responses of its own family more often than people do"),
    "others": _("it prefers responses of its own family less often than people do"),
    "position": _("its verdict turns with the order of the sides in more than a fifth of the comparisons"),
    "unusable": _("more than one comparison in twenty has no usable verdict"),
}


@dataclass(frozen=True)
class Verdicts:
    """What a judge said, by comparison; of pairs that were asked in both orders also what it said in each."""

    codes: Mapping[int, int]
    orders: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Verdicts as the sides were shown, in content order: (a first, b first), for those usable in both."""
    name: str = ""
    """The judge's, for its family."""


def make_card(
    project: Project,
    verdicts: Verdicts,
    *,
    standard: Standard | None = None,
    is_counted: Callable[[str], bool] = lambda _name: True,
) -> Card:
    """The card of verdicts on a project's comparisons.

    is_counted: whether an annotator of this name is among the people to hold it against.
    """
    standard = standard or Standard()
    ids = np.array(sorted(verdicts.codes), dtype=np.int64)
    codes = np.array([verdicts.codes[pk] for pk in ids.tolist()], dtype=np.int64)
    place, vote, person = _human_votes(project, ids, is_counted)
    facts = _Facts.of(ids)
    families = families_of({verdicts.name, *(name for pair in facts.sources for name in pair)})
    own = families[verdicts.name]
    is_own = np.array([[families[name] == own for name in pair] for pair in facts.sources], dtype=bool).reshape(-1, 2)
    table = _table(codes, place, vote, facts.lengths, is_own, ids, verdicts.orders)
    judged = table["votes"] > 0
    clusters = _Clusters(table, facts.groups)

    agreement = clusters.share("equal", "votes")
    no_ties = clusters.share("equal_sides", "sides")
    human = clusters.share("people_equal", "people_pairs")
    human_no_ties = clusters.share("people_equal_sides", "people_sides")
    length = clusters.partiality("length")
    of_own = clusters.partiality("own")
    consistency = clusters.share("same_both_ways", "both_ways")
    turned = [pair for pair in verdicts.orders.values() if pair[0] != pair[1]]
    firsts = [int(first == A) for first, _ in turned if first != TIE] + [int(b == B) for _, b in turned if b != TIE]
    counted = int(judged.sum())
    prompts = len({group for group, is_judged in zip(facts.groups, judged.tolist(), strict=True) if is_judged})
    return Card(
        comparisons=counted,
        prompts=prompts,
        human_votes=len(vote),
        people=len(np.unique(person)),
        depends=int(((codes == DEPENDS) & judged).sum()),
        unusable=int(((codes == UNUSABLE) & judged).sum()),
        agreement=agreement,
        agreement_no_ties=no_ties,
        undecided_votes=int(table["undecided"].sum()),
        human=human,
        human_no_ties=human_no_ties,
        length=length,
        own=of_own,
        own_sources=sorted({name for pair in facts.sources for name in pair if families[name] == own}),
        position_consistency=consistency,
        first_share=sum(firsts) / len(firsts) if firsts else None,
        by_task=_by_task(table, facts),
        standard=standard,
        reasons=_reasons(standard, counted, prompts, (agreement, no_ties), (human, human_no_ties)),
        cautions=_cautions(length, of_own, consistency, int((codes == UNUSABLE).sum()), len(codes)),
        contradicted=ids[(table["contradicted"] > 0)][:EXAMPLES_SHOWN].tolist(),
    )


def families_of(names: Collection[str]) -> dict[str, str]:
    """The family of each source: of a checkpoint trained here, that of the base that its line began with."""
    with connection.cursor() as cursor:
        cursor.execute(_BASES, [list(names)])
        bases = dict(cursor.fetchall())
    return {name: family_of(bases.get(name, name)) for name in names}


_BASES = """
    WITH RECURSIVE line AS (
        SELECT s.name AS source, c.name, c.parent_id
          FROM annotation_responsesource s JOIN rlhf_checkpoint c ON c.source_id = s.id WHERE s.name = ANY(%s)
        UNION ALL
        SELECT line.source, c.name, c.parent_id FROM line JOIN rlhf_checkpoint c ON c.id = line.parent_id
    )
    SELECT source, name FROM line WHERE parent_id IS NULL
"""


def family_of(name: str) -> str:
    """The letters that a model's name begins with: gpt of "gpt-3.5-turbo" and of "GPT4 (pair)"."""
    found = re.search(r"[^\W\d_]+", name.rsplit("/", 1)[-1].lower())
    return found[0] if found else name.lower()


# ── What is known of the comparisons ─────────────────────────────────────────────────────────────────────────────


def _human_votes(project: Project, ids: Ints, is_counted: Callable[[str], bool]) -> tuple[Ints, Ints, Ints]:
    """(place of the comparison in ids, verdict, annotator) of each vote by a person, in order of the comparison."""
    votes = load_votes(project, humans_only=True)
    names = names_of(votes.annotator)
    people = np.array([pk for pk, name in names.items() if is_counted(name)], dtype=np.int64)
    kept = (votes.part == 0) & np.isin(votes.comparison, ids) & np.isin(votes.annotator, people)
    return np.searchsorted(ids, votes.comparison[kept]), votes.verdict[kept], votes.annotator[kept]


_FACTS = """
    SELECT p."group", p.task, sa.name, sb.name, length(ra.text), length(rb.text)
      FROM annotation_comparison c
      JOIN annotation_prompt p ON p.id = c.prompt_id
      JOIN annotation_response ra ON ra.id = c.response_a_id
      JOIN annotation_response rb ON rb.id = c.response_b_id
      JOIN annotation_responsesource sa ON sa.id = ra.source_id
      JOIN annotation_responsesource sb ON sb.id = rb.source_id
     WHERE c.id = ANY(%s) ORDER BY c.id
"""


@dataclass(frozen=True)
class _Facts:
    groups: list[str]
    tasks: list[str]
    sources: list[tuple[str, str]]
    lengths: Ints
    """Characters, (comparisons, 2)."""

    @classmethod
    def of(cls, ids: Ints) -> _Facts:
        with connection.cursor() as cursor:
            cursor.execute(_FACTS, [ids.tolist()])
            rows = cursor.fetchall()
        lengths = np.array([row[4:] for row in rows], dtype=np.int64).reshape(-1, 2)
        return cls([row[0] for row in rows], [row[1] for row in rows], [(row[2], row[3]) for row in rows], lengths)


# ── Counting ─────────────────────────────────────────────────────────────────────────────────────────────────────

_IS_SIDE = np.array([True, False, True, False, False, False])


def _table(
    codes: Ints,
    place: Ints,
    vote: Ints,
    lengths: Ints,
    is_own: NDArray[np.bool_],
    ids: Ints,
    orders: Mapping[int, tuple[int, int]],
) -> dict[str, Ints]:
    """Counts by comparison, each (comparisons,)."""
    size = len(codes)
    by_verdict = np.zeros((size, 4), dtype=np.int64)
    np.add.at(by_verdict, (place, vote), 1)
    rows = np.arange(size)
    votes = by_verdict.sum(axis=1)
    sides = by_verdict[:, A] + by_verdict[:, B]
    decided, took_side = codes < DEPENDS, _IS_SIDE[codes]
    same = np.where(decided, by_verdict[rows, np.minimum(codes, NEITHER)], 0)
    takes_b = (codes == B).astype(np.int64)
    table = {
        "votes": votes,
        "equal": same,
        "sides": np.where(took_side, sides, 0),
        "equal_sides": np.where(took_side, same, 0),
        "undecided": np.where(decided, 0, sides),
        "people_pairs": votes * (votes - 1) // 2,
        "people_equal": (by_verdict * (by_verdict - 1) // 2).sum(axis=1),
        "people_sides": sides * (sides - 1) // 2,
        "people_equal_sides": (by_verdict * (by_verdict - 1) // 2)[:, [A, B]].sum(axis=1),
        "contradicted": took_side & (votes >= 2) & (same == 0) & (by_verdict[:, [A, B]].max(axis=1) == votes),
    }
    # Of a kind of response: how often the judge takes it, and how often people do on the same comparisons.
    kinds = {
        "length": (lengths[:, 1] > lengths[:, 0], lengths[:, 1] != lengths[:, 0]),
        "own": (is_own[:, 1], is_own[:, 0] != is_own[:, 1]),
    }
    for name, (is_b, differs) in kinds.items():
        counted = took_side & differs & (sides > 0)
        table[f"{name}_judge_of"] = counted.astype(np.int64)
        table[f"{name}_judge"] = (counted & (takes_b == is_b)).astype(np.int64)
        table[f"{name}_people_of"] = np.where(counted, sides, 0)
        table[f"{name}_people"] = np.where(counted, np.where(is_b, by_verdict[:, B], by_verdict[:, A]), 0)
    both = [orders.get(pk) for pk in ids.tolist()]
    table["both_ways"] = np.array([pair is not None for pair in both], dtype=np.int64)
    table["same_both_ways"] = np.array([pair is not None and pair[0] == pair[1] for pair in both], dtype=np.int64)
    return {name: np.asarray(column, dtype=np.int64) for name, column in table.items()}


class _Clusters:
    """The counts by prompt, and shares of them with intervals over resampled prompts."""

    def __init__(self, table: dict[str, Ints], groups: list[str]) -> None:
        self.columns = {name: number for number, name in enumerate(table)}
        number = {group: place for place, group in enumerate(dict.fromkeys(groups))}
        sums = np.zeros((len(number), len(table)), dtype=np.int64)
        np.add.at(sums, [number[group] for group in groups], np.stack(list(table.values()), axis=1))
        self.sums, self.total = sums, sums.sum(axis=0)
        # Prompts with the same counts are one that occurs often, which keeps a bootstrap of many of them small.
        patterns, times = np.unique(sums, axis=0, return_counts=True)
        self.resampled = np.zeros((0, len(table)))
        if len(sums) > 1:
            rng = np.random.default_rng(0)
            blocks = [weights @ patterns for weights in resampling_weights(times, RESAMPLES, rng)]
            self.resampled = np.concatenate(blocks)

    def share(self, part: str, whole: str) -> Share | None:
        total = int(self.total[self.columns[whole]])
        if not total:
            return None
        hits = int(self.total[self.columns[part]])
        # Where all prompts say the same, the bootstrap knows no doubt; Wilson's interval of so many prompts does.
        prompts = int((self.sums[:, self.columns[whole]] > 0).sum())
        interval = percentile_interval(self._ratio(part, whole)) or wilson_interval(hits / total * prompts, prompts)
        return Share(hits / total, *interval, total)

    def partiality(self, kind: str) -> Partiality | None:
        judge = self.share(f"{kind}_judge", f"{kind}_judge_of")
        people = self.share(f"{kind}_people", f"{kind}_people_of")
        if judge is None or people is None:
            return None
        gap = self._ratio(f"{kind}_judge", f"{kind}_judge_of") - self._ratio(f"{kind}_people", f"{kind}_people_of")
        lower, upper = percentile_interval(gap) or (None, None)
        return Partiality(judge, people, Share(judge.value - people.value, lower, upper, judge.count))

    def _ratio(self, part: str, whole: str) -> Floats:
        parts, wholes = (self.resampled[:, self.columns[name]] for name in (part, whole))
        return np.divide(parts, wholes, out=np.full(len(parts), np.nan), where=wholes > 0)


def _by_task(table: dict[str, Ints], facts: _Facts) -> list[Slice]:
    """Slices of the prompts' tasks; none where there is only one."""
    tasks = np.array(facts.tasks, dtype=object)
    slices = []
    for task in sorted(set(facts.tasks)):
        chosen = tasks == task
        kept = {name: column[chosen] for name, column in table.items()}
        clusters = _Clusters(kept, list(compress(facts.groups, chosen.tolist())))
        if agreement := clusters.share("equal", "votes"):
            slices.append(Slice(task, agreement, clusters.share("people_equal", "people_pairs")))
    return slices if len(slices) > 1 else []


# ── What follows ─────────────────────────────────────────────────────────────────────────────────────────────────


def _reasons(
    standard: Standard,
    comparisons: int,
    prompts: int,
    agreements: tuple[Share | None, Share | None],
    ceilings: tuple[Share | None, Share | None],
) -> list[str]:
    if not comparisons:
        return ["no_votes"]
    reasons = []
    if comparisons < standard.comparisons:
        reasons.append("few_comparisons")
    if prompts < standard.prompts:
        reasons.append("few_prompts")
    if ceilings[0] is None:
        return [*reasons, "no_ceiling"]
    if ceilings[0].count < standard.people_pairs:
        reasons.append("weak_ceiling")
    if _is_below(agreements[0], ceilings[0], standard.margin):
        reasons.append("below_people")
    if agreements[1] is None:
        reasons.append("no_sides")
    elif ceilings[1] is not None and _is_below(agreements[1], ceilings[1], standard.margin):
        reasons.append("below_people_no_ties")
    return reasons


def _is_below(agreement: Share | None, ceiling: Share, margin: float) -> bool:
    return agreement is None or agreement.lower is None or agreement.lower < ceiling.value - margin


def _cautions(
    length: Partiality | None, own: Partiality | None, consistency: Share | None, unusable: int, asked: int
) -> list[str]:
    cautions = []
    for more, less, partiality in (("length", "shortness", length), ("own", "others", own)):
        gap = partiality.difference if partiality else None
        if gap and gap.lower is not None and gap.upper is not None and not gap.lower <= 0 <= gap.upper:
            cautions.append(more if gap.value > 0 else less)
    if consistency is not None and consistency.value < 0.8:
        cautions.append("position")
    if unusable * 20 > asked:
        cautions.append("unusable")
    return cautions
