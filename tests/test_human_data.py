"""The published figures of real people's data, reproduced through the commands."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import call_command

from annotation.agreement import IS_SIDE, verdict_tables
from annotation.export import count_verdicts
from annotation.models import Comparison, Project

pytestmark = pytest.mark.django_db


def run(command: str, *args: Any, **options: Any) -> dict[str, Any]:
    out = io.StringIO()
    call_command(command, *args, json=True, stdout=out, stderr=io.StringIO(), **options)
    return json.loads(out.getvalue())


def test_pandalm_agreement(shared_data: Path) -> None:
    done = run("import_preferences", shared_data / "preferences/pandalm.jsonl", project="pandalm")
    assert (done["rows"], done["comparisons"], done["judgments"], done["skipped"]) == (456, 456, 2270, [])
    found = run("agreement", project="pandalm", humans_only=True)
    assert (found["items"], found["judgments"], found["annotators"]) == (456, 1368, 3)
    assert {pair: round(kappa, 4) for pair, kappa in found["cohen_kappa"].items()} == {
        "annotator1|annotator2": 0.8604,
        "annotator1|annotator3": 0.8789,
        "annotator2|annotator3": 0.8476,
    }
    assert round(found["krippendorff_alpha"], 4) == 0.8623


def test_pandalm_as_published(shared_data: Path) -> None:
    path = shared_data / "formats/pandalm_testset.json"
    done = run("import_preferences", path, project="pandalm")
    # Six rows hold a JSON `true` where the model's text should be; an empty response is one.
    assert (done["format"], done["rows"], done["comparisons"], done["judgments"]) == ("pandalm", 456, 450, 1350)
    assert [entry["item"] for entry in done["skipped"]] == [92, 93, 94, 96, 97, 99]
    assert all(entry["reason"].endswith("is true, not text") for entry in done["skipped"])
    empty = Comparison.objects.filter(response_a__text="") | Comparison.objects.filter(response_b__text="")
    assert empty.distinct().count() == 36
    again = run("import_preferences", path, project="pandalm")
    assert [again[key] for key in ("prompts", "responses", "comparisons", "judgments")] == [0, 0, 0, 0]
    assert (again["already_there"], again["skipped"]) == (450, done["skipped"])


def test_mt_bench(shared_data: Path) -> None:
    path = shared_data / "preferences/mt_bench_human.jsonl"
    done = run("import_preferences", path, project="mt-bench")
    assert (done["rows"], done["prompts"], done["responses"], done["comparisons"]) == (910, 80, 480, 910)
    assert (done["judgments"], done["already_there"]) == (2598, 0)
    (twice,) = done["skipped"]
    assert (twice["annotator"], twice["reason"]) == (
        "author_0",
        "voted twice on this comparison; the first vote is kept",
    )

    people = run("agreement", project="mt-bench", humans_only=True)
    assert (people["judgments"], people["annotators"]) == (1688, 65)
    assert round(people["krippendorff_alpha"], 4) == 0.4767

    tables = verdict_tables(Project.objects.get(slug="mt-bench"))
    experts = agreeing_pairs(tables, lambda one, other: one.startswith("expert") and other.startswith("expert"))
    assert experts == {"all": (454, 721), "no ties": (388, 479)}
    judge = agreeing_pairs(tables, lambda one, other: one.startswith("expert") and other == "gpt4_pair")
    assert judge == {"all": (886, 1343), "no ties": (727, 859)}

    board = run("leaderboard", project="mt-bench", humans_only=True)["rows"]
    published = {
        "gpt-4": 1175.10,
        "claude-v1": 1090.39,
        "gpt-3.5-turbo": 1087.02,
        "vicuna-13b-v1.2": 1015.54,
        "alpaca-13b": 866.27,
        "llama-13b": 765.69,
    }
    assert [row["source"] for row in board] == list(published)
    assert [row["rating"] for row in board] == pytest.approx(list(published.values()), abs=0.5)
    assert [row["rank"] for row in board] == [1, 2, 2, 4, 5, 6]
    assert all(row["lower"] < row["rating"] < row["upper"] for row in board)
    assert sum(row["judgments"] for row in board) == 2 * 1688

    again = run("import_preferences", path, project="mt-bench")
    assert [again[key] for key in ("prompts", "responses", "comparisons", "judgments")] == [0, 0, 0, 0]
    assert again["skipped"] == done["skipped"]


def agreeing_pairs(
    tables: dict[tuple[str, str], np.ndarray], is_wanted: Callable[[str, str], bool]
) -> dict[str, tuple[int, int]]:
    """(equal verdicts, pairs of judgments) over the pairs of people, in all and where both took a side."""
    total = sum((table for pair, table in tables.items() if is_wanted(*pair)), np.zeros((4, 4)))
    sides = total[np.ix_(IS_SIDE, IS_SIDE)]
    return {
        "all": (int(np.trace(total)), int(total.sum())),
        "no ties": (int(np.trace(sides)), int(sides.sum())),
    }


def test_hh_transcripts_are_the_hh_comparisons(shared_data: Path) -> None:
    published = run("import_preferences", shared_data / "formats/hh_rlhf_transcripts.jsonl", project="transcripts")
    prepared = run("import_preferences", shared_data / "preferences/hh_harmless.jsonl", project="prepared")
    assert (published["format"], prepared["format"]) == ("hh", "touchstone")
    for done in (published, prepared):
        assert (done["rows"], done["comparisons"], done["judgments"], done["skipped"]) == (1740, 1740, 1740, [])

    def pairs(slug: str) -> set[tuple[str, str, str]]:
        """(prompt, chosen, rejected)"""
        found = Comparison.objects.filter(project__slug=slug).values_list(
            "prompt__messages", "response_a__text", "response_b__text", "judgments__preference"
        )
        return {(json.dumps(prompt), *((a, b) if vote == "a" else (b, a))) for prompt, a, b, vote in found}

    assert pairs("transcripts") == pairs("prepared")
    groups = {
        slug: set(Comparison.objects.filter(project__slug=slug).values_list("prompt__group", flat=True))
        for slug in ("transcripts", "prepared")
    }
    assert len(groups["transcripts"]) == len(groups["prepared"]) == 1638


def test_single_ratings_are_ratings(shared_data: Path) -> None:
    done = run("import_preferences", shared_data / "preferences/dices_990.jsonl", project="dices")
    assert (done["rows"], done["single_responses"], done["comparisons"], done["ratings"]) == (990, 990, 0, 72103)


def test_fair_eval_majorities(shared_data: Path) -> None:
    run("import_preferences", shared_data / "preferences/fair_eval.jsonl", project="fair-eval")
    assert count_verdicts(Project.objects.get(slug="fair-eval")) == {"a": 41, "b": 25, "tie": 14}
