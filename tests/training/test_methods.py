"""Each method on a tiny model: it learns what it should, its numbers are the formula's, its model can be loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf.jobspec import BadDataError, Result, check_manifest
from rlhf.model_directory import check_model_directory, model_kind
from rlhf.token_lengths import TokenCounter
from rlhf.training.rows import read_rows
from tests.training.conftest import JobRunner, losses_of, metrics_of, pair, toy_rows

pytestmark = [pytest.mark.training, pytest.mark.slow]


def weights(directory: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(directory / "model.safetensors")


def result_of(job_dir: Path) -> Result:
    result = Result.read(job_dir)
    assert result is not None
    return result


def log_sigmoid(value: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0.0, -value)


def completion_log_probability(directory: Path, prompt: list, completion: list) -> float:
    """Σ log p of the completion's tokens, from plain logits in NumPy."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    start = len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False))
    ids = np.array(tokenizer.apply_chat_template(prompt + completion, return_dict=False))
    with torch.no_grad():
        logits = model(torch.tensor(ids[None])).logits[0].double().numpy()  # (T, vocabulary)
    log_probabilities = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return float(sum(log_probabilities[t - 1, ids[t]] for t in range(start, len(ids))))


def test_sft_learns_the_completions_and_changes_every_weight(jobs: JobRunner, base: Path) -> None:
    too_long = {**toy_rows("sft", 1)[0], "completion": [{"role": "assistant", "content": "long " * 300}]}
    job_dir = jobs.run(
        "sft", "sft", train_rows=[*toy_rows("sft", 24), too_long], epochs=4, max_tokens=200, checkpoint_every_steps=10
    )
    result = result_of(job_dir)
    assert result.status == "succeeded"
    assert (result.metrics["rows_used"], result.metrics["rows_too_long"]) == (24, 1)
    losses = losses_of(job_dir)
    assert list(losses) == list(range(1, 25))
    assert losses[24] < losses[1] / 2
    assert result.metrics["eval_loss"] < losses[1] / 2

    before, after = weights(base), weights(job_dir / "model")
    assert before.keys() == after.keys()
    assert [name for name in before if np.array_equal(before[name], after[name])] == []
    assert {str(value.dtype) for value in after.values()} == {"float32"}


@pytest.mark.parametrize("method", ["sft", "reward", "dpo", "kto"])
def test_a_long_row_is_cut_where_that_was_chosen(jobs: JobRunner, method: str) -> None:
    rows = toy_rows(method, 4)
    for row in rows:
        for side in ("completion", "chosen"):
            if side in row:
                row[side] = [{"role": "assistant", "content": "long " * 300}]
    filled = {**rows[0], "prompt": [{"role": "user", "content": "long " * 100}]}
    job_dir = jobs.run(
        f"cut-{method}", method, train_rows=[*rows, filled], max_steps=1, max_tokens=96, long_rows="truncate"
    )
    metrics = result_of(job_dir).metrics
    assert (metrics["rows_used"], metrics["rows_cut"], metrics["rows_too_long"]) == (len(rows), len(rows), 1)
    insights = [json.loads(line) for line in (job_dir / "insights.jsonl").read_text().splitlines()]
    [batch] = [line for line in insights if line["kind"] == "first_batch"]
    cut = [row for row in batch["rows"] if row["side"] != "rejected"]
    assert cut and {row["tokens"] for row in cut} == {96}
    for row in cut:
        text = "".join(part[0] for part in row["parts"])
        assert "long" in text and not text.rstrip().endswith("<|im_end|>")


def test_long_rows_are_left_out_or_refused_where_that_was_chosen(base: Path, tmp_path: Path) -> None:
    counter = TokenCounter(base)
    rows = toy_rows("sft", 2)
    rows[1]["completion"] = [{"role": "assistant", "content": "long " * 300}]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    left = read_rows(path, ("completion",), counter, 96, long_rows="drop")
    assert (len(left.rows), left.too_long, left.cut) == (1, 1, 0)
    cut = read_rows(path, ("completion",), counter, 96, long_rows="truncate")
    assert (cut.too_long, cut.cut, cut.tokens[-1]) == (0, 1, 96)
    with pytest.raises(BadDataError, match=r"line 2 has .* long_rows is raise"):
        read_rows(path, ("completion",), counter, 96, long_rows="raise")


def test_what_a_finished_job_leaves_behind(jobs: JobRunner, base: Path) -> None:
    job_dir = jobs.run("files", "sft", epochs=1, checkpoint_every_steps=2)
    assert {path.name for path in job_dir.iterdir()} == {
        "spec.json", "train.jsonl", "eval.jsonl", "metrics.jsonl", "heartbeat", "insights.jsonl", "checkpoints",
        "model", "result.json",
    }  # fmt: skip
    # 6 steps: the last two of the checkpoints at 2, 4 and 6
    assert sorted(path.name for path in (job_dir / "checkpoints").iterdir()) == ["step-4", "step-6"]
    for name in ("step-4", "step-6"):
        check_manifest(job_dir / "checkpoints" / name)
        assert not (job_dir / "checkpoints" / name / "training_args.bin").exists()
    check_model_directory(job_dir / "model")
    assert model_kind(job_dir / "model") == "policy"
    assert json.loads((job_dir / "model" / "generation_config.json").read_text())["do_sample"] is True
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (job_dir / "model" / name).read_bytes() == (base / name).read_bytes()


def test_metrics_have_one_line_a_step(jobs: JobRunner) -> None:
    job_dir = jobs.run("metrics", "dpo", max_steps=4, eval_every_steps=2)
    rows = metrics_of(job_dir)
    steps = [row for row in rows if "loss" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4]
    for row in steps:
        assert row["total_steps"] == 4
        assert {"epoch", "learning_rate", "grad_norm", "rewards/accuracies", "rewards/margins", "logps/chosen"} <= set(
            row
        )
        assert row["seconds"] > 0 and row["tokens_per_second"] > 0 and row["peak_memory_gb"] > 0.1
        assert all(isinstance(value, int | float) for value in row.values())
    assert [row["step"] for row in rows if "eval_loss" in row] == [2, 4, 4]
    assert "eval_rewards/accuracies" in rows[-1]


def test_a_reward_model_separates_pairs_that_it_has_not_seen(jobs: JobRunner, base: Path) -> None:
    job_dir = jobs.run("reward", "reward", epochs=3, eval_rows=toy_rows("reward", 30, start=100))
    metrics = result_of(job_dir).metrics
    assert metrics["eval_pairs"] == 30
    assert metrics["eval_accuracy"] > 0.95
    assert metrics["eval_accuracy_lower"] < metrics["eval_accuracy"] <= metrics["eval_accuracy_upper"]
    assert metrics["eval_margin"] > 1
    chosen_longer = np.mean(
        [len(r["chosen"][0]["content"]) > len(r["rejected"][0]["content"]) for r in map(pair, range(100, 130))]
    )
    assert metrics["eval_longer_chosen_share"] == pytest.approx(chosen_longer)
    assert model_kind(job_dir / "model") == "reward"
    before, after = weights(base), weights(job_dir / "model")
    assert set(after) - set(before) == {"score.weight"}
    assert [name for name in before if np.array_equal(before[name], after[name])] == []


def test_the_first_reward_loss_is_bradley_terry(jobs: JobRunner, base: Path) -> None:
    """One step over all rows: its loss is that of the base with its seeded score head, computed here pair by pair."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

    rows = toy_rows("reward", 8)
    job_dir = jobs.run("bt", "reward", train_rows=rows, batch_size=8, micro_batch_size=4, max_steps=1, seed=5)
    set_seed(5)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)

    def score(messages: list) -> float:
        ids = tokenizer.apply_chat_template(messages, return_dict=False)
        with torch.no_grad():
            return model.score(model.model(torch.tensor([ids])).last_hidden_state[0, -1]).item()

    margins = np.array([score(row["prompt"] + row["chosen"]) - score(row["prompt"] + row["rejected"]) for row in rows])
    assert losses_of(job_dir)[1] == pytest.approx(float(np.mean(-log_sigmoid(margins))), rel=1e-4)


@pytest.mark.parametrize("use_lora", [True, False])
def test_dpo_raises_the_margin_and_its_loss_is_the_formula(jobs: JobRunner, base: Path, use_lora: bool) -> None:
    # 7 held-out rows in micro-batches of 2: the last, single row must not count double in the mean
    held_out = toy_rows("dpo", 7, start=100)
    job_dir = jobs.run("dpo", "dpo", eval_rows=held_out, epochs=3, use_lora=use_lora, beta=0.2)
    metrics = result_of(job_dir).metrics
    losses = losses_of(job_dir)
    assert losses[1] == pytest.approx(np.log(2), abs=1e-4)
    assert losses[max(losses)] < 0.5
    assert metrics["eval_rewards/accuracies"] == 1.0

    log_ratios = {
        side: np.array(
            [
                completion_log_probability(job_dir / "model", row["prompt"], row[side])
                - completion_log_probability(base, row["prompt"], row[side])
                for row in held_out
            ]
        )
        for side in ("chosen", "rejected")
    }
    margins = 0.2 * (log_ratios["chosen"] - log_ratios["rejected"])
    assert metrics["eval_rewards/margins"] == pytest.approx(float(np.mean(margins)), rel=1e-3)
    assert metrics["eval_loss"] == pytest.approx(float(np.mean(-log_sigmoid(margins))), rel=1e-3)

    before, after = weights(base), weights(job_dir / "model")
    assert before.keys() == after.keys()
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == ({name for name in before if "_proj" in name} if use_lora else set(before))


def test_sft_packs_rows_and_a_reward_model_trains_with_lora(jobs: JobRunner) -> None:
    packed = jobs.run("packed", "sft", packing=True, max_tokens=256, micro_batch_size=1, batch_size=1, epochs=1)
    assert len(losses_of(packed)) < 24  # steps, where unpacked rows would take one each
    assert result_of(packed).metrics["rows_used"] == 24

    lora = jobs.run("lora", "reward", use_lora=True, epochs=3, learning_rate=1e-2)
    assert result_of(lora).metrics["eval_accuracy"] > 0.95
    assert not [name for name in weights(lora / "model") if "lora" in name]
    check_model_directory(lora / "model")


def test_a_checkpoint_can_be_the_next_base(jobs: JobRunner) -> None:
    first = jobs.run("first", "sft", max_steps=1)
    jobs.base = first / "model"
    second = jobs.run("second", "dpo", max_steps=1)
    assert result_of(second).status == "succeeded"


def test_a_loss_that_is_not_a_number_ends_the_job_with_advice(jobs: JobRunner, base: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.numpy import save_file

    huge = tmp_path / "huge"
    shutil.copytree(base, huge)
    values = weights(huge)
    # Each weight is a number, and the logits are none.
    values["model.norm.weight"] = values["model.norm.weight"] * np.float32(3e38)
    values["model.embed_tokens.weight"] = values["model.embed_tokens.weight"] * np.float32(1e3)
    save_file(values, huge / "model.safetensors", metadata={"format": "pt"})
    jobs.base = huge
    job_dir = jobs.prepare("nan", "sft")
    assert jobs.execute(job_dir) == 1
    row = metrics_of(job_dir)[0]
    assert row["loss"] is None
    assert "loss" in row["nonfinite"]
    result = result_of(job_dir)
    assert (result.status, result.failure_class) == ("failed", "bad_data")
    assert "at step 1: training diverged" in result.error
    assert not (job_dir / "model").exists()


def test_kto_tells_desirable_from_undesirable_and_starts_where_the_formula_says(jobs: JobRunner, base: Path) -> None:
    job_dir = jobs.run("kto", "kto", batch_size=8, micro_batch_size=4, epochs=6, use_lora=False, learning_rate=2e-3)
    losses = losses_of(job_dir)
    # At the start policy and reference are the same model, every reward is 0 and the loss is σ(0) = ½ (eq. 8).
    assert losses[1] == pytest.approx(0.5, abs=1e-5)
    assert losses[max(losses)] < 0.3
    row, result = pair(200), result_of(job_dir)
    assert result.metrics["eval_rewards/margins"] > 0.5
    change = {
        side: completion_log_probability(job_dir / "model", row["prompt"], row[side])
        - completion_log_probability(base, row["prompt"], row[side])
        for side in ("chosen", "rejected")
    }
    assert change["chosen"] > change["rejected"]


def test_kto_refuses_rows_that_are_all_of_one_kind(jobs: JobRunner) -> None:
    rows = [{**row, "label": True} for row in toy_rows("kto", 4)]
    job_dir = jobs.prepare("one-kind", "kto", train_rows=rows)
    assert jobs.execute(job_dir) != 0
    result = result_of(job_dir)
    assert (result.status, result.failure_class) == ("failed", "bad_data")
    assert "8 rows are desirable" in result.error
