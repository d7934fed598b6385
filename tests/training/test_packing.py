"""Packed rows learn what they would learn alone, with hardly a token of padding."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from rlhf.jobspec import Result
from tests.training.conftest import JobRunner, Row, losses_of, toy_rows
from tests.training.test_methods import completion_log_probability

pytestmark = [pytest.mark.training, pytest.mark.slow]


def mixed_rows(count: int) -> list[Row]:
    """Short rows, and one in eight that is many times longer."""
    rows = toy_rows("sft", count)
    for number, row in enumerate(rows):
        text = "Yes." if number % 8 else "Thank you, the answer is long." + " It goes on." * 30
        row |= {
            "prompt": [{"role": "user", "content": "Why?"}],
            "completion": [{"role": "assistant", "content": text}],
        }
    return rows


def result_of(job_dir: Path) -> dict[str, float]:
    result = Result.read(job_dir)
    assert result is not None
    return result.metrics


def test_packed_logits_equal_those_of_each_row_alone(base: Path) -> None:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl.data_utils import pack_dataset
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from rlhf.training.packing import rows_are_isolated

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    assert rows_are_isolated(model.train()) and model.training
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randint(3, 300, (length,), generator=generator).tolist() for length in (5, 40, 17, 60, 9, 33)]
    packed = pack_dataset(Dataset.from_dict({"input_ids": rows}), seq_length=64, strategy="bfd")
    assert len(packed) == 3
    batch = DataCollatorForLanguageModeling(pad_token_id=2, padding_free=True)(list(packed))
    labels = batch.pop("labels")
    with torch.no_grad():
        together = model(**batch, use_cache=False).logits[0]
        begins = [*(batch["position_ids"][0] == 0).nonzero().flatten().tolist(), labels.shape[1]]
        assert len(begins) == len(rows) + 1
        for start, end in itertools.pairwise(begins):
            alone = model(batch["input_ids"][:, start:end], use_cache=False).logits[0]
            torch.testing.assert_close(together[start:end], alone, atol=1e-4, rtol=0)
            assert labels[0, start] == -100


def test_a_packed_step_has_the_loss_of_its_completions_alone(jobs: JobRunner, base: Path) -> None:
    from transformers import AutoTokenizer

    rows = toy_rows("sft", 12)
    job_dir = jobs.run(
        "step", "sft", train_rows=rows, eval_rows=[], packing=True, max_tokens=400, batch_size=4, micro_batch_size=4,
        max_steps=1,
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(base)
    log_probability = tokens = 0.0
    for row in rows:
        log_probability += completion_log_probability(base, row["prompt"], row["completion"])
        prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
        whole = tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=False)
        tokens += len(whole) - len(prompt)
    assert result_of(job_dir)["token_use"] == 1.0
    assert losses_of(job_dir)[1] == pytest.approx(-log_probability / tokens, rel=1e-4)


def test_use_of_tokens_rises_from_low_to_nearly_all_on_short_rows(jobs: JobRunner) -> None:
    options = {"max_tokens": 512, "batch_size": 8, "micro_batch_size": 8, "epochs": 1.0}
    packed = result_of(jobs.run("packed", "sft", train_rows=mixed_rows(64), eval_rows=[], packing=True, **options))
    assert packed["token_use_unpacked"] < 0.4
    assert packed["token_use"] > 0.9
    assert packed["rows_used"] == 64


def test_a_model_whose_packed_rows_would_see_each_other_is_refused(
    jobs: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    forward = LlamaForCausalLM.forward

    def with_a_mask(self: Any, input_ids: Any = None, *args: Any, **kwargs: Any) -> Any:
        # As an architecture does that makes its own mask: transformers then ignores the positions.
        return forward(self, input_ids, *args, **{"attention_mask": input_ids.new_ones(input_ids.shape), **kwargs})

    monkeypatch.setattr(LlamaForCausalLM, "forward", with_a_mask)
    job_dir = jobs.prepare("leaks", "sft", packing=True)
    assert jobs.execute(job_dir) == 1
    result = Result.read(job_dir)
    assert result is not None and result.failure_class == "bad_data"
    assert "packed rows would see each other" in result.error
