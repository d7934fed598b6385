"""Scores of texts by a reward model, from the web side: the training side does it, in a process of its own."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.utils.translation import gettext

from annotation.services import DomainError
from rlhf import launcher


def score_rows(
    model_dir: Path, rows: Sequence[dict[str, Any]], *, with_probes: bool = False, exact: bool = False
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows (rlhf/training/score.py) with their scores, and what the probes found of the model.

    exact: in float32, so that a score does not depend on what it is scored with.
    Raises DomainError with the last thing that the process said, where it ended without scores.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, out, probes = (Path(folder) / name for name in ("rows.jsonl", "scored.jsonl", "probes.json"))
        given.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        extra = (["--probes", str(probes)] if with_probes else []) + (["--float32"] if exact else [])
        log = launcher.run_to_end("rlhf.training.score", str(model_dir), str(given), str(out), *extra)
        if not out.exists():
            said = [line.strip() for line in log.splitlines() if line.strip()] or [gettext("no output")]
            raise DomainError(gettext("scoring failed: %(reason)s") % {"reason": said[-1][:500]})
        scored = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        return scored, json.loads(probes.read_text()) if with_probes else {}
