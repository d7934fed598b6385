"""Files sent by program: limited, looked at before they are stored, and read by what their columns mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from annotation.models import DataJob, Project, Role
from annotation.services import uploads
from annotation.services.data_jobs import run_data_job
from tests.calling import Program
from tests.factories import make_project

pytestmark = pytest.mark.django_db

TABLE = b"question,left,right,kind\nWhy?,Because.,Who knows.,chat\nHow?,So.,,chat\nWhen?,Now.,Later.,time\n"
COLUMNS = {"prompt": "question", "response_a": "left", "response_b": "right", "task": "kind"}


@pytest.fixture
def folder(settings, tmp_path: Path) -> Path:
    settings.UPLOADS_DIR = tmp_path / "uploads"
    return settings.UPLOADS_DIR


def send(project: Project, body: bytes, name: str, **asked: str) -> tuple[int, Any]:
    answer = Program(project, Role.ADMIN).http.post(
        f"/api/v1/projects/{project.slug}/import/",
        body,
        "application/octet-stream",
        headers={"Content-Disposition": name if name.startswith("attachment") else f'attachment; filename="{name}"'},
        query_params=asked,
    )
    return answer.status_code, json.loads(answer.content)


def test_a_file_beyond_the_limit_is_not_stored(folder: Path, settings) -> None:
    settings.UPLOAD_MAX_BYTES = 1000
    project = make_project()
    status, refusal = send(project, b'{"prompt": "x"}\n' * 2000, "large.jsonl")
    assert status == 413
    assert "was not stored" in refusal["detail"]
    assert not folder.exists() or not list(folder.iterdir())
    assert not DataJob.objects.exists()


@pytest.mark.parametrize(
    ("body", "name", "asked", "words"),
    [
        (b"%PDF-1.7 and so on", "x.pdf", {}, ["x.pdf: It is a PDF", "JSON Lines"]),
        (b"", "x.csv", {}, ["x.csv: The file is empty"]),
        (b"", "attachment; filename*=UTF-8''%E5%88%A4%E6%96%AD.csv", {}, ["判断.csv: The file is empty"]),
        (b"", "attachment; filename*=no-such-code''x.csv", {}, ["its name as Content-Disposition"]),
        (TABLE, "x.csv", {"prompt": "query"}, ["prompt", "no column 'query'", "question, left"]),
        (TABLE, "x.csv", {"format": "excel"}, ["format", "'excel'"]),
        (TABLE, "x.csv", {"format": "hh"}, ["not in the format hh"]),
        (TABLE, "x.csv", {"response_a": "left"}, ["holds the prompt", "question"]),
        (TABLE, "x.csv", {"dry_run": "perhaps"}, ["dry_run"]),
    ],
)
def test_what_cannot_be_read_is_refused_with_advice(
    folder: Path, body: bytes, name: str, asked: dict[str, str], words: list[str]
) -> None:
    project = make_project()
    status, refusal = send(project, body, name, **asked)
    assert status == 422
    assert all(word in refusal["detail"] for word in words), refusal
    assert str(folder.parent) not in refusal["detail"]
    assert not folder.exists() or not list(folder.iterdir())


def test_a_table_is_tried_first_and_then_taken_in_by_its_columns(folder: Path) -> None:
    project = make_project()
    status, tried = send(project, TABLE, "pairs.csv", dry_run="true", **COLUMNS)
    assert (status, tried["status"], tried["read_as"], tried["mapping"]) == (202, "done", "columns", COLUMNS)
    assert {name: tried["result"][name] for name in ("prompts", "comparisons", "refused")} == {
        "prompts": 3, "comparisons": 3, "refused": 0,
    }  # fmt: skip
    assert [row["responses"][0]["text"] for row in tried["preview"]] == ["Because.", "So.", "Now."]
    assert not project.prompts.exists()
    status, done = send(project, TABLE, "pairs.csv", **COLUMNS)
    assert (status, done["status"], done["result"]["comparisons"]) == (202, "done", 3)
    assert project.comparisons.count() == 3
    assert set(project.prompts.values_list("task", flat=True)) == {"chat", "time"}
    assert not list(folder.iterdir())


def test_a_bad_row_is_named_and_can_stop_the_whole(folder: Path) -> None:
    project = make_project()
    body = b'{"prompt": "One?"}\n{"prompt": 7}\n'
    status, stopped = send(project, body, "prompts.jsonl", leave_out="false")
    assert (status, stopped["status"], bool(stopped["error"])) == (202, "failed", True)
    assert not project.prompts.exists()
    _, done = send(project, body, "prompts.jsonl")
    assert (done["status"], done["result"]["prompts"], done["result"]["refused"]) == ("done", 1, 1)
    assert done["result"]["reasons"][0]["line"] == 2


def test_a_large_file_is_left_to_a_worker(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "AT_ONCE_UP_TO_BYTES", 0)
    project = make_project()
    status, job = send(project, TABLE, "pairs.csv", **COLUMNS)
    assert (status, job["status"]) == (202, "queued")
    assert not project.prompts.exists()
    assert send(project, TABLE, "pairs.csv", **COLUMNS)[0] == 409
    run_data_job(job["id"], beats=False)
    status, done = Program(project, Role.ADMIN).get(f"data-jobs/{job['id']}/")
    assert (done["status"], project.comparisons.count()) == ("done", 3)
    assert not list(folder.iterdir())
