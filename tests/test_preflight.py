"""What is looked at before a job starts, check by check."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import storages

from annotation.models import Response
from rlhf.footprint import ModelSize, disk_bytes, memory_of
from rlhf.hardware import GPU, Hardware
from rlhf.job_directory import rows_of
from rlhf.jobspec import OPTIONS_FILE, check_resumable, write_json_atomically, write_manifest
from rlhf.models import Checkpoint
from rlhf.option_words import RECIPE_NAMES
from rlhf.options import OPTIONS, OnPolicyOptions, SpecError, build_options
from rlhf.preflight import Finding, Level, Outcome, run_checks, sentence, settle
from rlhf.preflight.content import Content
from rlhf.preflight.findings import passed, warned
from rlhf.preflight.lengths import BINS, samples
from rlhf.preflight.rows import check_rows, empty_report
from rlhf.preflight.sentences import WORDS
from rlhf.preflight.settings import check_disk, check_memory, check_settings
from rlhf.recipes import BANDS, RECIPES
from rlhf.services import create_snapshot, publish_checkpoint, register_base_checkpoint
from rlhf.services.workers import announce_worker
from rlhf.snapshots import snapshot_path
from rlhf.token_lengths import TokenCounter
from rlhf.training.probe import largest_difference
from tests.factories import make_comparison, make_judged_project, make_judgment, make_project, make_prompt
from tests.tiny_model import CHAT_TEMPLATE

BIG = ModelSize(parameters=10**14, adaptable=10**9, hidden=8192, layers=80, vocabulary=128_000)
LLAMA_8B = ModelSize(parameters=8 * 10**9, adaptable=2 * 10**6, hidden=4096, layers=32, vocabulary=128_000)


def said(findings: Iterable[Finding]) -> dict[str, str]:
    """Code → level, and each has a sentence whose gaps are all filled."""
    found = {}
    for finding in findings:
        assert "%(" not in sentence(finding)
        found[finding.code] = finding.level.name.lower()
    return found


def pair(number: int, prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    texts = {"chosen": chosen, "rejected": rejected}
    sides = {side: [{"role": "assistant", "content": text}] for side, text in texts.items()}
    return {"id": number, "prompt": [{"role": "user", "content": prompt}], **sides}


def content_of(*rows: dict[str, Any], held_out: Iterable[dict[str, Any]] = (), method: str = "dpo") -> list[Finding]:
    content = Content()
    for split, of_split in (("train", rows), ("eval", held_out)):
        for row in of_split:
            content.add(split, row)
    return list(content.check(method))


def test_rows_that_contradict_or_repeat_are_named() -> None:
    rows = [pair(number, f"Question {number}", "yes", "no") for number in range(20)]
    assert said(content_of(*rows)) == {"no_contradiction": "passed"}
    wrong = [pair(20, "Question 3", "no", "yes"), pair(21, "Question 4", "yes", "no")]
    findings = content_of(*rows, *wrong)
    assert said(findings) == {"contradicting": "warned", "repeated": "warned"}
    assert {finding.code: finding.values["examples"] for finding in findings} == {
        "contradicting": [20],
        "repeated": [21],
    }
    many = [pair(30 + number, f"Question {number}", "no", "yes") for number in range(10)]
    assert said(content_of(*rows, *many))["contradicting"] == "blocked"


def test_held_out_prompts_that_are_trained_on_word_for_word_or_nearly_are_found() -> None:
    long = "How do I keep a basil plant alive on a kitchen windowsill that gets sun only in the morning"
    train = [pair(1, long + "?", "a", "b"), pair(2, "Something else entirely", "a", "b")]
    clean = [pair(3, "What is a good name for a quiet dog?", "a", "b")]
    assert said(content_of(*train, held_out=clean))["no_leak"] == "passed"
    near = content_of(*train, held_out=[*clean, pair(4, long + ", please?", "a", "b")])
    assert said(near)["alike"] == "warned"
    assert near[-1].values["examples"] == [4]
    exact = [pair(number, f"Question {number}", "a", "b") for number in range(8)]
    assert said(content_of(*exact, held_out=exact))["leaked"] == "blocked"
    assert said(content_of(*exact, held_out=exact[:1]))["leaked"] == "warned"  # one row is no reason to refuse


def test_kto_needs_both_kinds() -> None:
    row = {
        "id": 1,
        "prompt": [{"role": "user", "content": "?"}],
        "completion": [{"role": "assistant", "content": "!"}],
    }
    good, bad = row | {"label": True}, row | {"label": False}
    assert said(content_of(good, method="kto"))["all_desirable"] == "refused"
    assert said(content_of(bad, method="kto"))["all_undesirable"] == "refused"
    assert said(content_of(good, bad, method="kto")) == {"contradicting": "warned"}


def counts(**changes: int) -> dict[str, Any]:
    return empty_report(512) | {"judged": 200, "used": 200, "longest_tokens": 300} | changes


@pytest.mark.parametrize(
    ("train", "held_out", "expected"),
    [
        ({}, {}, {"rows_used": "passed", "none_cut": "passed", "held_out": "passed"}),
        ({}, {"used": 0}, {"rows_used": "passed", "none_cut": "passed", "no_held_out": "warned"}),
        ({"used": 0, "too_long": 200}, {}, {"all_too_long": "refused", "too_long": "blocked", "held_out": "passed"}),
        ({"used": 0}, {}, {"no_rows": "refused", "held_out": "passed"}),
        (
            {"too_long": 8, "too_long_chosen": 4, "too_long_rejected": 4},
            {},
            {"rows_used": "passed", "too_long_by_side": "warned", "held_out": "passed"},
        ),
        (
            {"too_long": 8, "too_long_chosen": 7, "too_long_rejected": 1},
            {},
            {
                "rows_used": "passed",
                "too_long_by_side": "warned",
                "uneven_loss": "blocked",
                "held_out": "passed",
            },
        ),
        (
            {"used": 180, "too_long": 20},
            {"used": 180, "too_long": 20},
            {
                "rows_used": "passed",
                "too_long": "blocked",
                "too_long_held_out": "blocked",
                "held_out": "passed",
            },
        ),
        (
            {"cut": 8, "cut_chosen": 4, "cut_rejected": 4},
            {},
            {"rows_used": "passed", "cut_by_side": "warned", "held_out": "passed"},
        ),
        (
            {"cut": 20, "cut_chosen": 19, "cut_rejected": 1},
            {},
            {"rows_used": "passed", "cut_by_side": "blocked", "uneven_cut": "blocked", "held_out": "passed"},
        ),
        ({"cut": 3}, {}, {"rows_used": "passed", "cut": "warned", "held_out": "passed"}),
        (
            {"refused": 30},
            {},
            {
                "rows_used": "passed",
                "none_cut": "passed",
                "template_refuses": "blocked",
                "held_out": "passed",
            },
        ),
    ],
)
def test_rows_that_are_lost_warn_and_many_or_uneven_ones_block(
    train: dict[str, int], held_out: dict[str, int], expected: dict[str, str]
) -> None:
    assert said(check_rows({"train": counts(**train), "eval": counts(**held_out)})) == expected


def needed(method: str) -> dict[str, Any]:
    """What a method cannot be without."""
    return {"reward_model": "any"} if issubclass(OPTIONS[method], OnPolicyOptions) else {}


def test_learning_rate_and_epochs_against_what_is_usual() -> None:
    def judged(method: str, size: ModelSize, **options: Any) -> dict[str, str]:
        return said(check_settings(method, build_options(method, options), size))

    assert judged("dpo", LLAMA_8B, learning_rate=5e-7, epochs=1, use_lora=False) == {"rate_usual": "passed"}
    # The defaults of a well-known form: a hundred times the published rates, three epochs.
    assert judged("dpo", LLAMA_8B, learning_rate=5e-5, epochs=3, use_lora=False) == {
        "rate_high": "blocked",
        "epochs_many": "warned",
    }
    assert judged("dpo", LLAMA_8B, learning_rate=3e-6, epochs=1, use_lora=False) == {"rate_high": "warned"}
    assert judged("reward", LLAMA_8B, learning_rate=1e-7) == {"rate_low": "warned"}
    assert judged("reward", LLAMA_8B, learning_rate=1e-8) == {"rate_low": "blocked"}
    full = {"learning_rate": 5e-7, "epochs": 1, "use_lora": False}
    for loss, beta, found in (
        ("sigmoid_norm", 5, {}),
        ("sigmoid_norm", 0.1, {"beta_unusual": "warned"}),
        ("sigmoid", 5, {"beta_unusual": "warned"}),
    ):
        assert judged("dpo", LLAMA_8B, **full, loss_type=loss, beta=beta) == {"rate_usual": "passed"} | found
    for method in BANDS:  # our own defaults, on a model as small as the starter
        size = ModelSize(135_000_000, 0, 576, 30, 49_152)
        assert set(judged(method, size, **needed(method)).values()) == {"passed"}


def test_every_recipe_can_be_used_is_usual_and_names_its_source() -> None:
    assert len({recipe.key for recipe in RECIPES}) == len(RECIPES)
    assert {recipe.name for recipe in RECIPES} == set(RECIPE_NAMES)  # they are translated by their English words
    for recipe in RECIPES:
        options = build_options(recipe.method, recipe.options | needed(recipe.method))
        size = ModelSize(8 * 10**9 if recipe.smallest else 10**8, 0, 1, 1, 1)
        assert recipe.suits(size.parameters)
        assert set(said(check_settings(recipe.method, options, size)).values()) <= {"passed"}, recipe.key
        assert recipe.source


@pytest.mark.usefixtures("data_dir")
def test_disk_and_memory_that_cannot_suffice_block() -> None:
    full = build_options("dpo", {"use_lora": False})
    here = [Hardware(2, 16.0, ())]
    assert said([*check_disk("dpo", full, BIG, 100), *check_memory("dpo", full, BIG, 512, here)]) == {
        "disk_short": "blocked",
        "memory_short": "blocked",
    }
    small = ModelSize(10**6, 10**4, 64, 2, 1000)
    assert said([*check_disk("dpo", full, small, 100), *check_memory("dpo", full, small, 512, here)]) == {
        "disk": "passed",
        "memory": "passed",
    }
    often = build_options("dpo", {"use_lora": True, "model_every_steps": 20})
    [blocked] = check_disk("dpo", often, dataclasses.replace(LLAMA_8B, parameters=10**12), 100)
    assert "4 more to evaluate" in sentence(blocked) and said([blocked]) == {"disk_short_of_step_models": "blocked"}
    assert said(check_disk("dpo", often, small, 100)) == {"disk_of_step_models": "passed"}
    assert said(check_disk("dpo", often, small, 20)) == {"disk": "passed"}, "the last step's model is the job's own"
    assert said(check_disk("reward", often, small, 100)) == {"disk": "passed"}, "reward models answer nothing"
    assert said(check_memory("dpo", full, BIG, 512, [])) == {"memory_estimate": "passed"}, "no machine is known"


def gb(method: str, *, reward_model: ModelSize | None = None, has_gpu: bool = False, **options: Any) -> float:
    """Of one process, where it computes."""
    given = {"use_lora": False, "micro_batch_size": 1, "batch_size": 8} | options
    built = build_options(method, (needed(method) if reward_model else {}) | given)
    return memory_of(LLAMA_8B, method, built, 512, reward_model=reward_model, has_gpu=has_gpu).computing / 1e9


def test_memory_counts_every_model_that_a_job_keeps() -> None:
    sft = gb("sft")
    assert 8 * 18 < sft < 8 * 18 + 10  # weights, cast weights, gradients and two moments, in float32 but for the cast
    rule = {"rule": "length", "rule_argument": "60"}
    assert gb("kto", micro_batch_size=2, batch_size=8) > sft + 32, "the reference"
    assert gb("grpo", **rule) == pytest.approx(sft + 32)
    assert gb("grpo", **rule, kl_coefficient=0) == pytest.approx(sft), "no reference is loaded"
    assert gb("ppo", **rule, kl_coefficient=0) == pytest.approx(sft + 32), "our own trainer loads one always"
    assert gb("ppo", reward_model=LLAMA_8B) == pytest.approx(sft + 64), "and the reward model"
    assert gb("ppo", reward_model=LLAMA_8B, use_lora=True) < 8 * (4 + 2 + 4) + 10, (
        "the adapter is switched off instead"
    )
    plain, grouped, single = (gb("sft", checkpoint_layers=layers, max_tokens=4096) for layers in (0, 2, 1))
    assert plain > grouped > single
    zero = {"launcher": "torchrun", "processes": 8}
    two, three = (gb("sft", has_gpu=True, **zero, zero_stage=stage) for stage in (2, 3))
    assert two == pytest.approx(sft - 8 * 12 + 8 * 16 / 8), "gradients and states are divided"
    assert three == pytest.approx(two - 8 * 6 * 7 / 8), "and the weights"
    assert gb("sft", has_gpu=True, **zero, zero_stage=3, offload="cpu") < 10


def test_all_processes_of_a_machine_are_counted_on_its_gpus_and_in_its_main_memory() -> None:
    def judged(machine: Hardware, gpus: int = 0, **options: Any) -> dict[str, str]:
        built = build_options("sft", {"micro_batch_size": 1, "batch_size": 8, **options})
        return said(check_memory("sft", built, LLAMA_8B, 512, [Hardware(2, 1.0, ()), machine], gpus=gpus))

    def with_gpus(count: int, each: float, main: float) -> Hardware:
        return Hardware(64, main, tuple(GPU(index, f"GPU-{index}", "A100", each) for index in range(count)))

    three = {"launcher": "torchrun", "processes": 8, "zero_stage": 3}
    assert judged(Hardware(64, 200.0, ())) == {"memory": "passed"}
    # Each process loads the whole model before it is divided.
    assert judged(Hardware(64, 200.0, ()), **three) == {"memory_of_processes_short": "blocked"}
    assert judged(with_gpus(1, 80.0, 1000.0), gpus=1) == {"memory_gpu_short": "blocked", "memory": "passed"}
    shared = {"memory_gpu_of_processes": "passed", "memory_of_processes": "passed"}
    assert judged(with_gpus(8, 80.0, 1000.0), gpus=8, **three) == shared
    assert judged(with_gpus(8, 80.0, 1000.0), **three) == shared, "every process takes one where there are some"
    assert judged(with_gpus(8, 80.0, 200.0), gpus=8, **three)["memory_of_processes_short"] == "blocked"
    estimates = {"memory_gpu_of_processes_estimate": "passed", "memory_of_processes_estimate": "passed"}
    assert judged(with_gpus(4, 80.0, 200.0), gpus=8, **three) == estimates, "no machine that is known has so many"


@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir")
def test_memory_is_that_of_the_workers_with_the_label(tiny_model: Path) -> None:
    announce_worker("train@small", "small", ["train"], Hardware(2, 0.1, ()), "1")
    gpu = GPU(0, "GPU-0", "A100", 80.0)
    announce_worker("train@big", "big", ["train.a100"], Hardware(64, 512.0, (gpu,)), "1")
    base = register_base_checkpoint("tiny", tiny_model)
    snapshot = create_snapshot(make_judged_project(2), "two", eval_share=0)
    options = build_options("dpo", {})
    assert said(run_checks(snapshot, "dpo", base, options).findings)["memory_short"] == "blocked"
    found = said(run_checks(snapshot, "dpo", base, options, label="a100", gpus=1).findings)
    assert (found["memory"], found["memory_gpu"]) == ("passed", "passed")


def test_what_a_full_run_and_an_adapter_take(tiny_model: Path) -> None:
    size = ModelSize.of(tiny_model)
    assert (size.hidden, size.layers) == (48, 2)
    # embeddings (tied), 2 layers of attention, feed-forward and norms, the last norm
    layer = 48 * 48 * 2 + 48 * 24 * 2 + 3 * 48 * 96 + 2 * 48
    assert size.parameters == size.vocabulary * 48 + 2 * layer + 48
    assert size.adaptable == 2 * (2 * (48 + 48) + 2 * (48 + 24) + 3 * (48 + 96))
    full, adapter = (build_options("dpo", {"use_lora": lora}) for lora in (False, True))
    assert disk_bytes(LLAMA_8B, full) == 8e9 * (3 * 12 + 4)
    assert disk_bytes(LLAMA_8B, adapter) == 3 * 12 * 16 * 2e6 + 8e9 * 4
    assert disk_bytes(LLAMA_8B, adapter, 4) == disk_bytes(LLAMA_8B, adapter) + 4 * 8e9 * 4


def test_only_some_options_may_change_on_resume(tmp_path: Path) -> None:
    written_with = {"learning_rate": 1e-5, "micro_batch_size": 4, "batch_size": 8, "checkpoint_every_steps": 50}
    write_json_atomically(tmp_path / OPTIONS_FILE, written_with)
    changed = {"micro_batch_size": 2, "checkpoint_every_steps": 5, "gradient_checkpointing": True}
    check_resumable(tmp_path, build_options("sft", changed))
    with pytest.raises(SpecError, match=r"learning_rate is 2e-05, and .* was written with 1e-05.*micro_batch_size"):
        check_resumable(tmp_path, build_options("sft", changed | {"learning_rate": 2e-5}))


def test_a_suspicion_is_cleared_by_a_measurement_and_findings_survive_storage() -> None:
    suspected = warned("padding_is_end", token="<|im_end|>")
    assert [finding.level for finding in settle([suspected])] == [Level.WARNED]
    assert {finding.level for finding in settle([suspected, passed("padding_equal", difference="1e-6")])} == {
        Level.PASSED
    }
    assert Finding.from_json(suspected.as_json()) == suspected
    assert sentence(Finding(Level.WARNED, "a code of another version")) == "a code of another version"


def test_scores_that_depend_on_the_batch_are_seen() -> None:
    def steady(batch: list[list[int]]) -> list[float]:
        return [float(sum(ids)) for ids in batch]

    def reads_its_neighbours(batch: list[list[int]]) -> list[float]:
        return [sum(ids) + 0.01 * len(batch) for ids in batch]

    def reads_its_place(batch: list[list[int]]) -> list[float]:
        return [sum(ids) + 0.1 * place for place, ids in enumerate(batch)]

    conversations = [[1, 2], [3], [4, 5, 6]]
    assert largest_difference(steady, conversations) == 0
    assert largest_difference(reads_its_neighbours, conversations) == pytest.approx(0.02)
    assert largest_difference(reads_its_place, conversations) == pytest.approx(0.2)


# ── On a data set ────────────────────────────────────────────────────────────────────────────────────────────────


def checked(base: Checkpoint, method: str = "dpo", **options: Any) -> Outcome:
    project = make_judged_project()
    make_judgment(make_comparison(project, prompt=make_prompt(project, "Long?"), a_text="word " * 400), "a")
    snapshot = create_snapshot(project, project.slug, eval_share=0)
    return run_checks(snapshot, method, base, build_options(method, options))


@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir")
def test_lengths_samples_and_special_tokens(tiny_model: Path) -> None:
    base = register_base_checkpoint("tiny", tiny_model)
    outcome = checked(base, max_tokens=256)
    found = said(outcome.findings)
    assert (found["boundary"], found["padding_is_end"], found["template"]) == ("passed", "warned", "passed")
    assert found["too_long_by_side"] == "warned"
    sides = outcome.histogram["sides"]
    assert {side: sum(drawn["bars"]) for side, drawn in sides.items()} == {"chosen": 13, "rejected": 13}
    assert sides["chosen"]["longest"] > 400 > 256 > sides["rejected"]["longest"]
    assert BINS * outcome.histogram["width"] > sides["chosen"]["longest"]
    assert outcome.rows["train"]["used"] == 12

    project = make_judged_project(3)
    snapshot = create_snapshot(project, "three", eval_share=0)
    counter = TokenCounter(tiny_model)
    ids = run_checks(snapshot, "dpo", base, build_options("dpo", {})).sample_ids
    shown = list(samples(snapshot, "dpo", counter, ids))
    assert len(shown) == 3
    [chosen, rejected] = shown[0].sides
    learnt = "".join(token.text for token in chosen.learnt)
    assert learnt.startswith("Thank you, I am glad to help.")
    assert learnt.endswith("<|im_end|>\n")
    assert "".join(token.text for token in chosen.read).endswith("<|im_start|>assistant\n")
    assert {token.text for token in chosen.read if token.is_special} == {"<|im_start|>", "<|im_end|>"}
    assert "".join(token.text for token in rejected.learnt).startswith("No idea")
    [scored, _] = next(iter(samples(snapshot, "reward", counter, ids))).sides
    assert [token.text for token in scored.learnt] == ["\n"]  # a reward model answers once, at the end


@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir")
def test_rows_longer_than_the_limit_are_left_out_cut_or_refuse_the_start(tiny_model: Path) -> None:
    base = register_base_checkpoint("tiny", tiny_model)
    project = make_judged_project(6)
    long, filled = (
        make_comparison(project, prompt=make_prompt(project, text), a_text="word " * 400)
        for text in ("Long?", "word " * 300)
    )
    for comparison in (long, filled):
        make_judgment(comparison, "a")
    snapshot = create_snapshot(project, "set", eval_share=0)

    def look(method: str, long_rows: str) -> tuple[dict[str, str], dict[str, Any]]:
        options = build_options(method, {"max_tokens": 256, "long_rows": long_rows})
        outcome = run_checks(snapshot, method, base, options)
        train = outcome.rows["train"]
        written = [row["id"] for row in rows_of(snapshot, "train", method, base, options)]
        assert len(written) == train["used"]
        # KTO learns from each side by itself, and one side of it is short.
        assert written.count(long.pk) == (long_rows == "truncate") + (method == "kto") and filled.pk not in written
        return said(outcome.findings), train

    for method, used in (("dpo", 6), ("reward", 6), ("sft", 6), ("kto", 13)):
        found, train = look(method, "drop")
        by_side = "_by_side" if method in ("dpo", "reward") else ""
        assert f"too_long{by_side}" in found
        left_out = [long.pk, filled.pk]
        assert train["left_out"] == {"too_long": left_out}, method
        assert train["used"] == used

        found, train = look(method, "truncate")
        # A prompt that fills the window leaves nothing of the response to learn from.
        assert train["left_out"] == {"cut": [long.pk], "too_long": [filled.pk]}
        assert {f"cut{by_side}", f"too_long{by_side}"} <= set(found) and "none_cut" not in found
        assert (train["cut"], train["used"], train["longest_tokens"]) == (1, used + 1, 256)

        [sample] = samples(snapshot, method, TokenCounter(tiny_model), [long.pk], cut_at=256)
        assert len(sample.sides[0].read + sample.sides[0].learnt) == 256
        assert sample.sides[0].learnt[-1].text != "\n"  # what ends a response is gone

        found, train = look(method, "raise")
        assert found["long_rows_raise"] == "refused"


@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir")
def test_a_template_that_renders_an_answered_prompt_otherwise_is_noticed(tiny_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "model"
    shutil.copytree(tiny_model, other)
    # As reasoning models do: an open tag is put before the answer only when it is asked for.
    template = CHAT_TEMPLATE.replace("assistant\n' }}{% endif %}", "assistant\n<think>' }}{% endif %}")
    (other / "chat_template.jinja").write_text(template)
    write_manifest(other)
    outcome = checked(register_base_checkpoint("thinking", other))
    assert said(outcome.findings)["boundary_moves"] == "blocked"


@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir")
def test_a_base_that_wrote_with_another_template_blocks(tiny_model: Path) -> None:
    base = register_base_checkpoint("tiny", tiny_model)
    source = publish_checkpoint(base)
    prompt = make_prompt(make_project())
    mine = TokenCounter(tiny_model).template_sha256
    written = Response.objects.create(
        prompt=prompt, source=source, sample_index=0, text="Hello", text_sha256="0" * 64, template_sha256=mine
    )
    base.refresh_from_db()
    assert said(checked(base).findings)["served_alike"] == "passed"
    Response.objects.filter(pk=written.pk).update(template_sha256="f" * 64)
    assert said(checked(base).findings)["served_otherwise"] == "blocked"


@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir")
def test_the_templates_that_the_rows_were_written_with_are_counted(tiny_model: Path) -> None:
    base = register_base_checkpoint("tiny", tiny_model)
    snapshot = create_snapshot(make_judged_project(6), "six", eval_share=0)

    def found(method: str = "dpo") -> dict[str, str]:
        outcome = run_checks(snapshot, method, base, build_options(method, {}))
        return {one.code: sentence(one) for one in outcome.findings if one.code.startswith("written")}

    assert found() == {"written_unknown": "No chat template is recorded for the 12 responses of the training rows"}
    responses = list(Response.objects.order_by("pk"))
    mine = TokenCounter(tiny_model).template_sha256
    Response.objects.filter(pk__in=[one.pk for one in responses[:10]]).update(template_sha256=mine)
    assert "10 responses" in found()["written_alike"] and "for 2 none" in found()["written_alike"]
    # Chosen responses come first in each pair.
    Response.objects.filter(pk=responses[0].pk).update(template_sha256="f" * 64)
    Response.objects.filter(pk__in=[responses[1].pk, responses[3].pk]).update(template_sha256="e" * 64)
    assert found()["written_otherwise"].startswith("3 of 12 responses of the training rows were written with another")
    assert "eeeeeeeeeeee… (2), ffffffffffff… (1)" in found()["written_otherwise"]
    assert "1 of 6" in found("sft")["written_otherwise"], "of chosen responses alone"
    outcome = run_checks(snapshot, "dpo", base, build_options("dpo", {}))
    assert said(outcome.findings)["written_otherwise"] == "warned"


@pytest.mark.django_db
@pytest.mark.usefixtures("data_dir")
def test_pairs_with_equal_sides_in_an_older_data_set_are_left_out_and_counted(tiny_model: Path) -> None:
    base = register_base_checkpoint("tiny", tiny_model)
    snapshot = create_snapshot(make_judged_project(7), "seven", eval_share=0)
    file = Path(storages["snapshots"].path(snapshot_path(snapshot.sha256, "train")))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows[:5]:
        row["b"]["text"] = row["a"]["text"]
    file.chmod(0o644)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = build_options("dpo", {})
    outcome = run_checks(snapshot, "dpo", base, options)
    assert outcome.rows["train"]["used"] == 2
    [left_out] = [sentence(one) for one in outcome.findings if one.code == "no_side"]
    assert left_out == "Comparisons without a side to learn from left out: 5 between equal texts"
    written = list(rows_of(snapshot, "train", "dpo", base, options))
    assert [row["id"] for row in written] == [row["id"] for row in rows[5:]], "what the job gets"


def test_every_finding_has_words_of_its_own() -> None:
    folder = Path(__file__).resolve().parents[1] / "rlhf" / "preflight"
    source = "".join(path.read_text() for path in folder.glob("*.py") if path.name != "sentences.py")
    used = set(re.findall(r'(?:passed|warned|blocked|refused|by_share)\(\s*"(\w+)"', source))
    assert used <= set(WORDS), used - set(WORDS)
