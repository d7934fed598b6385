"""Direct preference optimisation: `python -m rlhf.training.dpo JOB_DIR`.

Rows: `{"prompt": messages, "chosen": [assistant message], "rejected": [assistant message]}`.

Differs from Rafailov et al. (2023) in nothing but where the reference lives: its log-probabilities are computed once,
before the first step, from the base model itself (adapters switched off), and no second model is kept in memory.
"""

from __future__ import annotations

from typing import cast

from rlhf.options import DPOOptions
from rlhf.training.job import Job, main
from rlhf.training.rows import read_data


def train(job: Job) -> dict[str, float]:
    """Train, evaluate and save; gives the metrics of result.json."""
    options = cast(DPOOptions, job.spec.options)
    train_rows, eval_rows = read_data(job, "chosen", "rejected")

    from datasets import Dataset
    from transformers import set_seed
    from trl import DPOConfig, DPOTrainer

    from rlhf.training import models
    from rlhf.training.shared_prompt import share_prompts
    from rlhf.training.trainer import JobTrainer, cut_at, row_counts, score_only_completions, training_arguments

    class JobDPOTrainer(JobTrainer, DPOTrainer):
        pass

    losses, weights = options.losses
    set_seed(options.seed)
    model = models.load_policy(job.base)
    share_prompts(model)
    score_only_completions()
    trainer = JobDPOTrainer(
        job=job,
        train_tokens=train_rows.tokens,
        model=model,
        args=DPOConfig(
            **training_arguments(job),
            max_length=cut_at(options),
            beta=options.beta,
            loss_type=losses,
            loss_weights=weights,
            label_smoothing=options.label_smoothing,
            f_divergence_type=options.f_divergence,
            f_alpha_divergence_coef=options.f_alpha,
            ld_alpha=options.ld_alpha if options.ld_alpha != 1 else None,
            use_weighting=options.wpo_weighting,
            discopop_tau=options.discopop_tau,
            precompute_ref_log_probs=True,
        ),
        train_dataset=Dataset.from_list(train_rows.rows),
        eval_dataset=Dataset.from_list(eval_rows.rows) if eval_rows.rows else None,
        eval_categories=eval_rows.categories,
        processing_class=models.load_tokenizer(job.base),
        peft_config=models.lora_config(job, "CAUSAL_LM"),
    )
    return row_counts(train_rows, eval_rows) | trainer.train_and_save()


if __name__ == "__main__":
    main("dpo", train, "Direct preference optimisation over a job directory.")
