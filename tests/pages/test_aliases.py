"""Aliases: names that move from checkpoint to checkpoint, and the log of their moves."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, transaction
from django.test import Client

from annotation.errors import ConflictError, DomainError
from rlhf.forms import LaunchForm
from rlhf.models import AliasMove, Checkpoint, CheckpointKind
from rlhf.services import find_checkpoint, move_alias, register_base_checkpoint, roll_back_alias
from rlhf.services.checkpoints import register_checkpoint
from tests.factories import make_project
from tests.pages.training import finish, log_steps, make_job

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]


def other(tiny_model: Path, name: str, kind: CheckpointKind = CheckpointKind.POLICY) -> Checkpoint:
    return register_checkpoint(name=name, kind=kind, directory=tiny_model)


def run(*arguments: str, **options: Any) -> dict[str, Any]:
    out = io.StringIO()
    call_command("alias", *arguments, json=True, stdout=out, **options)
    return json.loads(out.getvalue())


def test_an_alias_moves_and_moves_back_and_the_log_keeps_each_step(
    page: Client, base: Checkpoint, tiny_model: Path
) -> None:
    new = other(tiny_model, "round-1")
    given = {"alias": "champion", "project": "", "why": "won 62 % of 400"}
    page.post(f"/checkpoints/{base.pk}/alias/", {**given, "why": "the first"})
    text = page.post(f"/checkpoints/{new.pk}/alias/", given, follow=True).content.decode()
    assert "champion stands for round-1 now." in text
    assert "won 62 % of 400" in text
    assert find_checkpoint("champion") == new
    assert "tiny: back" not in text
    assert "champion: back to tiny" in text
    page.post("/checkpoints/aliases/back/", {"alias": "champion", "project": ""})
    assert find_checkpoint("champion") == base
    moves = AliasMove.objects.order_by("number").values_list(
        "number", "previous__name", "checkpoint__name", "moved_by__username"
    )
    assert list(moves) == [(1, None, "tiny", "boss"), (2, "tiny", "round-1", "boss"), (3, "round-1", "tiny", "boss")]
    log = page.get("/checkpoints/aliases/").content.decode()
    assert "rolled back: won 62 % of 400" in log
    assert '<span class="badge" data-tone="accent">champion</span>' in page.get("/checkpoints/").content.decode()


def test_the_log_cannot_be_rewritten(base: Checkpoint) -> None:
    move = move_alias("champion", base, why="the first")
    for change in (lambda: AliasMove.objects.update(why="another"), move.delete):
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            change()


def test_who_has_not_seen_the_last_move_is_refused(
    base: Checkpoint, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, third = other(tiny_model, "round-1"), other(tiny_model, "round-2")
    move_alias("champion", base, why="the first")
    create = AliasMove.objects.create

    def another_was_first(**values: Any) -> AliasMove:
        monkeypatch.undo()
        create(**{**values, "checkpoint": third, "why": "at the same moment"})
        return create(**values)

    monkeypatch.setattr(AliasMove.objects, "create", another_was_first)
    with pytest.raises(ConflictError, match="somebody moved champion just now"):
        move_alias("champion", new, why="won")


@pytest.mark.parametrize(
    ("alias", "why", "sentence"),
    [
        ("Champion!", "won", "lower-case letters"),
        ("tiny", "won", "tiny is the name of a checkpoint"),
        ("champion", "  ", "say why"),
        ("standing", "won", "stands for tiny already"),
        ("judge", "won", "judge stands for scorer, which scores responses"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(
    base: Checkpoint, tiny_model: Path, alias: str, why: str, sentence: str
) -> None:
    move_alias("standing", base, why="the first")
    move_alias("judge", other(tiny_model, "scorer", CheckpointKind.REWARD), why="the first")
    with pytest.raises(DomainError, match=sentence):
        move_alias(alias, base, why=why)
    with pytest.raises(DomainError, match="there is no alias"):
        roll_back_alias("unknown")


def test_a_project_has_its_own_and_a_bare_name_must_be_clear(base: Checkpoint, tiny_model: Path) -> None:
    here, there = make_project("here"), make_project("there")
    new = other(tiny_model, "round-1")
    move_alias("champion", base, why="first", project=here)
    assert find_checkpoint("champion") == base  # the only one
    move_alias("champion", new, why="first", project=there)
    assert (find_checkpoint("here/champion"), find_checkpoint("there/champion")) == (base, new)
    assert find_checkpoint("champion", there) == new
    with pytest.raises(DomainError, match=r"name one of here/champion, there/champion"):
        find_checkpoint("champion")
    move_alias("champion", base, why="for all")
    assert find_checkpoint("champion") == base
    with pytest.raises(DomainError, match="no checkpoint, alias or directory candidate"):
        find_checkpoint("candidate")


def test_a_checkpoint_cannot_take_the_name_of_an_alias(base: Checkpoint, tiny_model: Path) -> None:
    move_alias("champion", base, why="the first")
    with pytest.raises(DomainError, match="champion is an alias"):
        register_base_checkpoint("champion", tiny_model)


def test_the_command_and_the_forms_take_aliases(page: Client, base: Checkpoint, tiny_model: Path) -> None:
    new = other(tiny_model, "round-1")
    make_job(base)  # the form opens where there is a data set
    assert run("champion", to="tiny", why="the first")["checkpoint"] == "tiny"
    assert run("champion", to="round-1", why="better")["from"] == "tiny"
    assert [row["alias"] for row in run()["aliases"]] == ["champion"]
    assert run("champion", back=True)["checkpoint"] == "tiny"
    assert len(run("champion")["moves"]) == 3
    form = LaunchForm({"base": "champion"})
    form.is_valid()
    assert form.cleaned_data["base"] == base
    opened = page.get("/training/new/", {"base": "champion"}).content.decode()
    assert f'<option value="{base.pk}" selected>tiny (champion)</option>' in opened
    assert f'<option value="{new.pk}">round-1</option>' in opened
    assert run("champion", remove=True, why="none is good")["checkpoint"] is None
    with pytest.raises(CommandError, match="no checkpoint, alias or directory champion"):
        run("candidate", to="champion", why="x")


def test_a_checkpoint_shows_both_directions_of_its_lineage(page: Client, base: Checkpoint, tiny_model: Path) -> None:
    first = finish(log_steps(make_job(base), 1), tiny_model)
    Checkpoint.objects.filter(pk=first.pk).update(name="round-0")
    first.refresh_from_db()
    second = finish(log_steps(make_job(first), 1), tiny_model)
    text = page.get(f"/checkpoints/{first.pk}/").content.decode()
    for address in (
        f"/projects/{first.job.snapshot.project.slug}/",
        f"/data-sets/{first.job.snapshot_id}/",
        f"/training/{first.job_id}/",
        f"/checkpoints/{base.pk}/",
        f"/checkpoints/{second.pk}/",
        f"/training/{second.job_id}/",
    ):
        assert f'href="{address}"' in text
    line = page.get(f"/checkpoints/{second.pk}/").content.decode()
    assert line.index(">tiny</a> →") < line.index(f">{first.name}</a> →")
