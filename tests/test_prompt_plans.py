"""Judges and people who evaluate by themselves: what is written, asked and held out, once; and what the pages say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db.models import F
from django.test import Client

from annotation import services
from annotation.errors import DomainError
from annotation.models import Comparison, Judgment, Project, Prompt, Response, Study
from rlhf import generation
from rlhf.judges.work import run_judge
from rlhf.models import (
    CheckpointKind,
    EvaluationPlan,
    GenerationJob,
    JudgeRun,
    PlanKind,
    PromptEvaluation,
    TrainingJob,
)
from rlhf.services import create_snapshot, leases, publish_checkpoint, queue_training_job, register_base_checkpoint
from rlhf.services.checkpoints import register_checkpoint
from rlhf.services.periodic import add_evaluation_plan, queue_due_evaluations, remove_evaluation_plan
from rlhf.snapshots import snapshot_rows
from tests.chat_server import ChatServer, Exchange, chat_server
from tests.factories import make_annotator, make_comparison, make_judged_project, make_judgment, make_user
from tests.judging import make_judge, prefer_kind, say
from tests.pages.training import finish

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]
TASKS = ("Law", "Coding")


@pytest.fixture
def server(settings: Any) -> Iterator[ChatServer]:
    """The model server and the judge. The base is kind about law, the trained model about code."""
    with chat_server() as found:
        found.reply = answer
        settings.MODEL_SERVER_URL = found.url
        yield found


def answer(exchange: Exchange) -> None:
    if exchange.body["model"] == "judge":
        if (
            "1" in exchange.body["messages"][0]["content"]
            and "Response A" not in exchange.body["messages"][0]["content"]
        ):
            pass
        prefer_kind(exchange)
        return
    question = exchange.body["messages"][-1]["content"]
    is_kind = ("Coding" in question) == exchange.body["model"].endswith("child")
    text = f"A {'kind' if is_kind else 'rude'} answer to {question}"
    choice = {"message": {"content": text}, "finish_reason": "stop"}
    exchange.refuse(200, json.dumps({"choices": [choice]}))


def make_project_with_exam(count: int = 8) -> Project:
    project = make_judged_project()
    Prompt.objects.filter(project=project).update(task="Coding")
    for task in TASKS:
        for number in range(count):
            prompt = services.add_prompt(project, [{"role": "user", "content": f"{task} {number}?"}], task=task)
            Prompt.objects.filter(pk=prompt.pk).update(tags=["exam"])
    return project


def make_job(project: Project, tiny_model: Path) -> TrainingJob:
    snapshot = create_snapshot(project, project.slug, eval_share=0)
    base = register_base_checkpoint("tiny", tiny_model)
    job = queue_training_job(snapshot=snapshot, method="sft", base=base, options={}, name="round-1")
    claimed = leases.claim_job(TrainingJob, job.pk, "node:1:a")
    assert claimed is not None
    return claimed


def make_plan(project: Project, kind: PlanKind, server: ChatServer | None = None, **more: Any) -> EvaluationPlan:
    judge = make_judge(server) if server else None
    fields: dict[str, Any] = {"selection": {"tag": "exam"}, "prompt_language": "en", "max_tokens": 32}
    return add_evaluation_plan(EvaluationPlan(project=project, kind=kind, judge=judge, **(fields | more)))


def child_of(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "child"))


def write_all() -> None:
    """Every model writes what it is asked for, as the workers and the reconciler have it."""
    while job := GenerationJob.objects.filter(status="queued").first():
        assert generation.run_generation_job(job.pk)
        job.refresh_from_db()
        assert (job.status, job.error, job.comparison_count) == ("succeeded", "", 0)
        queue_due_evaluations()


def page_of(job: TrainingJob, tab: str = "evaluations") -> str:
    client = Client()
    client.force_login(make_user(is_staff=True))
    return client.get(f"/training/{job.pk}/?tab={tab}").content.decode()


def test_a_judge_holds_the_last_model_against_the_base_once(
    tiny_model: Path, tmp_path: Path, server: ChatServer
) -> None:
    project = make_project_with_exam()
    job = make_job(project, tiny_model)
    plan = make_plan(project, PlanKind.JUDGE_PAIRS, server)
    assert queue_due_evaluations() == 0  # the base is not held against itself
    finish(job, child_of(tiny_model, tmp_path))
    assert queue_due_evaluations() == 1
    assert queue_due_evaluations() == 0
    writing = GenerationJob.objects.get()
    assert (writing.source.name, writing.response_total, len(writing.prompt_ids or [])) == ("tiny", 16, 16)
    assert "responses are being written" in page_of(job)
    client = Client()
    client.force_login(make_user(is_staff=True))
    assert "nothing: for automatic evaluation" in client.get(f"/projects/{project.slug}/generate/").content.decode()

    # A worker wrote five and was killed; another one writes the other eleven.
    kept = {name: value for name, value in writing.sampling.items() if name != "seed"}
    for prompt in Prompt.objects.filter(tags__contains=["exam"]).order_by("pk")[:5]:
        text = f"A {'rude' if prompt.task == 'Coding' else 'kind'} answer"
        services.add_response(
            prompt, writing.source, 0, text, seed=1, sampling=kept, template_sha256="", finish_reason="stop"
        )
    assert leases.claim_job(GenerationJob, writing.pk, "node:2:b")
    assert queue_due_evaluations() == 0
    GenerationJob.objects.filter(pk=writing.pk).update(status="queued", owner="", lease_expires_at=None)
    assert generation.run_generation_job(writing.pk)
    assert len(server.requests) == 11
    queue_due_evaluations()
    queue_due_evaluations()
    assert GenerationJob.objects.count() == 2
    write_all()
    assert (
        not Response.objects.exclude(prompt__tags__contains=["exam"]).filter(source__name__contains="round").exists()
    )

    run = JudgeRun.objects.get()
    assert (run.status, run.scope, run.verdicts.count()) == ("queued", "evaluation", 32)
    queue_due_evaluations()
    assert JudgeRun.objects.count() == 1
    # Nobody is handed any of it, also where the project asks more people.
    services.update_settings(project, by=None, judgments_per_comparison=3)
    services.ask_of_existing(project, before=1, by=None)
    open_ones = Comparison.objects.filter(prompt__tags__contains=["exam"], is_withdrawn=False)
    assert not open_ones.exists() and Comparison.objects.filter(prompt__tags__contains=["exam"]).count() == 16
    assert run_judge(run.pk)

    evaluation = PromptEvaluation.objects.get()
    assert (evaluation.plan, evaluation.step, evaluation.judge_run) == (plan, 40, run)
    text = page_of(job)
    assert "Law: the base is preferred, its win rate is 100.0 %" in text
    assert "No prompt that it was trained on is of this category: add some." in text
    assert "Coding: the base" not in text
    assert f'href="/evaluation/judges/runs/{run.pk}/"' in text and "50.0" in text


def test_what_a_plan_asks_is_never_trained_on_while_it_stands(tiny_model: Path, server: ChatServer) -> None:
    project = make_project_with_exam(count=2)
    with pytest.raises(DomainError, match="choose a task, a tag or a number"):
        make_plan(project, PlanKind.JUDGE_SCORES, server, selection={})
    plan = make_plan(project, PlanKind.JUDGE_SCORES, server)
    for prompt in project.prompts.filter(tags__contains=["exam"]):
        make_judgment(make_comparison(project, prompt=prompt), annotator=make_annotator())
    frozen = create_snapshot(project, "while-it-stands", eval_share=0)
    assert (frozen.train_rows, frozen.eval_rows) == (12, 4)
    exam = set(project.prompts.filter(tags__contains=["exam"]).values_list("pk", flat=True))
    assert {row["prompt_id"] for row in snapshot_rows(frozen, "eval")} == exam == set(plan.prompt_ids)
    remove_evaluation_plan(plan)
    assert create_snapshot(project, "afterwards", eval_share=0).train_rows == 16
    with pytest.raises(DomainError, match="no such prompt that none of its data sets trains on"):
        make_plan(project, PlanKind.JUDGE_SCORES, server)


def test_a_judge_scores_the_base_and_the_last_model(tiny_model: Path, tmp_path: Path, server: ChatServer) -> None:
    project = make_project_with_exam()
    job = make_job(project, tiny_model)
    make_plan(project, PlanKind.JUDGE_SCORES, server)

    def score(exchange: Exchange) -> None:
        if exchange.body["model"] != "judge":
            answer(exchange)
            return
        asked = exchange.body["messages"][0]["content"]
        say(exchange, json.dumps({"reason": "Said so.", "score": 8 if "A kind" in asked else 3}))

    server.reply = score
    finish(job, child_of(tiny_model, tmp_path))
    assert queue_due_evaluations() == 2
    write_all()
    for run in JudgeRun.objects.order_by("pk"):
        assert run.verdicts.count() == 16 and run_judge(run.pk)
    # Another job from the same base: its scores are taken over.
    other = queue_training_job(
        snapshot=job.snapshot,
        method="sft",
        base=job.base,
        options={},
        name="round-2",  # type: ignore[arg-type]
    )
    leases.claim_job(TrainingJob, other.pk, "node:1:a")
    assert queue_due_evaluations() == 1
    first = PromptEvaluation.objects.get(job=job, step=0)
    assert PromptEvaluation.objects.get(job=other).judge_run == first.judge_run
    assert JudgeRun.objects.count() == 2
    text = page_of(job)
    assert "Law fell by 5.0 points since step 0 (95 %: −5.0 to −5.0, n = 8)" in text
    assert "Coding fell" not in text


def test_a_human_evaluation_opens_by_itself_and_its_votes_come_back(
    tiny_model: Path, tmp_path: Path, server: ChatServer
) -> None:
    project = make_project_with_exam()
    annotators = [make_annotator(project=project) for _ in range(2)]
    job = make_job(project, tiny_model)
    judged = make_plan(project, PlanKind.JUDGE_PAIRS, server)
    make_plan(project, PlanKind.GSB, judgments_per_item=2, on_the_way=False)
    make_plan(project, PlanKind.RUBRIC, on_the_way=False)
    finish(job, child_of(tiny_model, tmp_path))
    assert queue_due_evaluations() == 3
    write_all()
    assert GenerationJob.objects.count() == 2  # what one plan had written serves the others
    queue_due_evaluations()
    gsb, rubric = Study.objects.get(kind="gsb"), Study.objects.get(kind="rubric")
    assert (gsb.source.name, gsb.against and gsb.against.name) == ("round-1-out", "tiny")
    assert (gsb.items.count(), rubric.items.count()) == (16, 32)
    # The pairs that the judge had first are the people's, too, and there are no others.
    pairs = Comparison.objects.filter(prompt__tags__contains=["exam"])
    assert pairs.count() == 16 and not pairs.exclude(is_withdrawn=False, required_count=2).exists()
    assert gsb.name in page_of(job)

    new = gsb.source_id
    others = Comparison.objects.exclude(prompt__tags__contains=["exam"])
    others.update(assigned_count=F("required_count"))
    for annotator in annotators:
        held = services.claim_assignments(annotator=annotator, project=project)
        assert held and held[0].comparison in pairs
        for pair in pairs.select_related("prompt", "response_a"):
            is_a = (pair.response_a.source_id == new) == (pair.prompt.task == "Coding")
            make_judgment(pair, "a" if is_a else "b", annotator=annotator)
    text = page_of(job)
    assert '<td class="num">0.0 <span class="muted small">(16)</span>' in text  # Law, of two people
    assert '<td class="num">100.0 <span class="muted small">(16)</span>' in text
    assert "Law: the base is preferred, its win rate is 100.0 %" in text
    assert "32 of 32 judgments are in" in text
    # Votes on these pairs teach nobody, and closing hands the pairs back to no queue.
    assert create_snapshot(project, "later", eval_share=0).train_rows == 12
    services.close_study(gsb)
    assert not pairs.filter(is_withdrawn=False).exists()
    assert judged.evaluations.get().judge_run is not None


def test_models_on_the_way_are_evaluated_where_the_plan_says_so(
    tiny_model: Path, tmp_path: Path, server: ChatServer
) -> None:
    project = make_project_with_exam(count=1)
    job = make_job(project, tiny_model)
    plans = [
        make_plan(project, PlanKind.JUDGE_SCORES, server),
        make_plan(project, PlanKind.JUDGE_PAIRS, server),
        make_plan(project, PlanKind.GSB, on_the_way=False),
    ]
    register_checkpoint(
        name="round-1-step-2", kind=CheckpointKind.POLICY, directory=tiny_model, parent=job.base, step=2, step_of=job
    )
    assert queue_due_evaluations() == 3
    finish(job, child_of(tiny_model, tmp_path))
    assert queue_due_evaluations() == 3
    steps = [list(plan.evaluations.order_by("step").values_list("step", flat=True)) for plan in plans]
    assert steps == [[0, 2, 40], [2, 40], [40]]


def test_what_goes_wrong_is_said_and_taken_up_again_by_a_person(
    tiny_model: Path, tmp_path: Path, server: ChatServer
) -> None:
    project = make_project_with_exam(count=2)
    job = make_job(project, tiny_model)
    make_plan(project, PlanKind.GSB)
    server.reply = lambda exchange: exchange.refuse(400, "no such model")
    finish(job, child_of(tiny_model, tmp_path))
    assert queue_due_evaluations() == 1
    assert generation.run_generation_job(GenerationJob.objects.get().pk)
    queue_due_evaluations()
    queue_due_evaluations()
    evaluation = PromptEvaluation.objects.get()
    assert "answered 400: no such model" in evaluation.error and GenerationJob.objects.count() == 1
    assert "no such model" in page_of(job)
    client = Client()
    client.force_login(make_user(is_staff=True))
    server.reply = answer
    again = client.post(f"/evaluation/plans/evaluations/{evaluation.pk}/again/", follow=True).content.decode()
    assert "taken up again" in again
    queue_due_evaluations()
    write_all()
    assert Study.objects.get().items.count() == 4
    assert (
        "nothing to take up again"
        in client.post(f"/evaluation/plans/evaluations/{evaluation.pk}/again/", follow=True).content.decode()
    )


def test_other_sampling_is_no_answer_and_what_is_there_is_not_asked_again(
    tiny_model: Path, tmp_path: Path, server: ChatServer
) -> None:
    project = make_project_with_exam(count=2)
    job = make_job(project, tiny_model)
    base = publish_checkpoint(job.base)
    prompt = project.prompts.filter(tags__contains=["exam"]).first()
    assert prompt is not None
    services.add_response(
        prompt, base, 0, "Short", seed=1, sampling={"max_tokens": 4}, template_sha256="", finish_reason="length"
    )
    make_plan(project, PlanKind.JUDGE_PAIRS, server)
    finish(job, child_of(tiny_model, tmp_path))
    queue_due_evaluations()
    write_all()
    assert list(
        prompt.responses.filter(source=base).order_by("sample_index").values_list("sample_index", flat=True)
    ) == [0, 1]
    shown = JudgeRun.objects.get().verdicts.filter(comparison__prompt=prompt).first()
    assert (
        shown
        and shown.comparison
        and "Short" not in (shown.comparison.response_a.text, shown.comparison.response_b.text)
    )
    assert not Judgment.objects.filter(comparison__prompt=prompt).exists()


def test_plans_of_every_kind_are_made_in_the_browser(tiny_model: Path, server: ChatServer) -> None:
    project = make_project_with_exam(count=2)
    judge = make_judge(server)
    client = Client()
    client.force_login(make_user(is_staff=True))
    form: dict[str, Any] = {"project": project.pk, "tag": "exam", "max_tokens": 64}
    by_judge = form | {"judge": judge.pk, "prompt_language": "en", "judge_max_tokens": 256, "parallel": 4}
    for kind in PlanKind.values[1:]:
        given = by_judge if kind.startswith("judge") else form | {"judgments_per_item": 2}
        text = client.post(f"/evaluation/plans/?kind={kind}", given, follow=True).content.decode()
        assert "on 4 prompts from now on" in text, kind
    refused = client.post("/evaluation/plans/?kind=gsb", form | {"judgments_per_item": 2, "tag": "no-such"})
    assert refused.status_code == 422 and "has no such prompt" in refused.content.decode()
    text = client.get("/evaluation/plans/?kind=rubric").content.decode()
    assert "2 people per item" in text and 'name="judge"' not in text
