"""Stanford Human Preferences: two comments on one Reddit post, the better one by what its readers voted.

Source: https://huggingface.co/datasets/stanfordnlp/SHP (Ethayarajh et al. 2022). "labels" is 1 where A is the better.
"""

from __future__ import annotations

from typing import Any

from annotation.importers.rows import (
    Row,
    Side,
    UnusableRowError,
    Verdict,
    checked_name,
    checked_text,
    said_by_user,
)
from annotation.models import Preference

COLUMNS = '"history", "human_ref_A", "human_ref_B" and "labels"'
_KEPT = ("domain", "score_A", "score_B", "score_ratio", "seconds_difference", "upvote_ratio")


def recognises(record: dict[str, Any]) -> bool:
    return {"history", "human_ref_A", "human_ref_B", "labels"} <= record.keys()


def parse(record: dict[str, Any]) -> Row:
    label = record.get("labels")
    if type(label) is not int or label not in (0, 1):
        raise UnusableRowError('"labels" is not 1 (A is the better) or 0')
    post, a, b = (checked_name(record.get(key), key) for key in ("post_id", "c_root_id_A", "c_root_id_B"))
    verdict = Verdict("readers (shp)", True, Preference.A if label else Preference.B)
    return Row(
        said_by_user(checked_text(record.get("history"), "history")),
        [
            Side("unknown (shp)", checked_text(record.get(f"human_ref_{side}"), f"human_ref_{side}"))
            for side in ("A", "B")
        ],
        [verdict],
        external_id=checked_name(f"shp-{a}-{b}", "c_root_id_A") if a and b else "",
        group=checked_name(f"shp-{post}", "post_id") if post else "",
        lang="en",
        meta={key: record[key] for key in _KEPT if record.get(key) is not None},
    )
