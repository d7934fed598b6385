"""Launching a training job: the form, the check before the start, and clones."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client

from rlhf import options
from rlhf.forms import OptionsForm, option_help
from rlhf.models import Checkpoint, LaunchCheck, TrainingJob
from rlhf.services import (
    create_snapshot,
    register_base_checkpoint,
)
from tests.factories import (
    make_comparison,
    make_judged_project,
    make_judgment,
)
from tests.pages.training import launch_form, make_job

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]


def test_every_option_of_every_method_has_a_field_with_its_default_and_help() -> None:
    for method, cls in options.OPTIONS.items():
        form = OptionsForm(method)
        assert set(form.fields) == set(cls.__dataclass_fields__)
        # What is to be rewarded has no default.
        chosen = {"rule": "length", "rule_argument": "60"} if issubclass(cls, options.OnPolicyOptions) else {}
        initial = {n: f.initial for n, f in form.fields.items() if f.initial is not False}
        bound = OptionsForm(method, initial | chosen)
        assert bound.is_valid(), bound.errors
        assert bound.options == cls(**chosen)
    assert option_help("dpo")["beta"] == "How strongly the policy is held to the reference model."
    assert option_help("dpo")["learning_rate"] == "Peak, after warm-up."
    assert "weight_decay" not in option_help("dpo")


def test_a_job_is_checked_first_and_stored_only_when_started(page: Client, base: Checkpoint) -> None:
    project = make_judged_project()
    make_judgment(make_comparison(project, a_text="word " * 400), "a")
    make_judgment(make_comparison(project), "tie")
    snapshot = create_snapshot(project, "set", eval_share=0)
    form = launch_form(snapshot, base, name="round-1", max_tokens="256", learning_rate="2e-5", use_lora=None)
    answer = page.post("/training/new/", form)
    check = LaunchCheck.objects.get()
    assert answer["Location"] == f"/training/checks/{check.pk}/"
    text = page.get(answer["Location"]).content.decode()
    assert "12 of 14 judged comparisons become rows to train on" in text
    assert "1 training rows longer than 256 tokens left out (1 chosen, 0 rejected)" in text
    assert "1 about the same" in text
    assert "No held-out row" in text
    assert not TrainingJob.objects.exists()
    answer = page.post(answer["Location"], {"step": "start", "proceed": "on"})
    job = TrainingJob.objects.get()
    assert answer["Location"] == f"/training/{job.pk}/"
    assert (job.name, job.options["learning_rate"], job.options["use_lora"]) == ("round-1", 2e-5, False)
    assert job.preflight["train"] | {"used": 12, "too_long": 1, "dropped": {"tie": 1}} == job.preflight["train"]
    assert job.created_by == User.objects.get(username="boss")


def test_errors_land_on_their_fields(page: Client, base: Checkpoint) -> None:
    project = make_judged_project()
    snapshot = create_snapshot(project, "set")
    form = launch_form(snapshot, base, learning_rate="fast", batch_size="6", beta="-1", loss_type="nll", epochs="")
    answer = page.post("/training/new/", form)
    assert answer.status_code == 422
    errors = answer.context["options"].errors
    assert errors["learning_rate"] == ["'fast' is not a number."]
    assert errors["batch_size"] == ["6 is not a multiple of micro_batch_size 4."]
    assert errors["beta"] == ["-1.0 is outside 0.0001 … 10."]
    assert set(errors) == {"learning_rate", "batch_size", "beta", "loss_type", "epochs"}
    assert '<details class="fold" open>' in answer.content.decode()  # loss_type is among the folded ones
    answer = page.post("/training/new/", launch_form(snapshot, base) | {"method": "magic"})
    assert answer.context["launch"].errors["method"]
    assert not TrainingJob.objects.exists()


def test_a_half_written_base_is_refused_before_the_start(page: Client, tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(tiny_model, tmp_path / "model")
    base = register_base_checkpoint("copy", tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    snapshot = create_snapshot(make_judged_project(), "set")
    answer = page.post("/training/new/", launch_form(snapshot, base))
    assert answer.status_code == 422
    assert "model.safetensors is not the file that its manifest describes" in answer.content.decode()
    assert not TrainingJob.objects.exists()


def test_a_method_brings_its_own_options_with_and_without_scripts(page: Client, base: Checkpoint) -> None:
    snapshot = create_snapshot(make_judged_project(), "set")
    fragment = page.get("/training/new/", {"method": "reward"}, headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in fragment
    assert 'name="center_rewards_coefficient"' in fragment
    assert 'name="beta"' not in fragment
    text = page.post(
        "/training/new/", launch_form(snapshot, base) | {"method": "sft", "step": "method"}
    ).content.decode()
    assert 'name="packing"' in text
    assert f'<option value="{snapshot.pk}" selected>' in text


def test_clone_fills_the_form_and_change_brings_it_back(page: Client, base: Checkpoint) -> None:
    job = make_job(base, "reward", learning_rate=3e-5, max_tokens=300)
    answer = page.get("/training/new/", {"clone": job.pk})
    text = answer.content.decode()
    assert 'value="3e-5"' in text
    assert 'value="300"' in text
    assert answer.context["options"].method == "reward"
    page.post("/training/new/", launch_form(job.snapshot, base, "reward", learning_rate="4e-5"))
    change = f"/training/new/?check={LaunchCheck.objects.get().pk}"
    assert 'value="4e-5"' in page.get(change).content.decode()
