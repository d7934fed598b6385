"""Votes while web processes are killed and connections break off: half a minute of benchmarks/chaos.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_no_vote_is_lost_or_counted_twice_while_workers_are_killed(tmp_path: Path) -> None:
    report_file = tmp_path / "report.json"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOUCHSTONE_")}
    options = ["--minutes", "0.3", "--annotators", "16", "--comparisons", "150", "--kill-every", "3"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", *options, "--lease-seconds", "4", "--json", str(report_file)],
        cwd=Path(__file__).resolve().parents[1],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert report_file.exists(), done.stderr
    report = json.loads(report_file.read_text())
    assert not any(report["violations"].values()), report
    assert not report["refused"]
    # It must have been as rough as it says.
    happened = report["happened"]
    assert happened["workers killed"] >= 2 and happened["hung up"] and happened["repeats"]
    assert report["acknowledged votes"] > 16
    assert done.returncode == 0, done.stderr
