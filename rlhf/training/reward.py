"""A Bradley–Terry reward model: `python -m rlhf.training.reward JOB_DIR`.

Rows: `{"prompt": messages, "chosen": [assistant message], "rejected": [assistant message]}`.
Loss: −log σ(score of chosen − score of rejected), the score read after the last token of the whole conversation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from rlhf.evaluation.reward_card import pair_metrics
from rlhf.options import RewardOptions
from rlhf.training.job import Job, main
from rlhf.training.rows import RowSet, read_data

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def train(job: Job) -> dict[str, float]:
    """Train, evaluate on the held-out pairs and save; gives the metrics of result.json."""
    options = cast(RewardOptions, job.spec.options)
    train_rows, eval_rows = read_data(job, "chosen", "rejected")

    from datasets import Dataset
    from transformers import set_seed
    from trl import RewardConfig, RewardTrainer

    from rlhf.training import models
    from rlhf.training.shared_prompt import share_prompts
    from rlhf.training.trainer import JobTrainer, metrics_row, row_counts, training_arguments

    class JobRewardTrainer(JobTrainer, RewardTrainer):
        pass

    set_seed(options.seed)  # the score head is drawn here
    tokenizer = models.load_tokenizer(job.base)
    model = models.load_reward_model(job.base, tokenizer)
    share_prompts(model)
    trainer = JobRewardTrainer(
        job=job,
        train_tokens=train_rows.tokens,
        model=model,
        args=RewardConfig(
            **training_arguments(job),
            max_length=None,  # rows that are too long were left out and counted
            center_rewards_coefficient=options.center_rewards_coefficient or None,
        ),
        train_dataset=Dataset.from_list(train_rows.rows),
        eval_dataset=Dataset.from_list(eval_rows.rows) if eval_rows.rows and options.eval_every_steps else None,
        processing_class=tokenizer,
        peft_config=models.lora_config(job, "SEQ_CLS"),
    )
    metrics = row_counts(train_rows, eval_rows) | trainer.run()
    if job.stopped in ("discard", "terminated"):
        return metrics
    trained = trainer.accelerator.unwrap_model(trainer.model)
    if eval_rows.rows and job.is_main:
        held_out = held_out_metrics(job, trained, tokenizer, eval_rows)
        job.write_metrics(metrics_row(trainer.state.global_step, trainer.state.max_steps, held_out))
        metrics |= held_out
    models.save_model(job, trained)
    return metrics


def held_out_metrics(
    job: Job, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: RowSet
) -> dict[str, float]:
    """The reward model's card on pairs that it has not seen, each name with `eval_` in front."""
    from rlhf.training.scoring import score_pairs

    pairs = [(row["prompt"] + row["chosen"], row["prompt"] + row["rejected"]) for row in rows.rows]
    scores = score_pairs(model, tokenizer, pairs, bf16=job.spec.options.bf16, on_pass=job.heartbeat)
    lengths = [[len(side[-1]["content"]) for side in pair] for pair in pairs]
    card = pair_metrics(*zip(*scores, strict=True), *zip(*lengths, strict=True))
    return {f"eval_{name}": value for name, value in card.items()}


if __name__ == "__main__":
    main("reward", train, "A Bradley–Terry reward model over a job directory.")
