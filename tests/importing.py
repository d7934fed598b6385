"""Rows in the touchstone format, and the import command run on them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from django.core.management import call_command

CREATED = ("prompts", "responses", "comparisons", "judgments", "single_responses", "ratings", "conversations")


def touchstone_row(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"row-{number}",
        "group": f"group-{number}",
        "lang": "en",
        "prompt": f"Question {number}?",
        "messages": None,
        "responses": [{"model": "model-x", "text": f"X{number}"}, {"model": "model-y", "text": f"Y{number}"}],
        "annotations": [{"annotator": "ann", "human": True, "preferred_index": 0, "tie": False}],
        "meta": {},
        **changes,
    }


def annotation(**changes: Any) -> dict[str, Any]:
    return {"annotator": "ann", "human": True, "preferred_index": 0, "tie": False, **changes}


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return path


def import_lines(tmp_path: Path, rows: list[Any], **options: Any) -> dict[str, Any]:
    """The command's JSON over these rows (dictionaries, or bytes to be written as they are)."""
    return run_import(write_lines(tmp_path / "rows.jsonl", rows), **options)


def run_import(path: Path, *, project: str = "imported", **options: Any) -> dict[str, Any]:
    out = io.StringIO()
    call_command("import_preferences", path, project=project, json=True, stdout=out, stderr=io.StringIO(), **options)
    return json.loads(out.getvalue())


def reasons(done: dict[str, Any]) -> list[tuple[int, str]]:
    return [(entry["line"], entry["reason"]) for entry in done["skipped"]]
