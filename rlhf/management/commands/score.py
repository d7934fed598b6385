from __future__ import annotations

from argparse import ArgumentParser
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

from annotation.importers import ImportRefusedError, touchstone
from annotation.importers.reading import read_records
from annotation.importers.rows import UnusableRowError, Verdict
from annotation.management.script import ScriptCommand
from annotation.models import Preference
from annotation.services import DomainError
from rlhf.evaluation.reward_card import pair_metrics
from rlhf.evaluation.reward_report import ScoredPair
from rlhf.jobspec import sha256_of_file
from rlhf.models import CheckpointKind
from rlhf.scorer import score_rows
from rlhf.services import find_checkpoint
from rlhf.services.reward_cards import store_card


class Command(ScriptCommand):
    help = "Score judged pairs (touchstone format) with a reward model and say how often it agrees with people."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--checkpoint", required=True, metavar="NAME", help="a reward model")
        parser.add_argument("--file", required=True, type=Path, metavar="ROWS.jsonl")

    def run(self, **options: Any) -> dict[str, Any]:
        checkpoint = find_checkpoint(options["checkpoint"])
        if checkpoint.kind != CheckpointKind.REWARD:
            raise DomainError(f"{checkpoint.name} writes responses; name a reward model")
        rows, skipped = _pairs(options["file"])
        if not rows:
            raise DomainError(f"{options['file']} holds no pair with a preferred response")
        self.progress(f"{len(rows)} pairs to score, {len(skipped)} rows skipped")
        scored, probes = score_rows(checkpoint.path, rows, with_probes=True)
        skipped += [{"line": row["line"], "reason": row["error"]} for row in scored if row["scores"] is None]
        pairs = [row for row in scored if row["scores"] is not None]
        metrics = pair_metrics(
            [row["scores"][0] for row in pairs],
            [row["scores"][1] for row in pairs],
            [len(row["responses"][0]) for row in pairs],
            [len(row["responses"][1]) for row in pairs],
        )
        card = store_card(
            checkpoint,
            [_scored_pair(row) for row in pairs],
            probes,
            [name for row in pairs for name, _ in row["voters"]],
            sha256=sha256_of_file(options["file"]),
            name=options["file"].name,
        )
        return {
            "pairs": metrics["pairs"],
            "accuracy": metrics.get("accuracy"),
            "lower": metrics.get("accuracy_lower"),
            "upper": metrics.get("accuracy_upper"),
            "ece": metrics.get("ece"),
            "longer_chosen_share": metrics.get("longer_chosen_share"),
            "longer_preferred_share": metrics.get("longer_preferred_share"),
            **({"aspects": aspects} if (aspects := _aspects(pairs)) else {}),
            "skipped": skipped,
            "card": card.values,
        }


def _aspects(pairs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean score of the preferred and of the other responses in each aspect that the model has a head for."""
    names = pairs[0].get("aspects", {}) if pairs else {}
    return {
        name: {
            side: fmean(pair["aspects"][name][place] for pair in pairs)
            for place, side in enumerate(("preferred", "other"))
        }
        for name in names
    }


def _pairs(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows for rlhf.training.score, the preferred response first, and the rows that give none, with reasons."""
    rows: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    try:
        with path.open("rb") as file:
            for record in read_records(file):
                try:
                    if record.value is None:
                        raise UnusableRowError(record.error)
                    row = touchstone.parse(record.value)
                    if len(row.sides) != 2:
                        raise UnusableRowError(f"it has {len(row.sides)} responses, and a pair is needed")
                    a, b = row.sides
                    if a.messages != b.messages:
                        raise UnusableRowError("the two responses answer different histories")
                    preferred = _preferred(row.verdicts)
                except UnusableRowError as error:
                    skipped.append({"line": record.line, "reason": str(error)})
                    continue
                chosen, rejected = (a, b) if preferred == Preference.A else (b, a)
                rows.append(
                    {
                        "line": record.line,
                        "prompt": a.messages or row.messages,
                        "responses": [chosen.text, rejected.text],
                        **_people(row.verdicts, preferred),
                        "category": str(row.meta.get("category") or row.meta.get("task") or ""),
                    }
                )
    except OSError as error:
        raise ImportRefusedError(f"{path} cannot be read: {error.strerror or error}") from None
    return rows, skipped


def _people(verdicts: list[Verdict], preferred: str) -> dict[str, Any]:
    """Who voted for what, from the side of the preferred response; people only, where a person voted."""
    voters = [verdict for verdict in verdicts if verdict.is_human] or verdicts
    sides = {preferred: "chosen", Preference.TIE: "tie", Preference.NEITHER: "neither"}
    said = [(verdict.annotator, sides.get(verdict.preference, "rejected")) for verdict in voters]
    steps = [verdict.strength for verdict in voters if verdict.strength is not None]
    return {
        "votes": Counter(side for _, side in said),
        "voters": [(name, side) for name, side in said if side in ("chosen", "rejected")],
        "strength": abs(sum(steps) / len(steps)) if steps else None,
    }


def _preferred(verdicts: list[Verdict]) -> str:
    """The side with more votes by people, or by anybody where no person voted. Raises UnusableRowError."""
    voters = [verdict for verdict in verdicts if verdict.is_human] or verdicts
    votes = Counter(verdict.preference for verdict in voters)
    if votes[Preference.A] == votes[Preference.B]:
        raise UnusableRowError("no side has more votes than the other")
    return Preference.A if votes[Preference.A] > votes[Preference.B] else Preference.B


def _scored_pair(row: dict[str, Any]) -> ScoredPair:
    chosen, rejected = row["responses"]
    return ScoredPair(
        scores=(row["scores"][0], row["scores"][1]),
        lengths=(len(chosen), len(rejected)),
        strength=row["strength"],
        category=row["category"],
        votes=row["votes"],
        voters=tuple((name, side) for name, side in row["voters"]),
    )
