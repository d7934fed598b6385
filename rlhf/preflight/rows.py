"""What a snapshot's rows become for one method, counted before the start: used, too long, or without a verdict.

The web side decides here which rows a job gets, and the training process counts tokens with the same code, so that
nothing is cut or dropped later in silence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from django.utils.translation import gettext

from annotation.export import USABLE, Kind, is_tie, training_rows
from annotation.services import DomainError
from rlhf.models import DatasetSnapshot
from rlhf.options import GivenRowsOptions, OnPolicyOptions, RewardOptions, TrainingOptions
from rlhf.preflight.findings import Finding, by_share, passed, refused, warned
from rlhf.preflight.prompts import usable_prompts
from rlhf.score_scales import Scale, has_score, normalise_row, scales
from rlhf.snapshots import snapshot_rows
from rlhf.token_lengths import TokenCounter

Report = dict[str, Any]
Row = dict[str, Any]
Lengths = dict[str, int]
"""Tokens of each side of a row: completion, or chosen and rejected; the prompt counted with each."""
Observe = Callable[[Row, Lengths, bool], None]

# More than this share of a data set lost to its length, or lost on one side rather than the other, changes what is
# learnt: a reward model that never sees a long chosen response learns that short is good.
_LOST_BLOCKS_ABOVE = 0.05
_UNEVEN_BLOCKS_ABOVE = 0.01


def empty_report(max_tokens: int, long_rows: str = "drop") -> Report:
    """The counts of one split, to be filled by `usable_rows`.

    judged (comparisons), used (rows), too_long (left out) and, of those, too_long_chosen / too_long_rejected; cut
    (used without their end) and, of those, cut_chosen / cut_rejected; refused (by the model's chat template); dropped
    (verdict or reason → comparisons that give no row); left_out (too_long, cut, refused or identical_responses → the
    comparisons, each once); longest_tokens among the used rows; max_tokens; long_rows (the option). Of an on-policy
    method, used counts prompts, and there are two more: repeated (comparisons whose prompt is there already) and
    chosen_used (chosen responses, for its KL on these). Of a reward model that learns from absolute scores there is
    scored, the used pairs of which a response has one.
    """
    return {
        "judged": 0,
        "used": 0,
        "too_long": 0,
        "too_long_chosen": 0,
        "too_long_rejected": 0,
        "cut": 0,
        "cut_chosen": 0,
        "cut_rejected": 0,
        "refused": 0,
        "dropped": {},
        "left_out": {},
        "longest_tokens": 0,
        "max_tokens": max_tokens,
        "long_rows": long_rows,
    }


def note_left_out(report: Report, why: str, comparison: int) -> None:
    """Keep which comparison it was; two rows of one are neighbours."""
    ids = report["left_out"].setdefault(why, [])
    if ids[-1:] != [comparison]:
        ids.append(comparison)


def usable_rows(
    snapshot: DatasetSnapshot,
    split: str,
    method: str,
    counter: TokenCounter,
    options: TrainingOptions,
    report: Report | None = None,
    observe: Observe = lambda _row, _lengths, _is_used: None,
) -> Iterator[Row]:
    """The rows that a job of this method trains on; `report`, if given, is filled on the way.

    `observe` is told of every row whose tokens could be counted, and whether it is used. What is measured is measured
    whole: only rows to train on are ever cut, and only those of whose responses something remains.
    """
    max_tokens = options.max_tokens
    long_rows = options.long_rows if isinstance(options, GivenRowsOptions) else "drop"
    report = empty_report(max_tokens, long_rows) if report is None else report
    if isinstance(options, OnPolicyOptions):
        yield from usable_prompts(snapshot, split, counter, options, report, observe)
        return
    dropped: Counter[str] = Counter()
    kind = Kind(method)
    scales = score_scales(snapshot, options)
    # What a reward model is measured on has a better side.
    ties = isinstance(options, RewardOptions) and options.use_ties and split == "train"

    def judged() -> Iterator[Row]:
        for row in snapshot_rows(snapshot, split):
            report["judged"] += 1
            is_used = row["verdict"] in USABLE[kind] or (ties and is_tie(row))
            if not is_used:
                dropped[row["verdict"]] += 1
            yield row

    for row in training_rows(kind, judged(), ties=ties):
        if "chosen" in row and row["chosen"] == row["rejected"]:  # from an older data set
            dropped["identical_responses"] += 1
            note_left_out(report, "identical_responses", row["id"])
            continue
        try:
            lengths: Lengths = {
                side: counter.count([*row["prompt"], *row[side]])
                for side in ("completion", "chosen", "rejected")
                if side in row
            }
        except ValueError:  # the model's chat template refuses these roles
            report["refused"] += 1
            note_left_out(report, "refused", row["id"])
            continue
        is_long = max(lengths.values()) > max_tokens
        is_cut = is_long and long_rows == "truncate" and split == "train" and _leaves_room(row, counter, max_tokens)
        observe(row, lengths, is_cut or not is_long)
        if is_long:
            what = "cut" if is_cut else "too_long"
            report[what] += 1
            note_left_out(report, what, row["id"])
            for side in ("chosen", "rejected"):
                report[f"{what}_{side}"] += lengths.get(side, 0) > max_tokens
            if not is_cut:
                continue
        report["used"] += 1
        report["longest_tokens"] = max(report["longest_tokens"], *(min(n, max_tokens) for n in lengths.values()))
        if scales:
            row = normalise_row(row, scales)
            report["scored"] = report.get("scored", 0) + has_score(row)
        yield row
    report["dropped"] = dict(dropped)


def _leaves_room(row: Row, counter: TokenCounter, max_tokens: int) -> bool:
    """Whether something of the responses is left where a row is cut; the training process asks the same."""
    return counter.count(row["prompt"], for_completion=True) < max_tokens


def score_scales(snapshot: DatasetSnapshot, options: TrainingOptions) -> dict[str, Scale]:
    """How the data set's absolute scores are normalised for a job that learns from them; empty for one that does not.

    Raises DomainError where there are none to learn from.
    """
    if not isinstance(options, RewardOptions) or not options.score_weight:
        return {}
    if not snapshot.score_measures:
        raise DomainError(
            gettext(
                "%(name)s holds no absolute scores, or was frozen before they were measured: set score_weight to 0, "
                "or freeze the data set anew"
            )
            % {"name": snapshot.name}
        )
    return scales(snapshot.score_measures, options.score_normalisation)


def describe(report: Report) -> str:
    """One split's counts as a sentence."""
    if "repeated" in report:
        parts = [f"{report['used']} prompts from {report['judged']} judged comparisons"]
    else:
        parts = [f"{report['used']} of {report['judged']} judged comparisons used"]
    if report["too_long"]:
        sides = ""
        if report["too_long_chosen"] or report["too_long_rejected"]:
            sides = f" ({report['too_long_chosen']} chosen, {report['too_long_rejected']} rejected)"
        parts.append(f"{report['too_long']} longer than {report['max_tokens']} tokens left out{sides}")
    if report["cut"]:
        parts.append(f"{report['cut']} cut at {report['max_tokens']} tokens, without their end")
    if report["refused"]:
        parts.append(f"{report['refused']} refused by the model's chat template")
    reasons = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in sorted(report["dropped"].items()))
    if reasons:
        parts.append(f"without a usable verdict: {reasons}")
    return "; ".join(parts)


def check_rows(report: dict[str, Report]) -> Iterator[Finding]:
    """What the counts of both splits mean for a job."""
    train, held_out = report["train"], report["eval"]
    if train["used"] and "repeated" in train:
        yield passed("prompts_used", used=train["used"], judged=train["judged"])
    elif train["used"]:
        yield passed("rows_used", used=train["used"], judged=train["judged"])
    elif train["too_long"]:
        yield refused("all_too_long", count=train["too_long"], tokens=train["max_tokens"])
    else:
        yield refused("no_rows", judged=train["judged"])
    if train.get("long_rows") == "raise" and (long := train["too_long"] + held_out["too_long"]):
        yield refused("long_rows_raise", count=long, tokens=train["max_tokens"], **_sides(train, "too_long"))
        return
    if train.get("cut"):
        yield from _check_cut(train)
    for code, split in (("too_long", train), ("too_long_held_out", held_out)):
        rows = split["used"] + split["too_long"]
        if not split["too_long"]:
            continue
        by_side = split["too_long_chosen"] or split["too_long_rejected"]
        yield by_share(
            f"{code}_by_side" if by_side else code,
            split["too_long"],
            rows,
            _LOST_BLOCKS_ABOVE,
            tokens=split["max_tokens"],
            chosen=split["too_long_chosen"],
            rejected=split["too_long_rejected"],
        )
        uneven = abs(split["too_long_chosen"] - split["too_long_rejected"])
        if split is train and uneven > _UNEVEN_BLOCKS_ABOVE * rows:
            chosen, rejected = split["too_long_chosen"], split["too_long_rejected"]
            yield by_share("uneven_loss", uneven, rows, _UNEVEN_BLOCKS_ABOVE, chosen=chosen, rejected=rejected)
    if not train["too_long"] and not held_out["too_long"] and not train.get("cut") and train["used"]:
        yield passed("none_cut", longest=train["longest_tokens"], tokens=train["max_tokens"])
    if count := train["refused"] + held_out["refused"]:
        total = count + sum(split["used"] + split["too_long"] for split in (train, held_out))
        yield by_share("template_refuses", count, total, _LOST_BLOCKS_ABOVE)
    if train["dropped"]:
        yield passed("no_side", reasons=train["dropped"])
    if held_out["used"]:
        yield passed("held_out", count=held_out["used"])
    else:
        yield warned("no_held_out")


def _check_cut(train: Report) -> Iterator[Finding]:
    by_side = train["cut_chosen"] or train["cut_rejected"]
    code = "cut_by_side" if by_side else "cut"
    said = _sides(train, "cut") if by_side else {}
    yield by_share(code, train["cut"], train["used"], _LOST_BLOCKS_ABOVE, tokens=train["max_tokens"], **said)
    uneven = abs(train["cut_chosen"] - train["cut_rejected"])
    if uneven > _UNEVEN_BLOCKS_ABOVE * train["used"]:
        yield by_share("uneven_cut", uneven, train["used"], _UNEVEN_BLOCKS_ABOVE, **_sides(train, "cut"))


def _sides(split: Report, what: str) -> dict[str, int]:
    return {side: split[f"{what}_{side}"] for side in ("chosen", "rejected")}
