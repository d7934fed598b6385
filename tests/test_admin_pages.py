"""The staff pages through HTTP: who may see them, what they accept, and how many queries they cost."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import URLPattern, reverse

from annotation import services
from annotation.models import Project, ResponseSource
from rlhf import jobspec, urls
from rlhf.forms import OptionsForm, option_help
from rlhf.models import Checkpoint, CheckpointKind, DatasetSnapshot, GenerationJob, JobMetric, TrainingJob
from rlhf.services import (
    create_snapshot,
    jobs,
    leases,
    publish_checkpoint,
    queue_generation_job,
    queue_training_job,
    register_base_checkpoint,
)
from rlhf.services.checkpoints import register_checkpoint
from tests.factories import (
    make_annotator,
    make_comparison,
    make_judged_project,
    make_judgment,
    make_project,
    make_prompt,
    make_response,
    make_user,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("data_dir")]


@pytest.fixture
def base(tiny_model: Path) -> Checkpoint:
    return register_base_checkpoint("tiny", tiny_model)


@pytest.fixture
def staff() -> User:
    return make_user("boss", is_staff=True)


@pytest.fixture
def page(staff: User) -> Client:
    client = Client()
    client.force_login(staff)
    return client


def make_job(base: Checkpoint, method: str = "dpo", **options: Any) -> TrainingJob:
    project = make_judged_project()
    snapshot = create_snapshot(project, project.slug, eval_share=0.25)
    return queue_training_job(snapshot=snapshot, method=method, base=base, options=options, name="round-1")


def log_steps(job: TrainingJob, count: int) -> TrainingJob:
    """Claim the job and log steps as its worker would."""
    claimed = leases.claim_job(TrainingJob, job.pk, "node-3:42:abc")
    assert claimed is not None
    for step in range(1, count + 1):
        line = {"step": step, "total_steps": 40, "loss": 0.7 - step / 100, "tokens_per_second": 231.0}
        jobs.record_progress(claimed, [line | {"rewards/chosen": 0.1, "peak_memory_gb": 2.1}])
    claimed.refresh_from_db()
    return claimed


def finish(job: TrainingJob, model: Path, **metrics: float) -> Checkpoint:
    leases.finish_job(job, "succeeded", metrics=metrics)
    kind = CheckpointKind.REWARD if job.method == "reward" else CheckpointKind.POLICY
    return register_checkpoint(name=f"{job}-out", kind=kind, directory=model, parent=job.base, job=job, step=40)


# ── Who may ──────────────────────────────────────────────────────────────────────────────────────────────────────


def every_address() -> list[str]:
    values = {
        "slug": "demo", "pk": 1, "user_id": 1, "job_id": 1, "kind": "dpo", "suffix": "jsonl",
    }  # fmt: skip
    addresses = []
    for pattern in urls.urlpatterns:
        assert isinstance(pattern, URLPattern)
        names = pattern.pattern.regex.groupindex
        addresses.append(reverse(str(pattern.name), kwargs={name: values[name] for name in names}))
    return addresses


@pytest.mark.parametrize("address", every_address())
@pytest.mark.parametrize("method", ["get", "post"])
def test_only_staff_may_open_a_staff_page(address: str, method: str, client: Client) -> None:
    answer = getattr(client, method)(address)
    if address.startswith("/api/"):
        assert answer.status_code == 403
    else:
        assert (answer.status_code, answer["Location"].split("?")[0]) == (302, reverse("login"))
    client.force_login(make_user())
    assert getattr(client, method)(address).status_code == 403


def test_a_watching_page_that_was_signed_out_is_told_to_load_anew(client: Client) -> None:
    answer = client.get("/training/rows/", headers={"HX-Request": "true"})
    assert (answer.status_code, answer["HX-Refresh"]) == (401, "true")


# ── Projects ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_project_is_made_and_its_short_name_is_taken_then(page: Client) -> None:
    data = {"name": "Helpful", "slug": "Helpful", "judgments_per_comparison": 2, "guidelines": "Be **fair**."}
    answer = page.post("/projects/", data)
    assert (answer.status_code, answer["Location"]) == (302, "/projects/helpful/")
    project = Project.objects.get(slug="helpful")
    assert (project.name, project.judgments_per_comparison, project.guidelines) == ("Helpful", 2, "Be **fair**.")
    answer = page.post("/projects/", data | {"name": "Other"})
    assert answer.status_code == 422
    assert "There is a project with the short name helpful already" in answer.content.decode()
    assert Project.objects.count() == 1


def test_an_empty_project_says_what_to_do_next(page: Client) -> None:
    make_project("fresh")
    text = page.get("/projects/fresh/").content.decode()
    assert "Begin with prompts" in text
    assert "Generate responses first" in text
    assert "not defined: no comparison has two judgments" in text


def test_the_loop_page_shows_ratings_agreement_and_sway(page: Client) -> None:
    project = make_project("loop", judgments_per_comparison=2)
    good, bad = (ResponseSource.objects.create(name=name, kind="imported") for name in ("good", "bad"))
    people = [make_annotator(), make_annotator()]
    for number in range(10):
        prompt = make_prompt(project)
        pair = (make_response(prompt, good, f"long answer {number}"), make_response(prompt, bad, f"no {number}"))
        services.create_comparisons(project, [pair])
        for person in people:
            preference = "b" if (number < 3 and person is people[0]) or number == 9 else "a"
            make_judgment(prompt.comparisons.get(), preference, annotator=person)
    text = re.sub(r"<[^>]*>|\s+", " ", page.get("/projects/loop/").content.decode())
    text = re.sub(r"\s+", " ", text)
    assert "Judgments 20 / 20" in text
    assert re.search(r"1 good 1\d\d\d \(\d+–\d+\) 20", text)
    assert "Two people agree 70 % of 10 pairs of votes" in text
    assert "Longer answer chosen 75 % (53–89) of 20" in text
    assert "Left side chosen not defined" in text


def test_prompts_are_added_all_or_none_with_the_line_named(page: Client) -> None:
    project = make_project("p")
    answer = page.post("/projects/p/prompts/", {"text": '{"prompt": "Why?"}\n{"prompt": 3}\n{"promt": "x"}'})
    text = answer.content.decode()
    assert answer.status_code == 422
    assert "Line 2: " in text
    assert "Line 3: unknown key &#x27;promt&#x27;" in text
    assert not project.prompts.exists()
    file = SimpleUploadedFile("prompts.txt", b"Warum?\nWozu?\nWarum?\n")
    assert page.post("/projects/p/prompts/", {"file": file}, follow=True).status_code == 200
    assert project.prompts.count() == 2
    bad = SimpleUploadedFile("prompts.txt", b"caf\xe9\n")
    assert "is not UTF-8 text (byte 3)" in page.post("/projects/p/prompts/", {"file": bad}).content.decode()


def test_people_are_added_and_removed(page: Client) -> None:
    project = make_project("p")
    user = make_user("ann")
    make_comparison(project)
    page.post("/projects/p/people/", {"user": user.pk})
    assert list(project.members.all()) == [user]
    services.claim_assignments(annotator=services.annotator_for(user), project=project)
    answer = page.post(f"/projects/p/people/{user.pk}/remove/", follow=True)
    assert "1 comparisons went back" in answer.content.decode()
    assert not project.members.exists()


def test_generation_is_queued_and_stopped(page: Client, base: Checkpoint) -> None:
    project = make_project("p")
    make_prompt(project)
    source = publish_checkpoint(base)
    form = {"source": source.pk, "per_prompt": 2, "temperature": 0.5, "max_tokens": 64, "seed": 3}
    answer = page.post("/projects/p/generate/", form, follow=True)
    job = GenerationJob.objects.get()
    assert (job.response_total, job.sampling["temperature"], job.sampling["seed"]) == (2, 0.5, 3)
    assert "0 of 2" in answer.content.decode()
    assert 'hx-trigger="every 2s"' in answer.content.decode()
    page.post(f"/projects/p/generate/{job.pk}/cancel/")
    job.refresh_from_db()
    assert job.status == "cancelled"
    assert 'hx-trigger="every 2s"' not in page.get("/projects/p/generate/jobs/").content.decode()
    answer = page.post("/projects/p/generate/", form | {"per_prompt": 1})
    assert "One response cannot be compared with itself" in answer.content.decode()
    answer = page.post("/projects/p/generate/", form | {"against": source.pk})
    assert "This is the same source" in answer.content.decode()


@pytest.mark.django_db(transaction=True)
def test_exports_are_downloaded_whole(page: Client) -> None:
    project = make_judged_project(3)
    answer = page.get(f"/projects/{project.slug}/export/dpo.jsonl")
    assert answer["Content-Disposition"] == f'attachment; filename="{project.slug}-dpo.jsonl"'
    rows = [json.loads(line) for line in b"".join(answer.streaming_content).splitlines()]  # type: ignore[attr-defined]
    assert [row["chosen"][0]["content"][:9] for row in rows] == ["Thank you"] * 3
    answer = page.get(f"/projects/{project.slug}/export/sft.parquet")
    assert b"".join(answer.streaming_content)[:4] == b"PAR1"  # type: ignore[attr-defined]
    assert page.get(f"/projects/{project.slug}/export/gold.jsonl").status_code == 404
    assert page.get(f"/projects/{project.slug}/export/dpo.exe").status_code == 404


# ── Data sets ────────────────────────────────────────────────────────────────────────────────────────────────────


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


# ── Launching ────────────────────────────────────────────────────────────────────────────────────────────────────


def launch_form(snapshot: DatasetSnapshot, base: Checkpoint, method: str = "dpo", **changes: object) -> dict[str, Any]:
    options = OptionsForm(method)
    form = {name: field.initial for name, field in options.fields.items() if field.initial is not False}
    form |= {"snapshot": snapshot.pk, "base": base.pk, "method": method, "name": "", "step": "check"}
    return {name: value for name, value in (form | changes).items() if value is not None}


def test_every_option_of_every_method_has_a_field_with_its_default_and_help() -> None:
    for method, cls in jobspec.OPTIONS.items():
        form = OptionsForm(method)
        assert set(form.fields) == set(cls.__dataclass_fields__)
        bound = OptionsForm(method, {n: f.initial for n, f in form.fields.items() if f.initial is not False})
        assert bound.is_valid(), bound.errors
        assert bound.options == cls()
    assert option_help("dpo")["beta"] == "How strongly the policy is held to the reference model."
    assert option_help("dpo")["learning_rate"] == "Peak, after warm-up."
    assert "weight_decay" not in option_help("dpo")


def test_a_job_is_checked_first_and_stored_only_when_started(page: Client, base: Checkpoint) -> None:
    project = make_judged_project()
    make_judgment(make_comparison(project, a_text="word " * 400), "a")
    make_judgment(make_comparison(project), "tie")
    snapshot = create_snapshot(project, "set", eval_share=0)
    form = launch_form(snapshot, base, name="round-1", max_tokens="256", learning_rate="2e-5", use_lora=None)
    text = page.post("/training/new/", form).content.decode()
    assert "12 of 14 judged comparisons become rows to train on" in text
    assert "1 training rows longer than 256 tokens left out (1 chosen, 0 rejected)" in text
    assert "1 about the same" in text
    assert "No held-out row" in text
    assert not TrainingJob.objects.exists()
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', text)) | {"step": "start"}
    hidden.pop("csrfmiddlewaretoken")
    answer = page.post("/training/new/", hidden)
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
    for step in ("check", "start"):
        answer = page.post("/training/new/", launch_form(snapshot, base) | {"step": step})
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
    form = launch_form(job.snapshot, base, "reward", learning_rate="4e-5") | {"step": "change"}
    assert 'value="4e-5"' in page.post("/training/new/", form).content.decode()


# ── A job's page ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_queued_job_waits_for_the_broker_and_is_cancelled(page: Client, base: Checkpoint) -> None:
    first, job = make_job(base), make_job(base)
    text = page.get(f"/training/{job.pk}/").content.decode()
    assert "The message broker is away" in text  # tests run without one
    assert "it starts when the broker is back" in text
    assert "1 before it" in text
    assert 'hx-trigger="every 2s"' in text
    assert "Cancel the job" in page.get(f"/training/{job.pk}/stop/").content.decode()
    answer = page.post(f"/training/{job.pk}/stop/", {"mode": "discard"}, follow=True)
    job.refresh_from_db()
    assert job.status == "cancelled"
    text = answer.content.decode()
    assert 'hx-trigger="every 2s"' not in text
    assert "The message broker is away" not in text
    answer = page.post(f"/training/{job.pk}/stop/", {"mode": "keep"}, follow=True)
    assert "there is nothing to cancel" in answer.content.decode()
    first.refresh_from_db()
    assert first.status == "queued"


def test_a_running_job_is_stopped_in_the_mode_that_was_chosen(page: Client, base: Checkpoint) -> None:
    job = log_steps(make_job(base), 3)
    assert "Stop and keep" in page.get(f"/training/{job.pk}/").content.decode()
    assert page.post(f"/training/{job.pk}/stop/", {"mode": "later"}, follow=True).status_code == 200
    job.refresh_from_db()
    assert job.cancel_mode == ""
    page.post(f"/training/{job.pk}/stop/", {"mode": "keep"})
    job.refresh_from_db()
    assert (job.status, job.cancel_mode) == ("running", "keep")
    assert "keep what was learnt" in page.get(f"/training/{job.pk}/progress/").content.decode()


def test_a_running_job_shows_where_it_stands(page: Client, base: Checkpoint) -> None:
    job = log_steps(make_job(base), 10)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.get(f"/training/{job.pk}/").content.decode()))
    assert "step 10 / 40" in text
    assert "trained on 9 of 9" in text
    assert "231 tok/s" in text
    assert "peak memory 2.1 GB" in text
    assert "this job on node-3" in text
    assert "9 of 9 judged comparisons become rows" in text
    text = page.get(f"/training/{job.pk}/?tab=options").content.decode()
    assert "node-3:42:abc" in text
    assert job.code_version in text


def test_an_ended_job_tells_a_watching_page_to_load_anew(page: Client, base: Checkpoint, tiny_model: Path) -> None:
    job = log_steps(make_job(base), 2)
    assert "HX-Refresh" not in page.get(f"/training/{job.pk}/progress/")
    finish(job, tiny_model, **{"eval_rewards/accuracies": 2 / 3, "eval_rows_used": 3})
    assert page.get(f"/training/{job.pk}/progress/")["HX-Refresh"] == "true"
    text = page.get(f"/training/{job.pk}/").content.decode()
    assert "66.7 %" in text
    assert "(21–94) of 3" in text


def test_a_failed_job_says_in_full_what_happened_and_what_to_do(page: Client, base: Checkpoint) -> None:
    job = log_steps(make_job(base), 1)
    long_error = "Training ran out of memory. " + "x" * 500
    jobs.fail_or_retry(job, "out_of_memory", long_error)
    text = page.get(f"/training/{job.pk}/").content.decode()
    assert long_error in text
    assert "Clone the job and change one of these" in text


def test_the_log_is_the_end_of_the_file_as_plain_text(page: Client, base: Checkpoint) -> None:
    job = make_job(base)
    assert "The log begins when a worker starts" in page.get(f"/training/{job.pk}/?tab=log").content.decode()
    job.directory.mkdir(parents=True)
    lines = [f"line {number}" for number in range(1000)]
    (job.directory / "stdout.log").write_bytes(
        "\n".join([*lines, "<b>bold</b> \x1b[31mred\x00 \xff"]).encode("latin-1")
    )
    for address in (f"/training/{job.pk}/?tab=log", f"/training/{job.pk}/log/"):
        text = page.get(address).content.decode()
        assert "&lt;b&gt;bold&lt;/b&gt; [31mred" in text
        assert "line 999" in text
        assert "line 799" not in text
    (job.directory / "stdout.log").write_bytes(b"y" * 1_000_000)
    assert len(page.get(f"/training/{job.pk}/log/").content) < 70_000


def test_metrics_come_from_where_the_page_left_off(page: Client, base: Checkpoint) -> None:
    job = log_steps(make_job(base), 5)
    answer = page.get(f"/api/jobs/{job.pk}/metrics").json()
    assert [row["step"] for row in answer["rows"]] == [1, 2, 3, 4, 5]
    assert answer["rows"][0]["loss"] == pytest.approx(0.69)
    assert (answer["status"], answer["step"], answer["total_steps"], answer["attempt"]) == ("running", 5, 40, 1)
    assert answer["seconds_left"] is not None
    jobs.record_progress(job, [{"step": 5, "eval_loss": 0.5}])
    rows = page.get(f"/api/jobs/{job.pk}/metrics?after=4").json()["rows"]
    assert [(row["step"], row["loss"], row["eval_loss"]) for row in rows] == [(5, pytest.approx(0.65), 0.5)]
    assert page.get(f"/api/jobs/{job.pk}/metrics?after=x").status_code == 400
    assert page.get("/api/jobs/999999/metrics").status_code == 404


def test_many_metrics_come_in_parts(page: Client, base: Checkpoint) -> None:
    job = make_job(base)
    JobMetric.objects.bulk_create(JobMetric(job=job, step=step, values={"loss": 1.0}) for step in range(2500))
    answer = page.get(f"/api/jobs/{job.pk}/metrics").json()
    assert (len(answer["rows"]), answer["more"]) == (2000, True)
    answer = page.get(f"/api/jobs/{job.pk}/metrics?after=1999").json()
    assert (len(answer["rows"]), answer["more"]) == (500, False)


# ── Checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_checkpoint_is_published_and_offers_the_comparison_with_its_parent(
    page: Client, base: Checkpoint, tiny_model: Path
) -> None:
    job = log_steps(make_job(base), 2)
    project, parent_source = job.snapshot.project, publish_checkpoint(base)
    new = finish(job, tiny_model)
    make_response(project.prompts.first(), parent_source)  # type: ignore[arg-type]
    assert "Publish" in page.get("/checkpoints/").content.decode()
    text = page.post(f"/checkpoints/{new.pk}/publish/", follow=True).content.decode()
    new.refresh_from_db()
    assert new.source is not None
    assert f"source={new.source.pk}&amp;against={parent_source.pk}" in text
    opened = page.get(f"/projects/{project.slug}/generate/", {"source": new.source.pk, "against": parent_source.pk})
    assert f'<option value="{new.source.pk}" selected>' in opened.content.decode()
    assert f'<option value="{parent_source.pk}" selected>' in opened.content.decode()


def test_a_checkpoint_shows_how_it_is_judged_against_its_parent(
    page: Client, base: Checkpoint, tiny_model: Path
) -> None:
    job = log_steps(make_job(base), 2)
    project, old = job.snapshot.project, publish_checkpoint(base)
    checkpoint = finish(job, tiny_model)
    new = publish_checkpoint(checkpoint)
    for number in range(10):
        prompt = make_prompt(project)
        services.create_comparisons(project, [(make_response(prompt, old), make_response(prompt, new))])
        make_judgment(prompt.comparisons.get(), "b" if number < 7 else "a")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.get(f"/checkpoints/{checkpoint.pk}/").content.decode()))
    assert re.search(r"tiny its parent 70 % \(3\d % to 9\d %\) of 10", text)


def test_a_reward_model_is_not_published(page: Client, base: Checkpoint, tiny_model: Path) -> None:
    job = log_steps(make_job(base, "reward"), 2)
    checkpoint = finish(job, tiny_model, eval_accuracy=0.75, eval_pairs=100)
    assert "75.0 %" in page.get("/checkpoints/").content.decode()
    answer = page.post(f"/checkpoints/{checkpoint.pk}/publish/", follow=True)
    assert "is a reward model" in answer.content.decode()
    assert not ResponseSource.objects.filter(name=checkpoint.name).exists()


# ── What pages cost ──────────────────────────────────────────────────────────────────────────────────────────────


def test_every_page_takes_as_many_queries_for_many_rows_as_for_few(
    page: Client, base: Checkpoint, tiny_model: Path, django_assert_max_num_queries: Callable
) -> None:
    project = make_judged_project(4)
    publish_checkpoint(base)

    def add_more() -> None:
        snapshot = create_snapshot(project, f"set-{uuid4().hex[:8]}", eval_share=0.25)
        for _ in range(2):
            done = queue_training_job(snapshot=snapshot, method="dpo", base=base, options={})
            finish(log_steps(done, 3), tiny_model, **{"eval_rewards/accuracies": 1.0, "eval_rows_used": 1})
            log_steps(queue_training_job(snapshot=snapshot, method="sft", base=base, options={}), 3)
            queue_generation_job(project=project, source=base.source)  # type: ignore[arg-type]
            project.members.add(make_user())

    base.refresh_from_db()
    add_more()
    snapshot = DatasetSnapshot.objects.latest("pk")
    job = TrainingJob.objects.filter(status="running").latest("pk")
    checkpoint = Checkpoint.objects.latest("pk")
    pages = {
        "/projects/": 6,
        f"/projects/{project.slug}/": 24,
        f"/projects/{project.slug}/strip/": 14,
        f"/projects/{project.slug}/people/": 7,
        f"/projects/{project.slug}/prompts/": 6,
        f"/projects/{project.slug}/generate/": 9,
        f"/projects/{project.slug}/generate/jobs/": 5,
        "/data-sets/": 6,
        f"/data-sets/{snapshot.pk}/": 5,
        "/training/": 5,
        "/training/rows/": 5,
        "/training/new/": 9,
        f"/training/{job.pk}/": 11,
        f"/training/{job.pk}/?tab=log": 7,
        f"/training/{job.pk}/?tab=options": 7,
        f"/training/{job.pk}/progress/": 7,
        "/checkpoints/": 4,
        f"/checkpoints/{checkpoint.pk}/": 7,
        f"/api/jobs/{job.pk}/metrics": 6,
    }
    costs = {}
    for address, most in pages.items():
        with django_assert_max_num_queries(most) as queries:
            assert page.get(address).status_code == 200
        costs[address] = len(queries)
    add_more()
    for address in pages:
        with django_assert_max_num_queries(costs[address]):
            assert page.get(address).status_code == 200
