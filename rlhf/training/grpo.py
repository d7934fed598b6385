"""Group-relative policy optimisation by TRL: `python -m rlhf.training.grpo JOB_DIR`.

Rows: `{"prompt": messages}`. Source: Shao et al. 2024 (arXiv 2402.03300); the KL is in the loss, by k3. The variant
with the KL in the token reward is `grpo_token_kl`.
"""

from __future__ import annotations

from functools import partial
from typing import cast

from rlhf.options import GRPOOptions
from rlhf.training.job import Job, main


def train(job: Job) -> dict[str, float]:
    """Train, evaluate and save; gives the metrics of result.json."""
    from trl import GRPOConfig, GRPOTrainer

    from rlhf.training.group_methods import GroupJobTrainer, train_group_method

    class JobGRPOTrainer(GroupJobTrainer, GRPOTrainer):
        pass

    options = cast(GRPOOptions, job.spec.options)
    return train_group_method(job, options, JobGRPOTrainer, partial(GRPOConfig, loss_type=options.loss_type))


if __name__ == "__main__":
    main("grpo", train, "Group-relative policy optimisation over a job directory.")
