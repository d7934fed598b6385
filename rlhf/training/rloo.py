"""REINFORCE with a leave-one-out baseline by TRL: `python -m rlhf.training.rloo JOB_DIR`.

Rows: `{"prompt": messages}`. Source: Ahmadian et al. 2024 (arXiv 2402.14740); β times the KL of a whole completion is
taken from its score, and the mean of the prompt's other completions is the baseline.
"""

from __future__ import annotations

from typing import cast

from rlhf.options import RLOOOptions
from rlhf.training.job import Job, main


def train(job: Job) -> dict[str, float]:
    """Train, evaluate and save; gives the metrics of result.json."""
    from trl import RLOOConfig, RLOOTrainer

    from rlhf.training.group_methods import GroupJobTrainer, train_group_method

    class JobRLOOTrainer(GroupJobTrainer, RLOOTrainer):
        pass

    return train_group_method(job, cast(RLOOOptions, job.spec.options), JobRLOOTrainer, RLOOConfig)


if __name__ == "__main__":
    main("rloo", train, "REINFORCE with a leave-one-out baseline over a job directory.")
