"""What TRL's GRPO and RLOO trainers have in common here. Rows: `{"prompt": messages}`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import set_seed

from rlhf.jobspec import BadDataError
from rlhf.options import GRPOOptions, RLOOOptions
from rlhf.training import models
from rlhf.training.job import Job
from rlhf.training.prompts import read_prompts
from rlhf.training.rewards import load_rewards
from rlhf.training.trainer import JobTrainer, row_counts, training_arguments


class EpochSampler(Sampler[int]):
    """TRL's order of prompts, shuffled by seed and epoch alone.

    Its own shuffling goes on from epoch to epoch (TRL 1.16), so that a run resumed in the second one would see the
    prompts of the first again.
    """

    def __init__(self, sampler: Any, seed: int) -> None:
        self.sampler = sampler
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        self.sampler.generator.manual_seed(self.seed * 1_000_003 + epoch)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        return iter(self.sampler)


class GroupJobTrainer(JobTrainer):
    """Goes in front of TRL's GRPOTrainer or RLOOTrainer."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return EpochSampler(super()._get_train_sampler(train_dataset), self.job.spec.options.seed)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids: Any) -> torch.Tensor:
        trainer: Any = self
        rewards: torch.Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids)  # type: ignore[misc]
        if not trainer.model.training:  # of all processes, (N, rewards); the rest is this process's own
            texts = [(prompt, done[-1]["content"]) for prompt, done in zip(prompts, completions, strict=True)]
            totals = (rewards * trainer.reward_weights.to(rewards.device)).nansum(1).tolist()
            lengths = gather_object([len(ids) for ids in completion_ids])
            self._insights.judge(
                (prompt, text, length, total)
                for (prompt, text), length, total in zip(gather_object(texts), lengths, totals, strict=True)
            )
        return rewards


def train_group_method(
    job: Job,
    options: GRPOOptions | RLOOOptions,
    trainer_class: type[GroupJobTrainer],
    configure: Callable[..., Any],
) -> dict[str, float]:
    """Train, evaluate and save; gives the metrics of result.json.

    `configure` makes the trainer's config of what both trainers call alike and of what is its own.
    """
    train, held_out = (rows.prompts for rows in read_prompts(job, options))
    prompts_per_step = options.batch_size // options.samples_per_prompt
    if len(train.rows) < prompts_per_step:
        raise BadDataError(
            f"Each step samples from {prompts_per_step} prompts (batch_size over samples_per_prompt), and there are "
            f"{len(train.rows)}: lower batch_size, or raise samples_per_prompt"
        )
    set_seed(options.seed)
    tokenizer = models.load_tokenizer(job.base)
    arguments = training_arguments(job)
    # Evaluation takes whole groups; training need not, because groups are sampled for a whole step.
    arguments["per_device_eval_batch_size"] = math.lcm(options.micro_batch_size, options.samples_per_prompt)
    rewards = load_rewards(job, options, tokenizer)
    trainer: Any = trainer_class(
        job=job,
        train_tokens=None,
        model=models.load_policy(job.base),
        reward_funcs=rewards,
        args=configure(
            **arguments,
            num_generations=options.samples_per_prompt,
            max_completion_length=options.max_completion_tokens,
            temperature=options.temperature,
            # The base's own settings would make the samples those of another model than the one that is trained.
            top_p=1.0,
            top_k=0,
            repetition_penalty=1.0,
            beta=options.kl_coefficient,
            epsilon=options.clip_range,
            reward_weights=[reward.weight for reward in rewards],
            use_vllm=options.use_vllm,
            vllm_mode="colocate",
        ),
        train_dataset=Dataset.from_list(train.rows),
        eval_dataset=Dataset.from_list(held_out.rows) if held_out.rows else None,
        processing_class=tokenizer,
        peft_config=models.lora_config(job, "CAUSAL_LM"),
    )
    for reward in rewards:
        reward.to(trainer.accelerator.device)
    metrics: dict[str, float] = row_counts(train, held_out) | trainer.train_and_save()
    return metrics
