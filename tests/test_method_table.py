"""The table of the benchmark of methods, over jobs that really ran: its shape, and that it says what the rows say."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks.methods import queue_methods, table
from rlhf import supervisor
from rlhf.comparison import compare
from rlhf.comparison_files import as_csv
from rlhf.job_measures import measure
from rlhf.models import InsightKind, TrainingJob
from rlhf.services import create_snapshot, register_base_checkpoint
from tests.factories import make_judged_project

METHODS = ("grpo", "ppo", "dpo", "kto")


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("data_dir")
def test_four_methods_on_the_same_data_stand_in_one_table_with_their_base_and_their_cost(tiny_model: Path) -> None:
    snapshot = create_snapshot(make_judged_project(16), "same", eval_share=0.25)
    base = register_base_checkpoint("tiny", tiny_model)
    rule = {"rule": "vocabulary_half", "rule_argument": "lower"}
    jobs = queue_methods(METHODS, snapshot, base, steps=2, reward=rule)
    for job in jobs:
        supervisor.run_training_job(job.pk)
        job.refresh_from_db()
        assert job.status == "succeeded", job.error

    lines = table(jobs).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| tiny", "| grpo", "| ppo", "| dpo", "| kto"]
    assert len({line.count("|") for line in lines}) == 1

    found = list(TrainingJob.objects.select_related("snapshot__project", "base__source").order_by("pk"))
    of_base, *rows = csv.DictReader(as_csv(compare(found, *measure(found))).splitlines())
    for job, row in zip(found, rows, strict=True):
        assert row["method"] == job.get_method_display()
        assert float(row["Wall time (s)"]) == job.process_seconds > 0
        assert float(row["Peak memory (GB)"]) == job.metrics["peak_memory_gb"] > 0
        logged = list(job.job_metrics.filter(values__has_key="tokens_per_second").values_list("values", flat=True))
        assert len(logged) == 2
        tokens = sum(line["tokens_per_second"] * line["seconds"] for line in logged)
        assert float(row["Tokens"]) == pytest.approx(tokens) and tokens > 0
        for name, key in [("Held-out reward", "eval_reward"), ("Held-out accuracy", "eval_rewards/accuracies")]:
            assert row[name] == (str(job.metrics[key]) if key in job.metrics else "")
        shown = {one.step: one.values["rows"] for one in job.insights.filter(kind=InsightKind.SAMPLES)}
        before, after = (sum(sample["tokens"] for sample in shown[step]) / len(shown[step]) for step in (0, 2))
        assert float(of_base["Length of samples (tokens)"]) == before  # all four begin as the base
        assert float(row["Length of samples (tokens) delta"]) == pytest.approx(after - before)
    assert [bool(row["Held-out reward"]) for row in rows] == [True, True, False, False]
