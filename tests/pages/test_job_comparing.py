"""Jobs beside each other: deltas, curves, settings, data; and sweeps, which make jobs to compare."""

from __future__ import annotations

import csv
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from annotation.models import Comparison, Project
from annotation.services import create_comparisons
from rlhf.comparison import Column, Value, tabulate
from rlhf.job_differences import differing_data, differing_options
from rlhf.models import (
    BenchmarkRun,
    BenchmarkSet,
    Checkpoint,
    CheckpointKind,
    InsightKind,
    JobInsight,
    SampleScores,
    TrainingJob,
)
from rlhf.scored_samples import scored_samples
from rlhf.services import (
    create_snapshot,
    jobs,
    leases,
    prepare_sample_scores,
    publish_checkpoint,
    queue_training_job,
    score_samples,
    watching,
)
from rlhf.services.checkpoints import register_checkpoint
from tests.factories import make_judged_project, make_judgment, make_prompt, make_response
from tests.pages.training import finish, log_steps, make_job

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]

# The shape of the report's table: GRPO and PPO on the same data, a delta for every evaluation, and the cost.
COLUMNS = (
    Column("follow", "FollowBench", "higher"),
    Column("accuracy", "Accuracy", "higher", is_share=True),
    Column("loss", "Loss", "lower"),
    Column("unmeasured", "Unmeasured", "higher"),
    Column("hours", "Hours", "lower", "cost"),
)
GRPO, PPO, KTO = 1, 2, 3
MEASURED = {
    PPO: {"follow": Value(60.0), "accuracy": Value(0.6, 0.55, 0.65, 400), "loss": Value(0.5), "hours": Value(10.0)},
    GRPO: {"follow": Value(63.7), "accuracy": Value(0.7, 0.66, 0.74, 400), "loss": Value(0.52), "hours": Value(5.5)},
    KTO: {"accuracy": Value(0.63, 0.58, 0.68, 400), "hours": Value(5.0)},
}


def test_deltas_are_from_the_reference_and_claim_no_more_than_the_doubt_allows() -> None:
    table = tabulate(COLUMNS, MEASURED, against=PPO)
    assert [cell.column.name for cell in table[GRPO]] == ["follow", "accuracy", "loss", "hours"]
    deltas = {key: [cell.delta and round(cell.delta, 4) for cell in cells] for key, cells in table.items()}
    assert deltas[GRPO] == [3.7, 0.1, 0.02, None]
    assert deltas[PPO] == [None, None, None, None]
    assert deltas[KTO] == [None, 0.03, None, None]
    assert [table[key][-1].times for key in (GRPO, PPO, KTO)] == [0.55, None, 0.5]  # costs are multiples
    verdicts = {key: [cell.verdict for cell in cells] for key, cells in table.items()}
    assert verdicts[GRPO] == ["", "better", "", ""]  # a number without an interval proves nothing
    assert verdicts[KTO] == ["", "", "", ""]
    back = tabulate(COLUMNS, MEASURED, against=GRPO)
    assert [cell.verdict for cell in back[PPO]] == ["", "worse", "", ""]


@pytest.fixture
def project() -> Project:
    return make_judged_project(slug="helpful")


def trained(
    base: Checkpoint, project: Project, model: Path, method: str, accuracy: float, seconds: float, **options: Any
) -> TrainingJob:
    snapshot = project.snapshots.first() or create_snapshot(project, "helpful-r1", eval_share=0.25)
    job = queue_training_job(snapshot=snapshot, method=method, base=base, options=options, name=f"by-{method}")
    log_steps(job, 3)
    job.refresh_from_db()
    jobs.record_progress(job, [], process_seconds=seconds)
    finish(job, model, **{"eval_rewards/accuracies": accuracy, "eval_rows_used": 400, "peak_memory_gb": 2.0})
    job.refresh_from_db()
    return job


def test_the_page_has_a_row_for_each_job(page: Client, base: Checkpoint, project: Project, tiny_model: Path) -> None:
    dpo = trained(base, project, tiny_model, "dpo", 0.6, 7200)
    kto = trained(base, project, tiny_model, "kto", 0.7, 3600)
    address = f"/training/compare/?job={dpo.pk}&job={kto.pk}&job=999999&job=x"
    html = page.get(address).content.decode()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))
    assert "70.0 % +10.0 (65–74) of 400" in text
    assert "2.000 – " not in text and "1.000 × 0.50" in text
    assert "2.0 × 1.00" in text
    assert "2.0 h" in text and "60 min × 0.50" in text
    assert 'aria-label="Loss: dpo 0.67, kto 0.67 at the last logged step"' in html
    assert "the same rows: helpful-r1" in text
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.get(f"{address}&against={kto.pk}").content.decode()))
    assert "60.0 % −10.0 (55–65) of 400" in text
    assert page.get("/training/compare/?job=x&against=y").status_code == 200
    listed = page.get("/training/").content.decode()
    assert f'name="job" value="{kto.pk}"' in listed


def written(job: TrainingJob, step: int, *lengths: int) -> None:
    rows = [{"prompt": f"Ask {place}", "text": "so", "tokens": length} for place, length in enumerate(lengths)]
    JobInsight.objects.create(job=job, kind=InsightKind.SAMPLES, step=step, values={"rows": rows})


def bench_run(data_set: BenchmarkSet, checkpoint: Checkpoint, overall: float) -> None:
    publish_checkpoint(checkpoint)
    checkpoint.refresh_from_db()
    BenchmarkRun.objects.create(
        data_set=data_set,
        source=checkpoint.source,
        is_imported=True,
        status="succeeded",
        finished_at=timezone.now(),
        report={"overall": overall},
    )


def test_methods_are_held_against_the_base_they_share_and_the_table_is_a_file_too(
    page: Client, base: Checkpoint, project: Project, tiny_model: Path
) -> None:
    methods = {"grpo": 63.7, "ppo": 60.0, "dpo": 58.5, "kto": 57.25}
    jobs_by_method = {}
    bench = BenchmarkSet.objects.create(name="FollowBench")
    bench_run(bench, base, 55.0)
    for method, overall in methods.items():
        options = {"rule": "length", "rule_argument": "9"} if method in ("grpo", "ppo") else {}
        job = trained(base, project, tiny_model, method, 0.6, 1800 if method == "grpo" else 3600, **options)
        bench_run(bench, job.checkpoint, overall)
        written(job, 0, 10, 30)
        written(job, 3, 10, 20)
        jobs_by_method[method] = job
    address = "/training/compare/?" + "&".join(f"job={job.pk}" for job in jobs_by_method.values())

    def table(**query: str) -> list[dict[str, str]]:
        answer = page.get(address + "".join(f"&{name}={value}" for name, value in query.items()) + "&as=csv")
        assert answer["Content-Disposition"] == 'attachment; filename="jobs-compared.csv"'
        return list(csv.DictReader(answer.content.decode().splitlines()))

    of_base, *rows = table()
    assert of_base["method"] == "base" and of_base["FollowBench"] == "55.0" and of_base["FollowBench delta"] == ""
    assert [row["job"] for row in rows] == ["by-grpo", "by-ppo", "by-dpo", "by-kto"]
    assert [float(row["FollowBench delta"]) for row in rows] == pytest.approx([8.7, 5.0, 3.5, 2.25])
    assert {(row["Length of samples (tokens)"], row["Length of samples (tokens) delta"]) for row in rows} == {
        ("15.0", "-5.0")
    }
    assert of_base["Wall time (s)"] == "" and rows[0]["Wall time (s)"] == "1800.0"
    assert rows[0]["Tokens"] == "693.0"  # 231 tokens a second, three steps of a second
    against_ppo = table(against=str(jobs_by_method["ppo"].pk))
    assert [row["FollowBench delta"] for row in against_ppo][1:3] == ["3.700000000000003", ""]
    assert [row["Wall time (s) times"] for row in against_ppo] == ["", "0.5", "", "1.0", "1.0"]

    html = page.get(address).content.decode()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))
    assert "Benchmarks Held-out rows" in text
    assert f"{base.name} base reference 55.00" in text
    assert "63.70 +8.70" in text
    markdown = page.get(address + "&as=md").content.decode()
    assert "| by-grpo | Group-relative policy optimisation | 63.70; +8.70 |" in markdown
    lengths = {line.count(" | ") for line in markdown.splitlines() if "---" not in line}
    assert len(lengths) == 1


def test_wins_against_the_parent_are_cut_by_task(
    page: Client, base: Checkpoint, project: Project, tiny_model: Path
) -> None:
    dpo, kto = (trained(base, project, tiny_model, method, 0.6, 60) for method in ("dpo", "kto"))
    publish_checkpoint(base)
    publish_checkpoint(dpo.checkpoint)
    base.refresh_from_db()
    dpo.checkpoint.refresh_from_db()
    for number, task in enumerate(["code", "code", "chat", "chat"]):
        prompt = make_prompt(project, f"Say {number}")
        prompt.task = task
        prompt.save()
        new, old = (make_response(prompt, source) for source in (dpo.checkpoint.source, base.source))
        create_comparisons(project, [(new, old)])
        make_judgment(Comparison.objects.get(response_a=new), "a" if task == "code" else "b")
    html = page.get(f"/training/compare/?job={dpo.pk}&job={kto.pk}").content.decode()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))
    assert "Win rate against its parent … chat … code" in text
    assert "50.0 % " in text and "0.0 % " in text and "100.0 % " in text


def samples_of(job: TrainingJob, step: int, **texts: str) -> None:
    rows = [
        {"prompt": [{"role": "user", "content": prompt}], "text": text, "tokens": 5, "is_cut": prompt == "q3"}
        for prompt, text in texts.items()
    ]
    watching.record_insights(job, [{"kind": "samples", "step": step, "seconds": 1, "rows": rows}])


def test_samples_are_judged_on_the_prompts_that_all_jobs_answered(
    page: Client, base: Checkpoint, project: Project, tiny_model: Path
) -> None:
    taste = register_checkpoint(name="taste", kind=CheckpointKind.REWARD, directory=tiny_model)
    dpo, kto = (trained(base, project, tiny_model, method, 0.6, 60) for method in ("dpo", "kto"))
    scores = {  # prompt → score at step 0 and at the end
        dpo.pk: {"q1": (0.0, 2.0), "q2": (1.0, 4.0), "q3": (2.0, 3.0), "only here": (0.0, 90.0)},
        kto.pk: {"q1": (0.0, 0.5), "q2": (1.0, 1.0), "q3": (2.0, 3.0)},
    }
    for job, by_prompt in scores.items():
        values = [
            {"prompt": prompt, "before": before, "after": after, "is_cut": prompt == "q3"}
            for prompt, (before, after) in by_prompt.items()
        ]
        SampleScores.objects.create(
            job_id=job, reward_model=taste, step=40, values=values, left_out=1, scored_at=timezone.now()
        )
    [found] = scored_samples([dpo, kto])
    score, gain = found.measured(dpo).values()
    # Means of 2, 4, 3 and of 2, 3, 1; t at 2 degrees of freedom is 4.303, both deviations are 1
    assert (score.value, score.count, gain.value) == (3.0, 3, 2.0)
    for value in (score, gain):
        assert value.upper is not None and value.upper - value.value == pytest.approx(4.303 / 3**0.5, abs=1e-3)

    html = page.get(f"/training/compare/?job={dpo.pk}&job={kto.pk}&against={kto.pk}").content.decode()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))
    assert "Samples, scored by taste … more than at step 0" in text
    assert "3.00 +1.50 (0.52 … 5.48) of 3" in text
    assert "2 of 6 answers were cut at the longest length" in text and "2 samples were too long" in text
    assert 'hx-trigger="every 3s"' not in html
    SampleScores.objects.filter(job=kto).update(values=[])  # no prompt in common
    assert page.get(f"/training/compare/?job={dpo.pk}&job={kto.pk}").status_code == 200


def test_scores_of_samples_are_asked_for_and_what_stands_in_the_way_is_said(
    page: Client, base: Checkpoint, project: Project, tiny_model: Path
) -> None:
    taste = register_checkpoint(name="taste", kind=CheckpointKind.REWARD, directory=tiny_model)
    dpo, kto = (trained(base, project, tiny_model, method, 0.6, 60) for method in ("dpo", "kto"))
    form = {"job": [dpo.pk, kto.pk], "against": kto.pk, "reward_model": taste.pk}

    def ask(**changes: object) -> str:
        answer = page.post("/training/compare/score/", form | changes, follow=True)
        assert answer.redirect_chain[0][0] == f"/training/compare/?job={dpo.pk}&job={kto.pk}&against={kto.pk}"
        return answer.content.decode()

    assert "None of these jobs has written samples" in ask()
    TrainingJob.objects.update(status="running", owner="w", lease_expires_at=timezone.now(), finished_at=None)
    dpo.refresh_from_db()
    for step in (0, 40):
        samples_of(dpo, step, q1="Yes.", q2="No.")
    assert "tiny writes responses; choose a reward model" in ask(reward_model=base.pk).replace("Tiny", "tiny")
    assert "Choose a reward model" in ask(reward_model="x")
    assert "message broker is away" in ask()  # no broker runs in this test
    assert not SampleScores.objects.exists()

    [scores] = prepare_sample_scores([dpo, kto], taste)  # kto has no samples
    SampleScores.objects.update(
        scored_at=timezone.now(), values=[{"prompt": "", "before": 1.0, "after": 2.0, "is_cut": False}]
    )
    assert "message broker is away" in ask()
    assert SampleScores.objects.get().values, "what was scored before is kept"
    SampleScores.objects.update(scored_at=None, values=[])
    compared = f"/training/compare/?job={dpo.pk}&job={kto.pk}"
    html = page.get(compared).content.decode()
    assert "A worker scores the samples of by-dpo with taste" in html and 'hx-trigger="every 3s"' in html
    score_samples([scores.pk])  # the tiny model writes, whatever its row says
    html = page.get(compared).content.decode()
    assert "taste could not score the samples of by-dpo: scoring failed:" in html
    assert "is a language model; scores need a reward model" in html
    SampleScores.objects.update(error="", asked_at=timezone.now() - timedelta(hours=1))
    html = page.get(compared).content.decode()
    assert "No worker has scored the samples of by-dpo with taste" in html and 'hx-trigger="every 3s"' not in html


def test_settings_and_data_that_differ_are_named(base: Checkpoint, project: Project) -> None:
    first = make_job(base, learning_rate=1e-5)
    second = queue_training_job(
        snapshot=create_snapshot(project, "other", eval_share=0.25), method="sft", base=base, options={"seed": 3}
    )
    differing = {difference.name: difference.values for difference in differing_options([first, second])}
    assert "learning_rate" not in differing  # asked for in one, the default of the other
    assert differing["seed"] == [17, 3]
    assert differing["beta"] == [0.1, None]
    assert "max_tokens" not in differing
    (data,) = differing_data([first, second], first)
    assert (data.is_same, data.both) == (False, 0)
    assert data.only_here > 0 and data.only_there > 0


def test_a_sweep_says_how_many_jobs_before_it_makes_them(page: Client, base: Checkpoint) -> None:
    job = make_job(base)
    asked = {"option1": "learning_rate", "values1": "1e-5, 5e-5", "option2": "seed", "values2": "1,2,3"}
    text = page.post(f"/training/{job.pk}/sweep/", asked).content.decode()
    assert "Queue 6 jobs" in text
    assert TrainingJob.objects.count() == 1
    page.post(f"/training/{job.pk}/sweep/", asked | {"count": "5"})  # the number of another sweep confirms nothing
    assert TrainingJob.objects.count() == 1
    answer = page.post(f"/training/{job.pk}/sweep/", asked | {"count": "6"}, follow=True)
    assert "6 jobs wait for a worker" in answer.content.decode()
    made = TrainingJob.objects.exclude(pk=job.pk).order_by("pk")
    assert [(one.options["learning_rate"], one.options["seed"]) for one in made] == [
        (rate, seed) for rate in (1e-5, 5e-5) for seed in (1, 2, 3)
    ]
    assert made[0].name == "round-1-learning_rate-1e-5-seed-1"
    assert {(one.base_id, one.snapshot_id, one.method) for one in made} == {(job.base_id, job.snapshot_id, job.method)}


def test_each_job_of_a_sweep_is_checked_with_its_own_values(page: Client, base: Checkpoint) -> None:
    job = make_job(base)
    asked = {"option1": "learning_rate", "values1": "1e-4, 1e-2", "option2": "beta", "values2": "0.1, 5"}
    text = page.post(f"/training/{job.pk}/sweep/", asked).content.decode()
    assert text.count("Learning rate 0.01 is higher than what is usual") == 2
    assert text.count("Beta 5 is outside what is usual") == 2
    (shown,) = re.findall(r'name="proceed" value="([^"]*)"', text)
    refused = page.post(f"/training/{job.pk}/sweep/", asked | {"count": "4"})
    assert "With learning_rate 0.01, beta 0.1: Learning rate 0.01 is higher" in refused.content.decode()
    # What was agreed to of other values is not agreed to of these.
    other = asked | {"values1": "2e-4, 1e-2", "count": "4", "proceed": shown}
    assert page.post(f"/training/{job.pk}/sweep/", other).status_code == 422
    assert TrainingJob.objects.count() == 1, "all or none"
    page.post(f"/training/{job.pk}/sweep/", asked | {"count": "4", "proceed": shown})
    for one in TrainingJob.objects.exclude(pk=job.pk):
        stored = {check["code"]: check for check in one.preflight["checks"]}
        is_fast = one.options["learning_rate"] == 1e-2
        assert stored["rate_high" if is_fast else "rate_usual"]["values"]["rate"] == one.options["learning_rate"]
        assert ("beta_unusual" in stored) == (one.options["beta"] == 5)
        assert one.proceeded_at is not None and one.proceeded_by == one.created_by

    asked = {"option1": "max_tokens", "values1": "512, 16"}
    text = page.post(f"/training/{job.pk}/sweep/", asked).content.decode()
    assert "are longer than 16 tokens" in text and 'name="count"' not in text
    answer = page.post(
        f"/training/{job.pk}/sweep/", asked | {"count": "2", "proceed": "max_tokens 512; max_tokens 16"}
    )
    assert answer.status_code == 422


@pytest.mark.parametrize(
    "asked,problem",
    [
        ({}, "name an option"),
        ({"option1": "seed", "values1": ""}, "seed has no values"),
        ({"values1": "1, 2"}, "choose the option that takes the values 1, 2"),
        ({"option1": "learning_rate", "values1": "1e-5, fast"}, "is not a number"),
        ({"option1": "batch_size", "values1": "8, 6"}, "not a multiple of micro_batch_size"),
        ({"option1": "seed", "values1": "1, 1.0"}, "stands there twice"),
        ({"option1": "seed", "values1": "1", "option2": "seed", "values2": "2"}, "is named twice"),
        ({"option1": "seed", "values1": ",".join(map(str, range(40)))}, "more than 32 jobs"),
        ({"option1": "magic", "values1": "1"}, "unknown option"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(page: Client, base: Checkpoint, asked: dict, problem: str) -> None:
    job = make_job(base)
    answer = page.post(f"/training/{job.pk}/sweep/", asked | {"count": "2"})
    assert answer.status_code == 422
    assert problem.casefold() in answer.content.decode().casefold()
    assert TrainingJob.objects.count() == 1
    leases.request_cancel(job)
