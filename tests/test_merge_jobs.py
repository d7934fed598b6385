"""Merging through the page and the command: checked first, run by the worker's own code, with every parent known."""

from __future__ import annotations

import shutil
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.test import Client
from safetensors.numpy import load_file, save_file

from rlhf import supervisor
from rlhf.jobspec import write_manifest
from rlhf.models import Checkpoint, TrainingJob
from rlhf.services import leases, register_base_checkpoint
from tests.factories import make_user

pytestmark = [pytest.mark.usefixtures("data_dir")]


@pytest.fixture
def family(tiny_model: Path, tmp_path: Path) -> list[Checkpoint]:
    """A base and two models of the same form, in which a weight of 1 is 2 and 4."""
    found = [register_base_checkpoint("tiny", tiny_model)]
    for name, factor in (("twice", 2), ("fourfold", 4)):
        folder = tmp_path / name
        shutil.copytree(tiny_model, folder)
        weights = load_file(tiny_model / "model.safetensors")
        save_file(
            {key: (value * factor).astype(np.float32) for key, value in weights.items()},
            folder / "model.safetensors",
            metadata={"format": "pt"},
        )
        write_manifest(folder)
        found.append(register_base_checkpoint(name, folder))
    return found


@pytest.fixture
def staff(client: Client) -> Client:
    client.force_login(make_user("staff", is_staff=True))
    return client


@pytest.mark.django_db
def test_the_page_queues_a_merge_with_its_parents_and_names_what_is_wrong(
    staff: Client, family: list[Checkpoint]
) -> None:
    base, twice, fourfold = family
    page = staff.get(f"/checkpoints/merge/?base={base.pk}").content.decode()
    assert "Weight of fourfold" in page and f'<option value="{base.pk}" selected>' in page
    given = {"base": base.pk, "models": [twice.pk, fourfold.pk], "algorithm": "linear", "scaling": "1"}
    given |= {f"weight-{twice.pk}": "1", f"weight-{fourfold.pk}": "3"}

    wrong = staff.post("/checkpoints/merge/", given | {f"weight-{twice.pk}": "much"})
    assert wrong.status_code == 422 and "The weight of twice, much, is not a number." in wrong.content.decode()
    alone = staff.post("/checkpoints/merge/", given | {"models": [twice.pk]})
    assert alone.status_code == 422 and "linear needs more than 1" in alone.content.decode()
    assert not TrainingJob.objects.exists()

    answer = staff.post("/checkpoints/merge/", given | {"name": "blend"})
    job = TrainingJob.objects.get()
    assert answer.headers["Location"] == f"/training/{job.pk}/"
    assert sorted(job.merge_inputs.values_list("checkpoint__name", "weight")) == [("fourfold", 3.0), ("twice", 1.0)]
    assert leases.claim_job(TrainingJob, job.pk, "worker")
    stop = staff.get(f"/training/{job.pk}/stop/").content.decode()
    assert "there is nothing to keep" in stop and 'value="keep"' not in stop and 'value="discard"' in stop
    clone = f"/checkpoints/merge/?clone={job.pk}"
    assert f'href="{clone}"' in staff.get(f"/training/{job.pk}/").content.decode()
    page = staff.get(clone).content.decode()
    for checkpoint, weight in ((twice, "1"), (fourfold, "3")):
        assert f'value="{checkpoint.pk}" checked' in page
        assert f'name="weight-{checkpoint.pk}" value="{weight}"' in page
    assert f'<option value="{base.pk}" selected>' in page and 'value="linear" checked' in " ".join(page.split())
    for address in (f"/training/{job.pk}/", "/training/", f"/training/{job.pk}/?tab=options"):
        assert staff.get(address).status_code == 200
    assert "fourfold" in staff.get(f"/training/{job.pk}/").content.decode()


@pytest.mark.django_db
def test_a_checkpoint_that_is_not_among_the_newest_is_found_by_name(
    staff: Client, family: list[Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlhf.views.merging.CHECKPOINTS_OFFERED", 1)
    oldest, *_, newest = sorted(family, key=lambda one: one.created_at)
    page = staff.get("/checkpoints/merge/").content.decode()
    assert (f"weight-{newest.pk}" in page, f"weight-{oldest.pk}" in page) == (True, False)
    assert f"{len(family) - 1} older ones are not shown." in page
    typed = {"step": "find", "find": oldest.name.upper(), "models": [newest.pk], f"weight-{newest.pk}": "0.25"}
    page = staff.post("/checkpoints/merge/", typed).content.decode()
    assert f'value="{newest.pk}" checked' in page
    assert f'name="weight-{newest.pk}" value="0.25"' in page
    assert f'name="weight-{oldest.pk}" value="1"' in page
    assert not TrainingJob.objects.exists()


@pytest.mark.django_db
def test_the_command_starts_nothing_that_it_should_only_prepare_and_keeps_the_placement(
    family: list[Checkpoint], tmp_path: Path
) -> None:
    merge = ("train", "--method", "merge", "--base", "tiny", "--set", "models=twice,fourfold")
    with pytest.raises(CommandError, match="leave --prepare out"):
        call_command(*merge, "--prepare", str(tmp_path / "by-hand"))
    with pytest.raises(CommandError, match="leave --measure out"):
        call_command(*merge, "--measure")
    assert not TrainingJob.objects.exists() and not (tmp_path / "by-hand").exists()
    call_command(*merge, "--label", "big", "--gpus", "1", "--priority", "high", stdout=StringIO())
    job = TrainingJob.objects.get()
    assert job.placement == {"label": "big", "gpus": 1, "priority": 1}


@pytest.mark.django_db
def test_another_architecture_is_refused_before_the_start(
    staff: Client, family: list[Checkpoint], tmp_path: Path
) -> None:
    base, twice, fourfold = family
    config = (fourfold.path / "config.json").read_text()
    (fourfold.path / "config.json").write_text(config.replace("LlamaForCausalLM", "Qwen2ForCausalLM"))
    write_manifest(fourfold.path)
    answer = staff.post(
        "/checkpoints/merge/",
        {"base": base.pk, "models": [twice.pk, fourfold.pk], "algorithm": "model_stock", "scaling": "1"},
    )
    assert answer.status_code == 422
    assert "fourfold is of another architecture: Qwen2ForCausalLM" in answer.content.decode()
    assert not TrainingJob.objects.exists()


@pytest.mark.django_db
def test_only_a_merge_may_be_without_data(family: list[Checkpoint]) -> None:
    with pytest.raises(IntegrityError, match="only_a_merge_has_no_data"), transaction.atomic():
        TrainingJob.objects.create(method="dpo", base=family[0], options={})


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.django_db(transaction=True)
def test_the_command_merges_and_the_checkpoint_knows_all_its_parents(client: Client, family: list[Checkpoint]) -> None:
    out = StringIO()
    call_command(
        "train", "--method", "merge", "--base", "tiny", "--name", "blend",
        "--set", "models=twice,fourfold", "weights=1,3", "algorithm=linear", stdout=out,
    )  # fmt: skip
    job = TrainingJob.objects.get()
    assert supervisor.run_training_job(job.pk)
    job.refresh_from_db()
    assert (job.status, job.error) == ("succeeded", "")
    blend = Checkpoint.objects.get(name="blend")
    before, after = (load_file(one.path / "model.safetensors") for one in (family[0], blend))
    for name, value in after.items():
        np.testing.assert_allclose(value, 3.5 * before[name], rtol=1e-5)
    assert (blend.parent, blend.kind, job.step) == (family[0], "policy", len(after))
    client.force_login(make_user("staff", is_staff=True))
    page = client.get(f"/training/{job.pk}/").content.decode()
    assert "Result" in page and "no curves" not in page and "Checks before the start" not in page
    assert "twice" in client.get(f"/checkpoints/{blend.pk}/").content.decode()
    assert f"/training/{job.pk}/" in client.get(f"/checkpoints/{family[2].pk}/").content.decode()
    assert client.get("/checkpoints/").status_code == 200
