"""Projects: the list, the loop, prompts, generation and files."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from annotation import services
from annotation.browse import ProjectSize, project_sizes
from annotation.models import Event, EventKind, Project, Prompt, ResponseSource
from annotation.protocol import Axis, Protocol, Scale
from annotation.services import refresh_browse_index
from annotation.services.projects import update_settings
from rlhf.generation import run_generation_job
from rlhf.models import Checkpoint, GenerationJob
from rlhf.services import (
    publish_checkpoint,
)
from tests.chat_server import Exchange, chat_server
from tests.factories import (
    make_annotator,
    make_comparison,
    make_judged_project,
    make_judgment,
    make_project,
    make_prompt,
    make_response,
    make_source,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]


def test_a_project_is_made_and_its_short_name_is_taken_then(page: Client) -> None:
    data = {"name": "Helpful", "slug": "Helpful", "judgments_per_comparison": 2, "guidelines": "Be **fair**."}
    answer = page.post("/projects/", data)
    assert (answer.status_code, answer["Location"]) == (302, "/projects/helpful/")
    project = Project.objects.get(slug="helpful")
    assert (project.name, project.judgments_per_comparison, project.guidelines) == ("Helpful", 2, "Be **fair**.")
    answer = page.post("/projects/", data | {"name": "Other"})
    assert answer.status_code == 422
    assert "There is a project with the short name helpful already" in answer.content.decode()
    assert Project.objects.count() == 1


def test_the_list_says_how_large_each_project_is(page: Client, django_assert_num_queries) -> None:  # type: ignore[no-untyped-def]
    project = make_project("large")
    for number in range(3):
        comparison = make_comparison(project)
        if number:
            make_judgment(comparison)
    Prompt.objects.filter(pk=make_prompt(project).pk).update(archived_at=timezone.now())
    refresh_browse_index()
    rows = {project.slug: size for project, size in page.get("/projects/").context["rows"]}
    assert rows == {"large": ProjectSize(prompts=3, comparisons=3, judged=2)}
    for _more in range(3):
        make_comparison()
    projects = list(Project.objects.all())
    with django_assert_num_queries(1):
        assert len(project_sizes(projects)) == 4


def test_an_empty_project_says_what_to_do_next(page: Client) -> None:
    make_project("fresh")
    text = page.get("/projects/fresh/").content.decode()
    assert "Begin with prompts" in text
    assert "Generate responses first" in text
    assert "not defined: no comparison has two judgments" in text


def test_the_loop_page_shows_ratings_agreement_and_sway(page: Client) -> None:
    project = make_project("loop", judgments_per_comparison=2)
    good, bad = (ResponseSource.objects.create(name=name, kind="imported") for name in ("good", "bad"))
    people = [make_annotator(), make_annotator()]
    for number in range(10):
        prompt = make_prompt(project)
        pair = (make_response(prompt, good, f"long answer {number}"), make_response(prompt, bad, f"no {number}"))
        services.create_comparisons(project, [pair])
        for person in people:
            preference = "b" if (number < 3 and person is people[0]) or number == 9 else "a"
            make_judgment(prompt.comparisons.get(), preference, annotator=person)
    text = re.sub(r"<[^>]*>|\s+", " ", page.get("/projects/loop/").content.decode())
    text = re.sub(r"\s+", " ", text)
    assert "Judgments 20 / 20" in text
    assert re.search(r"1 good 1\d\d\d \(\d+–\d+\) 20", text)
    assert re.search(r"Two people agree 70 % \(\d+ % … \d+ %\) of 10 pairs of votes", text)
    assert re.search(r"alpha -?\d\.\d\d \(-?\d\.\d\d … -?\d\.\d\d\) · 0 is chance", text)
    assert "Longer answer chosen 75 % (53–89) of 20" in text
    assert "Left side chosen not defined" in text


def test_generation_is_queued_and_stopped(page: Client, base: Checkpoint) -> None:
    project = make_project("p")
    make_prompt(project)
    source = publish_checkpoint(base)
    form = {"source": source.pk, "per_prompt": 2, "temperature": 0.5, "max_tokens": 64, "seed": 3}
    answer = page.post("/projects/p/generate/", form, follow=True)
    job = GenerationJob.objects.get()
    assert (job.response_total, job.sampling["temperature"], job.sampling["seed"]) == (2, 0.5, 3)
    assert "0 of 2" in answer.content.decode()
    assert 'hx-trigger="every 2s"' in answer.content.decode()
    page.post(f"/projects/p/generate/{job.pk}/cancel/")
    job.refresh_from_db()
    assert job.status == "cancelled"
    assert 'hx-trigger="every 2s"' not in page.get("/projects/p/generate/jobs/").content.decode()
    answer = page.post("/projects/p/generate/", form | {"per_prompt": 1})
    assert "One response cannot be compared with itself" in answer.content.decode()
    answer = page.post("/projects/p/generate/", form | {"against": source.pk})
    assert "This is the same source" in answer.content.decode()


def say_seed(exchange: Exchange) -> None:
    message = {"role": "assistant", "content": f"Seed {exchange.body['seed']}."}
    exchange.refuse(200, json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}))


@pytest.mark.django_db(transaction=True)
def test_in_a_project_of_rankings_responses_are_generated_to_be_ranked(page: Client) -> None:
    project = make_project("ranked")
    update_settings(project, None, protocol=Protocol(scale=Scale.RANKING))
    prompt = make_prompt(project)
    source, other = (make_source(f"{name}-model", kind="model", served_model=name) for name in ("one", "two"))
    form = {"source": source.pk, "per_prompt": 5, "temperature": 0.5, "max_tokens": 64, "seed": 3}
    text = words_of(page.get("/projects/ranked/generate/"))
    assert "three to nine of them" in text
    answer = page.post("/projects/ranked/generate/", form | {"against": other.pk})
    assert "10 responses to a prompt would be ranked together, and the most is 9" in words_of(answer)
    with chat_server() as server:
        ResponseSource.objects.filter(pk__in=[source.pk, other.pk]).update(base_url=server.url)
        server.reply = say_seed
        for asked, ranked in (({}, 5), ({"source": other.pk, "against": source.pk, "per_prompt": 2}, 4)):
            page.post("/projects/ranked/generate/", form | asked)
            job = GenerationJob.objects.latest("pk")
            assert run_generation_job(job.pk)
            job.refresh_from_db()
            assert (job.status, job.error) == ("succeeded", "")
            comparison = prompt.comparisons.latest("pk")
            assert comparison.response_count == ranked
            assert not run_generation_job(job.pk)
    assert prompt.comparisons.count() == 2


@pytest.mark.django_db(transaction=True)
def test_exports_are_downloaded_whole(page: Client) -> None:
    project = make_judged_project(3)
    answer = page.get(f"/projects/{project.slug}/export/dpo.jsonl")
    assert answer["Content-Disposition"] == f'attachment; filename="{project.slug}-dpo.jsonl"'
    rows = [json.loads(line) for line in b"".join(answer.streaming_content).splitlines()]  # type: ignore[attr-defined]
    assert [row["chosen"][0]["content"][:9] for row in rows] == ["Thank you"] * 3
    answer = page.get(f"/projects/{project.slug}/export/sft.parquet")
    assert b"".join(answer.streaming_content)[:4] == b"PAR1"  # type: ignore[attr-defined]
    assert page.get(f"/projects/{project.slug}/export/gold.jsonl").status_code == 404
    assert page.get(f"/projects/{project.slug}/export/dpo.exe").status_code == 404


def words_of(answer: Any) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", answer.content.decode()))


@pytest.mark.django_db(transaction=True)
def test_what_rules_leave_out_is_counted_before_it_is_downloaded(page: Client) -> None:
    project = make_judged_project(3)
    update_settings(project, None, protocol=Protocol(axes=(Axis("harmless", "Which is less harmful?"),)))
    weak = make_comparison(project, a_text="I am ChatGPT.", b_text="It rains.")
    for strength, person in ((-1, make_annotator()), (-3, make_annotator())):
        make_judgment(weak, "a", strength, annotator=person)
    make_judgment(make_comparison(project), "tie", 0)
    address = f"/projects/{project.slug}/export/"
    assert "Which is less harmful?" in words_of(page.get(address))
    asked = {"action": "count", "kind": "dpo"}
    assert re.search(r"rows 4 .* About the same 1", words_of(page.get(address, asked)))
    rules = {"max_spread": "1", "names_model": "on", "near_identical": "on"}
    text = words_of(page.get(address, asked | rules))
    # The first reason that holds counts.
    assert re.search(r"rows 3 .*About the same 1 .*lie too far apart your rule 0 Texts that agree", text)
    assert re.search(r"says who wrote it your rule 1", text)
    answer = page.get(address, {"action": "download", "kind": "dpo", "suffix": "jsonl", "max_spread": "1"})
    rows = b"".join(answer.streaming_content).splitlines()  # type: ignore[attr-defined]
    assert len(rows) == 3
    assert Event.objects.get(kind=EventKind.EXPORT).data["dropped"] == {"spread": 1, "tie": 1}
    answer = page.get(f"{address}sft.jsonl", {"max_spread": "1"})
    assert len(b"".join(answer.streaming_content).splitlines()) == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"kind": "annotations", "suffix": "parquet"}, "their file must be JSON Lines"),
        ({"kind": "ranking", "min_strength": "1"}, "Nothing is left out of these by rules"),
        ({"kind": "dpo", "max_spread": "-1"}, "greater than or equal to 0"),
        ({"kind": "dpo", "axis": "x' OR true --"}, "Nobody judged by the axis"),
        ({"kind": "gold"}, "Select a valid choice"),
    ],
)
def test_exports_that_cannot_be_are_refused(page: Client, asked: dict[str, str], sentence: str) -> None:
    project = make_judged_project(1)
    answer = page.get(f"/projects/{project.slug}/export/", asked | {"action": "count"})
    assert answer.status_code == 422
    assert sentence in words_of(answer)
