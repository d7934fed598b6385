"""GRPO with the KL in the token reward: `python -m rlhf.training.grpo_token_kl JOB_DIR`.

Rows: `{"prompt": messages}`, and `{"prompt", "completion"}` for the KL on chosen responses (rlhf/training/prompts.py).
"""

from __future__ import annotations

from rlhf.training.job import Job, main


def train(job: Job) -> dict[str, float]:
    """Train, evaluate and save; gives the metrics of result.json."""
    from rlhf.training.policy_gradient import train

    return train(job)


if __name__ == "__main__":
    main("grpo_token_kl", train, "GRPO with the KL in the token reward over a job directory.")
