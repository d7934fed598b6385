"""Launching a training job: the form, the check before the start, and clones."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from rlhf import options
from rlhf.forms import OptionsForm, option_help
from rlhf.jobspec import write_manifest
from rlhf.launch_config import parse_config
from rlhf.models import Checkpoint, LaunchCheck, TrainingJob
from rlhf.preflight import findings
from rlhf.services import (
    create_snapshot,
    launching,
    move_alias,
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
        if method == "merge":  # it needs no data set and has a page of its own
            continue
        form = OptionsForm(method)
        assert set(form.fields) == {field.name for field in dataclasses.fields(cls)}
        # What is to be rewarded, or merged, has no default.
        chosen = {"rule": "length", "rule_argument": "60"} if issubclass(cls, options.OnPolicyOptions) else {}
        if cls is options.MergeOptions:
            chosen = {"models": "one, two"}
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


def test_rows_that_are_cut_are_counted_by_side_and_listed_with_the_job(page: Client, base: Checkpoint) -> None:
    project = make_judged_project()
    long = make_comparison(project, a_text="word " * 400)
    make_judgment(long, "a")
    snapshot = create_snapshot(project, "set", eval_share=0)
    form = launch_form(snapshot, base, max_tokens="256", long_rows="truncate")
    address = page.post("/training/new/", form)["Location"]
    text = page.get(address).content.decode()
    assert "1 of 13 training rows are cut after 256 tokens (1 chosen, 0 rejected)" in text
    assert "they do not teach when to stop" in text and "are cut at it" in text
    page.post(address, {"step": "start", "proceed": "on"})
    job = TrainingJob.objects.get()
    text = page.get(f"/training/{job.pk}/").content.decode()
    assert "1 comparison left out or cut, as CSV" in text
    listed = b"".join(page.get(f"/training/{job.pk}/left-out.csv").streaming_content).decode()  # type: ignore[attr-defined]
    assert listed.splitlines() == ["comparison,split,what", f"{long.pk},train,cut"]

    form = launch_form(snapshot, base, max_tokens="256", long_rows="raise")
    address = page.post("/training/new/", form)["Location"]
    answer = page.post(address, {"step": "start", "proceed": "on"}, follow=True).content.decode()
    assert "nothing is to start then" in answer
    assert TrainingJob.objects.count() == 1


def test_the_command_of_a_launch_names_each_flag_once(page: Client, base: Checkpoint) -> None:
    snapshot = create_snapshot(make_judged_project(), "set")
    placement = {"label": "a100", "gpus": "2", "priority": "1"}
    address = page.post("/training/new/", launch_form(snapshot, base, seed="3", **placement))["Location"]
    flags = "--base tiny --label a100 --gpus 2 --priority high --set seed=3"
    command = f"python manage.py train --method dpo --snapshot set {flags}"
    assert f'value="{command}"' in page.get(address).content.decode()


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


def test_the_form_advises_how_many_layers_a_gradient_checkpoint_spans(
    page: Client, base: Checkpoint, tmp_path: Path, tiny_model: Path
) -> None:
    make_snapshot = create_snapshot(make_judged_project(), "set")
    text = page.get("/training/new/", {"snapshot": make_snapshot.pk, "base": base.pk}).content.decode()
    assert "tiny has 2 layers that keep about" in text and "Larger groups would save nothing" in text

    shutil.copytree(tiny_model, tmp_path / "deep")
    config = json.loads((tmp_path / "deep" / "config.json").read_text())
    (tmp_path / "deep" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 126}))
    deep = Checkpoint.objects.create(
        name="deep", kind="policy", directory=str(tmp_path / "deep"), manifest_sha256="0" * 64
    )
    advice = page.get("/training/new/layers/", {"base": deep.pk}).content.decode()
    kept = 4 + 2 + 3 * 24 / 48 + 1 + 4 * 96 / 48  # of one layer of the tiny model, in hidden states
    assert "deep has 126 layers" in advice and f"= {(126 / kept) ** 0.5:.1f}." in advice
    assert "Take 3 where memory is short" in advice
    assert "Choose a base" in page.get("/training/new/layers/").content.decode()
    assert "Choose a base" in page.get("/training/new/layers/", {"base": "magic"}).content.decode()


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


def test_a_check_that_blocks_is_overridden_by_somebody_who_is_named(
    page: Client, base: Checkpoint, staff: User
) -> None:
    project = make_judged_project()
    for _ in range(6):
        make_judgment(make_comparison(project, a_text="word " * 400), "a")
    snapshot = create_snapshot(project, "set", eval_share=0)
    address = page.post("/training/new/", launch_form(snapshot, base, max_tokens="256"))["Location"]
    text = page.get(address).content.decode()
    assert "would learn from the difference in length" in text
    assert "Proceed anyway" in text
    page.post(address, {"step": "start"})
    assert not TrainingJob.objects.exists()
    page.post(address, {"step": "start", "proceed": "on"})
    page.post(address, {"step": "start", "proceed": "on"})  # a second click
    job = TrainingJob.objects.get()
    assert (job.proceeded_by, job.proceeded_at is not None) == (staff, True)
    assert {one["code"] for one in job.preflight["checks"] if one["level"] == "blocked"} >= {"uneven_loss"}
    text = page.get(f"/training/{job.pk}/").content.decode()
    assert "Started against these checks by boss" in text
    assert page.get(address)["Location"] == f"/training/{job.pk}/"


def test_what_would_fail_for_certain_cannot_be_overridden(page: Client, base: Checkpoint) -> None:
    snapshot = create_snapshot(make_judged_project(), "set", eval_share=0)
    address = page.post("/training/new/", launch_form(snapshot, base, max_tokens="16"))["Location"]
    text = page.get(address).content.decode()
    assert "All 12 training rows are longer than 16 tokens" in text
    assert 'value="start"' not in text
    page.post(address, {"step": "start", "proceed": "on"})
    assert not TrainingJob.objects.exists()


def test_a_base_without_a_chat_template_is_refused(page: Client, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").unlink()
    write_manifest(tmp_path / "model")
    base = register_base_checkpoint("plain", tmp_path / "model")
    answer = page.post("/training/new/", launch_form(create_snapshot(make_judged_project(), "set"), base))
    assert answer.status_code == 422
    assert "has no chat template" in answer.content.decode()


def test_what_a_worker_measured_is_asked_for_shown_and_used_again(
    page: Client, base: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = create_snapshot(make_judged_project(), "set")
    address = page.post("/training/new/", launch_form(snapshot, base))["Location"]
    check = LaunchCheck.objects.get()
    sent: list[list[int]] = []
    monkeypatch.setattr(launching.current_app, "send_task", lambda _name, args, **_more: sent.append(args))
    page.post(address, {"step": "measure"})
    page.post(address, {"step": "measure"})  # it is under way
    assert sent == [[check.pk]]
    fragment = page.get(f"{address}found/").content.decode()
    assert "Waiting for a worker" in fragment
    assert 'hx-trigger="every 2s"' in fragment
    found = [findings.passed("padding_equal", difference="1e-6"), findings.blocked("dry_step_memory", error="no room")]
    assert launching.take_probe(check.pk, lambda _check, _gpus: found)
    assert not launching.take_probe(check.pk, lambda _check, _gpus: found)  # a message that comes twice
    fragment = page.get(f"{address}found/").content.decode()
    assert "ran out of memory: no room" in fragment
    assert "hx-trigger" not in fragment
    again = page.post("/training/new/", launch_form(snapshot, base, learning_rate="2e-5"))["Location"]
    assert "ran out of memory: no room" in page.get(again).content.decode()
    for change in (
        {"micro_batch_size": "2"},
        {"checkpoint_layers": "2"},
        {"loss_type": "ipo"},
        {"launcher": "torchrun", "processes": "2", "zero_stage": "3"},
        {"label": "a100"},
        {"gpus": "1"},
    ):
        page.post("/training/new/", launch_form(snapshot, base, **change))
        assert LaunchCheck.objects.latest("pk").probe_findings == [], change


def test_what_was_measured_of_short_completions_does_not_stand_for_long_ones(base: Checkpoint) -> None:
    snapshot = create_snapshot(make_judged_project(2), "set", eval_share=0)

    def check(**options: object) -> LaunchCheck:
        given = {"rule": "length", "rule_argument": "8", "max_completion_tokens": 8, **options}
        return launching.check_launch(snapshot=snapshot, method="grpo", base=base, options=given)

    launching.measure_launch(check(), lambda _check, _gpus: [findings.passed("dry_step", peak="0.1", seconds="1.0")])
    assert check(learning_rate=1e-6).probe_status == "done"
    for change in ({"max_completion_tokens": 300}, {"samples_per_prompt": 8}, {"rule": "contains"}):
        assert check(**change).probe_status == "none", change


def test_a_recipe_fills_the_form_and_names_its_source(page: Client, base: Checkpoint) -> None:
    snapshot = create_snapshot(make_judged_project(), "set")
    asked = {"method": "dpo", "recipe": "dpo-zephyr"}
    fragment = page.get("/training/new/", asked, headers={"HX-Request": "true"}).content.decode()
    assert 'value="5e-7"' in fragment
    assert "alignment-handbook" in fragment
    assert "Learning rate 0.0001 → <b>5e-7</b>" in fragment
    without_scripts = launch_form(snapshot, base) | asked | {"step": "method"}
    assert 'value="5e-7"' in page.post("/training/new/", without_scripts).content.decode()
    other_method = page.get("/training/new/", asked | {"method": "sft"}).content.decode()
    assert "alignment-handbook" not in other_method


def test_recipes_for_the_size_of_the_base_come_first_and_every_method_has_one(page: Client, base: Checkpoint) -> None:
    create_snapshot(make_judged_project(1), "set", eval_share=0)
    for method in options.OPTIONS:
        if method == "merge":
            continue
        text = page.get("/training/new/recipes/", {"method": method, "base": base.pk}).content.decode()
        fitting, _, others = text.partition('<optgroup label="For models of another size">')
        assert '<optgroup label="For the size of tiny">' in fitting
        assert "below 1B weights" in fitting and "from 1B weights" not in fitting, method
        assert "from 1B weights" in others and "below 1B weights" not in others, method
    asked = {"method": "ppo", "recipe": "ppo-small", "base": base.pk}
    text = page.get("/training/new/", asked, headers={"HX-Request": "true"}).content.decode()
    assert '<option value="ppo-small" selected>' in text
    unknown = page.get("/training/new/recipes/", {"method": "dpo", "base": "magic"}).content.decode()
    assert "optgroup" not in unknown and "dpo-zephyr" in unknown


def test_a_config_is_downloaded_and_fills_a_new_form(page: Client, base: Checkpoint) -> None:
    job = make_job(base, "reward", learning_rate=3e-5, max_tokens=300)
    for suffix in ("json", "toml"):
        answer = page.get(f"/training/{job.pk}/config.{suffix}")
        assert answer["Content-Disposition"] == f'attachment; filename="round-1.{suffix}"'
        config = parse_config(answer.content.decode())
        assert (config.method, config.snapshot, config.base) == ("reward", job.snapshot.name, "tiny")
        assert config.options == job.options
        upload = SimpleUploadedFile(f"a.{suffix}", answer.content)
        filled = page.post("/training/new/", {"step": "load", "config": upload})
        text = filled.content.decode()
        assert 'value="3e-5"' in text
        assert f'<option value="{job.snapshot_id}" selected>' in text
        assert filled.context["options"].method == "reward"
    assert page.get(f"/training/{job.pk}/config.exe").status_code == 404


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"method": "dpo", "speed": 3}', "Unknown key &#x27;speed&#x27;"),
        ('{"method": "dpo", "options": {"learning_rte": 1e-5}}', "Unknown option &#x27;learning_rte&#x27;"),
        ('method = "dpo"\n[options]\nlearning_rate = 7', "7.0 is outside"),
        ("method = dpo", "The config is not valid TOML"),
        ('{"method": "magic"}', "Unknown method"),
        ('{"method": "dpo", "format": 9}', "format is 9"),
        ('{"method": "dpo", "gpus": -1}', "whole number from 0 to 64, not -1"),
        ('{"method": "dpo", "priority": "urgent"}', "one of low, normal, high, not &#x27;urgent&#x27;"),
        ("snapshot = 'x'", "names no method"),
        ("\x00" * 70_000, "larger than any config"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(page: Client, base: Checkpoint, text: str, problem: str) -> None:
    create_snapshot(make_judged_project(1), "set", eval_share=0)
    answer = page.post("/training/new/", {"step": "load", "config": SimpleUploadedFile("a.toml", text.encode())})
    assert answer.status_code == 422
    assert problem in answer.content.decode()


def test_a_config_keeps_where_a_job_runs_and_may_name_an_alias(page: Client, base: Checkpoint) -> None:
    snapshot = create_snapshot(make_judged_project(2), "set", eval_share=0)
    placement = {"label": "a100", "gpus": "2", "priority": "1"}
    address = page.post("/training/new/", launch_form(snapshot, base, **placement))["Location"]
    move_alias("champion", base, why="the first")
    for suffix in ("json", "toml"):
        kept = page.get(f"{address}config.{suffix}").content.decode()
        config = parse_config(kept)
        assert (config.label, config.gpus, config.priority) == ("a100", 2, "high")
        named = kept.replace('"tiny"', '"champion"').encode()
        filled = page.post("/training/new/", {"step": "load", "config": SimpleUploadedFile(f"a.{suffix}", named)})
        assert filled.context["launch"].initial | {"base": base.pk, "label": "a100", "gpus": 2, "priority": 1} == (
            filled.context["launch"].initial
        )
        assert f'<option value="{base.pk}" selected>' in filled.content.decode()


def test_a_config_that_names_what_is_not_here_says_so(page: Client, base: Checkpoint) -> None:
    create_snapshot(make_judged_project(1), "set", eval_share=0)
    upload = SimpleUploadedFile("a.toml", b'method = "dpo"\nsnapshot = "gone"\nbase = "lost"\n')
    text = page.post("/training/new/", {"step": "load", "config": upload}).content.decode()
    assert "There is no data set gone here" in text
    assert "There is no checkpoint lost here" in text
