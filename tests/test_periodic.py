"""Evaluations that run by themselves: what is queued, once; what fell; and what the job's page says to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.test import Client

from annotation import services
from annotation.errors import DomainError
from annotation.models import Prompt, ResponseSource
from annotation.shares import Share
from config.embedded.process import child_setup
from config.embedded.starter_model import model_environment
from rlhf import benchmarking, generation, supervisor
from rlhf.category_changes import Change, advice, paired_change, share_change
from rlhf.evaluation.fb_bench import parse_dataset
from rlhf.jobspec import STEP_MODELS_DIR
from rlhf.judges.work import run_judge
from rlhf.models import (
    BenchmarkRun,
    BenchmarkSet,
    Checkpoint,
    CheckpointKind,
    EvaluationPlan,
    GenerationJob,
    JobEvaluation,
    JudgeRun,
    TrainingJob,
)
from rlhf.prompt_tables import prompt_tables
from rlhf.services import (
    create_snapshot,
    jobs,
    leases,
    queue_merge_job,
    queue_training_job,
    register_base_checkpoint,
)
from rlhf.services.benchmarks import import_benchmark_run, import_benchmark_set
from rlhf.services.checkpoints import register_checkpoint
from rlhf.services.periodic import add_evaluation_plan, queue_due_evaluations, record_step_models
from tests.chat_server import Exchange, chat_server
from tests.factories import make_judged_project, make_source, make_user
from tests.fb_bench_items import correction, maintenance, tick
from tests.judging import asked, say
from tests.pages.training import finish
from tests.test_embedded import wait_for
from tests.test_fb_bench_runs import judged
from tests.test_up import free_port

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]
ROOT = Path(__file__).resolve().parents[1]


def make_data_set(items: list[dict[str, Any]]) -> BenchmarkSet:
    return import_benchmark_set(parse_dataset(json.dumps(items).encode(), "bench.json"), name="bench")[0]


def make_job(tiny_model: Path, **options: Any) -> TrainingJob:
    project = make_judged_project()
    labels = ["Mathematics", "Coding", "Coding"]
    for number, prompt in enumerate(Prompt.objects.filter(project=project).order_by("pk")):
        Prompt.objects.filter(pk=prompt.pk).update(task=labels[number % 3])
    snapshot = create_snapshot(project, project.slug, eval_share=0)
    base = register_base_checkpoint("tiny", tiny_model)
    return queue_training_job(snapshot=snapshot, method="sft", base=base, options=options, name="round-1")


def plan_for(job: TrainingJob, data_set: BenchmarkSet, judge: ResponseSource | None = None) -> EvaluationPlan:
    assert job.snapshot is not None
    judge = judge or make_source("a-judge", kind="model", served_model="j")
    return add_evaluation_plan(
        EvaluationPlan(project=job.snapshot.project, data_set=data_set, judge=judge, max_tokens=16)
    )


def claim(job: TrainingJob) -> TrainingJob:
    claimed = leases.claim_job(TrainingJob, job.pk, "node:1:a")
    assert claimed is not None
    return claimed


def test_base_steps_and_the_last_model_are_queued_once_each(tiny_model: Path) -> None:
    job = make_job(tiny_model, model_every_steps=2)
    data_set = make_data_set([correction(), maintenance()])
    plan_for(job, data_set)
    assert queue_due_evaluations() == 0  # it waits
    job = claim(job)
    shutil.copytree(tiny_model, job.directory / STEP_MODELS_DIR / "step-2")
    (job.directory / STEP_MODELS_DIR / "step-4").mkdir()  # half written: there is no manifest
    assert record_step_models(job) == 1
    assert record_step_models(job) == 0
    assert queue_due_evaluations() == 2
    assert queue_due_evaluations() == 0
    finish(job, tiny_model)
    assert queue_due_evaluations() == 1
    found = JobEvaluation.objects.order_by("step").values_list("step", "checkpoint__name", "run__source__name")
    names = [(0, "tiny"), (2, "round-1-step-2"), (40, "round-1-out")]
    assert list(found) == [(step, name, name) for step, name in names]
    run = BenchmarkRun.objects.latest("pk")
    assert (run.max_tokens, run.judge and run.judge.name, run.status) == (16, "a-judge", "queued")
    # Another job from the same base: what the base answered is not asked again.
    other = claim(
        queue_training_job(snapshot=job.snapshot, method="sft", base=job.base, options={}, name="round-2")  # type: ignore[arg-type]
    )
    assert queue_due_evaluations() == 0 + 1
    assert other.evaluations.get().run == JobEvaluation.objects.get(job=job, step=0).run
    assert BenchmarkRun.objects.count() == 3


def test_what_cannot_be_published_is_said_and_not_tried_again(tiny_model: Path) -> None:
    job = claim(make_job(tiny_model))
    make_source("tiny")  # imported data has the base's name
    plan_for(job, make_data_set([correction()]))
    assert queue_due_evaluations() == 0
    assert queue_due_evaluations() == 0
    assert "a response source named tiny exists already" in job.evaluations.get().error


def test_jobs_that_had_ended_before_the_plan_are_left_alone(tiny_model: Path) -> None:
    job = claim(make_job(tiny_model))
    finish(job, tiny_model)
    data_set = make_data_set([correction()])
    plan = plan_for(job, data_set)
    assert queue_due_evaluations() == 0
    with pytest.raises(DomainError, match="answer bench already"):
        plan_for(job, data_set, plan.judge)
    with pytest.raises(DomainError, match="not a model that can be asked"):
        plan_for(job, make_data_set([maintenance()]), make_source("somebody"))


def test_a_merge_is_evaluated_by_the_plans_of_its_parents_projects(tiny_model: Path) -> None:
    job = claim(make_job(tiny_model))
    plan = plan_for(job, make_data_set([correction()]))
    elsewhere = make_judged_project()
    other = EvaluationPlan(project=elsewhere, data_set=plan.data_set, judge=plan.judge)
    add_evaluation_plan(other)
    trained = finish(job, tiny_model)
    for number in (1, 2):  # the second is made of the first, which was trained on no data itself
        options = {"models": trained.name, "algorithm": "task_arithmetic"}
        merge = claim(queue_merge_job(base=job.base, options=options, name=f"blend-{number}"))
        leases.finish_job(merge, "succeeded")
        trained = register_checkpoint(
            name=merge.name, kind=CheckpointKind.POLICY, directory=tiny_model, parent=job.base, job=merge
        )
    queue_due_evaluations()
    assert queue_due_evaluations() == 0
    found = JobEvaluation.objects.filter(job__method="merge").order_by("job", "step")
    assert [(one.step, one.checkpoint.name) for one in found] == [
        (0, "tiny"),
        (1, "blend-1"),
        (0, "tiny"),
        (1, "blend-2"),
    ]
    assert all(one.run for one in found)
    assert not BenchmarkRun.objects.exclude(source__name__in=["tiny", "round-1-out", "blend-1", "blend-2"]).exists()
    client = Client()
    client.force_login(make_user("boss", is_staff=True))
    page = client.get(f"/training/{merge.pk}/?tab=evaluations").content.decode()
    assert "bench" in page and f'href="/evaluation/runs/{found[3].run_id}/"' in page


def test_a_category_that_falls_is_on_the_jobs_page_with_what_to_do(tiny_model: Path) -> None:
    job = claim(make_job(tiny_model))
    items = [correction(f"sum {number}") for number in range(8)]
    items += [correction(f"loop {number}", task_type="Coding", sub_task_type="Code Knowledge") for number in range(8)]
    data_set = make_data_set(items)
    step = Checkpoint.objects.create(
        name="round-1-step-2", kind="policy", directory="x", manifest_sha256="0" * 64, step=2, step_of=job
    )
    for place, (checkpoint, solved) in enumerate(((job.base, 8), (step, 2))):
        named = {"infer_model": checkpoint.name, "judge_model": "a-judge"}
        rows = [
            tick(item, (True, "loop" in item["user_query"] or number < solved), **named)
            for number, item in enumerate(items)
        ]
        import_benchmark_run(data_set, json.dumps(rows).encode(), "judged.json")
        run = BenchmarkRun.objects.latest("pk")
        JobEvaluation.objects.create(job=job, step=2 * place, data_set=data_set, checkpoint=checkpoint, run=run)
    boss, client = make_user("boss", is_staff=True), Client()
    client.force_login(boss)
    text = client.get(f"/training/{job.pk}/").content.decode()
    # 6 of 8 items lost 70 points: −52.5 on average.
    assert "Mathematics fell by 52.5 points since step 0 (95 %: −79.6 to −25.4, n = 8)" in text
    assert "Raise its share of the prompts from 33 % to about 43 %." in text
    assert "Coding fell" not in text
    table = client.get(f"/training/{job.pk}/?tab=evaluations").content.decode()
    assert "▼ −52.5 (−79.6 to −25.4)" in table
    assert f'href="/evaluation/runs/{run.pk}/"' in table


def test_held_out_categories_of_the_trainer_are_judged_too(tiny_model: Path) -> None:
    job = claim(make_job(tiny_model))
    for step, share in ((2, 0.9), (4, 0.6)):
        line = {"step": step, "total_steps": 40, "eval_loss": 0.5}
        for category, value in (("Coding", share), ("Mathematics", 0.8)):
            line |= {f"eval_category/{category}/accuracy": value, f"eval_category/{category}/rows": 100}
        assert jobs.record_progress(job, [line])
    client = Client()
    client.force_login(make_user("boss", is_staff=True))
    text = client.get(f"/training/{job.pk}/").content.decode()
    assert "Coding fell by 30.0 points since step 2" in text
    assert "Raise its share of the prompts from 67 % to about 77 %." in text
    assert "Mathematics fell" not in text
    assert "category/" not in client.get(f"/training/{job.pk}/curves/").content.decode()


def test_changes_by_hand() -> None:
    before, after = {1: 1.0, 2: 1.0, 3: 0.5, 4: 0.0, 5: 1.0, 9: 1.0}, {1: 0.0, 2: 0.0, 3: 0.5, 4: 0.0, 5: 0.0, 8: 1.0}
    found = paired_change(before, after)
    assert found is not None and found.count == 5
    # differences −1, −1, 0, 0, −1: mean −0.6, deviation √0.3, t(4) = 2.776
    assert (found.value, found.lower) == (pytest.approx(-60), pytest.approx(-60 - 277.6 * (0.3 / 5) ** 0.5, abs=0.1))
    assert not found.is_fall or (found.upper is not None and found.upper < 0)
    assert paired_change({1: 1.0}, {2: 1.0}) is None
    assert paired_change({1: 1.0}, {1: 0.0}) == Change(-100, None, None, 1)
    one, other = Share.of(56, 70), Share.of(48, 80)
    assert one and other
    # Newcombe 1998, table II, method 10: 56/70 − 48/80 = 0.2 (0.0524 to 0.3339)
    difference = share_change(other, one)
    assert (difference.lower, difference.upper) == (pytest.approx(5.24, abs=0.01), pytest.approx(33.39, abs=0.01))


def test_the_rule_for_the_mix() -> None:
    mix = {"Math": 0.12, "chat": 0.6, "": 0.28}
    assert advice("math", mix) == "Raise its share of the prompts from 12 % to about 18 %."
    assert advice("chat", mix) == "Raise its share of the prompts from 60 % to about 70 %."
    assert advice("law", mix) == "No prompt that it was trained on is of this category: add some."
    assert advice("law", {"": 1.0}) == (
        "The prompts of the data set have no categories; give them some to see which to add."
    )


def test_plans_are_made_in_the_browser(tiny_model: Path) -> None:
    job = make_job(tiny_model)
    data_set, judge = make_data_set([correction()]), make_source("a-judge", kind="model", served_model="j")
    client = Client()
    client.force_login(make_user("boss", is_staff=True))
    form: dict[str, Any] = {
        "project": job.snapshot and job.snapshot.project_id,
        "data_set": data_set.pk,
        "judge": judge.pk,
    }
    form |= {"prompt_language": "en", "max_tokens": 64, "judge_max_tokens": 256, "parallel": 4}
    text = client.post("/evaluation/plans/", form, follow=True).content.decode()
    assert "answer bench by themselves from now on." in text
    assert client.post("/evaluation/plans/", form).status_code == 422
    plan = EvaluationPlan.objects.get()
    client.post(f"/evaluation/plans/{plan.pk}/remove/")
    plan.refresh_from_db()
    assert (
        plan.ended_at is not None
        and "a-judge" not in client.get("/evaluation/plans/").content.decode().split("<form")[0]
    )
    assert "from now on" in client.post("/evaluation/plans/", form, follow=True).content.decode()


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.django_db(transaction=True)
def test_a_real_job_is_evaluated_on_the_way_and_at_its_end(tiny_model: Path, settings: Any) -> None:
    """A real training process, the real model server over its directory, real runs; only the judge is a test's."""
    port = free_port()
    roots = [f"--root={settings.JOBS_DIR}", f"--root={tiny_model.parent}"]
    settings.JOBS_DIR.mkdir(parents=True, exist_ok=True)
    settings.MODEL_SERVER_URL = f"http://127.0.0.1:{port}/v1"
    command = [sys.executable, "-m", "rlhf.training.serve", "--port", str(port), *roots]
    server = subprocess.Popen(command, cwd=ROOT, env=model_environment(), preexec_fn=child_setup())
    try:
        with chat_server() as judging:

            def reply(exchange: Exchange) -> None:
                is_pair = "Response A" in asked(exchange)
                say(exchange, '{"reason": "The same.", "verdict": "tie"}') if is_pair else judged(exchange)

            judging.reply = reply
            options = {"max_steps": 4, "batch_size": 4, "micro_batch_size": 4, "model_every_steps": 2}
            job = make_job(tiny_model, **options)
            judge = ResponseSource.objects.create(name="judge", kind="model", served_model="j", base_url=judging.url)
            plan_for(job, make_data_set([correction(), maintenance()]), judge)
            assert job.snapshot is not None
            project = job.snapshot.project
            for number in range(3):
                services.add_prompt(project, [{"role": "user", "content": f"Exam {number}?"}], task="exam")
            pairs = EvaluationPlan(project=project, kind="judge_pairs", selection={"task": "exam"}, judge=judge)
            pairs.prompt_language, pairs.max_tokens = "en", 8
            add_evaluation_plan(pairs)
            assert supervisor.run_training_job(job.pk)
            assert queue_due_evaluations() == 3 + 2
            assert wait_for(lambda: _is_up(settings.MODEL_SERVER_URL), 120)
            while writing := GenerationJob.objects.filter(status="queued").first():
                assert generation.run_generation_job(writing.pk)
                writing.refresh_from_db()
                assert (writing.status, writing.error, writing.response_count) == ("succeeded", "", 3)
                queue_due_evaluations()
            for judging_run in JudgeRun.objects.order_by("pk"):
                assert run_judge(judging_run.pk)
            for run in BenchmarkRun.objects.order_by("pk"):
                assert benchmarking.run_benchmark(run.pk)
        found = JobEvaluation.objects.filter(job=job).order_by("step").select_related("run")
        assert [one.step for one in found] == [0, 2, 4]
        tables = [table for table, _pending in prompt_tables(job)]
        assert [[row.step for row in table.rows] for table in tables] == [[2, 4]]
        assert all(row.whole and (row.whole.value, row.whole.count) == (50, 3) for row in tables[0].rows)
        for one in found:
            assert one.run is not None
            assert (one.run.status, one.run.error) == ("succeeded", "")
            assert one.run.report["scored"] == 2
            assert one.run.report["failed_answers"] == 0
    finally:
        server.kill()
        server.wait()


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False
