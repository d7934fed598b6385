"""A run by hand: prepared here, trained elsewhere, brought in; and everything that is refused on the way in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from rlhf import jobspec, launcher
from rlhf.models import Checkpoint, JobMetric, TrainingJob
from rlhf.services import create_snapshot, register_base_checkpoint
from tests.factories import make_judged_project

pytestmark = [pytest.mark.slow, pytest.mark.training, pytest.mark.django_db]


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_rows(directory: Path) -> None:
    lines = (directory / "train.jsonl").read_text().splitlines(keepends=True)
    (directory / "train.jsonl").write_text("".join(lines[1:]))


def put_in_base(directory: Path) -> None:
    """The base itself, handed in as if it had been trained."""
    base = json.loads((directory / "spec.json").read_text())["base_model_dir"]
    shutil.rmtree(directory / "model")
    shutil.copytree(base, directory / "model")


def change_tokenizer(directory: Path) -> None:
    tokenizer = directory / "model" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    jobspec.write_manifest(directory / "model")


def change_weights(directory: Path) -> None:
    with (directory / "model" / "model.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\0\0\0\0")


REFUSALS: list[tuple[Callable[[Path], object], str]] = [
    (lambda d: (d / "result.json").unlink(), "has no result.json: the run has not ended yet"),
    (lambda d: rewrite(d / "result.json", status="failed", error="it fell over"), "it fell over"),
    (lambda d: rewrite(d / "spec.json", snapshot_sha256="0" * 64), "no data set here has the sha256 000"),
    (lambda d: rewrite(d / "spec.json", base_sha256="1" * 64), "no checkpoint here has the sha256 111"),
    (lambda d: rewrite(d / "spec.json", base_sha256=""), "names neither data set nor base"),
    (lambda d: rewrite(d / "spec.json", colour="red"), "unknown key 'colour'"),
    (lambda d: rewrite(d / "spec.json", method="reward", options={}), "is a policy model, and reward makes a reward"),
    (change_rows, "train.jsonl does not hold the rows that the data set votes gives"),
    (change_weights, "model.safetensors is not the file that its manifest describes"),
    (change_tokenizer, "is not that of tiny, from which the run started"),
    (put_in_base, "this model is here already: it is the checkpoint tiny"),
    (lambda d: (d / "metrics.jsonl").write_text('{"step": -1}\n'), "'-1' is not a step"),
    (lambda d: (d / "metrics.jsonl").unlink(), "has no metrics.jsonl with a line in it"),
]


def test_a_run_by_hand_comes_in_whole_or_not_at_all(tiny_model: Path, data_dir: Path, tmp_path: Path) -> None:
    base = register_base_checkpoint("tiny", tiny_model)
    snapshot = create_snapshot(make_judged_project(), "votes", eval_share=0.25)
    prepared, elsewhere = tmp_path / "prepared", tmp_path / "elsewhere"
    call_command(
        "train", method="dpo", snapshot="votes", base="tiny", prepare=prepared, proceed=True,
        settings_given=["max_steps=2", "batch_size=4", "use_lora=false"],
    )  # fmt: skip
    assert not TrainingJob.objects.exists()
    shutil.move(prepared, elsewhere)
    process = launcher.start(elsewhere)
    assert process.wait(240) == 0, (elsewhere / "stdout.log").read_text()

    for number, (spoil, words) in enumerate(REFUSALS):
        spoilt = Path(shutil.copytree(elsewhere, tmp_path / f"spoilt-{number}"))
        spoil(spoilt)
        with pytest.raises(CommandError) as error:
            call_command("import_job", str(spoilt))
        assert words in str(error.value)
        assert not TrainingJob.objects.exists()
        assert not list((data_dir / "jobs").glob("*"))

    call_command("import_job", str(elsewhere), name="by-hand")
    job = TrainingJob.objects.get()
    assert (job.status, job.step, job.snapshot, job.base) == ("succeeded", 2, snapshot, base)
    assert JobMetric.objects.filter(job=job, values__has_key="loss").count() == 2
    checkpoint = Checkpoint.objects.get(job=job)
    assert (checkpoint.name, checkpoint.parent, checkpoint.kind) == ("by-hand", base, "policy")
    jobspec.check_manifest(checkpoint.path)
    assert checkpoint.path.is_relative_to(data_dir)
    shutil.rmtree(elsewhere / "model" / "unused", ignore_errors=True)
    with pytest.raises(CommandError, match="this model is here already: it is the checkpoint by-hand"):
        call_command("import_job", str(elsewhere))


def test_a_run_by_hand_on_another_base_does_not_start(tiny_model: Path, data_dir: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    register_base_checkpoint("base", base)
    create_snapshot(make_judged_project(), "votes", eval_share=0.25)
    prepared = tmp_path / "prepared"
    call_command("train", method="dpo", snapshot="votes", base="base", prepare=prepared, proceed=True)
    (base / "notes.txt").write_text("another model")
    jobspec.write_manifest(base)
    assert launcher.start(prepared).wait(240) == 1
    result = jobspec.Result.read(prepared)
    assert result is not None
    assert "holds another model than this job was prepared for" in result.error
