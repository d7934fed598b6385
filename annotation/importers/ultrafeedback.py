"""UltraFeedback as its publisher gives it: four responses a prompt, each scored 1 to 5 in four aspects by GPT-4.

Source: https://huggingface.co/datasets/openbmb/UltraFeedback (Cui et al. 2023, arXiv 2310.01377). The ranking is by
the mean of the aspects: the file's "overall_score" is known to hold 10 where 1 was meant.
"""

from __future__ import annotations

from typing import Any

from annotation.importers.rows import (
    MAX_RESPONSES,
    Row,
    Score,
    Side,
    UnusableRowError,
    Verdict,
    checked_name,
    checked_text,
    said_by_user,
    verdict_of_ranks,
)

COLUMNS = '"instruction" and "completions" with "annotations"'
ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")
_JUDGE = "gpt-4 (ultrafeedback)"


def recognises(record: dict[str, Any]) -> bool:
    return "instruction" in record and isinstance(record.get("completions"), list)


def parse(record: dict[str, Any]) -> Row:
    messages = said_by_user(checked_text(record.get("instruction"), "instruction"))
    completions = record.get("completions")
    if not isinstance(completions, list) or not 1 <= len(completions) <= MAX_RESPONSES:
        raise UnusableRowError(f'"completions" is not a list of 1 to {MAX_RESPONSES} responses')
    sides: list[Side] = []
    scores: list[Score] = []
    means: list[float | None] = []
    for position, completion in enumerate(completions):
        if not isinstance(completion, dict):
            raise UnusableRowError(f'"completions[{position}]" is not an object')
        name = f"completions[{position}]"
        sides.append(
            Side(
                checked_name(completion.get("model"), f"{name}.model") or "unknown (ultrafeedback)",
                checked_text(completion.get("response"), f"{name}.response"),
            )
        )
        of_one = _scores(completion.get("annotations"), position)
        scores += of_one
        values = [score.value for score in of_one if score.value is not None]
        means.append(sum(values) / len(values) if values else None)
    row = Row(
        messages,
        sides,
        scores=scores,
        lang="en",
        meta={"source": record["source"]} if isinstance(record.get("source"), str) else {},
    )
    if len(sides) > 1 and None not in means:
        best_first = sorted({mean for mean in means if mean is not None}, reverse=True)
        ranks = [best_first.index(mean) + 1 for mean in means if mean is not None]
        preference, ranking = verdict_of_ranks(ranks)
        row.verdicts.append(Verdict(_JUDGE, False, preference, ranking=ranking))
    return row


def _scores(annotations: Any, position: int) -> list[Score]:
    """Aspects that were not scored ("N/A") are left out."""
    if not isinstance(annotations, dict):
        return []
    found = []
    for aspect in ASPECTS:
        said = annotations.get(aspect)
        if isinstance(said, dict) and str(said.get("Rating")).strip() in ("1", "2", "3", "4", "5"):
            note = said.get("Rationale For Rating", said.get("Rationale"))
            found.append(
                Score(
                    _JUDGE,
                    False,
                    float(said["Rating"]),
                    aspect=aspect,
                    low=1.0,
                    high=5.0,
                    note=note if isinstance(note, str) else "",
                    position=position,
                )
            )
    return found
