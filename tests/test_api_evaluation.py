"""Checkpoints and evaluation by program: what was measured, what gates say, and starting more of it."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from drf_spectacular.validation import validate_schema

from annotation.models import Role, Study, StudyKind
from annotation.services import create_study
from rlhf.client import TrainingSite
from rlhf.evaluation.fb_bench import parse_dataset
from rlhf.models import BenchmarkRun, BenchmarkSet, Checkpoint, JudgeRun, PromotionGate
from rlhf.services import publish_checkpoint
from rlhf.services.aliases import set_gate
from rlhf.services.benchmarks import import_benchmark_run, import_benchmark_set
from tests.factories import make_project, make_prompt, make_response, make_source, make_user
from tests.fb_bench_items import correction, maintenance, tick
from tests.judging import make_votes
from tests.pages.training import finish, log_steps, make_job
from tests.test_api import caller, member, token_for
from tests.test_api_training import get, post

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]


@pytest.fixture
def trained(base: Checkpoint, tiny_model: Path) -> Checkpoint:
    job = log_steps(make_job(base), 3)
    return finish(job, tiny_model, **{"eval_rewards/accuracies": 0.75, "eval_rows_used": 40, "eval_loss": 0.61})


def bench() -> BenchmarkSet:
    items = [correction(f"sum {number}") for number in range(3)] + [maintenance("twice two")]
    return import_benchmark_set(parse_dataset(json.dumps(items).encode(), "b.json"), name="own bench")[0]


def judged(data_set: BenchmarkSet, model: str, judge: str) -> BenchmarkRun:
    """All met but one, and one judgment that cannot be used."""
    items = [correction(f"sum {number}") for number in range(3)] + [maintenance("twice two")]
    named = {"infer_model": model, "judge_model": judge}
    rows: list[dict[str, Any]] = [tick(item, (True, number != 1), **named) for number, item in enumerate(items)]
    rows[2]["judgement"] = "It is fine."
    return import_benchmark_run(data_set, json.dumps(rows).encode(), "judged.json").runs[0]


@pytest.mark.parametrize(
    "path",
    ["checkpoints/", "aliases/", "aliases/moves/", "gates/", "benchmarks/sets/", "benchmarks/runs/", "judges/runs/"],
)
def test_evaluation_is_for_those_who_run_the_site(path: str) -> None:
    assert caller(make_user()).get(f"/api/v1/{path}").status_code == 403
    here = caller(make_user(is_staff=True))
    assert here.get(f"/api/v1/{path}").status_code == 200
    refusal = here.get(f"/api/v1/{path}?colour=red")
    assert (refusal.status_code, "colour" in refusal.json()["detail"]) == (422, True)


def test_a_checkpoint_has_its_lineage_report_and_card(here: Client, base: Checkpoint, trained: Checkpoint) -> None:
    assert trained.job is not None
    assert trained.job.snapshot is not None
    slug = trained.job.snapshot.project.slug
    assert [row["name"] for row in get(here, "checkpoints/")["results"]] == [trained.name, "tiny"]
    assert [row["name"] for row in get(here, f"checkpoints/?project={slug}")["results"]] == [trained.name]
    found = get(here, f"checkpoints/{trained.pk}/")
    assert (found["job"], found["parent"], found["aliases"]) == (trained.job.pk, "tiny", [])
    assert (found["lineage"]["ancestors"], found["lineage"]["project"]) == (["tiny"], slug)
    assert get(here, f"checkpoints/{base.pk}/")["lineage"]["children"] == [trained.name]
    assert any("no person has compared" in limit for limit in found["limits"])
    assert post(here, f"checkpoints/{trained.pk}/publish/")[1]["source"] == trained.name
    data_set = bench()
    run = judged(data_set, trained.name, "a-judge")
    report = get(here, found["links"]["report"].removeprefix("/api/v1/"))
    groups = {group["key"].partition(":")[0]: group for group in report["groups"]}
    accuracy = next(row for row in groups["held_out"]["rows"] if row["key"] == "accuracy")
    assert (accuracy["value"], round(accuracy["lower"], 1), accuracy["count"]) == (75.0, 59.8, 40)  # Wilson's
    assert any(f"/evaluation/runs/{run.pk}/" in json.dumps(group) for group in report["groups"])
    card = here.get(f"/api/v1/checkpoints/{trained.pk}/card.md").content.decode()
    assert card.startswith("---\n")
    answer = here.get(f"/api/v1/checkpoints/{trained.pk}/model.tar")
    with tarfile.open(fileobj=io.BytesIO(b"".join(answer))) as packed:  # type: ignore[call-overload]
        assert {Path(name).name for name in packed.getnames()} >= {"config.json", "README.md", "model.safetensors"}


def test_an_alias_moves_by_its_gate_and_back(here: Client, base: Checkpoint, trained: Checkpoint) -> None:
    move = {"alias": "champion", "why": "the first"}
    assert post(here, "aliases/", **move, checkpoint="tiny")[0] == 201
    set_gate(PromotionGate(alias="champion", least_win_rate=0.5))
    status, refusal = post(here, "aliases/", **move, checkpoint=trained.name)
    assert (status, refusal["gate"]["alias"], refusal["gate"]["is_passed"]) == (422, "champion", False)
    assert refusal["gate"]["missing"] in refusal["detail"]
    assert refusal["gate"]["criteria"][0]["why"] == "unpublished"
    [verdict] = get(here, f"checkpoints/{trained.pk}/")["gates"]
    assert (verdict["champion"], verdict["is_passed"]) == ("tiny", False)
    gate = PromotionGate.objects.get()
    assert get(here, f"checkpoints/{base.pk}/gates/{gate.pk}/")["alias"] == "champion"
    assert get(here, "gates/")[0]["least_win_rate"] == 0.5
    status, moved = post(here, "aliases/", **move, checkpoint=trained.name, despite_gate=True)
    assert (status, moved["previous"], moved["moved_by"]) == (201, "tiny", "boss")  # make_user's staff are superusers
    assert [row["name"] for row in get(here, "checkpoints/?name=champion")["results"]] == [trained.name]
    clerk = make_user("clerk", is_staff=True)
    User.objects.filter(pk=clerk.pk).update(is_superuser=False)
    assert (
        "administrator" in post(caller(clerk), "aliases/", **move, checkpoint="tiny", despite_gate=True)[1]["detail"]
    )
    assert post(here, "aliases/back/", alias="champion")[1]["checkpoint"] == "tiny"
    assert [row["alias"] for row in get(here, "aliases/")] == ["champion"]
    log = get(here, "aliases/moves/?alias=champion")["results"]
    assert [(row["number"], row["checkpoint"]) for row in log] == [(3, "tiny"), (2, trained.name), (1, "tiny")]
    assert post(here, "aliases/", alias="champion", checkpoint="gone", why="x")[0] == 422


def test_runs_of_a_benchmark_are_read_with_what_failed(here: Client) -> None:
    data_set = bench()
    run = judged(data_set, "model-x", "a-judge")
    [listed] = get(here, "benchmarks/sets/?kind=fb_bench")["results"]
    assert (listed["id"], listed["items"]) == (data_set.pk, 4)
    items = get(here, f"benchmarks/sets/{data_set.pk}/items/?scenario=error_correction&page_size=2")
    assert [item["position"] for item in items["results"]] == [1, 2]
    assert items["next"]
    assert items["results"][0]["criteria"][0][1] is not None
    found = get(here, f"benchmarks/runs/{run.pk}/")
    assert (found["status"], found["progress"]["judgments"], found["progress"]["failed_judgments"]) == (
        "succeeded", 4, 1
    )  # fmt: skip
    figures = get(here, f"benchmarks/runs/{run.pk}/figures/")
    assert (figures["source"], figures["items"], figures["scored"], figures["failed"]) == ("model-x", 4, 3, 1)
    assert figures["failures"] == {"wrong_shape": 1}
    assert set(figures["by_task"]) == {"Mathematics"}
    [failed] = get(here, f"benchmarks/runs/{run.pk}/judgments/?failure=wrong_shape")["results"]
    assert (failed["position"], failed["score"]) == (3, None)
    board = get(here, f"benchmarks/sets/{data_set.pk}/leaderboard/")
    assert [(row["run"], row["source"]) for row in board["rows"]] == [(run.pk, "model-x")]
    assert post(here, f"benchmarks/runs/{run.pk}/retry/", failures=True)[0] == 422  # imported
    assert here.get("/api/v1/benchmarks/runs/0/judgments/").status_code == 404


def test_a_benchmark_run_is_started_stopped_and_taken_up(here: Client, base: Checkpoint) -> None:
    data_set, judge = bench(), make_source("judge", kind="model", served_model="judge")
    publish_checkpoint(base)
    launch = {"data_set": data_set.pk, "source": "tiny", "judge": "judge"}
    status, run = post(here, "benchmarks/runs/", **launch, max_tokens=64, prompt_language="en")
    assert (status, run["status"], run["max_tokens"], run["created_by"]) == (201, "queued", 64, "boss")
    assert run["progress"] == {
        "items": 4, "answers": 0, "failed_answers": 0, "judgments": 0, "failed_judgments": 0, "seconds_left": None,
        "is_judged": True,
    }  # fmt: skip
    assert [row["id"] for row in get(here, f"benchmarks/runs/?status=queued&judge={judge.name}")["results"]] == [
        run["id"]
    ]
    assert get(here, f"benchmarks/runs/{run['id']}/figures/")["missing"] == 4
    url = f"benchmarks/runs/{run['id']}/"
    assert post(here, url + "retry/")[0] == 422
    assert post(here, url + "stop/")[1]["status"] == "cancelled"
    assert post(here, url + "retry/")[1]["status"] == "queued"
    make_source("a name in data")
    for changes, code, word in (
        ({"source": "nobody"}, 422, "nobody"),
        ({"source": "a name in data"}, 422, "a name in data"),
        ({"parallel": 0}, 400, "parallel"),
        ({"data_set": 999}, 404, ""),
        ({"colour": "red"}, 422, "colour"),
    ):
        status, refusal = post(here, "benchmarks/runs/", **launch | changes)
        assert (status, word in json.dumps(refusal)) == (code, True), refusal
    assert BenchmarkRun.objects.count() == 1
    status, only_answers = post(here, "benchmarks/runs/", data_set=data_set.pk, source="tiny")
    assert (status, only_answers["judge"], only_answers["progress"]["is_judged"]) == (201, None, False)


def test_a_judge_is_asked_and_its_card_is_read(here: Client) -> None:
    project = make_project("voted")
    make_votes(project)
    make_source("judge", kind="model", served_model="judge")
    status, run = post(here, "judges/runs/", project="voted", judge="judge", language="en", limit=2)
    assert (status, run["status"], run["progress"]["total"], run["progress"]["done"]) == (201, "queued", 4, 0)
    url = f"judges/runs/{run['id']}/"
    verdicts = get(here, url + "verdicts/")["results"]
    assert sorted(row["is_swapped"] for row in verdicts) == [False, False, True, True]
    card = get(here, url + "card/?people=*")
    assert (card["may_stand_in"], "no_votes" in card["reasons"]) == (False, True)
    assert post(here, url + "votes/")[0] == 422
    assert post(here, url + "stop/")[1]["status"] == "cancelled"
    assert post(here, url + "retry/")[1]["status"] == "queued"
    assert [row["id"] for row in get(here, "judges/runs/?project=voted")["results"]] == [run["id"]]
    assert post(here, "judges/runs/", project="voted", judge="judge", scope="unvoted")[0] == 422
    assert JudgeRun.objects.count() == 1


def test_evaluations_by_people_are_read_by_reviewers() -> None:
    project = make_project("asked")
    new, old = make_source("new-model"), make_source("old-model")
    for number in range(2):
        prompt = make_prompt(project, f"Question {number}?")
        make_response(prompt, new, "Short.")
        make_response(prompt, old, "Much longer.")
    study = create_study(
        project=project, name="spring", kind=StudyKind.GSB, source=new, against=old,
        prompts=project.prompts.all(), judgments_per_item=1, selection={}, by=make_user(),
    )  # fmt: skip
    url = "/api/v1/projects/asked/studies/"
    reviewer = caller(member(project, Role.REVIEWER))
    [listed] = reviewer.get(url).json()["results"]
    assert (listed["name"], listed["source"], listed["against"]) == ("spring", "new-model", "old-model")
    results = reviewer.get(f"{url}{study.pk}/").json()["results"]
    assert (results["items"], results["judged"], results["win_rate"]) == (2, 0, None)
    assert caller(member(project, Role.ANNOTATOR)).get(url).status_code == 403
    assert caller(make_user()).get(url).status_code == 404
    assert Study.objects.count() == 1


def test_every_path_of_training_is_described(here: Client) -> None:
    answer = here.get("/api/schema/", headers={"Accept": "application/vnd.oai.openapi+json"})
    schema = json.loads(answer.content)
    validate_schema(schema)
    paths = {"jobs/", "checkpoints/{id}/", "aliases/", "benchmarks/runs/{id}/", "judges/runs/", "workers/"}
    assert {f"/api/v1/{path}" for path in paths} <= {path.replace("{pk}", "{id}") for path in schema["paths"]}


@pytest.mark.django_db(transaction=True)
def test_the_client_reads_and_moves_checkpoints(
    live_server: Any, tmp_path: Path, base: Checkpoint, trained: Checkpoint, staff: User
) -> None:
    with TrainingSite(live_server.url, token_for(staff)) as site:
        assert [row["name"] for row in site.checkpoints(kind="policy")] == [trained.name, "tiny"]
        assert site.move_alias("champion", "tiny", why="the first")["checkpoint"] == "tiny"
        assert site.move_alias("champion", trained.name, why="better")["previous"] == "tiny"
        assert site.checkpoint(trained.pk)["aliases"] == ["champion"]
        assert site.roll_back_alias("champion")["checkpoint"] == "tiny"
        assert [row["alias"] for row in site.aliases()] == ["champion"]
        assert {group["key"] for group in site.checkpoint_report(trained.pk)["groups"]} >= {"held_out"}
        assert trained.name in site.model_card(trained.pk)
        assert site.download(trained.pk, tmp_path / "model.tar") == (tmp_path / "model.tar").stat().st_size > 1000
        assert site.publish(trained.pk)["source"] == trained.name
        data_set = bench()
        run = judged(data_set, trained.name, "a-judge")
        assert [row["id"] for row in site.benchmark_runs(source=trained.name)] == [run.pk]
        assert site.benchmark_figures(run.pk)["failed"] == 1
