"""Every page as people see it: no script error, no accessibility fault that axe finds, in both themes and on a phone.

With TOUCHSTONE_SCREENSHOTS=FOLDER the pages are photographed there on the way (docs/screenshots is made like this).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import Page

from annotation import services
from annotation.answer import Answer
from annotation.feedback import Feedback
from annotation.models import (
    ApiToken,
    Conversation,
    DeficiencyType,
    EventKind,
    FeedbackType,
    Project,
    RewriteCause,
    Role,
    Scenario,
    StudyKind,
    Webhook,
)
from annotation.protocol import DEFAULT_ASPECTS, PRESETS, Axis, Demand, Protocol, Scale
from annotation.services import duplicates, masking, quality
from annotation.services.conversations import end_conversation
from annotation.services.invitations import create_invitation
from annotation.services.projects import edit_guidelines, update_settings
from annotation.services.rating_conversations import take_conversation
from annotation.services.turns import send_feedback
from annotation.services.uploads import Reading, start_check
from annotation.upload_files import KeptUpload
from annotation.uploads import guess_mapping
from rlhf.evaluation.constraint_sets import parse_cfbench
from rlhf.evaluation.fb_bench import parse_dataset
from rlhf.models import (
    Benchmark,
    BenchmarkRun,
    BenchmarkSet,
    Checkpoint,
    EvaluationPlan,
    JobEvaluation,
    JudgeRun,
    PlanKind,
    PromotionGate,
    PromptEvaluation,
    TrainingJob,
)
from rlhf.services import (
    check_launch,
    create_snapshot,
    jobs,
    leases,
    move_alias,
    queue_training_job,
    register_base_checkpoint,
)
from rlhf.services.aliases import set_gate
from rlhf.services.benchmarks import import_benchmark_run, import_benchmark_set
from rlhf.services.constraint_sets import import_constraint_run, import_constraint_set
from rlhf.services.periodic import add_evaluation_plan
from tests.chat_server import chat_server
from tests.constraint_items import instruction
from tests.factories import (
    make_annotator,
    make_comparison,
    make_judgment,
    make_project,
    make_prompt,
    make_response,
    make_source,
)
from tests.fb_bench_items import correction, tick
from tests.importing import import_lines
from tests.judging import finish, make_run, make_votes, prefer_kind
from tests.talks import make_talk, make_talk_project, pick, write

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("data_dir"),
]
Open = Callable[..., Page]
WIDE = {"viewport": {"width": 1440, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True}
RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}

QUESTIONS = (
    "How do I keep basil alive on a windowsill that gets sun only in the morning?",
    "Write a short note that thanks a neighbour for watering the plants.",
    "What is the sum of the first 100 whole numbers? Explain it to a child.",
    "Translate “better late than never” into Spanish and say when one uses it.",
    "My Python loop skips every second item when I delete from the list. Why?",
    "Which three questions should I ask before I rent a flat?",
)
CALM = """Water it **when the top of the soil is dry**, not by the calendar:

1. Give it the brightest morning sill that you have.
2. Pinch off flowers as soon as they show; leaves lose their taste after that.
3. Turn the pot once a week so that it does not lean.

A plant from the supermarket is often ten seedlings in one pot. *Split them* into three pots and they live on."""
BRISK = """Just water it every day and it will be fine. Basil needs:

- lots of water
- lots of sun

If it dies, buy a new one. `basil = water + sun`."""


def make_work(person: User, slug: str = "helpful", *, protocol: Protocol | None = None) -> Project:
    """A project with judged, open, disputed and gold comparisons, and somebody to judge them."""
    project = make_project(slug)
    Project.objects.filter(pk=project.pk).update(name=slug.replace("-", " ").capitalize())
    project.refresh_from_db()
    services.add_member(project, person)
    update_settings(project, None, protocol=protocol or Protocol(), judgments_per_comparison=2)
    edit_guidelines(project, "# What is better?\n\nThe answer that a **careful friend** would give.", None)
    annotators = [make_annotator(User.objects.create_user(f"{slug}-{name}")) for name in ("ines", "tomas", "mei")]
    for annotator in annotators:
        services.add_member(project, annotator.user)
    sources = make_source("starter"), make_source("starter-dpo-1")
    count = 5 if protocol and protocol.scale == Scale.RANKING else 2
    for question in QUESTIONS:
        prompt = make_prompt(project, question)
        texts = [CALM, BRISK, CALM.replace("dry", "dusty"), BRISK.upper(), "It depends."][:count]
        made = [make_response(prompt, sources[index % 2], text) for index, text in enumerate(texts)]
        if count > 2:
            services.create_rankings(project, [made])
        else:
            services.create_comparisons(project, [(made[0], made[1])])
    if protocol is None:
        for index, annotator in enumerate(annotators[:2]):
            for number in range(4):
                judge_next(annotator, project, towards_calm=index == 0 or number != 1)
    return project


def judge_next(annotator: Any, project: Project, *, towards_calm: bool) -> None:
    item = services.claim_assignments(annotator=annotator, project=project)[0]
    calm_is_left = item.a_shown_on_left
    strength = -2 if towards_calm == calm_is_left else 2
    answer = Answer(choice=str(strength), note="Says why.", decided_in_ms=9000)
    services.submit_judgment(assignment_id=item.public_id, annotator=annotator, judgment_id=uuid4(), answer=answer)


def running_job(project: Project, tiny_model: Path) -> TrainingJob:
    base = register_base_checkpoint("starter", tiny_model)
    snapshot = create_snapshot(project, f"{project.slug}-r1", eval_share=0.25)
    job = queue_training_job(snapshot=snapshot, method="dpo", base=base, options={}, name="round-1")
    claimed = leases.claim_job(TrainingJob, job.pk, "node:1:a")
    assert claimed is not None
    rows = [
        {"step": step, "total_steps": 40, "loss": 0.69 - step / 90, "logps/chosen": -90 - step,
         "logps/rejected": -95.0 - 2 * step, "rewards/margins": step / 20}
        for step in range(1, 31)
    ]  # fmt: skip
    assert jobs.record_progress(claimed, rows)
    return claimed


def studies_of(project: Project) -> list[int]:
    """A study of pairs that people have judged in part, and one of marks with a few ratings."""
    project.prompts.filter(pk__in=project.prompts.order_by("pk")[:4]).update(
        task="advice", tags=["difficulty:hard", "scenario:home", "format:zero-shot"]
    )
    studies = [
        services.create_study(
            project=project,
            name=f"spring-{kind}",
            kind=kind,
            source=make_source("starter-dpo-1"),
            against=make_source("starter"),
            prompts=project.prompts.order_by("pk"),
        )
        for kind in (StudyKind.GSB, StudyKind.RUBRIC)
    ]
    for number in range(5):
        annotator = make_annotator(User.objects.get(username=f"{project.slug}-{('ines', 'tomas')[number % 2]}"))
        rating = services.claim_rating(annotator=annotator, project=project)
        assert rating is not None
        marks = services.Marks(True, number != 1, True, True, number != 3)
        services.submit_rating(rating_id=rating.public_id, annotator=annotator, marks=marks)
    return [study.pk for study in studies]


def prompts_to_look_at(project: Project, boss: User) -> tuple[str, int]:
    """Duplicates, personal data and an uploaded table; gives the upload's token and the number of its check."""
    sky = "Explain to a child of five why the sky is blue during the day, and red in the evening"
    for text in (f"{sky}.", f"{sky}?", "Write to jane.doe@corp.com or call 415-555-2671 about the invoice."):
        make_prompt(project, text)
    services.refresh_browse_index()
    duplicates.start_search(project, user=boss)
    masking.start_scan(project, user=boss)
    table = "question,answer_1,answer_2,category\nWhat is rain?,Drops that fall.,No idea.,nature\n,Yes.,No.,\n"
    upload = KeptUpload("0123456789abcdef" * 2, project.pk, "questions.csv", len(table))
    upload.folder.mkdir(parents=True)
    upload.path.write_text(table)
    (upload.folder / "about.json").write_text(json.dumps(asdict(upload)))
    mapping = guess_mapping(table.partition("\n")[0].split(","))
    return upload.token, start_check(project, upload, Reading(mapping=mapping), user=boss).pk


def evaluate(job: TrainingJob, project: Project) -> Checkpoint:
    """The base and a model saved on the way judged on a few items, and a gate that the latter does not pass."""
    step = Checkpoint.objects.create(
        name="round-1-step-20", kind="policy", directory="x", manifest_sha256="0" * 64, parent=job.base, step=20,
        step_of=job,
    )  # fmt: skip
    tasks = ("Mathematics", "Text Creation")
    items = [correction(f"How much is {number} and {number}?", task_type=tasks[number % 2]) for number in range(16)]
    data_set, _ = import_benchmark_set(parse_dataset(json.dumps(items).encode(), "b.json"), name="Own items")
    for checkpoint, solved in ((job.base, 14), (step, 5)):
        rows = [
            tick(item, (True, number < solved or number % 2 == 1), infer_model=checkpoint.name, judge_model="a-judge")
            for number, item in enumerate(items)
        ]
        run = import_benchmark_run(data_set, json.dumps(rows).encode(), "judged.json").runs[0]
        Checkpoint.objects.filter(pk=checkpoint.pk).update(source=run.source)
        JobEvaluation.objects.create(job=job, step=checkpoint.step, data_set=data_set, checkpoint=checkpoint, run=run)
    move_alias("champion", job.base, why="the first")
    set_gate(PromotionGate(alias="champion", least_win_rate=0.5, benchmark=data_set))
    add_evaluation_plan(
        EvaluationPlan(
            project=project, data_set=data_set, judge=make_source("judge-model", kind="model", served_model="m")
        )
    )
    for study in project.studies.order_by("pk"):
        prompt_ids = list(project.prompts.order_by("pk").values_list("pk", flat=True))
        plan = EvaluationPlan.objects.create(project=project, kind=study.kind, prompt_ids=prompt_ids)
        PromptEvaluation.objects.create(
            plan=plan, job=job, step=20, checkpoint=step, against=job.base, prompt_ids=prompt_ids, study=study
        )
    waiting = EvaluationPlan.objects.create(
        project=project, kind=PlanKind.GSB, prompt_ids=prompt_ids, on_the_way=False
    )
    PromptEvaluation.objects.create(
        plan=waiting, job=job, step=20, checkpoint=step, against=job.base, prompt_ids=prompt_ids
    )
    step.refresh_from_db()
    return step


def constraints() -> BenchmarkRun:
    """A run over instructions with constraints, some of them broken."""
    rows = [instruction(number, "Write a verse about the sea.", domain="poems") for number in range(1, 4)]
    data_set, _ = import_constraint_set(
        parse_cfbench(json.dumps(rows).encode(), "rows.json"), Benchmark.CFBENCH, name="Own constraints"
    )
    judged = [
        {**row, "response": f"Waves, {number}.", "infer_model": "starter", "judge_model": "a-judge",
         "judge_score": ["1", str(number % 2)], "judge_parsing": "1"}
        for number, row in enumerate(rows)
    ]  # fmt: skip
    return import_constraint_run(data_set, json.dumps(judged).encode(), "judged.json").runs[0]


def conversations(person: User, folder: Path) -> dict[str, Conversation]:
    """One in its second turn, one whose turns are judged at length, one that has ended, and one to be rated."""
    said = Feedback(Scenario.ERROR_CORRECTION, [DeficiencyType.FACTUAL_ERROR], [FeedbackType.POINTING_OUT_ERRORS])
    annotator = make_annotator(person)

    def begun(slug: str, **protocol: Any) -> Conversation:
        project = make_talk_project(slug, **protocol)
        services.add_member(project, person)
        edit_guidelines(project, "Talk as you would with a friend.", None)
        talk = make_talk(project, annotator=annotator, text="How do I keep basil alive on a windowsill?")
        write(talk, CALM, BRISK)
        scores = {aspect.name: [4, 2] for aspect in protocol.get("aspects", ())}
        pick(talk, "-2", ratings=scores)
        send_feedback(talk, 0, text="Basil does not like cold water, does it?", feedback=said)
        write(talk, "No. *Lukewarm* water is best.", "It does not mind.")
        return talk

    talk, ended = begun("talks"), begun("ended-talks")
    pick(talk, "1")
    pick(ended, "neither")
    end_conversation(ended)
    at_length = begun("careful-talks", aspects=DEFAULT_ASPECTS, chips=("clearer", "shorter"))
    messages = [
        {"role": role, "content": text}
        for role, text in zip(("user", "assistant") * 2, ("How?", CALM, "Why?", BRISK), strict=True)
    ]
    import_lines(folder, [{"messages": messages, "model": "an-author"}], project=talk.project.slug)
    rated = take_conversation(talk.project, annotator)
    assert rated is not None
    return {"": talk, "-careful": at_length, "-ended": ended, "-rate": rated}


def judge(slug: str) -> JudgeRun:
    """A judge's verdicts on what people have voted on, too."""
    project = make_project(slug)
    make_votes(project, count=4)
    with chat_server() as server:
        server.reply = prefer_kind
        return finish(make_run(server, project))


def look(page: Page, name: str, faults: list[str]) -> None:
    """Have axe look at the page, and photograph it where that is wanted."""
    page.wait_for_load_state("load")
    found = Axe().run(page, options=RULES).response["violations"]
    for fault in found:
        where = "; ".join(node["html"][:140] for node in fault["nodes"][:3])
        faults.append(f"{name}: {fault['id']} ({fault['impact']}): {fault['help']} {where}")
    photograph(page, name)


def photograph(page: Page, name: str) -> None:
    if folder := os.environ.get("TOUCHSTONE_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.fixture
def addresses(tiny_model: Path, tmp_path: Path) -> dict[str, list[tuple[str, str]]]:
    """Name and address of every page, by who looks at it."""
    boss = User.objects.create_superuser("boss", password="a-long-password")
    ann = User.objects.create_user("ann", password="a-long-password")
    helpful = make_work(ann)
    pairs, marks = studies_of(helpful)
    job = running_job(helpful, tiny_model)
    step = evaluate(job, helpful)
    run = BenchmarkRun.objects.latest("pk")
    item = run.data_set.items.earliest("pk")
    judged = judge("judged")
    constrained = constraints()
    other = queue_training_job(snapshot=job.snapshot, method="dpo", base=job.base, options={"beta": 0.2}, name="b")
    gold = make_comparison(helpful, a_text=CALM, b_text=BRISK)
    quality.add_gold(gold, preference="a", strength=-2, reason="B kills the plant.", by=boss)
    disputed = helpful.comparisons.filter(review_since__isnull=False).first()
    assert disputed is not None
    ApiToken.objects.create(ann, expiry=timedelta(days=30))
    _, secret = create_invitation(helpful, by=boss, role=Role.REVIEWER)
    scored = Protocol(
        aspects=DEFAULT_ASPECTS,
        axes=(Axis("harmless", "Which is less harmful?"),),
        chips=("clearer", "more correct", "shorter"),
        spans=True,
        edit_demand=Demand.OPTIONAL,
    )
    for slug, protocol in (("scores", scored), *((name, PRESETS[name][1]) for name in ("binary", "four", "ranking"))):
        make_work(ann, slug, protocol=protocol)
    upload, checked = prompts_to_look_at(helpful, boss)
    talks = conversations(ann, tmp_path)
    BenchmarkSet.objects.filter(pk=run.data_set_id).update(ticked_in=helpful)

    hook = Webhook.objects.create(project=helpful, url="https://hooks.example.org/judged", created_by=boss)
    services.record_event(EventKind.FLAG, project=helpful, user=ann, reason="unclear")
    hook.deliveries.update(attempt_count=2, last_status_code=503)
    ranked = Project.objects.get(slug="ranking").comparisons.latest("pk")
    for person in (make_annotator(), make_annotator()):
        make_judgment(ranked, "ranked", ranking=[1, 2, 2, 4, 3], annotator=person)
    services.queue_rewrite(helpful.comparisons.latest("pk").pk, cause=RewriteCause.NEITHER)
    launch = check_launch(snapshot=job.snapshot, method="dpo", base=job.base, options={"learning_rate": 1e-3})

    def of(name: str, *args: object) -> str:
        return reverse(name, args=args)

    helpful_pages = (
        "project_detail", "project_people", "project_progress", "project_settings",
        "project_guidelines", "project_journal", "project_quality", "project_gold", "project_prompts",
        "project_comparisons", "project_duplicates", "project_personal_data", "prompts_add",
        "project_generate", "adjudicate", "conversation_sources", "project_webhooks", "project_leaderboard",
        "project_studies",
    )  # fmt: skip
    annotator_id = make_annotator(User.objects.get(username="helpful-ines")).pk
    member_id = User.objects.get(username="helpful-ines").pk
    return {
        "": [("login", of("login")), ("join", of("join", secret))],
        "ann": [
            ("home", of("home")),
            ("me", of("me")),
            ("password", of("password")),
            ("tokens", of("tokens")),
            ("compare", of("compare", "helpful")),
            *((f"compare-{slug}", of("compare", slug)) for slug in ("scores", "binary", "four", "ranking")),
            ("rewrite", of("rewrite", "helpful")),
            ("rate", of("rate", "helpful")),
            ("conversation-start", of("converse", "talks")),
            *((f"conversation{name}", of("conversation", talk.public_id)) for name, talk in talks.items()),
            ("tick", of("project_tick", "helpful")),
        ],
        "boss": [
            ("project-list", of("project_list")),
            *((name.replace("_", "-"), of(name, "helpful")) for name in helpful_pages),
            ("project-exports", f"{of('project_exports', 'helpful')}?action=count&kind=dpo&max_spread=1"),
            ("prompt", of("prompt_detail", "helpful", disputed.prompt_id)),
            ("upload", of("upload", "helpful", upload)),
            ("upload-checked", of("data_job", "helpful", checked)),
            ("settle", of("settle", "helpful", disputed.pk)),
            ("settle-ranking", of("settle", "ranking", ranked.pk)),
            ("study-pairs", of("project_study", "helpful", pairs)),
            ("study-marks", of("project_study", "helpful", marks)),
            ("webhook", of("project_webhook", "helpful", hook.pk)),
            ("annotator-quality", of("annotator_quality", "helpful", annotator_id)),
            ("member", of("project_member", "helpful", member_id)),
            ("site-journal", of("site_journal")),
            ("snapshot-list", of("snapshot_list")),
            ("snapshot", of("snapshot_detail", job.snapshot_id)),
            ("job-list", of("job_list")),
            ("job-new", of("job_new")),
            ("launch-check", of("launch_check", launch.pk)),
            ("job", of("job_detail", job.pk)),
            ("job-stop", of("job_stop", job.pk)),
            ("checkpoint-list", of("checkpoint_list")),
            ("checkpoint", of("checkpoint_detail", job.base_id)),
            ("checkpoint-step", of("checkpoint_detail", step.pk)),
            ("checkpoint-report", of("checkpoint_report", step.pk)),
            ("checkpoint-compare", f"{of('checkpoint_compare')}?ids={job.base_id},{step.pk}"),
            ("job-evaluations", f"{of('job_detail', job.pk)}?tab=evaluations"),
            ("job-compare", f"{of('job_compare')}?job={job.pk}&job={other.pk}"),
            ("worker-list", of("worker_list")),
            ("merge-new", of("merge_new")),
            ("alias-list", of("alias_list")),
            ("promotion-gate", of("promotion_gate", PromotionGate.objects.get().pk)),
            ("evaluation-plans", of("evaluation_plans")),
            ("evaluation-plan-new", f"{of('evaluation_plans')}?kind=judge_pairs"),
            ("evaluation-home", of("evaluation_home")),
            ("benchmark-set", of("benchmark_set", run.data_set_id)),
            ("benchmark-easy", of("benchmark_easy", run.data_set_id)),
            ("benchmark-item", of("benchmark_item", item.pk)),
            ("benchmark-run-new", of("benchmark_run_new")),
            ("benchmark-run", of("benchmark_run", run.pk)),
            ("benchmark-run-items", of("benchmark_run_items", run.pk)),
            ("constraint-item", of("benchmark_item", constrained.data_set.items.earliest("pk").pk)),
            ("constraint-run", of("benchmark_run", constrained.pk)),
            ("curation", of("curation")),
            ("curation-item", of("curation_item", talks[""].project_id, talks[""].turns.earliest("position").pk)),
            ("judge-home", of("judge_home")),
            ("judge-prompts", of("judge_prompts")),
            ("judge-prompt", f"{of('judge_prompt')}?kind=pair&language=en"),
            ("judge-run-new", of("judge_run_new")),
            ("judge-run", of("judge_run", judged.pk)),
            ("judge-card", of("judge_run_card", judged.pk)),
            ("api-docs", of("api_docs")),
        ],
    }


def test_every_page_passes_axe_in_both_themes_and_on_a_phone(
    open_page: Open, addresses: dict[str, list[tuple[str, str]]]
) -> None:
    faults: list[str] = []
    looks = (("", WIDE, "light"), ("-dark", WIDE, "dark"), ("-phone", PHONE, "light"))
    for user, pages in addresses.items():
        for suffix, options, scheme in looks:
            page = open_page("/healthz", user=user, color_scheme=scheme, **options)
            for name, address in pages:
                if name == "api-docs" and suffix:
                    continue  # Swagger's own page has one look
                answer = page.goto(address)
                assert answer is not None
                assert answer.status == 200, (name, answer.status)
                if name == "api-docs":
                    page.locator(".opblock").first.wait_for()
                    photograph(page, name)
                    continue
                for choice in page.locator('[name="scenario"][value="error_correction"]:visible').all():
                    choice.check()  # the types of feedback appear
                look(page, name + suffix, faults)
                width = page.evaluate("document.documentElement.scrollWidth - innerWidth")
                if width > 0:
                    faults.append(f"{name}{suffix}: the page is {width} px wider than the window")
            page.close()
    assert not faults, "\n".join(faults)
