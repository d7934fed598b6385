"""Reward models' cards: made of what the training side scored, and of what the database knows about the pairs."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from annotation.models import Comparison, Judgment, Preference
from rlhf.evaluation.reward_report import ScoredPair, make_card
from rlhf.jobspec import REWARD_CARD_FILE
from rlhf.models import Checkpoint, DatasetSnapshot, RewardCard
from rlhf.snapshots import snapshot_rows

logger = logging.getLogger(__name__)


def store_held_out_card(checkpoint: Checkpoint) -> RewardCard | None:
    """The card on the pairs that its job held out; None where the job scored none."""
    job = checkpoint.job
    if job is None or job.snapshot is None:
        return None
    try:
        found = json.loads((job.directory / REWARD_CARD_FILE).read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        logger.warning("reward card not readable: job=%s error=%s", job.pk, error)
        return None
    pairs = [
        ScoredPair(
            scores=tuple(row["scores"]),
            lengths=tuple(row["lengths"]),
            id=row.get("id"),
            strength=row.get("strength"),
            votes=row.get("votes") or {},
        )
        for row in found["pairs"]
    ]
    pairs, held_out = _with_people(job.snapshot, pairs)
    return store_card(checkpoint, pairs, found.get("probes"), held_out, sha256=job.snapshot.sha256)


def store_card(
    checkpoint: Checkpoint,
    pairs: Sequence[ScoredPair],
    probes: dict[str, Any] | None,
    held_out: Sequence[str] = (),
    *,
    sha256: str,
    name: str = "",
) -> RewardCard:
    """Store the card, in place of an earlier one on the same pairs."""
    card, _ = RewardCard.objects.update_or_create(
        checkpoint=checkpoint,
        data_sha256=sha256,
        defaults={"data_name": name[:200], "values": make_card(pairs, probes, held_out)},
    )
    return card


def _with_people(snapshot: DatasetSnapshot, pairs: list[ScoredPair]) -> tuple[list[ScoredPair], list[str]]:
    """The pairs with their prompts' tasks and who voted for what, and the voters unknown to the training rows."""
    ids = [pair.id for pair in pairs if isinstance(pair.id, int)]
    tasks = dict(Comparison.objects.filter(pk__in=ids).values_list("pk", "prompt__task"))
    chosen_of = {row["id"]: row["verdict"] for row in snapshot_rows(snapshot, "eval") if row["verdict"] in ("a", "b")}
    voters: dict[int, list[tuple[str, str]]] = {}
    people: dict[int, str] = {}
    votes = Judgment.objects.filter(
        comparison__in=ids, superseded_at=None, round=0, preference__in=[Preference.A, Preference.B]
    )
    if snapshot.humans_only:
        votes = votes.filter(annotator__is_human=True)
    for comparison, annotator, name, preference in votes.values_list(
        "comparison", "annotator", "annotator__name", "preference"
    ):
        people[annotator] = name
        side = "chosen" if preference == chosen_of.get(comparison) else "rejected"
        voters.setdefault(comparison, []).append((name, side))
    trained = {row["id"] for row in snapshot_rows(snapshot, "train")}
    known = set(
        Judgment.objects.filter(annotator__in=people, comparison__in=trained, superseded_at=None)
        .values_list("annotator", flat=True)
        .distinct()
    )
    found = [
        replace(pair, category=tasks.get(pair.id, "") or "", voters=tuple(voters.get(pair.id, ())))  # type: ignore[arg-type]
        for pair in pairs
    ]
    return found, [name for pk, name in people.items() if pk not in known]
