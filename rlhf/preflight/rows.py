"""What a snapshot's rows become for one method, counted before the start: used, too long, or without a verdict.

The web side decides here which rows a job gets, and the training process counts tokens with the same code, so that
nothing is cut or dropped later in silence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.utils.translation import gettext

from annotation.export import USABLE, Kind, is_tie, training_rows
from annotation.services import DomainError
from rlhf.models import DatasetSnapshot
from rlhf.options import OnPolicyOptions, RewardOptions, TrainingOptions
from rlhf.preflight.prompts import usable_prompts
from rlhf.score_scales import Scale, has_score, normalise_row, scales
from rlhf.snapshots import SPLITS, snapshot_rows
from rlhf.token_lengths import TokenCounter

Report = dict[str, Any]


def examine(snapshot: DatasetSnapshot, method: str, base_dir: Path, options: TrainingOptions) -> dict[str, Report]:
    """Counts for both splits: `{"train": {…}, "eval": {…}}`.

    Each: judged (comparisons), used (rows), too_long and, of those, too_long_chosen / too_long_rejected; refused
    (by the model's chat template); dropped (verdict or reason → comparisons that give no row); longest_tokens among
    the used rows; max_tokens. Of an on-policy method, used counts prompts, and there are two more: repeated
    (comparisons whose prompt is there already) and chosen_used (chosen responses, for its KL on these). Of a reward
    model that learns from absolute scores there is scored, the used pairs of which a response has one.
    """
    counter = TokenCounter(base_dir)
    report = {}
    for split in SPLITS:
        report[split] = _empty(options.max_tokens)
        for _ in usable_rows(snapshot, split, method, counter, options, report[split]):
            pass
    return report


def _empty(max_tokens: int) -> Report:
    return {
        "judged": 0,
        "used": 0,
        "too_long": 0,
        "too_long_chosen": 0,
        "too_long_rejected": 0,
        "refused": 0,
        "dropped": {},
        "longest_tokens": 0,
        "max_tokens": max_tokens,
    }


def usable_rows(
    snapshot: DatasetSnapshot,
    split: str,
    method: str,
    counter: TokenCounter,
    options: TrainingOptions,
    report: Report | None = None,
) -> Iterator[dict[str, Any]]:
    """The rows that a job of this method trains on; `report`, if given, is filled on the way."""
    max_tokens = options.max_tokens
    report = _empty(max_tokens) if report is None else report
    if isinstance(options, OnPolicyOptions):
        yield from usable_prompts(snapshot, split, counter, options, report)
        return
    dropped: Counter[str] = Counter()
    kind = Kind(method)
    scales = score_scales(snapshot, options)
    # What a reward model is measured on has a better side.
    ties = isinstance(options, RewardOptions) and options.use_ties and split == "train"

    def judged() -> Iterator[dict[str, Any]]:
        for row in snapshot_rows(snapshot, split):
            report["judged"] += 1
            is_used = row["verdict"] in USABLE[kind] or (ties and is_tie(row))
            if not is_used:
                dropped[row["verdict"]] += 1
            yield row

    for row in training_rows(kind, judged(), ties=ties):
        try:
            lengths = {
                side: counter.count([*row["prompt"], *row[side]])
                for side in ("completion", "chosen", "rejected")
                if side in row
            }
        except ValueError:  # the model's chat template refuses these roles
            report["refused"] += 1
            continue
        if max(lengths.values()) > max_tokens:
            report["too_long"] += 1
            for side in ("chosen", "rejected"):
                report[f"too_long_{side}"] += lengths.get(side, 0) > max_tokens
            continue
        report["used"] += 1
        report["longest_tokens"] = max(report["longest_tokens"], *lengths.values())
        if scales:
            row = normalise_row(row, scales)
            report["scored"] = report.get("scored", 0) + has_score(row)
        yield row
    report["dropped"] = dict(dropped)


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
    if report["refused"]:
        parts.append(f"{report['refused']} refused by the model's chat template")
    reasons = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in sorted(report["dropped"].items()))
    if reasons:
        parts.append(f"without a usable verdict: {reasons}")
    return "; ".join(parts)
