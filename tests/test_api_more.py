"""Duplicates, guidelines and imported conversations, by program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from annotation.models import Role
from tests.calling import Program
from tests.factories import make_project, make_prompt

pytestmark = pytest.mark.django_db
LONG = "Tell me in detail what whales eat in winter, where they go, and how far they swim to get there"


def test_groups_of_duplicates_are_listed_and_one_is_kept() -> None:
    project = make_project()
    alike = [make_prompt(project, text).pk for text in (LONG + ".", LONG + "!", LONG + ".?")]
    pair = [make_prompt(project, text).pk for text in ("Why is the sky blue?", "why  is the sky BLUE?")]
    admin = Program(project, Role.ADMIN)
    assert admin.post("duplicates/find/")[1]["status"] == "done"
    status, page = admin.get("duplicates/", page_size=1)
    assert (status, [row["prompt"] for row in page["results"][0]["prompts"]]) == (200, pair)
    status, page = admin.get(page["next"].removeprefix("http://testserver"))
    [group] = page["results"]
    assert (status, group["like"], group["size"], page["next"]) == (200, alike[0], 3, None)
    assert {row["prompt"] for row in group["prompts"]} == set(alike)
    assert admin.post("duplicates/keep/", like=alike[0], keep=alike[1])[0] == 202
    assert set(project.prompts.filter(archived_at=None).values_list("pk", flat=True)) == {alike[1], *pair}
    assert admin.post("duplicates/keep/", like=alike[0], keep=alike[1])[0] == 422
    status, job = admin.post("duplicates/keep-oldest/", at_least=100)
    assert (status, job["result"]) == (202, {"changed": 1})
    assert admin.post(f"data-jobs/{job['id']}/stop/")[0] == 422
    assert Program(project, Role.REVIEWER).get("duplicates/")[0] == 403


def test_versions_of_the_guidelines_are_read_and_written() -> None:
    project = make_project()
    admin, ann = Program(project, Role.ADMIN), Program(project, Role.ANNOTATOR)
    assert admin.post("guidelines/", text="Be kind.")[1]["version"] == 1
    assert admin.post("guidelines/", text="Be fair.", based_on=1)[1]["version"] == 2
    assert admin.post("guidelines/", text="Be quick.", based_on=1)[0] == 409
    status, page = ann.get("guidelines/")
    assert status == 200
    assert [(row["version"], row["text"]) for row in page["results"]] == [(2, "Be fair."), (1, "Be kind.")]
    assert ann.post("guidelines/", text="Be rude.")[0] == 403


def test_an_imported_conversation_is_rated_turn_by_turn(settings, tmp_path: Path) -> None:
    settings.UPLOADS_DIR = tmp_path
    project = make_project()
    said = ["Why is the sky blue?", "Because of the sea.", "No, that is wrong.", "Because of scattering."]
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]
    admin, ann = Program(project, Role.ADMIN), Program(project, Role.ANNOTATOR)
    admin.http.post(
        f"/api/v1/projects/{project.slug}/import/?format=messages",
        json.dumps({"id": "1", "model": "SECRETMODEL", "messages": messages}),
        "application/octet-stream",
        headers={"Content-Disposition": "attachment; filename=talk.jsonl"},
    )
    status, talk = ann.post("conversations/take/")
    assert (status, len(talk["turns"])) == (200, 2)
    assert "SECRETMODEL" not in json.dumps(talk)
    assert [turn["messages"][-1]["content"] for turn in talk["turns"]] == [said[0], said[2]]
    url = f"/api/v1/conversations/{talk['conversation']}/rating/"
    scores = {aspect["name"]: aspect["low"] for aspect in talk["aspects"]}
    feedback = {
        "scenario": "error_correction",
        "deficiency_types": ["factual_error"],
        "feedback_types": ["pointing_out_errors"],
    }
    assert ann.post(url, position=0, scores={}, **feedback)[0] == 422
    status, talk = ann.post(url, position=0, scores=scores, note="Wrong.", **feedback)
    assert (status, talk["turns"][0]["scores"], talk["turns"][0]["note"]) == (200, scores, "Wrong.")
    assert talk["turns"][0]["scenario"] == "error_correction"
    assert ann.post(url, position=1, scores=scores, scenario="further_question")[0] == 422  # nobody answered it
    assert ann.post(url, position=1, scores=scores)[0] == 200
    status, refusal = admin.get(url)
    assert (status, "Somebody else rates this conversation" in refusal["detail"]) == (409, True)
    assert Program(make_project(), Role.ADMIN).get(url)[0] == 404
    assert ann.post(url + "finish/")[1]["has_ended"]
    assert ann.post("conversations/take/") == (204, None)
