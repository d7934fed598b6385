"""Supervised fine-tuning: `python -m rlhf.training.sft JOB_DIR`.

Rows: `{"prompt": messages, "completion": [assistant message]}`; the loss is taken on the completion alone.
"""

from __future__ import annotations

from typing import Any, cast

from rlhf.options import SFTOptions, SpecError
from rlhf.training.job import Job, main
from rlhf.training.rows import read_data


def train(job: Job) -> dict[str, float]:
    """Train, evaluate and save; gives the metrics of result.json."""
    options = cast(SFTOptions, job.spec.options)
    train_rows, eval_rows = read_data(job, "completion")

    from datasets import Dataset
    from transformers import set_seed
    from trl import SFTConfig, SFTTrainer

    from rlhf.training import models
    from rlhf.training.packing import TokenUse, rows_are_isolated, unpacked_share
    from rlhf.training.trainer import JobTrainer, cut_at, row_counts, score_only_completions, training_arguments

    token_use = TokenUse()

    class JobSFTTrainer(JobTrainer, SFTTrainer):
        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            if model.training:
                token_use.see(inputs)
            return super().compute_loss(model, inputs, *args, **kwargs)

    set_seed(options.seed)
    score_only_completions()
    model = models.load_policy(job.base)
    if options.packing and not rows_are_isolated(model):
        raise SpecError("packing: with this model packed rows would see each other; choose packing=false")
    trainer = JobSFTTrainer(
        job=job,
        train_tokens=None if options.packing else train_rows.tokens,
        model=model,
        args=SFTConfig(
            **training_arguments(job),
            # Packing fills sequences of this length with whole rows, or with those that are cut there.
            max_length=options.max_tokens if options.packing else cut_at(options),
            packing=options.packing,
            eval_packing=False,
            completion_only_loss=True,
        ),
        train_dataset=Dataset.from_list(train_rows.rows),
        eval_dataset=Dataset.from_list(eval_rows.rows) if eval_rows.rows else None,
        eval_categories=eval_rows.categories,
        processing_class=models.load_tokenizer(job.base),
        peft_config=models.lora_config(job, "CAUSAL_LM"),
    )
    metrics = row_counts(train_rows, eval_rows) | trainer.train_and_save()
    return metrics | {
        "token_use": token_use.share,
        "token_use_unpacked": unpacked_share(train_rows.tokens, options.micro_batch_size, options.seed),
    }


if __name__ == "__main__":
    main("sft", train, "Supervised fine-tuning over a job directory.")
