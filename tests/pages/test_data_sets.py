"""Data sets: freezing judgments, and reading what was frozen."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.test import Client

from rlhf.models import DatasetSnapshot
from rlhf.services import (
    create_snapshot,
)
from tests.factories import (
    make_comparison,
    make_judged_project,
    make_judgment,
    make_project,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]


def test_a_data_set_is_frozen_and_shown_as_text(page: Client) -> None:
    project = make_judged_project(8)
    evil = make_comparison(project, a_text="<script>alert(1)</script>", b_text="harmless")
    make_judgment(evil)
    make_judgment(make_comparison(project), "tie")
    form = {"project": project.pk, "name": "helpful-r1", "eval_share": 0, "humans_only": "on"}
    answer = page.post("/data-sets/", form, follow=True)
    text = answer.content.decode()
    snapshot = DatasetSnapshot.objects.get()
    assert (snapshot.train_rows, snapshot.eval_rows, snapshot.created_by) == (10, 0, answer.wsgi_request.user)
    assert snapshot.sha256 in text
    assert "About the same" in text
    assert "<script>alert" not in text
    answer = page.post("/data-sets/", form)
    assert "There is a data set named helpful-r1 already" in answer.content.decode()
    assert answer.status_code == 422


def test_a_data_set_needs_judgments_and_one_whose_files_are_gone_says_so(page: Client, data_dir: Path) -> None:
    empty = make_project()
    answer = page.post("/data-sets/", {"project": empty.pk, "name": "x", "eval_share": 0.1})
    assert "has no judged comparison to freeze" in answer.content.decode()
    project = make_judged_project(4)
    snapshot = create_snapshot(project, "lost")
    (data_dir / "snapshots" / snapshot.sha256 / "train.jsonl").unlink()
    text = page.get(f"/data-sets/{snapshot.pk}/").content.decode()
    assert "cannot be read (No such file or directory)" in text
