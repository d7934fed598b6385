"""The pages of human evaluation: asking, results, files."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from django.test import Client

from annotation import services
from annotation.models import Project, Prompt, Role, Study, StudyKind
from rlhf.models import Checkpoint, CheckpointKind
from rlhf.services import publish_checkpoint
from rlhf.services.checkpoints import register_checkpoint
from rlhf.studies import trained_groups
from tests.factories import make_judgment, make_project, make_prompt, make_response, make_source, make_user
from tests.pages.training import finish, log_steps, make_job

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]
LIST = "/projects/asked/evaluations/"


@pytest.fixture
def project() -> Project:
    project = make_project("asked")
    for number in range(6):
        prompt = make_prompt(project, f"Question {number}?")
        Prompt.objects.filter(pk=prompt.pk).update(task="math" if number < 4 else "code", tags=["difficulty:hard"])
        make_response(prompt, make_source("new-model"), "Short.")
        if number != 5:
            make_response(prompt, make_source("old-model"), "Much longer.")
    services.refresh_browse_index()
    return project


def fields(**more: object) -> dict[str, object]:
    values = {
        "name": "spring",
        "kind": "gsb",
        "source": make_source("new-model").pk,
        "against": make_source("old-model").pk,
        "judgments_per_item": 1,
    }
    return values | more


def text_of(html: bytes) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html.decode()))


def test_an_evaluation_is_asked_for_judged_and_read(page: Client, project: Project) -> None:
    assert "No evaluation by people yet" in page.get(LIST).content.decode()
    answer = page.post(LIST, fields(task="math"), follow=True)
    study = Study.objects.get()
    assert (study.items.count(), study.selection) == (4, {"task": "math"})
    assert "Nobody has judged any of it yet" in answer.content.decode()
    for number, item in enumerate(study.items.select_related("comparison")):
        assert item.comparison
        make_judgment(item.comparison, "a" if number else "tie")  # the new one is a
    text = text_of(page.get(f"{LIST}{study.pk}/").content)
    assert re.search(r"good 3 75 % same 1 25 % bad 0 0 %", text)
    assert "87.5 %" in text
    assert "hard" in text and "math" in text
    assert "spring" in text_of(page.get(LIST).content)
    assert f'href="{LIST}{study.pk}/"' in page.get("/evaluation/").content.decode()
    rows = list(csv.DictReader(io.StringIO(page.get(f"{LIST}{study.pk}/rows.csv").getvalue().decode())))
    assert [row["verdict"] for row in rows].count("good") == 3
    assert len(page.get(f"{LIST}{study.pk}/rows.json").json()) == 4
    assert page.get(f"{LIST}{study.pk}/figures.json").json()["good"] == 3
    assert page.get(f"{LIST}{study.pk}/rows.xlsx").status_code == 404


def test_what_is_missing_is_said_and_added_when_it_is_there(page: Client, project: Project) -> None:
    page.post(LIST, fields())
    study = Study.objects.get()
    address = f"{LIST}{study.pk}/"
    assert "1 of the chosen prompts has no response of old-model" in text_of(page.get(address).content)
    unanswered = project.prompts.exclude(responses__source__name="old-model").get()
    make_response(unanswered, make_source("old-model"), "Written since.")
    assert "Add 1 prompt that has been answered since" in text_of(page.get(address).content)
    assert "1 item is added" in page.post(f"{address}act/", {"action": "extend"}, follow=True).content.decode()
    assert study.items.count() == 6
    assert "stopped" in page.post(f"{address}act/", {"action": "close"}, follow=True).content.decode()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"against": ""}, "Good/same/bad compares two models"),
        ({"name": "two words"}, "valid"),
        ({"judgments_per_item": 0}, "greater than or equal to 1"),
        ({"task": "cooking"}, "Select a valid choice"),
    ],
)
def test_what_cannot_be_asked_is_said_at_its_field(
    page: Client, project: Project, change: dict[str, object], sentence: str
) -> None:
    answer = page.post(LIST, fields(**change))
    assert answer.status_code == 422
    assert sentence in answer.content.decode()
    assert not Study.objects.exists()


def test_at_most_so_many_prompts_and_marks_of_one_model(page: Client, project: Project) -> None:
    page.post(LIST, fields(kind="rubric", against="", at_most=2, name="marks"))
    study = Study.objects.get()
    assert study.items.count() == 2
    ann = make_user()
    services.add_member(project, ann)
    annotator = services.annotator_for(ann)
    for met in (True, False):
        rating = services.claim_rating(annotator=annotator, project=project)
        assert rating
        marks = services.Marks(True, met, True, True, met, note="=1+1")
        services.submit_rating(rating_id=rating.public_id, annotator=annotator, marks=marks)
    text = text_of(page.get(f"{LIST}{study.pk}/").content)
    assert re.search(r"Pass rate: all four 50\.0 %", text) and "not labelled" not in text
    rows = page.get(f"{LIST}{study.pk}/rows.csv").getvalue().decode()
    assert "'=1+1" in rows and rows.count("new-model") == 2
    reviewer = make_user()
    services.add_member(project, reviewer, role=Role.REVIEWER)
    other = Client()
    other.force_login(reviewer)
    assert other.get(LIST).status_code == 200
    assert "The newest rows" not in other.get(f"{LIST}{study.pk}/").content.decode()
    assert [other.get(f"{LIST}{study.pk}/{name}").status_code for name in ("rows.csv", "figures.json")] == [403, 200]
    assert other.post(LIST, fields(name="mine")).status_code == 403


def test_held_out_prompts_are_those_that_neither_model_was_trained_on(
    page: Client, base: Checkpoint, tiny_model: Path
) -> None:
    job = log_steps(make_job(base), 2)
    assert job.snapshot
    project = job.snapshot.project
    old, new = publish_checkpoint(base), publish_checkpoint(finish(job, tiny_model))
    trained = trained_groups([new, old])
    assert trained and trained_groups([old]) == set()
    step = register_checkpoint(
        name="half-way", kind=CheckpointKind.POLICY, directory=tiny_model, parent=base, step=1, step_of=job
    )
    assert trained_groups([publish_checkpoint(step)]) == trained  # a model saved on the way saw the same data
    fresh = make_prompt(project, "A question of today?")
    for prompt in project.prompts.all():
        for source in (old, new):
            make_response(prompt, source)
    values = fields(source=new.pk, against=old.pk, held_out="on")
    page.post(f"/projects/{project.slug}/evaluations/", values)
    asked = {item.comparison.prompt.group for item in Study.objects.get().items.all() if item.comparison}
    assert fresh.group in asked and not asked & trained
    assert asked | trained == set(project.prompts.values_list("group", flat=True))


def test_kinds_are_those_of_the_model(page: Client, project: Project) -> None:
    text = page.get(LIST).content.decode()
    for kind in StudyKind.values:
        assert f'value="{kind}"' in text
