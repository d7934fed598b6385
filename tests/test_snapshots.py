"""Frozen data sets: what is in them, how they are split, and that they never change."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from django.core.files.storage import storages

from annotation.services import DomainError
from rlhf.models import DatasetSnapshot
from rlhf.services import create_snapshot
from rlhf.snapshots import SPLITS, check_snapshot, snapshot_path, snapshot_rows
from tests.factories import make_comparison, make_judged_project, make_judgment, make_project, make_prompt

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]


def groups(snapshot: DatasetSnapshot, split: str) -> set[str]:
    return {row["group"] for row in snapshot_rows(snapshot, split)}


def test_no_group_is_on_both_sides_and_every_judged_comparison_on_one() -> None:
    project = make_project()
    for number in range(20):
        prompt = make_prompt(project, f"Question {number}?")
        for _ in range(3):
            make_judgment(make_comparison(project, prompt=prompt))
    make_comparison(project)  # judged by nobody
    snapshot = create_snapshot(project, "split", eval_share=0.25)
    assert not groups(snapshot, "train") & groups(snapshot, "eval")
    assert (len(groups(snapshot, "train")), len(groups(snapshot, "eval"))) == (15, 5)
    assert (snapshot.train_rows, snapshot.eval_rows) == (45, 15)
    assert (snapshot.prompt_count, snapshot.judgment_count) == (20, 60)


def test_freezing_again_keeps_held_out_groups_held_out() -> None:
    project = make_judged_project(20)
    first = create_snapshot(project, "first", eval_share=0.2)
    second = create_snapshot(project, "second", eval_share=0.2)
    assert first.sha256 == second.sha256
    for number in range(20):
        make_judgment(make_comparison(project, prompt=make_prompt(project, f"More {number}")))
    third = create_snapshot(project, "third", eval_share=0.4)
    assert len(groups(first, "eval") & groups(third, "train")) == 0


def test_later_judgments_do_not_reach_a_frozen_data_set() -> None:
    project = make_judged_project(4)
    snapshot = create_snapshot(project, "frozen", eval_share=0)
    before = list(snapshot_rows(snapshot, "train"))
    make_judgment(project.comparisons.first(), "b")
    assert list(snapshot_rows(snapshot, "train")) == before
    assert [row["verdict"] for row in before] == ["a"] * 4
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(storages["snapshots"].open(snapshot_path(snapshot.sha256, split)).read())
    assert digest.hexdigest() == snapshot.sha256


def test_a_file_that_was_changed_is_noticed(data_dir: Path) -> None:
    snapshot = create_snapshot(make_judged_project(4), "touched")
    check_snapshot(snapshot)
    path = data_dir / "snapshots" / snapshot_path(snapshot.sha256, "train")
    path.write_text(path.read_text().replace("glad", "sad"))
    with pytest.raises(DomainError, match="have changed"):
        check_snapshot(snapshot)


@pytest.mark.parametrize(
    "name,share,why", [("Not a slug", 0.1, "lower-case"), ("ok", 1.5, "outside"), ("ok", -1, "outside")]
)
def test_a_name_or_a_share_that_cannot_be_used_is_refused(name: str, share: float, why: str) -> None:
    with pytest.raises(DomainError, match=why):
        create_snapshot(make_judged_project(3), name, eval_share=share)
    assert not DatasetSnapshot.objects.exists()


def test_a_project_without_judgments_and_a_name_that_is_taken_are_refused() -> None:
    with pytest.raises(DomainError, match="no judged comparison"):
        create_snapshot(make_project(), "empty")
    project = make_judged_project(3)
    create_snapshot(project, "taken")
    with pytest.raises(DomainError, match="already"):
        create_snapshot(project, "taken")
