"""One turn of the whole loop with the real model, at full size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_people_prefer_the_checkpoint_that_learnt_from_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report_file = tmp_path / "report.json"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOUCHSTONE_")}
    with capfd.disabled():  # a quarter of an hour shows its progress, and its table
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.loop", "--json", str(report_file)],
            cwd=Path(__file__).resolve().parents[1],
            env=environment,
        )
    assert done.returncode == 0
    report = json.loads(report_file.read_text())
    assert report["win_rate"]["lower"] > 0.5
    assert report["judgments"] >= 350
    parent, new = report[report["parent"]], report[report["new"]]
    assert new["taste"] > parent["taste"]
    assert report["reward"]["eval_accuracy_lower"] < report["reward"]["eval_accuracy"]
