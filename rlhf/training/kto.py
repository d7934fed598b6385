"""Kahneman–Tversky optimisation: `python -m rlhf.training.kto JOB_DIR`.

Rows: `{"prompt": messages, "completion": [assistant message], "label": bool}`; no pairs are needed.
Loss: Ethayarajh et al. 2024 (arXiv 2402.01306), eq. 8. The point of reference z is estimated in each micro-batch from
prompts with the completions of their neighbours, so rows are shuffled once and read in that order in every epoch.
"""

from __future__ import annotations

import random
from typing import cast

from rlhf.jobspec import BadDataError
from rlhf.options import KTOOptions
from rlhf.training.job import Job, main
from rlhf.training.rows import RowSet, read_data


def train(job: Job) -> dict[str, float]:
    """Train, evaluate and save; gives the metrics of result.json."""
    options = cast(KTOOptions, job.spec.options)
    train_rows, eval_rows = read_data(job, "completion", keep=("label",))
    check_labels(train_rows)
    for rows in (train_rows, eval_rows):
        random.Random(options.seed).shuffle(rows.rows)

    from datasets import Dataset
    from transformers import set_seed
    from trl import KTOConfig, KTOTrainer

    from rlhf.training import models
    from rlhf.training.trainer import JobTrainer, cut_at, row_counts, score_only_completions, training_arguments

    class JobKTOTrainer(JobTrainer, KTOTrainer):
        pass

    set_seed(options.seed)
    score_only_completions()
    trainer = JobKTOTrainer(
        job=job,
        train_tokens=None,
        model=models.load_policy(job.base),
        args=KTOConfig(
            **training_arguments(job),
            max_length=cut_at(options),
            beta=options.beta,
            loss_type=options.loss_type,
            desirable_weight=options.desirable_weight,
            undesirable_weight=options.undesirable_weight,
        ),
        train_dataset=Dataset.from_list(train_rows.rows),
        eval_dataset=Dataset.from_list(eval_rows.rows) if eval_rows.rows else None,
        processing_class=models.load_tokenizer(job.base),
        peft_config=models.lora_config(job, "CAUSAL_LM"),
    )
    return row_counts(train_rows, eval_rows) | trainer.train_and_save()


def check_labels(rows: RowSet) -> None:
    """Raise BadDataError where every row has the same label: there is nothing to tell apart."""
    desirable = sum(row["label"] for row in rows.rows)
    if desirable in (0, len(rows.rows)):
        which = "desirable" if desirable else "undesirable"
        raise BadDataError(f"All {len(rows.rows)} rows are {which}: KTO needs both desirable and undesirable ones.")


if __name__ == "__main__":
    main("kto", train, "Kahneman–Tversky optimisation over a job directory.")
