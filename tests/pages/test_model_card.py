"""A checkpoint's card and the model as one file."""

from __future__ import annotations

import io
import json
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from rlhf.jobspec import check_manifest, write_manifest
from rlhf.model_archive import ModelArchive
from rlhf.model_card import _text, model_card, snapshot_agreement
from rlhf.models import Checkpoint
from rlhf.options import SpecError
from rlhf.services import create_snapshot, publish_checkpoint
from tests.factories import make_comparison, make_judged_project, make_judgment, make_project
from tests.pages.training import finish, log_steps, make_job

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]


def test_the_card_says_what_it_was_made_of_and_what_is_not_known(
    page: Client, base: Checkpoint, tiny_model: Path
) -> None:
    job = log_steps(make_job(base, "dpo", beta=0.2), 3)
    checkpoint = finish(job, tiny_model, **{"eval_rewards/accuracies": 0.75, "eval_rows_used": 8.0})
    checkpoint = Checkpoint.objects.get(pk=checkpoint.pk)
    snapshot = job.snapshot
    card = model_card(checkpoint)
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: text-generation\nbase_model: tiny\n")
    for words in (
        f"`{snapshot.sha256}`",
        f"{snapshot.train_rows} to train on, {snapshot.eval_rows} held out by prompt",
        "| `beta` | 0.2 | changed |",
        "| Held-out accuracy | 75.0 % (95 %: ",
        "Line | tiny → **round-1-out**",
        f"touchstone {job.code_version}",
        f"Only {snapshot.eval_rows} rows were held out",
        "No item has two people's votes",
        "It is not published",
    ):
        assert words in card, words
    shown = page.get(f"/checkpoints/{checkpoint.pk}/card/").content.decode()
    assert "<h2>Limits</h2>" in shown.replace(' dir="auto"', "")
    assert page.get(f"/checkpoints/{checkpoint.pk}/card.md").content.decode() == card
    brought_in = model_card(base)
    assert "how is not known here" in brought_in
    publish_checkpoint(base)
    base.refresh_from_db()
    assert "It is not published" not in model_card(base)


def test_agreement_on_the_card_is_that_of_the_frozen_votes() -> None:
    project = make_project()
    for verdicts in (("a", "a", "b"), ("a", "tie"), ("b", "b"), ("a",)):
        comparison = make_comparison(project)
        for verdict in verdicts:
            make_judgment(comparison, verdict)
    found = snapshot_agreement(create_snapshot(project, "votes", eval_share=0))
    # pairs: 3 with 1 equal, 1 with none, 1 equal; of those where both took a side 3 and 1
    everything, sides = found["Two people agree"], found["… where both took a side"]
    assert everything is not None
    assert sides is not None
    assert (everything.value, everything.count) == (pytest.approx(2 / 5), 5)
    assert (sides.value, sides.count) == (pytest.approx(2 / 4), 4)


def test_names_that_people_typed_are_no_markup() -> None:
    project = make_judged_project()
    project.name = "<b>x</b> | [y](javascript:z)"
    project.save()
    assert _text(project.name) == "\\<b\\>x\\</b\\> \\| \\[y\\](javascript:z)"


def test_the_download_is_a_directory_that_a_loader_takes(page: Client, base: Checkpoint, tmp_path: Path) -> None:
    answer = page.get(f"/checkpoints/{base.pk}/model.tar")
    content = b"".join(answer.streaming_content)  # type: ignore[arg-type]
    assert int(answer["Content-Length"]) == len(content)
    assert answer["Content-Disposition"] == 'attachment; filename="tiny.tar"'
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(tmp_path, filter="data")
    check_manifest(tmp_path / "tiny")
    assert (tmp_path / "tiny" / "README.md").read_text() == model_card(base)
    assert (tmp_path / "tiny" / "model.safetensors").read_bytes() == (base.path / "model.safetensors").read_bytes()


def large_model(folder: Path, megabytes: int) -> Path:
    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(megabytes << 20)
    write_manifest(folder)
    return folder


def test_what_is_sent_is_never_held_at_once(tmp_path: Path) -> None:
    archive = ModelArchive("large", large_model(tmp_path / "large", 200), "card", 0)
    tracemalloc.start()
    sent = sum(map(len, archive))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sent == archive.size > 200 << 20
    assert peak < 8 << 20


def test_files_that_changed_are_not_sent_to_the_end(page: Client, tmp_path: Path) -> None:
    folder = large_model(tmp_path / "broken", 3)
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")

    def drain(blocks: Iterator[bytes], into: list[int]) -> None:
        for block in blocks:
            into.append(len(block))

    archive, sent = ModelArchive("broken", folder, "card", 0), []  # type: ignore[var-annotated]
    with pytest.raises(SpecError, match=r"model\.safetensors is not the file"):
        drain(iter(archive), sent)
    assert sum(sent) < archive.size - (1 << 19)
    (folder / "model.safetensors").unlink()
    with pytest.raises(SpecError, match=r"model\.safetensors is missing"):
        ModelArchive("broken", folder, "card", 0)
    own: dict[str, Any] = {"README.md": "the base's own"}
    (folder / "README.md").write_text(own["README.md"])
    write_manifest(folder)
    with tarfile.open(fileobj=io.BytesIO(b"".join(ModelArchive("b", folder, "card", 0)))) as opened:
        names = opened.getnames()
    assert names == ["b/MODEL_CARD.md", "b/README.md", "b/manifest.json"]
    assert json.loads((folder / "manifest.json").read_text()).keys() == {"README.md"}
