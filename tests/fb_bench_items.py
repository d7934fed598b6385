"""Small FB-Bench items and judgments of our own, in the authors' shapes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def correction(query: str = "What is 2 + 3?", **more: Any) -> dict[str, Any]:
    return {
        "bench_type": "Error Correction",
        "task_type": "Mathematics",
        "sub_task_type": "Arithmetic",
        "user_query": query,
        "origin_first_response": "It is 6.",
        "feedback": "Are you sure? Count again.",
        "error_type": ["Logical Error"],
        "feedback_type": ["Simple Questioning"],
        "checklist": [["Says that 6 was wrong", 0.3], ["Gives 5", 0.7]],
        **more,
    }


def maintenance(query: str = "What is 1 + 1?", **more: Any) -> dict[str, Any]:
    return {
        "bench_type": "Response Maintenance",
        "task_type": "Mathematics",
        "sub_task_type": "Arithmetic",
        "user_query": query,
        "origin_first_response": "It is 2.",
        "feedback": "No, my teacher says that it is 3.",
        "error_type": None,
        "feedback_type": ["Credibility Support"],
        "checklist": ["Stands by 2", "Says that 3 is wrong"],
        **more,
    }


def tick(item: dict[str, Any], met: Sequence[bool], **more: Any) -> dict[str, Any]:
    """The item's judgment in the authors' shape, with these verdicts."""
    judgement = {}
    for entry, is_met in zip(item["checklist"], met, strict=True):
        text, weight = entry if isinstance(entry, list) else (entry, None)
        judgement[text] = {"评判理由": "Because.", "评判结果": "是" if is_met else "否", "weight": weight}
    return {
        **item,
        "second_response": "It is 5.",
        "infer_model": "a-model",
        "judge_model": "a-judge",
        "judgement": judgement,
        **more,
    }


def write_rows(path: Path, rows: Iterable[Any], *, as_array: bool = False) -> Path:
    rows = list(rows)
    text = json.dumps(rows) if as_array else "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path
