"""Proximal policy optimisation: `python -m rlhf.training.ppo JOB_DIR`.

Rows: `{"prompt": messages}`, and `{"prompt", "completion"}` for the KL on chosen responses (rlhf/training/prompts.py).
"""

from __future__ import annotations

from rlhf.training.job import Job, main


def train(job: Job) -> dict[str, float]:
    """Train, evaluate and save; gives the metrics of result.json."""
    from rlhf.training.policy_gradient import train

    return train(job)


if __name__ == "__main__":
    main("ppo", train, "Proximal policy optimisation over a job directory.")
