"""Rows as the export gives them, and the export command run on a project."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from django.core.management import call_command

from annotation.export import TRAINING_KINDS, Kind, judged_rows, training_rows
from annotation.export.consensus import make_consensus
from annotation.export.files import write_table
from annotation.export.tables import make_table
from annotation.models import Annotator, Comparison, Judgment, Project
from tests.factories import make_annotator


def exported(project: Project, kind: str, **options: Any) -> list[dict[str, Any]]:
    """The JSON rows, and the same from Parquet and from Python, or the test fails."""
    rules, axis = options.pop("rules", None), options.pop("axis", "")
    make_consensus(project, humans_only=True, rules=rules, axis=axis)
    table = make_table(Kind(kind), project, humans_only=True)
    lines, parquet = io.BytesIO(), io.BytesIO()
    write_table(table, lines, is_parquet=False)
    write_table(table, parquet, is_parquet=True)
    rows = [json.loads(line) for line in lines.getvalue().split(b"\n")[:-1]]
    assert pq.read_table(parquet).to_pylist() == rows
    if kind in TRAINING_KINDS and not axis:
        assert list(training_rows(kind, judged_rows(project, rules=rules))) == rows
    return rows


def said(row: dict[str, Any], *sides: str) -> tuple[str, ...]:
    return tuple(row[side][0]["content"] for side in sides)


def pairs(project: Project, **options: Any) -> list[tuple[str, ...]]:
    return [said(row, "chosen", "rejected") for row in exported(project, "dpo", **options)]


def run_export(project: Project, kind: str, out: Path, **options: Any) -> dict[str, Any]:
    shown = io.StringIO()
    call_command("export_preferences", project=project.slug, kind=kind, out=out, json=True, stdout=shown, **options)
    return json.loads(shown.getvalue())


def rank(comparison: Comparison, *ranks: int, annotator: Annotator | None = None) -> Judgment:
    return Judgment.objects.create(
        comparison=comparison,
        annotator=annotator or make_annotator(),
        preference="ranked" if ranks else "neither",
        ranking=list(ranks) or None,
    )
