"""A reward model: `python -m rlhf.training.reward JOB_DIR`.

Rows: `{"prompt": messages, "chosen": [assistant message], "rejected": [assistant message]}`, and, where the options
ask for them, `"p_chosen"` (share of votes), `"strength"` (mean of people's steps), `"chosen_normalised"` and
`"rejected_normalised"` ({aspect: score or null}, on the scales that spec.json gives).
Loss: rlhf/training/reward_loss.py, the score read after the last token of the whole conversation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from rlhf.evaluation.reward_card import pair_metrics
from rlhf.jobspec import REWARD_CARD_FILE, BadDataError, write_json_atomically
from rlhf.options import RewardOptions
from rlhf.training.job import Job, main
from rlhf.training.rows import RowSet, read_data

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def train(job: Job) -> dict[str, float]:
    """Train, evaluate on the held-out pairs and save; gives the metrics of result.json."""
    options = cast(RewardOptions, job.spec.options)
    train_rows, eval_rows = read_data(
        job, "chosen", "rejected", keep=_columns(options), known=("id", "strength", "votes")
    )
    aspects = _aspects(job, train_rows)

    from datasets import Dataset
    from transformers import set_seed
    from trl import RewardConfig

    from rlhf.training import models
    from rlhf.training.reward_loss import RewardCollator, ScoredRewardTrainer, targets_of
    from rlhf.training.shared_prompt import share_prompts
    from rlhf.training.trainer import JobTrainer, cut_at, metrics_row, row_counts, training_arguments

    class JobRewardTrainer(JobTrainer, ScoredRewardTrainer):
        pass

    def columns(row: dict[str, Any]) -> dict[str, Any]:
        found = {side: row[side] for side in ("prompt", "chosen", "rejected")}
        if options.soft_labels:
            found["p_chosen"] = row["p_chosen"]
        if options.margin_per_strength:
            found["margin"] = options.margin_per_strength * row["strength"]
        if options.score_weight:
            for side in ("chosen", "rejected"):
                found[f"{side}_targets"] = targets_of(row[f"{side}_normalised"], aspects, heads=options.aspect_heads)
        return found

    set_seed(options.seed)  # the score head is drawn here
    tokenizer = models.load_tokenizer(job.base)
    model = models.new_reward_model(
        job.base, tokenizer, aspects if options.aspect_heads else (), job.spec.score_scales
    )
    share_prompts(model)
    trainer = JobRewardTrainer(
        job=job,
        options=options,
        train_tokens=train_rows.tokens,
        model=model,
        # TRL would leave out what is to be cut.
        args=RewardConfig(**training_arguments(job), max_length=None),
        data_collator=RewardCollator(pad_token_id=tokenizer.pad_token_id, cut_at=cut_at(options)),
        train_dataset=Dataset.from_list([columns(row) for row in train_rows.rows]),
        eval_dataset=Dataset.from_list([columns(row) for row in eval_rows.rows])
        if eval_rows.rows and options.eval_every_steps
        else None,
        eval_categories=eval_rows.categories,
        processing_class=tokenizer,
        peft_config=models.lora_config(job, "SEQ_CLS"),
    )
    metrics = row_counts(train_rows, eval_rows) | trainer.run()
    if job.stopped in ("discard", "terminated"):
        return metrics
    with trainer.whole_model() as trained:
        if eval_rows.rows and job.is_main:
            held_out = held_out_metrics(job, trained, tokenizer, eval_rows, aspects)
            job.write_metrics(metrics_row(trainer.state.global_step, trainer.state.max_steps, held_out))
            metrics |= held_out
        models.save_model(job, trained)
    return metrics


def _columns(options: RewardOptions) -> tuple[str, ...]:
    """What the options ask for of each row, beside its texts."""
    wanted = {
        "p_chosen": options.soft_labels,
        "strength": options.margin_per_strength,
        "chosen_normalised": options.score_weight,
        "rejected_normalised": options.score_weight,
    }
    return tuple(name for name, is_wanted in wanted.items() if is_wanted)


def _aspects(job: Job, rows: RowSet) -> tuple[str, ...]:
    """The aspects that are learnt from, in order. Raises BadDataError where there is no score to learn from."""
    if not cast(RewardOptions, job.spec.options).score_weight:
        return ()
    sides = ("chosen_normalised", "rejected_normalised")
    if not any(score is not None for row in rows.rows for side in sides for score in (row[side] or {}).values()):
        raise BadDataError("No response in train.jsonl has an absolute score: set score_weight to 0.")
    return tuple(sorted(job.spec.score_scales))


def held_out_metrics(
    job: Job,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: RowSet,
    aspects: tuple[str, ...],
) -> dict[str, float]:
    """What scores on pairs that it has not seen say of the model, each name with `eval_` in front.

    Leaves the scores and the probes behind, of which the web side makes the model's card.
    """
    from rlhf.training.reward_loss import targets_of
    from rlhf.training.reward_probes import probe_model
    from rlhf.training.scoring import head_scores

    options = cast(RewardOptions, job.spec.options)
    pairs = [(row["prompt"] + row["chosen"], row["prompt"] + row["rejected"]) for row in rows.rows]
    heads = head_scores(model, tokenizer, pairs, bf16=options.bf16, on_pass=job.heartbeat)
    lengths = [[len(side[-1]["content"]) for side in pair] for pair in pairs]
    ranking = [(chosen[0], rejected[0]) for chosen, rejected in heads]
    card = pair_metrics(*zip(*ranking, strict=True), *zip(*lengths, strict=True))
    probes = probe_model(model, tokenizer, pairs, ranking, bf16=options.bf16, on_pass=job.heartbeat)
    scored = [
        {"scores": scores, "lengths": sizes} | {name: row[name] for name in ("id", "strength", "votes") if name in row}
        for row, scores, sizes in zip(rows.rows, ranking, lengths, strict=True)
    ]
    write_json_atomically(job.directory / REWARD_CARD_FILE, {"pairs": scored, "probes": probes})
    if options.score_weight:
        squares = [
            (score - target) ** 2
            for row, pair in zip(rows.rows, heads, strict=True)
            for side, scores in zip(("chosen", "rejected"), pair, strict=True)
            for score, target in zip(
                scores, targets_of(row[f"{side}_normalised"], aspects, heads=options.aspect_heads), strict=True
            )
            if not math.isnan(target)
        ]
        if squares:
            card["score_error"] = math.sqrt(math.fsum(squares) / len(squares))
    return {f"eval_{name}": value for name, value in card.items()} | _by_category(rows.categories, ranking)


def _by_category(categories: Sequence[str], scores: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Accuracy and margin of each category, named as the trainer's own; nothing where all rows are of one."""
    from rlhf.training.trainer import rows_by_category

    places = rows_by_category(categories)
    metrics: dict[str, float] = {}
    for category, rows in places.items() if len(places) > 1 else ():
        margins = [scores[row][0] - scores[row][1] for row in rows]
        name = f"eval_category/{category}"
        metrics[f"{name}/accuracy"] = sum(margin > 0 for margin in margins) / len(margins)
        metrics[f"{name}/margin"] = math.fsum(margins) / len(margins)
        metrics[f"{name}/rows"] = len(margins)
    return metrics


if __name__ == "__main__":
    main("reward", train, "A reward model over a job directory.")
