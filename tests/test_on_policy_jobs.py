"""On-policy jobs as the web side and the command see them: prompts, reward models, what is refused."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client

from annotation.services import DomainError
from rlhf import jobspec, preflight, supervisor
from rlhf.models import Checkpoint, CheckpointKind, DatasetSnapshot, InsightKind, SampleScores, TrainingJob
from rlhf.options import SpecError, build_options
from rlhf.rules import RULE_ARGUMENTS, build_rule
from rlhf.services import create_snapshot, queue_training_job, register_base_checkpoint
from rlhf.services.checkpoints import register_checkpoint
from rlhf.token_lengths import TokenCounter
from tests.factories import make_comparison, make_judged_project, make_judgment, make_prompt, make_user
from tests.tiny_model import CHAT_TEMPLATE, build_tiny_model

LENGTH = {"rule": "length", "rule_argument": "20"}


@pytest.fixture
def snapshot() -> DatasetSnapshot:
    """12 prompts with a verdict, one of them judged twice and once a tie, and one prompt that is long."""
    project = make_judged_project()
    again = project.prompts.order_by("pk")[0]
    make_judgment(make_comparison(project, prompt=again, a_text="Good day.", b_text="Go."), "a")
    make_judgment(make_comparison(project, prompt=again, a_text="Here it is.", b_text="Here."), "tie")
    make_judgment(make_comparison(project, prompt=make_prompt(project, "word " * 300)), "a")
    return create_snapshot(project, "set", eval_share=0)


@pytest.fixture
def base(tiny_model: Path) -> Checkpoint:
    return register_base_checkpoint("tiny", tiny_model)


def queue(snapshot: DatasetSnapshot, base: Checkpoint, method: str = "ppo", **options: Any) -> TrainingJob:
    return queue_training_job(snapshot=snapshot, method=method, base=base, options=options)


def reward_model(directory: Path, name: str = "taste", **build: Any) -> Checkpoint:
    """A checkpoint that says that it scores; nothing here runs it."""
    build_tiny_model(directory, **build)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForSequenceClassification"]}))
    jobspec.write_manifest(directory)
    return register_checkpoint(name=name, kind=CheckpointKind.REWARD, directory=directory)


@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir")
def test_each_prompt_is_taken_once_whatever_was_judged_of_it(snapshot: DatasetSnapshot, base: Checkpoint) -> None:
    job = queue(snapshot, base, "grpo", **LENGTH)
    report = job.preflight["train"]
    assert (report["judged"], report["used"], report["repeated"], report["too_long"]) == (15, 12, 2, 1)
    assert preflight.describe(report).startswith("12 prompts from 15 judged comparisons")
    options = build_options("grpo", LENGTH)
    rows = list(preflight.usable_rows(snapshot, "train", "grpo", TokenCounter(base.path), options))
    assert len(rows) == 12
    assert {*rows[0]} == {"id", "group", "prompt"}


@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir")
def test_chosen_responses_come_along_where_the_kl_is_taken_on_them(
    snapshot: DatasetSnapshot, base: Checkpoint
) -> None:
    options = build_options("grpo_token_kl", {**LENGTH, "ptx_coefficient": 0.1})
    rows = list(preflight.usable_rows(snapshot, "train", "grpo_token_kl", TokenCounter(base.path), options))
    completions = [row["completion"][0]["content"] for row in rows if "completion" in row]
    assert len(completions) == 13  # the tie gave none, and the long prompt is too long with a response, too
    assert "Good day." in completions
    assert not any("go away" in text for text in completions)


@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir")
def test_a_reward_model_is_found_by_name_and_stays_known_to_the_job(
    snapshot: DatasetSnapshot, base: Checkpoint, tmp_path: Path
) -> None:
    taste = reward_model(tmp_path / "taste")
    job = queue(snapshot, base, reward_model="taste")
    assert job.reward_model == taste
    assert job.options["reward_model"] == "taste"
    assert list(taste.jobs_scored_by_this.all()) == [job]

    with pytest.raises(DomainError, match="there is no reward model tiny; known: taste"):
        queue(snapshot, base, reward_model="tiny")
    reward_model(tmp_path / "terse", "terse", chat_template=CHAT_TEMPLATE.replace("helpful", "terse"))
    with pytest.raises(DomainError, match="another chat template"):
        queue(snapshot, base, reward_model="terse")
    (tmp_path / "taste" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(DomainError, match="is not the file that its manifest describes"):
        queue(snapshot, base, reward_model="taste")
    assert TrainingJob.objects.count() == 1


@pytest.mark.parametrize(
    ("method", "given", "words"),
    [
        ("ppo", {}, "reward_model: nothing says what is good"),
        ("ppo", {"rule": "length"}, "rule_argument: '' is not a number of tokens above 0"),
        ("ppo", {"rule": "regex", "rule_argument": "("}, "is not a regular expression"),
        ("ppo", {"rule_argument": "thanks", "reward_model": "m"}, "rule_argument has no effect where rule is none"),
        ("rloo", {**LENGTH, "samples_per_prompt": 1}, "samples_per_prompt must be at least 2"),
        ("grpo", {**LENGTH, "samples_per_prompt": 3}, "batch_size 32 is not a multiple of samples_per_prompt 3"),
        ("ppo", {**LENGTH, "minibatches": 3}, "batch_size 32 is not a multiple of minibatches 3"),
        ("ppo", {**LENGTH, "max_completion_tokens": 512}, "leaves no room for a prompt"),
        ("ppo", {**LENGTH, "ptx_coefficient": -1}, "ptx_coefficient: -1"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(method: str, given: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as refused:
        build_options(method, given)
    assert words in str(refused.value)


def test_rules_score_from_0_to_1() -> None:
    def score(name: str, argument: str, text: str, ids: list[int]) -> float:
        return build_rule(name, argument, vocabulary_size=10)(text, ids)

    assert [score("length", "4", "", [1] * n) for n in (0, 2, 4, 6, 8, 20)] == [0, 0.5, 1, 0.5, 0, 0]
    assert score("contains", "Thank", "many thanks", []) == 1
    assert score("contains", "Thank", "no", []) == 0
    assert [score("regex", r"^\d+$", text, []) for text in ("12", "12 of")] == [1, 0]
    assert score("vocabulary_half", "lower", "", [0, 4, 5, 9]) == 0.5
    assert score("vocabulary_half", "upper", "", [5, 9, 4]) == pytest.approx(2 / 3)
    assert score("vocabulary_half", "lower", "", []) == 0
    for name in RULE_ARGUMENTS:
        with pytest.raises(ValueError):
            build_rule(name, "", vocabulary_size=10)


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("data_dir")
def test_the_command_trains_a_reward_model_and_then_a_policy_by_it(base: Checkpoint) -> None:
    create_snapshot(make_judged_project(), "polite", eval_share=0.25)
    common = {"snapshot": "polite", "base": "tiny", "wait": True}
    shape = ["max_steps=2", "micro_batch_size=4", "bf16=no"]
    call_command("train", method="reward", name="taste", settings_given=shape, **common)
    on_policy = [*shape, "reward_model=taste", "batch_size=12", "max_completion_tokens=8", "use_lora=no"]
    for method in ("ppo", "grpo_token_kl", "grpo", "rloo"):
        samples = [] if method == "ppo" else ["samples_per_prompt=3"]
        call_command("train", method=method, settings_given=[*on_policy, *samples], **common)
        job = TrainingJob.objects.get(method=method)
        assert job.status == "succeeded", job.error
        assert job.reward_model == Checkpoint.objects.get(name="taste")
        spec = jobspec.JobSpec.read(job.directory)
        assert spec.options.reward_model == str(job.reward_model.path)  # type: ignore[attr-defined]
        assert "eval_reward" in job.metrics
        assert job.checkpoint.kind == CheckpointKind.POLICY

    trained = TrainingJob.objects.filter(checkpoint__kind=CheckpointKind.POLICY)
    out = StringIO()
    numbers = [str(job.pk) for job in trained]
    call_command("score_samples", "--reward-model", "taste", "--job", *numbers, "--json", stdout=out)
    scored = json.loads(out.getvalue())
    assert (scored["prompts"], scored["left_out"], len(scored["jobs"])) == (3, 0, 4)
    for of_job in scored["jobs"]:
        assert of_job["score"]["lower"] <= of_job["score"]["mean"] <= of_job["score"]["upper"]
    # All began as one model, so what each was given at step 0 is the same.
    began = [[row["before"] for row in scores.values] for scores in SampleScores.objects.filter(job__in=trained)]
    assert all(scores == pytest.approx(began[0], abs=1e-4) for scores in began) and len(set(began[0])) > 1


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("data_dir")
@pytest.mark.parametrize("method", ["ppo", "grpo"])
def test_a_job_shows_what_it_samples_and_raises_its_alarms(base: Checkpoint, method: str) -> None:
    """The rule gives every completion 0, so nothing is learnt, and the loss is 0 at each step."""
    rule = {"rule": "contains", "rule_argument": "no such words", "kl_coefficient": 0}
    shape = {"batch_size": 8, "micro_batch_size": 4, "samples_per_prompt": 2, "max_completion_tokens": 8}
    often = {"max_steps": 12, "pause_on_alarm": False, "eval_every_steps": 6, "sample_prompts": 2, "sample_tokens": 10}
    snapshot = create_snapshot(make_judged_project(), "votes", eval_share=0.25)
    job = queue(snapshot, base, method, **rule, **shape, **often, use_lora=False, bf16=False)
    assert supervisor.run_training_job(job.pk)
    job.refresh_from_db()
    assert job.status == "succeeded", job.error

    shown = {
        kind: dict(job.insights.filter(kind=kind).order_by("step").values_list("step", "values"))
        for kind in InsightKind.values
    }
    assert list(shown["samples"]) == [0, 6, 12]
    prompts = [[row["prompt"] for row in values["rows"]] for values in shown["samples"].values()]
    assert prompts[0] == prompts[1] == prompts[2] and len(prompts[0]) == 2
    assert all(row["tokens"] <= 10 for values in shown["samples"].values() for row in values["rows"])
    assert shown["hardware"][0]["processes"] == 1
    (batch,) = shown["first_batch"].values()
    assert all(0 < row["in_loss"] <= 8 and row["in_loss"] < row["tokens"] for row in batch["rows"])
    assert list(shown["extremes"]) == [6, 12]
    assert shown["extremes"][12]["measure"] == "sampled"
    rows = shown["extremes"][12]["worst"] + shown["extremes"][12]["best"]
    assert {row["value"] for row in rows} == {0.0}
    assert {row["prompt"][-1]["content"] for row in rows} <= _held_out_prompts(job)
    assert [(alarm.code, alarm.step) for alarm in job.alarms.all() if alarm.code == "zero_loss"] == [("zero_loss", 10)]

    client = Client()
    client.force_login(make_user("boss", is_staff=True))

    def page(tab: str) -> str:
        return client.get(f"/training/{job.pk}/?tab={tab}").content.decode()

    curves = page("curves")
    for slug in ("reward", "entropy", "length", "clipped"):
        assert f'id="plot-{slug}"' in curves, slug
    assert "Axolotl’s guide" in curves
    assert "The loss is exactly 0" in curves
    assert "answered greedily each time" in page("samples") and "step 12" in page("samples")
    assert "of them learnt" in page("batch") and "<mark" in page("batch")
    assert f"Among {shown['extremes'][12]['counted']} responses sampled at step 12" in page("extremes")


def _held_out_prompts(job: TrainingJob) -> set[str]:
    lines = (job.directory / jobspec.EVAL_FILE).read_text().splitlines()
    return {json.loads(line)["prompt"][-1]["content"] for line in lines}
