"""AlpacaEval's win rates, from files of a judge's preferences.

A preference lies between 1 (the baseline wins) and 2 (the model wins), 1.5 being a tie, which old files write as 0;
judges that give the probability of their answer fill the range between. The win rate is 100·mean(preference − 1), its
standard error 100·sd / √n with the sample's standard deviation (Dubois et al. 2024). Standard library only.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist, fmean, stdev

COLUMNS = ("model", "instruction_id", "preference")


class PreferenceFileError(ValueError):
    """A file that is not one of preferences; the sentence names the line."""


@dataclass(frozen=True)
class WinRate:
    """In percent."""

    model: str
    win_rate: float
    standard_error: float | None
    """None of a single answer."""
    lower: float | None
    upper: float | None
    count: int
    baseline: str
    unusable: int
    """Answers without a verdict. They stay out of the rate and are counted here, never silently dropped."""


@dataclass(frozen=True)
class Verdict:
    model: str
    instruction: str
    baseline: str
    preference: float | None


def read_preferences(path: Path) -> Iterator[Verdict]:
    """The verdicts of a CSV file. Raises PreferenceFileError for what is none, is out of range or comes twice."""
    try:
        file = path.open(encoding="utf-8", newline="")
    except OSError as error:
        raise PreferenceFileError(f"{path} cannot be read: {error.strerror or error}") from None
    seen: set[tuple[str, str]] = set()
    with file:
        rows = csv.DictReader(file)
        if missing := set(COLUMNS) - set(rows.fieldnames or ()):
            raise PreferenceFileError(
                f"{path.name} has no column {sorted(missing)[0]!r}; it needs {', '.join(COLUMNS)}"
            )
        for row in rows:
            where = f"{path.name} line {rows.line_num}"
            key = (row["model"], row["instruction_id"])
            if not row["model"] or key in seen:
                what = f"{key[0]} answers {key[1]} twice" if row["model"] else "no model is named"
                raise PreferenceFileError(f"{where}: {what}")
            seen.add(key)
            yield Verdict(*key, row.get("baseline") or "", _preference(row["preference"], where))


def _preference(text: str | None, where: str) -> float | None:
    text = (text or "").strip()
    if not text or text.lower() in ("nan", "none", "null"):
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if value == 0:
        return 1.5
    if not 1 <= value <= 2:
        raise PreferenceFileError(f"{where}: the preference {text!r} is not between 1 and 2")
    return value


def win_rates(verdicts: Iterator[Verdict], *, confidence: float = 0.95) -> list[WinRate]:
    """One row a model, the best first; a model of which no answer has a verdict stands last, with rate 0 of 0."""
    by_model: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_model.setdefault(verdict.model, []).append(verdict)
    quantile = NormalDist().inv_cdf(0.5 + confidence / 2)
    rows = []
    for model, given in by_model.items():
        points = [verdict.preference - 1 for verdict in given if verdict.preference is not None]
        rate = 100 * fmean(points) if points else 0.0
        error = 100 * stdev(points) / math.sqrt(len(points)) if len(points) > 1 else None
        rows.append(
            WinRate(
                model,
                rate,
                error,
                None if error is None else max(0.0, rate - quantile * error),
                None if error is None else min(100.0, rate + quantile * error),
                len(points),
                given[0].baseline,
                len(given) - len(points),
            )
        )
    return sorted(rows, key=lambda row: (not row.count, -row.win_rate, row.model))
