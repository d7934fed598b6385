"""PandaLM's human-annotated test set as its publisher gives it: a JSON array, 0 = tie, 1 and 2 = the better response.

Source: https://github.com/WeOpenML/PandaLM (data/testset-v1.json).
"""

from __future__ import annotations

import re
from typing import Any

from annotation.importers.rows import Row, Side, UnusableRowError, Verdict, checked_name, checked_text, said_by_user
from annotation.models import Preference

COLUMNS = '"instruction", "input", "response1", "response2", "cmp_key" and "annotator1" …'
_VERDICTS = {0: Preference.TIE, 1: Preference.A, 2: Preference.B}


def recognises(record: dict[str, Any]) -> bool:
    return {"instruction", "response1", "response2", "cmp_key"} <= set(record)


def parse(record: dict[str, Any]) -> Row:
    instruction = checked_text(record.get("instruction"), "instruction")
    extra = checked_text(record.get("input", ""), "input")
    names = checked_text(record.get("cmp_key"), "cmp_key").split("_")
    if len(names) != 2 or not all(names):
        raise UnusableRowError('"cmp_key" does not name two models with one underscore between them')
    # The published file holds a JSON `true` in six places. What the model wrote is lost, so it is not guessed.
    sides = [
        Side(checked_name(name, "cmp_key"), checked_text(record.get(key), key))
        for name, key in zip(names, ("response1", "response2"), strict=True)
    ]
    verdicts, skipped = [], []
    for key, value in record.items():
        if not re.fullmatch(r"annotator\d+", key):
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value not in _VERDICTS:
            skipped.append((key, "the verdict is not 0, 1 or 2"))
        else:
            verdicts.append(Verdict(key, True, _VERDICTS[value]))
    number = record.get("idx")
    return Row(
        said_by_user(f"{instruction}\n\n{extra}" if extra else instruction),
        sides,
        verdicts,
        external_id="" if number is None else checked_name(f"pandalm-{number}", "idx"),
        lang="en",
        meta={"app": record["motivation_app"]} if record.get("motivation_app") else {},
        skipped=skipped,
    )
