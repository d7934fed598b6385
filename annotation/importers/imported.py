"""What an import did, row by row accounted for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from annotation.importers.reading import Record


@dataclass
class Imported:
    """What one run of an import did. Every row is new, or there already, or among `skipped`.

    Where a record holds several comparisons or turns, each counts as a row. So `rows` = `comparisons` +
    `single_responses` (new ones that are rated, or turns of a conversation) + `already_there` + the entries of
    `skipped` without an "annotator"; one with it is a single verdict of a row that was otherwise used.
    """

    project: str
    format: str
    rows: int = 0
    prompts: int = 0
    responses: int = 0
    comparisons: int = 0
    judgments: int = 0
    single_responses: int = 0
    ratings: int = 0
    conversations: int = 0
    already_there: int = 0
    skipped: list[dict[str, Any]] = field(default_factory=list)

    def skip(self, record: Record, reason: str, annotator: str = "") -> None:
        entry: dict[str, Any] = {"line": record.line, "reason": reason}
        if record.item is not None:
            entry["item"] = record.item
        if annotator:
            entry["annotator"] = annotator
        self.skipped.append(entry)
