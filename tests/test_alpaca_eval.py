"""AlpacaEval's win rates."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from django.core.management import CommandError, call_command

HEAD = "model,instruction_id,baseline,preference\n"


def run(path: Path) -> list[dict]:
    out = io.StringIO()
    call_command("alpaca_eval", str(path), json=True, stdout=out)
    return json.loads(out.getvalue())["rows"]


@pytest.mark.parametrize("name", ["AlpacaEval1_prefs.csv", "AlpacaEval2_prefs.csv"])
def test_published_files_give_the_mean_and_its_standard_error(shared_data: Path, name: str) -> None:
    path = shared_data / "leaderboards" / name
    points: dict[str, list[float]] = defaultdict(list)
    with path.open() as file:
        for row in csv.DictReader(file):
            if row["preference"] not in ("", "nan"):
                points[row["model"]].append((float(row["preference"]) or 1.5) - 1)
    rows = run(path)
    assert {row["model"] for row in rows} == set(points)
    assert [row["win_rate"] for row in rows] == sorted((row["win_rate"] for row in rows), reverse=True)
    for row in rows:
        given = np.array(points[row["model"]])
        assert row["win_rate"] == pytest.approx(100 * given.mean(), abs=1e-4)
        assert row["standard_error"] == pytest.approx(100 * given.std(ddof=1) / np.sqrt(len(given)), abs=1e-4)
    published = {row["model"]: round(row["win_rate"], 2) for row in rows if row["model"] == "text_davinci_001"}
    assert published in ({}, {"text_davinci_001": 15.17})


def test_what_has_no_verdict_is_counted_and_not_averaged(tmp_path: Path) -> None:
    path = tmp_path / "prefs.csv"
    path.write_text(HEAD + "x,0,base,2\nx,1,base,1\nx,2,base,\ny,0,base,1.5\nz,0,base,nan\n")
    x, y, z = run(path)
    assert (x["win_rate"], x["count"], x["unusable"], x["baseline"]) == (50.0, 2, 1, "base")
    assert x["standard_error"] == pytest.approx(50.0)
    assert (y["win_rate"], y["standard_error"]) == (50.0, None)
    assert (z["count"], z["unusable"]) == (0, 1)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("model,preference\nx,1\n", "has no column 'instruction_id'"),
        (HEAD + "x,0,b,2\nx,0,b,1\n", "line 3: x answers 0 twice"),
        (HEAD + "x,0,b,3\n", "line 2: the preference '3' is not between 1 and 2"),
        (HEAD + "x,0,b,good\n", "line 2: the preference 'good' is not between 1 and 2"),
    ],
)
def test_other_files_are_refused_by_the_line(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "prefs.csv"
    path.write_text(text)
    with pytest.raises(CommandError, match=sentence):
        run(path)
    with pytest.raises(CommandError, match="cannot be read"):
        run(tmp_path / "nothing.csv")
