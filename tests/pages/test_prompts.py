"""The pages about prompts: lists, edits, uploads, masking and duplicates, as a browser without scripts sends them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from annotation import services
from annotation.models import Comparison, DataJob, Project, Prompt, Response, Role
from annotation.pages.prompts.urls import of_a_project
from annotation.services import data_jobs, refresh_browse_index
from tests.factories import make_comparison, make_judgment, make_project, make_prompt, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def user() -> User:
    return make_user("boss", is_staff=True)


@pytest.fixture
def page(user: User, settings: Any, tmp_path: Path) -> Client:
    settings.UPLOADS_DIR = tmp_path / "uploads"
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def project() -> Project:
    return make_project("p")


def text_of(answer: Any) -> str:
    """What a person reads of the page."""
    words = re.sub(r"<script.*?</script>|<[^>]*>", " ", answer.content.decode(), flags=re.S)
    return " ".join(words.split())


def test_only_admins_of_the_project_come_in(project: Project) -> None:
    values = {"prompt_id": make_prompt(project).pk, "job_id": 1, "token": "0" * 32}
    reviewer, admin, stranger = (make_user() for _ in range(3))
    services.add_member(project, reviewer, role=Role.REVIEWER)
    services.add_member(project, admin, role=Role.ADMIN)
    clients = {}
    for name, who in (("reviewer", reviewer), ("admin", admin), ("stranger", stranger)):
        clients[name] = Client()
        clients[name].force_login(who)
    for pattern in of_a_project:
        names = pattern.pattern.regex.groupindex
        address = reverse(str(pattern.name), kwargs={"slug": "p"} | {name: values[name] for name in names})
        for send in ("get", "post"):
            assert getattr(clients["reviewer"], send)(address).status_code == 403, address
            assert getattr(clients["stranger"], send)(address).status_code == 404, address
            assert getattr(Client(), send)(address).status_code == 302, address
        expected = 404 if {"job_id", "token"} & set(names) else 200
        assert clients["admin"].get(address).status_code in (expected, 405), address


def test_a_list_narrowed_searched_and_edited_by_ticking(page: Client, project: Project) -> None:
    for text in ("Rain in spring", "Rain in autumn", "Snow"):
        make_prompt(project, text)
    refresh_browse_index()
    address = "/projects/p/prompts/"
    assert "3 prompts" in text_of(page.get(address))
    found = page.get(address, {"query": "raining"})
    assert "<mark>Rain</mark>" in found.content.decode()
    assert "2 prompts" in text_of(found)
    ids = [row.id for row in found.context["page"].rows]
    answer = page.post(address + "edit/", {"ids": ids[:1], "which": "ticked", "task": "weather"}, follow=True)
    assert "1 prompt changed." in text_of(answer)
    everything = {"which": "all", "filter_query": "rain", "topic": "water", "add_tags": "wet, cold"}
    assert "2 prompts changed." in text_of(page.post(address + "edit/", everything, follow=True))
    assert Prompt.objects.filter(tags=["cold", "wet"], topic="water").count() == 2
    assert "1 prompt" in text_of(page.get(address, {"task": "weather", "tag": "wet"}))
    assert "2 prompts are as they were before." in text_of(page.post(address + "undo/", follow=True))
    assert not Prompt.objects.filter(topic="water").exists()
    assert "Every word of this search is so common" in text_of(page.get(address, {"query": "the"}))


def test_an_edit_that_is_refused_keeps_what_was_typed_and_ticked(page: Client, project: Project) -> None:
    prompt = make_prompt(project)
    refresh_browse_index()
    answer = page.post("/projects/p/prompts/edit/", {"ids": [prompt.pk], "which": "ticked", "task": "x" * 61})
    assert answer.status_code == 422
    assert f'value="{prompt.pk}" aria-label="Prompt {prompt.pk}" checked' in answer.content.decode()
    assert "x" * 61 in answer.content.decode()
    empty = page.post("/projects/p/prompts/edit/", {"which": "ticked", "task": "x"})
    assert "No prompt is chosen" in text_of(empty)


def test_one_prompt_with_its_responses_and_what_was_said(page: Client, project: Project) -> None:
    comparison = make_comparison(
        project, a_text="Same words here, all of them.", b_text="Same words here, all of them!"
    )
    make_judgment(comparison)
    refresh_browse_index()
    address = f"/projects/p/prompts/{comparison.prompt_id}/"
    text = text_of(page.get(address))
    for part in (comparison.response_a.source.name, "2 responses", "A better 1", "% alike", "seed"):
        assert part in text
    answer = page.post(address, {"task": "t", "lang": "", "tags": "a, b", "archived": "on"}, follow=True)
    assert "Saved." in text_of(answer)
    prompt = Prompt.objects.get(pk=comparison.prompt_id)
    assert (prompt.task, prompt.lang, prompt.tags) == ("t", "", ["a", "b"])
    assert prompt.archived_at is not None
    assert Comparison.objects.get().is_withdrawn
    listed = text_of(page.get("/projects/p/prompts/comparisons/"))
    assert "1 comparison" in listed and "A better 1" in listed
    assert page.get("/projects/p/prompts/999999/").status_code == 404


def test_lines_are_added_all_or_none_with_the_line_named(page: Client, project: Project) -> None:
    address = "/projects/p/prompts/add/lines/"
    answer = page.post(address, {"text": '{"prompt": "Why?"}\n{"prompt": 3}\n{"promt": "x"}'})
    assert answer.status_code == 422
    assert "Line 2: " in text_of(answer) and "Line 3: unknown key" in text_of(answer)
    assert not project.prompts.exists()
    answer = page.post(address, {"text": "Warum?\nWozu?\nWarum?"}, follow=True)
    assert "2 prompts added. 1 was here already." in text_of(answer)
    assert len(answer.context["page"].rows) == 2, "they are listed at once"


def upload(page: Client, name: str, content: bytes) -> Any:
    return page.post("/projects/p/prompts/add/", {"file": SimpleUploadedFile(name, content)}, follow=True)


def test_from_a_file_to_rows(page: Client, project: Project) -> None:
    table = "question,one,two,kind\n" + "".join(f"Why {n}?,Because {n},No {n},k\n" for n in range(30)) + "broken\n"
    looked = upload(page, "table.csv", table.encode())
    address = looked.request["PATH_INFO"]
    assert len(looked.context["rows"]) == 20
    assert looked.context["reading"].mapping == {"prompt": "question"}
    chosen = {
        "read_as": "columns", "prompt": "question", "response_a": "one", "response_b": "two", "task": "kind"
    }  # fmt: skip
    again = page.get(address, chosen)
    assert "Because 0" in text_of(again) and "one (table.csv)" in text_of(again)
    wrong = page.get(address, chosen | {"response_b": ""})
    assert "A comparison needs two responses" in text_of(wrong)
    assert page.post(address + "check/", chosen | {"prompt": ""}).status_code == 422

    checked = page.post(address + "check/", chosen, follow=True)
    text = text_of(checked)
    assert "31 new 30" in text and "line why 32 it has 1 fields and the header has 4" in text
    assert not project.prompts.exists()
    job = DataJob.objects.get()
    address = f"/projects/p/prompts/work/{job.pk}/import/"
    assert "Some rows cannot be used" in text_of(page.post(address, follow=True))
    done = page.post(address, {"leave_out": "yes"}, follow=True)
    assert "Imported: 30 prompts, 30 comparisons." in text_of(done)
    assert Comparison.objects.filter(project=project, prompt__task="k").count() == 30


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("book.xlsx", b"PK\x03\x04", "book.xlsx: It is an Excel workbook"),
        ("latin.csv", b"prompt\ncaf\xe9\n", "Line 2 is not UTF-8"),
        ("empty.csv", b" ", "The file is empty"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_and_not_kept(
    page: Client, project: Project, settings: Any, name: str, content: bytes, says: str
) -> None:
    answer = upload(page, name, content)
    assert answer.status_code == 422
    assert says in text_of(answer)
    assert list(settings.UPLOADS_DIR.iterdir()) == []


def test_a_file_over_the_limit_is_refused_while_it_arrives(page: Client, project: Project, settings: Any) -> None:
    settings.UPLOAD_MAX_BYTES = 100_000
    for size in (150_000, 300_000):  # the second one is refused by its length alone
        answer = upload(page, "large.csv", b"prompt\n" + b"x" * size)
        assert answer.status_code == 413
        assert "larger than 0.1 MB" in text_of(answer) and "import_preferences" in text_of(answer)
        assert not settings.UPLOADS_DIR.exists() or list(settings.UPLOADS_DIR.iterdir()) == []
    assert page.post("/projects/p/prompts/add/").status_code == 422


def test_an_upload_needs_the_forms_token(user: User, project: Project, settings: Any, tmp_path: Path) -> None:
    settings.UPLOADS_DIR = tmp_path / "uploads"
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    file = SimpleUploadedFile("x.csv", b"prompt\nWhy?\n")
    assert client.post("/projects/p/prompts/add/", {"file": file}).status_code == 403


def test_personal_data_is_shown_and_masked_when_somebody_is_sure(page: Client, project: Project) -> None:
    make_judgment(make_comparison(project, a_text="Ask ann@corp.com.", b_text="No."))
    address = "/projects/p/prompts/personal-data/"
    page.post(address + "scan/")
    shown = page.get(address)
    assert "<mark>ann@corp.com</mark>" in shown.content.decode()
    assert "Nothing was changed" in text_of(page.post(address + "mask/", {"kinds": ["email"]}, follow=True))
    done = page.post(address + "mask/", {"kinds": ["email"], "sure": "yes"}, follow=True)
    assert "1 passage was masked." in text_of(done)
    assert "ann@corp.com" not in done.content.decode()
    masked = Response.objects.get(text__startswith="Ask")
    assert masked.text == "Ask [EMAIL]."
    shown = page.get(f"/projects/p/prompts/{masked.prompt_id}/")
    assert masked.original_sha256 in shown.content.decode()
    assert "ann@corp" not in json.dumps(list(DataJob.objects.values_list("result", flat=True)))


def test_duplicates_are_shown_in_groups_and_one_is_kept(page: Client, project: Project) -> None:
    text = "Please explain in detail how plants make sugar out of light and air"
    old, new = make_prompt(project, text + "."), make_prompt(project, text + "?")
    make_prompt(project, "Something else")
    address = "/projects/p/prompts/duplicates/"
    assert "1 prompt reads like an older one." in text_of(page.post(address + "search/", follow=True))
    assert "2 prompts" in text_of(page.get(address))
    page.post(address + "keep/", {"like": old.pk, "keep": new.pk})
    assert Prompt.objects.get(pk=old.pk).archived_at is not None
    assert Prompt.objects.get(pk=new.pk).archived_at is None
    assert "has changed since" in text_of(page.post(address + "keep/", {"like": old.pk, "keep": new.pk}, follow=True))
    assert "Choose which prompt" in text_of(page.post(address + "keep/", follow=True))


def test_long_work_shows_how_far_it_is_and_stops(page: Client, project: Project, user: User) -> None:
    job = data_jobs.start_data_job(project, "scan", {}, user=user, total=10, at_once=False)  # type: ignore[arg-type]
    address = f"/projects/p/prompts/work/{job.pk}/"
    assert "waiting for a worker" in text_of(page.get(address))
    assert "hx-get" in page.get(address + "state/").content.decode()
    assert "Other work on this project" in text_of(page.post("/projects/p/prompts/personal-data/scan/", follow=True))
    assert "It was stopped." in text_of(page.post(address + "stop/", follow=True))
    assert page.get(address + "state/").headers["HX-Refresh"] == "true"
    assert "It had ended before." in text_of(page.post(address + "stop/", follow=True))
