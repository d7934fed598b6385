"""A checkpoint's model card, made from the rows: what a stranger must know before using it.

Nothing in it was typed. Markdown with the metadata that model hubs read in front; what is not known is said to be
unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from django.utils.translation import override

from annotation.leaderboard import head_to_head
from annotation.models import Project, ResponseSource
from annotation.shares import Share
from annotation.vote_counts import opponents_of
from rlhf.evaluation.reward_card import meetings
from rlhf.forms import format_number
from rlhf.lineage import Lineage, lineage_of
from rlhf.models import Checkpoint, CheckpointKind, DatasetSnapshot, InsightKind, RewardCard, TrainingJob
from rlhf.options import OPTIONS
from rlhf.shares import held_out_accuracy
from rlhf.snapshots import SPLITS, snapshot_rows

OPPONENTS_NAMED = 12
FEW_HELD_OUT = 200
"""Below this many held-out pairs an accuracy is known to about ± 7 points only."""


def model_card(checkpoint: Checkpoint) -> str:
    """The card as Markdown, in English whoever asks: it travels with the weights."""
    with override("en"):
        lineage = lineage_of(checkpoint)
        maker = checkpoint.made_by
        sections = [
            _front_matter(checkpoint),
            f"# {checkpoint.name}",
            _summary(checkpoint, lineage),
            *([_training(checkpoint.job)] if checkpoint.job else []),
            *([_data(maker.snapshot, maker)] if maker and maker.snapshot else []),
            _results(checkpoint),
            *([_making(checkpoint.job)] if checkpoint.job else []),
            "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits_of(checkpoint)),
        ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(checkpoint: Checkpoint) -> str:
    tags = ["touchstone", *([checkpoint.job.method] if checkpoint.job else [])]
    lines = ["---", "library_name: transformers"]
    if checkpoint.kind == CheckpointKind.REWARD:
        lines.append("pipeline_tag: text-classification")
        tags.append("reward-model")
    else:
        lines.append("pipeline_tag: text-generation")
    if checkpoint.parent:
        lines.append(f"base_model: {checkpoint.parent.name}")
    return "\n".join([*lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _summary(checkpoint: Checkpoint, lineage: Lineage) -> str:
    what = "scores responses" if checkpoint.kind == CheckpointKind.REWARD else "writes responses"
    line = " → ".join([*(one.name for one in lineage.ancestors), f"**{checkpoint.name}**"])
    if checkpoint.job:
        snapshot = checkpoint.job.snapshot
        made = f"It was made from `{checkpoint.job.base.name}` by {checkpoint.job.get_method_display()}"
        if snapshot:
            made += f" on the data set `{snapshot.name}` of the project {_text(snapshot.project.name)}."
            if checkpoint.job.reward_model:
                made += f" The reward model `{checkpoint.job.reward_model.name}` scored what it wrote meanwhile."
        else:
            merged = checkpoint.job.merge_inputs.values_list("checkpoint__name", flat=True)
            made += f" of {', '.join(f'`{name}`' for name in merged)}; nothing was trained."
    elif checkpoint.step_of:
        job = checkpoint.step_of
        made = f"It is the model after {checkpoint.step} steps of the job {_text(str(job))}, from `{job.base.name}`"
        made += f" by {job.get_method_display()}."
    else:
        made = "It was made elsewhere and brought in; how is not known here."
    facts = [("Line", line), ("Manifest sha256", f"`{checkpoint.manifest_sha256}`")]
    return f"A model that {what}. {made}\n\n" + _table(("", ""), facts)


def _training(job: TrainingJob) -> str:
    defaults = OPTIONS[job.method]() if job.method in OPTIONS else None
    rows = [
        (f"`{name}`", format_number(value), "" if value == getattr(defaults, name, value) else "changed")
        for name, value in sorted(job.options.items())
    ]
    return f"## Training\n\nMethod: {job.get_method_display()} (`{job.method}`), {job.step or 0} steps.\n\n" + _table(
        ("option", "value", ""), rows
    )


def _data(snapshot: DatasetSnapshot, job: TrainingJob) -> str:
    rows: list[tuple[str, str]] = [
        ("Data set", f"`{snapshot.name}`, frozen {snapshot.created_at:%Y-%m-%d}"),
        ("sha256", f"`{snapshot.sha256}`"),
        ("Rows", f"{snapshot.train_rows:,} to train on, {snapshot.eval_rows:,} held out by prompt"),
        ("Prompts", f"{snapshot.prompt_count:,}"),
        ("Judgments", f"{snapshot.judgment_count:,}{', by people only' if snapshot.humans_only else ''}"),
    ]
    for split, report in job.preflight.items():
        if isinstance(report, dict) and "used" in report:
            taken = "prompts from" if "repeated" in report else "of"
            used = f"{report['used']:,} {taken} {report.get('judged', 0):,} judged comparisons"
            rows.append((f"Used ({split})", used))
    for name, share in snapshot_agreement(snapshot).items():
        rows.append((name, _share(share) if share else "not defined: no item has two votes"))
    return "## Data\n\n" + _table(("", ""), rows)


def snapshot_agreement(snapshot: DatasetSnapshot) -> dict[str, Share | None]:
    """How often two people gave the same verdict on one pair of the frozen rows, by prompt."""
    return _agreement_of(snapshot.pk, snapshot.sha256)


@lru_cache(maxsize=256)  # data sets never change
def _agreement_of(pk: int, sha256: str) -> dict[str, Share | None]:
    snapshot = DatasetSnapshot.objects.get(pk=pk)
    votes = [(row["group"], row["votes"]) for split in SPLITS for row in snapshot_rows(snapshot, split)]
    return {
        "Two people agree": agreement_share(votes),
        "… where both took a side": agreement_share(votes, sides_only=True),
    }


def agreement_share(votes: Iterable[tuple[str, dict[str, int]]], *, sides_only: bool = False) -> Share | None:
    """The share of equal verdicts over all pairs of votes on one item; votes: (group, verdict → count)."""
    by_group: dict[str, list[float]] = {}
    for group, counts in votes:
        kept = {verdict: count for verdict, count in counts.items() if not sides_only or verdict in _SIDES}
        same, pairs = meetings(kept.values())
        if pairs:
            sums = by_group.setdefault(group, [0.0, 0.0])
            sums[0] += same
            sums[1] += pairs
    return Share.clustered([same for same, _ in by_group.values()], [pairs for _, pairs in by_group.values()])


_SIDES = ("a", "b", "chosen", "rejected")


def _results(checkpoint: Checkpoint) -> str:
    parts = []
    if checkpoint.job:
        rows: list[tuple[str, str]] = []
        if accuracy := held_out_accuracy(checkpoint.job.metrics):
            rows.append(("Held-out accuracy", _share(accuracy)))
        rows += [(f"`{name}`", _number(value)) for name, value in sorted(checkpoint.job.metrics.items())]
        parts.append(_table(("metric", "value"), rows))
    for card in RewardCard.objects.filter(checkpoint=checkpoint).order_by("pk"):
        if card.values.get("pairs"):
            parts.append(_reward_card(card))
    if checkpoint.source:
        compared = _against_others(checkpoint.source)
        if compared:
            parts.append(
                "Blind votes by people; a tie counts half, the 95 % interval is by prompt.\n\n"
                + _table(("project", "against", "preferred", "won / same / lost"), compared)
            )
    return "## Results\n\n" + ("\n\n".join(parts) if parts else "Nothing has been measured here.")


def _reward_card(card: RewardCard) -> str:
    values = card.values
    calibration, length = values["calibration"], values["length"]

    def share(found: dict[str, Any] | None) -> str:
        if found is None:
            return "not defined"
        return f"{_percent(found['value'])} (95 %: {_percent(found['lower'])} to {_percent(found['upper'])})"

    rows = [
        ("Accuracy", f"{share(values['accuracy'])} of {values['pairs']:,} pairs"),
        ("Two people agree on these pairs", share(values["people"])),
        ("It agrees with one person", share(values["with_people"])),
        ("Expected calibration error", _number(calibration["ece"])),
        ("Negative log likelihood, Brier", f"{calibration['nll']:.4f}, {calibration['brier']:.4f}"),
        ("People chose the longer", _percent(length["longer_chosen_share"])),
        ("It prefers the longer", _percent(length["longer_preferred_share"])),
    ]
    where = f"`{card.data_name}`" if card.data_name else "its held-out pairs"
    return f"Reward model card on {where} (sha256 `{card.data_sha256}`):\n\n" + _table(("", ""), rows)


def records_of(source: ResponseSource) -> list[tuple[Project, ResponseSource, dict[str, Any]]]:
    """What people's votes say of it against others, most votes first."""
    opponents = opponents_of(source)[:OPPONENTS_NAMED]
    return [
        (project, opponent, head_to_head(project, source, opponent, humans_only=True))
        for project, opponent in opponents
    ]


def _against_others(source: ResponseSource) -> list[tuple[str, str, str, str]]:
    rows = []
    for project, opponent, record in records_of(source):
        if record["win_rate"] is None:
            continue
        interval = (
            f" ({_percent(record['lower'])} to {_percent(record['upper'])})" if record["lower"] is not None else ""
        )
        rows.append(
            (
                _text(project.name),
                _text(opponent.name),
                f"{_percent(record['win_rate'])}{interval} of {record['judgments']:,}",
                f"{record['wins']:,} / {record['ties']:,} / {record['losses']:,}",
            )
        )
    return rows


def _making(job: TrainingJob) -> str:
    rows: list[tuple[str, str]] = [("Code", f"touchstone {job.code_version}" if job.code_version else "unknown")]
    hardware = job.insights.filter(kind=InsightKind.HARDWARE).order_by("-shown_at").first()
    if hardware:
        rows += [(name.replace("_", " ").capitalize(), _number(value)) for name, value in hardware.values.items()
                 if isinstance(value, str | int | float)]  # fmt: skip
    else:
        rows.append(("Hardware", "not recorded"))
    if job.started_at and job.finished_at:
        rows.append(("Time", f"{(job.finished_at - job.started_at).total_seconds() / 60:,.1f} minutes, "
                             f"{job.attempt} attempt{'s' if job.attempt != 1 else ''}"))  # fmt: skip
    if peak := job.metrics.get("peak_memory_gb"):
        rows.append(("Peak memory", f"{peak:.1f} GB"))
    return "## How it was made\n\n" + _table(("", ""), rows)


def _limits_of_data(snapshot: DatasetSnapshot) -> list[str]:
    limits = []
    if not snapshot.humans_only:
        limits.append("Some of the judgments were made by models, not by people.")
    if snapshot.eval_rows == 0:
        limits.append("No data was held out, so no measure here says how it does on prompts it has not seen.")
    elif snapshot.eval_rows < FEW_HELD_OUT:
        limits.append(f"Only {snapshot.eval_rows} rows were held out: differences of a few points are noise.")
    people = snapshot_agreement(snapshot)["Two people agree"]
    if people is None:
        limits.append("No item has two people's votes, so nobody knows how far they agree.")
    elif people.value < 0.6:
        limits.append(f"Its people agreed on {_percent(people.value)} of pairs only; the labels are noisy.")
    return limits


def limits_of(checkpoint: Checkpoint) -> list[str]:
    """What follows from the rows; a person may add to a downloaded card. In English, as the card is."""
    limits = []
    job = checkpoint.made_by
    if checkpoint.step_of:
        limits.append("It is a step on the way, not what its job ended with.")
    if job is None:
        limits.append("Nothing about its training, its data or its licence is known here; ask where it came from.")
    else:
        limits.append(
            f"Its licence is at least that of its base; the terms of `{job.base.name}` and of the prompts apply."
        )
        limits += _limits_of_data(job.snapshot) if job.snapshot else ["Nothing was measured when it was merged."]
    if checkpoint.kind == CheckpointKind.REWARD:
        limits.append(
            "Scores compare responses to one prompt; they mean nothing across prompts, for other chat templates, or "
            "far from what it was trained on. A policy optimised against it will find its blind spots."
        )
    elif checkpoint.source is None:
        limits.append("It is not published: no person has compared what it writes.")
    return limits


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _text(given: str) -> str:
    """A name that people typed, so that nothing in it is markup."""
    return "".join(f"\\{character}" if character in "\\`*_[]<>#|!" else character for character in given)


def _share(share: Share) -> str:
    return f"{_percent(share.value)} (95 %: {_percent(share.lower)} to {_percent(share.upper)}) of {share.count:,}"


def _percent(value: float | None) -> str:
    return "not defined" if value is None else f"{100 * value:.1f} %"


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else _text(str(value))
